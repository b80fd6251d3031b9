//! Smithy RPC v2 CBOR: <https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>.

use super::raw::{Raw, Reading, fit, malformed};
use crate::{
    fault::{Detail, Fault},
    shape::{Kind, Shape},
    value::Value,
};
use ciborium::Value as Cbor;
use hyper::header::HeaderValue;

pub(crate) const CONTENT_TYPE: &str = "application/cbor";

/// Times are epoch seconds under this tag (RFC 8949 §3.4.2).
const EPOCH_TIME: u64 = 1;

/// Nesting beyond this is refused while reading, before any tree is built.
const READER_DEPTH: usize = super::MAX_DEPTH + 16;

pub(crate) fn header() -> (&'static str, HeaderValue) {
    ("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"))
}

pub(crate) fn decode(shape: &Shape, body: &[u8]) -> Result<Value, Fault> {
    if body.is_empty() {
        return fit(shape, Raw::Map(Vec::new()), Reading::Request);
    }
    let mut rest = body;
    let cbor: Cbor = ciborium::de::from_reader_with_recursion_limit(&mut rest, READER_DEPTH)
        .map_err(|_| malformed("the body is not CBOR"))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow the CBOR document"));
    }
    match fit(shape, raw(cbor)?, Reading::Request)? {
        structure @ Value::Structure(_) => Ok(structure),
        _ => Err(malformed("the document must be a map")),
    }
}

fn raw(cbor: Cbor) -> Result<Raw, Fault> {
    Ok(match cbor {
        Cbor::Null => Raw::Null,
        Cbor::Bool(on) => Raw::Boolean(on),
        Cbor::Integer(number) => i64::try_from(i128::from(number))
            .map(Raw::Integer)
            .map_err(|_| malformed("a number does not fit 64 bits"))?,
        Cbor::Float(number) => Raw::Double(number),
        Cbor::Text(text) => Raw::Text(text),
        Cbor::Bytes(bytes) => Raw::Bytes(bytes),
        Cbor::Tag(EPOCH_TIME, inner) => match *inner {
            Cbor::Integer(seconds) => Raw::Time(i128::from(seconds) as f64),
            Cbor::Float(seconds) => Raw::Time(seconds),
            _ => return Err(malformed("a time is not a number")),
        },
        Cbor::Array(items) => Raw::List(items.into_iter().map(raw).collect::<Result<_, _>>()?),
        Cbor::Map(entries) => {
            let entries = entries.into_iter().map(|(name, item)| match name {
                Cbor::Text(name) => Ok((name, raw(item)?)),
                _ => Err(malformed("a map's key is not text")),
            });
            Raw::Map(entries.collect::<Result<_, _>>()?)
        }
        _ => return Err(malformed("an unexpected CBOR item")),
    })
}

pub(crate) fn encode(shape: &Shape, value: &Value) -> Vec<u8> {
    to_bytes(&tree(shape, value))
}

fn to_bytes(cbor: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(cbor, &mut out).expect("writing into memory does not fail");
    out
}

fn tree(shape: &Shape, value: &Value) -> Cbor {
    match (&shape.kind, value) {
        (_, Value::Boolean(on)) => Cbor::Bool(*on),
        (_, Value::Integer(number)) => Cbor::Integer((*number).into()),
        (_, Value::Double(number)) => Cbor::Float(*number),
        (_, Value::String(text)) => Cbor::Text(text.clone()),
        (_, Value::Blob(bytes)) => Cbor::Bytes(bytes.to_vec()),
        (_, Value::Timestamp(time)) => {
            Cbor::Tag(EPOCH_TIME, Box::new(Cbor::Float(time.seconds_f64())))
        }
        (Kind::List { member, .. }, Value::List(items)) => {
            Cbor::Array(items.iter().map(|item| tree(member, item)).collect())
        }
        (Kind::Map { value: member, .. }, Value::Map(entries)) => {
            let entries = entries.iter();
            Cbor::Map(entries.map(|(k, v)| (Cbor::Text(k.clone()), tree(member, v))).collect())
        }
        (Kind::Structure(members), Value::Structure(values)) => {
            let present = members.iter().zip(values).filter_map(|(member, item)| {
                Some((Cbor::Text(member.name.to_owned()), tree(member.shape, item.as_ref()?)))
            });
            Cbor::Map(present.collect())
        }
        (_, value) => unreachable!("generated code gives values that fit: {value:?}"),
    }
}

pub(crate) fn fault(fault: &Fault) -> Vec<u8> {
    let text = |text: &str| Cbor::Text(text.to_owned());
    let mut entries =
        vec![(text("__type"), text(&fault.code)), (text("message"), text(&fault.message))];
    for (name, detail) in &fault.details {
        let detail = match detail {
            Detail::Text(value) => text(value),
            Detail::Number(number) => Cbor::Integer((*number).into()),
            Detail::List(values) => Cbor::Array(values.iter().map(|v| text(v)).collect()),
        };
        entries.push((text(name), detail));
    }
    to_bytes(&Cbor::Map(entries))
}

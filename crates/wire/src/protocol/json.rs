//! awsJson1.0 and 1.1: <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>.

use super::raw::{Raw, Reading, fit, malformed};
use crate::{
    fault::{Detail, Fault},
    shape::{Kind, Shape, TimeFormat},
    value::Value,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value as Json;
use world::Timestamp;

pub(crate) fn decode(shape: &Shape, body: &[u8]) -> Result<Value, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return fit(shape, Raw::Map(Vec::new()), Reading::Request);
    }
    let json = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
    match fit(shape, raw(json), Reading::Request)? {
        structure @ Value::Structure(_) => Ok(structure),
        _ => Err(malformed("the document must be an object")),
    }
}

/// Fits properties of a template to a request's shape.
pub(crate) fn properties(shape: &Shape, json: Json) -> Result<Value, Fault> {
    fit(shape, raw(json), Reading::Properties)
}

pub(crate) fn raw(json: Json) -> Raw {
    match json {
        Json::Null => Raw::Null,
        Json::Bool(on) => Raw::Boolean(on),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Raw::Integer(whole),
            None => Raw::Double(number.as_f64().unwrap_or(f64::INFINITY)),
        },
        Json::String(text) => Raw::Text(text),
        Json::Array(items) => Raw::List(items.into_iter().map(raw).collect()),
        Json::Object(entries) => {
            Raw::Map(entries.into_iter().map(|(name, item)| (name, raw(item))).collect())
        }
    }
}

pub(crate) fn encode(shape: &Shape, value: &Value) -> Vec<u8> {
    let mut out = String::new();
    write(shape, value, &mut out);
    out.into_bytes()
}

pub(crate) fn write(shape: &Shape, value: &Value, out: &mut String) {
    match (&shape.kind, value) {
        (_, Value::Boolean(on)) => out.push_str(if *on { "true" } else { "false" }),
        (_, Value::Integer(number)) => out.push_str(&number.to_string()),
        (_, Value::Double(number)) => write_double(*number, out),
        (_, Value::String(text)) => write_text(text, out),
        (_, Value::Blob(bytes)) => write_text(&BASE64.encode(bytes), out),
        (Kind::Timestamp(format), Value::Timestamp(time)) => write_time(*format, *time, out),
        (Kind::List { member, .. }, Value::List(items)) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(index, out);
                write(member, item, out);
            }
            out.push(']');
        }
        (Kind::Map { value: member, .. }, Value::Map(entries)) => {
            out.push('{');
            for (index, (name, item)) in entries.iter().enumerate() {
                separate(index, out);
                write_text(name, out);
                out.push(':');
                write(member, item, out);
            }
            out.push('}');
        }
        (Kind::Structure(members), Value::Structure(values)) => {
            out.push('{');
            let present = members.iter().zip(values).filter_map(|(m, v)| Some((m, v.as_ref()?)));
            for (index, (member, item)) in present.enumerate() {
                separate(index, out);
                write_text(member.name, out);
                out.push(':');
                write(member.shape, item, out);
            }
            out.push('}');
        }
        (_, value) => unreachable!("generated code gives values that fit: {value:?}"),
    }
}

fn separate(index: usize, out: &mut String) {
    if index > 0 {
        out.push(',');
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&Json::from(text).to_string());
}

fn write_double(number: f64, out: &mut String) {
    match number {
        n if n.is_nan() => out.push_str("\"NaN\""),
        f64::INFINITY => out.push_str("\"Infinity\""),
        f64::NEG_INFINITY => out.push_str("\"-Infinity\""),
        n => out.push_str(&Json::from(n).to_string()),
    }
}

fn write_time(format: TimeFormat, time: Timestamp, out: &mut String) {
    match format {
        TimeFormat::Iso8601 => write_text(&time.rfc3339(), out),
        TimeFormat::Protocol | TimeFormat::Epoch => write_double(time.seconds_f64(), out),
    }
}

pub(crate) fn fault(fault: &Fault) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    object.insert("__type".into(), fault.code.as_ref().into());
    object.insert("message".into(), fault.message.as_str().into());
    for (name, detail) in &fault.details {
        let detail = match detail {
            Detail::Text(text) => text.as_str().into(),
            Detail::Number(number) => (*number).into(),
            Detail::List(values) => values.clone().into(),
        };
        object.insert((*name).into(), detail);
    }
    Json::Object(object).to_string().into_bytes()
}

//! What JSON and CBOR have in common: a tree without a shape, and the walk that fits it to one.

use crate::{
    fault::Fault,
    protocol::MAX_DEPTH,
    shape::{Family, Kind, Member, Shape, TimeFormat},
    value::Value,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use world::Timestamp;

/// A document of JSON or CBOR before anything is known of its shape.
pub(crate) enum Raw {
    Null,
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// A CBOR time, in seconds since the epoch.
    Time(f64),
    List(Vec<Raw>),
    Map(Vec<(String, Raw)>),
}

impl Raw {
    /// How AWS's readers call such a token.
    fn token(&self) -> &'static str {
        match self {
            Self::Null => "NULL_VALUE",
            Self::Boolean(true) => "TRUE_VALUE",
            Self::Boolean(false) => "FALSE_VALUE",
            Self::Integer(_) | Self::Double(_) | Self::Time(_) => "NUMBER_VALUE",
            Self::Text(_) => "STRING_VALUE",
            Self::Bytes(_) => "BINARY_VALUE",
            Self::List(_) => "START_ARRAY",
            Self::Map(_) => "START_OBJECT",
        }
    }
}

/// How a document is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As clients' requests are: names to the letter, members that the shape does not have are passed over, as AWS
    /// does.
    Request,
    /// As properties of templates are: names whatever their case (templates have `Cpu` where ECS has `cpu`), numbers
    /// and booleans also as text and the other way round, and no member that the shape does not have.
    Properties,
}

/// Fits `raw` to `shape`.
pub(crate) fn fit(shape: &Shape, raw: Raw, reading: Reading) -> Result<Value, Fault> {
    fit_at(shape, raw, reading, 0)
}

fn fit_at(shape: &Shape, raw: Raw, reading: Reading, depth: usize) -> Result<Value, Fault> {
    if depth > MAX_DEPTH {
        return Err(malformed("the document nests too deeply"));
    }
    let raw = match reading {
        Reading::Request => raw,
        Reading::Properties => converted(&shape.kind, raw),
    };
    match (&shape.kind, raw) {
        (Kind::Boolean, Raw::Boolean(on)) => Ok(Value::Boolean(on)),
        (Kind::Integer { bits }, Raw::Integer(number)) => integer(*bits, number),
        // Python and JavaScript write whole numbers as `5.0` when they come from arithmetic.
        (Kind::Integer { bits }, Raw::Double(number)) if number.trunc() == number => {
            integer(*bits, number as i64)
        }
        (Kind::Double, Raw::Double(number)) => Ok(Value::Double(number)),
        (Kind::Double, Raw::Integer(number)) => Ok(Value::Double(number as f64)),
        (Kind::String { .. }, Raw::Text(text)) => Ok(Value::String(text)),
        (Kind::Blob, Raw::Text(text)) => BASE64
            .decode(text)
            .map(|bytes| Value::Blob(bytes.into()))
            .map_err(|_| malformed("a blob is not base64")),
        (Kind::Blob, Raw::Bytes(bytes)) => Ok(Value::Blob(Bytes::from(bytes))),
        (Kind::Timestamp(format), raw) => time(*format, raw),
        (Kind::List { member, .. }, Raw::List(items)) => {
            let fitted = items.into_iter().map(|item| fit_at(member, item, reading, depth + 1));
            fitted.collect::<Result<_, _>>().map(Value::List)
        }
        (Kind::Map { value, .. }, Raw::Map(entries)) => {
            let fitted = entries
                .into_iter()
                .filter(|(_, item)| !matches!(item, Raw::Null))
                .map(|(name, item)| Ok((name, fit_at(value, item, reading, depth + 1)?)));
            fitted.collect::<Result<_, _>>().map(Value::Map)
        }
        (Kind::Structure(members), Raw::Map(entries)) => {
            structure(members, entries, reading, depth)
        }
        (kind, raw) => {
            Err(malformed(format!("{} can not be converted to {}", raw.token(), expected(kind))))
        }
    }
}

fn structure(
    members: &[Member],
    entries: Vec<(String, Raw)>,
    reading: Reading,
    depth: usize,
) -> Result<Value, Fault> {
    let mut values: Vec<Option<Value>> = members.iter().map(|_| None).collect();
    for (name, item) in entries {
        let same = |member: &Member| match reading {
            Reading::Request => member.name == name,
            Reading::Properties => member.name.eq_ignore_ascii_case(&name),
        };
        let index = match (members.iter().position(same), reading) {
            (Some(index), _) => index,
            (None, Reading::Request) => continue,
            (None, Reading::Properties) => {
                return Err(malformed(format!("Neargate does not support the property {name}")));
            }
        };
        values[index] = match item {
            Raw::Null => None,
            item => Some(fit_at(members[index].shape, item, reading, depth + 1)?),
        };
    }
    Ok(Value::Structure(values))
}

/// A scalar as the kind that is wanted, where its text says one.
fn converted(kind: &Kind, raw: Raw) -> Raw {
    match (kind, raw) {
        (Kind::Boolean, Raw::Text(text)) if text == "true" => Raw::Boolean(true),
        (Kind::Boolean, Raw::Text(text)) if text == "false" => Raw::Boolean(false),
        (Kind::Integer { .. } | Kind::Double, Raw::Text(text)) => match text.parse() {
            Ok(whole) => Raw::Integer(whole),
            Err(_) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Raw::Double(number),
                _ => Raw::Text(text),
            },
        },
        (Kind::String { .. }, Raw::Boolean(on)) => Raw::Text(on.to_string()),
        (Kind::String { .. }, Raw::Integer(number)) => Raw::Text(number.to_string()),
        (Kind::String { .. }, Raw::Double(number)) => Raw::Text(number.to_string()),
        (_, raw) => raw,
    }
}

fn integer(bits: u8, number: i64) -> Result<Value, Fault> {
    if bits == 32 && i32::try_from(number).is_err() {
        return Err(malformed(format!("{number} does not fit an integer")));
    }
    Ok(Value::Integer(number))
}

fn time(format: TimeFormat, raw: Raw) -> Result<Value, Fault> {
    let seconds = match raw {
        Raw::Integer(seconds) => seconds as f64,
        Raw::Double(seconds) | Raw::Time(seconds) => seconds,
        Raw::Text(text) => {
            let time = Timestamp::parse_rfc3339(&text);
            let time = time.ok_or_else(|| malformed("a timestamp is not RFC 3339"));
            return time.map(Value::Timestamp);
        }
        other => {
            let wanted = expected(&Kind::Timestamp(format));
            return Err(malformed(format!("{} can not be converted to {wanted}", other.token())));
        }
    };
    if !seconds.is_finite() || seconds.abs() > 1e13 {
        return Err(malformed("a timestamp is out of range"));
    }
    Ok(Value::Timestamp(Timestamp::from_millis((seconds * 1000.0).round() as i64)))
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Boolean => "a Boolean",
        Kind::Integer { bits: 32 } => "an Integer",
        Kind::Integer { .. } => "a Long",
        Kind::Double => "a Double",
        Kind::String { .. } => "a String",
        Kind::Blob => "a Blob",
        Kind::Timestamp(_) => "a Timestamp",
        Kind::List { .. } => "a List",
        Kind::Map { .. } => "a Map",
        Kind::Structure(_) => "a Structure",
    }
}

pub(crate) fn malformed(message: impl Into<String>) -> Fault {
    Fault::serialization(Family::Json, message)
}

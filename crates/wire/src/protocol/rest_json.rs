//! restJson1: JSON bodies, other members in path, query string and headers.
//! <https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html>

use super::{
    Incoming, json,
    raw::{Raw, Reading, fit, malformed},
};
use crate::{
    fault::Fault,
    shape::{Kind, Location, Member, Operation, Shape},
    value::Value,
};
use bytes::Bytes;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;
use world::Timestamp;

/// The labels of `path` when it matches `template` (`/a/{b}/c`, `{b+}` takes several segments).
pub(crate) fn match_path(template: &str, path: &str) -> Option<Vec<(String, String)>> {
    let template = template.split('?').next().unwrap_or("");
    let mut labels = Vec::new();
    let mut wanted = template.trim_matches('/').split('/').peekable();
    let mut given = path.trim_matches('/').split('/').peekable();
    while let Some(part) = wanted.next() {
        let label = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        match label {
            None => {
                given.next_if(|segment| *segment == part)?;
            }
            Some(label) => match label.strip_suffix('+') {
                None => labels.push((label.to_owned(), segment(given.next()?)?)),
                Some(greedy) => {
                    let keep = wanted.clone().count();
                    let rest: Vec<&str> = given.by_ref().collect();
                    let taken = rest.len().checked_sub(keep).filter(|taken| *taken > 0)?;
                    labels.push((greedy.to_owned(), segment(&rest[..taken].join("/"))?));
                    let tail = rest[taken..].iter().copied();
                    return wanted.eq(tail).then_some(labels);
                }
            },
        }
    }
    given.next().is_none().then_some(labels)
}

fn segment(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned())
}

pub(crate) fn decode(operation: &Operation, incoming: &Incoming) -> Result<Value, Fault> {
    let payload = members(operation.input).iter().any(|m| m.location == Location::Payload);
    let body = if payload { &[][..] } else { incoming.body };
    let Value::Structure(mut values) = json::decode(operation.input, body)? else {
        unreachable!("an operation's input is a structure")
    };
    let labels = match_path(operation.http.1, incoming.uri.path())
        .ok_or_else(|| malformed("the path does not fit the operation"))?;
    for (member, value) in members(operation.input).iter().zip(&mut values) {
        let found: Vec<String> = match member.location {
            Location::Body | Location::Status => continue,
            Location::Payload => {
                let given = Some(incoming.body).filter(|body| !body.is_empty());
                *value = given.map(|body| Value::Blob(Bytes::copy_from_slice(body)));
                continue;
            }
            Location::Uri(label) => {
                labels.iter().filter(|(name, _)| name == label).map(|(_, v)| v.clone()).collect()
            }
            Location::QueryString(name) => query_values(incoming, name)?,
            Location::Header(name) => {
                let header = incoming.headers.get(name).map(HeaderValue::to_str).transpose();
                let header = header.map_err(|_| malformed("a header is not text"))?;
                header.map(str::to_owned).into_iter().collect()
            }
        };
        *value = from_text(member.shape, found)?;
    }
    Ok(Value::Structure(values))
}

fn members(shape: &Shape) -> &'static [Member] {
    match shape.kind {
        Kind::Structure(members) => members,
        _ => unreachable!("an operation's input and output are structures"),
    }
}

fn query_values(incoming: &Incoming, name: &str) -> Result<Vec<String>, Fault> {
    let mut values = Vec::new();
    for pair in incoming.uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let read = |text: &str| segment(&text.replace('+', " "));
        let key = read(key).ok_or_else(|| malformed("the query string is not UTF-8"))?;
        if key == name {
            values.push(read(value).ok_or_else(|| malformed("the query string is not UTF-8"))?);
        }
    }
    Ok(values)
}

fn from_text(shape: &Shape, mut found: Vec<String>) -> Result<Option<Value>, Fault> {
    if let Kind::List { member, .. } = &shape.kind {
        if found.is_empty() {
            return Ok(None);
        }
        let items = found.into_iter().map(|text| scalar(member, text));
        return items.collect::<Result<_, _>>().map(|items| Some(Value::List(items)));
    }
    found.pop().map(|text| scalar(shape, text)).transpose()
}

fn scalar(shape: &Shape, text: String) -> Result<Value, Fault> {
    let raw = match &shape.kind {
        Kind::Boolean => match text.as_str() {
            "true" => Raw::Boolean(true),
            "false" => Raw::Boolean(false),
            _ => Raw::Text(text),
        },
        Kind::Integer { .. } | Kind::Double => {
            serde_json::from_str(&text).map(json::raw).unwrap_or(Raw::Text(text))
        }
        _ => Raw::Text(text),
    };
    fit(shape, raw, Reading::Request)
}

pub(crate) fn encode(shape: &Shape, value: &Value) -> Vec<u8> {
    let Value::Structure(values) = value else {
        unreachable!("an operation's output is a structure")
    };
    let payload = members(shape).iter().zip(values).find(|(m, _)| m.location == Location::Payload);
    if let Some((_, whole)) = payload {
        return match whole {
            Some(Value::Blob(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        };
    }
    let body = members(shape)
        .iter()
        .zip(values)
        .map(|(member, item)| item.clone().filter(|_| member.location == Location::Body));
    json::encode(shape, &Value::Structure(body.collect()))
}

/// The status that a member of the answer says, or 200.
pub(crate) fn status(shape: &Shape, value: &Value) -> u16 {
    let Value::Structure(values) = value else {
        unreachable!("an operation's output is a structure")
    };
    let placed = members(shape).iter().zip(values).find(|(m, _)| m.location == Location::Status);
    match placed {
        Some((_, Some(Value::Integer(status)))) => u16::try_from(*status).unwrap_or(200),
        _ => 200,
    }
}

pub(crate) fn headers(shape: &Shape, value: &Value) -> Vec<(&'static str, HeaderValue)> {
    let Value::Structure(values) = value else {
        unreachable!("an operation's output is a structure")
    };
    let placed = members(shape).iter().zip(values).filter_map(|(member, item)| {
        let Location::Header(name) = member.location else { return None };
        let text = match item.as_ref()? {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(on) => on.to_string(),
            Value::Timestamp(time) => Timestamp::rfc3339(*time),
            _ => return None,
        };
        // Text that no header can carry was not a name or a token of ours; it is left out.
        HeaderValue::from_str(&text).ok().map(|value| (name, value))
    });
    placed.collect()
}

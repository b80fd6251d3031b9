//! awsQuery and ec2Query requests: <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html>.
//!
//! A form is flat; its names are paths (`Filters.member.1.Values.member.2`). They are first hung into a tree,
//! and the walk over the shape then picks what it knows.

use super::{Incoming, MAX_DEPTH};
use crate::{
    fault::Fault,
    shape::{Family, Kind, Member, Shape},
    value::Value,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use percent_encoding::percent_decode;
use std::{borrow::Cow, collections::BTreeMap};
use world::Timestamp;

/// More parameters than any AWS operation takes.
const MAX_PARAMETERS: usize = 20_000;

#[derive(Default)]
struct Node {
    text: Option<String>,
    children: BTreeMap<String, Node>,
}

/// The operation that a form names, for routing before it is decoded.
pub(crate) fn action(incoming: &Incoming) -> Option<String> {
    let parameters = parameters(incoming)?;
    parameters.into_iter().find(|(name, _)| name == "Action").map(|(_, value)| value)
}

pub(crate) fn decode(shape: &Shape, incoming: &Incoming, ec2: bool) -> Result<Value, Fault> {
    let family = if ec2 { Family::Ec2 } else { Family::Query };
    let malformed = |message: &str| Fault::serialization(family, message);
    let parameters = parameters(incoming).ok_or_else(|| malformed("the form is not UTF-8"))?;
    if parameters.len() > MAX_PARAMETERS {
        return Err(malformed("the form has too many parameters"));
    }
    let mut root = Node::default();
    for (name, value) in parameters {
        let mut node = &mut root;
        for (depth, part) in name.split('.').enumerate() {
            if depth > 2 * MAX_DEPTH {
                return Err(malformed("a parameter's name nests too deeply"));
            }
            node = node.children.entry(part.to_owned()).or_default();
        }
        node.text = Some(value);
    }
    Walk { ec2, family }.fit(shape, &root, "").map(|value| value.unwrap_or_else(|| empty(shape)))
}

fn empty(shape: &Shape) -> Value {
    match &shape.kind {
        Kind::Structure(members) => Value::Structure(members.iter().map(|_| None).collect()),
        _ => unreachable!("an operation's input is a structure"),
    }
}

/// The parameters of the query string and of the body, decoded; `None` when one is not UTF-8.
fn parameters(incoming: &Incoming) -> Option<Vec<(String, String)>> {
    let query = incoming.uri.query().unwrap_or("").as_bytes();
    let pairs = query.split(|b| *b == b'&').chain(incoming.body.split(|b| *b == b'&'));
    pairs
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let name = decoded(halves.next()?)?;
            let value = decoded(halves.next().unwrap_or(b""))?;
            Some((name, value))
        })
        .collect()
}

fn decoded(text: &[u8]) -> Option<String> {
    let spaced: Cow<[u8]> = if text.contains(&b'+') {
        text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect::<Vec<_>>().into()
    } else {
        text.into()
    };
    percent_decode(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

struct Walk {
    ec2: bool,
    family: Family,
}

impl Walk {
    /// `Ok(None)` when the node holds nothing of the shape's.
    fn fit(&self, shape: &Shape, node: &Node, at: &str) -> Result<Option<Value>, Fault> {
        match &shape.kind {
            Kind::Structure(members) => self.structure(members, node, at),
            Kind::List { member, item, flattened } => {
                // EC2 leaves the wrapper out everywhere; Query keeps it unless the list is flattened.
                let holder = match self.ec2 || *flattened {
                    true => Some(node),
                    false => node.children.get(*item).or_else(|| node.children.get("member")),
                };
                match holder {
                    Some(holder) => self.list(member, holder, at),
                    // `Tags=` stands for the empty list.
                    None => Ok(node.text.as_ref().map(|_| Value::List(Vec::new()))),
                }
            }
            Kind::Map { value, names, flattened, .. } => {
                let holder = if *flattened { Some(node) } else { node.children.get("entry") };
                holder.map(|holder| self.map(value, *names, holder, at)).transpose()
            }
            _ => node.text.as_deref().map(|text| self.scalar(shape, text, at)).transpose(),
        }
    }

    fn structure(&self, members: &[Member], node: &Node, at: &str) -> Result<Option<Value>, Fault> {
        if node.children.is_empty() {
            return Ok(None);
        }
        let values = members.iter().map(|member| match node.children.get(member.query) {
            Some(child) => self.fit(member.shape, child, &join(at, member.query)),
            None => Ok(None),
        });
        values.collect::<Result<_, _>>().map(|values| Some(Value::Structure(values)))
    }

    fn list(&self, member: &Shape, holder: &Node, at: &str) -> Result<Option<Value>, Fault> {
        let mut items = Vec::new();
        for (index, child) in numbered(holder) {
            let at = format!("{at}.{index}");
            // An element that is there but holds nothing is an empty structure, not a missing one.
            match self.fit(member, child, &at)? {
                Some(item) => items.push(item),
                None if matches!(member.kind, Kind::Structure(_)) => items.push(empty(member)),
                None => {}
            }
        }
        Ok(Some(Value::List(items)))
    }

    fn map(
        &self,
        value: &Shape,
        names: (&str, &str),
        holder: &Node,
        at: &str,
    ) -> Result<Value, Fault> {
        let mut entries = Vec::new();
        for (_, child) in numbered(holder) {
            let key = child.children.get(names.0).and_then(|key| key.text.clone());
            let item = child.children.get(names.1);
            if let (Some(key), Some(item)) = (key, item)
                && let Some(item) = self.fit(value, item, &join(at, &key))?
            {
                entries.push((key, item));
            }
        }
        Ok(Value::Map(entries))
    }

    fn scalar(&self, shape: &Shape, text: &str, at: &str) -> Result<Value, Fault> {
        let value = match &shape.kind {
            Kind::String { .. } => Some(Value::String(text.to_owned())),
            Kind::Boolean => match text {
                "true" | "True" | "TRUE" | "1" => Some(Value::Boolean(true)),
                "false" | "False" | "FALSE" | "0" => Some(Value::Boolean(false)),
                _ => None,
            },
            Kind::Integer { bits: 32 } => {
                text.parse::<i32>().ok().map(|number| Value::Integer(number.into()))
            }
            Kind::Integer { .. } => text.parse().ok().map(Value::Integer),
            Kind::Double => {
                text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Double)
            }
            Kind::Blob => BASE64.decode(text).ok().map(|bytes| Value::Blob(bytes.into())),
            Kind::Timestamp(_) => Timestamp::parse_rfc3339(text).map(Value::Timestamp),
            _ => unreachable!("lists, maps and structures are walked, not read"),
        };
        value.ok_or_else(|| self.bad_scalar(text, at))
    }

    fn bad_scalar(&self, text: &str, at: &str) -> Fault {
        let text: String = text.chars().take(256).collect();
        let message = format!("Value ({text}) for parameter {at} is invalid.");
        match self.family {
            Family::Ec2 => Fault::new("InvalidParameterValue", message),
            _ => Fault::serialization(self.family, message),
        }
    }
}

/// The children that are numbered, in the order of their numbers.
fn numbered(node: &Node) -> Vec<(u32, &Node)> {
    let numbered =
        node.children.iter().filter_map(|(name, child)| Some((name.parse().ok()?, child)));
    let mut numbered: Vec<(u32, &Node)> = numbered.collect();
    numbered.sort_by_key(|(index, _)| *index);
    numbered
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

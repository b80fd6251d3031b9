//! The intrinsic functions.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference.html>

use super::{
    error,
    evaluate::{KNOWN_AFTER_APPLY, Scope, function},
    malformed,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value as Json, json};
use std::net::Ipv4Addr;
use wire::Fault;

/// How much text the functions of a resource make, in bytes: a few lines with many references would make a gigabyte.
const MOST_TEXT: usize = 4 << 20;

/// The value of a function; `None` is `AWS::NoValue`.
pub(super) fn call(
    scope: &Scope,
    name: &str,
    argument: &Json,
    depth: usize,
) -> Result<Option<Json>, Fault> {
    let value = match name {
        "Ref" => {
            return scope.reference(argument.as_str().ok_or_else(|| wants("Ref", "a string"))?);
        }
        "Fn::If" => return choose(scope, argument, depth),
        "Fn::GetAtt" => get_att(scope, argument, depth)?,
        "Fn::Sub" => sub(scope, argument, depth)?,
        "Fn::FindInMap" => find_in_map(scope, argument, depth)?,
        "Fn::Equals" | "Fn::And" | "Fn::Or" | "Fn::Not" => {
            json!(condition(scope, &json!({ name: argument }), depth)?)
        }
        _ => {
            let argument = scope.evaluate(argument, depth)?.unwrap_or(Json::Null);
            if argument.to_string().contains(KNOWN_AFTER_APPLY) && name != "Fn::Join" {
                return Ok(Some(json!(KNOWN_AFTER_APPLY)));
            }
            plain(scope, name, &argument)?
        }
    };
    Ok(Some(value))
}

/// Functions of which the arguments are evaluated first.
fn plain(scope: &Scope, name: &str, argument: &Json) -> Result<Json, Fault> {
    match name {
        "Fn::Join" => join(scope, argument),
        "Fn::Select" => select(argument),
        "Fn::Split" => split(argument),
        "Fn::Base64" => {
            Ok(json!(BASE64.encode(scalar(argument).ok_or_else(|| wants(name, "a string"))?)))
        }
        "Fn::Cidr" => cidr(argument),
        "Fn::GetAZs" => Ok(zones(&scope.pseudo.region, scalar(argument))),
        "Fn::ImportValue" => import(scope, argument),
        "Fn::Length" => match argument {
            Json::Array(items) => Ok(json!(items.len())),
            _ => Err(wants(name, "a list")),
        },
        "Fn::ToJsonString" => Ok(json!(argument.to_string())),
        "Fn::Transform" => {
            let name = argument.get("Name").map(resource::text).unwrap_or_default();
            Err(super::transform::unknown(&name))
        }
        _ => Err(error(format!(
            "Encountered unsupported function: {name} Supported functions are: [Fn::Base64, Fn::GetAtt, Fn::GetAZs, \
             Fn::ImportValue, Fn::Join, Fn::Split, Fn::FindInMap, Fn::Select, Ref, Fn::Equals, Fn::If, Fn::Not, \
             Condition, Fn::And, Fn::Or, Fn::Contains, Fn::EachMemberEquals, Fn::EachMemberIn, Fn::ValueOf, \
             Fn::ValueOfAll, Fn::RefAll, Fn::Sub, Fn::Cidr]"
        ))),
    }
}

fn wants(name: &str, what: &str) -> Fault {
    error(format!("every {name} object must have {what} as its argument."))
}

pub(super) fn scalar(json: &Json) -> Option<String> {
    matches!(json, Json::String(_) | Json::Number(_) | Json::Bool(_)).then(|| resource::text(json))
}

fn bounded(scope: &Scope, text: String) -> Result<Json, Fault> {
    scope.made.set(scope.made.get() + text.len());
    if scope.made.get() > MOST_TEXT {
        return Err(malformed(format!("the functions make more than {MOST_TEXT} bytes of text")));
    }
    Ok(Json::String(text))
}

fn choose(scope: &Scope, argument: &Json, depth: usize) -> Result<Option<Json>, Fault> {
    let Some([name, yes, no]) = argument.as_array().map(Vec::as_slice) else {
        return Err(error("Fn::If requires a list argument with three parameters"));
    };
    let name = name.as_str().unwrap_or_default();
    let holds = scope.conditions.get(name);
    let holds =
        holds.ok_or_else(|| error(format!("unresolved condition dependency {name} in Fn::If")))?;
    scope.evaluate(if *holds { yes } else { no }, depth)
}

/// The resource and the attribute that `Fn::GetAtt` names.
pub(super) fn attribute_of(argument: &Json) -> (Option<String>, Option<Json>) {
    match argument {
        Json::String(text) => match text.split_once('.') {
            Some((name, attribute)) => (Some(name.to_owned()), Some(json!(attribute))),
            None => (Some(text.clone()), None),
        },
        Json::Array(parts) if parts.len() == 2 => {
            (parts[0].as_str().map(str::to_owned), Some(parts[1].clone()))
        }
        _ => (None, None),
    }
}

fn get_att(scope: &Scope, argument: &Json, depth: usize) -> Result<Json, Fault> {
    let (Some(name), Some(attribute)) = attribute_of(argument) else {
        return Err(error(
            "every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute",
        ));
    };
    let attribute = scope.evaluate(&attribute, depth)?.as_ref().and_then(scalar);
    scope.attribute(&name, &attribute.ok_or_else(|| wants("Fn::GetAtt", "a name"))?)
}

/// The text of `Fn::Sub` and its own variables.
pub(super) fn sub_parts(argument: &Json) -> (&str, Option<&Map<String, Json>>) {
    match argument {
        Json::String(text) => (text, None),
        Json::Array(parts) if parts.len() == 2 => {
            (parts[0].as_str().unwrap_or_default(), parts[1].as_object())
        }
        _ => ("", None),
    }
}

/// The pieces of `Fn::Sub`'s text: those that stand as they are, and variables.
fn pieces(text: &str) -> Vec<(&str, bool)> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else { break };
        pieces.push((before, false));
        match name.strip_prefix('!') {
            Some(_) => {
                let start = before.len() + 2;
                pieces.extend([("${", false), (&rest[start + 1..start + name.len() + 1], false)]);
            }
            None => pieces.push((name.trim(), true)),
        }
        rest = after;
    }
    pieces.push((rest, false));
    pieces
}

/// The variables of `Fn::Sub`'s text.
pub(super) fn variables(text: &str) -> Vec<String> {
    pieces(text)
        .into_iter()
        .filter(|(_, variable)| *variable)
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn sub(scope: &Scope, argument: &Json, depth: usize) -> Result<Json, Fault> {
    let well_formed = match argument {
        Json::String(_) => true,
        Json::Array(parts) => parts.len() == 2 && parts[0].is_string() && parts[1].is_object(),
        _ => false,
    };
    if !well_formed {
        return Err(error(
            "One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first \
             argument, and an optional second argument to specify a mapping of values to replace in the string",
        ));
    }
    let (text, own) = sub_parts(argument);
    let mut made = String::new();
    for (piece, variable) in pieces(text) {
        if !variable {
            made.push_str(piece);
            continue;
        }
        let known =
            piece.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:".contains(&byte));
        if piece.is_empty() || !known {
            return Err(error(
                "variable names in Fn::Sub syntax must contain only alphanumeric characters, underscores, \
                 periods, and colons",
            ));
        }
        let value = match (own.and_then(|own| own.get(piece)), piece.split_once('.')) {
            (Some(own), _) => scope.evaluate(own, depth)?,
            (None, Some((name, attribute))) => Some(scope.attribute(name, attribute)?),
            (None, None) => scope.reference(piece)?,
        };
        let value = value.as_ref().and_then(scalar);
        let value = value
            .ok_or_else(|| error(format!("the value of {piece} in Fn::Sub is not a string")))?;
        made.push_str(&value);
    }
    bounded(scope, made)
}

fn find_in_map(scope: &Scope, argument: &Json, depth: usize) -> Result<Json, Fault> {
    let parts = argument.as_array().filter(|parts| (3..=4).contains(&parts.len()));
    let parts = parts.ok_or_else(|| {
        error(
            "every Fn::FindInMap object requires three parameters, the map name, \
     map key and the attribute for return value",
        )
    })?;
    let mut path = Vec::new();
    for part in &parts[..3] {
        let name = scope.evaluate(part, depth)?.as_ref().and_then(scalar);
        path.push(name.ok_or_else(|| wants("Fn::FindInMap", "strings"))?);
    }
    let found =
        scope.template.mappings.get(&path[0]).and_then(|map| map.get(&path[1])?.get(&path[2]));
    let default = parts.get(3).and_then(|default| default.get("DefaultValue"));
    match (found, default) {
        (Some(found), _) => Ok(found.clone()),
        (None, Some(default)) => Ok(scope.evaluate(default, depth)?.unwrap_or(Json::Null)),
        (None, None) => {
            Err(error(format!("Unable to get mapping for {}::{}::{}", path[0], path[1], path[2])))
        }
    }
}

/// Whether a condition holds.
pub(super) fn condition(scope: &Scope, json: &Json, depth: usize) -> Result<bool, Fault> {
    let map = json.as_object().filter(|map| map.len() == 1);
    let (name, argument) = map.and_then(|map| map.iter().next()).ok_or_else(not_boolean)?;
    let parts = || argument.as_array().map(Vec::as_slice).unwrap_or_default();
    let some = |least: usize, most: usize| {
        let right = (least..=most).contains(&parts().len());
        right.then_some(()).ok_or_else(|| {
            error(format!(
                "every {name} object requires a list of {least} to {most} boolean parameters."
            ))
        })
    };
    match name.as_str() {
        "Condition" => {
            let name = argument.as_str().unwrap_or_default();
            scope.holds(Some(name))
        }
        "Fn::Equals" => {
            let [a, b] = parts() else {
                return Err(error(
                    "every Fn::Equals object requires a list of 2 string parameters.",
                ));
            };
            let (a, b) = (scope.evaluate(a, depth)?, scope.evaluate(b, depth)?);
            Ok(match (a.as_ref().and_then(scalar), b.as_ref().and_then(scalar)) {
                (Some(a), Some(b)) => a == b,
                _ => a == b,
            })
        }
        "Fn::Not" => {
            some(1, 1)?;
            Ok(!condition(scope, &parts()[0], depth + 1)?)
        }
        "Fn::And" | "Fn::Or" => {
            some(2, 10)?;
            let (mut all, mut any) = (true, false);
            for part in parts() {
                let holds = condition(scope, part, depth + 1)?;
                (all, any) = (all && holds, any || holds);
            }
            Ok(if name == "Fn::And" { all } else { any })
        }
        _ => match function(json.as_object().expect("seen above")) {
            Some((name, argument)) => match call(scope, name, argument, depth)? {
                Some(Json::Bool(holds)) => Ok(holds),
                Some(Json::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
                _ => Err(not_boolean()),
            },
            None => Err(not_boolean()),
        },
    }
}

fn not_boolean() -> Fault {
    malformed("Conditions can only be boolean operations on parameters and other conditions")
}

fn join(scope: &Scope, argument: &Json) -> Result<Json, Fault> {
    let wrong = || {
        error(
            "every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings to be \
             joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined.",
        )
    };
    let Some([Json::String(with), items]) = argument.as_array().map(Vec::as_slice) else {
        return Err(wrong());
    };
    let items = match items {
        Json::Array(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>(),
        Json::String(text) if text.contains(KNOWN_AFTER_APPLY) => Some(vec![text.clone()]),
        _ => None,
    };
    bounded(scope, items.ok_or_else(wrong)?.join(with))
}

fn select(argument: &Json) -> Result<Json, Fault> {
    let [index, items] = argument.as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(error(
            "every Fn::Select object requires two parameters, the first being the index and the second being a list",
        ));
    };
    let index = scalar(index).and_then(|index| index.parse::<usize>().ok());
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = index.and_then(|index| items.get(index));
    found.cloned().ok_or_else(|| error("Fn::Select cannot select nonexistent value at index"))
}

fn split(argument: &Json) -> Result<Json, Fault> {
    let [Json::String(at), Json::String(text)] =
        argument.as_array().map(Vec::as_slice).unwrap_or_default()
    else {
        return Err(error(
            "every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be \
             split or a function that returns a string to be split.",
        ));
    };
    if at.is_empty() {
        return Err(error("Fn::Split delimiter must not be empty"));
    }
    Ok(text.split(at.as_str()).collect())
}

/// `[block, count, bits]`: so many blocks out of a larger one, each with so many bits for hosts.
fn cidr(argument: &Json) -> Result<Json, Fault> {
    let wrong = || {
        error("Fn::Cidr expects an IPv4 block, a count from 1 to 256 and the bits of each block")
    };
    let parts = argument.as_array().map(Vec::as_slice).unwrap_or_default();
    let number =
        |index: usize| parts.get(index).and_then(scalar).and_then(|text| text.parse::<u32>().ok());
    let block = parts.first().and_then(scalar).ok_or_else(wrong)?;
    let (address, prefix) = block.split_once('/').ok_or_else(wrong)?;
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or_else(wrong)?;
    let count = number(1).filter(|count| (1..=256).contains(count)).ok_or_else(wrong)?;
    let bits = match parts.len() {
        2 => 8,
        _ => number(2).filter(|bits| (1..=32).contains(bits)).ok_or_else(wrong)?,
    };
    let (base, step) = (u64::from(u32::from(address)), 1u64 << bits);
    if step * u64::from(count) > 1u64 << (32 - prefix) {
        return Err(error(format!("Fn::Cidr: {count} blocks of {bits} bits do not fit {block}")));
    }
    let base = base & !((1u64 << (32 - prefix)) - 1);
    let blocks = (0..u64::from(count)).map(|index| {
        let address = Ipv4Addr::from(u32::try_from(base + index * step).unwrap_or(u32::MAX));
        format!("{address}/{}", 32 - bits)
    });
    Ok(blocks.collect())
}

/// Every region has three zones here.
fn zones(own: &str, region: Option<String>) -> Json {
    let region = region.filter(|region| !region.is_empty()).unwrap_or_else(|| own.to_owned());
    ["a", "b", "c"].iter().map(|zone| format!("{region}{zone}")).collect()
}

fn import(scope: &Scope, argument: &Json) -> Result<Json, Fault> {
    let name = scalar(argument).ok_or_else(|| wants("Fn::ImportValue", "a string"))?;
    let value = scope.outside.export(&name);
    let value =
        value.ok_or_else(|| crate::faults::validation(format!("No export named {name} found.")))?;
    scope.imported.borrow_mut().insert(name);
    Ok(json!(value))
}

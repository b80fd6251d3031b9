//! The transform `AWS::LanguageExtensions`: `Fn::ForEach`, which makes several entries of a map out of one.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference-foreach.html>

use super::{error, functions::scalar};
use serde_json::{Map, Value as Json, json};
use wire::Fault;

/// The transform's name.
pub(super) const NAME: &str = "AWS::LanguageExtensions";

const LOOP: &str = "Fn::ForEach::";

/// How deep loops nest, and how many entries all loops make: a few lines would make millions.
const MOST_DEPTH: usize = 5;
const MOST_ENTRIES: usize = 5000;

/// What a parameter that is a list comes to.
pub(super) type Lists<'a> = &'a dyn Fn(&str) -> Option<Vec<Json>>;

/// The template without loops.
pub(super) fn expand(tree: &Json, lists: Lists) -> Result<Json, Fault> {
    let mut left = MOST_ENTRIES;
    walk(tree, &[], lists, &mut left)
}

/// A loop's variable and its value.
type Bound = (String, String);

fn walk(json: &Json, bound: &[Bound], lists: Lists, left: &mut usize) -> Result<Json, Fault> {
    match json {
        Json::Object(map) => {
            if let (1, Some(name)) = (map.len(), map.get("Ref").and_then(Json::as_str))
                && let Some((_, value)) = bound.iter().find(|(known, _)| known == name)
            {
                return Ok(json!(value));
            }
            let mut made = Map::new();
            for (key, value) in map {
                match key.starts_with(LOOP) {
                    true => each(key, value, bound, lists, left, &mut made)?,
                    false => {
                        made.insert(replaced(key, bound), walk(value, bound, lists, left)?);
                    }
                }
            }
            Ok(Json::Object(made))
        }
        Json::Array(items) => items.iter().map(|item| walk(item, bound, lists, left)).collect(),
        Json::String(text) => Ok(Json::String(replaced(text, bound))),
        other => Ok(other.clone()),
    }
}

fn each(
    key: &str,
    value: &Json,
    bound: &[Bound],
    lists: Lists,
    left: &mut usize,
    made: &mut Map<String, Json>,
) -> Result<(), Fault> {
    let wrong = || {
        error(format!(
            "{key} could not be resolved: it takes an identifier, a collection and a map"
        ))
    };
    let Some([Json::String(name), collection, Json::Object(body)]) =
        value.as_array().map(Vec::as_slice)
    else {
        return Err(wrong());
    };
    if bound.len() == MOST_DEPTH {
        return Err(error(format!("Fn::ForEach can be nested {MOST_DEPTH} times at most")));
    }
    let collection = walk(collection, bound, lists, left)?;
    let items = match &collection {
        Json::Array(items) => items.clone(),
        Json::Object(map) => {
            map.get("Ref").and_then(Json::as_str).and_then(lists).ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    for item in items {
        let item = scalar(&item).ok_or_else(wrong)?;
        let mut inner = bound.to_vec();
        inner.push((name.clone(), item));
        *left = left
            .checked_sub(body.len())
            .ok_or_else(|| error("Fn::ForEach makes too much of this template"))?;
        let Json::Object(entries) = walk(&Json::Object(body.clone()), &inner, lists, left)? else {
            continue;
        };
        for (key, value) in entries {
            if made.insert(key.clone(), value).is_some() {
                return Err(error(format!("Fn::ForEach makes {key} twice")));
            }
        }
    }
    Ok(())
}

/// `${Name}` is the value; `&{Name}` is what of it can stand in a logical id.
fn replaced(text: &str, bound: &[Bound]) -> String {
    bound.iter().fold(text.to_owned(), |text, (name, value)| {
        let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
        text.replace(&format!("${{{name}}}"), value).replace(&format!("&{{{name}}}"), &plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_become_entries() {
        let tree = json!({
            "Fn::ForEach::Queues": ["Name", ["a.b", "c"], {
                "Queue&{Name}": {"Named": {"Ref": "Name"}, "Sub": {"Fn::Sub": "x-${Name}-${Other}"}},
            }],
            "Fn::ForEach::Pairs": ["X", {"Ref": "List"}, {"Fn::ForEach::Inner": ["Y", [1], {"P${X}${Y}": "${X}"}]}],
        });
        let list = |name: &str| (name == "List").then(|| vec![json!("p"), json!("q")]);
        let expected = json!({
            "Queueab": {"Named": "a.b", "Sub": {"Fn::Sub": "x-a.b-${Other}"}},
            "Queuec": {"Named": "c", "Sub": {"Fn::Sub": "x-c-${Other}"}},
            "Pp1": "p",
            "Pq1": "q",
        });
        assert_eq!(expand(&tree, &list).unwrap(), expected);
    }

    #[test]
    fn loops_are_bounded() {
        let hundred: Vec<u32> = (0..100).collect();
        let mut body = json!({"A${A}-${B}-${C}": 1});
        for name in ["A", "B", "C"] {
            body = json!({format!("Fn::ForEach::{name}"): [name, hundred, body]});
        }
        let told = expand(&body, &|_| None).unwrap_err().message;
        assert!(told.contains("too much"), "{told}");
        let twice = json!({"Fn::ForEach::T": ["X", ["a", "b"], {"Same": 1}]});
        assert!(expand(&twice, &|_| None).unwrap_err().message.contains("twice"));
    }
}

//! What AWS publishes of a resource type.
//! <https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html>

use crate::properties::{Properties, text};
use serde_json::{Map, Value as Json, json};

/// How deep properties are followed.
const MOST_DEPTH: usize = 32;

/// What AWS publishes of a resource type, of which codegen keeps what is needed here.
pub struct Schema {
    /// `{properties, definitions, required, createOnly, readOnly, primary, tags}`.
    json: Json,
}

/// How a type's tags are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tagging {
    /// A list of `Key` and `Value`.
    List,
    /// A map.
    Map,
}

impl Schema {
    pub(crate) fn new(json: Json) -> Self {
        Self { json }
    }

    fn names(&self, list: &str) -> impl Iterator<Item = &str> {
        self.json.get(list).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
    }

    /// Whether `Fn::GetAtt` can ask for this: some types give properties, too, of which the schema does not say so.
    pub fn has_attribute(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or(name);
        let property = self.json.get("properties").is_some_and(|all| all.get(first).is_some());
        property || self.names("readOnly").any(|path| path.replace('/', ".") == name)
    }

    /// In which property the type has tags, if it has any, and how it writes them.
    pub fn tagging(&self) -> Option<(&str, Tagging)> {
        let property = self.json.get("tags")?.as_str()?.strip_prefix("/properties/")?;
        let tags = self.followed(self.json.get("properties")?.get(property)?);
        match tags.get("type").and_then(Json::as_str) {
            Some("array") => Some((property, Tagging::List)),
            _ => Some((property, Tagging::Map)),
        }
    }

    /// Properties that differ and cannot be changed: the resource must be made anew. Paths, `Code/ImageUri`.
    pub fn replacing(&self, old: &Properties, new: &Properties) -> Vec<String> {
        let differ = |path: &&str| at(&old.0, path) != at(&new.0, path);
        self.names("createOnly").filter(differ).map(str::to_owned).collect()
    }

    /// The property by which the template itself names the resource, if it does.
    pub fn given_name(&self, properties: &Properties) -> Option<String> {
        let mut names = self.names("primary");
        let (name, None) = (names.next()?, names.next()) else { return None };
        properties.text(name)
    }

    /// What is wrong with the properties' names, in AWS's words: `#/A: extraneous key [X] is not permitted`.
    pub fn check(&self, properties: &Properties) -> Result<(), String> {
        self.check_at(&self.json, &Json::Object(properties.0.clone()), "#", 0)
    }

    fn followed<'a>(&'a self, node: &'a Json) -> &'a Json {
        let mut node = node;
        for _ in 0..MOST_DEPTH {
            let Some(reference) = node.get("$ref").and_then(Json::as_str) else { break };
            let found = self.json.pointer(reference.trim_start_matches('#'));
            node = found.unwrap_or(&Json::Null);
        }
        node
    }

    fn check_at(&self, node: &Json, value: &Json, path: &str, depth: usize) -> Result<(), String> {
        if depth > MOST_DEPTH {
            return Ok(());
        }
        let node = self.followed(node);
        match value {
            Json::Object(map) => self.check_object(node, map, path, depth),
            Json::Array(items) => {
                let Some(item) = node.get("items") else { return Ok(()) };
                let mut all = items.iter().enumerate();
                all.try_for_each(|(index, value)| {
                    self.check_at(item, value, &format!("{path}/{index}"), depth + 1)
                })
            }
            _ => Ok(()),
        }
    }

    fn check_object(
        &self,
        node: &Json,
        map: &Map<String, Json>,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        let Some(known) = node.get("properties").and_then(Json::as_object) else { return Ok(()) };
        for name in node.get("required").and_then(Json::as_array).into_iter().flatten().map(text) {
            if map.get(&name).is_none_or(Json::is_null) {
                return Err(format!("{path}: required key [{name}] not found"));
            }
        }
        let closed = node.get("closed") == Some(&json!(true));
        for (name, value) in map {
            match known.get(name) {
                Some(member) => {
                    self.check_at(member, value, &format!("{path}/{name}"), depth + 1)?;
                }
                None if closed => {
                    return Err(format!("{path}: extraneous key [{name}] is not permitted"));
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// The value at a path of property names; lists on the way are followed in all their elements.
fn at(map: &Map<String, Json>, path: &str) -> Json {
    let (first, rest) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
    let value = map.get(first).unwrap_or(&Json::Null);
    match (rest, value) {
        (None, value) => value.clone(),
        (Some(rest), Json::Object(inner)) => at(inner, rest),
        (Some(rest), Json::Array(items)) => {
            let rest = rest.trim_start_matches("*/");
            items
                .iter()
                .map(|item| item.as_object().map_or(Json::Null, |map| at(map, rest)))
                .collect()
        }
        _ => Json::Null,
    }
}

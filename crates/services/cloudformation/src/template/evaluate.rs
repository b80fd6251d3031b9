//! What a template's expressions come to. Branches that a condition does not take are not evaluated.

use super::{Template, Value, error, functions, malformed};
use serde_json::{Map, Value as Json, json};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};
use wire::Fault;

/// What stands, in a change set, for a value that only making the resource will tell. AWS writes it so.
pub(crate) const KNOWN_AFTER_APPLY: &str = "{{changeSet:KNOWN_AFTER_APPLY}}";

/// How deep functions nest at most.
const MOST_DEPTH: usize = 100;

/// What `AWS::…` refers to.
pub(crate) struct Pseudo {
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) stack_id: String,
    pub(crate) stack_name: String,
    pub(crate) notify: Vec<String>,
}

/// What lies outside of the stack.
pub(crate) trait Outside: Sync {
    /// The value of an export.
    fn export(&self, name: &str) -> Option<String>;
}

/// The stack's resources, as far as they are made.
pub(crate) trait Resources: Sync {
    /// What `Ref` gives.
    fn physical(&self, logical: &str) -> Option<Json>;
    /// What `Fn::GetAtt` gives.
    fn attribute(&self, logical: &str, attribute: &str) -> Option<Json>;
}

/// All that expressions refer to.
pub(crate) struct Scope<'a> {
    pub(crate) template: &'a Template,
    pub(crate) values: &'a BTreeMap<String, Value>,
    pub(crate) pseudo: &'a Pseudo,
    pub(crate) conditions: &'a BTreeMap<String, bool>,
    pub(crate) resources: &'a dyn Resources,
    pub(crate) outside: &'a dyn Outside,
    /// The exports that were asked for.
    pub(crate) imported: RefCell<BTreeSet<String>>,
    /// How much text the functions of this evaluation have made, in bytes.
    pub(crate) made: Cell<usize>,
}

impl Scope<'_> {
    /// The value of an expression that must have one.
    pub(crate) fn value(&self, json: &Json) -> Result<Json, Fault> {
        Ok(self.evaluate(json, 0)?.unwrap_or(Json::Null))
    }

    /// The value of a map of properties.
    pub(crate) fn map(&self, map: &Map<String, Json>) -> Result<Map<String, Json>, Fault> {
        self.made.set(0);
        match self.evaluate(&Json::Object(map.clone()), 0)? {
            Some(Json::Object(map)) => Ok(map),
            None => Ok(Map::new()),
            Some(_) => Err(malformed("Properties must be a map")),
        }
    }

    /// The value of an expression as text.
    pub(crate) fn text(&self, json: &Json) -> Result<String, Fault> {
        match self.evaluate(json, 0)? {
            Some(value @ (Json::String(_) | Json::Number(_) | Json::Bool(_))) => {
                Ok(resource::text(&value))
            }
            _ => Err(malformed("a string is expected")),
        }
    }

    /// Whether the resource or output of this condition is there.
    pub(crate) fn holds(&self, condition: Option<&str>) -> Result<bool, Fault> {
        let Some(name) = condition else { return Ok(true) };
        let holds = self.conditions.get(name).copied();
        holds.ok_or_else(|| malformed(format!("Unresolved condition dependency {name}")))
    }

    /// `None` is `AWS::NoValue`.
    pub(super) fn evaluate(&self, json: &Json, depth: usize) -> Result<Option<Json>, Fault> {
        if depth > MOST_DEPTH {
            return Err(malformed("the template nests too deeply"));
        }
        match json {
            Json::Object(map) => {
                if let Some((name, argument)) = function(map) {
                    return functions::call(self, name, argument, depth + 1);
                }
                let mut all = Map::new();
                for (name, value) in map {
                    if let Some(value) = self.evaluate(value, depth + 1)? {
                        all.insert(name.clone(), value);
                    }
                }
                Ok(Some(Json::Object(all)))
            }
            Json::Array(items) => {
                let items = items.iter().map(|item| self.evaluate(item, depth + 1));
                let items: Result<Vec<_>, _> = items.collect();
                Ok(Some(items?.into_iter().flatten().collect()))
            }
            scalar => Ok(Some(scalar.clone())),
        }
    }

    pub(super) fn reference(&self, name: &str) -> Result<Option<Json>, Fault> {
        if let Some(value) = self.values.get(name) {
            return Ok(Some(value.json()));
        }
        let pseudo = self.pseudo;
        let text = match name {
            "AWS::NoValue" => return Ok(None),
            "AWS::NotificationARNs" => return Ok(Some(json!(pseudo.notify))),
            "AWS::AccountId" => &pseudo.account,
            "AWS::Region" => &pseudo.region,
            "AWS::StackId" => &pseudo.stack_id,
            "AWS::StackName" => &pseudo.stack_name,
            "AWS::Partition" => "aws",
            "AWS::URLSuffix" => "amazonaws.com",
            _ => return self.resources.physical(name).map(Some).ok_or_else(|| unresolved(name)),
        };
        Ok(Some(json!(text)))
    }

    pub(super) fn attribute(&self, logical: &str, attribute: &str) -> Result<Json, Fault> {
        let declared = self.template.resources.get(logical);
        let declared = declared.filter(|_| self.resources.physical(logical).is_some());
        let declared = declared.ok_or_else(|| unresolved(logical))?;
        let value = self.resources.attribute(logical, attribute);
        value.ok_or_else(|| no_attribute(&declared.kind, attribute))
    }

    /// The resources that an expression refers to, in the branches that are taken.
    pub(crate) fn references(&self, json: &Json, found: &mut BTreeSet<String>) {
        let mut add = |name: &str| {
            if self.template.resources.contains_key(name) {
                found.insert(name.to_owned());
            }
        };
        let Json::Object(map) = json else {
            if let Json::Array(items) = json {
                items.iter().for_each(|item| self.references(item, found));
            }
            return;
        };
        match function(map) {
            Some(("Ref", Json::String(name))) => add(name),
            Some(("Fn::GetAtt", argument)) => {
                let (name, attribute) = functions::attribute_of(argument);
                name.iter().for_each(|name| add(name));
                attribute.iter().for_each(|attribute| self.references(attribute, found));
            }
            Some(("Fn::If", Json::Array(parts))) if parts.len() == 3 => {
                let holds = parts[0].as_str().and_then(|name| self.conditions.get(name));
                let taken = if holds.copied().unwrap_or(true) { &parts[1] } else { &parts[2] };
                self.references(taken, found);
            }
            Some(("Fn::Sub", argument)) => {
                let (text, own) = functions::sub_parts(argument);
                let names = functions::variables(text);
                let names =
                    names.iter().filter(|name| own.is_none_or(|own| !own.contains_key(*name)));
                names.for_each(|name| add(name.split('.').next().unwrap_or(name)));
                own.into_iter()
                    .flat_map(Map::values)
                    .for_each(|value| self.references(value, found));
            }
            _ => map.values().for_each(|value| self.references(value, found)),
        }
    }
}

fn unresolved(name: &str) -> Fault {
    malformed(format!(
        "Unresolved resource dependencies [{name}] in the Resources block of the template"
    ))
}

pub(super) fn no_attribute(kind: &str, attribute: &str) -> Fault {
    error(format!("resource type {kind} does not support attribute {{{attribute}}}"))
}

/// The function and its argument, if a map is a function.
pub(super) fn function(map: &Map<String, Json>) -> Option<(&str, &Json)> {
    let mut entries = map.iter();
    let ((name, argument), None) = (entries.next()?, entries.next()) else { return None };
    (name == "Ref" || name.starts_with("Fn::")).then_some((name, argument))
}

/// No resource is known yet, as in conditions.
struct NoResources;

impl Resources for NoResources {
    fn physical(&self, _: &str) -> Option<Json> {
        None
    }
    fn attribute(&self, _: &str, _: &str) -> Option<Json> {
        None
    }
}

/// Whether each of the template's conditions holds.
pub(crate) fn conditions(
    template: &Template,
    values: &BTreeMap<String, Value>,
    pseudo: &Pseudo,
    outside: &dyn Outside,
) -> Result<BTreeMap<String, bool>, Fault> {
    let mut known = BTreeMap::new();
    while known.len() < template.conditions.len() {
        let scope = Scope {
            template,
            values,
            pseudo,
            conditions: &known,
            resources: &NoResources,
            outside,
            imported: RefCell::default(),
            made: Cell::default(),
        };
        let mut found = Vec::new();
        for (name, json) in &template.conditions {
            let mut needs = BTreeSet::new();
            needed(json, &mut needs);
            if let Some(undefined) =
                needs.iter().find(|need| !template.conditions.contains_key(**need))
            {
                let message = format!(
                    "Unresolved condition dependency {undefined} in the Conditions block of the template"
                );
                return Err(malformed(message));
            }
            if !known.contains_key(name) && needs.iter().all(|need| known.contains_key(*need)) {
                found.push((name.clone(), functions::condition(&scope, json, 0)?));
            }
        }
        if found.is_empty() {
            let left = template.conditions.keys().filter(|name| !known.contains_key(*name));
            let left: Vec<&str> = left.map(String::as_str).collect();
            return Err(malformed(format!(
                "Circular dependency between conditions: [{}]",
                left.join(", ")
            )));
        }
        known.extend(found);
    }
    Ok(known)
}

/// The conditions that a condition is made of.
fn needed<'a>(json: &'a Json, found: &mut BTreeSet<&'a str>) {
    match json {
        Json::Object(map) => {
            for (name, value) in map {
                match (name.as_str(), value) {
                    ("Condition", Json::String(name)) => {
                        found.insert(name);
                    }
                    ("Fn::If", Json::Array(parts)) => {
                        found.extend(parts.first().and_then(Json::as_str));
                        parts.iter().for_each(|part| needed(part, found));
                    }
                    (_, value) => needed(value, found),
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| needed(item, found)),
        _ => {}
    }
}

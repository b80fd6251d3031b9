//! Any text at all as a template: what tests and fuzzing do with it.

use super::{
    Outside, Pseudo, Resources, Scope, Template, conditions, finish, include, is_needed, locations,
    read, values,
};
use serde_json::{Map, Value as Json, json};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};
use wire::Fault;

struct Nothing;

impl Outside for Nothing {
    fn export(&self, _: &str) -> Option<String> {
        None
    }
}

impl Resources for Nothing {
    fn physical(&self, _: &str) -> Option<Json> {
        Some(json!("id"))
    }
    fn attribute(&self, _: &str, _: &str) -> Option<Json> {
        None
    }
}

/// Reads a template, carries out its transforms (each snippet is the template's own `Mappings`), and evaluates the
/// properties of all its resources as if each resource were there.
///
/// # Errors
/// What is wrong with it, as CloudFormation says it.
pub fn attempt(text: &str) -> Result<BTreeMap<String, Map<String, Json>>, Fault> {
    let mut tree = read(text)?;
    let mut text = text.to_owned();
    if is_needed(&tree)? {
        let snippet = tree.get("Mappings").cloned().unwrap_or_default();
        let snippets = locations(&tree)?.iter().map(|_| snippet.clone()).collect();
        include(&mut tree, snippets)?;
        text = finish(tree)?.to_string();
    }
    let template = Template::load(&text, None)?;
    let (values, _) = values(&template.parameters, &BTreeMap::new(), &BTreeMap::new())?;
    let pseudo = Pseudo {
        account: "123456789012".to_owned(),
        region: "us-east-1".to_owned(),
        stack_id: "arn".to_owned(),
        stack_name: "s".to_owned(),
        notify: Vec::new(),
    };
    let conditions = conditions(&template, &values, &pseudo, &Nothing)?;
    let scope = Scope {
        template: &template,
        values: &values,
        pseudo: &pseudo,
        conditions: &conditions,
        resources: &Nothing,
        outside: &Nothing,
        imported: RefCell::default(),
        made: Cell::default(),
    };
    let evaluated = |(name, resource): (&String, &super::Resource)| {
        Ok((name.clone(), scope.map(&resource.properties)?))
    };
    template.resources.iter().map(evaluated).collect()
}

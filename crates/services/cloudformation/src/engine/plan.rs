//! A template with all that a stack gives it, ready to be evaluated.

use crate::{
    CloudFormation, faults,
    model::{self, Resource, Settings, Stack},
    template::{self, Outside, Pseudo, Resources, Scope, Template, Value},
};
use resource::{Known, Tagging};
use serde_json::{Map, Value as Json, json};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};
use store::{Snapshot, View};
use wire::Fault;

/// A template with all that a stack gives it.
pub(crate) struct Plan {
    pub(crate) template: Template,
    pub(crate) values: BTreeMap<String, Value>,
    pub(crate) pseudo: Pseudo,
    pub(crate) conditions: BTreeMap<String, bool>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// What the stacks of a realm export, looked up when it is asked for.
pub(crate) struct Exports {
    snapshot: Snapshot,
    realm: String,
}

impl Outside for Exports {
    fn export(&self, name: &str) -> Option<String> {
        exports(&self.snapshot, &self.realm).remove(name).map(|(_, value)| value)
    }
}

/// The resources of a stack as they are stored.
pub(super) struct Stored<'a, V: View> {
    pub(super) view: &'a V,
    /// The stack's UUID.
    pub(super) stack: &'a str,
}

impl<V: View> Stored<'_, V> {
    fn get(&self, logical: &str) -> Option<std::sync::Arc<Resource>> {
        self.view.record::<Resource>(&Resource::key_of(self.stack, logical))
    }
}

impl<V: View + Sync> Resources for Stored<'_, V> {
    fn physical(&self, logical: &str) -> Option<Json> {
        self.get(logical)?.now.id.clone().map(Json::String)
    }

    fn attribute(&self, logical: &str, attribute: &str) -> Option<Json> {
        let attributes = &self.get(logical)?.now.attributes;
        // Names with dots stand for structures or are names: both are in use.
        attributes.get(attribute).cloned().or_else(|| {
            let mut parts = attribute.split('.');
            let first = attributes.get(parts.next()?)?;
            parts.try_fold(first, |value, part| value.get(part)).cloned()
        })
    }
}

/// Who exports what in a realm: the stack and the value of each name.
pub(crate) fn exports(
    view: &impl View,
    realm: &str,
) -> BTreeMap<String, (std::sync::Arc<Stack>, String)> {
    let mut all = BTreeMap::new();
    for stack in
        view.records::<Stack>(&format!("{realm}/")).into_iter().filter(|stack| stack.is_live())
    {
        for output in &stack.outputs {
            if let Some(name) = &output.export {
                all.insert(name.clone(), (stack.clone(), output.value.clone()));
            }
        }
    }
    all
}

/// The names of the stacks that use an export.
pub(crate) fn importers(view: &impl View, realm: &str, export: &str) -> Vec<String> {
    let stacks = view.records::<Stack>(&format!("{realm}/")).into_iter();
    let using = stacks.filter(|stack| stack.is_live() && stack.imports.contains(export));
    using.map(|stack| stack.name.clone()).collect()
}

impl Pseudo {
    /// Those of a stack that tells these topics.
    pub(crate) fn of(stack: &Stack, notify: &[String]) -> Self {
        let (account, region) = stack.realm.split_once('/').expect("realms are account/region");
        Self {
            account: account.to_owned(),
            region: region.to_owned(),
            stack_id: stack.arn(),
            stack_name: stack.name.clone(),
            notify: notify.to_vec(),
        }
    }
}

impl CloudFormation {
    /// Reads a stack's template again with the values that the stack gives it.
    pub(crate) fn plan(&self, stack: &Stack, settings: &Settings) -> Result<Plan, Fault> {
        let text = self.store.read().get::<model::Template>(&settings.template);
        let text = text.ok_or_else(|| faults::validation("The stack's template is gone"))?;
        let values: BTreeMap<String, Value> = self.unseal(&stack.id, &settings.values)?;
        let template = Template::load(&text.body, Some(&values))?;
        Plan::make(
            template,
            values,
            Pseudo::of(stack, &settings.notify),
            settings.tags.clone(),
            &self.exports(&stack.realm),
        )
    }

    /// What stacks of a realm export.
    pub(crate) fn exports(&self, realm: &str) -> Exports {
        Exports { snapshot: self.store.read(), realm: realm.to_owned() }
    }
}

impl Plan {
    pub(crate) fn make(
        template: Template,
        values: BTreeMap<String, Value>,
        pseudo: Pseudo,
        tags: BTreeMap<String, String>,
        outside: &dyn Outside,
    ) -> Result<Self, Fault> {
        let conditions = template::conditions(&template, &values, &pseudo, outside)?;
        Ok(Self { template, values, pseudo, conditions, tags })
    }

    pub(crate) fn scope<'a>(
        &'a self,
        resources: &'a dyn Resources,
        outside: &'a dyn Outside,
    ) -> Scope<'a> {
        Scope {
            template: &self.template,
            values: &self.values,
            pseudo: &self.pseudo,
            conditions: &self.conditions,
            resources,
            outside,
            imported: RefCell::default(),
            made: Cell::default(),
        }
    }

    /// Whether the stack has this resource.
    pub(crate) fn has(&self, logical: &str) -> bool {
        self.template.resources.get(logical).is_some_and(|resource| {
            let condition = resource.condition.as_ref();
            condition.is_none_or(|name| self.conditions.get(name).copied().unwrap_or(false))
        })
    }

    /// The resources that the stack has, by logical id.
    pub(crate) fn resources(&self) -> impl Iterator<Item = (&String, &template::Resource)> {
        self.template.resources.iter().filter(|(logical, _)| self.has(logical))
    }

    /// The resources that must be there before this one.
    pub(crate) fn dependencies(&self, scope: &Scope, logical: &str) -> BTreeSet<String> {
        let resource = &self.template.resources[logical];
        let mut found = BTreeSet::new();
        scope.references(&Json::Object(resource.properties.clone()), &mut found);
        found.extend(resource.depends_on.iter().cloned());
        found.retain(|name| self.has(name));
        found
    }

    /// The value of a resource's properties, with the stack's tags where the type has tags.
    pub(crate) fn properties(
        &self,
        scope: &Scope,
        logical: &str,
        known: &Known,
    ) -> Result<Map<String, Json>, Fault> {
        let mut properties = scope.map(&self.template.resources[logical].properties)?;
        let Some((property, tagging)) = known.schema.tagging().filter(|_| !self.tags.is_empty())
        else {
            return Ok(properties);
        };
        match tagging {
            Tagging::List => {
                let mut all = match properties.remove(property) {
                    Some(Json::Array(own)) => own,
                    _ => Vec::new(),
                };
                for (key, value) in &self.tags {
                    if !all.iter().any(|tag| tag.get("Key").is_some_and(|own| own == key)) {
                        all.push(json!({"Key": key, "Value": value}));
                    }
                }
                properties.insert(property.to_owned(), all.into());
            }
            Tagging::Map => {
                let mut all: Map<String, Json> =
                    self.tags.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
                if let Some(Json::Object(own)) = properties.remove(property) {
                    all.extend(own);
                }
                properties.insert(property.to_owned(), all.into());
            }
        }
        Ok(properties)
    }

    /// The resources in an order in which each comes after those that it refers to; an error when there is none.
    pub(crate) fn order(&self, scope: &Scope) -> Result<Vec<String>, Fault> {
        let mut left: BTreeMap<String, BTreeSet<String>> = self
            .resources()
            .map(|(logical, _)| (logical.clone(), self.dependencies(scope, logical)))
            .collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let free: Vec<String> = left
                .iter()
                .filter(|(_, needs)| needs.iter().all(|need| !left.contains_key(need)))
                .map(|(logical, _)| logical.clone())
                .collect();
            if free.is_empty() {
                let circle: Vec<&str> = left.keys().map(String::as_str).collect();
                let circle = circle.join(", ");
                return Err(faults::validation(format!(
                    "Circular dependency between resources: [{circle}]"
                )));
            }
            free.iter().for_each(|logical| {
                left.remove(logical);
            });
            order.extend(free);
        }
        Ok(order)
    }

    /// Properties as an event tells them: what parameters with `NoEcho` say is not shown.
    pub(crate) fn shown(&self, properties: &Map<String, Json>) -> String {
        let mut text = Json::Object(properties.clone()).to_string();
        for value in self.values.values().filter(|value| value.no_echo && !value.text.is_empty()) {
            // As it stands within the quotes of JSON.
            let hidden = json!(value.text).to_string();
            text = text.replace(&hidden[1..hidden.len() - 1], "****");
        }
        text
    }
}

//! What an update would do, for change sets, and whether it would do anything.

use super::{Plan, plan::Stored};
use crate::{
    CloudFormation,
    model::{Change, Detail, Resource, Settings, Stack},
    template::{KNOWN_AFTER_APPLY, Policy, Resources},
};
use resource::{Known, Properties, State};
use serde_json::{Map, Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};
use store::Snapshot;
use wire::Fault;

/// The resources as they will be, as far as that is known.
struct Foreseen<'a> {
    stored: Stored<'a, Snapshot>,
    plan: &'a Plan,
    /// Those that are made, or made anew.
    anew: Mutex<BTreeSet<String>>,
}

impl Foreseen<'_> {
    fn is_new(&self, logical: &str) -> bool {
        self.anew.lock().expect("no holder of this lock can panic").contains(logical)
            || self.stored.physical(logical).is_none()
    }
}

impl Resources for Foreseen<'_> {
    fn physical(&self, logical: &str) -> Option<Json> {
        match self.plan.has(logical) {
            true if self.is_new(logical) => Some(json!(KNOWN_AFTER_APPLY)),
            true => self.stored.physical(logical),
            false => None,
        }
    }

    fn attribute(&self, logical: &str, attribute: &str) -> Option<Json> {
        match self.is_new(logical) {
            true => Some(json!(KNOWN_AFTER_APPLY)),
            // One that it does not have yet may come with its update, as an output of a nested stack does.
            false => {
                let known = self.stored.attribute(logical, attribute);
                known.or_else(|| Some(json!(KNOWN_AFTER_APPLY)))
            }
        }
    }
}

impl CloudFormation {
    /// What reaching `plan` would do to the resources of a stack.
    pub(crate) fn changes(&self, stack: &Stack, plan: &Plan) -> Result<Vec<Change>, Fault> {
        let snapshot = self.store.read();
        let records: BTreeMap<String, Arc<Resource>> = snapshot
            .scan_prefix::<Resource>(&format!("{}/", stack.id))
            .filter(|record| record.now.id.is_some() && !record.status.starts_with("DELETE_"))
            .map(|record| (record.logical.clone(), record))
            .collect();
        let outside = self.exports(&stack.realm);
        let stored = Stored { view: &snapshot, stack: &stack.id };
        let foreseen = Foreseen { stored, plan, anew: Mutex::default() };
        let scope = plan.scope(&foreseen, &outside);
        let mut changes = Vec::new();
        for logical in plan.order(&scope)? {
            let declared = &plan.template.resources[&logical];
            let known = self.surroundings().catalog.get(&declared.kind);
            let known = known.ok_or_else(|| Fault::internal(wire::Family::Query))?;
            let properties = Properties(plan.properties(&scope, &logical, known)?);
            let change = match records.get(&logical) {
                Some(record) => self.modification(stack, record, known, declared, &properties)?,
                None => Some(simple("Add", &logical, None, &declared.kind)),
            };
            let Some(mut change) = change else { continue };
            change.after = Some(context(plan, &properties.0));
            if change.action == "Add" || change.replacement.as_deref() == Some("True") {
                foreseen.anew.lock().expect("no holder of this lock can panic").insert(logical);
            }
            changes.push(change);
        }
        if let Ok(now) = self.plan(stack, &stack.settings) {
            for change in &mut changes {
                let Some(record) = records.get(&change.logical) else { continue };
                let properties: Map<_, _> = self.unseal(&stack.id, &record.now.properties)?;
                change.before = Some(context(&now, &properties));
            }
        }
        for record in records.values().filter(|record| !plan.has(&record.logical)) {
            changes.push(simple("Remove", &record.logical, record.now.id.clone(), &record.kind));
        }
        Ok(changes)
    }

    /// Tells which of the resources to add are there already, and would become the stack's.
    pub(crate) async fn imports(
        &self,
        stack: &Stack,
        settings: &Settings,
        plan: &Plan,
        changes: &mut [Change],
    ) -> Result<(), Fault> {
        let context = self.context_for(stack, settings)?;
        for change in changes.iter_mut().filter(|change| change.action == "Add") {
            let declared = &plan.template.resources[&change.logical];
            let Some(known) = self.surroundings().catalog.get(&declared.kind) else { continue };
            let properties = Properties(self.named(stack, plan, &change.logical, known)?);
            let name = known.schema.given_name(&properties);
            let Some(name) = name.filter(|_| declared.deletion != Policy::Delete) else { continue };
            let physical = self.physical(&stack.id, &properties.0);
            let request = self.request(stack, &context, &change.logical, &physical, true);
            if let Ok(State::Ready(_)) = known.kind.read(&request, &name, &properties).await {
                (change.action, change.physical) = ("Import".to_owned(), Some(name));
            }
        }
        Ok(())
    }

    /// The properties of a resource that is not there, as far as they are known.
    fn named(
        &self,
        stack: &Stack,
        plan: &Plan,
        logical: &str,
        known: &Known,
    ) -> Result<Map<String, Json>, Fault> {
        let (snapshot, outside) = (self.store.read(), self.exports(&stack.realm));
        let stored = Stored { view: &snapshot, stack: &stack.id };
        let foreseen = Foreseen { stored, plan, anew: Mutex::default() };
        let scope = plan.scope(&foreseen, &outside);
        plan.properties(&scope, logical, known)
    }

    fn modification(
        &self,
        stack: &Stack,
        record: &Resource,
        known: &Known,
        declared: &crate::template::Resource,
        new: &Properties,
    ) -> Result<Option<Change>, Fault> {
        let sealed = record.attempted.as_ref().unwrap_or(&record.now.properties);
        let old: Map<String, Json> = self.unseal(&stack.id, sealed)?;
        let old = Properties(old);
        let names: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
        let mut details: Vec<Detail> = names
            .into_iter()
            .filter(|name| old.get(name) != new.get(name))
            .map(|name| detail(known, name, &old, new))
            .collect();
        if record.metadata != declared.metadata.as_ref().map(ToString::to_string) {
            details.push(Detail {
                attribute: "Metadata".to_owned(),
                name: None,
                recreation: Some("Never".to_owned()),
                is_static: true,
            });
        }
        if details.is_empty() && record.attempted.is_none() {
            return Ok(None);
        }
        let mut change = simple("Modify", &record.logical, record.now.id.clone(), &record.kind);
        let always = |detail: &Detail| detail.recreation.as_deref() == Some("Always");
        let anew = !known.schema.replacing(&old, new).is_empty() || known.kind.replaces(&old, new);
        let sure = details.iter().any(|detail| always(detail) && detail.is_static)
            || !details.iter().any(always);
        change.replacement = Some(
            match (anew, sure) {
                (false, _) => "False",
                (true, true) => "True",
                (true, false) => "Conditional",
            }
            .to_owned(),
        );
        let scope: BTreeSet<String> =
            details.iter().map(|detail| detail.attribute.clone()).collect();
        change.scope = scope.into_iter().collect();
        change.details = details;
        Ok(Some(change))
    }
}

/// Properties as a change tells them.
fn context(plan: &Plan, properties: &Map<String, Json>) -> String {
    format!("{{\"Properties\":{}}}", plan.shown(properties))
}

fn simple(action: &str, logical: &str, physical: Option<String>, kind: &str) -> Change {
    Change {
        action: action.to_owned(),
        logical: logical.to_owned(),
        physical,
        kind: kind.to_owned(),
        replacement: None,
        scope: Vec::new(),
        details: Vec::new(),
        before: None,
        after: None,
    }
}

fn detail(known: &Known, name: &str, old: &Properties, new: &Properties) -> Detail {
    let one = |properties: &Properties| properties.only(&[name]);
    let replaces = match () {
        () if !known.schema.replacing(&one(old), &one(new)).is_empty() => "Always",
        () if known.kind.replaces(&one(old), &one(new)) => "Conditionally",
        () => "Never",
    };
    let is_static =
        !new.get(name).is_some_and(|value| value.to_string().contains(KNOWN_AFTER_APPLY));
    Detail {
        attribute: if name == "Tags" { "Tags" } else { "Properties" }.to_owned(),
        name: (name != "Tags").then(|| name.to_owned()),
        recreation: Some(replaces.to_owned()),
        is_static,
    }
}

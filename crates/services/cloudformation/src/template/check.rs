//! What can be said of a template before it is carried out.

use super::{
    Resource, Template, error,
    evaluate::{function, no_attribute},
    functions, malformed,
};
use resource::Catalog;
use serde_json::{Map, Value as Json};
use std::collections::BTreeSet;
use wire::Fault;

/// Checks that everything a template refers to is there.
pub(crate) fn check(template: &Template, catalog: &Catalog) -> Result<(), Fault> {
    if let Some(transform) = template.transforms.first() {
        return Err(super::transform::unknown(transform));
    }
    // One with a condition may never be made; that is seen when the conditions are known.
    let sure = template.resources.values().filter(|resource| resource.condition.is_none());
    known_types(sure, catalog)?;
    let mut walk = Walk { template, catalog, unresolved: BTreeSet::new() };
    for (name, resource) in &template.resources {
        walk.condition(resource.condition.as_deref())?;
        walk.properties(&resource.properties)?;
        walk.unresolved.extend(
            resource
                .depends_on
                .iter()
                .filter(|other| !template.resources.contains_key(*other))
                .cloned(),
        );
        if resource.depends_on.contains(name) {
            return Err(malformed(format!("Circular dependency between resources: [{name}]")));
        }
    }
    walk.told("Resources")?;
    for output in template.outputs.values() {
        walk.condition(output.condition.as_deref())?;
        walk.expression(&output.value)?;
        output.export.iter().try_for_each(|name| walk.expression(name))?;
    }
    walk.told("Outputs")
}

/// Checks that these resources are of types that are there.
pub(crate) fn known_types<'a>(
    resources: impl Iterator<Item = &'a Resource>,
    catalog: &Catalog,
) -> Result<(), Fault> {
    let kinds = resources.map(|resource| resource.kind.as_str());
    let unknown: BTreeSet<&str> = kinds.filter(|kind| catalog.get(kind).is_none()).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown: Vec<&str> = unknown.into_iter().collect();
    Err(malformed(format!("Unrecognized resource types: [{}]", unknown.join(", "))))
}

struct Walk<'a> {
    template: &'a Template,
    catalog: &'a Catalog,
    unresolved: BTreeSet<String>,
}

impl Walk<'_> {
    fn told(&self, block: &str) -> Result<(), Fault> {
        if self.unresolved.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.unresolved.iter().map(String::as_str).collect();
        let names = names.join(", ");
        Err(malformed(format!(
            "Unresolved resource dependencies [{names}] in the {block} block of the template"
        )))
    }

    fn condition(&self, name: Option<&str>) -> Result<(), Fault> {
        match name.filter(|name| !self.template.conditions.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(malformed(format!("Unresolved condition dependency {name}"))),
        }
    }

    fn properties(&mut self, map: &Map<String, Json>) -> Result<(), Fault> {
        map.values().try_for_each(|value| self.expression(value))
    }

    fn expression(&mut self, json: &Json) -> Result<(), Fault> {
        match json {
            Json::Object(map) => match function(map) {
                Some((name, argument)) => self.function(name, argument),
                None => self.properties(map),
            },
            Json::Array(items) => items.iter().try_for_each(|item| self.expression(item)),
            _ => Ok(()),
        }
    }

    fn function(&mut self, name: &str, argument: &Json) -> Result<(), Fault> {
        match name {
            "Ref" => {
                if let Some(name) = argument.as_str() {
                    self.reference(name);
                }
                Ok(())
            }
            "Fn::GetAtt" => {
                let (Some(name), attribute) = functions::attribute_of(argument) else {
                    return Ok(());
                };
                if !self.template.resources.contains_key(&name) {
                    return Err(error(format!(
                        "instance of Fn::GetAtt references undefined resource {name}"
                    )));
                }
                match attribute.as_ref().and_then(Json::as_str) {
                    Some(attribute) => self.attribute(&name, attribute),
                    None => Ok(()),
                }
            }
            "Fn::If" => {
                let name = argument.get(0).and_then(Json::as_str).unwrap_or_default();
                if !self.template.conditions.contains_key(name) {
                    return Err(error(format!("unresolved condition dependency {name} in Fn::If")));
                }
                self.expression(argument)
            }
            "Fn::Sub" => {
                let (text, own) = functions::sub_parts(argument);
                for name in functions::variables(text) {
                    if own.is_some_and(|own| own.contains_key(&name)) {
                        continue;
                    }
                    match name.split_once('.') {
                        Some((name, attribute)) if self.template.resources.contains_key(name) => {
                            self.attribute(name, attribute)?;
                        }
                        Some((name, _)) => self.reference(name),
                        None => self.reference(&name),
                    }
                }
                own.into_iter().try_for_each(|own| self.properties(own))
            }
            _ => self.expression(argument),
        }
    }

    fn reference(&mut self, name: &str) {
        let known = name.starts_with("AWS::")
            || self.template.parameters.contains_key(name)
            || self.template.resources.contains_key(name);
        if !known {
            self.unresolved.insert(name.to_owned());
        }
    }

    fn attribute(&self, logical: &str, attribute: &str) -> Result<(), Fault> {
        let kind = &self.template.resources[logical].kind;
        let known = self.catalog.get(kind).is_none_or(|known| known.has_attribute(attribute));
        if known { Ok(()) } else { Err(no_attribute(kind, attribute)) }
    }
}

/// Types that change who may do what: their templates need a capability, and a stronger one where they name what they
/// make. <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html>
const IDENTITIES: [(&str, &str); 8] = [
    ("AWS::IAM::AccessKey", ""),
    ("AWS::IAM::Group", "GroupName"),
    ("AWS::IAM::InstanceProfile", "InstanceProfileName"),
    ("AWS::IAM::ManagedPolicy", "ManagedPolicyName"),
    ("AWS::IAM::Policy", ""),
    ("AWS::IAM::Role", "RoleName"),
    ("AWS::IAM::User", "UserName"),
    ("AWS::IAM::UserToGroupAddition", ""),
];

/// The capability that a template needs, and the types of resources for which it does.
pub(crate) fn capabilities(template: &Template) -> Option<(&'static str, Vec<String>)> {
    let (mut named, mut types) = (false, BTreeSet::new());
    for resource in template.resources.values() {
        if let Some((_, name)) = IDENTITIES.iter().find(|(kind, _)| *kind == resource.kind) {
            named |= resource.properties.contains_key(*name);
            types.insert(resource.kind.clone());
        }
    }
    let capability = if named { "CAPABILITY_NAMED_IAM" } else { "CAPABILITY_IAM" };
    (!types.is_empty()).then(|| (capability, types.into_iter().collect()))
}

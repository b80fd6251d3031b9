//! Templates: read, checked, and evaluated.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-anatomy.html>

mod attempt;
mod check;
mod evaluate;
mod extensions;
mod functions;
mod parameters;
mod read;
mod rules;
mod transform;

pub use attempt::attempt;
pub(crate) use check::{capabilities, check, known_types};
pub(crate) use evaluate::{KNOWN_AFTER_APPLY, Outside, Pseudo, Resources, Scope, conditions};
pub(crate) use parameters::{Given, Parameter, Value, values};
pub(crate) use read::read;
pub(crate) use rules::assert_rules;
use transform::sketch;
pub(crate) use transform::{finish, include, is_needed, locations};

use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use wire::Fault;

/// A template that cannot be read as one.
pub(crate) fn malformed(message: impl std::fmt::Display) -> Fault {
    crate::faults::validation(format!("Template format error: {message}"))
}

/// A template that says what cannot be.
pub(crate) fn error(message: impl std::fmt::Display) -> Fault {
    crate::faults::validation(format!("Template error: {message}"))
}

/// A template, its parts told apart.
pub(crate) struct Template {
    pub(crate) version: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) metadata: Option<Json>,
    /// Transforms that are left to do.
    pub(crate) transforms: Vec<String>,
    /// All transforms that the text names.
    pub(crate) declared_transforms: Vec<String>,
    pub(crate) parameters: BTreeMap<String, Parameter>,
    pub(crate) mappings: Map<String, Json>,
    pub(crate) conditions: Map<String, Json>,
    pub(crate) rules: Map<String, Json>,
    pub(crate) resources: BTreeMap<String, Resource>,
    pub(crate) outputs: BTreeMap<String, Output>,
}

/// What becomes of a resource that the stack no longer has.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Policy {
    /// It is deleted.
    Delete,
    /// It stays.
    Retain,
    /// It stays, unless the operation that made it is rolled back.
    RetainExceptOnCreate,
}

pub(crate) struct Resource {
    /// Its type.
    pub(crate) kind: String,
    pub(crate) properties: Map<String, Json>,
    pub(crate) depends_on: Vec<String>,
    pub(crate) condition: Option<String>,
    pub(crate) deletion: Policy,
    pub(crate) update_replace: Policy,
    pub(crate) metadata: Option<Json>,
}

pub(crate) struct Output {
    pub(crate) value: Json,
    pub(crate) description: Option<String>,
    pub(crate) export: Option<Json>,
    pub(crate) condition: Option<String>,
}

const PARTS: [&str; 10] = [
    "AWSTemplateFormatVersion",
    "Description",
    "Metadata",
    "Parameters",
    "Mappings",
    "Conditions",
    "Rules",
    "Transform",
    "Resources",
    "Outputs",
];

/// The longest description, in bytes.
const LONGEST_DESCRIPTION: usize = 1024;

/// The most resources of a template, parameters and outputs.
/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html>
const MOST_RESOURCES: usize = 500;
const MOST_OTHERS: usize = 200;

impl Template {
    /// A template's text with what its transforms make of it. Loops over parameters go over `values`, or else over
    /// their defaults.
    pub(crate) fn load(
        text: &str,
        values: Option<&BTreeMap<String, Value>>,
    ) -> Result<Self, Fault> {
        let tree = read(text)?;
        if !transforms(tree.get("Transform"))?.iter().any(|name| name == extensions::NAME) {
            return Self::parse(&tree)?.with_resources();
        }
        let declared = Self::parameters(&tree)?;
        let lists = |name: &str| {
            let value = match values {
                Some(values) => values.get(name)?.json(),
                None => declared.get(name)?.preset(),
            };
            value.as_array().cloned()
        };
        let mut template = Self::parse(&extensions::expand(&tree, &lists)?)?;
        template.transforms.retain(|name| name != extensions::NAME);
        template.declared_transforms = transforms(tree.get("Transform"))?;
        template.with_resources()
    }

    fn with_resources(self) -> Result<Self, Fault> {
        match self.resources.is_empty() {
            true => Err(malformed("At least one Resources member must be defined.")),
            false => Ok(self),
        }
    }

    /// A template's text as far as it can be seen before its transforms are carried out, and whether that is all.
    pub(crate) fn look(text: &str) -> Result<(Self, bool), Fault> {
        let tree = read(text)?;
        if !transform::is_needed(&tree)? {
            return Ok((Self::load(text, None)?, true));
        }
        let mut template = Self::parse(&sketch(&tree)?)?;
        template.declared_transforms = transforms(tree.get("Transform"))?;
        Ok((template, false))
    }

    /// What a template's text declares as parameters.
    pub(crate) fn parameters(tree: &Json) -> Result<BTreeMap<String, Parameter>, Fault> {
        match tree.get("Parameters") {
            None | Some(Json::Null) => Ok(BTreeMap::new()),
            Some(Json::Object(map)) => each(map, Parameter::parse),
            Some(_) => Err(malformed("Parameters must be a map")),
        }
    }

    fn parse(tree: &Json) -> Result<Self, Fault> {
        let tree = tree.as_object().expect("the reader gives objects");
        let unknown: Vec<&str> =
            tree.keys().map(String::as_str).filter(|key| !PARTS.contains(key)).collect();
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            return Err(crate::faults::validation(format!(
                "Invalid template property or properties [{unknown}]"
            )));
        }
        let part = |name: &str| match tree.get(name) {
            None => Ok(Map::new()),
            Some(Json::Object(map)) => Ok(map.clone()),
            Some(_) => Err(malformed(format!("{name} must be a map"))),
        };
        let text = |name: &str| match tree.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(other) if name == "AWSTemplateFormatVersion" => Ok(Some(resource::text(other))),
            Some(_) => Err(malformed(format!("{name} must be a string"))),
        };
        let version = text("AWSTemplateFormatVersion")?;
        if version.as_deref().is_some_and(|version| version != "2010-09-09") {
            return Err(malformed("unsupported value for AWSTemplateFormatVersion."));
        }
        let description = text("Description")?;
        if description.as_ref().is_some_and(|text| text.len() > LONGEST_DESCRIPTION) {
            return Err(malformed(format!(
                "Description can not exceed {LONGEST_DESCRIPTION} bytes."
            )));
        }
        let (parameters, resources, outputs) =
            (part("Parameters")?, part("Resources")?, part("Outputs")?);
        for (name, count, most) in [
            ("resources", resources.len(), MOST_RESOURCES),
            ("parameters", parameters.len(), MOST_OTHERS),
            ("outputs", outputs.len(), MOST_OTHERS),
        ] {
            if count > most {
                return Err(malformed(format!(
                    "Number of {name}, {count}, is greater than maximum allowed, {most}"
                )));
            }
        }
        Ok(Self {
            version,
            description,
            metadata: tree.get("Metadata").cloned(),
            transforms: transforms(tree.get("Transform"))?,
            declared_transforms: transforms(tree.get("Transform"))?,
            parameters: each(&parameters, Parameter::parse)?,
            mappings: part("Mappings")?,
            conditions: part("Conditions")?,
            rules: part("Rules")?,
            resources: each(&resources, Resource::parse)?,
            outputs: each(&outputs, Output::parse)?,
        })
    }
}

fn each<T>(
    map: &Map<String, Json>,
    parse: fn(&str, &Json) -> Result<T, Fault>,
) -> Result<BTreeMap<String, T>, Fault> {
    map.iter().map(|(name, json)| Ok((name.clone(), parse(name, json)?))).collect()
}

/// The names of a template's transforms.
pub(crate) fn transforms(json: Option<&Json>) -> Result<Vec<String>, Fault> {
    let name = |json: &Json| match json {
        Json::String(name) => Ok(name.clone()),
        Json::Object(map) => {
            map.get("Name").map(resource::text).ok_or_else(|| malformed("a Transform has no Name"))
        }
        _ => Err(malformed("Transform must be a string or a list")),
    };
    match json {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(all)) => all.iter().map(name).collect(),
        Some(one) => Ok(vec![name(one)?]),
    }
}

const ATTRIBUTES: [&str; 10] = [
    "Type",
    "Properties",
    "DependsOn",
    "Condition",
    "DeletionPolicy",
    "UpdateReplacePolicy",
    "Metadata",
    "CreationPolicy",
    "UpdatePolicy",
    "Description",
];

impl Resource {
    fn parse(name: &str, json: &Json) -> Result<Self, Fault> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed(format!("Resource name {name} is non alphanumeric.")));
        }
        let Json::Object(map) = json else {
            return Err(malformed(format!("[/Resources/{name}] resource definition is malformed")));
        };
        if let Some(unknown) = map.keys().find(|key| !ATTRIBUTES.contains(&key.as_str())) {
            return Err(crate::faults::validation(format!(
                "Invalid template resource property '{unknown}'"
            )));
        }
        for policy in ["CreationPolicy", "UpdatePolicy"] {
            if map.get(policy).is_some_and(|policy| !policy.is_null()) {
                let message = format!("Neargate does not support {policy}, of the resource {name}");
                return Err(crate::faults::validation(message));
            }
        }
        let Some(kind) = map.get("Type").and_then(Json::as_str) else {
            let message =
                format!("[/Resources/{name}] Every Resources object must contain a Type member.");
            return Err(malformed(message));
        };
        let properties = match map.get("Properties") {
            None | Some(Json::Null) => Map::new(),
            Some(Json::Object(properties)) => properties.clone(),
            Some(_) => {
                return Err(malformed(format!("[/Resources/{name}/Properties] is not a map")));
            }
        };
        let depends_on = match map.get("DependsOn") {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::String(one)) => vec![one.clone()],
            Some(Json::Array(all)) if all.iter().all(Json::is_string) => {
                all.iter().map(resource::text).collect()
            }
            Some(_) => {
                let message = format!(
                    "[/Resources/{name}] 'DependsOn' must be a string or a list of strings."
                );
                return Err(malformed(message));
            }
        };
        Ok(Self {
            kind: kind.to_owned(),
            properties,
            depends_on,
            condition: map.get("Condition").map(resource::text),
            deletion: policy(name, "DeletionPolicy", map.get("DeletionPolicy"))?,
            update_replace: policy(name, "UpdateReplacePolicy", map.get("UpdateReplacePolicy"))?,
            metadata: map.get("Metadata").cloned(),
        })
    }
}

fn policy(resource: &str, attribute: &str, json: Option<&Json>) -> Result<Policy, Fault> {
    match json.map(Json::as_str) {
        None | Some(Some("Delete")) => Ok(Policy::Delete),
        Some(Some("Retain")) => Ok(Policy::Retain),
        Some(Some("RetainExceptOnCreate")) if attribute == "DeletionPolicy" => {
            Ok(Policy::RetainExceptOnCreate)
        }
        Some(Some("Snapshot")) => {
            let message = format!(
                "Neargate does not support {attribute} Snapshot, of the resource {resource}"
            );
            Err(crate::faults::validation(message))
        }
        Some(_) => {
            let message = format!("Unrecognized {attribute} for resource {resource}");
            Err(malformed(message))
        }
    }
}

impl Output {
    fn parse(name: &str, json: &Json) -> Result<Self, Fault> {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed(format!("Output name {name} is non alphanumeric.")));
        }
        let Json::Object(map) = json else {
            return Err(malformed(format!("Output {name} is malformed.")));
        };
        let Some(value) = map.get("Value").filter(|value| !value.is_null()) else {
            return Err(malformed(format!(
                "Output {name} is malformed. The Value field of every Outputs member must be specified"
            )));
        };
        let export = map.get("Export").map(|export| export.get("Name").cloned());
        if matches!(export, Some(None)) {
            return Err(malformed(format!(
                "Output {name} is malformed. The Name field of every Export member must be specified"
            )));
        }
        Ok(Self {
            value: value.clone(),
            description: map.get("Description").map(resource::text),
            export: export.flatten(),
            condition: map.get("Condition").map(resource::text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn evaluated(text: &str) -> Result<Map<String, Json>, Fault> {
        attempt(text).map(|mut all| all.remove("R").unwrap_or_default())
    }

    #[test]
    fn text_is_bounded() {
        let value = "x".repeat(4000);
        let many = "${P}".repeat(2000);
        let text = format!(
            "Parameters: {{P: {{Type: String, Default: {value}}}}}\n\
             Resources: {{R: {{Type: A, Properties: {{V: !Sub '{many}'}}}}}}"
        );
        assert!(evaluated(&text).unwrap_err().message.contains("bytes of text"));
    }

    #[test]
    fn the_branch_that_is_not_taken_is_not_evaluated() {
        let text = "Parameters: {P: {Type: String, Default: a}}\n\
                    Conditions: {Is: !Equals [!Ref P, a]}\n\
                    Resources: {R: {Type: A, Properties: {V: !If [Is, 1, !Select [9, []]], W: !If [Is, \
                    !Ref AWS::NoValue, 1]}}}";
        assert_eq!(evaluated(text).unwrap(), *serde_json::json!({"V": 1}).as_object().unwrap());
    }

    /// Text that looks like a template here and there.
    fn texts() -> impl Strategy<Value = String> {
        let words = [
            "Resources:",
            "Conditions:",
            "Parameters:",
            "R:",
            "Type: A",
            "Properties:",
            "!Ref",
            "!Sub",
            "!If",
            "!GetAtt",
            "!Join",
            "!Select",
            "!Cidr",
            "!Equals",
            "Fn::ForEach::X:",
            "Fn::Transform",
            "${",
            "}",
            "[",
            "]",
            "{",
            ",",
            ":",
            "'",
            "\"",
            "\n",
            "\n  ",
            " ",
            "- ",
            "a",
            "1",
            "&x",
            "*x",
            "|",
            ">",
            "#",
            "%",
            "!!str",
            "\t",
            "é",
            "0.0.0.0/0",
            "999999999999999999999",
        ];
        prop::collection::vec(prop::sample::select(words.to_vec()), 0..60)
            .prop_map(|all| all.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_text_is_read_or_refused(text in prop_oneof![texts(), any::<String>()]) {
            // What it comes to does not matter: nothing may panic or hang.
            let _ = attempt(&text);
            let resource = format!("Resources: {{R: {{Type: A, Properties: {{V: {text}}}}}}}");
            let _ = evaluated(&resource);
        }
    }
}

//! A template's parameters and what a stack gives them.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html>

use super::malformed;
use crate::faults;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use wire::Fault;

/// A parameter as a template declares it.
pub(crate) struct Parameter {
    pub(crate) kind: String,
    pub(crate) default: Option<String>,
    pub(crate) no_echo: bool,
    pub(crate) description: Option<String>,
    pub(crate) allowed_values: Option<Vec<String>>,
    allowed_pattern: Option<regex::Regex>,
    constraint: Option<String>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_value: Option<f64>,
    max_value: Option<f64>,
}

/// A parameter as a request gives it.
pub(crate) enum Given {
    /// This value.
    Text(String),
    /// The one that it has.
    Previous,
}

/// A parameter's value in a stack.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What was given, or the default.
    pub text: String,
    /// What Parameter Store has under that name, for types that ask it.
    pub resolved: Option<String>,
    /// It is not shown.
    pub no_echo: bool,
    /// `Ref` gives a list.
    pub list: bool,
}

impl Value {
    /// What `Ref` gives.
    pub(crate) fn json(&self) -> Json {
        let text = self.resolved.as_ref().unwrap_or(&self.text);
        match self.list {
            false => Json::String(text.clone()),
            true if text.is_empty() => Json::Array(Vec::new()),
            true => text.split(',').map(|item| Json::String(item.trim().to_owned())).collect(),
        }
    }
}

/// How long a parameter's value is at most, in bytes.
const LONGEST_VALUE: usize = 4096;

impl Parameter {
    pub(super) fn parse(name: &str, json: &Json) -> Result<Self, Fault> {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(malformed(format!("Parameter name {name} is non alphanumeric.")));
        }
        let get = |key: &str| json.get(key).filter(|value| !value.is_null());
        let text = |key: &str| get(key).map(resource::text);
        let Some(kind) = text("Type") else {
            return Err(malformed("Every Parameters object must contain a Type member."));
        };
        let known = ["String", "Number", "CommaDelimitedList"].contains(&kind.as_str())
            || kind.starts_with("List<")
            || kind.starts_with("AWS::");
        if !known {
            return Err(malformed(format!("Unrecognized parameter type: {kind}")));
        }
        let number = |key: &str| match text(key).map(|text| text.parse::<f64>()) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(malformed(format!("Parameter {name}: {key} must be a number."))),
        };
        let length =
            |key: &str| Ok::<_, Fault>(number(key)?.map(|number| number.max(0.0) as usize));
        let pattern = match text("AllowedPattern") {
            None => None,
            Some(pattern) => {
                let compiled = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
                    .size_limit(1 << 20)
                    .build();
                let compiled = compiled.map_err(|_| {
                    malformed(format!("Invalid AllowedPattern of parameter {name}: {pattern}"))
                })?;
                Some(compiled)
            }
        };
        let default = match get("Default") {
            Some(Json::Array(_) | Json::Object(_)) => {
                return Err(malformed("Every Default member must be a string."));
            }
            other => other.map(resource::text),
        };
        Ok(Self {
            default,
            no_echo: text("NoEcho").is_some_and(|text| text.eq_ignore_ascii_case("true")),
            description: text("Description"),
            allowed_values: get("AllowedValues")
                .and_then(Json::as_array)
                .map(|all| all.iter().map(resource::text).collect()),
            allowed_pattern: pattern,
            constraint: text("ConstraintDescription"),
            min_length: length("MinLength")?,
            max_length: length("MaxLength")?,
            min_value: number("MinValue")?,
            max_value: number("MaxValue")?,
            kind,
        })
    }

    /// The type within `AWS::SSM::Parameter::Value<…>`.
    fn stored(&self) -> Option<&str> {
        self.kind.strip_prefix("AWS::SSM::Parameter::Value<")?.strip_suffix('>')
    }

    fn is_list(&self) -> bool {
        let kind = self.stored().unwrap_or(&self.kind);
        kind == "CommaDelimitedList" || kind.starts_with("List<")
    }

    /// What `Ref` gives when nothing is given.
    pub(super) fn preset(&self) -> Json {
        let text = self.default.clone().unwrap_or_default();
        Value { text, resolved: None, no_echo: false, list: self.is_list() }.json()
    }

    fn is_number(&self) -> bool {
        ["Number", "List<Number>"].contains(&self.kind.as_str())
    }

    fn check(&self, name: &str, text: &str) -> Result<(), Fault> {
        match self.complaint(text) {
            None => Ok(()),
            Some(complaint) => Err(faults::validation(match &self.constraint {
                Some(constraint) => {
                    format!("Parameter '{name}' failed to satisfy constraint: {constraint}")
                }
                None => format!("Parameter '{name}' {complaint}"),
            })),
        }
    }

    fn complaint(&self, text: &str) -> Option<String> {
        if text.len() > LONGEST_VALUE {
            return Some(format!("must contain at most {LONGEST_VALUE} bytes"));
        }
        let items: Vec<&str> =
            match self.kind == "CommaDelimitedList" || self.kind.starts_with("List<") {
                true if text.is_empty() => Vec::new(),
                true => text.split(',').map(str::trim).collect(),
                false => vec![text],
            };
        items.into_iter().find_map(|item| self.complaint_of_one(item))
    }

    fn complaint_of_one(&self, text: &str) -> Option<String> {
        if let Some(allowed) = &self.allowed_values
            && !allowed.iter().any(|value| value == text)
        {
            return Some("must be one of AllowedValues".to_owned());
        }
        if let Some(pattern) = &self.allowed_pattern
            && !pattern.is_match(text)
        {
            let source = pattern.as_str();
            let source = &source["^(?:".len()..source.len() - ")$".len()];
            return Some(format!("must match pattern {source}"));
        }
        let length = text.chars().count();
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            return Some(format!("must contain at least {min} characters"));
        }
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            return Some(format!("must contain at most {max} characters"));
        }
        if !self.is_number() {
            return None;
        }
        let Ok(number) = text.parse::<f64>() else { return Some("must be a number".to_owned()) };
        if let Some(min) = self.min_value.filter(|min| number < *min) {
            return Some(format!("must be a number not less than {min}"));
        }
        let max = self.max_value.filter(|max| number > *max)?;
        Some(format!("must be a number not greater than {max}"))
    }
}

/// The values of all parameters, from what a request gives and what the stack has. What Parameter Store is to be asked
/// is still missing; [`Value::resolved`] is for the caller to fill in where the second part names the parameter.
pub(crate) fn values(
    declared: &BTreeMap<String, Parameter>,
    given: &BTreeMap<String, Given>,
    previous: &BTreeMap<String, Value>,
) -> Result<(BTreeMap<String, Value>, Vec<String>), Fault> {
    let unknown: Vec<&str> =
        given.keys().filter(|name| !declared.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Err(faults::validation(format!(
            "Parameters: [{unknown}] do not exist in the template"
        )));
    }
    let (mut values, mut missing, mut stored) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (name, parameter) in declared {
        let text = match given.get(name) {
            Some(Given::Text(text)) => Some(text.clone()),
            Some(Given::Previous) => match previous.get(name) {
                Some(value) => Some(value.text.clone()),
                None => {
                    let message = format!(
                        "Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a \
                         parameter key not in the previous template"
                    );
                    return Err(faults::validation(message));
                }
            },
            None => parameter.default.clone(),
        };
        let Some(text) = text else {
            missing.push(name.as_str());
            continue;
        };
        parameter.check(name, &text)?;
        if parameter.stored().is_some() {
            stored.push(name.clone());
        }
        let (no_echo, list) = (parameter.no_echo, parameter.is_list());
        values.insert(name.clone(), Value { text, resolved: None, no_echo, list });
    }
    match missing.is_empty() {
        true => Ok((values, stored)),
        false => {
            let missing = missing.join(", ");
            Err(faults::validation(format!("Parameters: [{missing}] must have values")))
        }
    }
}

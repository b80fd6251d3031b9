//! What a request must be like for a rule. Host and path conditions are stored in both of AWS's forms, as they are
//! answered.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html>

use crate::{api::*, faults};
use std::{collections::BTreeSet, net::IpAddr};
use wire::Fault;

/// The most values of one rule.
const MOST_VALUES: usize = 5;
/// The most wildcards of one rule.
const MOST_WILDCARDS: usize = 6;
/// The longest value.
const MOST_VALUE: usize = 128;
/// The longest name of a header, and the longest method.
const MOST_NAME: usize = 40;
const FIELDS: [&str; 6] = [
    "path-pattern",
    "host-header",
    "http-header",
    "http-request-method",
    "query-string",
    "source-ip",
];

/// A condition as it is stored, and its values.
struct Checked {
    condition: RuleCondition,
    values: Vec<String>,
    wildcards: bool,
}

/// Conditions as they are stored.
pub(super) fn normalise(conditions: Vec<RuleCondition>) -> Result<Vec<RuleCondition>, Fault> {
    if conditions.is_empty() {
        return Err(faults::invalid("At least one condition must be specified"));
    }
    let mut fields = BTreeSet::new();
    let (mut values, mut wildcards) = (0, 0);
    let mut stored = Vec::new();
    for condition in conditions {
        let field = field(&condition)?;
        let repeats = field == "http-header" || field == "query-string";
        if !fields.insert(field) && !repeats {
            let message = format!("Condition field '{field}' can be specified only once in a rule");
            return Err(faults::invalid(message));
        }
        let checked = check(field, condition)?;
        if checked.values.is_empty() {
            return Err(faults::invalid(format!(
                "A condition value must be specified for the condition field '{field}'"
            )));
        }
        values += checked.values.len();
        if checked.wildcards {
            let letters = checked.values.iter().flat_map(|value| value.chars());
            wildcards += letters.filter(|c| matches!(c, '*' | '?')).count();
        }
        stored.push(checked.condition);
    }
    if values > MOST_VALUES {
        return Err(faults::invalid(format!(
            "A rule can only have '{MOST_VALUES}' condition values"
        )));
    }
    if wildcards > MOST_WILDCARDS {
        let message = format!("A rule can only have '{MOST_WILDCARDS}' condition wildcards");
        return Err(faults::invalid(message));
    }
    Ok(stored)
}

/// The field of a condition, which must have the configuration of no other one.
fn field(condition: &RuleCondition) -> Result<&'static str, Fault> {
    let Some(given) = condition.field.as_deref().filter(|field| !field.is_empty()) else {
        return Err(faults::invalid("A condition field must be specified"));
    };
    let Some(field) = FIELDS.iter().find(|field| **field == given) else {
        let all = FIELDS.join(", ");
        return Err(faults::invalid(format!("Condition field '{given}' must be one of '[{all}]'")));
    };
    let configs = [
        (condition.path_pattern_config.is_some(), "path-pattern", "PathPatternConfig"),
        (condition.host_header_config.is_some(), "host-header", "HostHeaderConfig"),
        (condition.http_header_config.is_some(), "http-header", "HttpHeaderConfig"),
        (
            condition.http_request_method_config.is_some(),
            "http-request-method",
            "HttpRequestMethodConfig",
        ),
        (condition.query_string_config.is_some(), "query-string", "QueryStringConfig"),
        (condition.source_ip_config.is_some(), "source-ip", "SourceIpConfig"),
    ];
    for (given, of, name) in configs {
        if given && of != *field {
            let message = format!("{name} cannot be specified for the condition field '{field}'");
            return Err(faults::invalid(message));
        }
    }
    let legacy = condition.values.as_ref().is_some_and(|values| !values.is_empty());
    if legacy && !matches!(*field, "path-pattern" | "host-header") {
        let message = format!("Values cannot be specified for the condition field '{field}'");
        return Err(faults::invalid(message));
    }
    if legacy && configs.iter().any(|(given, ..)| *given) {
        let message = format!(
            "Values and the field's configuration cannot both be specified for the condition field '{field}'"
        );
        return Err(faults::invalid(message));
    }
    Ok(field)
}

fn check(field: &'static str, given: RuleCondition) -> Result<Checked, Fault> {
    let mut condition = RuleCondition { field: Some(field.to_owned()), ..RuleCondition::default() };
    let mut wildcards = true;
    let values = match field {
        "path-pattern" => {
            let of_config = given.path_pattern_config.and_then(|config| config.values);
            let values = of_config.or(given.values).unwrap_or_default();
            each(field, &values, |c| c.is_ascii_alphanumeric() || "_-.$/~\"'@:+&*?".contains(c))?;
            condition.values = Some(values.clone());
            condition.path_pattern_config = Some(PathPatternConditionConfig {
                values: Some(values.clone()),
                regex_values: None,
            });
            values
        }
        "host-header" => {
            let of_config = given.host_header_config.and_then(|config| config.values);
            let values = of_config.or(given.values).unwrap_or_default();
            each(field, &values, |c| c.is_ascii_alphanumeric() || "-.*?".contains(c))?;
            condition.values = Some(values.clone());
            condition.host_header_config = Some(HostHeaderConditionConfig {
                values: Some(values.clone()),
                regex_values: None,
            });
            values
        }
        "http-header" => {
            let config = given.http_header_config.unwrap_or_default();
            check_header_name(config.http_header_name.as_deref())?;
            let values = config.values.clone().unwrap_or_default();
            each(field, &values, |c| c == ' ' || c.is_ascii_graphic())?;
            condition.http_header_config = Some(config);
            values
        }
        "http-request-method" => {
            wildcards = false;
            let config = given.http_request_method_config.unwrap_or_default();
            let values = config.values.clone().unwrap_or_default();
            each(field, &values, |c| c.is_ascii_uppercase() || c == '-' || c == '_')?;
            if let Some(long) = values.iter().find(|value| value.len() > MOST_NAME) {
                return Err(too_long(field, long, MOST_NAME));
            }
            condition.http_request_method_config = Some(config);
            values
        }
        "query-string" => {
            let config = given.query_string_config.unwrap_or_default();
            let values = query_values(config.values.as_deref().unwrap_or_default())?;
            condition.query_string_config = Some(config);
            values
        }
        _ => {
            wildcards = false;
            let config = given.source_ip_config.unwrap_or_default();
            let values = config.values.clone().unwrap_or_default();
            values.iter().try_for_each(|value| check_block(value))?;
            condition.source_ip_config = Some(config);
            values
        }
    };
    Ok(Checked { condition, values, wildcards })
}

fn too_long(field: &str, value: &str, most: usize) -> Fault {
    let value: String = value.chars().take(256).collect();
    faults::invalid(format!(
        "Condition value '{value}' for the condition field '{field}' cannot be longer than '{most}' characters"
    ))
}

fn bad_value(field: &str, value: &str) -> Fault {
    let value: String = value.chars().take(256).collect();
    faults::invalid(format!(
        "Condition value '{value}' contains a character that is not valid for '{field}'"
    ))
}

/// Checks that every value is there, short enough and made of `letter`s.
fn each(field: &str, values: &[String], letter: impl Fn(char) -> bool) -> Result<(), Fault> {
    for value in values {
        if value.is_empty() {
            let message =
                format!("Condition values for the condition field '{field}' cannot be empty");
            return Err(faults::invalid(message));
        }
        if value.len() > MOST_VALUE {
            return Err(too_long(field, value, MOST_VALUE));
        }
        if !value.chars().all(&letter) {
            return Err(bad_value(field, value));
        }
    }
    Ok(())
}

fn check_header_name(name: Option<&str>) -> Result<(), Fault> {
    let name = name.unwrap_or_default();
    if name.is_empty() {
        return Err(faults::invalid("An HTTP header name must be specified"));
    }
    if name.len() > MOST_NAME {
        return Err(too_long("http-header", name, MOST_NAME));
    }
    // RFC 7230's token, without the asterisk: names have no wildcards.
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'+-.^_`|~".contains(c);
    if !name.chars().all(token) {
        return Err(bad_value("http-header", name));
    }
    match name.eq_ignore_ascii_case("host") {
        true => Err(faults::invalid(
            "The host header cannot be specified in an http-header condition; use host-header",
        )),
        false => Ok(()),
    }
}

/// The values of a query-string condition, a key and its value being one.
fn query_values(pairs: &[QueryStringKeyValuePair]) -> Result<Vec<String>, Fault> {
    let mut values = Vec::new();
    for pair in pairs {
        let Some(value) = pair.value.as_ref().filter(|value| !value.is_empty()) else {
            return Err(faults::invalid("A query string condition must have a value"));
        };
        for text in [pair.key.as_ref(), Some(value)].into_iter().flatten() {
            if text.contains('\\') {
                let what = format!("the query string value '{text}'");
                return Err(faults::not_built(&what, "escaped wildcards are not built yet"));
            }
        }
        let texts: Vec<String> = pair.key.iter().chain([value]).cloned().collect();
        each("query-string", &texts, |c| c == ' ' || c.is_ascii_graphic())?;
        values.push(texts.concat());
    }
    Ok(values)
}

fn check_block(text: &str) -> Result<(), Fault> {
    let block = text.split_once('/').and_then(|(base, prefix)| {
        let base: IpAddr = base.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= if base.is_ipv4() { 32 } else { 128 }).then_some(())
    });
    block.ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        faults::invalid(format!("The source IP '{text}' must be a valid CIDR block"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Option<Vec<String>> {
        Some(values.iter().map(|value| (*value).to_owned()).collect())
    }

    fn path(values: &[&str]) -> RuleCondition {
        let field = Some("path-pattern".to_owned());
        RuleCondition { field, values: texts(values), ..RuleCondition::default() }
    }

    fn header(name: &str, values: &[&str]) -> RuleCondition {
        let config = HttpHeaderConditionConfig {
            http_header_name: Some(name.to_owned()),
            values: texts(values),
            regex_values: None,
        };
        let field = Some("http-header".to_owned());
        RuleCondition { field, http_header_config: Some(config), ..RuleCondition::default() }
    }

    fn source(values: &[&str]) -> RuleCondition {
        let config = SourceIpConditionConfig { values: texts(values) };
        let field = Some("source-ip".to_owned());
        RuleCondition { field, source_ip_config: Some(config), ..RuleCondition::default() }
    }

    #[test]
    fn both_forms_become_both_forms() {
        let config = PathPatternConditionConfig { values: texts(&["/a/*"]), regex_values: None };
        let long =
            RuleCondition { values: None, path_pattern_config: Some(config.clone()), ..path(&[]) };
        let stored = normalise(vec![long]).unwrap();
        assert_eq!(stored, normalise(vec![path(&["/a/*"])]).unwrap());
        assert_eq!(stored[0].values, texts(&["/a/*"]));
        assert_eq!(stored[0].path_pattern_config, Some(config));
    }

    #[test]
    fn conditions_within_their_limits() {
        for good in [
            vec![path(&["/a", "/b", "/c", "/d", "/e"])],
            vec![header("X-A", &["*a*"]), header("X-B", &["b"])],
            vec![source(&["10.0.0.0/8", "::/0"])],
        ] {
            normalise(good).unwrap();
        }
        let long = "x".repeat(129);
        for bad in [
            vec![],
            vec![path(&[])],
            vec![path(&["/a", "/b", "/c", "/d", "/e", "/f"])],
            vec![path(&["/*"]), path(&["/b"])],
            vec![path(&["*******"])],
            vec![path(&["/ä"])],
            vec![path(&[&long])],
            vec![header("Host", &["a"])],
            vec![header("A*", &["a"])],
            vec![header("A", &["a\r\n"])],
            vec![source(&["10.0.0.0"])],
            vec![source(&["10.0.0.0/33"])],
            vec![RuleCondition::default()],
            vec![RuleCondition { field: Some("cookie".to_owned()), ..path(&["a"]) }],
        ] {
            assert_eq!(normalise(bad.clone()).unwrap_err().code, "ValidationError", "{bad:?}");
        }
    }
}

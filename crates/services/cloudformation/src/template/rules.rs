//! Rules: what parameters must satisfy together.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/rules-section-structure.html>

use super::{Scope, functions, malformed};
use crate::faults;
use serde_json::{Value as Json, json};
use wire::Fault;

/// Answers a fault when an assertion of a rule that applies does not hold.
pub(crate) fn assert_rules(scope: &Scope) -> Result<(), Fault> {
    for (name, rule) in &scope.template.rules {
        if let Some(condition) = rule.get("RuleCondition")
            && !holds(scope, condition, 0)?
        {
            continue;
        }
        for assertion in rule.get("Assertions").and_then(Json::as_array).into_iter().flatten() {
            let assert = assertion.get("Assert");
            let assert = assert
                .ok_or_else(|| malformed(format!("Rule {name} has an assertion without Assert")))?;
            if !holds(scope, assert, 0)? {
                let told =
                    assertion.get("AssertDescription").map(resource::text).unwrap_or_default();
                return Err(faults::validation(format!("Rule {name} failed: {told}")));
            }
        }
    }
    Ok(())
}

fn holds(scope: &Scope, json: &Json, depth: usize) -> Result<bool, Fault> {
    let map = json.as_object().filter(|map| map.len() == 1);
    let (name, argument) = map
        .and_then(|map| map.iter().next())
        .ok_or_else(|| malformed("Rules can only be made of rule functions"))?;
    let parts = argument.as_array().map(Vec::as_slice).unwrap_or_default();
    let list = |json: &Json| -> Result<Vec<Json>, Fault> {
        Ok(match scope.value(json)? {
            Json::Array(items) => items,
            one => vec![one],
        })
    };
    match (name.as_str(), parts) {
        ("Fn::Contains", [all, one]) => Ok(list(all)?.contains(&scope.value(one)?)),
        ("Fn::EachMemberEquals", [all, one]) => {
            let one = scope.value(one)?;
            Ok(list(all)?.iter().all(|item| *item == one))
        }
        ("Fn::EachMemberIn", [some, all]) => {
            let all = list(all)?;
            Ok(list(some)?.iter().all(|item| all.contains(item)))
        }
        ("Fn::Not", [one]) => Ok(!holds(scope, one, depth + 1)?),
        ("Fn::And", parts) if depth < 50 => all(scope, parts, depth),
        ("Fn::Or", parts) if depth < 50 => {
            let none = parts.iter().map(|part| Ok(!holds(scope, part, depth + 1)?));
            let none: Result<Vec<bool>, Fault> = none.collect();
            Ok(none?.contains(&false))
        }
        ("Fn::Equals", _) => functions::condition(scope, &json!({ "Fn::Equals": argument }), depth),
        _ => Err(faults::validation(format!("Neargate does not support {name} in Rules"))),
    }
}

fn all(scope: &Scope, parts: &[Json], depth: usize) -> Result<bool, Fault> {
    let all: Result<Vec<bool>, Fault> =
        parts.iter().map(|part| holds(scope, part, depth + 1)).collect();
    Ok(!all?.contains(&false))
}

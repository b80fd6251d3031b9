//! Which messages a subscriber is told of.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-subscription-filter-policies.html>

use crate::model::{Attribute, Subscription};
use base64::{Engine, engine::general_purpose::STANDARD};
use events::pattern::Pattern;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// Whether a policy can be one; why not, otherwise. The language is EventBridge's.
pub(crate) fn check(policy: &str) -> Result<(), String> {
    match serde_json::from_str::<Json>(policy) {
        Ok(Json::Object(empty)) if empty.is_empty() => Ok(()),
        _ => Pattern::read(policy).map(drop).map_err(|error| error.to_string()),
    }
}

/// Whether a subscriber is told of a message.
pub(crate) fn lets(
    subscription: &Subscription,
    message: &str,
    attributes: &BTreeMap<String, Attribute>,
) -> bool {
    let Some(policy) = &subscription.filter else { return true };
    // One that lets everything pass is no pattern.
    let Ok(pattern) = Pattern::read(policy) else { return check(policy).is_ok() };
    match subscription.filter_body {
        // What is no JSON object has nothing that a policy could name.
        true => serde_json::from_str::<Json>(message)
            .is_ok_and(|body| body.is_object() && pattern.matches(&body)),
        false => pattern
            .matches(&Json::Object(attributes.iter().filter_map(read).collect::<Map<_, _>>())),
    }
}

/// An attribute, as a policy sees it; binary ones it does not see.
fn read((name, attribute): (&String, &Attribute)) -> Option<(String, Json)> {
    let base = attribute.kind.split('.').next().unwrap_or_default();
    let value = match (base, attribute.kind.as_str()) {
        (_, "String.Array") => serde_json::from_str(&attribute.value).ok()?,
        ("Number", _) => serde_json::from_str(&attribute.value).ok()?,
        ("String", _) => Json::String(attribute.value.clone()),
        _ => return None,
    };
    Some((name.clone(), value))
}

/// Whether an attribute's value is of its kind; why not, otherwise.
pub(crate) fn check_attribute(name: &str, attribute: &Attribute) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 256 || !name.chars().all(fits) {
        return Err(format!("The message attribute name '{name}' is invalid"));
    }
    let base = attribute.kind.split('.').next().unwrap_or_default();
    let valid = match (base, attribute.kind.as_str()) {
        (_, "String.Array") => {
            serde_json::from_str::<Json>(&attribute.value).is_ok_and(|value| value.is_array())
        }
        ("Number", _) => attribute.value.parse::<f64>().is_ok_and(f64::is_finite),
        ("String", _) => !attribute.value.is_empty(),
        ("Binary", _) => STANDARD.decode(&attribute.value).is_ok_and(|bytes| !bytes.is_empty()),
        _ => {
            return Err(format!(
                "The message attribute '{name}' has an invalid message attribute type"
            ));
        }
    };
    match valid {
        true => Ok(()),
        false => Err(format!(
            "The message attribute '{name}' with type '{}' must use a value that fits it",
            attribute.kind
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use world::Timestamp;

    fn lets_pass(policy: &str, message: &str, attributes: &[(&str, &str, &str)]) -> bool {
        let subscription = Subscription {
            topic: String::new(),
            id: String::new(),
            owner: String::new(),
            protocol: Protocol::Http,
            endpoint: String::new(),
            token: None,
            authenticated: false,
            guarded: false,
            filter: Some(policy.to_owned()),
            filter_body: attributes.is_empty(),
            raw: false,
            created: Timestamp::from_millis(0),
        };
        let attribute = |(name, kind, value): &(&str, &str, &str)| {
            ((*name).to_owned(), Attribute { kind: (*kind).to_owned(), value: (*value).to_owned() })
        };
        lets(&subscription, message, &attributes.iter().map(attribute).collect())
    }

    #[test]
    fn attributes_and_bodies_are_looked_at() {
        let store = r#"{"store": ["mine"], "price": [{"numeric": [">=", 100]}]}"#;
        let price = |price| [("store", "String", "mine"), ("price", "Number", price)];
        assert!(lets_pass(store, "", &price("100.5")));
        assert!(!lets_pass(store, "", &price("99")));
        assert!(!lets_pass(store, "", &[("store", "Binary", "mine")]));
        let any = r#"{"likes": [{"prefix": "rug"}]}"#;
        assert!(lets_pass(any, "", &[("likes", "String.Array", r#"["soccer", "rugby"]"#)]));
        assert!(!lets_pass(any, "", &[("likes", "String.Array", r#"["soccer"]"#)]));
        assert!(lets_pass(r#"{"a": {"b": ["c"]}}"#, r#"{"a": {"b": "c"}}"#, &[]));
        assert!(!lets_pass(r#"{"a": {"b": ["c"]}}"#, "a b c", &[]));
        assert!(lets_pass("{}", "anything", &[]));
        assert!(check(r#"{"a": "b"}"#).is_err() && check("[]").is_err());
    }
}

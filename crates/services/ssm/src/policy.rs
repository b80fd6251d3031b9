//! Parameter policies. Expiration deletes; the two that notify need EventBridge, which is not built, and are refused.
//! <https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-policies.html>

use crate::{faults, model::Policy};
use serde_json::Value;
use wire::Fault;
use world::Timestamp;

/// The most policies of one parameter.
const MOST_POLICIES: usize = 10;

/// What the `Policies` member says: the policies, and when the parameter ends.
pub(crate) fn read(text: &str) -> Result<(Vec<Policy>, Option<Timestamp>), Fault> {
    let malformed =
        || faults::invalid("Invalid policies input: the text isn't a JSON array of policies.");
    let parsed: Value = serde_json::from_str(text).map_err(|_| malformed())?;
    let items = match parsed {
        Value::Array(items) => items,
        // Both forms are how AWS has policies taken away.
        Value::Object(object) if object.is_empty() => Vec::new(),
        _ => return Err(malformed()),
    };
    if items.len() > MOST_POLICIES {
        let message = format!("A parameter can have at most {MOST_POLICIES} policies.");
        return Err(Fault::new("PoliciesLimitExceededException", message));
    }
    let mut policies = Vec::new();
    let mut expires = None;
    for item in items {
        let object = item.as_object().ok_or_else(malformed)?;
        if object.is_empty() {
            continue;
        }
        let time = expiration(&item)?;
        if expires.replace(time).is_some() {
            let message = "A parameter can have only one policy of type Expiration.";
            return Err(Fault::new("IncompatiblePolicyException", message));
        }
        policies.push(Policy { kind: "Expiration".to_owned(), text: item.to_string() });
    }
    Ok((policies, expires))
}

fn expiration(policy: &Value) -> Result<Timestamp, Fault> {
    let attribute = |message: &str| Fault::new("InvalidPolicyAttributeException", message);
    match policy["Type"].as_str() {
        Some("Expiration") => {}
        Some(kind @ ("ExpirationNotification" | "NoChangeNotification")) => {
            return Err(Fault::new(
                "InvalidPolicyTypeException",
                format!(
                    "Neargate does not support the policy type {kind}: there are no events to notify with."
                ),
            ));
        }
        _ => {
            return Err(Fault::new(
                "InvalidPolicyTypeException",
                "The policy type isn't supported. Parameter Store supports the following policy types: \
                 Expiration, ExpirationNotification, and NoChangeNotification.",
            ));
        }
    }
    if policy["Version"].as_str() != Some("1.0") {
        return Err(attribute("The policy's Version must be 1.0."));
    }
    let only = policy["Attributes"].as_object().is_some_and(|all| all.len() == 1);
    let text = policy["Attributes"]["Timestamp"].as_str().filter(|_| only);
    let text =
        text.ok_or_else(|| attribute("An Expiration policy has one attribute, Timestamp."))?;
    Timestamp::parse_rfc3339(text).ok_or_else(|| {
        attribute("The Timestamp of an Expiration policy must be an ISO 8601 instant.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        read(text).err().map_or_else(String::new, |fault| fault.code.into_owned())
    }

    #[test]
    fn expiration_is_read() {
        let text = r#"[{"Type":"Expiration","Version":"1.0","Attributes":{"Timestamp":"2030-01-02T03:04:05.000Z"}}]"#;
        let (policies, expires) = read(text).unwrap();
        assert_eq!(policies.len(), 1);
        assert_eq!(expires, Timestamp::parse_rfc3339("2030-01-02T03:04:05Z"));
        assert_eq!(read("[{}]").unwrap(), (Vec::new(), None));
        assert_eq!(read("{}").unwrap(), (Vec::new(), None));
    }

    #[test]
    fn the_rest_is_refused() {
        assert_eq!(code("nonsense"), "ValidationException");
        assert_eq!(code(r#"[{"Type":"NoChangeNotification"}]"#), "InvalidPolicyTypeException");
        assert_eq!(code(r#"[{"Type":"Other"}]"#), "InvalidPolicyTypeException");
        assert_eq!(code(r#"[{"Type":"Expiration"}]"#), "InvalidPolicyAttributeException");
        let bad = r#"[{"Type":"Expiration","Version":"1.0","Attributes":{"Timestamp":"soon"}}]"#;
        assert_eq!(code(bad), "InvalidPolicyAttributeException");
        assert_eq!(code(&format!("[{}]", ["{}"; 11].join(","))), "PoliciesLimitExceededException");
    }
}

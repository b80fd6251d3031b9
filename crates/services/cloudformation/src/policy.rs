//! Stack policies: what of a stack may be updated.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/protect-stack-resources.html>

use iam::policy::matches;
use serde_json::Value as Json;

/// The longest policy, in bytes.
const LONGEST: usize = 16_384;

/// A stack policy.
pub(crate) struct Policy {
    statements: Vec<Statement>,
}

struct Statement {
    deny: bool,
    /// As it stands in the policy, for whoever is denied.
    told: String,
    actions: Matcher,
    resources: Matcher,
    types: Option<Vec<String>>,
}

struct Matcher {
    patterns: Vec<String>,
    /// All but those.
    not: bool,
}

impl Matcher {
    fn read(statement: &Json, name: &str, valid: impl Fn(&str) -> bool) -> Option<Self> {
        let (value, not) = match (statement.get(name), statement.get(format!("Not{name}"))) {
            (Some(value), None) => (value, false),
            (None, Some(value)) => (value, true),
            _ => return None,
        };
        let patterns = texts(value)?;
        patterns.iter().all(|pattern| valid(pattern)).then_some(Self { patterns, not })
    }

    fn matches(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, text)) != self.not
    }
}

/// One text, or a list of them.
fn texts(json: &Json) -> Option<Vec<String>> {
    match json {
        Json::String(one) => Some(vec![one.clone()]),
        Json::Array(all) => all.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

impl Policy {
    /// Reads a policy; `None` when it is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let json: Json = serde_json::from_str(text).ok()?;
        let statements = json.get("Statement")?.as_array()?;
        let statements: Option<Vec<Statement>> = statements.iter().map(Statement::read).collect();
        Some(Self { statements: statements? })
    }

    /// Why `action` (`Update:Modify`, `Update:Replace` or `Update:Delete`) is not to be done to a resource, if it is
    /// not.
    pub(crate) fn denies(&self, action: &str, logical: &str, kind: &str) -> Option<String> {
        let resource = format!("LogicalResourceId/{logical}");
        let of = |statement: &&Statement| {
            let types = statement.types.as_ref();
            statement.actions.matches(action)
                && statement.resources.matches(&resource)
                && types.is_none_or(|types| types.iter().any(|wanted| matches(wanted, kind)))
        };
        let mut numbered = self.statements.iter().enumerate();
        if let Some((index, statement)) = numbered.find(|(_, one)| one.deny && of(one)) {
            let (number, told) = (index + 1, &statement.told);
            return Some(format!(
                "Action denied by stack policy: Statement [#{number}] does not allow [{told}] for resource [{resource}]"
            ));
        }
        // What no statement allows is denied.
        let allowed = self.statements.iter().any(|one| !one.deny && of(&one));
        (!allowed).then(|| {
            format!("Action denied by stack policy: no statement allows [{action}] for resource [{resource}]")
        })
    }
}

impl Statement {
    fn read(json: &Json) -> Option<Self> {
        let deny = match json.get("Effect")?.as_str()? {
            "Allow" => false,
            "Deny" => true,
            _ => return None,
        };
        if json.get("Principal").is_some_and(|principal| principal != "*") {
            return None;
        }
        let known = ["Update:Modify", "Update:Replace", "Update:Delete", "Update:*"];
        let actions =
            Matcher::read(json, "Action", |action| known.contains(&action) || action == "*")?;
        let resources = Matcher::read(json, "Resource", |resource| {
            resource == "*" || resource.starts_with("LogicalResourceId/")
        })?;
        let types = match json.get("Condition") {
            None => None,
            Some(Json::Object(condition)) => {
                let (operator, keys) = condition.iter().next().filter(|_| condition.len() == 1)?;
                if !["StringEquals", "StringLike"].contains(&operator.as_str()) {
                    return None;
                }
                Some(texts(keys.get("ResourceType")?)?)
            }
            Some(_) => return None,
        };
        let told = actions.patterns.join(", ");
        Some(Self { deny, told, actions, resources, types })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_count_and_what_is_not_allowed_is_denied() {
        let policy = Policy::read(
            r#"{"Statement": [
                {"Effect": "Allow", "Action": "Update:*", "Principal": "*", "NotResource": "LogicalResourceId/Secret*"},
                {"Effect": "Deny", "Action": ["Update:Replace", "Update:Delete"], "Principal": "*",
                 "Resource": "LogicalResourceId/*", "Condition": {"StringLike": {"ResourceType": ["AWS::S3::*"]}}}
            ]}"#,
        );
        let policy = policy.unwrap();
        let denies = |action: &str, logical: &str, kind: &str| policy.denies(action, logical, kind);
        assert_eq!(denies("Update:Modify", "Bucket", "AWS::S3::Bucket"), None);
        assert_eq!(denies("Update:Delete", "Group", "AWS::Logs::LogGroup"), None);
        let denied = denies("Update:Delete", "Bucket", "AWS::S3::Bucket").unwrap();
        assert!(
            denied.contains("Statement [#2] does not allow [Update:Replace, Update:Delete]"),
            "{denied}"
        );
        assert!(
            denies("Update:Modify", "SecretThing", "A::B::C")
                .unwrap()
                .contains("no statement allows")
        );
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"Statement": {}}"#,
            r#"{"Statement": [{"Effect": "Maybe", "Action": "*", "Resource": "*"}]}"#,
            r#"{"Statement": [{"Effect": "Allow", "Action": "Delete:*", "Resource": "*"}]}"#,
            r#"{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "Bucket"}]}"#,
            r#"{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {}}}]}"#,
        ] {
            assert!(Policy::read(text).is_none(), "{text}");
        }
    }
}

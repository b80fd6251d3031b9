//! Approval rules: how many of whom must approve a pull request.
//! <https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-create-pull-request-approval-rule.html>

use crate::names;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The longest rule, in bytes.
const LONGEST_RULE: usize = 3000;
const VERSION: &str = "2018-11-08";
/// What a member of a pool begins with that is named without the form of an ARN.
const SHORT: &str = "CodeCommitApprovers:";

/// A rule.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Rule {
    version: String,
    /// The whole names of the branches that it is for; all without. Templates only.
    #[serde(default)]
    destination_references: Vec<String>,
    statements: Vec<Statement>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Type")]
    kind: String,
    number_of_approvals_needed: u32,
    /// Whose approvals count; everyone's without.
    #[serde(default)]
    approval_pool_members: Vec<String>,
}

impl Rule {
    /// Reads a rule; what is wrong with it otherwise.
    pub(crate) fn read(content: &str) -> Result<Self, String> {
        if !(1..=LONGEST_RULE).contains(&content.len()) {
            return Err(format!("a rule has between 1 and {LONGEST_RULE} bytes"));
        }
        let rule: Self = serde_json::from_str(content).map_err(|error| error.to_string())?;
        if rule.version != VERSION {
            return Err(format!("the Version is {VERSION}"));
        }
        let [statement] = &rule.statements[..] else {
            return Err("there is one statement".to_owned());
        };
        if statement.kind != "Approvers" {
            return Err("the statement's Type is Approvers".to_owned());
        }
        if statement.number_of_approvals_needed < 1 {
            return Err("NumberOfApprovalsNeeded is 1 or more".to_owned());
        }
        let short = |member: &str| {
            member.strip_prefix(SHORT).is_some_and(
                |rest| matches!(rest.split_once(':'), Some((_, name)) if !name.is_empty()),
            )
        };
        let bad = |member: &&String| !member.starts_with("arn:") && !short(member);
        if let Some(member) = statement.approval_pool_members.iter().find(bad) {
            return Err(format!("{member} is neither an ARN nor {SHORT}ACCOUNT:NAME"));
        }
        let bad = |name: &&String| !name.starts_with(names::BRANCH);
        if let Some(name) = rule.destination_references.iter().find(bad) {
            return Err(format!("{name} is not the whole name of a branch (refs/heads/main)"));
        }
        Ok(rule)
    }

    /// Whether it is for pull requests into this branch.
    pub(crate) fn is_for(&self, reference: &str) -> bool {
        let names = &self.destination_references;
        names.is_empty() || names.iter().any(|name| name == reference)
    }

    /// Whether it says which branches it is for.
    pub(crate) fn is_of_a_template(&self) -> bool {
        !self.destination_references.is_empty()
    }

    /// Whether these approvals are enough.
    pub(crate) fn is_satisfied(&self, approvals: &BTreeSet<String>) -> bool {
        self.statements.iter().all(|statement| {
            let pool = &statement.approval_pool_members;
            let counts = |arn: &&String| pool.is_empty() || pool.iter().any(|one| is(one, arn));
            approvals.iter().filter(counts).count() >= statement.number_of_approvals_needed as usize
        })
    }
}

/// Whether the member of a pool is, or stands for, the one with this ARN.
fn is(member: &str, arn: &str) -> bool {
    let Some(rest) = member.strip_prefix(SHORT) else { return matches(member, arn) };
    let Some((account, name)) = rest.split_once(':') else { return false };
    let Some((head, who)) = arn.split_once('/') else { return false };
    let by_name = ["user", "federated-user", "assumed-role"];
    let [.., its_account, kind] = head.split(':').collect::<Vec<_>>()[..] else { return false };
    // An IAM user's path is not part of the name.
    let who = if kind == "user" { who.rsplit('/').next().unwrap_or(who) } else { who };
    its_account == account && by_name.contains(&kind) && matches(name, who)
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(needed: u32, pool: &[&str]) -> Rule {
        let statement = json!({"Type": "Approvers", "NumberOfApprovalsNeeded": needed, "ApprovalPoolMembers": pool});
        Rule::read(&json!({"Version": VERSION, "Statements": [statement]}).to_string()).unwrap()
    }

    fn approved(rule: &Rule, by: &[&str]) -> bool {
        rule.is_satisfied(&by.iter().map(|arn| (*arn).to_owned()).collect())
    }

    #[test]
    fn pools_are_of_arns_wildcards_and_names() {
        let session = "arn:aws:sts::1:assumed-role/Review/Mary";
        let (user, other) = ("arn:aws:iam::1:user/team/Mary", "arn:aws:iam::2:user/Mary");
        assert!(approved(&rule(1, &[]), &[session]) && !approved(&rule(2, &[]), &[session]));
        assert!(approved(&rule(2, &[]), &[session, user]));
        for (member, who) in [
            (session, session),
            ("arn:aws:sts::1:assumed-role/Review/*", session),
            ("arn:aws:sts::*:assumed-role/*/M*y", session),
            ("CodeCommitApprovers:1:Mary", user),
            ("CodeCommitApprovers:1:Review/*", session),
            ("CodeCommitApprovers:1:*Mary", session),
        ] {
            assert!(approved(&rule(1, &[member]), &[who]), "{member} {who}");
            assert!(
                !approved(
                    &rule(1, &[member]),
                    &["arn:aws:iam::1:root", "arn:aws:iam::1:user/Xmary"]
                ),
                "{member}"
            );
        }
        for (member, who) in [
            ("CodeCommitApprovers:1:Mary", session),
            ("CodeCommitApprovers:1:Mary", other),
            (user, session),
        ] {
            assert!(!approved(&rule(1, &[member]), &[who]), "{member} {who}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let of = |statements: serde_json::Value| {
            json!({"Version": VERSION, "Statements": statements}).to_string()
        };
        let good = json!({"Type": "Approvers", "NumberOfApprovalsNeeded": 1});
        assert!(Rule::read(&of(json!([good]))).is_ok());
        for (text, says) in [
            (String::new(), "between 1 and"),
            ("{".to_owned(), "EOF"),
            (of(json!([])), "one statement"),
            (of(json!([good, good])), "one statement"),
            (of(json!([{"Type": "Approvers", "NumberOfApprovalsNeeded": 0}])), "1 or more"),
            (of(json!([{"Type": "Other", "NumberOfApprovalsNeeded": 1}])), "Approvers"),
            (of(json!([{"Type": "Approvers", "NumberOfApprovalsNeeded": 1, "ApprovalPoolMembers": ["Mary"]}])), "Mary"),
            (of(json!([{"Type": "Approvers", "NumberOfApprovalsNeeded": 1, "More": 1}])), "More"),
            (json!({"Version": "1", "Statements": [good]}).to_string(), "Version"),
            (json!({"Version": VERSION, "DestinationReferences": ["main"], "Statements": [good]}).to_string(), "main"),
            ("x".repeat(3001), "3000"),
        ] {
            let why = Rule::read(&text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}

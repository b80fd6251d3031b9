//! What a set of documents says of one request.

use super::{
    document::{Document, Names, Principals, Statement},
    pattern,
};
use std::collections::BTreeMap;
use wire::{Principal, PrincipalKind};

/// What is asked.
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for: `ecs:RunTask`.
    pub action: &'a str,
    /// On what: an ARN or `*`.
    pub resource: &'a str,
    /// The request's condition keys, in lower case, with their values.
    pub keys: &'a BTreeMap<String, Vec<String>>,
}

/// What documents say, the first that applies: deny, allow, nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A statement denies it.
    Deny,
    /// A statement allows it and none denies it. `by_name` when the principal's own ARN, not just its account or
    /// everyone, was named: that grants by itself, without an identity policy.
    Allow {
        /// See the variant.
        by_name: bool,
    },
    /// No statement applies.
    Nothing,
}

/// Evaluates `documents` together.
pub fn evaluate<'d>(
    documents: impl IntoIterator<Item = &'d Document>,
    request: &Request,
) -> Effect {
    let mut effect = Effect::Nothing;
    for document in documents {
        for statement in &document.statements {
            let Some(by_name) = applies(document, statement, request) else { continue };
            if !statement.allow {
                return Effect::Deny;
            }
            let before = matches!(effect, Effect::Allow { by_name: true });
            effect = Effect::Allow { by_name: by_name || before };
        }
    }
    effect
}

/// `None` when the statement does not apply; else whether it named the principal itself.
fn applies(document: &Document, statement: &Statement, request: &Request) -> Option<bool> {
    let by_name = match &statement.principals {
        None => false,
        Some(principals) => names_principal(principals, request.principal)?,
    };
    let action = request.action.to_ascii_lowercase();
    let action_named = |name: &str| pattern::matches(&name.to_ascii_lowercase(), &action);
    if !named(&statement.actions, action_named) {
        return None;
    }
    let expand = |text: &str| expand(text, document.variables, request.keys);
    if let Some(resources) = &statement.resources {
        let resource_named = |name: &str| {
            expand(name)
                .is_some_and(|name| name == "*" || pattern::matches(&name, request.resource))
        };
        if !named(resources, resource_named) {
            return None;
        }
    }
    let hold = statement.conditions.iter().all(|condition| {
        condition.holds(request.keys.get(&condition.key()).map(Vec::as_slice), expand)
    });
    hold.then_some(by_name)
}

fn named(names: &Names, is: impl Fn(&str) -> bool) -> bool {
    let any = names.list().iter().any(|name| is(name));
    match names {
        Names::Only(_) => any,
        Names::AllBut(_) => !any,
    }
}

/// `None` when the principal is not meant; else whether it is meant by its own name.
fn names_principal(principals: &Principals, principal: &Principal) -> Option<bool> {
    let mut named = None;
    for (kind, text) in &principals.entries {
        let own = match (kind.as_str(), &principal.kind) {
            ("*", _) | ("AWS", _) if text == "*" => Some(false),
            ("Service", PrincipalKind::Service { name }) => (text == name).then_some(true),
            ("AWS", PrincipalKind::Service { .. }) => None,
            ("AWS", _) => aws_principal(text, principal),
            _ => None,
        };
        named = match (named, own) {
            (Some(before), Some(now)) => Some(before || now),
            (before, now) => before.or(now),
        };
    }
    match principals.all_but {
        false => named,
        true => {
            if named.is_none() {
                Some(false)
            } else {
                None
            }
        }
    }
}

fn aws_principal(text: &str, principal: &Principal) -> Option<bool> {
    let account = &principal.account;
    if text == account || *text == format!("arn:aws:iam::{account}:root") {
        return Some(principal.kind == PrincipalKind::Root);
    }
    let role = match &principal.kind {
        PrincipalKind::AssumedRole { role, .. } => Some(role),
        _ => None,
    };
    let is_role = role.is_some_and(|role| {
        let prefix = format!("arn:aws:iam::{account}:role/");
        // A role's path stands in its ARN, but not in its sessions'.
        text.strip_prefix(&prefix).is_some_and(|name| name.rsplit('/').next() == Some(role))
    });
    (text == principal.arn || is_role).then_some(true)
}

/// Replaces `${key}` and `${key, 'default'}`; `None` when a variable has no value.
fn expand(text: &str, variables: bool, keys: &BTreeMap<String, Vec<String>>) -> Option<String> {
    if !variables || !text.contains("${") {
        return Some(text.to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let (name, tail) = after.split_once('}')?;
        let (name, default) = match name.split_once(',') {
            Some((name, default)) => (name.trim(), default.trim().strip_prefix('\'')),
            None => (name, None),
        };
        match name {
            // Literal forms of the three special characters; text with them is compared as it stands.
            "*" | "?" | "$" => out.push_str(name),
            name => match keys.get(&name.to_ascii_lowercase()).map(Vec::as_slice) {
                Some([value]) => out.push_str(value),
                _ => out.push_str(default?.strip_suffix('\'')?),
            },
        }
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

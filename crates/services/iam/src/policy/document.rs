//! Policy documents, read strictly: what AWS would refuse as malformed is refused here.

use super::condition::Condition;
use serde_json::{Map, Value};
use thiserror::Error;

/// What a document is attached to decides which elements it must and must not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Attached to a user or role, or to a session: names resources, no principals.
    Identity,
    /// A role's trust policy: names principals, no resources.
    Trust,
    /// Attached to a resource (a repository, a secret): names principals; the resource is implied or named.
    Resource,
}

/// Why a document is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// It is not JSON.
    #[error("This policy contains invalid Json")]
    Json,
    /// It is JSON of the wrong form.
    #[error("Syntax errors in policy.")]
    Syntax,
    /// The version is none that there is.
    #[error("The policy must contain a valid version string")]
    Version,
    /// An action has no vendor.
    #[error("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")]
    Vendor,
    /// A resource is neither an ARN nor `*`.
    #[error("Resource {0} must be in ARN format or \"*\".")]
    ResourceForm(String),
    /// A statement names neither resources nor exceptions.
    #[error("Policy statement must contain resources.")]
    NoResources,
    /// A statement names no actions.
    #[error("Policy statement must contain actions.")]
    NoActions,
    /// A statement of a trust or resource policy names nobody.
    #[error("Missing required field Principal")]
    NoPrincipal,
    /// A statement names principals where none can be.
    #[error("Policy document should not specify a principal.")]
    StrayPrincipal,
    /// A trust policy names resources.
    #[error("Has prohibited field Resource")]
    StrayResource,
    /// Two statements have one id.
    #[error("Statement IDs (SID) in a single policy must be unique.")]
    SameSid,
    /// A condition has an operator that there is not.
    #[error("Invalid Condition type : {0}.")]
    ConditionType(String),
}

/// A document that has been read.
#[derive(Debug)]
pub struct Document {
    pub(super) statements: Vec<Statement>,
    /// Variables are replaced only in documents of 2012-10-17.
    pub(super) variables: bool,
}

#[derive(Debug)]
pub(super) struct Statement {
    pub allow: bool,
    pub actions: Names,
    pub resources: Option<Names>,
    pub principals: Option<Principals>,
    pub conditions: Vec<Condition>,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Debug)]
pub(super) enum Names {
    Only(Vec<String>),
    AllBut(Vec<String>),
}

#[derive(Debug)]
pub(super) struct Principals {
    pub all_but: bool,
    /// `("AWS", "arn:…" or an account or "*")`, `("Service", "ecs-tasks.amazonaws.com")`, `("*", "*")`.
    pub entries: Vec<(String, String)>,
}

impl Document {
    /// Reads a document of `kind`.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, Malformed> {
        let json: Value = serde_json::from_str(text).map_err(|_| Malformed::Json)?;
        let Value::Object(top) = json else { return Err(Malformed::Syntax) };
        if top.keys().any(|key| !["Version", "Id", "Statement"].contains(&key.as_str())) {
            return Err(Malformed::Syntax);
        }
        let variables = match top.get("Version").map(Value::as_str) {
            None | Some(Some("2008-10-17")) => false,
            Some(Some("2012-10-17")) => true,
            _ => return Err(Malformed::Version),
        };
        let statements = match top.get("Statement") {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err(Malformed::Syntax),
        };
        let mut sids = Vec::new();
        let mut read = Vec::new();
        for statement in statements {
            let Value::Object(object) = statement else { return Err(Malformed::Syntax) };
            if let Some(sid) =
                object.get("Sid").and_then(Value::as_str).filter(|sid| !sid.is_empty())
            {
                if sids.contains(&sid) {
                    return Err(Malformed::SameSid);
                }
                sids.push(sid);
            }
            read.push(Statement::read(object, kind)?);
        }
        Ok(Self { statements: read, variables })
    }
}

impl Statement {
    fn read(object: &Map<String, Value>, kind: Kind) -> Result<Self, Malformed> {
        const KNOWN: [&str; 9] = [
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        if object.keys().any(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Malformed::Syntax);
        }
        let allow = match object.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(Malformed::Syntax),
        };
        let actions = names(object, "Action", "NotAction")?.ok_or(Malformed::NoActions)?;
        if actions.list().iter().any(|action| action != "*" && !action.contains(':')) {
            return Err(Malformed::Vendor);
        }
        let resources = names(object, "Resource", "NotResource")?;
        let principals = principals(object)?;
        match kind {
            Kind::Identity if principals.is_some() => return Err(Malformed::StrayPrincipal),
            Kind::Identity if resources.is_none() => return Err(Malformed::NoResources),
            Kind::Trust if resources.is_some() => return Err(Malformed::StrayResource),
            Kind::Trust | Kind::Resource if principals.is_none() => {
                return Err(Malformed::NoPrincipal);
            }
            _ => {}
        }
        let named = resources.iter().flat_map(|names| names.list());
        if let Some(odd) = named.into_iter().find(|name| !is_resource(name)) {
            return Err(Malformed::ResourceForm(odd.clone()));
        }
        let conditions = match object.get("Condition") {
            None => Vec::new(),
            Some(Value::Object(operators)) => Condition::read_all(operators)?,
            Some(_) => return Err(Malformed::Syntax),
        };
        Ok(Self { allow, actions, resources, principals, conditions })
    }
}

fn is_resource(name: &str) -> bool {
    name == "*"
        || name.splitn(6, ':').count() == 6 && name.starts_with("arn:")
        || name.starts_with("arn:*")
}

impl Names {
    pub(super) fn list(&self) -> &[String] {
        match self {
            Self::Only(list) | Self::AllBut(list) => list,
        }
    }
}

fn names(
    object: &Map<String, Value>,
    only: &str,
    all_but: &str,
) -> Result<Option<Names>, Malformed> {
    match (object.get(only), object.get(all_but)) {
        (Some(_), Some(_)) => Err(Malformed::Syntax),
        (Some(value), None) => texts(value).map(|list| Some(Names::Only(list))),
        (None, Some(value)) => texts(value).map(|list| Some(Names::AllBut(list))),
        (None, None) => Ok(None),
    }
}

/// One text, or a list of them that is not empty.
pub(super) fn texts(value: &Value) -> Result<Vec<String>, Malformed> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(on) => Ok(on.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(Malformed::Syntax),
    };
    match value {
        Value::Array(list) if list.is_empty() => Err(Malformed::Syntax),
        Value::Array(list) => list.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

fn principals(object: &Map<String, Value>) -> Result<Option<Principals>, Malformed> {
    let (value, all_but) = match (object.get("Principal"), object.get("NotPrincipal")) {
        (Some(_), Some(_)) => return Err(Malformed::Syntax),
        (Some(value), None) => (value, false),
        (None, Some(value)) => (value, true),
        (None, None) => return Ok(None),
    };
    let entries = match value {
        Value::String(all) if all == "*" => vec![("*".to_owned(), "*".to_owned())],
        Value::Object(kinds) => {
            let mut entries = Vec::new();
            for (kind, value) in kinds {
                if !["AWS", "Service", "Federated", "CanonicalUser"].contains(&kind.as_str()) {
                    return Err(Malformed::Syntax);
                }
                entries.extend(texts(value)?.into_iter().map(|text| (kind.clone(), text)));
            }
            entries
        }
        _ => return Err(Malformed::Syntax),
    };
    Ok(Some(Principals { all_but, entries }))
}

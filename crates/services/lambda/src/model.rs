//! The durable records of Lambda.

use serde::{Deserialize, Serialize};
use store::{Due, Record, Sealed};
use world::Timestamp;

/// A function of an account in a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// A version or an alias of it.
    pub qualifier: Option<String>,
}

impl Function {
    /// With its version or alias, if one is asked for.
    pub fn arn(&self) -> String {
        let (account, region) = self.realm.split_once('/').unwrap_or_default();
        let qualifier = self.qualifier.iter().map(|qualifier| format!(":{qualifier}"));
        let qualifier: String = qualifier.collect();
        format!("arn:aws:lambda:{region}:{account}:function:{}{qualifier}", self.name)
    }
}

/// An asynchronous invocation that has not succeeded yet.
#[derive(Clone, Serialize, Deserialize)]
pub struct Invocation {
    /// A UUID.
    pub id: String,
    /// What is invoked.
    pub function: Function,
    /// The event, JSON. Pipelines' events have credentials in them.
    pub payload: Sealed,
    /// When it was asked for.
    pub since: Timestamp,
    /// So often has the function failed.
    pub failures: u32,
    /// So often was it not even reached.
    pub misses: u32,
    /// When it is tried again.
    pub due: Timestamp,
}

impl Record for Invocation {
    const TABLE: &'static str = "lambda.invocation";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Due for Invocation {
    fn due(&self) -> Timestamp {
        self.due
    }
}

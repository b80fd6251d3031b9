//! What this machine can do for containers.

use serde::{Deserialize, Serialize};

/// The outcome of trying everything that containers need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whether tasks run in user namespaces: root inside is then nobody in particular outside.
    pub user_namespace: bool,
    /// Whether tasks can have disks of a limited size.
    pub disk_limit: bool,
    /// What was tried.
    pub checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// Whether no container can run without it.
    pub required: bool,
    /// In words: how it works, or why not.
    pub detail: String,
}

impl Capabilities {
    /// What is missing so badly that no container can run.
    pub fn missing(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| c.required && !c.ok)
    }
}

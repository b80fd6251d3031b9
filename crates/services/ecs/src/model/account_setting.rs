//! Account settings.

use serde::{Deserialize, Serialize};
use store::Record;

/// A setting of one principal, or the account's default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountSetting {
    /// `account/region`.
    pub realm: String,
    /// The principal's ARN; the root's for the default.
    pub principal: String,
    /// The setting's name, as AWS writes it.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl AccountSetting {
    /// The record's key.
    pub fn key_of(realm: &str, principal: &str, name: &str) -> String {
        format!("{realm}/{name}/{principal}")
    }
}

impl Record for AccountSetting {
    const TABLE: &'static str = "ecs.account_setting";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.principal, &self.name)
    }
}

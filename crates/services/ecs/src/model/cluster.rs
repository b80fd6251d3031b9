//! Clusters.

use super::Tags;
use crate::api::{CapacityProviderStrategyItem, ClusterSetting};
use serde::{Deserialize, Serialize};
use store::Record;

/// A cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// `false` after DeleteCluster: such a cluster is still described for a while, as on AWS.
    pub active: bool,
    /// Its tags.
    pub tags: Tags,
    /// `containerInsights`.
    pub settings: Vec<ClusterSetting>,
    /// Its capacity providers.
    pub capacity_providers: Vec<String>,
    /// What RunTask without a launch type or strategy uses.
    pub default_strategy: Vec<CapacityProviderStrategyItem>,
    /// The ARN of the Cloud Map namespace that its services' Service Connect is in unless they say.
    #[serde(default)]
    pub connect_namespace: Option<String>,
}

impl Cluster {
    /// The record's key.
    pub fn key_of(realm: &str, name: &str) -> String {
        format!("{realm}/{name}")
    }
}

impl Record for Cluster {
    const TABLE: &'static str = "ecs.cluster";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.name)
    }
}

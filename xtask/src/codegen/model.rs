//! AWS's models as botocore publishes them: `service-2.json`, only what is used here.

use serde::Deserialize;
use std::{collections::BTreeMap, fs, io::Read, path::Path};

#[derive(Deserialize)]
pub(super) struct Model {
    pub metadata: Metadata,
    pub operations: BTreeMap<String, Operation>,
    pub shapes: BTreeMap<String, Shape>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub api_version: String,
    pub endpoint_prefix: String,
    pub protocol: String,
    pub service_full_name: String,
    pub signing_name: Option<String>,
    pub target_prefix: Option<String>,
    pub xml_namespace: Option<String>,
    /// There when the service once spoke Query only.
    pub aws_query_compatible: Option<serde_json::Value>,
}

#[derive(Deserialize)]
pub(super) struct Operation {
    pub http: Http,
    pub input: Option<Reference>,
    pub output: Option<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Http {
    pub method: String,
    pub request_uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reference {
    pub shape: String,
    pub result_wrapper: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shape {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub members: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub required: Vec<String>,
    pub member: Option<MemberRef>,
    pub key: Option<MemberRef>,
    pub value: Option<MemberRef>,
    #[serde(default)]
    pub flattened: bool,
    #[serde(default)]
    pub sensitive: bool,
    /// The member that is the whole body, in a REST protocol.
    pub payload: Option<String>,
    #[serde(rename = "enum", default)]
    pub values: Vec<String>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub pattern: Option<String>,
    pub timestamp_format: Option<String>,
    /// What of a fault is not its structure.
    pub error: Option<Error>,
}

#[derive(Deserialize)]
pub(super) struct Error {
    pub code: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberRef {
    pub shape: String,
    pub location_name: Option<String>,
    pub query_name: Option<String>,
    pub location: Option<String>,
    pub timestamp_format: Option<String>,
}

impl Shape {
    /// The members in the model's order.
    pub(super) fn member_refs(&self) -> Vec<(&str, MemberRef)> {
        let members = self.members.iter().map(|(name, member)| {
            let member = serde_json::from_value(member.clone());
            (name.as_str(), member.expect("every member of a model names a shape"))
        });
        members.collect()
    }
}

/// Reads the newest version of a service's model.
pub(super) fn read(models: &Path, name: &str) -> Result<Model, String> {
    let directory = models.join(name);
    let told = |e: std::io::Error| format!("{}: {e}", directory.display());
    let versions = fs::read_dir(&directory).map_err(told)?.flatten();
    let newest = versions.map(|entry| entry.path()).filter(|path| path.is_dir()).max();
    let newest = newest.ok_or_else(|| format!("{}: no version", directory.display()))?;
    let plain = newest.join("service-2.json");
    let text = if plain.is_file() {
        fs::read_to_string(plain).map_err(told)?
    } else {
        let packed = fs::File::open(newest.join("service-2.json.gz")).map_err(told)?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).map_err(told)?;
        text
    };
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", newest.display()))
}

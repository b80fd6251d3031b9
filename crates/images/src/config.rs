//! The image configuration: what to run, as whom and where, and the diff ids of the layers.
//! <https://github.com/opencontainers/image-spec/blob/main/config.md>, and Docker's `Healthcheck`.

use crate::{Digest, Platform};
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The largest configuration accepted, in bytes.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;

/// A configuration that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// More than [`MAX_CONFIG_BYTES`].
    #[error("the image configuration is larger than {MAX_CONFIG_BYTES} bytes")]
    TooLarge,
    /// Not the JSON of a configuration.
    #[error("the image configuration is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    /// A root file system that is not made of layers.
    #[error("the image's root file system is of type {0:?}, not \"layers\"")]
    RootfsType(String),
    /// As many diff ids as layers are needed.
    #[error("the image has {layers} layers but {diff_ids} diff ids")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
}

/// The health check of a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// For one check.
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    pub start_period: Option<Duration>,
    /// How many failures in a row make it unhealthy.
    pub retries: Option<u32>,
}

/// A parsed image configuration. What the image leaves out is empty or `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// The platform it was built for.
    pub platform: Platform,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub cmd: Vec<String>,
    /// `ENV`, each `NAME=value`.
    pub env: Vec<String>,
    /// `USER`: `name|uid[:group|gid]`, or empty.
    pub user: String,
    /// `WORKDIR`, or empty.
    pub working_dir: String,
    /// `EXPOSE`, each `port[/protocol]`.
    pub exposed_ports: Vec<String>,
    /// `VOLUME`s.
    pub volumes: Vec<String>,
    /// `STOPSIGNAL`.
    pub stop_signal: Option<String>,
    /// `HEALTHCHECK`.
    pub healthcheck: Option<Healthcheck>,
    /// `LABEL`s.
    pub labels: BTreeMap<String, String>,
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// When it was built, as written (RFC 3339).
    pub created: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    architecture: String,
    os: String,
    variant: Option<String>,
    created: Option<String>,
    config: Option<Execution>,
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    #[serde(default, deserialize_with = "nullable")]
    user: String,
    #[serde(default, deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "nullable")]
    working_dir: String,
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    stop_signal: Option<String>,
    healthcheck: Option<HealthcheckDocument>,
}

/// Durations are nanoseconds; 0 means inherit, which at the end of the line means the default.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HealthcheckDocument {
    #[serde(default, deserialize_with = "nullable")]
    test: Vec<String>,
    #[serde(default)]
    interval: u64,
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    start_period: u64,
    #[serde(default)]
    retries: u32,
}

/// Builders write `null` for what is empty.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge);
        }
        let document: Document = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        if document.rootfs.kind != "layers" {
            return Err(ConfigError::RootfsType(document.rootfs.kind));
        }
        let Document { architecture, os, variant, created, config, rootfs } = document;
        let run = config.unwrap_or_default();
        let nanoseconds = |n: u64| (n > 0).then(|| Duration::from_nanos(n));
        let healthcheck = run.healthcheck.filter(|h| !h.test.is_empty()).map(|h| Healthcheck {
            test: h.test,
            interval: nanoseconds(h.interval),
            timeout: nanoseconds(h.timeout),
            start_period: nanoseconds(h.start_period),
            retries: (h.retries > 0).then_some(h.retries),
        });
        Ok(ImageConfig {
            platform: Platform { os, architecture, variant: variant.filter(|v| !v.is_empty()) },
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env,
            user: run.user,
            working_dir: run.working_dir,
            exposed_ports: run.exposed_ports.into_keys().collect(),
            volumes: run.volumes.into_keys().collect(),
            stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
            healthcheck,
            labels: run.labels,
            diff_ids: rootfs.diff_ids,
            created,
        })
    }

    /// Refuses a configuration that does not belong to a manifest of `layers` layers.
    pub fn check_layers(&self, layers: usize) -> Result<(), ConfigError> {
        let diff_ids = self.diff_ids.len();
        match diff_ids == layers {
            true => Ok(()),
            false => Err(ConfigError::LayerCount { layers, diff_ids }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_is_read() {
        let id = Digest::of(b"layer");
        let text = json!({
            "architecture": "arm64", "os": "linux", "variant": "v8",
            "rootfs": {"type": "layers", "diff_ids": [id]},
            "config": {
                "User": "65534", "Env": ["A=b"], "Entrypoint": ["/e"], "Cmd": ["c"],
                "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "WorkingDir": "/w",
                "Labels": {"l": "v"}, "StopSignal": "SIGQUIT",
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5_000_000_000u64, "Retries": 3},
            },
        });
        let config = ImageConfig::parse(text.to_string().as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/arm64/v8");
        assert_eq!((&*config.user, &*config.working_dir), ("65534", "/w"));
        assert_eq!((&config.entrypoint[0][..], &config.cmd[0][..]), ("/e", "c"));
        assert_eq!((&config.exposed_ports[0][..], &config.volumes[0][..]), ("80/tcp", "/data"));
        assert_eq!(
            (config.labels["l"].as_str(), config.stop_signal.as_deref()),
            ("v", Some("SIGQUIT"))
        );
        let health = config.healthcheck.clone().unwrap();
        assert_eq!((health.interval, health.retries), (Some(Duration::from_secs(5)), Some(3)));
        assert_eq!(health.timeout, None);
        assert_eq!(config.diff_ids, [id]);
        assert!(config.check_layers(2).is_err());
    }

    #[test]
    fn nulls_are_nothing_and_other_file_systems_are_refused() {
        let mut text = json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": null},
            "config": {"Env": null, "Cmd": null, "Labels": null, "Healthcheck": null},
        });
        let config = ImageConfig::parse(text.to_string().as_bytes()).unwrap();
        assert!(config.env.is_empty() && config.labels.is_empty() && config.healthcheck.is_none());
        text["rootfs"]["type"] = json!("magic");
        let refused = ImageConfig::parse(text.to_string().as_bytes());
        assert!(matches!(refused, Err(ConfigError::RootfsType(_))));
    }
}

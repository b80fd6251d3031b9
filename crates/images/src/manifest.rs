//! Image manifests and indexes: OCI's and Docker's schema 2, which differ in media types only.
//! <https://github.com/opencontainers/image-spec>, image manifest and image index.

use crate::Digest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The largest manifest accepted, in bytes; the distribution specification asks for at least this
/// much.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// The most layers of one image: overlayfs takes some 500, image builders stop at 127.
pub const MAX_LAYERS: usize = 256;
const MAX_INDEX_ENTRIES: usize = 10_000;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What a client that can read all of the above accepts, as an HTTP header's value.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More than [`MAX_MANIFEST_BYTES`].
    #[error("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Not the JSON of a manifest.
    #[error("the manifest is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    /// Schema 1, or something else.
    #[error("manifests of schema version {0} are not supported; only version 2 is")]
    SchemaVersion(u32),
    /// A media type that is no manifest's.
    #[error("{0:?} is not the media type of an image manifest or index")]
    MediaType(String),
    /// The document contradicts its own media type or the one it was served with.
    #[error("the manifest says it is {document:?} but was served as {served:?}")]
    Contradiction {
        /// What it says of itself.
        document: String,
        /// What the registry said.
        served: String,
    },
    /// Too many layers or entries.
    #[error("the manifest lists {0} parts, which is more than is allowed")]
    TooManyParts(usize),
    /// An artifact that is not a container image.
    #[error("{0:?} is not a container image's configuration")]
    NotAnImage(String),
    /// Its layers are encrypted or of another unknown kind.
    #[error("layers of type {0:?} cannot be unpacked")]
    LayerType(String),
    /// The index has nothing for the platform.
    #[error("no image for {wanted} in the index; it has: {available}")]
    NoPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// Those offered, comma-separated.
        available: String,
    },
}

/// What a document points to by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The platform it is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of artifact, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Whether it is a layer that registries need not hold, as its licence forbids to pass it on.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

/// An operating system and processor, as Go names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v8` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on the given processor, in Go's name for it.
    pub fn linux(architecture: &str) -> Self {
        Platform { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Linux on the processor of this machine.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        })
    }

    /// How well something for `self` runs where `wanted` is asked for: `None` not at all, otherwise
    /// higher is better.
    fn suits(&self, wanted: &Platform) -> Option<u8> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        // Every 64-bit ARM processor is at least v8, and every amd64 one v1: naming it says
        // nothing.
        let plain = |platform: &Platform| match (&*platform.architecture, &platform.variant) {
            ("arm64", Some(v)) if v == "v8" => None,
            ("amd64", Some(v)) if v == "v1" => None,
            (_, variant) => variant.clone(),
        };
        match (plain(self), plain(wanted)) {
            (a, b) if a == b => Some(2),
            (None, Some(_)) => Some(1),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(InvalidPlatform),
        };
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric());
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return Err(InvalidPlatform);
        }
        let variant = variant.map(String::from);
        Ok(Platform { os: os.into(), architecture: architecture.into(), variant })
    }
}

/// Not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a platform is written os/architecture or os/architecture/variant")]
pub struct InvalidPlatform;

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageManifest {
    /// What it is, as it says or as it was served.
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What this manifest is about, for referrers.
    pub subject: Option<Descriptor>,
    /// The kind of artifact, if it is not an image.
    pub artifact_type: Option<String>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Several manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// What it is, as it says or as it was served.
    pub media_type: String,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// What this index is about, for referrers.
    pub subject: Option<Descriptor>,
    /// The kind of artifact, if it is not an image.
    pub artifact_type: Option<String>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A parsed manifest of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// One image (or artifact).
    Image(ImageManifest),
    /// An index.
    Index(Index),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest. `served` is the media type that came with it, empty if none did; the
    /// document must not contradict it, because one that reads as two kinds is a way to smuggle
    /// content.
    pub fn parse(bytes: &[u8], served: &str) -> Result<Manifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge);
        }
        let document: Document = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if document.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(document.schema_version));
        }
        let media_type = kind_of(&document, served)?;
        let (subject, artifact_type) = (document.subject, document.artifact_type);
        let annotations = document.annotations.unwrap_or_default();
        let missing = |field| ManifestError::Json(serde::de::Error::missing_field(field));
        if media_type == OCI_INDEX || media_type == DOCKER_LIST {
            if document.config.is_some() || document.layers.is_some() {
                let document = "a manifest with config or layers".into();
                return Err(ManifestError::Contradiction { document, served: media_type });
            }
            let manifests = document.manifests.ok_or_else(|| missing("manifests"))?;
            if manifests.len() > MAX_INDEX_ENTRIES {
                return Err(ManifestError::TooManyParts(manifests.len()));
            }
            return Ok(Manifest::Index(Index {
                media_type,
                manifests,
                subject,
                artifact_type,
                annotations,
            }));
        }
        if document.manifests.is_some() {
            let document = "an index".into();
            return Err(ManifestError::Contradiction { document, served: media_type });
        }
        let config = document.config.ok_or_else(|| missing("config"))?;
        let layers = document.layers.ok_or_else(|| missing("layers"))?;
        if layers.len() > MAX_LAYERS {
            return Err(ManifestError::TooManyParts(layers.len()));
        }
        let image =
            ImageManifest { media_type, config, layers, subject, artifact_type, annotations };
        Ok(Manifest::Image(image))
    }

    /// Everything it needs to be whole in a store.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Manifest::Image(image) => std::iter::once(&image.config).chain(&image.layers).collect(),
            Manifest::Index(index) => index.manifests.iter().collect(),
        }
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        match self {
            Manifest::Image(image) => &image.media_type,
            Manifest::Index(index) => &index.media_type,
        }
    }

    /// What it is about.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Manifest::Image(image) => image.subject.as_ref(),
            Manifest::Index(index) => index.subject.as_ref(),
        }
    }
}

fn kind_of(document: &Document, served: &str) -> Result<String, ManifestError> {
    let known = |t: &str| [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&t);
    // Parameters (charset) say nothing here. Some registries serve plain JSON types; the document
    // decides.
    let served = served.split(';').next().unwrap_or("").trim();
    let vague =
        matches!(served, "" | "application/json" | "text/plain" | "application/octet-stream");
    match (&document.media_type, vague) {
        (Some(own), _) if !known(own) => Err(ManifestError::MediaType(own.clone())),
        (Some(own), false) if own != served => {
            let (document, served) = (own.clone(), served.to_string());
            Err(ManifestError::Contradiction { document, served })
        }
        (Some(own), _) => Ok(own.clone()),
        (None, false) if known(served) => Ok(served.to_string()),
        (None, false) => Err(ManifestError::MediaType(served.to_string())),
        (None, true) if document.manifests.is_some() => Ok(OCI_INDEX.to_string()),
        (None, true) => Ok(OCI_MANIFEST.to_string()),
    }
}

impl ImageManifest {
    /// Refuses what cannot be run: other artifacts, and layers that are not tars.
    pub fn check_runnable(&self) -> Result<(), ManifestError> {
        let config = &*self.config.media_type;
        let known = [
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.docker.container.image.v1+json",
        ];
        if !known.contains(&config) {
            return Err(ManifestError::NotAnImage(config.to_string()));
        }
        match self.layers.iter().find(|layer| !is_layer_type(&layer.media_type)) {
            Some(layer) => Err(ManifestError::LayerType(layer.media_type.clone())),
            None => Ok(()),
        }
    }
}

fn is_layer_type(media_type: &str) -> bool {
    let oci = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ];
    let docker = [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    let with = |bases: [&str; 2], suffixes: [&str; 3]| {
        bases
            .iter()
            .any(|b| media_type.strip_prefix(b).is_some_and(|suffix| suffixes.contains(&suffix)))
    };
    with(oci, ["", "+gzip", "+zstd"]) || with(docker, ["", ".gzip", ".zstd"])
}

impl Index {
    /// The best entry for `wanted`; the first among equals, as containerd and docker take it.
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor, ManifestError> {
        let mut best: Option<(u8, &Descriptor)> = None;
        for entry in &self.manifests {
            let suits = entry.platform.as_ref().and_then(|platform| platform.suits(wanted));
            if let Some(score) = suits
                && best.is_none_or(|(top, _)| score > top)
            {
                best = Some((score, entry));
            }
        }
        best.map(|(_, entry)| entry).ok_or_else(|| {
            let mut names: Vec<String> = self
                .manifests
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .filter(|platform| platform.os != "unknown") // attestations, not images
                .map(Platform::to_string)
                .collect();
            names.truncate(20);
            let available = match names.is_empty() {
                true => "none".to_string(),
                false => names.join(", "),
            };
            ManifestError::NoPlatform { wanted: wanted.clone(), available }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn entry(platform: &str) -> serde_json::Value {
        let p: Platform = platform.parse().unwrap();
        let digest = Digest::of(platform.as_bytes());
        json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 3, "platform": p})
    }

    fn index(platforms: &[&str]) -> Index {
        let manifests: Vec<_> = platforms.iter().map(|p| entry(p)).collect();
        let bytes = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        match Manifest::parse(bytes.as_bytes(), "").unwrap() {
            Manifest::Index(index) => index,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_platform_decides() {
        let index = index(&["linux/arm64/v8", "linux/amd64", "windows/amd64", "linux/arm/v7"]);
        let chosen = |wanted: &str| {
            index.select(&wanted.parse().unwrap()).map(|d| d.platform.clone().unwrap().to_string())
        };
        assert_eq!(chosen("linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(chosen("linux/arm64").unwrap(), "linux/arm64/v8");
        assert_eq!(chosen("linux/arm/v7").unwrap(), "linux/arm/v7");
        let refused = chosen("linux/s390x").unwrap_err().to_string();
        assert!(refused.contains("linux/s390x") && refused.contains("windows/amd64"), "{refused}");
        assert!(matches!(chosen("linux/arm"), Err(ManifestError::NoPlatform { .. })));
    }

    #[test]
    fn contradictions_and_strangers_are_refused() {
        let config = json!({"mediaType": "x", "digest": Digest::of(b""), "size": 1});
        let parse = |value: serde_json::Value, served: &str| {
            Manifest::parse(value.to_string().as_bytes(), served)
        };
        let image = json!({"schemaVersion": 2, "config": config, "layers": []});
        assert!(matches!(parse(image.clone(), OCI_MANIFEST), Ok(Manifest::Image(_))));
        assert!(parse(image.clone(), OCI_INDEX).is_err());
        assert!(parse(image.clone(), "text/html").is_err());
        let mut both = image.clone();
        both["manifests"] = json!([]);
        assert!(parse(both, OCI_MANIFEST).is_err());
        let mut old = image.clone();
        old["schemaVersion"] = json!(1);
        assert!(matches!(parse(old, ""), Err(ManifestError::SchemaVersion(1))));
        let mut liar = image.clone();
        liar["mediaType"] = json!(DOCKER_MANIFEST);
        assert!(matches!(parse(liar, OCI_MANIFEST), Err(ManifestError::Contradiction { .. })));
        let Ok(Manifest::Image(artifact)) = parse(image, "") else { panic!() };
        assert!(matches!(artifact.check_runnable(), Err(ManifestError::NotAnImage(_))));
        let huge = vec![b' '; MAX_MANIFEST_BYTES + 1];
        assert!(matches!(Manifest::parse(&huge, ""), Err(ManifestError::TooLarge)));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(manifest) = Manifest::parse(&bytes, "") {
                prop_assert!(manifest.children().len() <= MAX_INDEX_ENTRIES);
            }
        }
    }
}

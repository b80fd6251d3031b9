//! What the integration tests share: images made by hand, and a registry that can be made to
//! misbehave.
#![allow(dead_code, missing_docs, clippy::unwrap_used)] // each test file uses a part of it

pub mod registry;

use images::{Digest, Event, Images, ImagesOptions, Platform, Progress};
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};
use world::World;

pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Blobs by digest, and manifests by tag or digest.
#[derive(Default, Clone)]
pub struct Content {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
}

/// A layer as a registry keeps it.
#[derive(Clone)]
pub struct LayerBlob {
    pub media_type: String,
    pub bytes: Vec<u8>,
    pub diff_id: Digest,
}

pub fn gzip(tar: &[u8]) -> LayerBlob {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    let bytes = encoder.finish().unwrap();
    LayerBlob { media_type: format!("{OCI_LAYER}+gzip"), bytes, diff_id: Digest::of(tar) }
}

pub fn zstd_layer(tar: &[u8]) -> LayerBlob {
    let bytes = zstd::encode_all(tar, 1).unwrap();
    LayerBlob { media_type: format!("{OCI_LAYER}+zstd"), bytes, diff_id: Digest::of(tar) }
}

pub fn plain(tar: &[u8]) -> LayerBlob {
    LayerBlob { media_type: OCI_LAYER.into(), bytes: tar.into(), diff_id: Digest::of(tar) }
}

/// A tar of plain files owned by root.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that do not compress, the same ones for one seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl Content {
    pub fn blob(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest.to_string(), bytes);
        digest
    }

    /// Adds an image for a platform under a tag; gives the manifest's digest.
    pub fn image(&mut self, tag: &str, platform: &Platform, layers: &[LayerBlob]) -> Digest {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({
            "architecture": platform.architecture, "os": platform.os,
            "config": {"Cmd": ["/bin/true"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let size = config.len();
        let config = self.blob(config);
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                let digest = self.blob(layer.bytes.clone());
                json!({"mediaType": layer.media_type, "digest": digest, "size": layer.bytes.len()})
            })
            .collect();
        let kind = images::manifest::OCI_MANIFEST;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "layers": layers,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config, "size": size,
            },
        });
        self.manifest(tag, kind, manifest)
    }

    pub fn manifest(&mut self, tag: &str, kind: &str, manifest: serde_json::Value) -> Digest {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        for name in [tag.to_string(), digest.to_string()] {
            self.manifests.insert(name, (kind.to_string(), bytes.clone()));
        }
        digest
    }

    /// Adds an index over manifests that are here already.
    pub fn index(&mut self, tag: &str, entries: &[(Digest, Platform)]) -> Digest {
        let manifests: Vec<_> = entries
            .iter()
            .map(|(digest, platform)| {
                let (kind, bytes) = &self.manifests[&digest.to_string()];
                let size = bytes.len();
                json!({"mediaType": kind, "digest": digest, "size": size, "platform": platform})
            })
            .collect();
        let kind = images::manifest::OCI_INDEX;
        self.manifest(
            tag,
            kind,
            json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}),
        )
    }
}

/// A directory, a world, and images in it.
pub struct House {
    pub dir: tempfile::TempDir,
    pub world: World,
    pub images: Images,
}

impl House {
    pub fn new() -> Self {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
        let images = Images::open(dir.path(), &world, ImagesOptions::default()).unwrap();
        House { dir, world, images }
    }

    /// What lies under `tmp` and `partial`: nothing, when nothing has been left behind.
    pub fn rests(&self) -> Vec<String> {
        let list = |dir: &str| {
            let entries = std::fs::read_dir(self.dir.path().join(dir)).unwrap();
            entries.map(|e| e.unwrap().path().display().to_string()).collect::<Vec<_>>()
        };
        [list("partial"), list("layers/tmp")].concat()
    }

    pub fn layer_count(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("layers/sha256")).unwrap().count()
    }
}

pub fn silent() -> Progress {
    Arc::new(|_| {})
}

/// A listener that remembers.
pub fn recorder() -> (Progress, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let heard = events.clone();
    (Arc::new(move |event: &Event| heard.lock().unwrap().push(event.clone())), events)
}

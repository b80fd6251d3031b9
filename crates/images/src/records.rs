//! Which images are here: one file each, `<root>/images/<digest of name and platform>.json`.
//!
//! They are written whole and renamed, but not synced one by one: the flush that makes layers last
//! ([`crate::LayerStore::settle`]) does it for them, and a torn one only means that the image is
//! pulled again.

use crate::disk::{At, DiskError, discard, private_dir};
use crate::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
};
use world::{Timestamp, World};

/// An image as it was last pulled under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The name.
    pub reference: Reference,
    /// The platform it was pulled for.
    pub platform: Platform,
    /// The digest of the manifest for the platform.
    pub digest: Digest,
    /// The digest of the index, if the name stands for one.
    pub index_digest: Option<Digest>,
    /// The digests of its uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// The layer that joins them, if they need one.
    pub seam: Option<Digest>,
    /// The compressed size of all layers, in bytes.
    pub size: u64,
    /// When it was pulled.
    pub pulled_at: Timestamp,
    /// The text of its configuration.
    pub config: String,
}

impl ImageRecord {
    /// All layers it needs, lowest first. A layer that occurs twice counts where it is on top:
    /// overlayfs takes no directory twice, and everything in the lower one is hidden by the upper.
    pub fn layer_ids(&self) -> Vec<Digest> {
        let mut ids: Vec<Digest> = Vec::new();
        for id in self.diff_ids.iter().chain(&self.seam).rev() {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        ids.reverse();
        ids
    }
}

pub(crate) struct Records {
    dir: PathBuf,
    world: World,
}

impl Records {
    pub(crate) fn open(root: &Path, world: &World) -> Result<Self, DiskError> {
        let dir = root.join("images");
        private_dir(&dir)?;
        Ok(Records { dir, world: world.clone() })
    }

    fn path(&self, reference: &Reference, platform: &Platform) -> PathBuf {
        let name = Digest::of(format!("{reference} {platform}").as_bytes());
        self.dir.join(format!("{}.json", name.hex()))
    }

    /// What is recorded; `None` if nothing, or nothing that can be read.
    pub(crate) fn get(&self, reference: &Reference, platform: &Platform) -> Option<ImageRecord> {
        read(&self.path(reference, platform))
    }

    pub(crate) fn put(&self, record: &ImageRecord) -> Result<(), DiskError> {
        let path = self.path(&record.reference, &record.platform);
        let temporary = self.dir.join(format!("{}.new", self.world.hex(16)));
        let json = serde_json::to_vec(record).expect("strings and numbers");
        let written = std::fs::write(&temporary, json)
            .at("write", &temporary)
            .and_then(|()| std::fs::rename(&temporary, &path).at("move into place", &path));
        if written.is_err() {
            discard(&temporary);
        }
        written
    }

    pub(crate) fn list(&self) -> Result<Vec<ImageRecord>, DiskError> {
        let entries = std::fs::read_dir(&self.dir).at("list", &self.dir)?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.at("list", &self.dir)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                found.extend(read(&path));
            }
        }
        Ok(found)
    }

    pub(crate) fn remove(&self, record: &ImageRecord) -> Result<(), DiskError> {
        let path = self.path(&record.reference, &record.platform);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DiskError::new("remove", &path, source))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<ImageRecord> {
    let bytes = std::fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(record) => Some(record),
        Err(torn) => {
            tracing::info!(path = %path.display(), error = %torn, "an image's record is torn");
            None
        }
    }
}

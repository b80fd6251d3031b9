//! Layers on disk, each unpacked once, in the form the overlay file system takes as a lower
//! directory.
//!
//! A layer lies in `<root>/<algorithm>/<digits of its diff id>/fs`, shared by all images that have
//! it. It is unpacked under `<root>/tmp` and renamed when it is whole and its digest is right, so
//! what has a name is whole as far as this boot of the machine goes. Whether it is on the disk is
//! another matter: waiting for that would double the time of a pull. So a layer notes the boot it
//! was made in, and [`LayerStore::settle`], run after the pull, flushes the file system once and
//! marks it. A layer of an earlier boot without that mark may have been torn by a power cut and is
//! thrown away at opening.

mod archive;
mod header;
mod pax;
mod seam;
mod tree;
mod unpack;

use crate::disk::{At, DiskError, blocking, discard_tree, private_dir};
use crate::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use world::World;

/// A tar that is not one. Positions are named by [`LayerError::Tar`].
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream beneath it failed, or its compression is corrupt.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
    /// It ends in the middle of something.
    #[error("the archive is cut off")]
    Truncated,
    /// A header's checksum is wrong.
    #[error("a header's checksum is wrong")]
    Checksum,
    /// A number that is none, or out of range.
    #[error("the {0} of a header is not a valid number")]
    Number(&'static str),
    /// An extended header that does not follow its grammar.
    #[error("an extended header is malformed")]
    Pax,
    /// A sparse map that does not fit its file.
    #[error("a sparse file's map is malformed")]
    Sparse,
    /// An extended header of absurd size.
    #[error("an extended header is too large")]
    Extension,
    /// A name longer than the kernel takes.
    #[error("a name is longer than 4096 bytes")]
    NameTooLong,
    /// Too many, too large or misnamed extended attributes.
    #[error("the extended attributes of an entry exceed what the kernel takes")]
    Xattr,
    /// A kind of entry that no layer has.
    #[error("entries of type {0:#04x} are not supported")]
    Kind(u8),
}

/// A layer that cannot be unpacked, and why.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The compressed stream is corrupt or ended early.
    #[error("the layer's stream is corrupt")]
    Stream(#[source] io::Error),
    /// The archive is corrupt.
    #[error("the layer's tar is corrupt after entry {}", after.display())]
    Tar {
        /// The last entry that was right.
        after: PathBuf,
        /// What is wrong.
        #[source]
        source: TarError,
    },
    /// An entry that a layer must not have.
    #[error("the layer's entry {} is refused: {why}", path.display())]
    Refused {
        /// Its name.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// A hard link whose target is not in the same layer.
    #[error("the layer's entry {} is a hard link to {}, which is not in the same layer",
        path.display(), target.display())]
    HardLink {
        /// The link.
        path: PathBuf,
        /// What it names.
        target: PathBuf,
    },
    /// Too much of something.
    #[error("the layer has too many {0}")]
    Limit(&'static str),
    /// The uncompressed bytes are not what the image's configuration says.
    #[error("the uncompressed layer has digest {actual}, not {expected}")]
    DiffId {
        /// In the configuration.
        expected: Digest,
        /// Found.
        actual: Digest,
    },
    /// The disk, or a privilege that is missing (layers are unpacked as root).
    #[error("the layer cannot be written")]
    Disk(#[from] DiskError),
}

impl LayerError {
    fn refused(path: &Path, why: &'static str) -> Self {
        LayerError::Refused { path: path.to_path_buf(), why }
    }
}

/// How much a single layer may hold.
#[derive(Debug, Clone, Copy)]
pub struct LayerLimits {
    /// Uncompressed bytes. A compressed stream may hold a thousandfold of its own size and more.
    pub max_bytes: u64,
    /// Entries.
    pub max_entries: u64,
    /// Bytes of all names and link targets.
    pub max_name_bytes: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        LayerLimits { max_bytes: 64 << 30, max_entries: 2_000_000, max_name_bytes: 256 << 20 }
    }
}

/// An unpacked layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its digest; of a seam, a digest of the layers it joins.
    pub id: Digest,
    /// The directory to mount.
    pub path: PathBuf,
    /// Bytes of its tar.
    pub tar_bytes: u64,
    bare: Arc<BTreeSet<Vec<u8>>>,
}

/// Unpacked layers. Cheap to clone; clones are one store. One process at a time owns it.
#[derive(Clone)]
pub struct LayerStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    world: World,
    limits: LayerLimits,
    boot: String,
    pins: Mutex<HashMap<Digest, usize>>,
}

/// Keeps layers from being collected while it lives.
pub struct Lease {
    store: LayerStore,
    ids: Vec<Digest>,
}

/// What lies beside a layer's directory. Names are percent-encoded, as they need not be UTF-8.
#[derive(Serialize, Deserialize)]
struct Note {
    boot: String,
    tar_bytes: u64,
    entries: u64,
    bare: Vec<String>,
}

/// A layer that is whole but has no name yet. Dropped, it is removed.
pub struct Prepared {
    store: LayerStore,
    id: Digest,
    directory: PathBuf,
}

impl LayerStore {
    /// Opens the store at `root`, creating it if need be, and removes what an earlier crash left
    /// half-made.
    pub fn open(root: &Path, world: &World, limits: LayerLimits) -> Result<Self, DiskError> {
        private_dir(&root.join("tmp"))?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            private_dir(&root.join(algorithm.name()))?;
        }
        let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(boot_id).at("read", boot_id)?.trim().to_string();
        let (root, world, pins) = (root.to_path_buf(), world.clone(), Mutex::default());
        let store = LayerStore { inner: Arc::new(Inner { root, world, limits, boot, pins }) };
        for left in list(&store.inner.root.join("tmp"))? {
            discard_tree(&left);
        }
        for (id, directory) in store.all()? {
            let sound = directory.join("settled").exists()
                || note(&directory).is_some_and(|note| note.boot == store.inner.boot);
            if !sound {
                tracing::info!(layer = %id, "removed a layer that an earlier boot had not settled");
                discard_tree(&directory);
            }
        }
        Ok(store)
    }

    fn directory(&self, id: &Digest) -> PathBuf {
        self.inner.root.join(id.algorithm().name()).join(id.hex())
    }

    fn all(&self) -> Result<Vec<(Digest, PathBuf)>, DiskError> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for directory in list(&self.inner.root.join(algorithm.name()))? {
                let hex = directory.file_name().and_then(|name| name.to_str());
                let id = hex.and_then(|hex| format!("{}:{hex}", algorithm.name()).parse().ok());
                if let Some(id) = id {
                    found.push((id, directory));
                }
            }
        }
        Ok(found)
    }

    /// The layer, if it is here.
    pub fn get(&self, id: &Digest) -> Option<Layer> {
        let directory = self.directory(id);
        let Note { tar_bytes, bare, .. } = note(&directory)?;
        let bare = bare.iter().map(|path| percent_encoding::percent_decode_str(path).collect());
        let (id, path) = (id.clone(), fs_of(&directory));
        Some(Layer { id, path, tar_bytes, bare: Arc::new(bare.collect()) })
    }

    /// Unpacks a tar, plain or compressed, whose uncompressed bytes have the digest `diff_id`.
    /// Blocks; needs root. Nothing is visible until [`Prepared::publish`].
    pub fn prepare(&self, diff_id: &Digest, stream: impl Read) -> Result<Prepared, LayerError> {
        let prepared = self.begin(diff_id)?;
        let fs = fs_of(&prepared.directory);
        let unpacked = unpack::unpack(stream, diff_id, &fs, &self.inner.limits)?;
        prepared.note(unpacked.tar_bytes, unpacked.entries, &unpacked.bare)?;
        Ok(prepared)
    }

    fn begin(&self, id: &Digest) -> Result<Prepared, DiskError> {
        let directory = self.inner.root.join("tmp").join(self.inner.world.hex(16));
        let fs = fs_of(&directory);
        private_dir(&directory)?;
        let prepared = Prepared { store: self.clone(), id: id.clone(), directory };
        std::fs::create_dir(&fs).at("create", &fs)?;
        // A layer that says nothing of its root gets the usual one.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&fs, mode).at("set the mode of", &fs)?;
        Ok(prepared)
    }

    /// The directory that must lie over `layers` (lowest first) to give directories the attributes
    /// that a lower layer says they have, where a higher one merely has something in them; `None`,
    /// as for nearly every image, if there are none. Blocks.
    pub fn seam(&self, layers: &[Layer]) -> Result<Option<Layer>, LayerError> {
        let fixes = seam::fixes(layers)?;
        if fixes.is_empty() {
            return Ok(None);
        }
        let id = seam_id(layers);
        if let Some(there) = self.get(&id) {
            return Ok(Some(there));
        }
        let prepared = self.begin(&id)?;
        seam::build(&fs_of(&prepared.directory), &fixes)?;
        prepared.note(0, fixes.len() as u64, &BTreeSet::new())?;
        Ok(Some(prepared.publish()?))
    }

    /// Keeps these layers, present or to come, from being collected.
    pub fn lease(&self, ids: impl IntoIterator<Item = Digest>) -> Lease {
        let ids: Vec<Digest> = ids.into_iter().collect();
        let mut pins = self.pins();
        for id in &ids {
            *pins.entry(id.clone()).or_default() += 1;
        }
        drop(pins);
        Lease { store: self.clone(), ids }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, usize>> {
        self.inner.pins.lock().expect("no panic while held")
    }

    /// Flushes layers to the disk and marks them as lasting. Call it after pulls.
    pub async fn settle(&self) -> Result<(), DiskError> {
        let store = self.clone();
        blocking(move || {
            let unsettled = store.all()?.into_iter().map(|(_, directory)| directory);
            let marks: Vec<PathBuf> =
                unsettled.map(|d| d.join("settled")).filter(|mark| !mark.exists()).collect();
            if marks.is_empty() {
                return Ok(());
            }
            let root = std::fs::File::open(&store.inner.root).at("open", &store.inner.root)?;
            rustix::fs::syncfs(&root).at("flush", &store.inner.root)?;
            for mark in marks {
                match std::fs::File::create(&mark) {
                    Ok(_) => {}
                    // Collected meanwhile.
                    Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                    Err(source) => return Err(DiskError::new("create", &mark, source)),
                }
            }
            Ok(())
        })
        .await
    }

    /// Removes every layer that neither `keep` wants, nor a [`Lease`] holds, nor `is_used` knows by
    /// what is mounted of it ([`Layer::path`]). Gives how many.
    pub async fn collect<K, U>(&self, keep: K, is_used: U) -> Result<u64, DiskError>
    where
        K: Fn(&Digest) -> bool + Send + 'static,
        U: Fn(&Path) -> bool + Send + 'static,
    {
        let store = self.clone();
        blocking(move || {
            let mut removed = 0;
            for (id, directory) in store.all()? {
                if keep(&id) {
                    continue;
                }
                let grave = store.inner.root.join("tmp").join(store.inner.world.hex(16));
                let pins = store.pins();
                if pins.contains_key(&id) || is_used(&fs_of(&directory)) {
                    continue;
                }
                std::fs::rename(&directory, &grave).at("set aside", &directory)?;
                drop(pins);
                discard_tree(&grave);
                removed += 1;
            }
            Ok(removed)
        })
        .await
    }
}

/// What of a layer's directory is mounted.
fn fs_of(directory: &Path) -> PathBuf {
    directory.join("fs")
}

/// The name of the seam over `layers`; the prefix keeps it apart from every diff id.
fn seam_id(layers: &[Layer]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(b"seam over\n");
    for layer in layers {
        hasher.update(layer.id.to_string().as_bytes());
        hasher.update(b"\n");
    }
    hasher.finish()
}

fn note(directory: &Path) -> Option<Note> {
    serde_json::from_slice(&std::fs::read(directory.join("layer.json")).ok()?).ok()
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let entries = std::fs::read_dir(dir).at("list", dir)?;
    entries.map(|entry| entry.map(|e| e.path()).at("list", dir)).collect()
}

impl Prepared {
    fn note(
        &self,
        tar_bytes: u64,
        entries: u64,
        bare: &BTreeSet<Vec<u8>>,
    ) -> Result<(), DiskError> {
        let encode = |path: &Vec<u8>| {
            percent_encoding::percent_encode(path, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let bare = bare.iter().map(encode).collect();
        let note = Note { boot: self.store.inner.boot.clone(), tar_bytes, entries, bare };
        let path = self.directory.join("layer.json");
        let json = serde_json::to_vec(&note).expect("strings and numbers");
        std::fs::write(&path, json).at("write", &path)
    }

    /// Gives the layer its name.
    pub fn publish(self) -> Result<Layer, DiskError> {
        let target = self.store.directory(&self.id);
        match std::fs::rename(&self.directory, &target) {
            Ok(()) => {}
            // The same layer is there already.
            Err(there)
                if matches!(
                    there.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            Err(source) => return Err(DiskError::new("move into place", &target, source)),
        }
        let gone = || DiskError::new("read", &target, io::Error::from(io::ErrorKind::NotFound));
        self.store.get(&self.id).ok_or_else(gone)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        discard_tree(&self.directory); // not there any more if it was published
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut pins = self.store.pins();
        for id in &self.ids {
            if let Some(count) = pins.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(id);
                }
            }
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.ids).finish()
    }
}

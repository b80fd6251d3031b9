//! Secrets at rest: sealed with AES-256-GCM under a key that lies beside the database, so that a
//! copy of the database alone, a dump or a log line gives nothing away.

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use world::World;

const KEY_BYTES: usize = 32;
/// Leads every sealed secret, so that another cipher can follow one day.
const AES_256_GCM_V1: u8 = 1;

/// Why a secret could not be sealed or opened, or the key not be had.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file could not be read.
    #[error("cannot read the sealing key {}", path.display())]
    ReadKey {
        /// The key file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The key file could not be made.
    #[error("cannot write the sealing key {}", path.display())]
    WriteKey {
        /// The key file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The key file is damaged.
    #[error("the sealing key {} has {found} bytes instead of {KEY_BYTES}", path.display())]
    KeyLength {
        /// The key file.
        path: PathBuf,
        /// How long it is.
        found: u64,
    },
    /// Others than the owner may read or write the key file.
    #[error("the sealing key {} is open to others (mode {mode:o}); chmod 600 it", path.display())]
    KeyMode {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The sealed bytes are cut, changed, of another context, or sealed with another key.
    #[error("the sealed secret cannot be opened for {context:?}: damaged, or sealed elsewhere")]
    Open {
        /// What it was to be opened for.
        context: String,
    },
}

/// A sealed secret; base64 text in JSON. Its `Debug` shows only its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.bytes.len())
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.bytes))
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        // The error must not repeat the text.
        let bytes = STANDARD.decode(&*text).map_err(|_| D::Error::custom("not base64"))?;
        Ok(Self { bytes })
    }
}

/// Seals and opens secrets. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    key: Arc<LessSafeKey>,
    world: World,
}

impl Sealer {
    /// With the key in `dir`, which is made at first use: 32 random bytes in `sealing.key`, for the
    /// owner only. Call it under the directory's lock, that is after
    /// [`Store::open`](crate::Store::open).
    pub fn load(dir: &Path, world: World) -> Result<Self, SealError> {
        let path = dir.join("sealing.key");
        let key = match read_key(&path)? {
            Some(key) => key,
            None => {
                let mut key = [0; KEY_BYTES];
                world.fill(&mut key);
                write_key(dir, &path, &key)
                    .map_err(|source| SealError::WriteKey { path, source })?;
                key
            }
        };
        Ok(Self::with_key(&key, world))
    }

    /// With a random key that is never written, for tests.
    pub fn in_memory(world: World) -> Self {
        let mut key = [0; KEY_BYTES];
        world.fill(&mut key);
        Self::with_key(&key, world)
    }

    fn with_key(key: &[u8; KEY_BYTES], world: World) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
        Self { key: Arc::new(LessSafeKey::new(key)), world }
    }

    /// Seals `plaintext` for `context` (what it belongs to, such as a parameter's ARN and version):
    /// it opens for that context only.
    pub fn seal(&self, context: &str, plaintext: &[u8]) -> Sealed {
        // Random 96-bit nonces under one key are safe for some 2^32 secrets.
        let mut nonce = [0; NONCE_LEN];
        self.world.fill(&mut nonce);
        let mut bytes = vec![AES_256_GCM_V1];
        bytes.extend_from_slice(&nonce);
        let mut body = plaintext.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.as_bytes()),
                &mut body,
            )
            .expect("a secret is far shorter than the cipher's limit of 64 GiB");
        bytes.append(&mut body);
        Sealed { bytes }
    }

    /// Opens what was sealed for `context`.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        self.try_open(context, sealed).ok_or_else(|| SealError::Open { context: context.into() })
    }

    fn try_open(&self, context: &str, sealed: &Sealed) -> Option<Vec<u8>> {
        let (version, rest) = sealed.bytes.split_first()?;
        if *version != AES_256_GCM_V1 {
            return None;
        }
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut body = body.to_vec();
        let aad = Aad::from(context.as_bytes());
        let length = self.key.open_in_place(nonce, aad, &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

/// The key, or nothing when there is no file.
fn read_key(path: &Path) -> Result<Option<[u8; KEY_BYTES]>, SealError> {
    let failed = |source| SealError::ReadKey { path: path.into(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SealError::KeyMode { path: path.into(), mode });
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(SealError::KeyLength { path: path.into(), found: metadata.len() });
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key).map_err(failed)?;
    Ok(Some(key))
}

/// Writes the key whole or not at all: a crash must not leave half a key that secrets are sealed
/// with.
fn write_key(dir: &Path, path: &Path, key: &[u8; KEY_BYTES]) -> std::io::Result<()> {
    let draft = dir.join("sealing.key.new");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(dir)?.sync_all()
}

//! What is stored: typed records, decoded from JSON when they are first asked for.

use crate::error::ReadError;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::Any,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A type whose values are kept in a table of their own.
///
/// Its JSON must read back as the same value: a new field needs `#[serde(default)]`, and
/// floating-point numbers must be finite. Debug builds check this at every
/// [`Tx::put`](crate::Tx::put).
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The table's name, unique in the house: the service, a dot, the resource (`ecs.task`).
    const TABLE: &'static str;

    /// The record's key, unique in its table. Parts of a composed key are joined with `/`, so that
    /// [`Snapshot::scan_prefix`](crate::Snapshot::scan_prefix) finds what belongs together.
    fn key(&self) -> String;
}

pub(crate) type Erased = Arc<dyn Any + Send + Sync>;

type Encode = fn(&(dyn Any + Send + Sync)) -> Vec<u8>;

/// A record in memory: JSON until it is first read as its type, the typed value from then on.
pub(crate) struct Entry {
    typed: OnceLock<Typed>,
    /// Empty once `typed` is set.
    json: Mutex<Box<[u8]>>,
}

struct Typed {
    record: Erased,
    encode: Encode,
}

impl Entry {
    /// From the bytes on disk.
    pub(crate) fn from_json(json: &[u8]) -> Self {
        Self { typed: OnceLock::new(), json: Mutex::new(json.into()) }
    }

    /// From a record, with its JSON.
    pub(crate) fn from_record<T: Record>(record: T) -> (Self, Vec<u8>) {
        let json = encode::<T>(&record);
        if cfg!(debug_assertions)
            && let Err(error) = serde_json::from_slice::<T>(&json)
        {
            let text = String::from_utf8_lossy(&json);
            panic!("a record of {} does not read back from its JSON: {error}: {text}", T::TABLE);
        }
        let typed = OnceLock::from(Typed { record: Arc::new(record), encode: encode::<T> });
        (Self { typed, json: Mutex::default() }, json)
    }

    /// The record as its type; `key` is for the error only.
    pub(crate) fn typed<T: Record>(&self, key: &str) -> Result<Arc<T>, ReadError> {
        let record = match self.typed.get() {
            Some(typed) => typed.record.clone(),
            None => self.decode::<T>(key)?,
        };
        record.downcast::<T>().map_err(|_| ReadError::OtherType {
            table: T::TABLE,
            key: key.into(),
            wanted: std::any::type_name::<T>(),
        })
    }

    fn decode<T: Record>(&self, key: &str) -> Result<Erased, ReadError> {
        let mut json = self.json.lock().unwrap_or_else(PoisonError::into_inner);
        // Another reader may have decoded it while this one waited for the lock.
        if let Some(typed) = self.typed.get() {
            return Ok(typed.record.clone());
        }
        let record: T = serde_json::from_slice(&json).map_err(|source| ReadError::Decode {
            table: T::TABLE,
            key: key.into(),
            source,
        })?;
        let record: Erased = Arc::new(record);
        let typed = Typed { record: record.clone(), encode: encode::<T> };
        if self.typed.set(typed).is_ok() {
            *json = Box::default();
        }
        Ok(record)
    }

    /// The typed value, when some reader or writer already had it.
    pub(crate) fn erased(&self) -> Option<Erased> {
        self.typed.get().map(|typed| typed.record.clone())
    }

    /// The record's JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        let json = self.json.lock().unwrap_or_else(PoisonError::into_inner);
        match self.typed.get() {
            Some(typed) => (typed.encode)(&*typed.record),
            None => json.to_vec(),
        }
    }
}

fn encode<T: Record>(record: &(dyn Any + Send + Sync)) -> Vec<u8> {
    let record =
        record.downcast_ref::<T>().expect("an entry is encoded as the type it was made of");
    // Fails only for maps whose keys are not text and for hand-written Serialize: a bug in the
    // type.
    serde_json::to_vec(record).expect("a record type must be representable as JSON")
}

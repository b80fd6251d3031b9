//! One transaction's view and its changes.

use crate::{
    record::{Entry, Record},
    state::State,
};
use std::{collections::BTreeMap, sync::Arc};

/// A transaction: sees the newest state (including what is still on its way to the disk) and its
/// own changes. Made by [`Store::write`](crate::Store::write).
pub struct Tx {
    pub(crate) state: State,
    pub(crate) changes: Changes,
}

/// The last change of each record, by table and key.
pub(crate) type Changes = BTreeMap<(Arc<str>, Arc<str>), Option<Put>>;

pub(crate) struct Put {
    pub(crate) entry: Arc<Entry>,
    pub(crate) json: Vec<u8>,
}

impl Tx {
    pub(crate) fn new(state: State) -> Self {
        Self { state, changes: Changes::new() }
    }

    /// The record under `key`. Panics as [`Snapshot::get`](crate::Snapshot::get) does.
    pub fn get<T: Record>(&self, key: &str) -> Option<Arc<T>> {
        self.state.get(key)
    }

    /// All records of the table, in key order.
    pub fn scan<T: Record>(&self) -> impl DoubleEndedIterator<Item = Arc<T>> + use<'_, T> {
        self.state.scan("", None)
    }

    /// The records whose key begins with `prefix`, in key order.
    pub fn scan_prefix<T: Record>(
        &self,
        prefix: &str,
    ) -> impl DoubleEndedIterator<Item = Arc<T>> + use<'_, T> {
        self.state.scan(prefix, None)
    }

    /// The records whose key begins with `prefix` and sorts after `after_key`, in key order.
    pub fn scan_from<T: Record>(
        &self,
        prefix: &str,
        after_key: &str,
    ) -> impl DoubleEndedIterator<Item = Arc<T>> + use<'_, T> {
        self.state.scan(prefix, Some(after_key))
    }

    /// The number of records in the table.
    pub fn count<T: Record>(&self) -> usize {
        self.state.table(T::TABLE).map_or(0, imbl::OrdMap::len)
    }

    /// Stores `record` under its key, in place of what was there.
    pub fn put<T: Record>(&mut self, record: T) {
        let key: Arc<str> = record.key().into();
        let table = self.table_name(T::TABLE);
        let (entry, json) = Entry::from_record(record);
        let entry = Arc::new(entry);
        self.state.set(&table, key.clone(), entry.clone());
        self.changes.insert((table, key), Some(Put { entry, json }));
    }

    /// Deletes the record under `key`; tells whether there was one.
    pub fn delete<T: Record>(&mut self, key: &str) -> bool {
        let existed = self.state.remove(T::TABLE, key);
        if existed {
            self.changes.insert((self.table_name(T::TABLE), key.into()), None);
        }
        existed
    }

    /// Changes the record under `key` in place, when there is one; tells whether there was. The key
    /// must stay the same.
    pub fn update<T: Record + Clone>(&mut self, key: &str, change: impl FnOnce(&mut T)) -> bool {
        let Some(record) = self.get::<T>(key) else { return false };
        let mut record = T::clone(&record);
        change(&mut record);
        assert!(record.key() == key, "an update of {} must not change its key", T::TABLE);
        self.put(record);
        true
    }

    /// The table's name, shared with the table itself if it exists.
    fn table_name(&self, name: &'static str) -> Arc<str> {
        let known = self.state.tables.get_key_value(name);
        known.map_or_else(|| name.into(), |(name, _)| name.clone())
    }
}

//! A consistent state of all tables, immutable and cheap to copy.

use crate::{
    error::ReadError,
    record::{Entry, Record},
};
use imbl::OrdMap;
use std::{ops::Bound, sync::Arc};

pub(crate) type Table = OrdMap<Arc<str>, Arc<Entry>>;

#[derive(Clone, Default)]
pub(crate) struct State {
    /// The number of transactions with changes since the store was opened.
    pub(crate) sequence: u64,
    pub(crate) tables: OrdMap<Arc<str>, Table>,
}

impl State {
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    pub(crate) fn entry(&self, table: &str, key: &str) -> Option<&Arc<Entry>> {
        self.table(table)?.get(key)
    }

    pub(crate) fn set(&mut self, table: &Arc<str>, key: Arc<str>, entry: Arc<Entry>) {
        self.tables.entry(table.clone()).or_default().insert(key, entry);
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, table: &str, key: &str) -> bool {
        self.tables.get_mut(table).is_some_and(|table| table.remove(key).is_some())
    }

    pub(crate) fn get<T: Record>(&self, key: &str) -> Option<Arc<T>> {
        self.entry(T::TABLE, key).map(|entry| expect_readable(entry.typed(key)))
    }

    pub(crate) fn scan<T: Record>(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl DoubleEndedIterator<Item = Arc<T>> + use<'_, T> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let past = past_prefix(prefix);
        let end = past.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        // An empty range (a position behind the prefix) must not reach the map, which would panic.
        let empty = matches!((start, end), (Bound::Excluded(a), Bound::Excluded(b)) if a >= b);
        let table = self.table(T::TABLE).filter(|_| !empty);
        let found = table.map(|table| table.range::<_, str>((start, end)));
        found.into_iter().flatten().map(|(key, entry)| expect_readable(entry.typed(key)))
    }

    /// Decodes the whole table of `T`.
    pub(crate) fn check<T: Record>(&self) -> Result<(), ReadError> {
        for (key, entry) in self.table(T::TABLE).into_iter().flatten() {
            let says = entry.typed::<T>(key)?.key();
            if says != **key {
                return Err(ReadError::Key { table: T::TABLE, key: key.to_string(), says });
            }
        }
        Ok(())
    }
}

/// Typed reads are infallible because [`Store::declare`](crate::Store::declare) has read the whole
/// table at start; a service that skipped it finds out here, loudly.
fn expect_readable<T>(read: Result<Arc<T>, ReadError>) -> Arc<T> {
    match read {
        Ok(record) => record,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            panic!("{error} (Store::declare reports this at start): {}", cause.unwrap_or_default())
        }
    }
}

/// The smallest text that sorts after everything that begins with `prefix`; none when nothing does.
fn past_prefix(prefix: &str) -> Option<String> {
    let mut past = prefix.to_owned();
    while let Some(last) = past.pop() {
        // Surrogates are no characters, so the one after U+D7FF is U+E000.
        let next =
            if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            past.push(next);
            return Some(past);
        }
    }
    None
}

/// A consistent view of all tables at one moment; only what is on disk. Taking and cloning it is
/// cheap, and it does not change while it is held.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) state: State,
}

impl Snapshot {
    /// The record under `key`.
    ///
    /// This and the scans panic when a record on disk does not fit its type; [`Store::declare`]
    /// reports that as an error at start.
    ///
    /// [`Store::declare`]: crate::Store::declare
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

    /// The records whose key begins with `prefix` and sorts after `after_key` (which need not exist
    /// any more), in key order: the next page.
    pub fn scan_from<T: Record>(
        &self,
        prefix: &str,
        after_key: &str,
    ) -> impl DoubleEndedIterator<Item = Arc<T>> + use<'_, T> {
        self.state.scan(prefix, Some(after_key))
    }

    /// The number of records in the table.
    pub fn count<T: Record>(&self) -> usize {
        self.state.table(T::TABLE).map_or(0, OrdMap::len)
    }

    /// How many transactions had changed something since the store was opened. A commit that a
    /// watch delivers is contained in this snapshot exactly when its sequence is not greater.
    pub fn sequence(&self) -> u64 {
        self.state.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn past_prefix_is_the_least_text_beyond(prefix: String, key: String, rest: String) {
            let under = format!("{prefix}{rest}");
            match past_prefix(&prefix) {
                Some(past) => {
                    prop_assert!(under < past);
                    let inside = *prefix <= *key && key < past;
                    prop_assert_eq!(inside, key.starts_with(&prefix));
                }
                None => prop_assert!(prefix.chars().all(|c| c == char::MAX)),
            }
        }
    }
}

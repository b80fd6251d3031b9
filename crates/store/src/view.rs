//! What can be read alike inside a transaction and out of one.

use crate::{Record, Snapshot, Tx};
use std::sync::Arc;

/// A snapshot, or the state that a transaction sees.
pub trait View {
    /// The record under `key`.
    fn record<T: Record>(&self, key: &str) -> Option<Arc<T>>;
    /// The records whose key begins with `prefix`.
    fn records<T: Record>(&self, prefix: &str) -> Vec<Arc<T>>;
}

impl View for Snapshot {
    fn record<T: Record>(&self, key: &str) -> Option<Arc<T>> {
        self.get(key)
    }
    fn records<T: Record>(&self, prefix: &str) -> Vec<Arc<T>> {
        self.scan_prefix(prefix).collect()
    }
}

impl View for Tx {
    fn record<T: Record>(&self, key: &str) -> Option<Arc<T>> {
        self.get(key)
    }
    fn records<T: Record>(&self, prefix: &str) -> Vec<Arc<T>> {
        self.scan_prefix(prefix).collect()
    }
}

//! The blocks that were read last: the next page usually begins in one of them.

use crate::block::Block;
use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const MAX_BYTES: usize = 8 << 20;

/// A segment's path and a block's place in it. Numbers of segments are never used again.
type Key = (Arc<Path>, u64);

#[derive(Default)]
pub(crate) struct Cache {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    blocks: HashMap<Key, Arc<Block>>,
    /// The oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, path: &Arc<Path>, offset: u64) -> Option<Arc<Block>> {
        self.lock().blocks.get(&(path.clone(), offset)).cloned()
    }

    pub(crate) fn put(&self, path: &Arc<Path>, offset: u64, block: Arc<Block>) {
        let mut inner = self.lock();
        let bytes = block.memory();
        let key = (path.clone(), offset);
        if bytes > MAX_BYTES / 4 || inner.blocks.insert(key.clone(), block).is_some() {
            return;
        }
        inner.bytes += bytes;
        inner.order.push_back(key);
        while inner.bytes > MAX_BYTES {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(block) = inner.blocks.remove(&oldest) {
                inner.bytes -= block.memory();
            }
        }
    }

    pub(crate) fn clear(&self) {
        *self.lock() = Inner::default();
    }
}

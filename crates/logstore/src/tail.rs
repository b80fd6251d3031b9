//! Following streams as events arrive.

use crate::{
    event::{Batch, Event},
    store::Shared,
    stream::Stream,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Notify;

/// How much a follower may be behind before the oldest events are dropped for it.
const MAX_BEHIND_BYTES: usize = 8 << 20;

/// What arrived since the last look.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// The events, as they arrived (not by timestamp).
    pub events: Vec<Event>,
    /// How many events before them were dropped because the follower was too slow. They can be read
    /// from the streams.
    pub missed: u64,
}

/// Follows streams: gives every event that became durable after the stream was [added](Tail::add).
pub struct Tail {
    shared: Arc<Shared>,
    subscriber: Arc<Subscriber>,
}

#[derive(Default)]
pub(crate) struct Subscriber {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<(Arc<str>, Arc<Batch>)>,
    bytes: usize,
    missed: u64,
}

impl Tail {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, subscriber: Arc::default() }
    }

    /// Follows `stream` too, which need not exist yet. A stream that is added twice is followed
    /// twice.
    pub fn add(&self, stream: &str) -> Result<(), crate::ReadError> {
        let stream = self.shared.stream(stream).ok_or_else(|| bad_id(stream))?;
        let mut state = stream.raw_state();
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(&self.subscriber));
        Ok(())
    }

    /// The events since the last call; waits until there are some.
    pub async fn next(&self) -> Arrivals {
        loop {
            if let Some(arrivals) = self.subscriber.take() {
                return arrivals;
            }
            self.subscriber.wake.notified().await;
        }
    }
}

fn bad_id(id: &str) -> crate::ReadError {
    crate::ReadError::StreamId(id.into())
}

impl Subscriber {
    fn take(&self) -> Option<Arrivals> {
        let queue = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        if queue.batches.is_empty() && queue.missed == 0 {
            return None;
        }
        let mut arrivals = Arrivals { missed: queue.missed, ..Arrivals::default() };
        for (stream, batch) in &queue.batches {
            arrivals.events.extend(batch.iter().map(|row| row.to_event(stream)));
        }
        Some(arrivals)
    }

    fn push(&self, stream: &Arc<str>, batch: &Arc<Batch>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.bytes += batch.memory();
        queue.batches.push_back((stream.clone(), batch.clone()));
        while queue.bytes > MAX_BEHIND_BYTES && queue.batches.len() > 1 {
            if let Some((_, oldest)) = queue.batches.pop_front() {
                queue.bytes -= oldest.memory();
                queue.missed += oldest.rows.count;
            }
        }
        drop(queue);
        self.wake.notify_one();
    }
}

/// Tells the stream's followers of a durable batch.
pub(crate) fn announce(
    stream: &Stream,
    subscribers: &mut Vec<std::sync::Weak<Subscriber>>,
    batch: &Arc<Batch>,
) {
    subscribers.retain(|subscriber| match subscriber.upgrade() {
        Some(subscriber) => {
            subscriber.push(&stream.id, batch);
            true
        }
        None => false,
    });
}

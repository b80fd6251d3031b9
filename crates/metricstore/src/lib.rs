//! Time series on disk: points are put and merged, read by time, rolled up as they age, and expire.
//!
//! A point is a [`Summary`] of what was measured in a stretch of time: a second, a minute, five minutes or an hour.
//! Points of the same series and time become one. What is put is on disk before it is acknowledged; all that waits is
//! flushed at once. The file is redb's, which survives crashes and checks what it reads.
//!
//! The crate knows series by a text, and times in seconds since the Unix epoch; it knows no service.

mod store;
mod summary;

pub use store::{Kept, MetricStore, MetricStoreError, Point, Resolution};
pub use summary::Summary;

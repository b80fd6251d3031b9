//! Log streams on disk: append, read by time, follow, filter, expire.
//!
//! A batch of events is written to a shared journal with one flush for all that wait, and answered.
//! It stays in memory until its stream has enough for a good block, or has waited long: then the
//! stream's events are sorted, compressed and moved to the stream's own segment files, and the
//! journal forgets them. Reads merge both by time. Everything is checksummed; damage is reported
//! and skipped.
//!
//! The crate knows streams, times and lines, and [patterns](pattern) to find lines by; it knows no
//! service.

mod block;
mod cache;
mod codec;
mod error;
mod event;
mod journal;
pub mod pattern;
mod read;
mod recover;
mod sealer;
mod segment;
mod store;
mod stream;
mod tail;
mod writer;

pub use error::{AppendError, Damage, ExpireError, LoadError, OpenError, ReadError};
pub use event::{
    BadPosition, Event, MAX_BATCH_BYTES, MAX_MESSAGE_BYTES, NewEvent, Position, SourceRange,
};
pub use read::{Direction, Page, Query};
pub use store::LogStore;
pub use stream::StreamStats;
pub use tail::{Arrivals, Tail};
pub use writer::Appended;

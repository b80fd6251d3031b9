//! Durable typed tables with transactions and watches.
//!
//! All records live in memory, in persistent maps; reads never touch the disk. A write runs a
//! closure against the newest state and resolves once the outcome is on disk; transactions that
//! arrive while the disk is busy share the next flush. What readers and watchers see is always
//! durable.
//!
//! On disk a record is JSON under its table and key, so a new field with a default needs no
//! migration and a person can read a [dump](Store::dump).
//!
//! ```no_run
//! # #[derive(serde::Serialize, serde::Deserialize)] struct Cluster { name: String }
//! # impl store::Record for Cluster {
//! #     const TABLE: &'static str = "ecs.cluster"; fn key(&self) -> String { self.name.clone() } }
//! # enum Fault { Exists, Disk } impl From<store::DiskFault> for Fault {
//! #     fn from(_: store::DiskFault) -> Self { Fault::Disk } }
//! # async fn example(store: store::Store) -> Result<(), Fault> {
//! store
//!     .write(|tx| {
//!         if tx.get::<Cluster>("web").is_some() {
//!             return Err(Fault::Exists); // nothing is written
//!         }
//!         tx.put(Cluster { name: "web".into() });
//!         Ok(())
//!     })
//!     .await?;
//! assert!(store.read().get::<Cluster>("web").is_some());
//! # Ok(()) }
//! ```

mod committer;
mod disk;
mod due;
mod dump;
mod error;
#[cfg(test)]
mod failing_disk;
mod lock;
mod memory;
mod record;
mod seal;
mod state;
mod store;
mod tx;
mod view;
mod watch;

pub use due::{Due, carry_due};
pub use dump::DumpError;
pub use error::{CommitError, DiskFault, OpenError, ReadError, WriteError};
pub use lock::LockError;
pub use memory::{Fate, MemoryDisk};
pub use record::Record;
pub use seal::{SealError, Sealed, Sealer};
pub use state::Snapshot;
pub use store::Store;
pub use tx::Tx;
pub use view::View;
pub use watch::{Change, Commit, Lagged, Watch};

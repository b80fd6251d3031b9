//! The database file: one redb table of JSON records by (table, key).

use crate::{
    error::{CommitError, OpenError},
    record::Entry,
    state::State,
    tx::Changes,
};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
};

const RECORDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("records");
const LAYOUT: TableDefinition<&str, &str> = TableDefinition::new("layout");
const LAYOUT_KEY: &str = "layout";
const LAYOUT_KNOWN: &str = "1";

/// redb's page cache. Small: after the load at start nothing is read but the pages on a write's
/// path.
const CACHE_BYTES: usize = 4 << 20;

pub(crate) type OpenDatabase = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The database, opened again after a failure.
pub(crate) struct Disk {
    open: OpenDatabase,
    database: Option<Database>,
    /// What a failed flush may or may not have written. The next transaction writes these records
    /// as they are in the durable state, so that a refused change cannot surface later.
    suspects: BTreeSet<(Arc<str>, Arc<str>)>,
}

/// How the database file at `path` is opened in production.
pub(crate) fn file(path: PathBuf) -> OpenDatabase {
    Box::new(move || Database::builder().set_cache_size(CACHE_BYTES).create(&path))
}

impl Disk {
    /// Opens the database, repairing it after a crash, and reads all records. `path` is for errors.
    pub(crate) fn open(open: OpenDatabase, path: &Path) -> Result<(Self, State), OpenError> {
        let mut disk = Self { open, database: None, suspects: BTreeSet::new() };
        let failed = |source| OpenError::Database { path: path.into(), source: Box::new(source) };
        let database = disk.database().map_err(failed)?;
        check_layout(database, path)?;
        let load = |error| OpenError::Load { path: path.into(), source: Box::new(error) };
        let state = load_records(database).map_err(load)?;
        Ok((disk, state))
    }

    /// Writes the transactions of a group in one flush; all or none. `durable` is the state before.
    pub(crate) fn commit(
        &mut self,
        group: &[&Changes],
        durable: &State,
    ) -> Result<(), CommitError> {
        let attempt = AssertUnwindSafe(|| self.try_commit(group, durable));
        // A panic leaves only the database handle in doubt, and that is dropped below.
        let outcome = std::panic::catch_unwind(attempt)
            .unwrap_or_else(|panic| Err(CommitError::Panicked(panic_text(&*panic))));
        match outcome {
            Ok(()) => self.suspects.clear(),
            Err(_) => {
                self.suspects.extend(group.iter().flat_map(|changes| changes.keys().cloned()));
                // After an I/O error redb refuses everything until it is opened again.
                self.discard();
            }
        }
        outcome
    }

    fn try_commit(&mut self, group: &[&Changes], durable: &State) -> Result<(), CommitError> {
        let amends: Vec<_> = self
            .suspects
            .iter()
            .map(|(table, key)| (table.clone(), key.clone(), durable.entry(table, key).cloned()))
            .collect();
        let transaction =
            self.database()?.begin_write().map_err(|e| CommitError::Begin(Box::new(e.into())))?;
        {
            let mut records = transaction
                .open_table(RECORDS)
                .map_err(|e| CommitError::Begin(Box::new(e.into())))?;
            let mut set = |table: &str, key: &str, json: Option<&[u8]>| {
                let done = match json {
                    Some(json) => records.insert((table, key), json).map(drop),
                    None => records.remove((table, key)).map(drop),
                };
                done.map_err(|e| write_error(table, key, e.into()))
            };
            for (table, key, entry) in amends {
                set(&table, &key, entry.map(|entry| entry.json()).as_deref())?;
            }
            for ((table, key), put) in group.iter().flat_map(|changes| changes.iter()) {
                set(table, key, put.as_ref().map(|put| put.json.as_slice()))?;
            }
        }
        transaction.commit().map_err(|e| CommitError::Flush(Box::new(e.into())))
    }

    /// Drops the database handle. After a panic inside redb its destructor may panic too, on a
    /// poisoned lock; the next opening repairs the file either way.
    fn discard(&mut self) {
        let database = self.database.take();
        if std::panic::catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::warn!("the failed database handle could not be closed cleanly");
        }
    }

    fn database(&mut self) -> Result<&Database, CommitError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.open)().map_err(|e| CommitError::Open(Box::new(e.into())))?,
        };
        Ok(self.database.insert(database))
    }
}

fn write_error(table: &str, key: &str, source: redb::Error) -> CommitError {
    CommitError::Write { table: table.into(), key: key.into(), source: Box::new(source) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Reads the layout's number, or writes it into a new database.
fn check_layout(database: &Database, path: &Path) -> Result<(), OpenError> {
    let found = layout(database)
        .map_err(|error| OpenError::Load { path: path.into(), source: Box::new(error) })?;
    if found == LAYOUT_KNOWN {
        return Ok(());
    }
    Err(OpenError::Layout { path: path.into(), found, known: LAYOUT_KNOWN })
}

fn layout(database: &Database) -> Result<String, redb::Error> {
    let reading = database.begin_read()?;
    match reading.open_table(LAYOUT) {
        Ok(table) => {
            let found = table.get(LAYOUT_KEY)?;
            Ok(found.map(|text| text.value().to_owned()).unwrap_or_else(|| "none".into()))
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let writing = database.begin_write()?;
            writing.open_table(LAYOUT)?.insert(LAYOUT_KEY, LAYOUT_KNOWN)?;
            drop(writing.open_table(RECORDS)?);
            writing.commit()?;
            Ok(LAYOUT_KNOWN.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn load_records(database: &Database) -> Result<State, redb::Error> {
    let mut state = State::default();
    let mut last: Option<Arc<str>> = None;
    let reading = database.begin_read()?;
    for record in reading.open_table(RECORDS)?.iter()? {
        let (key, json) = record?;
        let (table, key) = key.value();
        let table = match &last {
            Some(last) if **last == *table => last.clone(),
            _ => Arc::from(table),
        };
        state.set(&table, key.into(), Arc::new(Entry::from_json(json.value())));
        last = Some(table);
    }
    Ok(state)
}

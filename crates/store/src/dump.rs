//! The whole store as text, for people.

use crate::{Store, state::State};
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::Write;

/// Why a dump stopped.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// A record's bytes are not JSON.
    #[error("the record {table} {key:?} is not JSON")]
    Record {
        /// The table.
        table: String,
        /// The record's key.
        key: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The output could not be written.
    #[error("cannot write the dump")]
    Output(#[source] std::io::Error),
}

#[derive(Serialize)]
struct Line<'a> {
    table: &'a str,
    key: &'a str,
    record: &'a RawValue,
}

impl Store {
    /// Writes every durable record as a line of JSON, `{"table":…,"key":…,"record":…}`, ordered by
    /// table and key. Secrets stay sealed.
    pub fn dump(&self, out: &mut impl Write) -> Result<(), DumpError> {
        dump(&self.read().state, out)
    }
}

fn dump(state: &State, out: &mut impl Write) -> Result<(), DumpError> {
    for (table, records) in &state.tables {
        for (key, entry) in records {
            let json = entry.json();
            let bad = |source| DumpError::Record {
                table: table.to_string(),
                key: key.to_string(),
                source,
            };
            let record: &RawValue = serde_json::from_slice(&json).map_err(bad)?;
            let mut line = serde_json::to_vec(&Line { table, key, record }).map_err(bad)?;
            line.push(b'\n');
            out.write_all(&line).map_err(DumpError::Output)?;
        }
    }
    out.flush().map_err(DumpError::Output)
}

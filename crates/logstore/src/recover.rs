//! What the journal says after a crash, or any other end.

use crate::{
    error::OpenError,
    event::Batch,
    journal::{self, Journal, Record, Replay},
    store::{Shared, disk_error},
};
use std::sync::{Arc, atomic::Ordering};

/// Brings back the events that are in no segment yet, and begins a new journal file. Gives it and
/// the next arrival.
pub(crate) fn recover(shared: &Arc<Shared>) -> Result<(Journal, u64), OpenError> {
    let dir = shared.journal_dir();
    let files = journal::list(&dir).map_err(|e| disk_error("list", &dir, e))?;
    let newest = files.last().map_or(0, |(number, _)| *number);
    let mut next_arrival = 1;
    for (number, path) in files {
        let mut replay = journal::replay(&path).map_err(|e| disk_error("read", &path, e))?;
        // In the newest file the crash may have cut an entry short that nobody was told of.
        if number != newest {
            replay.damage.extend(replay.tail.take());
        }
        for damage in &replay.damage {
            tracing::error!(%damage, "log events are lost");
        }
        next_arrival = next_arrival.max(replay.next_arrival);
        shared.note_journal(number, replay.bytes);
        next_arrival = next_arrival.max(apply(shared, number, replay)?);
    }
    let journal = Journal::create(&dir, newest + 1, next_arrival)
        .map_err(|e| disk_error("begin a journal file in", &dir, e))?;
    shared.note_journal(journal.number, journal.bytes);
    Ok((journal, next_arrival))
}

/// Applies a journal file's records; gives the arrival behind them.
fn apply(shared: &Arc<Shared>, journal: u64, replay: Replay) -> Result<u64, OpenError> {
    let mut next_arrival = 0;
    for record in replay.records {
        match record {
            Record::Append { stream, first, ingestion_ms, mark, rows } => {
                next_arrival = next_arrival.max(first + rows.count.max(1));
                // An id that is not fit was never accepted.
                let Some(stream) = shared.stream(&stream) else { continue };
                let mut state = stream.state_from_journal(Some(first)).map_err(OpenError::Load)?;
                if state.deleted || first <= state.sealed_through {
                    continue;
                }
                if let Some(mark) = mark {
                    if state.mark(&mark.source).is_some_and(|end| mark.end <= end) {
                        // Left by a failed write that could not be taken back, and written again.
                        continue;
                    }
                    state.set_mark(mark);
                }
                let batch = Arc::new(Batch { first, ingestion_ms, rows, journal });
                shared.waiting.fetch_add(batch.memory(), Ordering::Relaxed);
                state.push(batch);
                if state.waiting.len() == 1 {
                    shared.note_dirty(&stream, Some(journal));
                }
            }
            Record::Delete { stream } => {
                let Some(stream) = shared.stream(&stream) else { continue };
                // Its files go in the background, if the crash left any.
                shared.forget(&stream, journal);
            }
        }
    }
    Ok(next_arrival)
}

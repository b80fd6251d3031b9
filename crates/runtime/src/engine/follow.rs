//! Following a task: its events and its output, as they come.

use super::{EngineError, Task, blocking};
use crate::{
    journal::{Event, EventKind, JournalError, JournalReader},
    spool::{Frame, SpoolReader},
};
use tokio::sync::watch;

/// The events of a task, first those that are written, then those that come.
pub struct Events {
    task: Task,
    reader: Option<JournalReader>,
    grown: watch::Receiver<u64>,
    ended: watch::Receiver<bool>,
    from_seq: u64,
    over: bool,
}

impl Events {
    pub(super) fn new(task: Task, from_seq: u64) -> Self {
        let (grown, ended) = (task.inner.grown.subscribe(), task.inner.ended.subscribe());
        Self { task, reader: None, grown, ended, from_seq, over: false }
    }

    /// The next event. `None` after [`EventKind::TaskStopped`]: there will be no other.
    pub async fn next(&mut self) -> Option<Result<Event, JournalError>> {
        while !self.over {
            // Seen before it is looked: what grows afterwards changes it again.
            self.grown.borrow_and_update();
            let ended = *self.ended.borrow_and_update();
            match self.read() {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) if ended => self.over = true,
                Ok(None) => wait(&mut self.grown, &mut self.ended).await,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn read(&mut self) -> Result<Option<Event>, JournalError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(JournalReader::open(&self.task.journal_path())?),
        };
        while let Some(event) = reader.next()? {
            self.over = matches!(event.kind, EventKind::TaskStopped { .. });
            if event.seq >= self.from_seq {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

/// Waits until something may have changed.
async fn wait(grown: &mut watch::Receiver<u64>, ended: &mut watch::Receiver<bool>) {
    tokio::select! {
        // The senders live as long as the task, which the caller holds.
        _ = grown.changed() => {}
        _ = ended.changed() => {}
    }
}

/// The output of a task from the last acknowledgement on: first what is there, then what comes.
pub struct Output {
    task: Task,
    /// Away while it acknowledges.
    reader: Option<SpoolReader>,
    grown: watch::Receiver<u64>,
    ended: watch::Receiver<bool>,
}

impl Output {
    pub(super) fn new(task: Task, reader: SpoolReader) -> Self {
        let (grown, ended) = (task.inner.grown.subscribe(), task.inner.ended.subscribe());
        Self { task, reader: Some(reader), grown, ended }
    }

    /// The next piece of output. `None` when the task has ended and everything was read.
    pub async fn next(&mut self) -> Option<Result<Frame, EngineError>> {
        loop {
            self.grown.borrow_and_update();
            let ended = *self.ended.borrow_and_update();
            let reader = self.reader.as_mut()?;
            match reader.next() {
                Ok(Some(frame)) => return Some(Ok(frame)),
                Ok(None) if ended => return None,
                Ok(None) => wait(&mut self.grown, &mut self.ended).await,
                Err(error) => return Some(Err(error.into())),
            }
        }
    }

    /// The next piece of output, if there is one already.
    pub fn try_next(&mut self) -> Option<Result<Frame, EngineError>> {
        self.reader.as_mut()?.next().map_err(EngineError::from).transpose()
    }

    /// Tells, durably, that everything before `position` ([`Frame::end`]) is kept elsewhere: it may
    /// be deleted and will not be read again, and waiting containers may go on.
    pub async fn acknowledge(&mut self, position: u64) -> Result<(), EngineError> {
        let Some(mut reader) = self.reader.take() else { return Err(EngineError::Ending) };
        let (reader, outcome) = blocking(move || {
            let outcome = reader.acknowledge(position);
            Ok((reader, outcome))
        })
        .await?;
        self.reader = Some(reader);
        outcome?;
        self.task.acknowledged(position).await;
        Ok(())
    }
}

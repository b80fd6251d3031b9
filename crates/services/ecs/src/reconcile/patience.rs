//! How long output waits for whoever should take it.

use std::time::Duration;
use world::Timestamp;

/// How long nothing may go through before output is thrown away.
const PATIENCE: Duration = Duration::from_secs(30);

/// How it goes with one who should take output.
#[derive(Default)]
pub(super) struct Patience {
    /// Since when nothing went through.
    failing_since: Option<Timestamp>,
    /// Whether output is thrown away.
    pub(super) stalled: bool,
}

impl Patience {
    /// What becomes of output that was sent, or not: it went through, is to be sent again, or is thrown away, for the
    /// other containers' output must not wait for one that is broken. `over`: it will never be taken.
    pub(super) fn settle(
        &mut self,
        sent: Result<(), String>,
        now: Timestamp,
        over: bool,
        task: &str,
    ) -> Result<(), String> {
        let Err(error) = sent else {
            *self = Self::default();
            return Ok(());
        };
        let since = *self.failing_since.get_or_insert(now);
        if now.since(since) < PATIENCE && !over {
            return Err(error);
        }
        if !std::mem::replace(&mut self.stalled, true) {
            tracing::warn!(task, error, "output is thrown away: nobody takes it");
        }
        Ok(())
    }
}

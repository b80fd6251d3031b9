//! Brings stacks to what their templates say.
//!
//! A stack has one status, and each that is in progress has one piece of work (`apply`, `remove`, `clean`), which ends
//! in another status. All that the work needs is stored, and each step is stored before and after it is done; so the
//! work goes on after a crash where it stood. Making, updating and rolling an update back are one: reach this template
//! from these resources.

mod apply;
mod foresee;
mod plan;
mod remove;
mod step;
mod tell;

pub(crate) use plan::{Exports, Plan, exports, importers};
pub(crate) use tell::{stack_event, tell};

use crate::{CloudFormation, api::StackStatus, model::Stack};
use std::sync::Arc;
use store::{DiskFault, Record, View};
use tokio::sync::watch;

/// The disk refused; there is nothing left to do but to stop. The store has logged it.
pub(crate) enum Stopped {
    /// Nothing can be written any more.
    Disk,
    /// The stack is not what it was: somebody else has it now.
    Superseded,
}

impl From<DiskFault> for Stopped {
    fn from(_: DiskFault) -> Self {
        Self::Disk
    }
}

impl CloudFormation {
    /// Works on a stack until nothing is in progress. A stack that is worked on already goes on.
    pub(crate) fn work_on(self: &Arc<Self>, key: &str) {
        let (stop, stopped) = watch::channel(false);
        {
            let mut working = self.working.lock().expect("no holder of this lock can panic");
            if working.contains_key(key) {
                return;
            }
            working.insert(key.to_owned(), stop);
        }
        let (house, key) = (self.clone(), key.to_owned());
        self.world.spawn("stack", async move {
            house.work(&key, stopped).await;
        });
    }

    /// Tells the work on a stack that it is to stop: the status has changed under it.
    pub(crate) fn interrupt(&self, key: &str) {
        let working = self.working.lock().expect("no holder of this lock can panic");
        if let Some(stop) = working.get(key) {
            stop.send_replace(true);
        }
    }

    async fn work(self: &Arc<Self>, key: &str, mut stop: watch::Receiver<bool>) {
        loop {
            let stack = self.store.read().get::<Stack>(key);
            let busy = stack.filter(|stack| stack.is_busy());
            let Some(stack) = busy else {
                let mut working = self.working.lock().expect("no holder of this lock can panic");
                // Between the look and the lock, an operation may have begun and found this work still there.
                if self.store.read().get::<Stack>(key).is_some_and(|stack| stack.is_busy()) {
                    continue;
                }
                working.remove(key);
                return;
            };
            if let Some(sender) =
                self.working.lock().expect("no holder of this lock can panic").get(key)
            {
                sender.send_replace(false);
            }
            stop.mark_unchanged();
            let result = match stack.status {
                StackStatus::CreateInProgress
                | StackStatus::UpdateInProgress
                | StackStatus::UpdateRollbackInProgress => self.apply(&stack, stop.clone()).await,
                StackStatus::RollbackInProgress | StackStatus::DeleteInProgress => {
                    self.remove(&stack).await
                }
                _ => self.clean(&stack).await,
            };
            if matches!(result, Err(Stopped::Disk)) {
                return;
            }
        }
    }

    /// Moves a stack from the status that `stack` has to another, if it still has that.
    pub(crate) async fn moved(
        &self,
        stack: &Stack,
        status: StackStatus,
        reason: Option<String>,
        change: impl FnOnce(&mut store::Tx, &mut Stack) + Send,
    ) -> Result<(), Stopped> {
        let (key, before, now) = (stack.key(), stack.status, self.world.now());
        let write = self.store.write(move |tx| {
            let current = tx.get::<Stack>(&key).filter(|current| current.status == before);
            let mut stack = current.ok_or(Stopped::Superseded)?.as_ref().clone();
            change(tx, &mut stack);
            stack.status = status;
            stack.reason.clone_from(&reason);
            stack_event(tx, &mut stack, now, reason);
            tx.put(stack);
            Ok(())
        });
        write.await
    }
}

/// The live stack of this name, or any of this ARN.
pub(crate) fn find(view: &impl View, realm: &str, name: &str) -> Option<Arc<Stack>> {
    match name.strip_prefix("arn:aws:cloudformation:") {
        Some(rest) => {
            let (place, rest) = rest.split_once(":stack/")?;
            let (name, id) = rest.split_once('/')?;
            let (region, account) = place.split_once(':')?;
            let here = format!("{account}/{region}") == realm;
            here.then(|| view.record::<Stack>(&Stack::key_of(realm, name, id))).flatten()
        }
        None => view
            .records::<Stack>(&format!("{realm}/{name}/"))
            .into_iter()
            .find(|stack| stack.is_live()),
    }
}

#[cfg(test)]
mod tests;

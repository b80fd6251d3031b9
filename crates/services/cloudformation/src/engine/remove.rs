//! Deletes what a stack no longer has: all of it, or what an update has left over. A resource goes after all that
//! refer to it.

use super::{Stopped, importers, step::told, tell};
use crate::{
    CloudFormation,
    api::StackStatus,
    model::{ChangeSet, IMPORTED, Physical, Resource, Stack, Stage},
    resources::dynamic,
    template::Policy,
};
use resource::{Failure, Known, Properties, Request, State};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::Record;
use tokio::sync::mpsc;
use wire::Context;

/// How often deleting is tried: what still uses a resource may be on its way out.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long the first pause is between looks at a resource that is not gone, and how long it gets.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// A resource, or one that was replaced, to be deleted.
#[derive(Clone)]
struct Item {
    record: Resource,
    physical: Physical,
    retain: bool,
    /// It is the resource itself, not one that was replaced.
    whole: bool,
}

impl CloudFormation {
    /// Deletes all of a stack, or all that a failed creation has made.
    pub(super) async fn remove(self: &Arc<Self>, stack: &Stack) -> Result<(), Stopped> {
        let (deleting, snapshot) =
            (stack.status == StackStatus::DeleteInProgress, self.store.read());
        let used =
            stack.outputs.iter().filter_map(|output| output.export.as_ref()).find_map(|export| {
                let users = importers(&snapshot, &stack.realm, export);
                (!users.is_empty()).then(|| {
                    format!(
                        "Export {export} cannot be deleted as it is in use by {}",
                        users.join(", ")
                    )
                })
            });
        if let Some(reason) = used.filter(|_| deleting) {
            return self.moved(stack, StackStatus::DeleteFailed, Some(reason), |_, _| {}).await;
        }
        let records: Vec<_> = snapshot.scan_prefix::<Resource>(&format!("{}/", stack.id)).collect();
        drop(snapshot);
        let mut items = Vec::new();
        for record in records {
            let rolled_back = !deleting && record.made_by != IMPORTED;
            let retain = match record.deletion {
                Policy::Delete => false,
                Policy::Retain => true,
                Policy::RetainExceptOnCreate => !rolled_back,
            };
            let retain = retain || stack.operation.retain.contains(&record.logical);
            let record = record.as_ref().clone();
            for physical in record.before.clone() {
                let retain = physical.retain;
                items.push(Item { record: record.clone(), physical, retain, whole: false });
            }
            if !["DELETE_COMPLETE", "DELETE_SKIPPED"].contains(&record.status.as_str()) {
                items.push(Item { physical: record.now.clone(), record, retain, whole: true });
            }
        }
        let failed = self.delete_all(stack, items).await?;
        let now = self.world.now();
        let (status, reason) = match (failed.is_empty(), deleting) {
            (true, true) => (StackStatus::DeleteComplete, None),
            (true, false) => (StackStatus::RollbackComplete, None),
            (false, _) => {
                let reason = format!(
                    "The following resource(s) failed to delete: [{}]. ",
                    failed.join(", ")
                );
                let status =
                    if deleting { StackStatus::DeleteFailed } else { StackStatus::RollbackFailed };
                (status, Some(reason))
            }
        };
        self.moved(stack, status, reason, move |tx, stack| {
            if status == StackStatus::DeleteComplete {
                let sets: Vec<_> =
                    tx.scan_prefix::<ChangeSet>(&format!("{}/", stack.key())).collect();
                sets.iter().for_each(|set| {
                    tx.delete::<ChangeSet>(&set.key());
                });
                stack.deleted = Some(now);
                stack.outputs.clear();
                stack.imports.clear();
            }
        })
        .await
    }

    /// Deletes what an update has replaced and what the template no longer has.
    pub(super) async fn clean(self: &Arc<Self>, stack: &Stack) -> Result<(), Stopped> {
        let plan = self.plan(stack, &stack.settings);
        let keeps = |logical: &str| plan.as_ref().is_ok_and(|plan| plan.has(logical));
        let records: Vec<_> =
            self.store.read().scan_prefix::<Resource>(&format!("{}/", stack.id)).collect();
        let mut items = Vec::new();
        for record in records.iter().map(|record| record.as_ref().clone()) {
            for physical in record.before.clone() {
                let retain = physical.retain;
                items.push(Item { record: record.clone(), physical, retain, whole: false });
            }
            if plan.is_ok() && !keeps(&record.logical) {
                let made_here = record.made_by.starts_with(&stack.operation.id);
                let retain = match record.deletion {
                    Policy::Delete => false,
                    Policy::Retain => true,
                    Policy::RetainExceptOnCreate => !made_here,
                };
                items.push(Item { physical: record.now.clone(), record, retain, whole: true });
            }
        }
        // As on AWS, what cannot be cleaned up does not fail the update; its events tell.
        self.delete_all(stack, items).await?;
        let status = match stack.status {
            StackStatus::UpdateCompleteCleanupInProgress => StackStatus::UpdateComplete,
            _ => StackStatus::UpdateRollbackComplete,
        };
        self.moved(stack, status, None, |_, _| {}).await
    }

    /// Deletes these, each after those that refer to it. Answers which could not be.
    async fn delete_all(
        self: &Arc<Self>,
        stack: &Stack,
        items: Vec<Item>,
    ) -> Result<Vec<String>, Stopped> {
        let Ok(context) = self.context_of(stack) else {
            return Ok(items.into_iter().map(|item| item.record.logical).collect());
        };
        let mut left: BTreeMap<usize, Item> = items.into_iter().enumerate().collect();
        let (send, mut receive) = mpsc::unbounded_channel();
        let (mut running, mut failed) = (BTreeSet::new(), Vec::new());
        loop {
            let needed: BTreeSet<String> =
                left.values().flat_map(|item| item.record.dependencies.iter().cloned()).collect();
            for (index, item) in &left {
                if !running.contains(index)
                    && !needed.contains(&item.record.logical)
                    && !failed.contains(&item.record.logical)
                {
                    running.insert(*index);
                    let (house, stack, item) = (self.clone(), stack.clone(), item.clone());
                    let (context, index, done) = (context.clone(), *index, send.clone());
                    self.world.spawn("stack resource", async move {
                        let result = house.delete(&stack, &context, item).await;
                        // Nobody listens any more when the disk has refused elsewhere.
                        let _ = done.send((index, result));
                    });
                }
            }
            if running.is_empty() {
                return Ok(failed);
            }
            let Some((index, result)) = receive.recv().await else { return Ok(failed) };
            running.remove(&index);
            match result? {
                true => {
                    left.remove(&index);
                }
                false => failed.push(left[&index].record.logical.clone()),
            }
        }
    }

    /// Deletes one; `false` when it could not be.
    async fn delete(&self, stack: &Stack, context: &Context, item: Item) -> Result<bool, Stopped> {
        let id = match &item.physical.id {
            Some(id) => Some(id.clone()),
            None => self.made(stack, context, &item).await,
        };
        let Some(id) = id else {
            return self.gone(stack, item, None).await.map(|()| true);
        };
        if item.retain {
            return self.gone(stack, item, Some("DELETE_SKIPPED")).await.map(|()| true);
        }
        self.told(stack, &item, "DELETE_IN_PROGRESS", None).await?;
        let request = self.request(stack, context, &item.record.logical, &item.physical, true);
        let known = self.surroundings().catalog.get(&item.record.kind).cloned();
        let result = match (known, self.unseal(&stack.id, &item.physical.properties)) {
            (Some(known), Ok(properties)) => {
                self.delete_physical(&request, &known, &id, &Properties(properties)).await
            }
            (_, Err(fault)) => Err(Failure::new("InternalFailure", fault.message)),
            (None, _) => {
                Err(Failure::new("TypeNotFound", format!("{} is not a type", item.record.kind)))
            }
        };
        match result {
            Ok(()) => self.gone(stack, item, Some("DELETE_COMPLETE")).await.map(|()| true),
            Err(failure) => {
                let reason = told(&failure, &request.token);
                self.told(stack, &item, "DELETE_FAILED", Some(reason)).await.map(|()| false)
            }
        }
    }

    /// The id of what may have been made before the machine stopped: it is made again, under the same name, so that it
    /// can be deleted. What cannot be made is taken for what is not there.
    async fn made(&self, stack: &Stack, context: &Context, item: &Item) -> Option<String> {
        let known = self.surroundings().catalog.get(&item.record.kind)?;
        let request = self.request(stack, context, &item.record.logical, &item.physical, true);
        if let Some(left) = known.kind.left(&request).await {
            return left;
        }
        let unsure = item.physical.unsure || (item.whole && item.record.stage == Stage::Making);
        if !unsure {
            return None;
        }
        let properties = self.unseal(&stack.id, &item.physical.properties).ok()?;
        let given = dynamic::resolve(&request, &Properties(properties)).await;
        let made = known.kind.create(&request, given.ok()?).await;
        if let Err(failure) = &made {
            let (logical, message) = (&item.record.logical, &failure.message);
            tracing::warn!(stack = stack.name, logical, message, "what may be there was not found");
        }
        made.ok()
    }

    async fn delete_physical(
        &self,
        request: &Request,
        known: &Known,
        id: &str,
        properties: &Properties,
    ) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            match known.kind.delete(request, id, properties).await {
                Ok(()) => break,
                Err(failure) if failure.is_missing() => return Ok(()),
                Err(failure) if attempt == TRIES || failure.code == "AccessDenied" => {
                    return Err(failure);
                }
                Err(_) => self.world.sleep(pause).await,
            }
            pause *= 2;
        }
        let mut pause = FIRST_LOOK;
        loop {
            match known.kind.read(request, id, properties).await {
                Ok(State::Missing) => return Ok(()),
                Ok(State::Failed(failure)) | Err(failure) if !failure.is_missing() => {
                    return Err(failure);
                }
                Ok(State::Failed(_)) | Err(_) => return Ok(()),
                Ok(State::Ready(_) | State::Pending) => {}
            }
            self.world.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    async fn told(
        &self,
        stack: &Stack,
        item: &Item,
        status: &'static str,
        reason: Option<String>,
    ) -> Result<(), Stopped> {
        let (key, now, whole) = (stack.key(), self.world.now(), item.whole);
        let mut record = item.record.clone();
        record.now = item.physical.clone();
        let write = self.store.write(move |tx| {
            tell(tx, &key, &mut record, now, status, reason, None);
            if whole {
                tx.put(record);
            }
            Ok::<_, Stopped>(())
        });
        write.await
    }

    /// The resource is not the stack's any more.
    async fn gone(
        &self,
        stack: &Stack,
        item: Item,
        event: Option<&'static str>,
    ) -> Result<(), Stopped> {
        let (key, now) = (stack.key(), self.world.now());
        let all =
            matches!(stack.status, StackStatus::RollbackInProgress | StackStatus::DeleteInProgress);
        let write = self.store.write(move |tx| {
            let mut record = item.record;
            record.now = item.physical.clone();
            if let Some(status) = event {
                tell(tx, &key, &mut record, now, status, None, None);
            }
            match (item.whole, all) {
                // What is left tells what was there.
                (true, true) => {
                    record.now.id = record.now.id.filter(|_| event.is_some());
                    record.before.clear();
                    tx.put(record);
                }
                (true, false) => {
                    tx.delete::<Resource>(&record.key());
                }
                (false, _) => {
                    tx.update::<Resource>(&record.key(), |kept| {
                        kept.before.retain(|before| before.token != item.physical.token);
                    });
                }
            }
            Ok::<_, Stopped>(())
        });
        write.await
    }
}

//! Reaches a template: what it has is made or changed, along its dependencies and side by side where they allow it.

use super::{
    Exports, Plan, Stopped,
    plan::{Stored, exports, importers},
};
use crate::{
    CloudFormation,
    api::{OnFailure, StackStatus},
    model::{Output, Resource, Settings, Stack},
    policy::Policy,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{Record, Tx};
use tokio::sync::{mpsc, watch};
use wire::{Context, Fault};

/// One way to a template.
pub(super) struct Run {
    pub(super) house: Arc<CloudFormation>,
    pub(super) stack: Stack,
    pub(super) key: String,
    pub(super) plan: Plan,
    /// Whom the resources' operations are called as.
    pub(super) context: Context,
    /// The part of the operation, which settles resources.
    pub(super) phase: String,
    /// What was there before is to be there again.
    pub(super) back: bool,
    /// Waiting is over: another resource has failed, or the stack has been given something else to do.
    pub(super) cancel: watch::Sender<bool>,
}

/// How a resource failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failed {
    Create,
    Update,
}

/// What became of a run.
enum End {
    Reached(Vec<Output>, BTreeSet<String>),
    Failed(String),
}

impl CloudFormation {
    /// The run for a stack in progress.
    pub(super) async fn apply(
        self: &Arc<Self>,
        stack: &Stack,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Stopped> {
        let back = stack.status == StackStatus::UpdateRollbackInProgress;
        let settings = match (&stack.previous, back) {
            (Some(previous), true) => previous,
            _ => &stack.settings,
        };
        let end = match self.run(stack, settings, back) {
            Ok(run) => Arc::new(run).go(&mut stop).await?,
            Err(fault) => End::Failed(fault.message),
        };
        if self.store.read().get::<Stack>(&stack.key()).is_none_or(|now| now.status != stack.status)
        {
            return Err(Stopped::Superseded);
        }
        match end {
            End::Reached(outputs, imports) => self.reached(stack, back, outputs, imports).await,
            End::Failed(reason) => self.failed(stack, back, reason).await,
        }
    }

    fn run(self: &Arc<Self>, stack: &Stack, settings: &Settings, back: bool) -> Result<Run, Fault> {
        Ok(Run {
            house: self.clone(),
            key: stack.key(),
            plan: self.plan(stack, settings)?,
            // Going back, too, is done for whoever asked for the update.
            context: self.context_of(stack)?,
            phase: format!("{}/{}", stack.operation.id, if back { "back" } else { "forth" }),
            stack: stack.clone(),
            back,
            cancel: watch::channel(false).0,
        })
    }

    async fn reached(
        &self,
        stack: &Stack,
        back: bool,
        outputs: Vec<Output>,
        imports: BTreeSet<String>,
    ) -> Result<(), Stopped> {
        let status = match stack.status {
            StackStatus::CreateInProgress => StackStatus::CreateComplete,
            StackStatus::UpdateInProgress => StackStatus::UpdateCompleteCleanupInProgress,
            _ => StackStatus::UpdateRollbackCompleteCleanupInProgress,
        };
        let moved = self.moved(stack, status, None, move |_: &mut Tx, stack| {
            (stack.outputs, stack.imports) = (outputs, imports);
            match stack.previous.take() {
                Some(previous) if back => {
                    let (role, principal) =
                        (stack.settings.role.take(), stack.settings.principal.clone());
                    stack.settings = Settings { role, principal, ..previous };
                }
                _ => {}
            }
        });
        moved.await
    }

    async fn failed(&self, stack: &Stack, back: bool, reason: String) -> Result<(), Stopped> {
        let (create, stay) =
            (stack.status == StackStatus::CreateInProgress, stack.operation.no_rollback);
        // What follows is another sentence.
        let reason = format!("{} ", reason.trim_end());
        let (status, reason) = match (back, create, stack.on_failure) {
            (true, _, _) => (StackStatus::UpdateRollbackFailed, reason),
            (_, true, OnFailure::Delete) => {
                (StackStatus::DeleteInProgress, format!("{reason}Delete requested by user."))
            }
            (_, true, _) if stay => (StackStatus::CreateFailed, reason),
            (_, true, _) => {
                (StackStatus::RollbackInProgress, format!("{reason}Rollback requested by user."))
            }
            (_, false, _) if stay => (StackStatus::UpdateFailed, reason),
            (_, false, _) => (StackStatus::UpdateRollbackInProgress, reason),
        };
        self.moved(stack, status, Some(reason), |_, _| {}).await
    }
}

impl Run {
    async fn go(self: Arc<Self>, stop: &mut watch::Receiver<bool>) -> Result<End, Stopped> {
        let order = {
            let scope_outside = self.outside();
            let snapshot = self.house.store.read();
            let stored = Stored { view: &snapshot, stack: &self.stack.id };
            let scope = self.plan.scope(&stored, &scope_outside);
            match self.plan.order(&scope) {
                Ok(order) => order
                    .into_iter()
                    .map(|logical| (self.plan.dependencies(&scope, &logical), logical))
                    .collect::<Vec<_>>(),
                Err(fault) => return Ok(End::Failed(fault.message)),
            }
        };
        let mut settled: BTreeSet<String> = self.settled_before();
        let (send, mut receive) = mpsc::unbounded_channel();
        let (mut running, mut failed): (BTreeSet<String>, BTreeMap<Failed, Vec<String>>) =
            Default::default();
        let mut late = false;
        loop {
            if failed.is_empty() && !*self.cancel.borrow() {
                for (needs, logical) in &order {
                    let free = !settled.contains(logical) && !running.contains(logical);
                    if free && needs.iter().all(|need| settled.contains(need)) {
                        running.insert(logical.clone());
                        self.clone().begin(logical.clone(), needs.clone(), send.clone());
                    }
                }
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                Some((logical, result)) = receive.recv() => {
                    running.remove(&logical);
                    match result {
                        Ok(None) => { settled.insert(logical); }
                        Ok(Some(kind)) => {
                            failed.entry(kind).or_default().push(logical);
                            self.cancel.send_replace(true);
                        }
                        Err(stopped) => return Err(stopped),
                    }
                }
                _ = stop.changed() => { self.cancel.send_replace(true); }
                () = self.deadline(), if !late => {
                    late = true;
                    self.cancel.send_replace(true);
                }
            }
        }
        if *stop.borrow() {
            return Err(Stopped::Superseded);
        }
        if late {
            return Ok(End::Failed(
                "Stack creation time exceeded the specified timeout. ".to_owned(),
            ));
        }
        if failed.is_empty() {
            return Ok(self.outputs().map_or_else(
                |fault| End::Failed(fault.message),
                |(outputs, imports)| End::Reached(outputs, imports),
            ));
        }
        let told = failed.into_iter().map(|(kind, names)| {
            let what = if kind == Failed::Create { "create" } else { "update" };
            format!("The following resource(s) failed to {what}: [{}]. ", names.join(", "))
        });
        Ok(End::Failed(told.collect()))
    }

    /// Resolves when a stack has taken too long to be made.
    async fn deadline(&self) {
        let minutes = match self.stack.status {
            StackStatus::CreateInProgress => self.stack.timeout_minutes,
            _ => None,
        };
        let Some(minutes) = minutes.and_then(|minutes| u64::try_from(minutes).ok()) else {
            return std::future::pending().await;
        };
        let spent = self.house.world.now().since(self.stack.created);
        self.house.world.sleep(Duration::from_secs(minutes * 60).saturating_sub(spent)).await;
    }

    fn begin(
        self: Arc<Self>,
        logical: String,
        needs: BTreeSet<String>,
        done: mpsc::UnboundedSender<(String, Result<Option<Failed>, Stopped>)>,
    ) {
        let world = self.house.world.clone();
        world.spawn("stack resource", async move {
            let result = self.step(&logical, needs).await;
            // Nobody listens any more when the disk has refused elsewhere.
            let _ = done.send((logical, result));
        });
    }

    /// What this part of the operation has dealt with before a crash, and what a rollback is to leave alone.
    fn settled_before(&self) -> BTreeSet<String> {
        let snapshot = self.house.store.read();
        let records = snapshot.scan_prefix::<Resource>(&format!("{}/", self.stack.id));
        let done = records.filter(|record| {
            record.settled == self.phase || self.stack.operation.skip.contains(&record.logical)
        });
        done.map(|record| record.logical.clone()).collect()
    }

    pub(super) fn outside(&self) -> Exports {
        self.house.exports(&self.stack.realm)
    }

    /// The stack's outputs and the exports that it uses.
    fn outputs(&self) -> Result<(Vec<Output>, BTreeSet<String>), Fault> {
        let (snapshot, outside) = (self.house.store.read(), self.outside());
        let stored = Stored { view: &snapshot, stack: &self.stack.id };
        let scope = self.plan.scope(&stored, &outside);
        let taken = exports(&snapshot, &self.stack.realm);
        let mut outputs = Vec::new();
        for (key, output) in &self.plan.template.outputs {
            if !scope.holds(output.condition.as_deref())? {
                continue;
            }
            let value = scope.text(&output.value).map_err(|_| {
                super::super::template::malformed(format!(
                    "The Value field of Output {key} must be a string"
                ))
            })?;
            let export = output.export.as_ref().map(|name| scope.text(name)).transpose()?;
            if let Some(name) = &export
                && let Some((other, _)) = taken.get(name)
                && other.id != self.stack.id
            {
                let message =
                    format!("Export with name {name} is already exported by stack {}.", other.name);
                return Err(crate::faults::validation(message));
            }
            outputs.push(Output {
                key: key.clone(),
                value,
                description: output.description.clone(),
                export,
            });
        }
        self.keeps_exports(&snapshot, &outputs)?;
        self.may_delete(&snapshot)?;
        for (logical, resource) in self.plan.resources() {
            // What properties import is only known when they are evaluated.
            scope.map(&resource.properties).map_err(|fault| {
                crate::faults::validation(format!("{logical}: {}", fault.message))
            })?;
        }
        Ok((outputs, scope.imported.take()))
    }

    /// What of the stack may be updated, if it is updated and something is said of that. Going back is always let.
    pub(super) fn policy(&self) -> Option<Policy> {
        if self.stack.status != StackStatus::UpdateInProgress {
            return None;
        }
        let text = self.stack.operation.policy.as_ref().or(self.stack.policy.as_ref())?;
        Policy::read(text)
    }

    /// Resources that are no longer declared are deleted, if the stack's policy lets them be.
    fn may_delete(&self, snapshot: &store::Snapshot) -> Result<(), Fault> {
        let Some(policy) = self.policy() else { return Ok(()) };
        let mut records = snapshot.scan_prefix::<Resource>(&format!("{}/", self.stack.id));
        let denied = records.find_map(|record| match self.plan.has(&record.logical) {
            true => None,
            false => policy.denies("Update:Delete", &record.logical, &record.kind),
        });
        denied.map_or(Ok(()), |reason| Err(crate::faults::validation(reason)))
    }

    /// Exports that others use stay what they are.
    fn keeps_exports(&self, snapshot: &store::Snapshot, outputs: &[Output]) -> Result<(), Fault> {
        for before in &self.stack.outputs {
            let Some(name) = &before.export else { continue };
            let same = outputs
                .iter()
                .any(|now| now.export.as_ref() == Some(name) && now.value == before.value);
            let users =
                if same { Vec::new() } else { importers(snapshot, &self.stack.realm, name) };
            if !users.is_empty() {
                let users = users.join(", ");
                let message = format!("Export {name} cannot be updated as it is in use by {users}");
                return Err(crate::faults::validation(message));
            }
        }
        Ok(())
    }
}

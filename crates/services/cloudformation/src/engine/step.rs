//! One resource on its way to what the template says: left as it is, made, changed, replaced, or put back.

use super::{
    Stopped,
    apply::{Failed, Run},
    plan::Stored,
    tell,
    tell::{Told, imported},
};
use crate::{
    CloudFormation,
    model::{IMPORTED, Physical, Resource, Settings, Stack, Stage},
    template::Policy,
};
use resource::{Attributes, Failure, Known, Properties, Request, State};
use serde_json::{Map, Value as Json};
use std::{collections::BTreeSet, time::Duration};
use store::{Record, Sealed};
use wire::{Context, Fault};

/// How long the first pause is between looks at a resource that is not ready.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// And how long it gets.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a session of the stack's role lasts.
const ROLE_SESSION: Duration = Duration::from_secs(3600);

const SUFFIX: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a step did not reach its end.
enum Stuck {
    Stopped(Stopped),
    /// The resource failed, for this reason.
    Failed(String),
}

impl From<Stopped> for Stuck {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl CloudFormation {
    /// The context in which a stack's operations are called: its role's, or that of whoever asked for what is being
    /// done.
    pub(crate) fn context_of(&self, stack: &Stack) -> Result<Context, Fault> {
        self.context_for(stack, &stack.settings)
    }

    /// [`CloudFormation::context_of`] for what a stack may be.
    pub(super) fn context_for(&self, stack: &Stack, settings: &Settings) -> Result<Context, Fault> {
        let (_, region) = stack.realm.split_once('/').expect("realms are account/region");
        let principal = match &settings.role {
            None => settings.principal.restored(),
            Some(role) => {
                let session = self.iam.assume_for_service(
                    role,
                    "cloudformation.amazonaws.com",
                    "AWSCloudFormation",
                    ROLE_SESSION,
                );
                session
                    .map_err(|_| {
                        let message = format!("Role {role} is invalid or cannot be assumed");
                        crate::faults::validation(message)
                    })?
                    .principal
            }
        };
        Ok(Context::internal(principal, region, self.world.now(), self.iam.clone()))
    }

    /// A resource that is to be made.
    pub(super) fn physical(&self, stack: &str, properties: &Map<String, Json>) -> Physical {
        Physical {
            id: None,
            properties: self.seal(stack, properties),
            attributes: Map::new(),
            suffix: self.world.text(12, SUFFIX),
            token: self.world.uuid(),
            retain: false,
            unsure: false,
        }
    }

    /// What a resource's type has at hand.
    pub(super) fn request(
        &self,
        stack: &Stack,
        context: &Context,
        logical: &str,
        physical: &Physical,
        repeated: bool,
    ) -> Request {
        Request {
            front: self.surroundings().front.clone(),
            context: context.clone(),
            stack_name: stack.name.clone(),
            stack_id: stack.arn(),
            logical_id: logical.to_owned(),
            suffix: physical.suffix.clone(),
            token: physical.token.clone(),
            repeated,
        }
    }
}

/// A failure in CloudFormation's words.
pub(super) fn told(failure: &Failure, token: &str) -> String {
    format!(
        "Resource handler returned message: \"{}\" (RequestToken: {token}, HandlerErrorCode: {})",
        failure.message, failure.code
    )
}

impl Run {
    /// Deals with one resource. Answers how it failed, if it did.
    pub(super) async fn step(
        &self,
        logical: &str,
        needs: BTreeSet<String>,
    ) -> Result<Option<Failed>, Stopped> {
        let key = Resource::key_of(&self.stack.id, logical);
        let found =
            self.house.store.read().get::<Resource>(&key).map(|found| found.as_ref().clone());
        let making = found.as_ref().is_none_or(|record| {
            record.before.is_empty() && (record.now.id.is_none() || record.made_by == self.phase)
        });
        let result = match self.evaluated(logical) {
            Ok((known, properties)) => self.reach(logical, needs, found, &known, properties).await,
            Err(message) => {
                self.begin_failed(logical, needs, found, making).await?;
                Err(Stuck::Failed(message))
            }
        };
        match result {
            Ok(()) => Ok(None),
            Err(Stuck::Stopped(stopped)) => Err(stopped),
            Err(Stuck::Failed(reason)) => {
                let status = if making { "CREATE_FAILED" } else { "UPDATE_FAILED" };
                let failed = |record: &mut Resource| {
                    if record.stage == Stage::Waiting {
                        // It is there, but not as it should be: it is not taken for what it was to be.
                        record.attempted = Some(record.now.properties.clone());
                    }
                    record.stage = Stage::Idle;
                };
                self.change(&key, failed, Some((status, Some(reason), None))).await?;
                Ok(Some(if making { Failed::Create } else { Failed::Update }))
            }
        }
    }

    /// The resource's type and its properties.
    fn evaluated(&self, logical: &str) -> Result<(Known, Properties), String> {
        let kind = &self.plan.template.resources[logical].kind;
        let known = self.house.surroundings().catalog.get(kind).cloned();
        let known = known.ok_or_else(|| format!("Unrecognized resource types: [{kind}]"))?;
        let (snapshot, outside) = (self.house.store.read(), self.outside());
        let stored = Stored { view: &snapshot, stack: &self.stack.id };
        let scope = self.plan.scope(&stored, &outside);
        let properties = self.plan.properties(&scope, logical, &known);
        Ok((known, Properties(properties.map_err(|fault| fault.message)?)))
    }

    async fn reach(
        &self,
        logical: &str,
        needs: BTreeSet<String>,
        found: Option<Resource>,
        known: &Known,
        properties: Properties,
    ) -> Result<(), Stuck> {
        let valid = known.schema.check(&properties).map_err(|message| {
            Stuck::Failed(format!(
                "Properties validation failed for resource {logical} with message:\n[{message}]"
            ))
        });
        let found = self.without_failed_replacement(found).await?;
        let here = |record: &Resource| record.made_by == self.phase;
        let Some(record) = found.filter(|record| {
            record.now.id.is_some() || (record.stage == Stage::Making && here(record))
        }) else {
            let record = self.fresh(logical, needs, &properties);
            if let Some(attributes) = self.existing(&record, known, &properties).await? {
                return self.import(record, attributes, &properties).await;
            }
            self.put(record.clone(), ("CREATE_IN_PROGRESS", None, Some(&properties))).await?;
            valid?;
            return self.make(record, known, properties, false, false).await;
        };
        let key = record.key();
        let record = self.change(&key, |record| self.declare(record, needs), None).await?;
        if record.stage == Stage::Making {
            let replacing = !record.before.is_empty();
            return self.make(record, known, properties, replacing, true).await;
        }
        let old = self.properties(&record.now.properties)?;
        if record.stage == Stage::Waiting && here(&record) {
            let replacing = !record.before.is_empty();
            return self.wait_made(record, known, &properties, replacing).await;
        }
        if self.back && self.put_back(&record, &properties).await? {
            return Ok(());
        }
        let attempted =
            record.attempted.as_ref().map(|sealed| self.properties(sealed)).transpose()?;
        if attempted.is_none() && old == properties {
            // An import that was begun and not told the end of.
            let told = (record.status == "IMPORT_IN_PROGRESS").then(imported);
            self.change(&key, |record| record.settled.clone_from(&self.phase), told).await?;
            return Ok(());
        }
        let kind_changed = record.kind != self.plan.template.resources[logical].kind;
        if kind_changed {
            valid?;
            return Err(Stuck::Failed(format!(
                "Update of resource type is not permitted. The new template modifies resource type of the \
                 following resources: [{logical}]"
            )));
        }
        let from = attempted.unwrap_or(old);
        let anew = !known.schema.replacing(&from, &properties).is_empty()
            || known.kind.replaces(&from, &properties);
        match anew {
            true => self.replace(record, known, &from, properties, valid).await,
            false => self.update(record, known, &from, properties, valid).await,
        }
    }

    /// Where a replacement could not be made, what it was to replace is the resource again.
    async fn without_failed_replacement(
        &self,
        found: Option<Resource>,
    ) -> Result<Option<Resource>, Stuck> {
        let failed = found.as_ref().is_some_and(|record| {
            let making = record.stage == Stage::Making && record.made_by == self.phase;
            record.now.id.is_none() && !record.before.is_empty() && !making
        });
        let Some(record) = found.as_ref().filter(|_| failed) else { return Ok(found) };
        let restore = |record: &mut Resource| {
            if let Some(before) = record.before.pop() {
                let replacement = std::mem::replace(&mut record.now, before);
                if record.stage == Stage::Making {
                    record.before.push(Physical { unsure: true, retain: false, ..replacement });
                }
            }
            (record.stage, record.now.retain) = (Stage::Idle, false);
        };
        Ok(Some(self.change(&record.key(), restore, None).await?))
    }

    /// What was replaced is the resource again, if it is what the template says.
    async fn put_back(&self, record: &Resource, properties: &Properties) -> Result<bool, Stuck> {
        let mut index = None;
        let there = |(_, before): &(usize, &Physical)| before.id.is_some();
        for (position, before) in record.before.iter().enumerate().filter(there) {
            if self.properties(&before.properties)? == *properties {
                index = Some(position);
            }
        }
        let Some(index) = index else { return Ok(false) };
        let restore = |record: &mut Resource| {
            let before = record.before.remove(index);
            let mut replaced = std::mem::replace(&mut record.now, before);
            replaced.retain = false;
            if replaced.id.is_some() {
                record.before.push(replaced);
            }
            (record.attempted, record.stage) = (None, Stage::Idle);
            record.settled.clone_from(&self.phase);
        };
        self.change(&record.key(), restore, Some(("UPDATE_COMPLETE", None, None))).await?;
        Ok(true)
    }

    /// Makes a resource. `repeated`: it may be there already.
    async fn make(
        &self,
        record: Resource,
        known: &Known,
        properties: Properties,
        replacing: bool,
        repeated: bool,
    ) -> Result<(), Stuck> {
        let request =
            self.house.request(&self.stack, &self.context, &record.logical, &record.now, repeated);
        let token = request.token.clone();
        let given = self.dynamic(&request, &properties).await?;
        let made = known.kind.create(&request, given).await;
        let id = made.map_err(|failure| Stuck::Failed(told(&failure, &token)))?;
        let (status, reason) = match replacing {
            false => ("CREATE_IN_PROGRESS", "Resource creation Initiated"),
            true => ("UPDATE_IN_PROGRESS", "Resource creation Initiated"),
        };
        let there = |record: &mut Resource| {
            (record.now.id, record.stage) = (Some(id), Stage::Waiting);
        };
        let event = (status, Some(reason.to_owned()), Some(&properties));
        let record = self.change(&record.key(), there, Some(event)).await?;
        self.wait_made(record, known, &properties, replacing).await
    }

    async fn wait_made(
        &self,
        record: Resource,
        known: &Known,
        properties: &Properties,
        replacing: bool,
    ) -> Result<(), Stuck> {
        let attributes = self.ready(&record, known, properties, "creation").await?;
        let status = if replacing { "UPDATE_COMPLETE" } else { "CREATE_COMPLETE" };
        let done = |record: &mut Resource| {
            (record.now.attributes, record.stage) = (attributes, Stage::Idle);
            record.settled.clone_from(&self.phase);
        };
        self.change(&record.key(), done, Some((status, None, None))).await?;
        Ok(())
    }

    /// Whether the stack's policy lets the update do this to a resource.
    fn may(&self, action: &str, record: &Resource) -> Result<(), Stuck> {
        let policy = self.policy();
        let denied = policy.and_then(|policy| policy.denies(action, &record.logical, &record.kind));
        denied.map_or(Ok(()), |reason| Err(Stuck::Failed(reason)))
    }

    /// Makes a resource anew; the one that is there stays until the stack is well.
    async fn replace(
        &self,
        record: Resource,
        known: &Known,
        old: &Properties,
        new: Properties,
        valid: Result<(), Stuck>,
    ) -> Result<(), Stuck> {
        let name = known.schema.given_name(&new);
        if name.is_some() && name == known.schema.given_name(old) {
            self.change(&record.key(), |_| {}, Some(("UPDATE_IN_PROGRESS", None, None))).await?;
            let name = name.unwrap_or_default();
            return Err(Stuck::Failed(format!(
                "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename \
                 {name} and update the stack again."
            )));
        }
        let fresh = self.house.physical(&self.stack.id, &new.0);
        let anew = |record: &mut Resource| {
            let mut before = std::mem::replace(&mut record.now, fresh);
            before.retain = record.update_replace != Policy::Delete;
            record.before.push(before);
            (record.stage, record.attempted) = (Stage::Making, None);
            record.made_by.clone_from(&self.phase);
        };
        let reason = "Requested update requires the creation of a new physical resource; hence creating one.";
        // The event tells the id of what is there until now.
        self.change(
            &record.key(),
            |_| {},
            Some(("UPDATE_IN_PROGRESS", Some(reason.to_owned()), Some(&new))),
        )
        .await?;
        self.may("Update:Replace", &record)?;
        valid?;
        let record = self.change(&record.key(), anew, None).await?;
        self.make(record, known, new, true, false).await
    }

    async fn update(
        &self,
        record: Resource,
        known: &Known,
        old: &Properties,
        new: Properties,
        valid: Result<(), Stuck>,
    ) -> Result<(), Stuck> {
        let sealed = self.house.seal(&self.stack.id, &new.0);
        let begun = |record: &mut Resource| {
            record.attempted = Some(sealed.clone());
        };
        if let Err(denied) = self.may("Update:Modify", &record) {
            let event = ("UPDATE_IN_PROGRESS", None, Some(&new));
            self.change(&record.key(), |_| {}, Some(event)).await?;
            return Err(denied);
        }
        let event = ("UPDATE_IN_PROGRESS", None, Some(&new));
        let record = self.change(&record.key(), begun, Some(event)).await?;
        valid?;
        let request =
            self.house.request(&self.stack, &self.context, &record.logical, &record.now, true);
        let id = record.now.id.clone().unwrap_or_default();
        let (old, given) =
            (self.dynamic(&request, old).await?, self.dynamic(&request, &new).await?);
        let updated = known.kind.update(&request, &id, &old, given).await;
        updated.map_err(|failure| Stuck::Failed(told(&failure, &request.token)))?;
        let changed = known.kind.changed_id(&request, &id).await;
        let record = match changed {
            None => record,
            Some(id) => {
                let other = |record: &mut Resource| {
                    let mut before = record.now.clone();
                    before.retain = record.update_replace != Policy::Delete;
                    record.before.push(before);
                    record.now.id = Some(id);
                };
                self.change(&record.key(), other, None).await?
            }
        };
        let attributes = self.ready(&record, known, &new, "update").await?;
        let done = |record: &mut Resource| {
            (record.now.attributes, record.now.properties) = (attributes, sealed);
            (record.attempted, record.stage) = (None, Stage::Idle);
            record.settled.clone_from(&self.phase);
        };
        self.change(&record.key(), done, Some(("UPDATE_COMPLETE", None, None))).await?;
        Ok(())
    }

    /// What a resource that the template names gives, if it is there already and the operation takes such.
    async fn existing(
        &self,
        record: &Resource,
        known: &Known,
        properties: &Properties,
    ) -> Result<Option<Attributes>, Stuck> {
        if !self.stack.operation.import || record.deletion == Policy::Delete {
            return Ok(None);
        }
        let Some(name) = known.schema.given_name(properties) else { return Ok(None) };
        let request =
            self.house.request(&self.stack, &self.context, &record.logical, &record.now, true);
        match known.kind.read(&request, &name, properties).await {
            Ok(State::Ready(attributes)) => Ok(Some(attributes)),
            _ => Ok(None),
        }
    }

    /// Takes a resource that is there for the stack's.
    async fn import(
        &self,
        mut record: Resource,
        attributes: Attributes,
        properties: &Properties,
    ) -> Result<(), Stuck> {
        let kind = self.plan.template.resources[&record.logical].kind.clone();
        let known = self.house.surroundings().catalog.get(&kind);
        record.now.id = known.and_then(|known| known.schema.given_name(properties));
        (record.now.attributes, record.stage) = (attributes, Stage::Idle);
        record.made_by = IMPORTED.to_owned();
        let (key, started) = (record.key(), Some("Resource import started.".to_owned()));
        self.put(record, ("IMPORT_IN_PROGRESS", started, Some(properties))).await?;
        let settled = |record: &mut Resource| record.settled.clone_from(&self.phase);
        self.change(&key, settled, Some(imported())).await?;
        Ok(())
    }

    /// Waits until a resource is ready.
    async fn ready(
        &self,
        record: &Resource,
        known: &Known,
        properties: &Properties,
        what: &str,
    ) -> Result<Attributes, Stuck> {
        let request =
            self.house.request(&self.stack, &self.context, &record.logical, &record.now, true);
        let id = record.now.id.clone().unwrap_or_default();
        let (mut pause, mut cancel) = (FIRST_PAUSE, self.cancel.subscribe());
        loop {
            let failure = match known.kind.read(&request, &id, properties).await {
                Ok(State::Ready(attributes)) => return Ok(attributes),
                Ok(State::Pending) => None,
                Ok(State::Failed(failure)) | Err(failure) => Some(failure),
                Ok(State::Missing) => Some(Failure::new("NotFound", format!("{id} is not there"))),
            };
            if let Some(failure) = failure {
                return Err(Stuck::Failed(told(&failure, &request.token)));
            }
            if *cancel.borrow_and_update() {
                return Err(Stuck::Failed(format!("Resource {what} cancelled")));
            }
            tokio::select! {
                _ = cancel.changed() => {}
                () = self.house.world.sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Properties with what dynamic references stand for, which is never stored.
    async fn dynamic(
        &self,
        request: &Request,
        properties: &Properties,
    ) -> Result<Properties, Stuck> {
        let resolved = crate::resources::dynamic::resolve(request, properties).await;
        resolved.map_err(Stuck::Failed)
    }

    fn properties(&self, sealed: &Sealed) -> Result<Properties, Stuck> {
        let map: Map<_, _> = self
            .house
            .unseal(&self.stack.id, sealed)
            .map_err(|fault| Stuck::Failed(fault.message))?;
        Ok(Properties(map))
    }

    fn fresh(&self, logical: &str, needs: BTreeSet<String>, properties: &Properties) -> Resource {
        let mut record = Resource {
            stack: self.stack.id.clone(),
            logical: logical.to_owned(),
            kind: self.plan.template.resources[logical].kind.clone(),
            status: String::new(),
            reason: None,
            changed: self.house.world.now(),
            now: self.house.physical(&self.stack.id, &properties.0),
            stage: Stage::Making,
            attempted: None,
            before: Vec::new(),
            dependencies: BTreeSet::new(),
            deletion: Policy::Delete,
            update_replace: Policy::Delete,
            metadata: None,
            settled: String::new(),
            made_by: self.phase.clone(),
        };
        self.declare(&mut record, needs);
        record
    }

    /// What the template says of a resource besides its properties.
    fn declare(&self, record: &mut Resource, needs: BTreeSet<String>) {
        let declared = &self.plan.template.resources[&record.logical];
        record.dependencies = needs;
        (record.deletion, record.update_replace) = (declared.deletion, declared.update_replace);
        record.metadata = declared.metadata.as_ref().map(ToString::to_string);
    }

    /// A resource of which the properties have no value has begun to be made or changed, too, before it fails.
    async fn begin_failed(
        &self,
        logical: &str,
        needs: BTreeSet<String>,
        found: Option<Resource>,
        making: bool,
    ) -> Result<(), Stopped> {
        match found {
            Some(record) if !making => {
                let event = ("UPDATE_IN_PROGRESS", None, None);
                self.change(&record.key(), |_| {}, Some(event)).await.map(|_| ())
            }
            _ => {
                let mut record = self.fresh(logical, needs, &Properties::default());
                record.stage = Stage::Idle;
                self.put(record, ("CREATE_IN_PROGRESS", None, None)).await
            }
        }
    }

    async fn put(&self, mut record: Resource, event: Told<'_>) -> Result<(), Stopped> {
        let (now, key) = (self.house.world.now(), self.key.clone());
        let (status, reason, properties) = event;
        let properties = properties.map(|properties| self.plan.shown(&properties.0));
        let write = self.house.store.write(move |tx| {
            tell(tx, &key, &mut record, now, status, reason, properties);
            tx.put(record);
            Ok::<_, Stopped>(())
        });
        write.await
    }

    /// Changes a resource's record, and tells of it.
    async fn change(
        &self,
        key: &str,
        change: impl FnOnce(&mut Resource) + Send,
        event: Option<Told<'_>>,
    ) -> Result<Resource, Stopped> {
        let (now, stack_key) = (self.house.world.now(), self.key.clone());
        let event = event.map(|(status, reason, properties)| {
            (status, reason, properties.map(|properties| self.plan.shown(&properties.0)))
        });
        let write = self.house.store.write(move |tx| {
            let found = tx.get::<Resource>(key).ok_or(Stopped::Superseded)?;
            let mut record = found.as_ref().clone();
            change(&mut record);
            if let Some((status, reason, properties)) = event {
                tell(tx, &stack_key, &mut record, now, status, reason, properties);
            }
            tx.put(record.clone());
            Ok::<_, Stopped>(record)
        });
        write.await
    }
}

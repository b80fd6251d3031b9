//! Drives one task from PROVISIONING to STOPPED.
//!
//! A round looks at the record and at the engine, decides on one of three steps ([`plan`]), and takes it. Every
//! step can be taken again after a crash: what is there already is kept. What cannot work ends the task with
//! AWS's words; what does not work now (a disk, the kernel) is tried again.

use super::{
    chain, connect, environment, events, output, pull, reach,
    service::{registries, targets},
    spec, volumes,
};
use crate::{
    Ecs,
    api::{ContainerDefinition, SettingName, TaskStopCode},
    endpoints,
    model::{self, LastStatus, Task, TaskDefinition},
    tell::change_task,
    validate,
};
use ec2::{InterfaceError, InterfaceRequest};
use runtime::EngineError;
use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};
use store::{DiskFault, Record};
use thiserror::Error as ThisError;
use tokio::task::JoinHandle;
use wire::Principal;
use world::Timestamp;

/// The first and the longest pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So long before its end a task is told that its capacity is taken away.
const NOTICE: Duration = Duration::from_secs(120);
/// How often it is looked whether everything in flight through Service Connect is over.
const LOOK: Duration = Duration::from_millis(100);
/// How long a role's session for a task holds; the SDKs fetch the next one before.
pub(super) const SESSION: Duration = Duration::from_secs(6 * 3600);

/// Why a round did not go through.
#[derive(Debug, ThisError)]
pub(super) enum Trouble {
    /// It never will: the task ends with this code and reason.
    #[error("{1}")]
    Fatal(TaskStopCode, String),
    #[error("the network")]
    Interface(#[from] InterfaceError),
    #[error("the container engine")]
    Engine(#[from] EngineError),
    #[error("a volume")]
    Volume(#[from] ec2::VolumeError),
    #[error("the store")]
    Disk(#[from] DiskFault),
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Get everything that it needs, and create its shim.
    Launch,
    /// Its shim is there: see that it runs, and follow it to its end.
    Follow,
    /// Take away what is left of it.
    Clean,
}

/// Pure: from where a task is, and whether the engine knows it.
fn plan(status: LastStatus, stopping: bool, in_engine: bool) -> Step {
    match (in_engine, stopping, status) {
        (true, _, LastStatus::Deprovisioning) => Step::Clean,
        (true, ..) => Step::Follow,
        (false, false, LastStatus::Provisioning | LastStatus::Pending) => Step::Launch,
        (false, ..) => Step::Clean,
    }
}

/// Drives the task under `key` until it is over.
pub(super) async fn drive(ecs: &Arc<Ecs>, key: &str) {
    let mut pause = PAUSE;
    loop {
        let Some(task) = ecs.store.read().get::<Task>(key) else { return };
        if task.last_status == LastStatus::Stopped {
            return;
        }
        let step = plan(task.last_status, task.stopping, ecs.engine.task(&task.id).is_some());
        tracing::debug!(task = task.id, status = task.last_status.as_str(), ?step, "a round");
        let result = match step {
            Step::Launch => launch(ecs, &task).await,
            Step::Follow => follow(ecs, &task).await,
            Step::Clean => clean(ecs, &task).await,
        };
        let result = match result {
            Err(Trouble::Fatal(code, reason)) => {
                let now = ecs.world.now();
                change(ecs, key, move |task| task.stop(code, &reason, now)).await
            }
            other => other,
        };
        match result {
            Ok(()) => pause = PAUSE,
            Err(error) => {
                tracing::warn!(
                    task = task.id,
                    ?step,
                    error = chain(&error),
                    "a step failed; it is tried again"
                );
                ecs.world.sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Changes the task's record.
pub(super) async fn change(
    ecs: &Ecs,
    key: &str,
    change: impl FnOnce(&mut Task),
) -> Result<(), Trouble> {
    ecs.store
        .write(|tx| {
            change_task(tx, &ecs.world, key, change);
            Ok::<_, DiskFault>(())
        })
        .await
        .map_err(Trouble::from)
}

pub(super) fn failed(reason: impl Into<String>) -> Trouble {
    Trouble::Fatal(TaskStopCode::TaskFailedToStart, reason.into())
}

async fn launch(ecs: &Arc<Ecs>, task: &Task) -> Result<(), Trouble> {
    let definition = definition(ecs, task)?;
    let containers = definition.document.container_definitions.clone().unwrap_or_default();
    let interface = interface(ecs, task).await?;
    let started = ecs.world.now();
    change(ecs, &task.key(), |task| {
        task.interface = model::Interface {
            attachment_id: task.interface.attachment_id.clone(),
            eni: Some(interface.id.clone()),
            subnet: Some(interface.subnet.clone()),
            mac: Some(interface.mac.clone()),
            private_ip: Some(interface.ip.to_string()),
            public_ip: interface.public_ip.map(|ip| ip.to_string()),
            deleted: false,
        };
        task.availability_zone = Some(interface.zone.clone());
        task.pull_started_at.get_or_insert(started);
        task.advance(LastStatus::Pending, started);
    })
    .await?;
    let principal = execution_role(ecs, task, &definition)?;
    reach::check(ecs, task, &containers, &interface).await?;
    let images = pull::all(ecs, task, &containers, principal.as_ref()).await?;
    let secrets = environment::secrets(ecs, task, &containers, principal.as_ref()).await?;
    let files = environment::files(ecs, task, &containers, principal.as_ref()).await?;
    let volumes = volumes::all(ecs, task, &definition, &interface).await?;
    // A stream that cannot be opened must fail the task before its first container runs.
    output::open(ecs, task, &containers, principal.as_ref(), None).await.map_err(failed)?;
    let pulled = ecs.world.now();
    let key = task.key();
    change(ecs, &key, |task| {
        task.pull_stopped_at = Some(pulled);
        for container in &mut task.containers {
            let image = images.get(&container.name);
            container.image_digest = image.map(|image| image.digest.to_string());
            let index_digest = image.and_then(|image| image.index_digest.as_ref());
            if let Some(index_digest) = index_digest {
                container.image_digest = Some(index_digest.to_string());
            }
            container.runtime_id = Some(format!("{}-{}", task.id, short(&container.id)));
        }
        task.advance(LastStatus::Activating, pulled);
    })
    .await?;
    let Some(task) = ecs.store.read().get::<Task>(&key) else { return Ok(()) };
    let own = endpoints::environment(&task, &definition);
    let parts = spec::Parts {
        task: &task,
        definition: &definition,
        images: &images,
        secrets: &secrets,
        files: &files,
        environment: &own,
        metadata_uri: endpoints::metadata_uri,
        volumes: &volumes,
        log_mode: &default_log_mode(ecs, &task),
        most_files: most_files(),
    };
    let spec = spec::task_spec(&parts).map_err(failed)?;
    let has_volumes = !spec.volumes.is_empty();
    match ecs.engine.create(spec).await {
        Ok(_) => follow(ecs, &task).await,
        // What could not be mounted once cannot be mounted again.
        Err(EngineError::Shim(_, message)) if has_volumes => {
            Err(failed(format!("ResourceInitializationError: {message}")))
        }
        Err(EngineError::Spec(error)) => {
            Err(failed(format!("CannotCreateContainerError: {error}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Our own limit bounds those of containers: raising it takes a power that not every host gives its root.
fn most_files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard)
}

fn short(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

/// What `defaultLogDriverMode` says for the account.
fn default_log_mode(ecs: &Ecs, task: &Task) -> String {
    let (account, _) = task.realm.split_once('/').unwrap_or_default();
    let root = format!("arn:aws:iam::{account}:root");
    let name = SettingName::DefaultLogDriverMode.as_str();
    let key = model::AccountSetting::key_of(&task.realm, &root, name);
    let setting = ecs.store.read().get::<model::AccountSetting>(&key);
    setting.map_or_else(|| "non-blocking".to_owned(), |setting| setting.value.clone())
}

fn definition(ecs: &Ecs, task: &Task) -> Result<Arc<TaskDefinition>, Trouble> {
    ecs.definition_of(task).ok_or_else(|| failed("The task definition was deleted."))
}

/// The task's interface: the one on record, or a new one.
async fn interface(ecs: &Ecs, task: &Task) -> Result<Arc<ec2::model::NetworkInterface>, Trouble> {
    let known = task.interface.eni.as_ref();
    if let Some(interface) = known.and_then(|id| ecs.ec2.interface(&task.realm, id)) {
        return Ok(interface);
    }
    let awsvpc = task.network.awsvpc_configuration.clone();
    let Some(awsvpc) = awsvpc else { return Err(failed("The task has no network configuration.")) };
    let request = InterfaceRequest {
        realm: task.realm.clone(),
        subnets: awsvpc.subnets,
        groups: awsvpc.security_groups.unwrap_or_default(),
        public: awsvpc.assign_public_ip == Some(crate::api::AssignPublicIp::Enabled),
        description: task.arn().replacen(":task/", ":attachment/", 1),
    };
    match ecs.ec2.create_interface(request).await {
        Ok(interface) => Ok(Arc::new(interface)),
        Err(
            error @ (InterfaceError::NoSubnet(_)
            | InterfaceError::NoGroup(_)
            | InterfaceError::Full
            | InterfaceError::NoPublicAddress),
        ) => Err(failed(format!(
            "Unexpected EC2 error while attempting to Create Network Interface: {error}"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// The principal that images, secrets and log streams are fetched as: the execution role's session.
fn execution_role(
    ecs: &Ecs,
    task: &Task,
    definition: &TaskDefinition,
) -> Result<Option<Principal>, Trouble> {
    let role = task.overrides.execution_role_arn.as_ref();
    let Some(role) = role.or(definition.document.execution_role_arn.as_ref()) else {
        return Ok(None);
    };
    let session = ecs.iam.assume_for_service(role, task.principal(), &task.id, SESSION);
    let session = session.map_err(|_| {
        failed(format!(
            "ECS was unable to assume the role '{role}' that was provided for this task. Please verify that the role \
             being passed has the proper trust relationship and permissions and that your IAM user has permissions \
             to pass this role."
        ))
    })?;
    Ok(Some(session.principal))
}

/// A listener that ends with whoever holds this.
struct Listening(Option<JoinHandle<()>>);

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(listener) = &self.0 {
            listener.abort();
        }
    }
}

/// A sandbox's API on its own loopback address; none for other tasks.
async fn loopback(ecs: &Arc<Ecs>, task: &Task, vpc: &str, netns: Option<&Path>) -> Listening {
    let Some(netns) = netns.filter(|_| task.sandbox.is_some()) else { return Listening(None) };
    let listener = endpoints::serve_loopback(ecs, task, vpc, netns).await;
    // What runs in there may have taken the port.
    Listening(listener.unwrap_or_else(|error| {
        tracing::warn!(task = task.id, error = chain(&error), "no API on its loopback");
        None
    }))
}

/// What brings the task's output to its streams, at work.
async fn shipper(
    ecs: &Arc<Ecs>,
    task: &Task,
    containers: &[ContainerDefinition],
    principal: Option<&Principal>,
    running: &runtime::Task,
) -> Option<JoinHandle<()>> {
    match output::open(ecs, task, containers, principal, Some(running)).await {
        Ok(sinks) => {
            let (shipping, source) = (ecs.clone(), running.clone());
            let hidden = output::hidden(task, running);
            let ship = async move { output::ship(&shipping, &source, &sinks, &hidden).await };
            Some(ecs.world.spawn("output", ship))
        }
        // The group may have been deleted meanwhile. The task is not to blame; its output stays in the spool.
        Err(reason) => {
            tracing::warn!(task = task.id, reason, "a task's log stream cannot be opened");
            None
        }
    }
}

/// Sees that the task runs, and puts what happens into its record until its shim is done.
async fn follow(ecs: &Arc<Ecs>, task: &Task) -> Result<(), Trouble> {
    let key = task.key();
    let Some(running) = ecs.engine.task(&task.id) else { return Ok(()) };
    let definition = definition(ecs, task)?;
    let containers = definition.document.container_definitions.clone().unwrap_or_default();
    let interface = interface(ecs, task).await?;
    ecs.ec2.ensure_network(&task.realm, &interface.vpc).await?;
    endpoints::serve(ecs, &task.realm, &interface.vpc).await.map_err(InterfaceError::from)?;
    let netns = running.netns();
    let _loopback = loopback(ecs, task, &interface.vpc, netns.as_deref()).await;
    if task.last_status < LastStatus::Running
        && !task.stopping
        && let Some(netns) = &netns
    {
        ecs.ec2.attach_interface(&interface, netns).await?;
        connect::divert(ecs, task, netns).await?;
        if let Some(configuration) = &definition.document.proxy_configuration {
            let proxy = validate::proxy(configuration).map_err(|fault| failed(fault.message))?;
            let network = ecs.ec2.network();
            network.intercept(netns, &proxy).await.map_err(InterfaceError::from)?;
        }
        connect::ready(ecs, task).await;
        running.start().await?;
    }
    let principal = execution_role(ecs, task, &definition).ok().flatten();
    let shipper = shipper(ecs, task, &containers, principal.as_ref(), &running).await;
    let essential = |name: &str| {
        let definition = containers.iter().find(|c| c.name.as_deref() == Some(name));
        definition.is_some_and(|definition| definition.essential.unwrap_or(true))
    };
    let mut watch = ecs.store.watch_tables(&[Task::TABLE, elbv2::model::Target::TABLE]);
    let mut events = running.events(task.journal_seq + 1);
    let (mut asked, mut interrupted) = (false, None);
    loop {
        let record = ecs.store.read().get::<Task>(&key);
        let record = record.filter(|record| record.stopping && !asked);
        let leaving = record.as_ref().is_some_and(|record| record.connect.is_some());
        if let Some(record) = record
            && (has_left(ecs, &record).await? || is_interrupted(&record))
        {
            asked = true;
            interrupted = record.stopping_at.filter(|_| is_interrupted(&record));
            // The shim may be ending by itself; then its journal says so.
            if let Err(error) =
                running.stop(record.stopped_reason.clone().unwrap_or_default()).await
            {
                tracing::debug!(task = task.id, error = chain(&error), "not asked to stop");
            }
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    change(ecs, &key, |task| events::apply(task, &event, essential)).await?;
                }
                Some(Err(error)) => {
                    tracing::error!(task = task.id, error = chain(&error), "a damaged journal");
                    running.kill("the task's journal is damaged").await?;
                    break;
                }
                None => break,
            },
            () = watch.changed(), if !asked => {}
            () = ecs.world.sleep(LOOK), if leaving => {}
            () = ecs.world.sleep(notice_left(ecs, &interrupted)), if interrupted.is_some() => {
                running.kill("the capacity of the interrupted task is taken away").await?;
                break;
            }
        }
    }
    if let Some(shipper) = shipper
        && let Err(error) = shipper.await
    {
        tracing::error!(task = task.id, %error, "the shipper of a task's output ended badly");
    }
    clean(ecs, task).await
}

/// Whether a task that is to stop is out of Cloud Map and of its target groups, with nothing in flight to it.
async fn has_left(ecs: &Ecs, task: &Task) -> Result<bool, Trouble> {
    registries::leave(ecs, task).await?;
    if connect::is_busy(ecs, task) {
        return Ok(false);
    }
    let targets = targets::addresses(task);
    let there = |(group, ip, port): &(String, Ipv4Addr, u16)| {
        let key = elbv2::model::Target::key_of(&task.realm, group, *ip, *port);
        ecs.store.read().get::<elbv2::model::Target>(&key).is_some()
    };
    if !targets.iter().any(there) {
        return Ok(true);
    }
    ecs.elb.deregister(&task.realm, targets.clone()).await?;
    let now = ecs.world.now();
    change(ecs, &task.key(), |task| task.advance(LastStatus::Deactivating, now)).await?;
    Ok(!targets.iter().any(there))
}

/// How long a task whose capacity was taken away, at a time, may go on.
fn notice_left(ecs: &Ecs, interrupted: &Option<Timestamp>) -> Duration {
    let over = interrupted.map(|at| at + NOTICE).filter(|over| *over > ecs.world.now());
    over.map_or(Duration::ZERO, |over| over.since(ecs.world.now()))
}

/// Whether its capacity is taken away: its notice is SIGTERM, which waits for nothing.
fn is_interrupted(task: &Task) -> bool {
    task.stop_code == Some(TaskStopCode::SpotInterruption)
}

/// Takes away what is left of a task.
async fn clean(ecs: &Ecs, task: &Task) -> Result<(), Trouble> {
    let key = task.key();
    let now = ecs.world.now();
    change(ecs, &key, |task| {
        // Without a reason, whatever held its containers is gone: the machine was restarted.
        task.stop(TaskStopCode::TerminationNotice, events::RESTARTED, now);
        task.advance(LastStatus::Deprovisioning, now);
    })
    .await?;
    ecs.engine.remove(&task.id).await?;
    volumes::release(ecs, task).await?;
    let record = ecs.store.read().get::<Task>(&key);
    if let Some(record) = &record {
        registries::leave(ecs, record).await?;
        ecs.elb.deregister(&task.realm, targets::addresses(record)).await?;
    }
    let eni = record.as_ref().and_then(|record| record.interface.eni.clone());
    if let Some(eni) = eni {
        ecs.ec2.delete_interface(&task.realm, &eni).await?;
    }
    let now = ecs.world.now();
    change(ecs, &key, |task| {
        task.interface.deleted = true;
        for container in &mut task.containers {
            container.status = model::ContainerStatus::Stopped;
        }
        task.advance(LastStatus::Stopped, now);
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_step() {
        use LastStatus::*;
        assert_eq!(plan(Provisioning, false, false), Step::Launch);
        assert_eq!(plan(Pending, false, false), Step::Launch);
        assert_eq!(plan(Pending, true, false), Step::Clean, "stopped before it had a shim");
        assert_eq!(plan(Activating, false, true), Step::Follow);
        assert_eq!(plan(Running, true, true), Step::Follow, "its shim must be asked to stop");
        assert_eq!(plan(Running, false, false), Step::Clean, "its shim is gone without a trace");
        assert_eq!(plan(Deprovisioning, true, true), Step::Clean);
    }
}

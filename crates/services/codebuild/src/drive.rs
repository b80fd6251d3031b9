//! The reconciler: every build that is not over has someone who carries it from stage to stage. Each stage looks at
//! what is there before it does anything, so that it can be begun again after a crash.

use crate::{
    CodeBuild,
    api::{BuildPhaseType, StatusType},
    cache, check,
    containers::OWNER,
    hear::{Hearing, apply, lost},
    log,
    model::{Build, Project, Stage},
    ops::{assume, build::most_at_once},
    phases::{self, Why},
    sandbox, script, source, tell, upload,
};
use ecs::{SandboxRequest, SandboxState};
use std::{
    collections::HashSet,
    future::Future,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{DiskFault, Record, Tx};
use wire::Principal;
use world::Timestamp;

/// How often it is looked how far a container is: what it tells lies in a file within it.
const LOOK: Duration = Duration::from_millis(50);
/// The longest wait between two looks at everything else.
const ROUND: Duration = Duration::from_secs(10);
/// The wait after a disk that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the record of a build is kept, as on AWS.
const KEEP: Duration = Duration::from_secs(365 * 24 * 3600);
/// So many containers of a build may be lost before they began: what kills them is not chance then.
const MOST_LOST: u32 = 5;

/// That somebody carries a build, as long as they do: whoever panics leaves it to the next.
struct Carried(Arc<Mutex<HashSet<String>>>, String);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.lock().expect("nothing panics with the lock held").remove(&self.1);
    }
}

pub(crate) async fn drive(service: Arc<CodeBuild>) {
    let mut watch = service.store.watch::<Build>();
    let carried = Arc::new(Mutex::new(HashSet::<String>::new()));
    loop {
        let now = service.world.now();
        let mut old = Vec::new();
        for build in service.store.read().scan::<Build>() {
            let key = build.key();
            if build.stage == Stage::Clean {
                let ended = build.document.end_time.unwrap_or(now);
                old.extend((now > ended && now.since(ended) > KEEP).then_some(key));
                continue;
            }
            let mut busy = carried.lock().expect("nothing panics with the lock held");
            if !busy.insert(key.clone()) {
                continue;
            }
            let (service, held) = (service.clone(), Carried(carried.clone(), key));
            service.world.clone().spawn("a build", async move { carry(&service, &held.1).await });
        }
        if !old.is_empty() {
            let swept = service.store.write(move |tx| {
                for key in old {
                    tx.delete::<Build>(&key);
                }
                Ok::<_, DiskFault>(())
            });
            if let Err(error) = swept.await {
                tracing::warn!(%error, "old builds could not be removed; the next round tries again");
            }
        }
        tokio::select! {
            () = service.world.sleep(ROUND) => {}
            () = watch.changed() => {}
        }
    }
}

async fn carry(service: &Arc<CodeBuild>, key: &str) {
    loop {
        let Some(build) = service.store.read().get::<Build>(key) else { return };
        let step = match build.stage {
            Stage::Clean => return,
            Stage::Over => clean(service, &build).await,
            _ => open(service, &build).await,
        };
        if let Err(error) = step {
            tracing::warn!(build = build.name(), %error, "a build's step could not be taken; it is tried again");
            service.world.sleep(PAUSE).await;
        }
    }
}

/// Takes the next step of a build that is not over, unless it is to end before.
async fn open(service: &Arc<CodeBuild>, build: &Arc<Build>) -> Result<(), Trouble> {
    if let Some((status, why)) = ended(service, build) {
        return end(service, build, status, why).await;
    }
    match build.stage {
        Stage::Queued => queued(service, build).await,
        Stage::Provisioning => until_ended(service, build, provision(service, build)).await,
        Stage::Source => until_ended(service, build, fetch(service, build)).await,
        Stage::Run => run(service, build).await,
        Stage::Upload => until_ended(service, build, keep(service, build)).await,
        Stage::Over | Stage::Clean => Ok(()),
    }
}

/// What cannot be done now, and is tried again.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the store")]
    Disk(#[from] DiskFault),
    #[error("a build's files")]
    Files(#[from] io::Error),
}

fn minutes(service: &CodeBuild, minutes: Option<i32>, otherwise: i32) -> Duration {
    let minutes = minutes.unwrap_or(otherwise).unsigned_abs();
    service.world.scaled(Duration::from_secs(u64::from(minutes) * 60))
}

/// Whether a build is to end now that nothing of its own has ended.
fn ended(service: &CodeBuild, build: &Build) -> Option<(StatusType, Option<Why>)> {
    if build.stop {
        return Some((StatusType::Stopped, None));
    }
    let past = |since: Option<Timestamp>, limit: Duration| {
        let now = service.world.now();
        since.is_some_and(|since| now > since && now.since(since) >= limit)
    };
    let document = &build.document;
    let (waits, takes) = (document.queued_timeout_in_minutes, document.timeout_in_minutes);
    let late = match build.begun {
        None => past(document.start_time, minutes(service, waits, 480)),
        Some(begun) => past(Some(begun), minutes(service, takes, 60)),
    };
    late.then(|| (StatusType::TimedOut, Some(Why::new("BUILD_TIMED_OUT", "Build has timed out."))))
}

/// Does a step's work unless the build is to end meanwhile; then the work is dropped.
async fn until_ended(
    service: &Arc<CodeBuild>,
    build: &Arc<Build>,
    work: impl Future<Output = Result<(), Trouble>>,
) -> Result<(), Trouble> {
    let key = build.key();
    let over = async {
        let mut watch = service.store.watch::<Build>();
        loop {
            let now = service.store.read().get::<Build>(&key);
            if now.is_none_or(|now| ended(service, &now).is_some()) {
                return;
            }
            tokio::select! {
                () = service.world.sleep(PAUSE) => {}
                () = watch.changed() => {}
            }
        }
    };
    tokio::select! {
        done = work => done,
        () = over => Ok(()),
    }
}

/// Changes a build that is still in `stage`.
async fn change(
    service: &CodeBuild,
    build: &Build,
    change: impl FnOnce(&mut Build, Timestamp),
) -> Result<(), Trouble> {
    let (key, stage, world) = (build.key(), build.stage, service.world.clone());
    service
        .store
        .write(move |tx| {
            if let Some(found) = tx.get::<Build>(&key).filter(|found| found.stage == stage) {
                let mut build = Build::clone(&found);
                change(&mut build, world.now());
                tell::put(tx, &world, build);
            }
            Ok::<_, DiskFault>(())
        })
        .await
        .map_err(Trouble::from)
}

/// Ends a build, and its container with it.
async fn end(
    service: &Arc<CodeBuild>,
    build: &Build,
    status: StatusType,
    why: Option<Why>,
) -> Result<(), Trouble> {
    let (key, containers) = (build.key(), service.containers.clone());
    let (realm, id, world) = (build.realm.clone(), build.sandbox(), service.world.clone());
    service
        .store
        .write(move |tx| {
            if let Some(found) = tx.get::<Build>(&key).filter(|found| found.is_open()) {
                let mut build = Build::clone(&found);
                phases::end(&mut build, status, why, world.now());
                tell::put(tx, &world, build);
            }
            containers.stop(tx, &realm, &id);
            Ok::<_, DiskFault>(())
        })
        .await
        .map_err(Trouble::from)
}

/// Ends a build whose phase failed without its container's having a say, and logs why.
async fn fail(service: &Arc<CodeBuild>, build: &Build, why: Why) -> Result<(), Trouble> {
    let role = build.document.service_role.as_deref().unwrap_or_default();
    if let Ok(principal) = assume(service, role, &session(build)) {
        let phase = build.document.current_phase.as_deref().unwrap_or_default();
        let lines = [
            format!("Phase complete: {phase} State: FAILED"),
            format!("Phase context status code: {} Message: {}", why.code, why.message),
        ];
        log::write(service, build, &principal, "end", &lines).await;
    }
    end(service, build, StatusType::Failed, Some(why)).await
}

/// The name of a build's session of its role.
fn session(build: &Build) -> String {
    format!("AWSCodeBuild-{}", build.id)
}

/// The build's role, taken on; or the build has ended.
async fn role(service: &Arc<CodeBuild>, build: &Build) -> Result<Option<Principal>, Trouble> {
    let role = build.document.service_role.clone().unwrap_or_default();
    match assume(service, &role, &session(build)) {
        Ok(principal) => Ok(Some(principal)),
        Err(error) => {
            let message = format!(
                "CodeBuild is not authorized to perform: sts:AssumeRole on service role {role}: {error}"
            );
            end(service, build, StatusType::Failed, Some(Why::new("ACCESS_DENIED", message)))
                .await?;
            Ok(None)
        }
    }
}

/// Takes its turn when there is one, in the order in which builds were asked for.
async fn queued(service: &Arc<CodeBuild>, build: &Build) -> Result<(), Trouble> {
    let mut watch = service.store.watch::<Build>();
    let (key, world) = (build.key(), service.world.clone());
    let begun = service.store.write(move |tx| {
        let Some(found) = tx.get::<Build>(&key).filter(|build| build.stage == Stage::Queued) else {
            return Ok(true);
        };
        let order = |build: &Build| (build.document.start_time, build.id.clone());
        let mut before = 0;
        for other in tx.scan::<Build>() {
            let earlier = other.stage == Stage::Queued && order(&other) < order(&found);
            before += usize::from(other.is_under_way() || earlier);
        }
        if before >= most_at_once() {
            return Ok(false);
        }
        let wants =
            source::privileged(&found) && check::keeps_layers(found.document.cache.as_ref());
        let own = format!("{}/{}/", found.realm, found.project);
        let holder =
            tx.scan_prefix::<Build>(&own).find(|other| other.layers && other.stage != Stage::Clean);
        if wants && holder.as_ref().is_some_and(|holder| holder.stage == Stage::Over) {
            // Its container is about to let go of the disk.
            return Ok(false);
        }
        let taken = holder.is_some();
        let mut build = Build::clone(&found);
        build.layers = wants && !taken;
        build.stage = Stage::Provisioning;
        build.begun = Some(world.now());
        phases::next(&mut build.document, BuildPhaseType::Provisioning, world.now());
        tell::put(tx, &world, build);
        Ok::<_, DiskFault>(true)
    });
    if !begun.await? {
        tokio::select! {
            () = service.world.sleep(ROUND) => {}
            () = watch.changed() => {}
        }
    }
    Ok(())
}

/// The ARN of the secret that the image's registry is logged in to with.
fn registry_credential(build: &Build) -> Option<String> {
    let environment = build.document.environment.as_ref()?;
    let credential = &environment.registry_credential.as_ref()?.credential;
    Some(source::secret_arn(&build.realm, credential))
}

/// Fetches the image.
async fn provision(service: &Arc<CodeBuild>, build: &Arc<Build>) -> Result<(), Trouble> {
    let Some(principal) = role(service, build).await? else { return Ok(()) };
    let environment = build.document.environment.as_ref();
    let image = environment.map(|environment| environment.image.clone()).unwrap_or_default();
    let unable = |why: String| {
        Why::new(
            "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE",
            format!("Unable to pull customer's container image. {why}"),
        )
    };
    if image.parse().is_ok_and(|reference| crate::image::is_curated(&reference)) {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<String>();
        let (logging, of, as_role) = (service.clone(), build.clone(), principal.clone());
        let logged = service.world.spawn("a build's log", async move {
            let mut written = 0;
            while let Some(line) = told.recv().await {
                log::write_from(&logging, &of, &as_role, "image", written, &[line]).await;
                written += 1;
            }
        });
        let made = service.image.ensure(move |line| drop(tell.send(line))).await;
        if let Err(error) = logged.await {
            tracing::warn!(%error, "a build's log ended badly");
        }
        if let Err(error) = made {
            let mut message = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                message = format!("{message}: {source}");
            }
            return fail(service, build, unable(message)).await;
        }
    }
    let credential = registry_credential(build);
    let (realm, credential) = (&build.realm, credential.as_deref());
    let fetched = service.containers.fetch_image(realm, &image, credential, &principal);
    if let Err(why) = fetched.await {
        return fail(service, build, unable(why)).await;
    }
    change(service, build, |build, now| {
        build.stage = Stage::Source;
        phases::next(&mut build.document, BuildPhaseType::DownloadSource, now);
    })
    .await
}

/// Fetches the sources, reads the buildspec, and starts the container.
async fn fetch(service: &Arc<CodeBuild>, build: &Arc<Build>) -> Result<(), Trouble> {
    let Some(principal) = role(service, build).await? else { return Ok(()) };
    let layer = service.build_directory(build).join("layer");
    let prepared = match source::prepare(service, build, &principal, &layer).await {
        Ok(prepared) => prepared,
        Err(why) => return fail(service, build, why).await,
    };
    let document = &build.document;
    let environment = document.environment.as_ref();
    let size = environment.and_then(|environment| sandbox::size(environment.compute_type));
    let Some((environment, size)) = environment.zip(size) else {
        let why = Why::new("CLIENT_ERROR", "the build has no environment that is here");
        return fail(service, build, why).await;
    };
    let privileged = source::privileged(build);
    let disks = match privileged {
        true => {
            let (service, build) = (service.clone(), build.clone());
            let made = tokio::task::spawn_blocking(move || cache::disks(&service, &build));
            made.await.map_err(io::Error::other)??
        }
        false => Vec::new(),
    };
    let vpc = document.vpc_config.as_ref().filter(|vpc| vpc.vpc_id.is_some());
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let request = SandboxRequest {
        realm: build.realm.clone(),
        owner: OWNER,
        id: build.sandbox(),
        role: document.service_role.clone().unwrap_or_default(),
        image: environment.image.clone(),
        registry_credential: registry_credential(build),
        command: vec!["/bin/sh".to_owned(), format!("{}/{}", script::AGENT, script::PROGRAM)],
        environment: prepared.variables,
        secrets: prepared.secrets,
        network: vpc.map(|vpc| (list(&vpc.subnets), list(&vpc.security_group_ids))),
        cpu_units: size.cpu_units,
        memory_mib: size.memory_mib,
        disk_gib: size.disk_gib,
        layers: vec![layer],
        privileged,
        disks,
        log: log::place(build),
        api_port: service.port,
    };
    let (key, world) = (build.key(), service.world.clone());
    let (plan, resolved) = (prepared.plan, prepared.resolved);
    let beside = Box::new(move |tx: &mut Tx| {
        tx.update::<Build>(&key, |build| {
            if build.stage == Stage::Source {
                build.stage = Stage::Run;
                build.plan = plan;
                build.document.resolved_source_version = resolved;
            }
        });
        if let Some(found) = tx.get::<Build>(&key) {
            tell::put(tx, &world, Build::clone(&found));
        }
    });
    service.containers.start(request, beside).await.map_err(Trouble::from)
}

/// Follows the container to the end of its phases.
async fn run(service: &Arc<CodeBuild>, build: &Arc<Build>) -> Result<(), Trouble> {
    let key = build.key();
    let mut hearing = None;
    loop {
        let Some(now) = service.store.read().get::<Build>(&key) else { return Ok(()) };
        if now.stage != Stage::Run {
            return Ok(());
        }
        if let Some((status, why)) = ended(service, &now) {
            return end(service, &now, status, why).await;
        }
        let state = service.containers.state(&now.realm, &now.sandbox());
        if hearing.is_none() && state == Some(SandboxState::Running) {
            hearing = Hearing::open(service, &now).await;
        }
        if let Some(hearing) = &mut hearing {
            let lines = hearing.lines()?;
            let fresh: Vec<_> = lines.into_iter().filter(|(n, _)| *n > now.heard).collect();
            if hearing.is_spoilt() {
                let why =
                    format!("the build wrote into {}, by which it is followed", script::AGENT);
                return fail(service, &now, Why::new("CLIENT_ERROR", why)).await;
            }
            let lost = fresh.iter().find_map(|(_, line)| match script::said(line) {
                Some((_, script::Said::Lost(shell))) => Some(shell),
                _ => None,
            });
            if let Some(shell) = lost {
                let why = Why::new("CLIENT_ERROR", format!("the image has no shell {shell}"));
                return fail(service, &now, why).await;
            }
            if !fresh.is_empty() {
                hear(service, &now, fresh).await?;
                continue;
            }
        }
        let again = matches!(state, Some(SandboxState::Over { ran: false, lost: true, .. }));
        if again && now.lost < MOST_LOST {
            // Nothing of it has run: another container is as good.
            return change(service, &now, |build, _| {
                build.lost += 1;
                build.stage = Stage::Source;
            })
            .await;
        }
        if let Some(over @ SandboxState::Over { .. }) = state {
            return fail(service, &now, lost(&now, over)).await;
        }
        if state.is_none() {
            let why = Why::new("INTERNAL_SERVICE_ERROR", "the build's container is gone");
            return fail(service, &now, why).await;
        }
        service.world.sleep(LOOK).await;
    }
}

/// Puts what a container told into the record.
async fn hear(
    service: &Arc<CodeBuild>,
    build: &Build,
    lines: Vec<(usize, String)>,
) -> Result<(), Trouble> {
    change(service, build, move |build, now| {
        for (number, line) in lines {
            build.heard = number;
            let Some((time, said)) = script::said(&line) else { continue };
            // It is the build's own clock; it cannot have happened later than now.
            let at = Timestamp::from_millis(time.clamp(0, now.millis()));
            apply(build, said, at);
        }
    })
    .await
}

/// Keeps what is to be kept, and ends the build.
async fn keep(service: &Arc<CodeBuild>, build: &Arc<Build>) -> Result<(), Trouble> {
    let Some(principal) = role(service, build).await? else { return Ok(()) };
    let state = service.containers.state(&build.realm, &build.sandbox());
    if let Some(over @ SandboxState::Over { .. }) = state {
        return fail(service, build, lost(build, over)).await;
    }
    let kept = match upload::keep(service, build, &principal).await {
        Ok(kept) => kept,
        Err(why) => return fail(service, build, why).await,
    };
    let mut lines = kept.lines;
    lines.push("Phase complete: UPLOAD_ARTIFACTS State: SUCCEEDED".to_owned());
    lines.push("Phase context status code:  Message: ".to_owned());
    log::write(service, build, &principal, "artifacts", &lines).await;
    let (key, world) = (build.key(), service.world.clone());
    let containers = service.containers.clone();
    let (realm, id) = (build.realm.clone(), build.sandbox());
    service
        .store
        .write(move |tx| {
            let Some(found) = tx.get::<Build>(&key).filter(|found| found.stage == Stage::Upload)
            else {
                return Ok(());
            };
            let mut build = Build::clone(&found);
            let document = &mut build.document;
            document.exported_environment_variables = Some(kept.exported);
            document.report_arns = Some(kept.reports);
            document.artifacts = kept.artifacts;
            document.secondary_artifacts = Some(kept.secondary);
            let status = if build.succeeded { StatusType::Succeeded } else { StatusType::Failed };
            phases::leave(&mut build.document, StatusType::Succeeded, None, world.now());
            phases::end(&mut build, status, None, world.now());
            tell::put(tx, &world, build);
            containers.stop(tx, &realm, &id);
            Ok::<_, DiskFault>(())
        })
        .await
        .map_err(Trouble::from)
}

/// Waits for the end of a build's container, and removes its files.
async fn clean(service: &Arc<CodeBuild>, build: &Build) -> Result<(), Trouble> {
    let mut watch = service.store.watch_tables(&[service.containers.table()]);
    loop {
        let state = service.containers.state(&build.realm, &build.sandbox());
        if matches!(state, None | Some(SandboxState::Over { .. })) {
            break;
        }
        tokio::select! {
            () = service.world.sleep(ROUND) => {}
            () = watch.changed() => {}
        }
    }
    let directory = service.build_directory(build);
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
    match removed.map_err(io::Error::other).flatten() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (key, project) = (build.key(), Project::key_of(&build.realm, &build.project));
    service
        .store
        .write(move |tx| {
            match tx.get::<Project>(&project).is_some() {
                true => tx.update::<Build>(&key, |build| build.stage = Stage::Clean),
                // It was deleted meanwhile, and its builds with it.
                false => tx.delete::<Build>(&key),
            };
            Ok::<_, DiskFault>(())
        })
        .await
        .map_err(Trouble::from)
}

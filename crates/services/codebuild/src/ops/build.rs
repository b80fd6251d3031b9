//! Builds.

use super::{Asked, check_role, find, find_build, project_arn, project_name};
use crate::{
    CodeBuild,
    api::{Build as Document, *},
    check, faults,
    model::{Build, Plan, Project, Stage},
    phases, tell,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Record, Tx};
use wire::{Context, Fault, PrincipalKind};
use world::Timestamp;

/// So many times as many as run at once may wait, as on AWS.
const MOST_WAITING: usize = 5;
/// How long a token stands for the build that it began.
const TOKEN_LIFE: Duration = Duration::from_secs(5 * 60);
/// The most builds that can be asked for at once.
const MOST_ASKED: usize = 100;
/// How a pipeline's token begins: its name follows, which is who began the build.
const PIPELINE: &str = "codepipeline/";

/// How many builds run at once: one for each of this machine's CPUs, two at least. More wait.
pub(crate) fn most_at_once() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    cpus.max(2)
}

/// Who began a build, as AWS writes it.
fn initiator(ctx: &Context, token: Option<&str>, source: SourceType) -> String {
    if source == SourceType::Codepipeline
        && let Some(pipeline) = token.and_then(|token| token.strip_prefix(PIPELINE))
    {
        let name = pipeline.split('/').next().unwrap_or_default();
        return format!("{PIPELINE}{name}");
    }
    match &ctx.principal.kind {
        PrincipalKind::Root => "root".to_owned(),
        PrincipalKind::User { name } => name.clone(),
        PrincipalKind::AssumedRole { role, session } => format!("{role}/{session}"),
        PrincipalKind::Service { name } => (*name).to_owned(),
    }
}

/// Variables, with those of a build over its project's.
fn variables(
    own: Option<Vec<EnvironmentVariable>>,
    given: Option<Vec<EnvironmentVariable>>,
) -> Option<Vec<EnvironmentVariable>> {
    let mut all: Vec<EnvironmentVariable> = own.unwrap_or_default();
    for variable in given.unwrap_or_default() {
        match all.iter_mut().find(|known| known.name == variable.name) {
            Some(known) => *known = variable,
            None => all.push(variable),
        }
    }
    Some(all)
}

/// The project as this build is to have it.
fn given(mut project: crate::api::Project, input: &StartBuildInput) -> crate::api::Project {
    fn set<T: Clone>(place: &mut Option<T>, given: &Option<T>) {
        if given.is_some() {
            place.clone_from(given);
        }
    }
    if let Some(source) = &mut project.source {
        if let Some(kind) = input.source_type_override {
            source.r#type = kind;
        }
        set(&mut source.location, &input.source_location_override);
        set(&mut source.git_clone_depth, &input.git_clone_depth_override);
        set(&mut source.git_submodules_config, &input.git_submodules_config_override);
        set(&mut source.buildspec, &input.buildspec_override);
        set(&mut source.insecure_ssl, &input.insecure_ssl_override);
    }
    set(&mut project.secondary_sources, &input.secondary_sources_override);
    set(&mut project.secondary_source_versions, &input.secondary_sources_version_override);
    set(&mut project.source_version, &input.source_version);
    set(&mut project.artifacts, &input.artifacts_override);
    set(&mut project.secondary_artifacts, &input.secondary_artifacts_override);
    set(&mut project.cache, &input.cache_override);
    set(&mut project.service_role, &input.service_role_override);
    set(&mut project.timeout_in_minutes, &input.timeout_in_minutes_override);
    set(&mut project.queued_timeout_in_minutes, &input.queued_timeout_in_minutes_override);
    set(&mut project.encryption_key, &input.encryption_key_override);
    set(&mut project.logs_config, &input.logs_config_override);
    if let Some(environment) = &mut project.environment {
        if let Some(kind) = input.environment_type_override {
            environment.r#type = kind;
        }
        if let Some(image) = &input.image_override {
            environment.image.clone_from(image);
        }
        if let Some(compute) = input.compute_type_override {
            environment.compute_type = compute;
        }
        set(&mut environment.privileged_mode, &input.privileged_mode_override);
        set(&mut environment.registry_credential, &input.registry_credential_override);
        let pull = &input.image_pull_credentials_type_override;
        set(&mut environment.image_pull_credentials_type, pull);
        let own = environment.environment_variables.take();
        let over = input.environment_variables_override.clone();
        environment.environment_variables = variables(own, over);
    }
    project
}

/// Where a build is logged.
fn logs(project: &crate::api::Project, name: &str, id: &str, region: &str) -> LogsLocation {
    let config = project.logs_config.as_ref().and_then(|logs| logs.cloud_watch_logs.as_ref());
    let mut location = LogsLocation {
        cloud_watch_logs: Some(config.cloned().unwrap_or(CloudWatchLogsConfig {
            status: LogsConfigStatusType::Enabled,
            group_name: None,
            stream_name: None,
        })),
        s3_logs: Some(S3LogsConfig {
            status: LogsConfigStatusType::Disabled,
            location: None,
            encryption_disabled: None,
            bucket_owner_access: None,
        }),
        ..LogsLocation::default()
    };
    if config.is_some_and(|config| config.status == LogsConfigStatusType::Disabled) {
        return location;
    }
    let group = config.and_then(|config| config.group_name.clone());
    let group = group.unwrap_or_else(|| format!("/aws/codebuild/{name}"));
    let stream = match config.and_then(|config| config.stream_name.as_ref()) {
        Some(prefix) => format!("{prefix}/{id}"),
        None => id.to_owned(),
    };
    let account = project.arn.as_deref().and_then(|arn| arn.split(':').nth(4)).unwrap_or_default();
    location.cloud_watch_logs_arn =
        Some(format!("arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:{stream}"));
    location.deep_link = Some(format!(
        "https://console.aws.amazon.com/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{}/log-events/{}",
        group.replace('/', "$252F"),
        stream.replace('/', "$252F"),
    ));
    location.group_name = Some(group);
    location.stream_name = Some(stream);
    location
}

/// How an output is described before it is there.
fn output(artifacts: &ProjectArtifacts) -> BuildArtifacts {
    BuildArtifacts {
        location: Some(String::new()),
        override_artifact_name: artifacts.override_artifact_name,
        encryption_disabled: artifacts.encryption_disabled,
        artifact_identifier: artifacts.artifact_identifier.clone(),
        ..BuildArtifacts::default()
    }
}

/// A build of a project, not numbered yet.
fn build(
    service: &CodeBuild,
    ctx: &Context,
    project: &crate::api::Project,
    token: Option<String>,
) -> Result<Build, Fault> {
    check::project(project)?;
    let name = project.name.clone().unwrap_or_default();
    let (id, now) = (service.world.uuid(), ctx.now);
    let artifacts = project.artifacts.clone().ok_or_else(|| faults::invalid("no artifacts"))?;
    let secondary = project.secondary_artifacts.clone().unwrap_or_default();
    let source = project.source.as_ref().map_or(SourceType::NoSource, |source| source.r#type);
    let document = Document {
        id: Some(format!("{name}:{id}")),
        arn: Some(ctx.arn("codebuild", format!("build/{name}:{id}"))),
        start_time: Some(now),
        build_status: Some(StatusType::InProgress),
        source_version: project.source_version.clone(),
        project_name: Some(name.clone()),
        source: project.source.clone(),
        secondary_sources: project.secondary_sources.clone(),
        secondary_source_versions: project.secondary_source_versions.clone(),
        artifacts: Some(output(&artifacts)),
        secondary_artifacts: Some(secondary.iter().map(output).collect()),
        cache: project.cache.clone(),
        environment: project.environment.clone(),
        service_role: project.service_role.clone(),
        logs: Some(logs(project, &name, &id, &ctx.region)),
        timeout_in_minutes: project.timeout_in_minutes,
        queued_timeout_in_minutes: project.queued_timeout_in_minutes,
        build_complete: Some(false),
        initiator: Some(initiator(ctx, token.as_deref(), source)),
        vpc_config: project.vpc_config.clone(),
        encryption_key: project.encryption_key.clone(),
        ..Document::default()
    };
    let mut build = Build {
        realm: ctx.realm(),
        project: name,
        id,
        document,
        artifacts,
        secondary_artifacts: secondary,
        logs: project.logs_config.clone().unwrap_or_default(),
        stage: Stage::Queued,
        token,
        asked_by: ctx.principal.arn.clone(),
        lost: 0,
        stop: false,
        cache: 0,
        layers: false,
        begun: None,
        plan: Plan::default(),
        heard: 0,
        succeeded: false,
    };
    phases::enter(&mut build.document, BuildPhaseType::Submitted, now);
    phases::next(&mut build.document, BuildPhaseType::Queued, now);
    Ok(build)
}

/// The build that a token began not long ago.
fn known(tx: &Tx, build: &Build, now: Timestamp) -> Option<Arc<Build>> {
    let token = build.token.as_ref()?;
    let mut own = tx.scan_prefix::<Build>(&format!("{}/{}/", build.realm, build.project));
    own.find(|other| {
        let began = other.document.start_time.unwrap_or(now);
        other.token.as_ref() == Some(token)
            && other.asked_by == build.asked_by
            && (now <= began || now.since(began) < TOKEN_LIFE || other.is_open())
    })
}

/// Writes a new build, unless its token began one, or too many wait.
async fn begin(service: &CodeBuild, mut build: Build, now: Timestamp) -> Result<Document, Fault> {
    let world = service.world.clone();
    let most = most_at_once() * MOST_WAITING;
    service
        .store
        .write(move |tx| {
            let key = Project::key_of(&build.realm, &build.project);
            let project =
                tx.get::<Project>(&key).ok_or_else(|| faults::no_project(&build.project))?;
            if let Some(known) = known(tx, &build, now) {
                return Ok(known.document.clone());
            }
            let open = |one: &Arc<Build>| one.is_open();
            let own: Vec<Arc<Build>> =
                tx.scan_prefix::<Build>(&format!("{}/", build.realm)).filter(open).collect();
            if own.iter().filter(|build| build.stage == Stage::Queued).count() >= most {
                return Err(faults::limit(format!(
                    "Cannot have more than {most} builds in queue for the account"
                )));
            }
            let limit = project.document.concurrent_build_limit.map(|limit| limit.max(0) as usize);
            let beside = own.iter().filter(|one| one.project == build.project).count();
            if let Some(limit) = limit.filter(|limit| beside >= *limit) {
                return Err(faults::limit(format!(
                    "Cannot have more than {limit} active builds for the project"
                )));
            }
            build.document.build_number = Some(project.builds + 1);
            build.cache = project.cache;
            tx.update::<Project>(&key, |project| project.builds += 1);
            let document = build.document.clone();
            tell::put(tx, &world, build);
            Ok(document)
        })
        .await
}

pub(crate) async fn start_build(
    service: &CodeBuild,
    ctx: &Context,
    input: StartBuildInput,
) -> Result<StartBuildOutput, Fault> {
    let name = project_name(&input.project_name).to_owned();
    let project = find(service, ctx, &name, "codebuild:StartBuild")?;
    if let Some(role) = &input.service_role_override {
        check_role(service, ctx, role)?;
    }
    let document = given(project.document.clone(), &input);
    let build = build(service, ctx, &document, input.idempotency_token)?;
    Ok(StartBuildOutput { build: Some(begin(service, build, ctx.now).await?) })
}

pub(crate) async fn retry_build(
    service: &CodeBuild,
    ctx: &Context,
    input: RetryBuildInput,
) -> Result<RetryBuildOutput, Fault> {
    let id = input.id.ok_or_else(|| faults::invalid("Build ID is required"))?;
    let found = find_build(service, ctx, &id, "codebuild:RetryBuild")?;
    if found.is_open() {
        return Err(faults::invalid(format!("Build {} is not over", found.name())));
    }
    let arn = project_arn(ctx, &found.project);
    let project =
        service.store.read().get::<Project>(&Project::key_of(&ctx.realm(), &found.project));
    let mut document = project.ok_or_else(|| faults::no_project(&arn))?.document.clone();
    // What it had, and not what its project has now.
    let old = found.document.clone();
    document.source = old.source;
    document.secondary_sources = old.secondary_sources;
    document.secondary_source_versions = old.secondary_source_versions;
    document.source_version = old.resolved_source_version.or(old.source_version);
    document.artifacts = Some(found.artifacts.clone());
    document.secondary_artifacts = Some(found.secondary_artifacts.clone());
    document.cache = old.cache;
    document.environment = old.environment;
    document.service_role = old.service_role;
    document.timeout_in_minutes = old.timeout_in_minutes;
    document.queued_timeout_in_minutes = old.queued_timeout_in_minutes;
    document.vpc_config = old.vpc_config;
    document.encryption_key = old.encryption_key;
    document.logs_config = Some(found.logs.clone());
    let build = build(service, ctx, &document, input.idempotency_token)?;
    Ok(RetryBuildOutput { build: Some(begin(service, build, ctx.now).await?) })
}

pub(crate) async fn stop_build(
    service: &CodeBuild,
    ctx: &Context,
    input: StopBuildInput,
) -> Result<StopBuildOutput, Fault> {
    let found = find_build(service, ctx, &input.id, "codebuild:StopBuild")?;
    let key = found.key();
    let stopped = service.store.write(move |tx| {
        tx.update::<Build>(&key, |build| build.stop |= build.is_open());
        let found = tx.get::<Build>(&key);
        Ok::<_, Fault>(found.map(|build| build.document.clone()))
    });
    Ok(StopBuildOutput { build: stopped.await? })
}

pub(crate) async fn batch_get_builds(
    service: &CodeBuild,
    ctx: &Context,
    input: BatchGetBuildsInput,
) -> Result<BatchGetBuildsOutput, Fault> {
    if input.ids.len() > MOST_ASKED {
        ctx.authorise("codebuild:BatchGetBuilds", &project_arn(ctx, "*"))?;
        return Err(faults::invalid(format!(
            "at most {MOST_ASKED} builds can be asked for at once"
        )));
    }
    let (mut builds, mut missing) = (Vec::new(), Vec::new());
    for given in input.ids {
        match find_build(service, ctx, &given, "codebuild:BatchGetBuilds") {
            Ok(found) => builds.push(found.document.clone()),
            Err(fault) if &*fault.code == "ResourceNotFoundException" => missing.push(given),
            Err(fault) => return Err(fault),
        }
    }
    Ok(BatchGetBuildsOutput { builds: Some(builds), builds_not_found: Some(missing) })
}

fn list(
    service: &CodeBuild,
    prefix: &str,
    listing: &str,
    order: Option<SortOrderType>,
    token: Option<String>,
) -> Result<(Vec<String>, Option<String>), Fault> {
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<Build>(prefix);
    let all = all.map(|build| {
        let began = build.document.start_time.map_or(0, |time| time.millis());
        (format!("{began:020}/{}", build.id), build.name())
    });
    let order = order.or(Some(SortOrderType::Descending));
    let asked = Asked { listing: listing.to_owned(), order, token, most: None };
    asked.page(all.collect())
}

pub(crate) async fn list_builds(
    service: &CodeBuild,
    ctx: &Context,
    input: ListBuildsInput,
) -> Result<ListBuildsOutput, Fault> {
    ctx.authorise("codebuild:ListBuilds", "*")?;
    let prefix = format!("{}/", ctx.realm());
    let (ids, next_token) =
        list(service, &prefix, "ListBuilds", input.sort_order, input.next_token)?;
    Ok(ListBuildsOutput { ids: Some(ids), next_token })
}

pub(crate) async fn list_builds_for_project(
    service: &CodeBuild,
    ctx: &Context,
    input: ListBuildsForProjectInput,
) -> Result<ListBuildsForProjectOutput, Fault> {
    let name = project_name(&input.project_name).to_owned();
    let project = find(service, ctx, &name, "codebuild:ListBuildsForProject")?;
    let prefix = format!("{}/", project.key());
    let (ids, next_token) =
        list(service, &prefix, "ListBuildsForProject", input.sort_order, input.next_token)?;
    Ok(ListBuildsForProjectOutput { ids: Some(ids), next_token })
}

pub(crate) async fn batch_delete_builds(
    service: &CodeBuild,
    ctx: &Context,
    input: BatchDeleteBuildsInput,
) -> Result<BatchDeleteBuildsOutput, Fault> {
    let mut keys = BTreeMap::new();
    let mut kept = Vec::new();
    let not = |id: String, code: &str| BuildNotDeleted {
        id: Some(id),
        status_code: Some(code.to_owned()),
    };
    for given in input.ids {
        match find_build(service, ctx, &given, "codebuild:BatchDeleteBuilds") {
            Ok(found) if found.stage == Stage::Clean => drop(keys.insert(found.key(), given)),
            Ok(_) => kept.push(not(given, "BUILD_IN_PROGRESS")),
            Err(fault) if &*fault.code == "ResourceNotFoundException" => {
                kept.push(not(given, "BUILD_NOT_FOUND"));
            }
            Err(fault) => return Err(fault),
        }
    }
    let gone: Vec<String> = keys.keys().cloned().collect();
    service
        .store
        .write(move |tx| {
            for key in gone {
                tx.delete::<Build>(&key);
            }
            Ok::<_, Fault>(())
        })
        .await?;
    let deleted = keys.into_values().map(|id| match id.starts_with("arn:") {
        true => id,
        false => ctx.arn("codebuild", format!("build/{id}")),
    });
    Ok(BatchDeleteBuildsOutput {
        builds_deleted: Some(deleted.collect()),
        builds_not_deleted: Some(kept),
    })
}

//! Projects.

use super::{Asked, check_role, find, project_arn, project_name};
use crate::{
    CodeBuild,
    api::{Project as Document, *},
    cache, check, faults,
    model::{Build, Project},
};
use std::collections::BTreeMap;
use store::Record;
use wire::{Context, Fault};

/// The most projects of an account in a region.
/// <https://docs.aws.amazon.com/codebuild/latest/userguide/limits.html>
const MOST_PROJECTS: usize = 5000;
/// The most tags of a project, and of a group of reports.
const MOST_TAGS: usize = 50;
/// The most projects that can be asked for at once.
const MOST_ASKED: usize = 100;
/// Minutes that a build may take, and wait, unless its project says otherwise.
const TIMEOUT: i32 = 60;
const QUEUED_TIMEOUT: i32 = 480;

pub(super) fn tags(given: Option<Vec<Tag>>) -> Result<Option<Vec<Tag>>, Fault> {
    let given = given.unwrap_or_default();
    let mut all = BTreeMap::new();
    for tag in given {
        let (Some(key), value) = (tag.key, tag.value.unwrap_or_default()) else {
            return Err(faults::invalid("Tag key must not be null"));
        };
        if key.starts_with("aws:") {
            return Err(faults::invalid("Tag keys must not begin with aws:"));
        }
        if all.insert(key, value).is_some() {
            return Err(faults::invalid("Duplicate tag keys found"));
        }
    }
    if all.len() > MOST_TAGS {
        return Err(faults::invalid(format!("there are at most {MOST_TAGS} tags")));
    }
    let tag = |(key, value)| Tag { key: Some(key), value: Some(value) };
    Ok(Some(all.into_iter().map(tag).collect()))
}

fn badge(enabled: Option<bool>) -> Result<Option<ProjectBadge>, Fault> {
    match enabled {
        Some(true) => Err(faults::invalid("Neargate serves no badges of builds yet")),
        _ => Ok(Some(ProjectBadge { badge_enabled: Some(false), badge_request_url: None })),
    }
}

pub(crate) async fn create_project(
    service: &CodeBuild,
    ctx: &Context,
    input: CreateProjectInput,
) -> Result<CreateProjectOutput, Fault> {
    let name = input.name;
    let arn = project_arn(ctx, &name);
    ctx.authorise("codebuild:CreateProject", &arn)?;
    let document = Document {
        name: Some(name.clone()),
        arn: Some(arn.clone()),
        description: input.description,
        source: Some(input.source),
        secondary_sources: input.secondary_sources,
        source_version: input.source_version,
        secondary_source_versions: input.secondary_source_versions,
        artifacts: Some(input.artifacts),
        secondary_artifacts: input.secondary_artifacts,
        cache: input.cache,
        environment: Some(input.environment),
        service_role: Some(input.service_role.clone()),
        timeout_in_minutes: input.timeout_in_minutes.or(Some(TIMEOUT)),
        queued_timeout_in_minutes: input.queued_timeout_in_minutes.or(Some(QUEUED_TIMEOUT)),
        encryption_key: input.encryption_key,
        tags: tags(input.tags)?,
        created: Some(ctx.now),
        last_modified: Some(ctx.now),
        vpc_config: input.vpc_config,
        badge: badge(input.badge_enabled)?,
        logs_config: input.logs_config,
        concurrent_build_limit: input.concurrent_build_limit,
        ..Document::default()
    };
    check::project(&document)?;
    check_role(service, ctx, &input.service_role)?;
    let record =
        Project { realm: ctx.realm(), name, document: document.clone(), builds: 0, cache: 0 };
    service
        .store
        .write(move |tx| {
            if tx.get::<Project>(&record.key()).is_some() {
                return Err(faults::project_exists(&arn));
            }
            if tx.scan_prefix::<Project>(&format!("{}/", record.realm)).count() >= MOST_PROJECTS {
                return Err(faults::limit(format!(
                    "Cannot have more than {MOST_PROJECTS} projects"
                )));
            }
            tx.put(record);
            Ok(())
        })
        .await?;
    Ok(CreateProjectOutput { project: Some(document) })
}

pub(crate) async fn update_project(
    service: &CodeBuild,
    ctx: &Context,
    input: UpdateProjectInput,
) -> Result<UpdateProjectOutput, Fault> {
    let name = project_name(&input.name).to_owned();
    let found = find(service, ctx, &name, "codebuild:UpdateProject")?;
    if let Some(role) = &input.service_role {
        check_role(service, ctx, role)?;
    }
    let new_tags = input.tags.map(|given| tags(Some(given))).transpose()?.flatten();
    let new_badge = input.badge_enabled.map(|enabled| badge(Some(enabled))).transpose()?.flatten();
    let now = ctx.now;
    let change = move |document: &mut Document| {
        fn set<T>(place: &mut Option<T>, given: Option<T>) {
            if given.is_some() {
                *place = given;
            }
        }
        set(&mut document.description, input.description);
        set(&mut document.source, input.source);
        set(&mut document.secondary_sources, input.secondary_sources);
        set(&mut document.source_version, input.source_version);
        set(&mut document.secondary_source_versions, input.secondary_source_versions);
        set(&mut document.artifacts, input.artifacts);
        set(&mut document.secondary_artifacts, input.secondary_artifacts);
        set(&mut document.cache, input.cache);
        set(&mut document.environment, input.environment);
        set(&mut document.service_role, input.service_role);
        set(&mut document.timeout_in_minutes, input.timeout_in_minutes);
        set(&mut document.queued_timeout_in_minutes, input.queued_timeout_in_minutes);
        set(&mut document.encryption_key, input.encryption_key);
        set(&mut document.tags, new_tags);
        set(&mut document.vpc_config, input.vpc_config);
        set(&mut document.badge, new_badge);
        set(&mut document.logs_config, input.logs_config);
        set(&mut document.concurrent_build_limit, input.concurrent_build_limit);
        document.last_modified = Some(now);
    };
    let (key, arn) = (found.key(), project_arn(ctx, &name));
    let document = service
        .store
        .write(move |tx| {
            let found = tx.get::<Project>(&key).ok_or_else(|| faults::no_project(&arn))?;
            let mut project = Project::clone(&found);
            change(&mut project.document);
            check::project(&project.document)?;
            let document = project.document.clone();
            tx.put(project);
            Ok::<_, Fault>(document)
        })
        .await?;
    Ok(UpdateProjectOutput { project: Some(document) })
}

pub(crate) async fn delete_project(
    service: &CodeBuild,
    ctx: &Context,
    input: DeleteProjectInput,
) -> Result<(), Fault> {
    let name = project_name(&input.name).to_owned();
    ctx.authorise("codebuild:DeleteProject", &project_arn(ctx, &name))?;
    let key = Project::key_of(&ctx.realm(), &name);
    service
        .store
        .write(move |tx| {
            // As on AWS, deleting what is not there is no error; its builds go with it, those under way when they end.
            tx.delete::<Project>(&key);
            let over: Vec<String> = tx
                .scan_prefix::<Build>(&format!("{key}/"))
                .filter(|build| build.stage == crate::model::Stage::Clean)
                .map(|build| build.key())
                .collect();
            for key in over {
                tx.delete::<Build>(&key);
            }
            Ok::<_, Fault>(())
        })
        .await?;
    cache::forget(service, &ctx.realm(), &name);
    Ok(())
}

pub(crate) async fn batch_get_projects(
    service: &CodeBuild,
    ctx: &Context,
    input: BatchGetProjectsInput,
) -> Result<BatchGetProjectsOutput, Fault> {
    if input.names.len() > MOST_ASKED {
        ctx.authorise("codebuild:BatchGetProjects", &project_arn(ctx, "*"))?;
        return Err(faults::invalid(format!(
            "at most {MOST_ASKED} projects can be asked for at once"
        )));
    }
    let (mut projects, mut missing) = (Vec::new(), Vec::new());
    for given in input.names {
        let name = project_name(&given);
        ctx.authorise("codebuild:BatchGetProjects", &project_arn(ctx, name))?;
        let found = service.store.read().get::<Project>(&Project::key_of(&ctx.realm(), name));
        match found {
            Some(found) => projects.push(found.document.clone()),
            None => missing.push(given),
        }
    }
    Ok(BatchGetProjectsOutput { projects: Some(projects), projects_not_found: Some(missing) })
}

pub(crate) async fn list_projects(
    service: &CodeBuild,
    ctx: &Context,
    input: ListProjectsInput,
) -> Result<ListProjectsOutput, Fault> {
    ctx.authorise("codebuild:ListProjects", "*")?;
    let snapshot = service.store.read();
    let by = input.sort_by.unwrap_or(ProjectSortByType::Name);
    let all = snapshot.scan_prefix::<Project>(&format!("{}/", ctx.realm()));
    let all = all.map(|project| {
        let time = |time: Option<world::Timestamp>| {
            format!("{:020}/{}", time.map_or(0, |time| time.millis()), project.name)
        };
        let key = match by {
            ProjectSortByType::Name => project.name.clone(),
            ProjectSortByType::CreatedTime => time(project.document.created),
            ProjectSortByType::LastModifiedTime => time(project.document.last_modified),
        };
        (key, project.name.clone())
    });
    let asked = Asked {
        listing: "ListProjects".to_owned(),
        order: input.sort_order,
        token: input.next_token,
        most: None,
    };
    let (projects, next_token) = asked.page(all.collect())?;
    Ok(ListProjectsOutput { projects: Some(projects), next_token })
}

pub(crate) async fn invalidate_project_cache(
    service: &CodeBuild,
    ctx: &Context,
    input: InvalidateProjectCacheInput,
) -> Result<InvalidateProjectCacheOutput, Fault> {
    let name = project_name(&input.project_name).to_owned();
    let found = find(service, ctx, &name, "codebuild:InvalidateProjectCache")?;
    let key = found.key();
    service
        .store
        .write(move |tx| {
            tx.update::<Project>(&key, |project| project.cache += 1);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(InvalidateProjectCacheOutput {})
}

//! Handlers: authorise, validate, commit, answer.

pub(crate) mod build;
pub(crate) mod image;
pub(crate) mod project;
pub(crate) mod report;
pub(crate) mod report_group;

use crate::{
    CodeBuild,
    api::SortOrderType,
    faults,
    model::{Build, Project},
};
use iam::SessionError;
use std::{sync::Arc, time::Duration};
use wire::{Context, Fault, Principal};

/// The service that roles trust.
pub(crate) const SERVICE: &str = "codebuild.amazonaws.com";
/// How long a role is taken on for, at a time.
const SESSION: Duration = Duration::from_secs(6 * 3600);
/// So many are on a page, as on AWS.
const PAGE: usize = 100;

/// What of a list is asked for.
pub(crate) struct Asked {
    /// Which list it is: tokens are good for one only.
    pub listing: String,
    pub order: Option<SortOrderType>,
    pub token: Option<String>,
    pub most: Option<i32>,
}

impl Asked {
    /// A page of what has these keys, and the next page's token.
    pub(crate) fn page<T>(
        self,
        mut all: Vec<(String, T)>,
    ) -> Result<(Vec<T>, Option<String>), Fault> {
        let descending = self.order == Some(SortOrderType::Descending);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        if descending {
            all.reverse();
        }
        let mark = format!("{}|{descending}|", self.listing);
        let after = self
            .token
            .map(|token| token.strip_prefix(&mark).map(str::to_owned).ok_or_else(faults::token))
            .transpose()?;
        let is_new = |key: &String| {
            after.as_ref().is_none_or(|after| if descending { key < after } else { key > after })
        };
        let most = self.most.map_or(PAGE, |most| most.clamp(1, PAGE as i32) as usize);
        let mut rest = all.into_iter().filter(|(key, _)| is_new(key)).peekable();
        let (mut items, mut last) = (Vec::new(), String::new());
        while items.len() < most
            && let Some((key, item)) = rest.next()
        {
            items.push(item);
            last = key;
        }
        Ok((items, rest.peek().map(|_| format!("{mark}{last}"))))
    }
}

pub(crate) fn project_arn(ctx: &Context, name: &str) -> String {
    ctx.arn("codebuild", format!("project/{name}"))
}

/// The name in a project's name or ARN.
pub(crate) fn project_name(given: &str) -> &str {
    match given.strip_prefix("arn:") {
        Some(_) => given.rsplit_once("project/").map_or(given, |(_, name)| name),
        None => given,
    }
}

/// The project, if the caller may do `action` to it.
pub(crate) fn find(
    service: &CodeBuild,
    ctx: &Context,
    name: &str,
    action: &str,
) -> Result<Arc<Project>, Fault> {
    let arn = project_arn(ctx, name);
    ctx.authorise(action, &arn)?;
    let found = service.store.read().get::<Project>(&Project::key_of(&ctx.realm(), name));
    found.ok_or_else(|| faults::no_project(&arn))
}

/// Project and UUID of a build's id (`PROJECT:UUID`) or ARN.
pub(crate) fn build_id(given: &str) -> Option<(&str, &str)> {
    let id = match given.strip_prefix("arn:") {
        Some(_) => given.rsplit_once(":build/")?.1,
        None => given,
    };
    id.split_once(':').filter(|(project, _)| !project.is_empty() && !project.contains('/'))
}

/// The build, if the caller may do `action` to its project.
pub(crate) fn find_build(
    service: &CodeBuild,
    ctx: &Context,
    given: &str,
    action: &str,
) -> Result<Arc<Build>, Fault> {
    let invalid = || faults::invalid(format!("Invalid build ID: {}", given.escape_debug()));
    let (project, id) = build_id(given).ok_or_else(invalid)?;
    ctx.authorise(action, &project_arn(ctx, project))?;
    let found = service.store.read().get::<Build>(&Build::key_of(&ctx.realm(), project, id));
    found.ok_or_else(|| faults::no_build(&ctx.arn("codebuild", format!("build/{project}:{id}"))))
}

/// A build's session of its role.
pub(crate) fn assume(
    service: &CodeBuild,
    role: &str,
    session: &str,
) -> Result<Principal, SessionError> {
    Ok(service.iam.assume_for_service(role, SERVICE, session, SESSION)?.principal)
}

/// Whether a role can be taken on, in AWS's words for one that cannot.
pub(crate) fn check_role(service: &CodeBuild, ctx: &Context, role: &str) -> Result<(), Fault> {
    let passed = [("iam:PassedToService", SERVICE)];
    ctx.authorise_with("iam:PassRole", role, &passed)?;
    assume(service, role, "check").map(drop).map_err(|_| {
        faults::invalid(format!("CodeBuild is not authorized to perform: sts:AssumeRole on {role}"))
    })
}

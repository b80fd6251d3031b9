//! What can be a target.

use crate::{api::Target, faults, input};
use wire::{Context, Fault};

/// EventBridge's own name in policies, and as a caller of other services (as CloudTrail shows it on AWS).
pub const SERVICE: &str = "events.amazonaws.com";

/// A target, by its ARN.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// Tasks are run on it.
    Cluster { account: &'a str, region: &'a str },
    /// It is run.
    Pipeline { account: &'a str, region: &'a str, name: &'a str },
    /// It is built.
    Project { account: &'a str, region: &'a str, name: &'a str },
    /// Events are published to it.
    Topic { account: &'a str, region: &'a str },
    /// Events are written to it.
    LogGroup { account: &'a str, region: &'a str, name: &'a str },
}

fn malformed(arn: &str) -> String {
    format!("Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.")
}

impl<'a> Kind<'a> {
    pub(crate) fn read(arn: &'a str) -> Result<Self, String> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        match parts[..] {
            ["arn", "aws", "ecs", region, account, resource]
                if resource.starts_with("cluster/") =>
            {
                Ok(Self::Cluster { account, region })
            }
            ["arn", "aws", "codepipeline", region, account, name] => {
                Ok(Self::Pipeline { account, region, name })
            }
            ["arn", "aws", "codebuild", region, account, resource] => {
                let name = resource.strip_prefix("project/").ok_or_else(|| malformed(arn))?;
                Ok(Self::Project { account, region, name })
            }
            ["arn", "aws", "sns", region, account, _] => Ok(Self::Topic { account, region }),
            ["arn", "aws", "logs", region, account, resource] => {
                let name = resource.strip_prefix("log-group:");
                let name = name.map(|name| name.strip_suffix(":*").unwrap_or(name));
                let name = name.ok_or_else(|| malformed(arn))?;
                Ok(Self::LogGroup { account, region, name })
            }
            ["arn", "aws", service, ..] => Err(format!(
                "Neargate has no targets of the service {service} yet: ECS clusters, pipelines, projects of CodeBuild, \
                 topics and log groups only."
            )),
            _ => Err(malformed(arn)),
        }
    }
}

/// Whether this can be a target of a rule in the caller's account and region.
pub(crate) fn check(ctx: &Context, target: &Target) -> Result<(), Fault> {
    let invalid = |message: String| faults::validation(message);
    let kind = Kind::read(&target.arn).map_err(invalid)?;
    let (account, region) = match kind {
        Kind::Cluster { account, region }
        | Kind::Pipeline { account, region, .. }
        | Kind::Project { account, region, .. }
        | Kind::Topic { account, region }
        | Kind::LogGroup { account, region, .. } => (account, region),
    };
    if (account, region) != (ctx.account(), &*ctx.region) {
        return Err(faults::validation(format!(
            "Parameter {} is not valid. Reason: Provided Arn is of another account or region.",
            target.arn
        )));
    }
    let inputs =
        [target.input.is_some(), target.input_path.is_some(), target.input_transformer.is_some()];
    if inputs.into_iter().filter(|given| *given).count() > 1 {
        return Err(faults::validation(format!(
            "Only one of Input, InputPath, or InputTransformer must be provided for target {}.",
            target.id
        )));
    }
    check_input(target)?;
    let is_cluster = matches!(kind, Kind::Cluster { .. });
    if is_cluster != target.ecs_parameters.is_some() {
        let must = if is_cluster { "must be specified" } else { "not valid" };
        return Err(faults::validation(format!(
            "Parameter(s) EcsParameters {must} for target: {}.",
            target.id
        )));
    }
    match kind {
        Kind::Cluster { .. } | Kind::Pipeline { .. } | Kind::Project { .. } => {
            let role = target.role_arn.as_ref().ok_or_else(|| {
                faults::validation(format!("RoleArn is required for target {}.", target.arn))
            })?;
            ctx.authorise_with("iam:PassRole", role, &[("iam:PassedToService", SERVICE)])
        }
        Kind::LogGroup { name, .. } if !name.starts_with("/aws/events/") => {
            Err(faults::validation(format!(
                "Parameter {} is not valid. Reason: a log group's name begins with /aws/events/.",
                target.arn
            )))
        }
        Kind::LogGroup { .. } | Kind::Topic { .. } => Ok(()),
    }
}

fn check_input(target: &Target) -> Result<(), Fault> {
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
    if target.input.as_deref().is_some_and(|text| !json(text)) {
        return Err(faults::validation(format!(
            "JSON syntax error in input for target {}.",
            target.id
        )));
    }
    let paths =
        target.input_transformer.iter().flat_map(|one| one.input_paths_map.iter().flatten());
    let paths = paths.map(|(_, path)| path).chain(&target.input_path);
    for path in paths {
        if !input::is_path(path) {
            return Err(faults::validation(format!(
                "Invalid InputPath for target {}: {path}.",
                target.id
            )));
        }
    }
    if let Some(transformer) = &target.input_transformer {
        let paths = transformer.input_paths_map.as_ref();
        let known = |name: &str| {
            matches!(
                name,
                "aws.events.rule-arn"
                    | "aws.events.rule-name"
                    | "aws.events.event.ingestion-time"
                    | "aws.events.event"
                    | "aws.events.event.json"
            ) || paths.is_some_and(|paths| paths.contains_key(name))
        };
        let names = input::names(&transformer.input_template);
        if let Some(name) = names.into_iter().find(|name| !known(name)) {
            return Err(faults::validation(format!(
                "InputTemplate for target {} contains invalid placeholder {name}.",
                target.id
            )));
        }
    }
    Ok(())
}

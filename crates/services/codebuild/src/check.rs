//! Whether a project, or what a build changes of it, can be carried out here.

use crate::{
    api::{
        ArtifactsType, CacheMode, CacheType, EnvironmentType, EnvironmentVariable, LogsConfig,
        LogsConfigStatusType, Project, ProjectArtifacts, ProjectCache, ProjectEnvironment,
        ProjectSource, SourceType, VpcConfig,
    },
    buildspec,
    faults::invalid,
    sandbox,
};
use wire::Fault;

/// The most variables of a build.
const MOST_VARIABLES: usize = 500;
/// The most sources and artifacts beside the first.
const MOST_SECONDARY: usize = 12;

/// All of a project.
pub(crate) fn project(project: &Project) -> Result<(), Fault> {
    let missing = |what: &str| invalid(format!("Invalid project: {what} is required"));
    let kind = source(project.source.as_ref().ok_or_else(|| missing("source"))?, true)?;
    for other in project.secondary_sources.iter().flatten() {
        source(other, false)?;
        identifier(other.source_identifier.as_deref(), "source")?;
    }
    let output = project.artifacts.as_ref().ok_or_else(|| missing("artifacts"))?;
    let of_pipeline = artifacts(output)? == ArtifactsType::Codepipeline;
    if of_pipeline != (kind == SourceType::Codepipeline) {
        return Err(invalid(
            "Invalid project: source and artifacts are both of the type CODEPIPELINE, or neither is",
        ));
    }
    for other in project.secondary_artifacts.iter().flatten() {
        artifacts(other)?;
        identifier(other.artifact_identifier.as_deref(), "artifact")?;
    }
    let (sources, outputs) = (&project.secondary_sources, &project.secondary_artifacts);
    let many = sources.iter().flatten().count().max(outputs.iter().flatten().count());
    if many > MOST_SECONDARY {
        return Err(invalid(format!(
            "Invalid project: there are at most {MOST_SECONDARY} secondary sources and artifacts"
        )));
    }
    environment(project.environment.as_ref().ok_or_else(|| missing("environment"))?)?;
    project.cache.as_ref().map_or(Ok(()), cache)?;
    project.logs_config.as_ref().map_or(Ok(()), logs)?;
    project.vpc_config.as_ref().map_or(Ok(()), vpc)?;
    if project.concurrent_build_limit.is_some_and(|limit| limit < 1) {
        return Err(invalid("Invalid concurrent build limit: it must be at least 1"));
    }
    Ok(())
}

fn identifier(name: Option<&str>, what: &str) -> Result<(), Fault> {
    match name {
        Some(name) if buildspec::is_variable(name) && name.len() <= 128 => Ok(()),
        _ => Err(invalid(format!(
            "Invalid project: a secondary {what} needs an identifier of letters, digits and underscores"
        ))),
    }
}

fn source(source: &ProjectSource, primary: bool) -> Result<SourceType, Fault> {
    let location = source.location.as_deref().unwrap_or_default();
    let kind = source.r#type;
    let refused = |why: &str| Err(invalid(format!("Invalid project source: {why}")));
    match kind {
        SourceType::NoSource if primary && source.buildspec.is_none() => {
            return refused("a project with source type NO_SOURCE needs a buildspec of its own");
        }
        SourceType::NoSource | SourceType::Codepipeline => {}
        SourceType::Codecommit if repository(location).is_none() => {
            return refused("location must be a valid CodeCommit repository URL");
        }
        SourceType::S3 if object(location).is_none() => {
            return refused("location must be a bucket, a slash, and the key of a ZIP archive");
        }
        SourceType::Codecommit | SourceType::S3 => {}
        _ if !is_git_url(location) => {
            return refused("location must be the URL of a git repository, https:// or http://");
        }
        _ => {}
    }
    if source.git_submodules_config.as_ref().is_some_and(|config| config.fetch_submodules) {
        return refused("Neargate does not fetch submodules yet");
    }
    if source.git_clone_depth.is_some_and(|depth| depth < 0) {
        return refused("the depth of a clone is not negative");
    }
    Ok(kind)
}

fn artifacts(artifacts: &ProjectArtifacts) -> Result<ArtifactsType, Fault> {
    if artifacts.r#type == ArtifactsType::S3
        && artifacts.location.as_deref().is_none_or(str::is_empty)
    {
        return Err(invalid("Invalid artifacts: location must be the name of a bucket"));
    }
    Ok(artifacts.r#type)
}

fn environment(environment: &ProjectEnvironment) -> Result<(), Fault> {
    let refused = |why: String| Err(invalid(format!("Invalid environment: {why}")));
    let own = match std::env::consts::ARCH {
        "aarch64" => EnvironmentType::ArmContainer,
        _ => EnvironmentType::LinuxContainer,
    };
    if environment.r#type != own {
        return refused(format!(
            "on this machine builds are of the type {}, and not {}",
            own.as_str(),
            environment.r#type.as_str(),
        ));
    }
    if sandbox::size(environment.compute_type).is_none() {
        return refused(format!("there is no {} here", environment.compute_type.as_str()));
    }
    if environment.image.parse::<images::Reference>().is_err() {
        return refused(format!("{} is no image's name", environment.image));
    }
    variables(environment.environment_variables.iter().flatten())
}

/// Variables of a project or a build.
pub(crate) fn variables<'a>(
    variables: impl Iterator<Item = &'a EnvironmentVariable>,
) -> Result<(), Fault> {
    for (index, variable) in variables.enumerate() {
        if index >= MOST_VARIABLES {
            return Err(invalid(format!("there are at most {MOST_VARIABLES} variables")));
        }
        if !buildspec::is_variable(&variable.name) {
            return Err(invalid(format!(
                "Invalid environment variable name: {}",
                variable.name.escape_debug()
            )));
        }
        if variable.value.contains('\0') {
            return Err(invalid(format!("The variable {} has a NUL", variable.name)));
        }
    }
    Ok(())
}

fn cache(cache: &ProjectCache) -> Result<(), Fault> {
    match cache.r#type {
        CacheType::S3
            if cache.location.as_deref().is_none_or(|l| bucket_and_prefix(l).is_none()) =>
        {
            Err(invalid("Invalid cache: location must be a bucket's name, and may have a prefix"))
        }
        CacheType::Local if cache.modes.iter().flatten().next().is_none() => {
            Err(invalid("Invalid cache: modes are required for a cache of the type LOCAL"))
        }
        _ => Ok(()),
    }
}

/// Whether a project's builds keep layers of images.
pub(crate) fn keeps_layers(cache: Option<&ProjectCache>) -> bool {
    has_mode(cache, CacheMode::LocalDockerLayerCache)
}

/// Whether a project's builds keep directories here.
pub(crate) fn keeps_directories(cache: Option<&ProjectCache>) -> bool {
    has_mode(cache, CacheMode::LocalCustomCache)
}

fn has_mode(cache: Option<&ProjectCache>, mode: CacheMode) -> bool {
    cache.is_some_and(|cache| {
        cache.r#type == CacheType::Local && cache.modes.iter().flatten().any(|one| *one == mode)
    })
}

fn logs(logs: &LogsConfig) -> Result<(), Fault> {
    let of_s3 = logs.s3_logs.as_ref().map(|logs| logs.status);
    match of_s3 {
        Some(LogsConfigStatusType::Enabled) => {
            Err(invalid("Invalid logs: Neargate does not put the logs of builds to S3 yet"))
        }
        _ => Ok(()),
    }
}

fn vpc(vpc: &VpcConfig) -> Result<(), Fault> {
    let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
    let none = vpc.vpc_id.is_none() && empty(&vpc.subnets) && empty(&vpc.security_group_ids);
    let all = vpc.vpc_id.is_some() && !empty(&vpc.subnets) && !empty(&vpc.security_group_ids);
    match none || all {
        true => Ok(()),
        false => Err(invalid(
            "Invalid vpc config: a VPC id, subnets and security groups are required together",
        )),
    }
}

/// The repository's name in a clone URL, AWS's or ours.
pub(crate) fn repository(location: &str) -> Option<&str> {
    let (scheme, rest) = location.split_once("://")?;
    let (host, name) = rest.split_once("/v1/repos/")?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let ours = matches!(scheme, "https" | "http") && host.contains("git-codecommit.");
    (ours && !name.is_empty() && !name.contains('/')).then_some(name)
}

/// Bucket and key; both are there.
pub(crate) fn object(location: &str) -> Option<(&str, &str)> {
    let location = location.strip_prefix("arn:aws:s3:::").unwrap_or(location);
    location
        .split_once('/')
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty() && !key.ends_with('/'))
}

/// Bucket and prefix, which may be empty and has no slash at its end.
pub(crate) fn bucket_and_prefix(location: &str) -> Option<(&str, &str)> {
    let location = location.strip_prefix("arn:aws:s3:::").unwrap_or(location);
    let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
    (!bucket.is_empty()).then_some((bucket, prefix.trim_end_matches('/')))
}

fn is_git_url(location: &str) -> bool {
    let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        rest.split_once('/').is_some_and(|(host, path)| !host.is_empty() && !path.is_empty())
            && !location.contains(|c: char| c.is_whitespace() || c.is_control())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        for (url, name) in [
            ("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app", Some("app")),
            ("http://git-codecommit.eu-west-1.localhost:4566/v1/repos/app/", Some("app")),
            ("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/", None),
            ("https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/a/b", None),
            ("https://example.com/v1/repos/app", None),
            ("ext::git-codecommit./v1/repos/app", None),
        ] {
            assert_eq!(repository(url), name, "{url}");
        }
        assert_eq!(object("arn:aws:s3:::bucket/a/b.zip"), Some(("bucket", "a/b.zip")));
        assert_eq!((object("bucket"), object("bucket/a/")), (None, None));
        assert_eq!(bucket_and_prefix("bucket/a/"), Some(("bucket", "a")));
        assert_eq!(bucket_and_prefix("bucket"), Some(("bucket", "")));
        assert!(is_git_url("https://github.com/a/b.git"));
        for odd in [
            "git@github.com:a/b",
            "file:///etc",
            "https://host",
            "https:///x",
            "https://h/ x",
            "ext::sh -c x",
        ] {
            assert!(!is_git_url(odd), "{odd}");
        }
    }
}

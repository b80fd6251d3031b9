//! What containers get beside what their definitions say outright: secrets, and files of variables.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/use-environment-file.html>

use super::{
    firelens,
    task::{Trouble, failed},
};
use crate::{
    Ecs,
    api::{ContainerDefinition, EnvironmentFile, Secret},
    model::Task,
    validate::{is_router, is_sender},
};
use std::collections::BTreeMap;
use wire::Principal;

/// Names and values, by container.
pub(super) type ByContainer = BTreeMap<String, Vec<(String, String)>>;

/// The values of the containers' secrets, read as the execution role.
pub(super) async fn secrets(
    ecs: &Ecs,
    task: &Task,
    containers: &[ContainerDefinition],
    principal: Option<&Principal>,
) -> Result<ByContainer, Trouble> {
    let mut all = ByContainer::new();
    for definition in containers {
        let mut values = Vec::new();
        for secret in definition.secrets.iter().flatten() {
            values.push((secret.name.clone(), value(ecs, task, secret, principal).await?));
        }
        all.insert(definition.name.clone().unwrap_or_default(), values);
    }
    // What a container's logs are sent on with is its router's to know.
    let router = containers.iter().find(|container| is_router(container));
    let Some(router) = router.and_then(|router| router.name.as_ref()) else { return Ok(all) };
    for (index, sender) in containers.iter().enumerate().filter(|(_, other)| is_sender(other)) {
        let options = sender.log_configuration.as_ref().and_then(|log| log.secret_options.as_ref());
        for secret in options.into_iter().flatten() {
            let name = firelens::secret_variable(&secret.name, index);
            let value = value(ecs, task, secret, principal).await?;
            all.entry(router.clone()).or_default().push((name, value));
        }
    }
    Ok(all)
}

async fn value(
    ecs: &Ecs,
    task: &Task,
    secret: &Secret,
    principal: Option<&Principal>,
) -> Result<String, Trouble> {
    let principal = principal.ok_or_else(|| {
        failed("Fargate requires task definition to have execution role ARN to support secrets.")
    })?;
    let value = ecs.surroundings().secrets.value(&task.realm, principal, &secret.value_from).await;
    value.map_err(|reason| {
        failed(format!(
            "ResourceInitializationError: unable to pull secrets or registry auth: \
             execution resource retrieval failed: unable to retrieve secret: {reason}"
        ))
    })
}

/// The variables of the containers' files, read as the execution role. A task's overrides take the place of
/// the definition's.
pub(super) async fn files(
    ecs: &Ecs,
    task: &Task,
    containers: &[ContainerDefinition],
    principal: Option<&Principal>,
) -> Result<ByContainer, Trouble> {
    let mut all = ByContainer::new();
    for definition in containers {
        let name = definition.name.clone().unwrap_or_default();
        let mut overrides = task.overrides.container_overrides.iter().flatten();
        let own = overrides.find(|own| own.name.as_ref() == Some(&name));
        let given = own.and_then(|own| own.environment_files.as_ref());
        let wanted = given.or(definition.environment_files.as_ref());
        let mut variables = Vec::new();
        for file in wanted.into_iter().flatten() {
            let text = file_text(ecs, task, file, principal).await?;
            for (name, value) in parse(&text) {
                // Of several files the first that has a variable decides.
                if !variables.iter().any(|(known, _)| *known == name) {
                    variables.push((name, value));
                }
            }
        }
        all.insert(name, variables);
    }
    Ok(all)
}

async fn file_text(
    ecs: &Ecs,
    task: &Task,
    file: &EnvironmentFile,
    principal: Option<&Principal>,
) -> Result<String, Trouble> {
    let principal = principal.ok_or_else(|| {
        failed("Fargate requires task definition to have execution role ARN to support environment files.")
    })?;
    let text = ecs.surroundings().files.text(&task.realm, principal, &file.value).await;
    text.map_err(|reason| {
        failed(format!(
            "ResourceInitializationError: failed to download env files: file download command: non empty error stream: \
             {reason}"
        ))
    })
}

/// `NAME=VALUE` a line; nothing in a value is special. Lines that begin with `#` are comments.
fn parse(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    let named = pairs.filter(|(name, _)| !name.trim().is_empty());
    named.map(|(name, value)| (name.trim().to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn values_are_taken_as_they_are() {
        let text =
            "# a comment\nA=1\n\nB = two words\nC=\"quoted\" # no comment\nD=x=y\nnothing\n=\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [
            pair("A", "1"),
            pair("B", " two words"),
            pair("C", "\"quoted\" # no comment"),
            pair("D", "x=y"),
        ];
        assert_eq!(parse(text), expected);
        assert_eq!(parse("A=1\r\nB=2"), [pair("A", "1"), pair("B", "2")]);
    }
}

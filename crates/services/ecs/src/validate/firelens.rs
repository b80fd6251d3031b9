//! FireLens: which container takes the others' output, and which give it theirs.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/firelens-taskdef.html>

use super::container::client;
use crate::api::*;
use std::collections::BTreeMap;
use wire::Fault;

/// Checks the container that routes logs, and that there is one where a container needs it.
pub(super) fn check(containers: &[ContainerDefinition]) -> Result<(), Fault> {
    let mut routers = containers.iter().filter(|container| is_router(container));
    let router = routers.next();
    if routers.next().is_some() {
        return Err(client(
            "Only one container of a task definition can have a firelensConfiguration.",
        ));
    }
    let Some(router) = router else {
        return match containers.iter().find(|container| is_sender(container)) {
            Some(sender) => Err(client(format!(
                "The container '{}' has the log driver awsfirelens, which requires a container with a \
                 firelensConfiguration.",
                sender.name.as_deref().unwrap_or_default()
            ))),
            None => Ok(()),
        };
    };
    if is_sender(router) {
        return Err(client(
            "The FireLens container cannot have the log driver awsfirelens itself.",
        ));
    }
    check_options(router)?;
    check_order(router, containers)
}

/// Whether the container routes the others' output.
pub(crate) fn is_router(container: &ContainerDefinition) -> bool {
    container.firelens_configuration.is_some()
}

/// Whether the container's output goes through the router.
pub(crate) fn is_sender(container: &ContainerDefinition) -> bool {
    container.log_configuration.as_ref().is_some_and(|log| log.log_driver == LogDriver::Awsfirelens)
}

fn check_options(router: &ContainerDefinition) -> Result<(), Fault> {
    let empty = BTreeMap::new();
    let configuration = router.firelens_configuration.as_ref();
    let options = configuration.and_then(|all| all.options.as_ref()).unwrap_or(&empty);
    for (name, value) in options {
        match (name.as_str(), value.as_str()) {
            ("enable-ecs-log-metadata", "true" | "false") | ("config-file-type", "file") => {}
            ("config-file-value", path) if path.starts_with('/') && !path.contains('\n') => {}
            ("config-file-type", "s3") => {
                return Err(client(
                    "Tasks using the Fargate launch type only support the FireLens option config-file-type 'file'.",
                ));
            }
            ("enable-ecs-log-metadata" | "config-file-type" | "config-file-value", _) => {
                return Err(client(format!("Invalid FireLens option {name}: '{value}'.")));
            }
            _ => return Err(client(format!("FireLens disallows options: {name}."))),
        }
    }
    if options.contains_key("config-file-type") != options.contains_key("config-file-value") {
        return Err(client(
            "The FireLens options config-file-type and config-file-value require each other.",
        ));
    }
    Ok(())
}

/// Senders start after their router, so it cannot wait for one, over however many others.
fn check_order(
    router: &ContainerDefinition,
    containers: &[ContainerDefinition],
) -> Result<(), Fault> {
    let mut waited_for = vec![router];
    let mut next = 0;
    while let Some(container) = waited_for.get(next) {
        next += 1;
        for dependency in container.depends_on.iter().flatten() {
            let on = |other: &&ContainerDefinition| {
                other.name.as_ref() == Some(&dependency.container_name)
            };
            let Some(other) = containers.iter().find(on) else { continue };
            if is_sender(other) {
                return Err(client(format!(
                    "The FireLens container starts before '{}', whose logs it takes, and cannot depend on it.",
                    dependency.container_name
                )));
            }
            if !waited_for.contains(&other) {
                waited_for.push(other);
            }
        }
    }
    Ok(())
}

//! Whether a task's network leads to what is fetched and written on its behalf, with AWS's words for what it does not
//! lead to. The host itself could fetch all of it; on Fargate it goes through the task's interface.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/resource-initialization-error.html>

use super::task::{Trouble, change, failed};
use crate::{Ecs, api::ContainerDefinition, model::Task};
use ec2::{Destination, model::NetworkInterface};
use images::Reference;
use store::Record;

/// Checks all that the containers need before one of them runs.
pub(super) async fn check(
    ecs: &Ecs,
    task: &Task,
    containers: &[ContainerDefinition],
    interface: &NetworkInterface,
) -> Result<(), Trouble> {
    // What another service's work is made of does not come by way of the work's own network.
    if task.sandbox.is_some() {
        return Ok(());
    }
    for definition in containers {
        if let Err(reason) = image(ecs, task, definition, interface) {
            let (name, words) = (definition.name.clone(), reason.clone());
            change(ecs, &task.key(), move |task| {
                let mut all = task.containers.iter_mut();
                if let Some(container) = all.find(|one| name.as_ref() == Some(&one.name)) {
                    container.reason = Some(words);
                }
            })
            .await?;
            return Err(failed(reason));
        }
    }
    containers
        .iter()
        .try_for_each(|definition| rest(ecs, task, definition, interface))
        .map_err(failed)
}

fn region(task: &Task) -> &str {
    task.realm.split_once('/').map_or("", |(_, region)| region)
}

fn image(
    ecs: &Ecs,
    task: &Task,
    definition: &ContainerDefinition,
    interface: &NetworkInterface,
) -> Result<(), String> {
    let name = definition.image.as_deref().unwrap_or_default();
    // What is no name is told where it is pulled.
    let Ok(reference) = name.parse::<Reference>() else { return Ok(()) };
    let reaches = |destination| ecs.ec2.reaches(interface, destination);
    let own = ecs.surroundings().images.is_ecr(&reference);
    let region = region(task);
    if own && !reaches(Destination::Service("ecr.api")) {
        return Err(format!(
            "ResourceInitializationError: unable to pull secrets or registry auth: The task cannot \
             pull registry auth from Amazon ECR: There is a connection issue between the task and \
             Amazon ECR. Check your task network configuration. RequestError: send request failed \
             caused by: Post \"https://api.ecr.{region}.amazonaws.com/\": dial tcp: i/o timeout"
        ));
    }
    let registry = if own { Destination::Service("ecr.dkr") } else { Destination::Outside };
    if !reaches(registry) {
        let host = reference.registry();
        return Err(format!(
            "CannotPullContainerError: The task cannot pull {name} from the registry {host}. There is \
             a connection issue between the task and the registry. Check your task network \
             configuration. : failed to resolve ref {reference}: failed to do request: Head \
             \"https://{host}/v2/{}/manifests/{}\": dial tcp: i/o timeout",
            reference.repository(),
            reference.selector(),
        ));
    }
    if own && !reaches(Destination::Service("s3")) {
        let layers =
            format!("https://prod-{region}-starport-layer-bucket.s3.{region}.amazonaws.com/");
        return Err(format!(
            "CannotPullContainerError: ref pull has been retried 5 time(s): failed to copy: \
             httpReadSeeker: failed open: failed to do request: Get \"{layers}\": dial tcp: i/o \
             timeout"
        ));
    }
    Ok(())
}

fn rest(
    ecs: &Ecs,
    task: &Task,
    definition: &ContainerDefinition,
    interface: &NetworkInterface,
) -> Result<(), String> {
    let reaches = |service| ecs.ec2.reaches(interface, Destination::Service(service));
    let credentials =
        definition.repository_credentials.iter().map(|named| &named.credentials_parameter);
    let secrets = definition.secrets.iter().flatten().map(|secret| &secret.value_from);
    for source in secrets.chain(credentials) {
        let (service, words) = match source.starts_with("arn:aws:secretsmanager:") {
            true => (
                "secretsmanager",
                format!(
                    "from asm: service call has been retried 5 time(s): failed to fetch secret \
                     {source} from secrets manager"
                ),
            ),
            false => ("ssm", "from ssm: service call has been retried 5 time(s)".to_owned()),
        };
        if !reaches(service) {
            return Err(format!(
                "ResourceInitializationError: unable to pull secrets or registry auth: execution \
                 resource retrieval failed: unable to retrieve secret {words}: RequestCanceled: request \
                 context canceled caused by: context deadline exceeded. Please check your task network \
                 configuration."
            ));
        }
    }
    let name = definition.name.as_ref();
    let mut overrides = task.overrides.container_overrides.iter().flatten();
    let own = overrides.find(|own| own.name.as_ref() == name);
    let files = own.and_then(|own| own.environment_files.as_ref());
    if files.or(definition.environment_files.as_ref()).is_some_and(|files| !files.is_empty())
        && !reaches("s3")
    {
        return Err("ResourceInitializationError: failed to download env files: file download command: non empty \
                    error stream: RequestCanceled: request context canceled caused by: context deadline exceeded"
            .to_owned());
    }
    let driver = definition.log_configuration.as_ref().map(|log| log.log_driver.as_str());
    if driver == Some("awslogs") && !reaches("logs") {
        return Err(format!(
            "ResourceInitializationError: failed to validate logger args: create stream has been \
             retried 1 times: failed to create Cloudwatch log stream: RequestError: send request \
             failed caused by: Post \"https://logs.{}.amazonaws.com/\": dial tcp: i/o timeout : exit status 1",
            region(task)
        ));
    }
    Ok(())
}

//! Deployments to ECS: the images of `imagedefinitions.json` in a new revision of what the service runs, rolled out.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-ECS.html>

use super::{Done, Failed, Work};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::time::Duration;

const FILE: &str = "imagedefinitions.json";
/// How long a deployment may take unless the action says otherwise, in minutes.
const MINUTES: u32 = 60;
/// What a definition is described with and not registered with.
const NOT_REGISTERED: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

#[derive(Deserialize)]
struct Image {
    name: String,
    #[serde(rename = "imageUri")]
    uri: String,
}

pub(super) async fn deploy(work: &Work<'_>) -> Result<Done, Failed> {
    let (cluster, service) = (work.need("ClusterName")?, work.need("ServiceName")?);
    let minutes = match work.get("DeploymentTimeout").map(str::parse) {
        None => MINUTES,
        Some(Ok(minutes @ 1..=MINUTES)) => minutes,
        Some(_) => {
            return Err(Failed::configuration(
                "DeploymentTimeout is a number of minutes from 1 to 60.",
            ));
        }
    };
    let definition = match work.run.progress["taskDefinition"].as_str() {
        Some(registered) => registered.to_owned(),
        None => {
            let registered = register(work, cluster, service).await?;
            work.progress(json!({"taskDefinition": registered}), None).await?;
            registered
        }
    };
    let found = describe(work, cluster, service).await?;
    if found["taskDefinition"] != json!(definition) {
        let asked = json!({"cluster": cluster, "service": service, "taskDefinition": definition});
        work.call("ecs", "UpdateService", asked).await?;
    }
    let limit = work.service.world.scaled(Duration::from_secs(60) * minutes);
    loop {
        let found = describe(work, cluster, service).await?;
        if let Some(done) = look(&found, &definition)? {
            return Ok(done);
        }
        if work.service.world.now().since(work.run.started) > limit {
            return Err(Failed::job(format!(
                "The deployment of {definition} to the service {service} did not come to an end within {minutes} \
                 minutes."
            )));
        }
        if !work.again().await {
            return Err(Failed::job("The action was abandoned."));
        }
    }
}

async fn describe(work: &Work<'_>, cluster: &str, service: &str) -> Result<Json, Failed> {
    let asked = json!({"cluster": cluster, "services": [service]});
    let answer = work.call("ecs", "DescribeServices", asked).await?;
    match &answer["services"][0] {
        Json::Null => Err(Failed::configuration(format!(
            "The service {service} does not exist in the cluster {cluster}."
        ))),
        found => Ok(found.clone()),
    }
}

/// Registers what the service runs with the artifact's images; the new revision's ARN.
async fn register(work: &Work<'_>, cluster: &str, service: &str) -> Result<String, Failed> {
    let path = work.get("FileName").unwrap_or(FILE);
    let artifact = work.run.declaration.input_artifacts.iter().flatten().next();
    let artifact = artifact.map(|artifact| artifact.name.clone()).unwrap_or_default();
    let text = work.file(&artifact, path).await?;
    let images: Vec<Image> = serde_json::from_str(&text).map_err(|error| {
        Failed::configuration(format!(
            "The file {path} in the artifact {artifact} is not a list of image definitions \
             ([{{\"name\": …, \"imageUri\": …}}]): {error}"
        ))
    })?;
    if images.is_empty() {
        return Err(Failed::configuration(format!("The file {path} has no image definitions.")));
    }
    let found = describe(work, cluster, service).await?;
    let asked = json!({"taskDefinition": found["taskDefinition"], "include": ["TAGS"]});
    let answer = work.call("ecs", "DescribeTaskDefinition", asked).await?;
    let mut definition = answer["taskDefinition"].clone();
    let Some(members) = definition.as_object_mut() else {
        return Err(Failed::system("The task definition was not understood."));
    };
    for member in NOT_REGISTERED {
        members.remove(member);
    }
    if let Some(tags) = answer["tags"].as_array().filter(|tags| !tags.is_empty()) {
        members.insert("tags".to_owned(), json!(tags));
    }
    for image in images {
        let containers = definition["containerDefinitions"].as_array_mut();
        let mut containers = containers.into_iter().flatten();
        let container = containers.find(|container| container["name"] == json!(image.name));
        let container = container.ok_or_else(|| {
            Failed::configuration(format!(
                "The task definition of the service {service} has no container {}, which {path} names.",
                image.name
            ))
        })?;
        container["image"] = json!(image.uri);
    }
    let answer = work.call("ecs", "RegisterTaskDefinition", definition).await?;
    let arn = answer["taskDefinition"]["taskDefinitionArn"].as_str();
    arn.map(str::to_owned).ok_or_else(|| Failed::system("The registration was not understood."))
}

/// Whether the service has come to run `definition`, or will not.
fn look(service: &Json, definition: &str) -> Result<Option<Done>, Failed> {
    let deployments = service["deployments"].as_array().into_iter().flatten();
    let ours = deployments.into_iter().find(|one| one["taskDefinition"] == json!(definition));
    let Some(ours) = ours else {
        return Err(Failed::job(format!(
            "Another deployment has taken the place of {definition}, or the service went back to what it ran before: \
             {}",
            service["events"][0]["message"].as_str().unwrap_or("the service tells no reason.")
        )));
    };
    let reason = ours["rolloutStateReason"].as_str().unwrap_or_default();
    match ours["rolloutState"].as_str() {
        Some("FAILED") => Err(Failed::job(format!("The deployment failed: {reason}"))),
        Some("COMPLETED") if ours["status"] == "PRIMARY" => Ok(Some(Done {
            summary: Some(format!(
                "Deployment {} completed",
                ours["id"].as_str().unwrap_or_default()
            )),
            external: ours["id"].as_str().map(str::to_owned),
            ..Done::default()
        })),
        _ => Ok(None),
    }
}

//! Deployments by CodeDeploy to ECS: a task definition and an AppSpec file, with images and each other in place.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-ECSbluegreen.html>

use super::{Done, Failed, Work};
use serde_json::{Value as Json, json};

/// Where the files are unless the action says otherwise.
const TASK_DEFINITION: &str = "taskdef.json";
const APP_SPEC: &str = "appspec.yaml";
/// What stands for the task definition in AppSpec files.
const PLACEHOLDER: &str = "<TASK_DEFINITION>";
/// The file of an artifact that says which image it is.
const IMAGE: &str = "imageDetail.json";

pub(super) async fn deploy(work: &Work<'_>) -> Result<Done, Failed> {
    let id = match work.run.progress["deployment"].as_str() {
        Some(begun) => begun.to_owned(),
        None => begin(work).await?,
    };
    loop {
        let answer = work.call("codedeploy", "GetDeployment", json!({"deploymentId": id})).await?;
        let found = &answer["deploymentInfo"];
        let error = &found["errorInformation"];
        let message = error["message"].as_str().unwrap_or("CodeDeploy tells no reason.");
        match found["status"].as_str() {
            Some("Succeeded") => {
                let summary = Some(format!("Deployment {id} succeeded"));
                return Ok(Done { summary, external: Some(id), ..Done::default() });
            }
            Some(over @ ("Failed" | "Stopped")) => {
                let back = match found["rollbackInfo"]["rollbackDeploymentId"].as_str() {
                    Some(back) => format!(" It is rolled back by the deployment {back}."),
                    None => String::new(),
                };
                return Err(Failed::job(format!(
                    "Deployment {id} {}: {message}{back}",
                    over.to_ascii_lowercase()
                )));
            }
            _ => {}
        }
        if !work.again().await {
            return Err(Failed::job("The action was abandoned."));
        }
    }
}

/// Registers the task definition and begins the deployment; its id.
async fn begin(work: &Work<'_>) -> Result<String, Failed> {
    let group = json!({
        "applicationName": work.need("ApplicationName")?,
        "deploymentGroupName": work.need("DeploymentGroupName")?,
    });
    let definition = match work.run.progress["taskDefinition"].as_str() {
        Some(registered) => registered.to_owned(),
        None => {
            let registered = register(work).await?;
            work.progress(json!({"taskDefinition": registered}), None).await?;
            registered
        }
    };
    let artifact = work.need("AppSpecTemplateArtifact")?;
    let path = work.get("AppSpecTemplatePath").unwrap_or(APP_SPEC);
    let text = work.file(artifact, path).await?;
    if !text.contains(PLACEHOLDER) {
        return Err(Failed::configuration(format!(
            "The file {path} in the artifact {artifact} has no {PLACEHOLDER} for the new task definition."
        )));
    }
    let content = text.replace(PLACEHOLDER, &definition);
    let mut asked = group.clone();
    asked["revision"] =
        json!({"revisionType": "AppSpecContent", "appSpecContent": {"content": content}});
    // By this a deployment is known again that a crash cut off from its id.
    let mark = format!("CodePipeline action {}", work.run.id);
    asked["description"] = json!(mark);
    let made = work.call("codedeploy", "CreateDeployment", asked).await;
    let id = match made {
        Ok(made) => made["deploymentId"].as_str().unwrap_or_default().to_owned(),
        Err(fault) => match already(work, &group, &mark).await? {
            Some(id) => id,
            None => return Err(fault.into()),
        },
    };
    let progress = json!({"taskDefinition": definition, "deployment": id});
    work.progress(progress, Some(id.clone())).await?;
    Ok(id)
}

/// The newest deployment of the group, if it is this action's.
async fn already(work: &Work<'_>, group: &Json, mark: &str) -> Result<Option<String>, Failed> {
    let listed = work.call("codedeploy", "ListDeployments", group.clone()).await?;
    let Some(id) = listed["deployments"][0].as_str() else { return Ok(None) };
    let found = work.call("codedeploy", "GetDeployment", json!({"deploymentId": id})).await?;
    Ok((found["deploymentInfo"]["description"] == json!(mark)).then(|| id.to_owned()))
}

/// Registers the task definition with the images of the artifacts; its ARN.
async fn register(work: &Work<'_>) -> Result<String, Failed> {
    let artifact = work.need("TaskDefinitionTemplateArtifact")?;
    let path = work.get("TaskDefinitionTemplatePath").unwrap_or(TASK_DEFINITION);
    let mut text = work.file(artifact, path).await?;
    for number in 1..=4 {
        let Some(image) = work.get(&format!("Image{number}ArtifactName")) else { continue };
        let placeholder = format!("<{}>", work.need(&format!("Image{number}ContainerName"))?);
        let detail = work.file(image, IMAGE).await?;
        let detail: Json = serde_json::from_str(&detail).map_err(|error| {
            Failed::configuration(format!(
                "The file {IMAGE} in the artifact {image} is not JSON: {error}"
            ))
        })?;
        let uri = detail["ImageURI"].as_str().ok_or_else(|| {
            Failed::configuration(format!(
                "The file {IMAGE} in the artifact {image} has no ImageURI."
            ))
        })?;
        if !text.contains(&placeholder) {
            return Err(Failed::configuration(format!(
                "The file {path} in the artifact {artifact} has no {placeholder}."
            )));
        }
        text = text.replace(&placeholder, uri);
    }
    let definition: Json = serde_json::from_str(&text).map_err(|error| {
        Failed::configuration(format!(
            "The file {path} in the artifact {artifact} is not a task definition: {error}"
        ))
    })?;
    let answer = work.call("ecs", "RegisterTaskDefinition", definition).await.map_err(|fault| {
        Failed::configuration(format!(
            "The task definition {path} in the artifact {artifact} is refused: {} ({})",
            fault.message, fault.code
        ))
    })?;
    let arn = answer["taskDefinition"]["taskDefinitionArn"].as_str();
    arn.map(str::to_owned).ok_or_else(|| Failed::system("The registration was not understood."))
}

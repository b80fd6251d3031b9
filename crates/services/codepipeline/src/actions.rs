//! Actions are carried out: each provider's way to do what its configuration says.

mod approval;
mod cloudformation;
mod codebuild;
mod codedeploy;
mod connection;
mod ecs;
mod lambda;
pub(crate) mod source;

use crate::{
    CodePipeline,
    api::{ActionCategory, ActionDeclaration, ActionExecutionStatus, ActionOwner, OutputArtifact},
    artifacts, elsewhere,
    model::{ActionRun, Artifact, Execution, Revision, Version},
    tell, variables,
};
use serde_json::{Value as Json, json};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};
use store::DiskFault;
use tokio::sync::SemaphorePermit;
use wire::{Context, Fault, Identity, Principal};
use world::Timestamp;

/// The service that roles trust.
pub(crate) const SERVICE: &str = "codepipeline.amazonaws.com";
/// How long a role is taken on for.
pub(crate) const SESSION: Duration = Duration::from_secs(3600);
/// How often a provider is asked how far it is. It is in the same process: asking costs little.
const ASK: Duration = Duration::from_millis(200);
/// How long the last part of an artifact's key is, and how far apart those of one action are in its id.
const KEY_END: usize = 7;
const KEY_STEP: usize = 6;
/// The wait after an answer that was the provider's failure, and not the pipeline's.
const PAUSE: Duration = Duration::from_secs(1);

/// The providers that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    CodeCommit,
    Connection,
    Ecr,
    S3,
    Manual,
    CodeBuild,
    Ecs,
    CodeDeployToEcs,
    CloudFormation,
    Lambda,
}

impl Provider {
    /// The provider of an action, or why there is none.
    pub(crate) fn of(action: &ActionDeclaration) -> Result<Self, String> {
        let kind = &action.action_type_id;
        match (kind.category, kind.owner, kind.provider.as_str()) {
            (ActionCategory::Source, ActionOwner::Aws, "CodeCommit") => Ok(Self::CodeCommit),
            (ActionCategory::Source, ActionOwner::Aws, elsewhere::PROVIDER) => Ok(Self::Connection),
            (ActionCategory::Source, ActionOwner::Aws, "ECR") => Ok(Self::Ecr),
            (ActionCategory::Source, ActionOwner::Aws, "S3") => Ok(Self::S3),
            (ActionCategory::Approval, ActionOwner::Aws, "Manual") => Ok(Self::Manual),
            (ActionCategory::Build | ActionCategory::Test, ActionOwner::Aws, "CodeBuild") => {
                Ok(Self::CodeBuild)
            }
            (ActionCategory::Deploy, ActionOwner::Aws, "ECS") => Ok(Self::Ecs),
            (ActionCategory::Deploy, ActionOwner::Aws, "CodeDeployToECS") => {
                Ok(Self::CodeDeployToEcs)
            }
            (ActionCategory::Deploy, ActionOwner::Aws, "CloudFormation") => {
                Ok(Self::CloudFormation)
            }
            (ActionCategory::Invoke, ActionOwner::Aws, "Lambda") => Ok(Self::Lambda),
            (category, owner, provider) => Err(format!(
                "Neargate has no action of category {}, owner {} and provider {provider} yet: CodeCommit, \
                 CodeStarSourceConnection, ECR and S3 sources, builds by CodeBuild, manual approvals, functions of \
                 Lambda, and deployments to ECS, by CodeDeploy to ECS and by CloudFormation are built.",
                category.as_str(),
                owner.as_str(),
            )),
        }
    }

    /// What the configuration must and may have.
    pub(crate) fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::CodeCommit => (
                &["RepositoryName", "BranchName"],
                &["PollForSourceChanges", "OutputArtifactFormat"],
            ),
            Self::Connection => (
                &["ConnectionArn", "FullRepositoryId", "BranchName"],
                &["DetectChanges", "OutputArtifactFormat"],
            ),
            Self::Ecr => (&["RepositoryName"], &["ImageTag"]),
            Self::S3 => (&["S3Bucket", "S3ObjectKey"], &["PollForSourceChanges"]),
            Self::Lambda => (&["FunctionName"], &["UserParameters"]),
            Self::Manual => (&[], &["CustomData", "ExternalEntityLink", "NotificationArn"]),
            // BatchEnabled and CombineArtifacts, which batch builds have, are refused by their values.
            Self::CodeBuild => (&["ProjectName"], &["PrimarySource", "EnvironmentVariables"]),
            Self::Ecs => (&["ClusterName", "ServiceName"], &["FileName", "DeploymentTimeout"]),
            Self::CodeDeployToEcs => (
                &[
                    "ApplicationName",
                    "DeploymentGroupName",
                    "TaskDefinitionTemplateArtifact",
                    "AppSpecTemplateArtifact",
                ],
                &[
                    "TaskDefinitionTemplatePath",
                    "AppSpecTemplatePath",
                    "Image1ArtifactName",
                    "Image1ContainerName",
                    "Image2ArtifactName",
                    "Image2ContainerName",
                    "Image3ArtifactName",
                    "Image3ContainerName",
                    "Image4ArtifactName",
                    "Image4ContainerName",
                ],
            ),
            Self::CloudFormation => (
                &["ActionMode", "StackName"],
                &[
                    "TemplatePath",
                    "TemplateConfiguration",
                    "ParameterOverrides",
                    "Capabilities",
                    "RoleArn",
                    "ChangeSetName",
                    "OutputFileName",
                ],
            ),
        }
    }

    /// How many artifacts may come in and go out.
    /// <https://docs.aws.amazon.com/codepipeline/latest/userguide/reference-pipeline-structure.html>
    pub(crate) fn artifacts(
        self,
    ) -> (std::ops::RangeInclusive<usize>, std::ops::RangeInclusive<usize>) {
        match self {
            Self::CodeCommit | Self::Connection | Self::Ecr | Self::S3 => (0..=0, 1..=1),
            Self::Manual => (0..=0, 0..=0),
            Self::CodeBuild => (1..=5, 0..=5),
            Self::Lambda => (0..=5, 0..=5),
            Self::Ecs => (1..=1, 0..=0),
            Self::CodeDeployToEcs => (1..=5, 0..=0),
            Self::CloudFormation => (0..=10, 0..=1),
        }
    }
}

/// Why an action failed, in words that its reader can act on.
#[derive(Debug)]
pub(crate) struct Failed {
    code: Cow<'static, str>,
    message: String,
}

impl Failed {
    pub(crate) fn job(message: impl Into<String>) -> Self {
        Self { code: "JobFailed".into(), message: message.into() }
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self { code: "ConfigurationError".into(), message: message.into() }
    }

    pub(crate) fn permission(message: impl Into<String>) -> Self {
        Self { code: "PermissionError".into(), message: message.into() }
    }

    pub(crate) fn system(message: impl Into<String>) -> Self {
        Self { code: "SystemUnavailable".into(), message: message.into() }
    }
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        let message = format!("{} ({})", fault.message, fault.code);
        match &*fault.code {
            code if code.contains("AccessDenied") => Self::permission(message),
            _ if !fault.is_sender() => Self::system(message),
            _ => Self::job(message),
        }
    }
}

/// What an action leaves behind.
#[derive(Default)]
pub(crate) struct Done {
    summary: Option<String>,
    external: Option<String>,
    outputs: BTreeMap<String, String>,
    artifacts: Vec<(String, Artifact)>,
    revision: Option<Revision>,
}

/// An action under way.
pub(crate) struct Work<'a> {
    service: &'a Arc<CodePipeline>,
    /// The execution's key.
    key: &'a str,
    execution: Execution,
    run: ActionRun,
    version: Arc<Version>,
    /// Its configuration, with all variables in place.
    configuration: BTreeMap<String, String>,
    principal: Principal,
}

/// Carries an action out until it is done, and writes down what came of it.
pub(crate) async fn carry_out(service: &Arc<CodePipeline>, key: &str, id: &str) {
    let outcome = match prepare(service, key, id).await {
        Some(Ok(work)) => {
            perform(&work).await.map(|done| (done, work.run.declaration.namespace.clone()))
        }
        Some(Err(failed)) => Err(failed),
        None => return,
    };
    let (now, world, id) = (service.world.now(), service.world.clone(), id.to_owned());
    let written = service.store.write(move |tx| {
        let Some(execution) = tx.get::<Execution>(key) else { return Ok(()) };
        let mut execution = Execution::clone(&execution);
        let at = execution.at;
        let Some(stage) = execution.stages.get_mut(at) else { return Ok(()) };
        // It may have been abandoned, or an approval given, meanwhile.
        let ours = |action: &&mut ActionRun| action.id == id && action.is_under_way();
        let Some(action) = stage.actions.iter_mut().find(ours) else { return Ok(()) };
        let name = action.declaration.name.clone();
        match outcome {
            Ok((done, namespace)) => {
                end(action, ActionExecutionStatus::Succeeded, now);
                action.summary = done.summary.or(action.summary.take());
                action.external = done.external.or(action.external.take());
                action.outputs = done.outputs.clone();
                if let Some(namespace) = namespace {
                    execution.outputs.insert(namespace, done.outputs);
                }
                execution.artifacts.extend(done.artifacts);
                execution.revisions.retain(|revision| revision.action != name);
                execution.revisions.extend(done.revision);
            }
            Err(failed) => {
                end(action, ActionExecutionStatus::Failed, now);
                action.error = Some((failed.code.into_owned(), failed.message));
            }
        }
        execution.updated = now;
        tell::put(tx, &world, execution);
        Ok::<_, DiskFault>(())
    });
    if let Err(error) = written.await {
        // It is still under way: it is carried out again, from where its progress is.
        tracing::warn!(%error, "an action's end could not be written down");
        service.world.sleep(PAUSE).await;
    }
}

fn end(action: &mut ActionRun, status: ActionExecutionStatus, now: Timestamp) {
    action.status = Some(status);
    action.changed = now;
}

/// Finds the action, whose turn it may no longer be, and who it is carried out as.
async fn prepare<'a>(
    service: &'a Arc<CodePipeline>,
    key: &'a str,
    id: &str,
) -> Option<Result<Work<'a>, Failed>> {
    let snapshot = service.store.read();
    let execution = Execution::clone(&*snapshot.get::<Execution>(key)?);
    let stage = execution.stages.get(execution.at)?;
    let run = stage.actions.iter().find(|action| action.id == id)?.clone();
    let version = Version::key_of(&execution.realm, &execution.pipeline, execution.version);
    let version = snapshot.get::<Version>(&version)?;
    let empty = BTreeMap::new();
    let configuration = run.declaration.configuration.as_ref().unwrap_or(&empty);
    let configuration = match variables::resolve(configuration, &execution) {
        Ok(configuration) => configuration,
        Err(name) => {
            return Some(Err(Failed::configuration(format!(
                "The variable #{{{name}}} has no value: no action before this one has such an output in such a \
                 namespace."
            ))));
        }
    };
    let resolved = configuration.clone();
    let noted = note(service, key, id, |run| run.resolved = resolved).await;
    if let Err(error) = noted {
        tracing::warn!(%error, "an action's configuration could not be written down");
    }
    let role = &version.declaration.role_arn;
    let principal =
        match principal(service, role, run.declaration.role_arn.as_deref(), &execution).await {
            Ok(principal) => principal,
            Err(failed) => return Some(Err(failed)),
        };
    Some(Ok(Work { service, key, execution, run, version, configuration, principal }))
}

/// A session of the pipeline's role, or of the action's, which the pipeline's takes on.
async fn principal(
    service: &CodePipeline,
    role: &str,
    own: Option<&str>,
    execution: &Execution,
) -> Result<Principal, Failed> {
    let session = service.iam.assume_for_service(role, SERVICE, &execution.id, SESSION);
    let session = session.map_err(|error| Failed::permission(error.to_string()))?;
    let Some(own) = own else { return Ok(session.principal) };
    let (_, region) = execution.realm.split_once('/').unwrap_or_default();
    let asked = json!({"RoleArn": own, "RoleSessionName": execution.id});
    let front = service.front();
    let ctx = front.context(session.principal, region);
    let assumed = front.call(ctx, "sts", "AssumeRole", asked).await?;
    let given = &assumed["Credentials"];
    let key = given["AccessKeyId"].as_str().unwrap_or_default();
    let credential =
        service.iam.credential(key, given["SessionToken"].as_str(), service.world.now());
    let credential = credential
        .map_err(|_| Failed::permission(format!("The role {own} could not be taken on.")))?;
    Ok(credential.principal)
}

async fn perform(work: &Work<'_>) -> Result<Done, Failed> {
    match Provider::of(&work.run.declaration).map_err(Failed::configuration)? {
        Provider::CodeCommit => source::codecommit(work).await,
        Provider::Connection => connection::source(work).await,
        Provider::Ecr => source::ecr(work).await,
        Provider::S3 => source::s3(work).await,
        Provider::Manual => approval::wait(work).await,
        Provider::CodeBuild => codebuild::run(work).await,
        Provider::Ecs => ecs::deploy(work).await,
        Provider::CodeDeployToEcs => codedeploy::deploy(work).await,
        Provider::CloudFormation => cloudformation::deploy(work).await,
        Provider::Lambda => lambda::run(work).await,
    }
}

/// Changes what is written of an action under way.
async fn note(
    service: &CodePipeline,
    key: &str,
    id: &str,
    change: impl FnOnce(&mut ActionRun),
) -> Result<(), DiskFault> {
    service
        .store
        .write(|tx| {
            tx.update::<Execution>(key, |execution| {
                let actions = execution.stages.iter_mut().flat_map(|stage| &mut stage.actions);
                if let Some(action) = actions.into_iter().find(|action| action.id == id) {
                    change(action);
                }
            });
            Ok(())
        })
        .await
}

impl Work<'_> {
    fn region(&self) -> &str {
        self.execution.realm.split_once('/').map_or("", |(_, region)| region)
    }

    fn context(&self) -> Context {
        self.service.front().context(self.principal.clone(), self.region())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.configuration.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn need(&self, key: &str) -> Result<&str, Failed> {
        self.get(key).ok_or_else(|| {
            Failed::configuration(format!("The action's configuration has no value for {key}."))
        })
    }

    /// Calls an operation as the action's role. What is the provider's failure is tried again.
    async fn call(&self, service: &str, operation: &str, request: Json) -> Result<Json, Fault> {
        loop {
            let front = self.service.front();
            let answer = front.call(self.context(), service, operation, request.clone()).await;
            match answer {
                Err(fault) if !fault.is_sender() && self.is_wanted() => {
                    tracing::warn!(
                        service,
                        operation,
                        why = fault.message,
                        "an action's call failed"
                    );
                    self.service.world.sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// The action as it is now, while it is still to be carried out: it may have been abandoned.
    fn current(&self) -> Option<ActionRun> {
        let execution = self.service.store.read().get::<Execution>(self.key)?;
        let mut actions = execution.stages.iter().flat_map(|stage| &stage.actions);
        actions.find(|action| action.id == self.run.id && action.is_under_way()).cloned()
    }

    /// Whether the action is still to be carried out.
    fn is_wanted(&self) -> bool {
        self.current().is_some()
    }

    /// Waits a little before a provider is asked again; false when there is no use in asking.
    async fn again(&self) -> bool {
        self.service.world.sleep(ASK).await;
        self.is_wanted()
    }

    async fn note(&self, change: impl FnOnce(&mut ActionRun)) -> Result<(), Failed> {
        let noted = note(self.service, self.key, &self.run.id, change);
        noted.await.map_err(|error| Failed::system(error.to_string()))
    }

    /// Writes down how far it is, so that it goes on from there after a crash.
    async fn progress(&self, progress: Json, external: Option<String>) -> Result<(), Failed> {
        self.note(|run| {
            run.progress = progress;
            run.external = external.or(run.external.take());
        })
        .await
    }

    /// Waits until one more artifact may be in memory.
    async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.service.artifacts.acquire().await;
        turn.expect("the semaphore is never closed")
    }

    /// The input artifact with this name.
    fn input(&self, name: &str) -> Result<&Artifact, Failed> {
        let declared = self.run.declaration.input_artifacts.iter().flatten();
        if !declared.into_iter().any(|one| one.name == name) {
            return Err(Failed::configuration(format!(
                "{name} is not one of the action's input artifacts."
            )));
        }
        self.execution.artifacts.get(name).ok_or_else(|| {
            Failed::configuration(format!(
                "No action before this one has made the artifact {name}."
            ))
        })
    }

    /// The text of a file of an input artifact.
    async fn file(&self, artifact: &str, path: &str) -> Result<String, Failed> {
        let input = self.input(artifact)?;
        let _turn = self.turn().await;
        artifacts::file(&self.service.s3, &self.context(), artifact, input, path).await
    }

    /// The output artifacts, and where each is put: under a key as AWS makes them.
    fn outputs(&self) -> Vec<(String, Artifact)> {
        let bucket = self.version.declaration.artifact_store.as_ref();
        let bucket = bucket.map(|store| store.location.clone()).unwrap_or_default();
        let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
        // Of the run's own id: what is put again after a crash takes the place of what was put before.
        let own = self.run.id.replace('-', "");
        let outputs = self.run.declaration.output_artifacts.iter().flatten().enumerate();
        let place = |(number, output): (usize, &OutputArtifact)| {
            let last = cut(own.get(number * KEY_STEP..).unwrap_or(&own), KEY_END);
            let (pipeline, name) = (cut(&self.execution.pipeline, 20), cut(&output.name, 10));
            let key = format!("{pipeline}/{name}/{last}");
            (output.name.clone(), Artifact { bucket: bucket.clone(), key })
        };
        outputs.map(place).collect()
    }

    /// Puts the output artifact, if the action has one.
    async fn put(&self, content: Vec<u8>) -> Result<Vec<(String, Artifact)>, Failed> {
        let Some((name, artifact)) = self.outputs().into_iter().next() else {
            return Ok(Vec::new());
        };
        if content.len() as u64 > artifacts::MOST_BYTES {
            return Err(Failed::configuration(format!(
                "The artifact {name} has {} bytes; at most {} are possible.",
                content.len(),
                artifacts::MOST_BYTES
            )));
        }
        artifacts::put(&self.service.s3, &self.context(), &artifact, content).await?;
        Ok(vec![(name, artifact)])
    }
}

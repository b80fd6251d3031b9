//! Images for a task, with AWS's words for what can go wrong, and how far they are.

use super::{
    chain,
    task::{Trouble, change, failed},
};
use crate::{Ecs, api::ContainerDefinition, model::Task};
use images::{
    Digest, Event, Failure, Image, Platform, Policy, PullError, Reference, registry::Credentials,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};
use store::Record;
use wire::Principal;

/// The pulls that go on, by task.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<String, Pull>>);

/// One task's pull of one image.
struct Pull {
    image: String,
    /// Bytes that are here and that there will be, by layer; known when the manifest is.
    layers: HashMap<Digest, (u64, u64)>,
}

/// How far a task's image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulling {
    /// The image's name.
    pub image: String,
    /// Compressed bytes that are here.
    pub done_bytes: u64,
    /// Compressed bytes that there will be; 0 until the manifest is here.
    pub total_bytes: u64,
}

impl Pulls {
    /// How far the task's pull is, if one goes on.
    pub(crate) fn of(&self, task: &str) -> Option<Pulling> {
        let pulls = self.lock();
        let Pull { image, layers } = pulls.get(task)?;
        let sum = |part: fn(&(u64, u64)) -> u64| layers.values().map(part).sum();
        Some(Pulling {
            image: image.clone(),
            done_bytes: sum(|(done, _)| *done),
            total_bytes: sum(|(_, total)| *total),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Pull>> {
        self.0.lock().expect("no holder of this lock can panic")
    }

    fn begin(&self, task: &str, image: &str) {
        let pull = Pull { image: image.to_owned(), layers: HashMap::new() };
        self.lock().insert(task.to_owned(), pull);
    }

    fn note(&self, task: &str, event: &Event) {
        let mut pulls = self.lock();
        let Some(Pull { layers, .. }) = pulls.get_mut(task) else { return };
        match event {
            Event::Layers { layers: all } => {
                layers.extend(all.iter().map(|(layer, size)| (layer.clone(), (0, *size))));
            }
            Event::Downloaded { layer, done, total } => {
                layers.insert(layer.clone(), (*done, *total));
            }
            Event::Present { layer } | Event::Unpacked { layer } => {
                if let Some((done, total)) = layers.get_mut(layer) {
                    *done = *total;
                }
            }
        }
    }

    fn end(&self, task: &str) {
        self.lock().remove(task);
    }
}

/// What a secret of `repositoryCredentials` holds.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/private-auth.html>
#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// The credentials that a secret holds for a registry. The error is for people.
pub(crate) async fn credentials(
    ecs: &Ecs,
    realm: &str,
    arn: &str,
    principal: Option<&Principal>,
) -> Result<Credentials, String> {
    let unable = |reason: String| {
        format!(
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval \
             failed: unable to retrieve secret from asm: {reason}"
        )
    };
    let principal = principal.ok_or_else(|| unable("there is no execution role".to_owned()))?;
    let value = ecs.surroundings().secrets.value(realm, principal, arn).await.map_err(unable)?;
    let login: Login = serde_json::from_str(&value).map_err(|_| {
        unable(format!("the secret {arn} is not a JSON object with username and password"))
    })?;
    Ok(Credentials::Basic { user: login.username, password: login.password })
}

/// The credentials that a container's definition names for its registry.
async fn login(
    ecs: &Ecs,
    task: &Task,
    definition: &ContainerDefinition,
    principal: Option<&Principal>,
) -> Result<Option<Credentials>, Trouble> {
    let Some(named) = &definition.repository_credentials else { return Ok(None) };
    let arn = &named.credentials_parameter;
    let found = credentials(ecs, &task.realm, arn, principal).await;
    found.map(Some).map_err(failed)
}

/// Pulls the images of all containers.
pub(super) async fn all(
    ecs: &Arc<Ecs>,
    task: &Task,
    containers: &[ContainerDefinition],
    principal: Option<&Principal>,
) -> Result<BTreeMap<String, Image>, Trouble> {
    let mut images = BTreeMap::new();
    for definition in containers {
        let (name, image) =
            (definition.name.clone().unwrap_or_default(), definition.image.as_deref());
        let image = image.unwrap_or_default();
        let login = login(ecs, task, definition, principal).await?;
        let key = task.key();
        ecs.pulls.begin(&key, image);
        let result = fetch(ecs, &key, image, principal, login).await;
        ecs.pulls.end(&key);
        match result {
            Ok(pulled) => drop(images.insert(name, pulled)),
            Err(reason) => {
                let words = reason.clone();
                change(ecs, &task.key(), move |task| {
                    if let Some(container) = task.containers.iter_mut().find(|c| c.name == name) {
                        container.reason = Some(words);
                    }
                })
                .await?;
                return Err(failed(reason));
            }
        }
    }
    Ok(images)
}

/// Pulls one image for whoever is told by `key` how far it is; the error is AWS's CannotPullContainerError.
pub(crate) async fn fetch(
    ecs: &Ecs,
    key: &str,
    image: &str,
    principal: Option<&Principal>,
    login: Option<Credentials>,
) -> Result<Image, String> {
    let cannot = |reason: String| format!("CannotPullContainerError: {reason}");
    let reference: Reference =
        image.parse().map_err(|error| cannot(format!("invalid reference format: {error}")))?;
    let source = ecs.surroundings().images.source(&reference, principal, login);
    let source = source.map_err(|reason| {
        cannot(format!("pull image manifest has been retried 1 time(s): {reason}"))
    })?;
    let platform = Platform::host();
    let (pulls, key) = (ecs.pulls.clone(), key.to_owned());
    let progress = Arc::new(move |event: &Event| pulls.note(&key, event));
    let pulled = ecs.images.pull(&reference, &platform, Policy::Always, source, progress);
    pulled.await.map_err(|error| cannot(pull_reason(&reference, &error)))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_cannot_pull_image.html>
fn pull_reason(reference: &Reference, error: &PullError) -> String {
    let chain = chain(error);
    match error.failure() {
        Failure::NotFound => format!(
            "pull image manifest has been retried 1 time(s): failed to resolve ref {reference}: {reference}: not found"
        ),
        Failure::Unauthorised => format!(
            "pull image manifest has been retried 1 time(s): failed to resolve ref {reference}: \
             pull access denied, repository does not exist or may require authorization: {chain}"
        ),
        Failure::Platform => format!(
            "image Manifest does not contain descriptor matching platform '{}'",
            Platform::host()
        ),
        Failure::DiskFull => format!("failed to extract layer: no space left on device: {chain}"),
        _ => format!(
            "pull image manifest has been retried 1 time(s): failed to resolve ref {reference}: {chain}"
        ),
    }
}

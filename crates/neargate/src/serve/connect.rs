//! Connects ECS to what its tasks need: images, secrets, log streams, the API.

use ecr::Ecr;
use ecs::{
    EnvironmentFiles, ImageSources, LogSink, LogSinks, LogTarget, Pending, Secrets, ServeApi,
};
use images::{
    Reference, RegistrySource, Source,
    registry::{AuthFiles, Credentials},
};
use logs::Logs;
use s3::S3;
use secretsmanager::SecretsManager;
use ssm::Ssm;
use std::{error::Error, ops::Range, sync::Arc};
use wire::{Front, Principal, serve_connection};
use world::World;

/// Images come from this machine's own repositories, and from registries.
pub(super) struct Registries {
    own: Arc<Ecr>,
    world: World,
    registries: images::Registries,
    remote: Arc<dyn Source>,
}

impl Registries {
    /// With this machine's registries.conf and auth.json.
    pub(super) fn new(own: Arc<Ecr>, world: &World) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let registries = images::Registries::of_this_machine()?;
        let credentials = AuthFiles::of_this_user()?.into_callback();
        let remote = Arc::new(RegistrySource::new(world, registries.clone(), credentials));
        Ok(Self { own, world: world.clone(), registries, remote })
    }
}

impl ImageSources for Registries {
    fn source(
        &self,
        reference: &Reference,
        principal: Option<&Principal>,
        credentials: Option<Credentials>,
    ) -> Result<Arc<dyn Source>, String> {
        if let Some(own) = self.own.source(reference, principal) {
            return own;
        }
        let Some(credentials) = credentials else { return Ok(self.remote.clone()) };
        // They are for the registry that the image's name says, not for a mirror of it.
        let (host, registries) = (reference.registry().to_owned(), self.registries.clone());
        let given = move |asked: &str, _: &str| (asked == host).then(|| credentials.clone());
        Ok(Arc::new(RegistrySource::new(&self.world, registries, Arc::new(given))))
    }
}

/// Secrets come from the Parameter Store and from Secrets Manager.
pub(super) struct Stored {
    pub ssm: Arc<Ssm>,
    pub secrets: Arc<SecretsManager>,
}

impl Secrets for Stored {
    fn value<'a>(
        &'a self,
        realm: &'a str,
        principal: &'a Principal,
        value_from: &'a str,
    ) -> Pending<'a, Result<String, String>> {
        Box::pin(async move {
            let value = if value_from.starts_with("arn:aws:secretsmanager:") {
                self.secrets.value_for_task(principal, realm, value_from).await
            } else {
                self.ssm.value_for_task(principal, realm, value_from)
            };
            value.map_err(|fault| format!("{}: {}", fault.code, fault.message))
        })
    }
}

/// Files of environment variables come from S3.
pub(super) struct Objects(pub(super) Arc<S3>);

impl EnvironmentFiles for Objects {
    fn text<'a>(
        &'a self,
        realm: &'a str,
        principal: &'a Principal,
        arn: &'a str,
    ) -> Pending<'a, Result<String, String>> {
        let (_, region) = realm.split_once('/').expect("realms are account/region");
        Box::pin(self.0.text_for_task(principal, region, arn))
    }
}

/// Output goes to CloudWatch Logs.
pub(super) struct LogStreams(pub(super) Arc<Logs>);

impl LogSinks for LogStreams {
    fn open<'a>(
        &'a self,
        target: &'a LogTarget,
        principal: &'a Principal,
    ) -> Pending<'a, Result<Arc<dyn LogSink>, String>> {
        Box::pin(async move {
            let LogTarget { realm, group, stream, create_group } = target;
            let sink = self.0.sink(principal, realm, group, stream, *create_group).await;
            let sink = sink.map_err(|error| error.to_string())?;
            Ok(Arc::new(OneStream(sink)) as Arc<dyn LogSink>)
        })
    }
}

struct OneStream(logs::Sink);

impl LogSink for OneStream {
    fn mark<'a>(&'a self, source: &'a str) -> Pending<'a, Result<u64, String>> {
        Box::pin(async move { self.0.mark(source).await.map_err(|error| error.to_string()) })
    }

    fn append<'a>(
        &'a self,
        source: &'a str,
        range: Range<u64>,
        lines: &'a [(i64, String)],
    ) -> Pending<'a, Result<(), String>> {
        Box::pin(async move {
            self.0.append(source, range, lines).await.map_err(|error| error.to_string())
        })
    }
}

/// Serves a task's connection to the API by the same front door as everybody's.
pub(super) fn api(front: Arc<Front>) -> ServeApi {
    Arc::new(move |stream, peer| Box::pin(serve_connection(stream, peer, front.clone())))
}

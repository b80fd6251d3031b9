//! Connects ECS to what its tasks need: images, secrets, log streams, the API.

use application_autoscaling::{Capacity, Scaled, Usage, api::CustomizedMetricSpecification};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use cloudformation::TemplateBucket;
use cloudwatch::{
    CloudWatch,
    metric::{Metric, Statistic},
};
use codebuild::CodeBuild;
use ecr::Ecr;
use ecs::{
    Alarms, AlarmsSeen, Ecs, EnvironmentFiles, Functions, ImageSources, LogSink, LogSinks,
    LogTarget, Pending, Secrets, ServeApi,
};
use elbv2::{ElbV2, LogBuckets};
use images::{
    Reference, RegistrySource, Source,
    registry::{AuthFiles, Credentials},
};
use logs::Logs;
use s3::S3;
use secretsmanager::SecretsManager;
use serde_json::json;
use ssm::Ssm;
use std::{error::Error, ops::Range, sync::Arc};
use wire::{Context, Front, Principal, PrincipalKind, serve_connection};
use world::World;

/// Images come from this machine's own repositories, from what is made here for builds, and from registries.
pub(super) struct Registries {
    own: Arc<Ecr>,
    builds: Arc<CodeBuild>,
    world: World,
    registries: images::Registries,
    remote: Arc<dyn Source>,
}

impl Registries {
    /// With this machine's registries.conf and auth.json.
    pub(super) fn new(
        own: Arc<Ecr>,
        builds: Arc<CodeBuild>,
        world: &World,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let registries = images::Registries::of_this_machine()?;
        let credentials = AuthFiles::of_this_user()?.into_callback();
        let remote = Arc::new(RegistrySource::new(world, registries.clone(), credentials));
        Ok(Self { own, builds, world: world.clone(), registries, remote })
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
        if let Some(made) = self.builds.image_source(reference) {
            return Ok(made);
        }
        let Some(credentials) = credentials else { return Ok(self.remote.clone()) };
        // They are for the registry that the image's name says, not for a mirror of it.
        let (host, registries) = (reference.registry().to_owned(), self.registries.clone());
        let given = move |asked: &str, _: &str| (asked == host).then(|| credentials.clone());
        Ok(Arc::new(RegistrySource::new(&self.world, registries, Arc::new(given))))
    }

    fn is_ecr(&self, reference: &Reference) -> bool {
        self.own.has(reference)
    }
}

/// Functions are invoked through the front door, as by a client.
pub(super) struct Invoked(pub Arc<Front>);

impl Functions for Invoked {
    fn invoke<'a>(
        &'a self,
        realm: &'a str,
        principal: &'a Principal,
        function: &'a str,
        event: String,
    ) -> Pending<'a, Result<String, (bool, String)>> {
        Box::pin(async move {
            let region = realm.split_once('/').map_or("", |(_, region)| region);
            let asked = json!({"FunctionName": function, "Payload": BASE64.encode(event)});
            let context = self.0.context(principal.clone(), region);
            let answer =
                self.0.call(context, "lambda", "Invoke", asked).await.map_err(|fault| {
                    let again = fault.status >= 500 || fault.code == "TooManyRequestsException";
                    (!again, format!("{} ({})", fault.message, fault.code))
                })?;
            let payload = answer["Payload"].as_str().unwrap_or_default();
            let payload = BASE64.decode(payload).map_err(|error| (true, error.to_string()))?;
            let payload = String::from_utf8_lossy(&payload).into_owned();
            match answer["FunctionError"].as_str() {
                Some(kind) => Err((true, format!("its error is {kind}: {payload}"))),
                None => Ok(payload),
            }
        })
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

/// What is scaled are ECS services; requests are counted by load balancers, and what else is to be tracked is
/// CloudWatch's.
pub(super) struct Services {
    pub ecs: Arc<Ecs>,
    pub elb: Arc<ElbV2>,
    pub cloudwatch: Arc<CloudWatch>,
}

/// The cluster and the name in `service/CLUSTER/NAME`.
fn service(resource: &str) -> Option<(&str, &str)> {
    resource.strip_prefix("service/")?.split_once('/')
}

impl Scaled for Services {
    fn capacity(&self, realm: &str, resource: &str) -> Option<Capacity> {
        let (cluster, name) = service(resource)?;
        let (desired, running) = self.ecs.task_counts(realm, cluster, name)?;
        Some(Capacity { desired, running })
    }

    fn set<'a>(
        &'a self,
        realm: &'a str,
        resource: &'a str,
        desired: i32,
    ) -> application_autoscaling::Pending<'a, Result<(), String>> {
        Box::pin(async move {
            let gone = || "the service does not exist any more".to_owned();
            let (cluster, name) = service(resource).ok_or_else(gone)?;
            match self.ecs.set_desired_count(realm, cluster, name, desired).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(gone()),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn usage<'a>(
        &'a self,
        realm: &'a str,
        resource: &'a str,
    ) -> application_autoscaling::Pending<'a, Vec<Usage>> {
        Box::pin(async move {
            let Some((cluster, name)) = service(resource) else { return Vec::new() };
            let used = self.ecs.task_usage(realm, cluster, name).await;
            let told = |used: ecs::TaskUsage| Usage {
                id: used.id,
                cpu_ns: used.cpu_ns,
                cpu_ns_per_s: u64::from(used.cpu_units) * 1_000_000_000 / 1024,
                memory_bytes: used.memory_bytes,
                memory_limit_bytes: used.memory_limit_bytes,
            };
            used.into_iter().map(told).collect()
        })
    }

    fn requests(&self, realm: &str, label: &str) -> Option<(u64, u32)> {
        self.elb.request_count(realm, label)
    }

    fn metric<'a>(
        &'a self,
        realm: &'a str,
        metric: &'a CustomizedMetricSpecification,
    ) -> application_autoscaling::Pending<'a, Option<f64>> {
        Box::pin(async move {
            let statistic = Statistic::read(metric.statistic?.as_str())?;
            let (namespace, name) = (metric.namespace.clone()?, metric.metric_name.clone()?);
            let dimensions = metric.dimensions.iter().flatten();
            let dimensions = dimensions.map(|one| (one.name.clone(), one.value.clone())).collect();
            let (unit, tracked) =
                (metric.unit.as_deref(), Metric::new(namespace, name, dimensions));
            let read = self.cloudwatch.last_minute(realm, &tracked, unit, statistic).await;
            read.unwrap_or_else(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "a metric that a policy tracks cannot be read");
                None
            })
        })
    }
}

/// What watches services are CloudWatch's alarms.
pub(super) struct Watching(pub(super) Arc<CloudWatch>);

impl Alarms for Watching {
    fn look(&self, realm: &str, names: &[String]) -> AlarmsSeen {
        let (on, takes) = self.0.look(realm, names);
        AlarmsSeen { on, takes }
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

/// Templates are of a megabyte at most.
const LONGEST_TEMPLATE: u64 = 1 << 20;

/// Templates come from S3.
impl TemplateBucket for Objects {
    fn text<'a>(
        &'a self,
        context: &'a Context,
        arn: &'a str,
    ) -> Pending<'a, Result<String, String>> {
        Box::pin(self.0.text(context, arn, LONGEST_TEMPLATE))
    }
}

/// Access logs of load balancers go to S3.
impl LogBuckets for Objects {
    fn put<'a>(
        &'a self,
        region: &'a str,
        bucket: &'a str,
        key: &'a str,
        content: Vec<u8>,
    ) -> Pending<'a, Result<(), String>> {
        Box::pin(async move {
            let principals = delivery(region);
            self.0.deliver(&principals, region, bucket, key, content).await
        })
    }
}

/// Whom the policies of such buckets let in: the service, or, in regions that are older than that name, its account.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/enable-access-logging.html>
fn delivery(region: &str) -> Vec<Principal> {
    const SERVICE: &str = "logdelivery.elasticloadbalancing.amazonaws.com";
    let account = match region {
        "us-east-1" => "127311923021",
        "us-east-2" => "033677994240",
        "us-west-1" => "027434742980",
        "us-west-2" => "797873946194",
        "af-south-1" => "098369216593",
        "ap-east-1" => "754344448648",
        "ap-northeast-1" => "582318560864",
        "ap-northeast-2" => "600734575887",
        "ap-northeast-3" => "383597477331",
        "ap-south-1" => "718504428378",
        "ap-southeast-1" => "114774131450",
        "ap-southeast-2" => "783225319266",
        "ap-southeast-3" => "589379963580",
        "ca-central-1" => "985666609251",
        "eu-central-1" => "054676820928",
        "eu-north-1" => "897822967062",
        "eu-south-1" => "635631232127",
        "eu-west-1" => "156460612806",
        "eu-west-2" => "652711504416",
        "eu-west-3" => "009996457667",
        "me-south-1" => "076674570225",
        "sa-east-1" => "507241528517",
        _ => "elasticloadbalancing",
    };
    let principal = |kind, arn: String| Principal {
        account: account.to_owned(),
        kind,
        user_id: account.to_owned(),
        session_policies: Vec::new(),
        arn,
    };
    vec![
        principal(PrincipalKind::Service { name: SERVICE }, SERVICE.to_owned()),
        principal(PrincipalKind::Root, format!("arn:aws:iam::{account}:root")),
    ]
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

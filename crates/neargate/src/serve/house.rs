//! All services of a control plane: built, shown to the front door, set going.

use super::{ServeError, Settings, connect, engines, load_balancing, measure};
use acm::Acm;
use application_autoscaling::AutoScaling;
use cloudformation::CloudFormation;
use cloudwatch::CloudWatch;
use codebuild::CodeBuild;
use codecommit::{CodeCommit, GitDoor};
use codeconnections::CodeConnections;
use codedeploy::CodeDeploy;
use codepipeline::CodePipeline;
use ec2::Ec2;
use ecr::{Ecr, Registry};
use ecs::{Ecs, LogSinks, Neighbours, Secrets, Surroundings};
use efs::Efs;
use elbv2::ElbV2;
use events::Events;
use iam::Iam;
use images::BlobStore;
use lambda::Lambda;
use logs::Logs;
use logstore::LogStore;
use network::Network;
use resource::Catalog;
use s3::S3;
use s3files::S3Files;
use secretsmanager::SecretsManager;
use servicediscovery::ServiceDiscovery;
use sns::Sns;
use ssm::Ssm;
use std::{net::SocketAddr, sync::Arc};
use store::{Sealer, Store};
use sts::Sts;
use wire::{Front, Limits, RawHandler};
use world::World;

/// The services.
pub(super) struct House {
    pub(super) iam: Arc<Iam>,
    pub(super) network: Arc<Network>,
    pub(super) ecs: Arc<Ecs>,
    pub(super) elb: Arc<ElbV2>,
    pub(super) logs: Arc<Logs>,
    acm: Arc<Acm>,
    stacks: Arc<CloudFormation>,
    cloudwatch: Arc<CloudWatch>,
    codecommit: Arc<CodeCommit>,
    connections: Arc<CodeConnections>,
    builds: Arc<CodeBuild>,
    events: Arc<Events>,
    pipelines: Arc<CodePipeline>,
    deployments: Arc<CodeDeploy>,
    discovery: Arc<ServiceDiscovery>,
    ec2: Arc<Ec2>,
    ecr: Arc<Ecr>,
    s3: Arc<S3>,
    scaling: Arc<AutoScaling>,
    efs: Arc<Efs>,
    s3files: Arc<S3Files>,
    lambda: Arc<Lambda>,
    sns: Arc<Sns>,
    secrets: Arc<SecretsManager>,
    ssm: Arc<Ssm>,
}

impl House {
    /// Builds them over `store`; the front door listens on `address`. None does anything yet.
    pub(super) async fn build(
        settings: &Settings,
        world: &World,
        store: &Store,
        address: SocketAddr,
    ) -> Result<Self, ServeError> {
        let (directory, world, store) = (&settings.data_dir, world.clone(), store.clone());
        let sealer = Arc::new(Sealer::load(directory, world.clone())?);
        let iam = Iam::new(store.clone(), world.clone(), sealer.clone())?;
        let engines = engines(settings, &world).await?;
        let network = engines.network.clone();
        let ec2 = Ec2::new(store.clone(), world.clone(), engines.network, directory.join("ebs"))?;
        let acm = Acm::new(store.clone(), world.clone(), sealer.clone())?;
        let (domain, secured) = (&settings.domain, acm.clone());
        let elb = ElbV2::new(store.clone(), world.clone(), ec2.clone(), secured, domain)?;
        let users = elb.clone();
        acm.used_by(Arc::new(move |arn| users.certificate_users(arn)));
        let discovery = ServiceDiscovery::new(store.clone(), world.clone())?;
        let shared = directory.join("efs");
        let efs = Efs::new(store.clone(), world.clone(), ec2.clone(), iam.clone(), &shared)?;
        efs.sweep().map_err(ServeError::Shared)?;
        let s3 = S3::new(store.clone(), world.clone(), iam.clone(), &directory.join("s3"))?;
        let s3files = S3Files::new(
            store.clone(),
            world.clone(),
            ec2.clone(),
            iam.clone(),
            s3.clone(),
            directory.join("s3files"),
        )?;
        s3files.sweep().map_err(ServeError::Shared)?;
        let ecs = Ecs::new(
            store.clone(),
            world.clone(),
            Neighbours {
                iam: iam.clone(),
                ec2: ec2.clone(),
                elb: elb.clone(),
                discovery: discovery.clone(),
                efs: efs.clone(),
                s3files: s3files.clone(),
            },
            engines.images,
            engines.engine,
        )?;
        let events = LogStore::open(&directory.join("logs"), world.clone())?;
        let blobs = BlobStore::open(&directory.join("registry"), &world)?;
        let (git, door) = (directory.join("codecommit"), address.port());
        let codecommit =
            CodeCommit::new(store.clone(), world.clone(), iam.clone(), &git, domain, door)?;
        let connections =
            CodeConnections::new(store.clone(), world.clone(), settings.git_directory.clone())?;
        let neighbours = codebuild::Neighbours {
            iam: iam.clone(),
            codecommit: codecommit.clone(),
            s3: s3.clone(),
            connections: connections.clone(),
            containers: ecs.clone(),
        };
        let own = directory.join("codebuild");
        let builds = CodeBuild::new(store.clone(), world.clone(), neighbours, &own, door)?;
        let neighbours = codepipeline::Neighbours {
            iam: iam.clone(),
            codecommit: codecommit.clone(),
            connections: connections.clone(),
            s3: s3.clone(),
        };
        let pipelines = CodePipeline::new(store.clone(), world.clone(), neighbours)?;
        let functions = settings.functions.clone();
        let lambda = Lambda::new(store.clone(), world.clone(), sealer.clone(), functions)?;
        let sns = Sns::new(
            store.clone(),
            world.clone(),
            iam.clone(),
            lambda.clone(),
            sealer.clone(),
            address,
        )?;
        let metrics = directory.join("metrics.redb");
        let cloudwatch = CloudWatch::new(store.clone(), world.clone(), &metrics)?;
        let (seen, counted, asked) = (iam.clone(), cloudwatch.clone(), lambda.clone());
        let logs = Logs::new(store.clone(), world.clone(), events, seen, counted, asked)?;
        let sealed = (sealer.clone(), iam.clone());
        let (keeper, known) = (sealer.clone(), iam.clone());
        Ok(Self {
            cloudwatch,
            codecommit,
            connections,
            lambda,
            sns,
            builds,
            pipelines,
            deployments: CodeDeploy::new(store.clone(), world.clone(), iam.clone(), s3.clone())?,
            s3,
            events: Events::new(store.clone(), world.clone(), iam.clone())?,
            stacks: CloudFormation::new(store.clone(), world.clone(), keeper, known, address)?,
            logs,
            ssm: Ssm::new(store.clone(), world.clone(), sealed.0.clone(), sealed.1.clone())?,
            secrets: SecretsManager::new(store.clone(), world.clone(), sealed.0, sealed.1)?,
            ecr: Ecr::new(store.clone(), world.clone(), sealer, iam.clone(), blobs, address)?,
            scaling: AutoScaling::new(store, world)?,
            acm,
            discovery,
            iam,
            network,
            ec2,
            efs,
            s3files,
            elb,
            ecs,
        })
    }

    /// The front door of all of them.
    pub(super) fn front(&self, world: &World) -> Front {
        let services = vec![
            iam::api::service(self.iam.clone()),
            acm::api::service(self.acm.clone()),
            cloudformation::api::service(self.stacks.clone()),
            cloudwatch::api::service(self.cloudwatch.clone()),
            codebuild::api::service(self.builds.clone()),
            codecommit::api::service(self.codecommit.clone()),
            codeconnections::api::service(self.connections.clone()),
            codedeploy::api::service(self.deployments.clone()),
            codepipeline::api::service(self.pipelines.clone()),
            sts::api::service(Sts::new(self.iam.clone())),
            servicediscovery::api::service(self.discovery.clone()),
            ec2::api::service(self.ec2.clone()),
            ecr::api::service(self.ecr.clone()),
            ecs::api::service(self.ecs.clone()),
            efs::api::service(self.efs.clone()),
            s3files::api::service(self.s3files.clone()),
            elbv2::api::service(self.elb.clone()),
            events::api::service(self.events.clone()),
            application_autoscaling::api::service(self.scaling.clone()),
            lambda::api::service(self.lambda.clone()),
            logs::api::service(self.logs.clone()),
            sns::api::service(self.sns.clone()),
            ssm::api::service(self.ssm.clone()),
            secretsmanager::api::service(self.secrets.clone()),
        ];
        let raw: Vec<Arc<dyn RawHandler>> = vec![
            Arc::new(GitDoor(self.codecommit.clone())),
            Arc::new(Registry(self.ecr.clone())),
            Arc::new(codepipeline::Hook(self.pipelines.clone())),
            Arc::new(cloudformation::Answers(self.stacks.clone())),
            Arc::new(sns::Links(self.sns.clone())),
            Arc::new(s3::Door::new(self.s3.clone())),
        ];
        Front::new(services, raw, self.iam.clone(), world.clone(), Limits::default())
    }

    /// Connects them with each other and sets them going.
    pub(super) async fn start(
        &self,
        settings: &Settings,
        world: &World,
        front: &Arc<Front>,
    ) -> Result<(), ServeError> {
        let images = connect::Registries::new(self.ecr.clone(), self.builds.clone(), world)
            .map_err(ServeError::Registries)?;
        let (ssm, secrets) = (self.ssm.clone(), self.secrets.clone());
        let secrets: Arc<dyn Secrets> = Arc::new(connect::Stored { ssm, secrets });
        let logs: Arc<dyn LogSinks> = Arc::new(connect::LogStreams(self.logs.clone()));
        self.ecs
            .start(Surroundings {
                images: Arc::new(images),
                secrets: secrets.clone(),
                files: Arc::new(connect::Objects(self.s3.clone())),
                logs: logs.clone(),
                functions: Arc::new(connect::Invoked(front.clone())),
                alarms: Arc::new(connect::Watching(self.cloudwatch.clone())),
                api: connect::api(front.clone()),
            })
            .await?;
        let buckets = Arc::new(connect::Objects(self.s3.clone()));
        self.elb.start(load_balancing(settings, buckets)?);
        let (ecs, elb) = (self.ecs.clone(), self.elb.clone());
        let cloudwatch = self.cloudwatch.clone();
        self.scaling.start(Arc::new(connect::Services { ecs, elb, cloudwatch }));
        self.logs.start();
        self.acm.start();
        let (lambda, sns) = (self.lambda.clone(), self.sns.clone());
        self.cloudwatch.start(cloudwatch::Told {
            sns: sns.clone(),
            lambda: lambda.clone(),
            scaling: self.scaling.clone(),
        });
        let gauge = measure::Gauge {
            world: world.clone(),
            ecs: self.ecs.clone(),
            elb: self.elb.clone(),
            cloudwatch: self.cloudwatch.clone(),
        };
        world.spawn("metrics of services", measure::drive(gauge));
        self.codecommit.start(codecommit::Told { lambda, sns });
        self.events.start(front.clone());
        self.builds.start(codebuild::Surroundings { front: front.clone(), logs, secrets });
        self.pipelines.start(front.clone());
        self.deployments.start(front.clone());
        self.lambda.start();
        self.sns.start();
        self.ecr.start();
        self.s3.start();
        self.s3files.start();
        self.ssm.start();
        self.secrets.start();
        let bucket = Arc::new(connect::Objects(self.s3.clone()));
        let (front, catalog) = (front.clone(), catalog(&self.stacks, &self.s3, &self.iam));
        self.stacks.start(cloudformation::Surroundings { front, catalog, bucket });
        Ok(())
    }
}

/// All types of resources that stacks can have.
fn catalog(stacks: &Arc<CloudFormation>, s3: &Arc<S3>, iam: &Arc<Iam>) -> Catalog {
    let mut types = cloudformation::resources::types(stacks);
    types.extend([
        acm::resources::types(),
        application_autoscaling::resources::types(),
        cloudwatch::resources::types(),
        codebuild::resources::types(),
        codecommit::resources::types(),
        codeconnections::resources::types(),
        codedeploy::resources::types(),
        codepipeline::resources::types(),
        ec2::resources::types(),
        ecr::resources::types(),
        ecs::resources::types(),
        efs::resources::types(),
        elbv2::resources::types(),
        events::resources::types(),
        iam::resources::types(iam),
        logs::resources::types(),
        s3::resources::types(s3),
        secretsmanager::resources::types(),
        servicediscovery::resources::types(),
        sns::resources::types(),
        ssm::resources::types(),
    ]);
    Catalog::new(types)
}

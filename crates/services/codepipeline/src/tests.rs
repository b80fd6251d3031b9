//! Random histories of pipelines on a simulated disk that crashes at any commit, beside builds that outlive it: what
//! was begun is there and ends, nothing is built twice, a stage has one execution at a time, and what is rolled back
//! ends on the last good version. `SEEDS` says how many histories are tried, `SEED` tries one again.

use crate::{
    CodePipeline, Neighbours,
    api::{self, *},
    model::Execution,
    ops,
};
use codebuild::api as build_api;
use codecommit::CodeCommit;
use codeconnections::CodeConnections;
use ecr::api as ecr_api;
use iam::Iam;
use s3::{S3, model::Bucket};
use serde_json::{Value as Json, json};
use simulation::{Kept, Process, below, handler};
use std::{
    collections::BTreeSet,
    result::Result,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{DiskFault, Store};
use wire::{Context, Fault, Front, Limits, Service};
use world::World;

const REALM: &str = "123456789012/us-east-1";
const PIPELINE: &str = "p";
const LAST: &str = "Deploy";
/// Versions with such numbers cannot be deployed.
const BAD: fn(u32) -> bool = |version| version % 4 == 3;

/// A build.
#[derive(Clone, Debug)]
struct Build {
    id: String,
    token: String,
    project: String,
    version: u32,
    /// So many looks until it is over.
    slow: u32,
    fails: bool,
}

/// What outlives crashes.
#[derive(Default)]
struct Outside {
    builds: Vec<Build>,
    /// Whether several executions may be in a stage.
    parallel: bool,
    /// Whether someone did not wait for what was under way.
    abandoned: bool,
}

impl simulation::Outside for Outside {
    fn check(&self) {
        let running = |project: &str| {
            let own = self.builds.iter().filter(|build| build.project == project);
            own.filter(|build| build.slow > 0).count()
        };
        if !self.parallel && !self.abandoned {
            for project in ["one", "other", "deploy"] {
                assert!(
                    running(project) <= 1,
                    "{project} is built twice at once: {:?}",
                    self.builds
                );
            }
        }
    }
}

type Shared = Arc<Mutex<Outside>>;

fn registry(world: &World, outside: &Shared) -> Service {
    use ecr_api::*;
    Service::new(&SPEC)
        .operation(
            &OP_DESCRIBE_IMAGES,
            handler("ecr:DescribeImages", world, outside, |_, _, input: DescribeImagesRequest| {
                let [id] = &input.image_ids.unwrap()[..] else { panic!() };
                let image = ImageDetail {
                    // The execution that a new pipeline begins with has whatever is there.
                    image_digest: Some(id.image_digest.clone().unwrap_or("sha256:0".to_owned())),
                    registry_id: Some(simulation::ACCOUNT.to_owned()),
                    ..Default::default()
                };
                Ok(DescribeImagesResponse { image_details: Some(vec![image]), next_token: None })
            }),
        )
        .operation(
            &OP_DESCRIBE_REPOSITORIES,
            handler(
                "ecr:DescribeRepositories",
                world,
                outside,
                |_, _, _: DescribeRepositoriesRequest| {
                    let uri = Some("registry/app".to_owned());
                    let repository = Repository { repository_uri: uri, ..Default::default() };
                    let repositories = Some(vec![repository]);
                    Ok(DescribeRepositoriesResponse { repositories, next_token: None })
                },
            ),
        )
}

fn builds(world: &World, outside: &Shared) -> Service {
    use build_api::*;
    let told = |build: &self::Build| build_api::Build {
        id: Some(build.id.clone()),
        build_status: Some(match (build.slow, build.fails) {
            (1.., _) => StatusType::InProgress,
            (0, true) => StatusType::Failed,
            (0, false) => StatusType::Succeeded,
        }),
        ..Default::default()
    };
    Service::new(&SPEC)
        .operation(
            &OP_START_BUILD,
            handler(
                "codebuild:StartBuild",
                world,
                outside,
                move |outside: &mut Outside, world, input: StartBuildInput| {
                    let token = input.idempotency_token.unwrap();
                    if let Some(known) = outside.builds.iter().find(|build| build.token == token) {
                        return Ok(StartBuildOutput { build: Some(told(known)) });
                    }
                    let variables = input.environment_variables_override.unwrap();
                    let version = variables[0].value.trim_start_matches("sha256:").parse().unwrap();
                    let last = input.project_name == "deploy";
                    let made = self::Build {
                        id: format!("{}:{}", input.project_name, outside.builds.len()),
                        token,
                        project: input.project_name,
                        version,
                        slow: 1 + below(world, 30),
                        fails: if last { BAD(version) } else { below(world, 12) == 0 },
                    };
                    outside.builds.push(made.clone());
                    Ok(StartBuildOutput { build: Some(told(&made)) })
                },
            ),
        )
        .operation(
            &OP_BATCH_GET_BUILDS,
            handler(
                "codebuild:BatchGetBuilds",
                world,
                outside,
                move |outside: &mut Outside, _, input: BatchGetBuildsInput| {
                    let found =
                        outside.builds.iter_mut().filter(|build| input.ids.contains(&build.id));
                    let found = found.map(|build| {
                        build.slow = build.slow.saturating_sub(1);
                        told(build)
                    });
                    let builds = Some(found.collect());
                    Ok(BatchGetBuildsOutput { builds, builds_not_found: None })
                },
            ),
        )
}

/// What a crash ends.
struct Life {
    world: World,
    house: Arc<CodePipeline>,
    root: Context,
    front: Arc<Front>,
}

impl simulation::Life for Life {
    fn world(&self) -> &World {
        &self.world
    }
}

struct History {
    process: Process<Life>,
    outside: Shared,
    /// The mode of the pipeline, and what its last stage does after a failure.
    mode: ExecutionMode,
    on_failure: Option<api::Result>,
    versions: u32,
    /// The ids of executions that were begun.
    begun: BTreeSet<String>,
    /// Those that were to be stopped.
    stopped: BTreeSet<String>,
}

fn live(kept: &Kept, world: World, outside: &Shared) -> Life {
    let store = Store::on(&kept.disk, world.clone());
    let iam = Iam::new(store.clone(), world.clone(), kept.sealer.clone()).unwrap();
    let place = |name: &str| kept.directory.path().join(name);
    let s3 = S3::new(store.clone(), world.clone(), iam.clone(), &place("s3")).unwrap();
    let git = place("git");
    let codecommit = CodeCommit::new(store.clone(), world.clone(), iam.clone(), &git, "local", 1);
    let connections = CodeConnections::new(store.clone(), world.clone(), None).unwrap();
    let neighbours =
        Neighbours { iam: iam.clone(), codecommit: codecommit.unwrap(), connections, s3 };
    let house = CodePipeline::new(store, world.clone(), neighbours).unwrap();
    let root = simulation::root(&world, iam.clone());
    let services = vec![
        iam::api::service(iam.clone()),
        crate::api::service(house.clone()),
        registry(&world, outside),
        builds(&world, outside),
    ];
    let front = Arc::new(Front::new(services, Vec::new(), iam, world.clone(), Limits::default()));
    house.start(front.clone());
    Life { world, house, root, front }
}

fn action(name: &str, category: &str, provider: &str, order: i32, configuration: Json) -> Json {
    let kind = json!({"category": category, "owner": "AWS", "provider": provider, "version": "1"});
    json!({"name": name, "actionTypeId": kind, "runOrder": order, "configuration": configuration})
}

fn build(name: &str, order: i32) -> Json {
    let variables = r##"[{"name": "VERSION", "value": "#{source.ImageDigest}"}]"##;
    let configuration = json!({"ProjectName": name, "EnvironmentVariables": variables});
    let mut action = action(name, "Build", "CodeBuild", order, configuration);
    action["inputArtifacts"] = json!([{"name": "Image"}]);
    action
}

impl History {
    async fn new(seed: u64) -> Self {
        let outside = Shared::default();
        let shared = outside.clone();
        let process = Process::new(seed, move |kept, world| live(kept, world, &shared));
        let modes = [ExecutionMode::Superseded, ExecutionMode::Queued, ExecutionMode::Parallel];
        let mode = modes[process.below(3) as usize];
        let after = [None, Some(api::Result::Rollback), Some(api::Result::Retry)];
        // Stages of pipelines that run in parallel are not rolled back.
        let kinds = if mode == ExecutionMode::Parallel { 1 } else { 3 };
        let on_failure = after[process.below(kinds) as usize];
        outside.lock().unwrap().parallel = mode == ExecutionMode::Parallel;
        let history = Self {
            process,
            outside,
            mode,
            on_failure,
            versions: 0,
            begun: BTreeSet::new(),
            stopped: BTreeSet::new(),
        };
        history.make().await;
        history.process.unsettle();
        history
    }

    /// Makes the role, the bucket and the pipeline.
    async fn make(&self) {
        let trust = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": "codepipeline.amazonaws.com"}}}"#;
        let all = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
        let mut image = action("Image", "Source", "ECR", 1, json!({"RepositoryName": "app"}));
        image["namespace"] = json!("source");
        image["outputArtifacts"] = json!([{"name": "Image"}]);
        let mut last = json!({"name": LAST, "actions": [build("deploy", 1)]});
        if let Some(result) = self.on_failure {
            last["onFailure"] = json!({"result": result.as_str()});
        }
        let stages = json!([
            {"name": "Source", "actions": [image]},
            {"name": "Build", "actions": [build("one", 1), build("other", 1), build("one-more", 2)]},
            {"name": "Gate", "actions": [action("Gate", "Approval", "Manual", 1, json!({}))]},
            last,
        ]);
        let pipeline = json!({
            "name": PIPELINE, "roleArn": "arn:aws:iam::123456789012:role/pipes", "stages": stages,
            "artifactStore": {"type": "S3", "location": "artifacts"}, "pipelineType": "V2",
            "executionMode": self.mode.as_str(),
        });
        let named = |policy: &str| json!({"RoleName": "pipes", "PolicyName": "all", "PolicyDocument": policy});
        let bucket = Bucket {
            name: "artifacts".to_owned(),
            account: simulation::ACCOUNT.to_owned(),
            region: simulation::REGION.to_owned(),
            created: self.process.life.world.now(),
            tags: Default::default(),
            policy: None,
            versioning: Default::default(),
            kms: false,
            public_access: None,
            lifecycle: Vec::new(),
            event_bridge: false,
        };
        let made = self.process.life.house.store.write(move |tx| {
            tx.put(bucket);
            Ok::<_, DiskFault>(())
        });
        made.await.unwrap();
        let Life { front, root, .. } = &self.process.life;
        for (service, operation, request) in [
            ("iam", "CreateRole", json!({"RoleName": "pipes", "AssumeRolePolicyDocument": trust})),
            ("iam", "PutRolePolicy", named(all)),
            ("codepipeline", "CreatePipeline", json!({"pipeline": pipeline})),
        ] {
            front.call(root.clone(), service, operation, request).await.unwrap();
        }
    }

    fn below(&self, bound: u32) -> u32 {
        self.process.below(bound)
    }

    /// Calls an operation; nothing when the process crashed meanwhile.
    async fn call<T>(
        &mut self,
        call: impl AsyncFn(&CodePipeline, &Context) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let called = self.process.call(async |life| {
            let mut root = life.root.clone();
            root.now = life.world.now();
            call(&life.house, &root).await
        });
        called.await
    }

    /// The oldest first.
    fn all(&self) -> Vec<Arc<Execution>> {
        let prefix = Execution::prefix_of(REALM, PIPELINE);
        self.process.life.house.store.read().scan_prefix::<Execution>(&prefix).collect()
    }

    /// What must hold at any time.
    fn look(&self) -> Vec<Arc<Execution>> {
        let all = self.all();
        for id in &self.begun {
            assert!(all.iter().any(|execution| execution.id == *id), "{id} is lost");
        }
        let open = || all.iter().filter(|execution| execution.is_open() && !execution.waiting);
        if self.mode != ExecutionMode::Parallel {
            for at in 0..4 {
                let within: Vec<_> = open().filter(|execution| execution.at == at).collect();
                assert!(within.len() <= 1, "{} executions are in stage {at}", within.len());
            }
        }
        all
    }

    async fn wait(&mut self) {
        let wait = Duration::from_millis(self.below(4000).into());
        self.process.wait(wait).await;
    }

    async fn begin(&mut self) {
        self.versions += 1;
        let (version, again) = (self.versions, self.below(3) == 0);
        let start = async |history: &mut Self| {
            let started = history.call(async move |house, root| {
                let revision = SourceRevisionOverride {
                    action_name: "Image".to_owned(),
                    revision_type: SourceRevisionType::ImageDigest,
                    revision_value: format!("sha256:{version}"),
                };
                let input = StartPipelineExecutionInput {
                    name: PIPELINE.to_owned(),
                    client_request_token: Some(format!("token-{version}")),
                    source_revisions: Some(vec![revision]),
                    variables: None,
                };
                ops::execution::start_pipeline_execution(house, root, input).await
            });
            let started = started.await?.unwrap();
            started.pipeline_execution_id
        };
        let id = start(self).await;
        if let Some(id) = &id {
            self.begun.insert(id.clone());
        }
        if again || id.is_none() {
            // The client did not hear, and asks again with the same token.
            if let Some(second) = start(self).await {
                assert!(id.is_none_or(|first| first == second));
                self.begun.insert(second);
            }
        }
    }

    /// What somebody does about one execution.
    async fn meddle(&mut self, execution: &Execution) {
        let (id, choice, abandon) = (execution.id.clone(), self.below(40), self.below(4) == 0);
        let waits = execution.stages.iter().flat_map(|stage| &stage.actions);
        let waits = waits.into_iter().find(|run| run.is_under_way() && run.token.is_some());
        match (choice, waits.and_then(|run| run.token.clone())) {
            (0, _) => {
                self.stopped.insert(id.clone());
                if abandon {
                    self.outside.lock().unwrap().abandoned = true;
                }
                self.call(async move |house, root| {
                    let input = StopPipelineExecutionInput {
                        pipeline_name: PIPELINE.to_owned(),
                        pipeline_execution_id: id.clone(),
                        abandon: Some(abandon),
                        reason: None,
                    };
                    ops::execution::stop_pipeline_execution(house, root, input).await
                })
                .await;
            }
            (1..20, Some(token)) => {
                let status = match choice {
                    1 => ApprovalStatus::Rejected,
                    _ => ApprovalStatus::Approved,
                };
                self.call(async move |house, root| {
                    let input = PutApprovalResultInput {
                        pipeline_name: PIPELINE.to_owned(),
                        stage_name: "Gate".to_owned(),
                        action_name: "Gate".to_owned(),
                        result: ApprovalResult { status, summary: String::new() },
                        token: token.clone(),
                    };
                    ops::approval::put_approval_result(house, root, input).await
                })
                .await;
            }
            _ => {}
        }
    }

    /// Waits until every execution is over, through crashes and whatever somebody does.
    async fn rest(&mut self) {
        for _ in 0..20_000 {
            let open: Vec<_> = self.look().into_iter().filter(|one| one.is_open()).collect();
            if open.is_empty() {
                return;
            }
            let one = open[self.below(open.len() as u32) as usize].clone();
            self.meddle(&one).await;
            self.wait().await;
        }
        let open: Vec<_> = self.all().into_iter().filter(|one| one.is_open()).collect();
        let told: Vec<_> = open.iter().map(|one| (one.number, one.at, one.waiting)).collect();
        panic!("{told:?} do not end");
    }

    /// What must hold when everything is over.
    fn check(&self) {
        use PipelineExecutionStatus::{Failed, Stopped, Succeeded, Superseded};
        let all = self.look();
        let outside = self.outside.lock().unwrap();
        let version = |execution: &Execution| -> u32 {
            let back = execution.rollback.as_ref();
            let back = back.map(|id| all.iter().find(|other| other.id == *id).expect("it is kept"));
            let token = back.map_or(&execution.token, |target| &target.token).as_deref();
            token.map_or(0, |token| token.trim_start_matches("token-").parse().unwrap())
        };
        for execution in &all {
            let id = &execution.id;
            match execution.status {
                Stopped => assert!(self.stopped.contains(id), "nobody stopped {id}"),
                Superseded => {
                    assert_eq!(self.mode, ExecutionMode::Superseded);
                    let newer = |other: &&Arc<Execution>| other.number > execution.number;
                    assert!(all.iter().any(|other| newer(&other)), "{id} is the newest");
                }
                Succeeded | Failed => {}
                other => panic!("{id} is {other:?}"),
            }
            let stages = execution.stages.iter().flat_map(|stage| &stage.actions);
            for run in stages.filter(|run| !run.id.is_empty()) {
                let own = |build: &&Build| build.token.ends_with(&run.id);
                let own: Vec<_> = outside.builds.iter().filter(own).collect();
                assert!(own.len() <= 1, "{own:?}");
                assert!(own.iter().all(|build| build.version == version(execution)), "{own:?}");
                let kind = &run.declaration.action_type_id.provider;
                if kind == "CodeBuild" && run.status == Some(ActionExecutionStatus::Succeeded) {
                    assert!(own.len() == 1 && own[0].slow == 0 && !own[0].fails, "{own:?}");
                }
            }
        }
        let deployed: Vec<_> =
            outside.builds.iter().filter(|one| one.project == "deploy").collect();
        let mut seen = BTreeSet::new();
        assert!(outside.builds.iter().all(|build| seen.insert(&build.token)), "built twice");
        if self.mode != ExecutionMode::Parallel && self.on_failure.is_none() {
            // In their order, be they queued or overtaken.
            assert!(deployed.is_sorted_by_key(|build| build.version), "{deployed:?}");
        }
        if self.on_failure != Some(api::Result::Rollback) {
            return;
        }
        for failed in all.iter().filter(|one| one.status == Failed && one.at == 3) {
            let back = all.iter().find(|one| one.trigger_detail.contains(&failed.id));
            let good = all.iter().filter(|one| {
                let run = &one.stages[3];
                one.rollback.is_none()
                    && run.status == Some(StageExecutionStatus::Succeeded)
                    && run.entered < failed.stages[3].entered
            });
            let good = good.max_by_key(|one| one.stages[3].entered);
            if let Some(back) = back {
                let entries = all.iter().map(|one| one.stages[3].entered);
                let next = entries.filter(|at| *at > failed.stages[3].entered).min();
                assert_eq!(next, Some(back.stages[3].entered), "what is new comes before");
            }
            let back = back.map(|back| version(back));
            let expected = good.filter(|_| failed.rollback.is_none()).map(|good| version(good));
            assert_eq!(back, expected, "what is rolled back ends on the last good version");
        }
    }

    async fn run(mut self) {
        for _ in 0..4 {
            for _ in 0..1 + self.below(4) {
                self.begin().await;
                for _ in 0..self.below(20) {
                    self.wait().await;
                }
            }
            self.rest().await;
            self.check();
        }
        self.process.life.world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn executions_come_to_rest_whatever_happens() {
    for seed in simulation::seeds(40) {
        eprintln!("again: SEED={seed} cargo test -p codepipeline executions_come_to_rest");
        History::new(seed).await.run().await;
    }
}

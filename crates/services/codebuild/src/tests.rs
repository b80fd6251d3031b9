//! Random histories of builds on a simulated disk that crashes at any commit, in containers that outlive it, end well
//! or badly or never, and are lost now and then: every build ends as its container said, none runs twice, no more run
//! at once than may, and nothing of them is left. `SEEDS` says how many histories are tried, `SEED` tries one again.

use crate::{
    CodeBuild, Neighbours, Surroundings,
    api::*,
    containers::{Beside, Containers},
    model::{Build, Stage},
    ops::{self, build::most_at_once},
    script,
};
use async_trait::async_trait;
use codecommit::CodeCommit;
use codeconnections::CodeConnections;
use ecs::{LogSink, LogSinks, LogTarget, Pending, SandboxRequest, SandboxState, Secrets};
use iam::Iam;
use s3::S3;
use serde::{Deserialize, Serialize};
use serde_json::json;
use simulation::{Kept, Process, below};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    ops::Range,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{DiskFault, Record, Store, Tx};
use tempfile::TempDir;
use wire::{Context, Fault, Front, Limits, Principal};
use world::{Timestamp, World};

const REALM: &str = "123456789012/us-east-1";
const ROLE: &str = "arn:aws:iam::123456789012:role/builds";
const BUILDSPEC: &str = "
version: 0.2
env: {exported-variables: [RESULT]}
phases:
  build: {commands: [make]}
";
/// How often what runs containers looks at them.
const LOOK: Duration = Duration::from_millis(300);

/// A container that its record wants, as ECS keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wanted {
    id: String,
    stop: bool,
}

impl Record for Wanted {
    const TABLE: &'static str = "test.container";
    fn key(&self) -> String {
        self.id.clone()
    }
}

/// What becomes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    /// Its command fails.
    Bad,
    /// It ends before its commands do.
    Killed,
    /// What holds it is lost before it begins.
    Lost,
    /// It cannot be started.
    Refused,
    /// It never ends.
    Endless,
}

/// A container.
struct Container {
    fate: Fate,
    /// What it is going to write, and when.
    lines: Vec<(Timestamp, String)>,
    over: Option<SandboxState>,
    root: TempDir,
}

impl Container {
    fn new(world: &World, now: Timestamp) -> Self {
        let fate = match below(world, 12) {
            0 | 1 => Fate::Bad,
            2 => Fate::Killed,
            3 => Fate::Lost,
            4 => Fate::Refused,
            5 => Fate::Endless,
            _ => Fate::Good,
        };
        let root = tempfile::tempdir().unwrap();
        let agent = root.path().join(&script::AGENT[1..]);
        fs::create_dir_all(agent.join("exported")).unwrap();
        fs::write(agent.join("exported/RESULT"), format!("{fate:?}")).unwrap();
        File::create(agent.join(script::PROGRESS)).unwrap();
        let said: &[&str] = match fate {
            Fate::Good => &["begin", "enter BUILD", "leave BUILD", "done 1"],
            Fate::Bad => &["begin", "enter BUILD", "leave BUILD 0 2", "done 0"],
            Fate::Killed | Fate::Endless => &["begin", "enter BUILD"],
            Fate::Lost | Fate::Refused => &[],
        };
        let mut at = now;
        let line = |said: &&str| {
            at = at + Duration::from_millis(u64::from(below(world, 30_000)));
            (at, format!("{}000000 {said}\n", at.millis()))
        };
        Self { fate, lines: said.iter().map(line).collect(), over: None, root }
    }

    /// Whether its command began.
    fn ran(&self) -> bool {
        !matches!(self.fate, Fate::Lost | Fate::Refused)
    }

    fn end(&mut self, reason: &str, exit_code: Option<i32>) {
        let (reason, lost) = (reason.to_owned(), self.fate == Fate::Lost);
        self.over.get_or_insert(SandboxState::Over { reason, exit_code, ran: self.ran(), lost });
    }

    /// Does what it has done by now.
    fn live(&mut self, now: Timestamp) {
        if self.over.is_some() {
            return;
        }
        let progress = format!("{}/{}", &script::AGENT[1..], script::PROGRESS);
        let mut file = File::options().append(true).open(self.root.path().join(progress)).unwrap();
        while self.lines.first().is_some_and(|(at, _)| *at <= now) {
            file.write_all(self.lines.remove(0).1.as_bytes()).unwrap();
        }
        match self.fate {
            Fate::Lost => self.end("its owner died", None),
            Fate::Refused => self.end("CannotStartContainerError: no", None),
            Fate::Killed if self.lines.is_empty() => self.end("OutOfMemoryError", Some(137)),
            _ => {}
        }
    }
}

/// What outlives crashes: the containers, by id.
#[derive(Default)]
struct Outside {
    containers: BTreeMap<String, Container>,
}

impl Outside {
    fn check(&self) {
        let running = self.containers.values().filter(|one| one.over.is_none()).count();
        assert!(running <= most_at_once(), "{running} run at once");
        // An id is a build's digits, or those and a number.
        let mut ran = BTreeSet::new();
        for (id, container) in &self.containers {
            let build = id.split('-').next().unwrap_or_default();
            assert!(!container.ran() || ran.insert(build), "{build} has run twice");
        }
    }
}

type Shared = Arc<Mutex<Outside>>;

/// Runs containers for one life.
struct Runs {
    store: Store,
    world: World,
    outside: Shared,
}

impl Runs {
    /// What holds containers: it starts and ends what the records say.
    async fn drive(self: Arc<Self>) {
        loop {
            self.world.sleep(LOOK).await;
            let now = self.world.now();
            let mut outside = self.outside.lock().unwrap();
            for wanted in self.store.read().scan::<Wanted>() {
                let known = outside.containers.contains_key(&wanted.id);
                if !known && !wanted.stop {
                    let container = Container::new(&self.world, now);
                    outside.containers.insert(wanted.id.clone(), container);
                }
                if let Some(container) = outside.containers.get_mut(&wanted.id) {
                    if wanted.stop {
                        container.end("The build is over.", None);
                    }
                    container.live(now);
                }
            }
            outside.check();
        }
    }
}

#[async_trait]
impl Containers for Runs {
    async fn fetch_image(
        &self,
        _: &str,
        _: &str,
        _: Option<&str>,
        _: &Principal,
    ) -> Result<(), String> {
        self.world.sleep(Duration::from_millis(below(&self.world, 3000).into())).await;
        match below(&self.world, 30) {
            0 => Err("the registry does not answer".to_owned()),
            _ => Ok(()),
        }
    }

    async fn start(&self, request: SandboxRequest, beside: Beside) -> Result<(), DiskFault> {
        let write = self.store.write(move |tx| {
            if tx.get::<Wanted>(&request.id).is_none() {
                tx.put(Wanted { id: request.id, stop: false });
            }
            beside(tx);
            Ok::<_, DiskFault>(())
        });
        write.await
    }

    fn state(&self, _: &str, id: &str) -> Option<SandboxState> {
        let wanted = self.store.read().get::<Wanted>(id)?;
        let outside = self.outside.lock().unwrap();
        Some(match outside.containers.get(id) {
            Some(Container { over: Some(over), .. }) => over.clone(),
            Some(_) => SandboxState::Running,
            None if wanted.stop => SandboxState::Over {
                reason: "The build is over.".to_owned(),
                exit_code: None,
                ran: false,
                lost: false,
            },
            None => SandboxState::Starting,
        })
    }

    fn stop(&self, tx: &mut Tx, _: &str, id: &str) {
        tx.update::<Wanted>(id, |wanted| wanted.stop = true);
    }

    async fn root(&self, id: &str) -> Result<OwnedFd, String> {
        let outside = self.outside.lock().unwrap();
        let container = outside.containers.get(id).filter(|one| one.over.is_none());
        let container = container.ok_or("it does not run")?;
        Ok(File::open(container.root.path()).map_err(|error| error.to_string())?.into())
    }

    fn root_id(&self, _: &str) -> Option<u32> {
        None
    }

    fn table(&self) -> &'static str {
        Wanted::TABLE
    }
}

/// Logs go nowhere; secrets there are none.
struct Nowhere;

impl LogSinks for Nowhere {
    fn open<'a>(
        &'a self,
        _: &'a LogTarget,
        _: &'a Principal,
    ) -> Pending<'a, Result<Arc<dyn LogSink>, String>> {
        Box::pin(async { Ok(Arc::new(Self) as Arc<dyn LogSink>) })
    }
}

impl LogSink for Nowhere {
    fn mark<'a>(&'a self, _: &'a str) -> Pending<'a, Result<u64, String>> {
        Box::pin(async { Ok(0) })
    }

    fn append<'a>(
        &'a self,
        _: &'a str,
        _: Range<u64>,
        _: &'a [(i64, String)],
    ) -> Pending<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

impl Secrets for Nowhere {
    fn value<'a>(
        &'a self,
        _: &'a str,
        _: &'a Principal,
        from: &'a str,
    ) -> Pending<'a, Result<String, String>> {
        Box::pin(async move { Err(format!("there is no {from}")) })
    }
}

/// What a crash ends.
struct Life {
    world: World,
    house: Arc<CodeBuild>,
    root: Context,
    front: Arc<Front>,
}

impl simulation::Life for Life {
    fn world(&self) -> &World {
        &self.world
    }
}

fn live(kept: &Kept, world: World, outside: &Shared) -> Life {
    let store = Store::on(&kept.disk, world.clone());
    store.declare::<Wanted>().unwrap();
    let iam = Iam::new(store.clone(), world.clone(), kept.sealer.clone()).unwrap();
    let at = |name: &str| kept.directory.path().join(name);
    let s3 = S3::new(store.clone(), world.clone(), iam.clone(), &at("s3")).unwrap();
    let (git, domain) = (at("git"), "localhost");
    let codecommit =
        CodeCommit::new(store.clone(), world.clone(), iam.clone(), &git, domain, 1).unwrap();
    let connections = CodeConnections::new(store.clone(), world.clone(), None).unwrap();
    let runs =
        Arc::new(Runs { store: store.clone(), world: world.clone(), outside: outside.clone() });
    let neighbours =
        Neighbours { iam: iam.clone(), codecommit, s3, connections, containers: runs.clone() };
    let house = CodeBuild::new(store, world.clone(), neighbours, &at("builds"), 1).unwrap();
    let root = simulation::root(&world, iam.clone());
    let services = vec![iam::api::service(iam.clone()), crate::api::service(house.clone())];
    let front = Arc::new(Front::new(services, Vec::new(), iam, world.clone(), Limits::default()));
    let nowhere = Arc::new(Nowhere);
    let (logs, secrets) = (nowhere.clone(), nowhere);
    house.start(Surroundings { front: front.clone(), logs, secrets });
    world.spawn("containers", runs.drive());
    Life { world, house, root, front }
}

struct History {
    process: Process<Life>,
    outside: Shared,
    /// Tokens of the builds that were asked for.
    tokens: u32,
    /// Builds that somebody stopped.
    stopped: BTreeSet<String>,
}

impl History {
    async fn new(seed: u64) -> Self {
        let outside = Shared::default();
        let shared = outside.clone();
        let process = Process::new(seed, move |kept, world| live(kept, world, &shared));
        let history = Self { process, outside, tokens: 0, stopped: BTreeSet::new() };
        history.make().await;
        history.process.unsettle();
        history
    }

    fn below(&self, bound: u32) -> u32 {
        self.process.below(bound)
    }

    /// Makes the role and the project.
    async fn make(&self) {
        let trust = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": "codebuild.amazonaws.com"}}}"#;
        let project = json!({
            "name": "project", "source": {"type": "NO_SOURCE", "buildspec": BUILDSPEC},
            "artifacts": {"type": "NO_ARTIFACTS"}, "serviceRole": ROLE, "timeoutInMinutes": 5,
            "queuedTimeoutInMinutes": 5,
            "environment": {"type": "LINUX_CONTAINER", "image": "busybox", "computeType": "BUILD_GENERAL1_SMALL"},
        });
        let Life { front, root, .. } = &self.process.life;
        let role = json!({"RoleName": "builds", "AssumeRolePolicyDocument": trust});
        for (service, operation, request) in
            [("iam", "CreateRole", role), ("codebuild", "CreateProject", project)]
        {
            front.call(root.clone(), service, operation, request).await.unwrap();
        }
    }

    /// Calls an operation; nothing when the process crashed meanwhile.
    async fn call<T>(
        &mut self,
        call: impl AsyncFn(&CodeBuild, &Context) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let called = self.process.call(async |life| {
            let mut root = life.root.clone();
            root.now = life.world.now();
            call(&life.house, &root).await
        });
        called.await
    }

    fn all(&self) -> Vec<Arc<Build>> {
        let store = &self.process.life.house.store;
        store.read().scan_prefix::<Build>(&format!("{REALM}/")).collect()
    }

    /// Begins a build, however often the process crashes.
    async fn begin(&mut self) {
        self.tokens += 1;
        let token = format!("token-{}", self.tokens);
        loop {
            let (asked, before) = (token.clone(), self.all().len());
            let begun = self.call(async move |house, root| {
                let input = StartBuildInput {
                    project_name: "project".to_owned(),
                    idempotency_token: Some(asked.clone()),
                    ..StartBuildInput::default()
                };
                ops::build::start_build(house, root, input).await
            });
            match begun.await {
                Some(Ok(_)) => return,
                // Too many wait: nothing was begun.
                Some(Err(fault)) if fault.is_sender() => {
                    assert_eq!(self.all().len(), before, "{}", fault.message);
                    self.tokens -= 1;
                    return;
                }
                Some(Err(_)) | None => {}
            }
        }
    }

    async fn stop(&mut self) {
        let open: Vec<_> = self.all().into_iter().filter(|build| build.is_open()).collect();
        let Some(build) = open.get(self.below(open.len().max(1) as u32) as usize) else { return };
        let id = build.name();
        self.stopped.insert(build.id.clone());
        self.call(async move |house, root| {
            let input = StopBuildInput { id: id.clone() };
            ops::build::stop_build(house, root, input).await.map(drop)
        })
        .await;
    }

    /// Waits until nothing is left of any build.
    async fn rest(&mut self) {
        for _ in 0..4000 {
            if self.all().iter().all(|build| build.stage == Stage::Clean) {
                return;
            }
            self.process.wait(Duration::from_millis(500)).await;
        }
        let left: Vec<_> = self.all().iter().map(|one| (one.name(), one.stage)).collect();
        panic!("builds do not end: {left:?}");
    }

    /// What must hold when everything is over.
    fn check(&self) {
        let outside = self.outside.lock().unwrap();
        outside.check();
        let all = self.all();
        assert_eq!(all.len(), self.tokens as usize, "each is begun once");
        for (id, container) in &outside.containers {
            assert!(container.over.is_some(), "the container {id} runs on");
        }
        for build in all {
            let document = &build.document;
            let whole = document.build_complete == Some(true) && document.end_time.is_some();
            assert!(whole, "{} {:?}", build.name(), build.status());
            assert!(
                !self.process.life.house.build_directory(&build).exists(),
                "its files are left"
            );
            let fate = outside.containers.get(&build.sandbox()).map(|container| container.fate);
            let stopped = self.stopped.contains(&build.id);
            let phases = document.phases.iter().flatten();
            let why: Vec<_> = phases
                .flat_map(|phase| phase.contexts.iter().flatten())
                .filter_map(|context| context.status_code.clone())
                .filter(|code| !code.is_empty())
                .collect();
            match (build.status(), fate) {
                (StatusType::Succeeded, Some(Fate::Good)) => {
                    let exported = document.exported_environment_variables.as_ref().unwrap();
                    assert_eq!(exported[0].value.as_deref(), Some("Good"));
                }
                (StatusType::Failed, Some(Fate::Bad)) => {
                    assert!(why.contains(&"COMMAND_EXECUTION_ERROR".to_owned()), "{why:?}");
                }
                (StatusType::Failed, Some(Fate::Killed | Fate::Refused | Fate::Lost)) => {
                    assert_eq!(why, ["CLIENT_ERROR"]);
                }
                // The registry did not answer, or the role's session was over.
                (StatusType::Failed, None) => {
                    assert_eq!(why, ["BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE"]);
                }
                (StatusType::TimedOut, _) => assert_eq!(why.last().unwrap(), "BUILD_TIMED_OUT"),
                (StatusType::Stopped, _) => assert!(stopped, "nobody stopped {}", build.name()),
                (status, fate) => panic!("{} {status:?} {fate:?} {why:?}", build.name()),
            }
        }
    }

    async fn run(mut self) {
        for _ in 0..60 {
            match self.below(6) {
                0 | 1 => self.begin().await,
                2 if self.below(4) == 0 => self.stop().await,
                _ => {
                    let wait = Duration::from_millis(u64::from(self.below(20_000)));
                    self.process.wait(wait).await;
                }
            }
        }
        self.rest().await;
        self.check();
        self.process.life.world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn builds_come_to_rest_whatever_happens() {
    for seed in simulation::seeds(20) {
        eprintln!("again: SEED={seed} cargo test -p codebuild builds_come_to_rest");
        History::new(seed).await.run().await;
    }
}

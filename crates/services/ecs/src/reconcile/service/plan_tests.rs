//! Plans in a simulated world: tasks start, fail, hang, crash and fall ill at random, and somebody keeps changing what
//! is wanted. `SEEDS` says how many histories are tried, `SEED` tries one again.

use super::*;
use crate::{
    api::{
        AvailabilityZoneRebalancing, AwsVpcConfiguration, DeploymentCircuitBreaker,
        DeploymentConfiguration, LaunchType, NetworkConfiguration, PropagateTags, TaskStopCode,
    },
    model::{Container, Revision, TargetState, TaskDefinition, TaskTarget},
};
use world::World;

const START: i64 = 1_800_000_000_000;
/// Revisions with these numbers never start.
const BAD: fn(i32) -> bool = |revision| revision % 3 == 0;

struct History {
    world: World,
    now: Timestamp,
    service: Service,
    tasks: Vec<Task>,
    revisions: i32,
    deployments: u32,
    events: Vec<String>,
    /// Whether it is behind a load balancer.
    balanced: bool,
}

fn network() -> NetworkConfiguration {
    let subnets = vec!["subnet-a".to_owned(), "subnet-b".to_owned(), "subnet-c".to_owned()];
    let awsvpc = AwsVpcConfiguration { subnets, security_groups: None, assign_public_ip: None };
    NetworkConfiguration { awsvpc_configuration: Some(awsvpc) }
}

fn revision(number: i32) -> Revision {
    Revision {
        family: "f".to_owned(),
        revision: number,
        launch_type: Some(LaunchType::Fargate),
        strategy: Vec::new(),
        platform_version: "1.4.0".to_owned(),
        network: network(),
        load_balancers: Vec::new(),
    }
}

fn service(desired: i32, breaker: bool, (fewest, most): (i32, i32), now: Timestamp) -> Service {
    let breaker = DeploymentCircuitBreaker { enable: breaker, rollback: breaker };
    Service {
        realm: "1/r".to_owned(),
        cluster: "c".to_owned(),
        name: "s".to_owned(),
        status: ServiceStatus::Active,
        desired_count: desired,
        deployments: vec![Deployment::new("ecs-svc/0".to_owned(), revision(1), desired, now)],
        configuration: DeploymentConfiguration {
            deployment_circuit_breaker: Some(breaker),
            maximum_percent: Some(most),
            minimum_healthy_percent: Some(fewest),
            ..Default::default()
        },
        grace_seconds: None,
        rebalancing: AvailabilityZoneRebalancing::Enabled,
        propagate_tags: PropagateTags::None,
        managed_tags: false,
        execute_command: false,
        tags: Default::default(),
        steady: false,
        events: Default::default(),
        created_by: String::new(),
        created_at: now,
        inactive_at: None,
    }
}

impl History {
    fn new(seed: u64) -> Self {
        let now = Timestamp::from_millis(START);
        let world = World::simulated(seed, now);
        let mut history = Self {
            world,
            now,
            service: service(1, true, (100, 200), now),
            tasks: Vec::new(),
            revisions: 1,
            deployments: 0,
            events: Vec::new(),
            balanced: false,
        };
        history.balanced = history.below(2) == 0;
        let shares = [(100, 200), (50, 100), (0, 100), (50, 200), (100, 150), (0, 200)];
        let (desired, breaker) = (history.below(12), history.below(2) == 0);
        let share = shares[history.below(shares.len() as u32) as usize];
        history.service = service(desired as i32, breaker, share, now);
        history
    }

    fn below(&self, bound: u32) -> u32 {
        let mut bytes = [0; 4];
        self.world.fill(&mut bytes);
        u32::from_le_bytes(bytes) % bound
    }

    fn healthy(&self) -> i32 {
        self.tasks.iter().filter(|task| is_healthy(task)).count() as i32
    }

    fn alive(&self) -> i32 {
        let alive = |task: &&Task| !task.stopping && task.last_status <= LastStatus::Running;
        self.tasks.iter().filter(alive).count() as i32
    }

    /// Plans and does it, as often as there is something to do, and looks whether what must hold does.
    fn keep(&mut self) {
        for _ in 0..100 {
            let tasks: Vec<Arc<Task>> = self.tasks.iter().cloned().map(Arc::new).collect();
            let plan = plan(&self.service, &tasks, self.now);
            if plan.is_nothing(&self.service) {
                return;
            }
            self.apply(plan);
        }
        panic!("there is no end to what is planned");
    }

    fn apply(&mut self, plan: Plan) {
        let (alive, healthy) = (self.alive(), self.healthy());
        let ill = |task: &Task| task.health() == Some(Health::Unhealthy);
        for (id, reckoned) in plan.reckon {
            let task = self.tasks.iter_mut().find(|task| task.id == id).unwrap();
            task.reckoned = reckoned;
        }
        for (id, reason) in plan.stop {
            let task = self.tasks.iter_mut().find(|task| task.id == id).unwrap();
            assert!(!task.stopping, "stopped once");
            assert!(!ill(task) || reason.contains("health") || !reason.is_empty());
            task.stop(TaskStopCode::ServiceSchedulerInitiated, &reason, self.now);
        }
        for start in plan.start {
            let deployment = plan.service.deployments.iter().find(|d| d.id == start.deployment);
            let revision = &deployment.unwrap().revision;
            assert_eq!(plan.service.deployments[0].id, start.deployment, "only the primary grows");
            let definition = TaskDefinition {
                realm: "1/r".to_owned(),
                family: revision.family.clone(),
                revision: revision.revision,
                document: Default::default(),
                tags: Default::default(),
            };
            let mut task = Task::new(("1/r", "c"), &definition, start.launch, network(), self.now);
            task.network.awsvpc_configuration.as_mut().unwrap().subnets = vec![start.subnet];
            task.started_by = Some(start.deployment);
            task.containers = vec![Container::default()];
            if self.balanced {
                task.targets = vec![TaskTarget {
                    group_arn: "arn".to_owned(),
                    port: 80,
                    state: TargetState::Awaited,
                }];
            }
            task.number(&self.world);
            self.tasks.push(task);
        }
        let before = std::mem::replace(&mut self.service, plan.service);
        for event in plan.events {
            self.service.tell(String::new(), self.now, &event);
            self.events.push(event);
        }
        let (most, fewest) = (before.most_tasks(), before.fewest_healthy());
        assert!(self.alive() <= most.max(alive), "{} of at most {most}", self.alive());
        if self.service.status == ServiceStatus::Active {
            assert!(self.healthy() >= fewest.min(healthy), "{} of {fewest}", self.healthy());
            assert!(!self.service.deployments.is_empty());
        }
        let zones = ["subnet-a", "subnet-b", "subnet-c"].map(|subnet| {
            let there = |task: &&Task| zone(task).is_some_and(|z| z == subnet) && !task.stopping;
            self.tasks.iter().filter(there).count()
        });
        assert!(zones.iter().sum::<usize>() >= self.alive() as usize);
    }

    /// What happens to a task in a while. With `kind`, nothing bad happens to a good one.
    fn live(&mut self, i: usize, kind: bool) {
        let (now, dice) = (self.now, self.below(100));
        let task = &mut self.tasks[i];
        match (task.last_status, task.stopping) {
            (LastStatus::Stopped, _) => {}
            (_, true) => {
                if kind || dice < 50 {
                    task.advance(LastStatus::Stopped, now);
                }
            }
            (LastStatus::Running, _) => match dice {
                0..2 if !kind => {
                    task.stop(TaskStopCode::EssentialContainerExited, "exited", now);
                }
                2..4 if !kind => task.containers[0].health = Some(Health::Unhealthy),
                4..6 if !kind => task.stop(TaskStopCode::UserInitiated, "by hand", now),
                6..8 if !kind => task.targets.iter_mut().for_each(|target| {
                    target.state = TargetState::Unhealthy("it does not answer".to_owned());
                }),
                _ if task.containers[0].health == Some(Health::Unknown) => {
                    task.containers[0].health = Some(Health::Healthy);
                }
                _ if task.targets.iter().any(|target| target.state == TargetState::Awaited) => {
                    task.targets[0].state = TargetState::Initial;
                }
                _ if task.targets.iter().any(|target| target.state == TargetState::Initial) => {
                    task.targets[0].state = TargetState::Healthy;
                }
                _ => {}
            },
            _ if BAD(task.revision) => {
                if kind || dice < 60 {
                    task.stop(TaskStopCode::TaskFailedToStart, "CannotPullContainerError", now);
                }
            }
            _ => {
                if kind || dice < 40 {
                    task.advance(LastStatus::Running, now);
                    task.containers[0].health = (dice % 2 == 0).then_some(Health::Unknown);
                } else if dice < 45 {
                    task.stop(TaskStopCode::TaskFailedToStart, "no network", now);
                }
            }
        }
    }

    /// What somebody wants differently.
    fn wish(&mut self) {
        self.service.steady = false;
        match self.below(3) {
            0 => self.service.desired_count = self.below(12) as i32,
            1 => self.deploy(self.revisions + 1),
            _ => self.deploy(self.service.deployments[0].revision.revision),
        }
    }

    fn deploy(&mut self, number: i32) {
        self.revisions = self.revisions.max(number);
        self.deployments += 1;
        let id = format!("ecs-svc/{}", self.deployments);
        let deployment =
            Deployment::new(id, revision(number), self.service.desired_count, self.now);
        self.service.deployments.insert(0, deployment);
    }

    fn pass(&mut self, kind: bool) {
        self.now = self.now + Duration::from_millis(u64::from(self.below(20_000)));
        let i = self.below(self.tasks.len().max(1) as u32) as usize;
        if i < self.tasks.len() {
            self.live(i, kind);
        }
        self.keep();
        // Tasks that stopped long ago are forgotten.
        self.tasks.retain(|task| task.reckoned != Reckoned::Over || task.stopped_at.is_none());
    }

    fn run(&mut self) {
        self.keep();
        for _ in 0..400 {
            if self.below(25) == 0 {
                self.wish();
            }
            self.pass(false);
        }
        for _ in 0..3000 {
            self.pass(true);
        }
        let primary = &self.service.deployments[0];
        let ended = primary.rollout != DeploymentRolloutState::InProgress;
        let breaker =
            self.service.configuration.deployment_circuit_breaker.as_ref().unwrap().enable;
        let good = !BAD(primary.revision.revision);
        if self.service.fewest_healthy() >= self.service.most_tasks() && !ended {
            let told = self.events.iter().any(|event| event == BLOCKED);
            let fails = !good && !breaker;
            assert!(told || fails, "stuck, and does not say so: {:#?}", self.service);
        } else if good || breaker {
            assert!(ended, "it never ends: {:#?}", self.service);
        }
        // A bad revision is in place, too, when no task of it was wanted.
        if primary.rollout == DeploymentRolloutState::Completed && good {
            let desired = self.service.desired_count;
            assert!(self.service.steady, "{:#?}", self.service);
            assert_eq!((self.alive(), self.healthy()), (desired, desired));
            assert_eq!(self.service.deployments.len(), 1);
        }
        self.service.status = ServiceStatus::Draining;
        self.service.desired_count = 0;
        for _ in 0..1000 {
            self.pass(true);
        }
        assert_eq!(self.service.status, ServiceStatus::Inactive);
        assert_eq!(self.alive(), 0, "no task outlives its service");
    }
}

#[tokio::test(start_paused = true)]
async fn services_come_to_rest_whatever_happens() {
    let given = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let seeds = match given("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        let history = std::panic::AssertUnwindSafe(|| History::new(seed).run());
        if let Err(panic) = std::panic::catch_unwind(history) {
            eprintln!("again: SEED={seed} cargo test -p ecs services_come_to_rest");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn providers_get_their_base_and_then_their_weight() {
    let item = |name: &str, base, weight| crate::api::CapacityProviderStrategyItem {
        capacity_provider: name.to_owned(),
        base: Some(base),
        weight: Some(weight),
    };
    let mut revision = revision(1);
    revision.strategy = vec![item("FARGATE", 2, 1), item("FARGATE_SPOT", 0, 3)];
    let deployment = Deployment::new("d".to_owned(), revision, 1, Timestamp::from_millis(START));
    let mut counts = (0, 0);
    for _ in 0..10 {
        let on = |name: &str| if name == "FARGATE" { counts.0 } else { counts.1 };
        match deployment.launch(on) {
            Launch::CapacityProvider(name) if name == "FARGATE" => counts.0 += 1,
            _ => counts.1 += 1,
        }
    }
    assert_eq!(counts, (4, 6), "two, and of the other eight one in four");
}

#[test]
fn shares_are_rounded_as_on_aws() {
    let service = service(5, true, (50, 150), Timestamp::from_millis(START));
    assert_eq!((service.fewest_healthy(), service.most_tasks()), (3, 7));
    assert_eq!(service.breaker_threshold(), 3);
}

//! Plans in a simulated world: tasks start, fail, hang, crash and fall ill at random, and somebody keeps changing what
//! is wanted. `SEEDS` says how many histories are tried, `SEED` tries one again.

use super::*;
use crate::{
    api::{
        AdvancedConfiguration, AvailabilityZoneRebalancing, AwsVpcConfiguration,
        CanaryConfiguration, DeploymentAlarms, DeploymentCircuitBreaker, DeploymentConfiguration,
        DeploymentLifecycleHook, DeploymentLifecycleHookAction, DeploymentLifecycleHookStage,
        DeploymentLifecycleHookStatus, DeploymentLifecycleHookTimeoutConfiguration,
        DeploymentStrategy, LaunchType, LinearConfiguration, LoadBalancer, NetworkConfiguration,
        PropagateTags, ServiceDeploymentStatus, TaskStopCode,
    },
    model::{Container, Health, Revision, TargetState, TaskDefinition},
    ops::deployment::draft,
    reconcile::service::targets,
};
use std::collections::BTreeMap;
use world::World;

const START: i64 = 1_800_000_000_000;
/// Revisions with these numbers never start.
const BAD: fn(i32) -> bool = |revision| revision % 3 == 0;

struct History {
    world: World,
    now: Timestamp,
    service: Service,
    /// The service deployment that began last.
    last: ServiceDeployment,
    /// The weight of each target group in the rule that production traffic comes by.
    production: BTreeMap<String, i32>,
    tasks: Vec<Task>,
    revisions: i32,
    events: Vec<String>,
    /// Whether it is behind a load balancer.
    balanced: bool,
    /// How its alarm is.
    alarms: AlarmsSeen,
}

fn network() -> NetworkConfiguration {
    let subnets = vec!["subnet-a".to_owned(), "subnet-b".to_owned(), "subnet-c".to_owned()];
    let awsvpc = AwsVpcConfiguration { subnets, security_groups: None, assign_public_ip: None };
    NetworkConfiguration { awsvpc_configuration: Some(awsvpc) }
}

fn revision(number: i32, balanced: bool) -> Revision {
    let text = |text: &str| Some(text.to_owned());
    let balancer = LoadBalancer {
        target_group_arn: text("first"),
        container_name: text("main"),
        container_port: Some(80),
        advanced_configuration: Some(AdvancedConfiguration {
            alternate_target_group_arn: text("alternate"),
            production_listener_rule: text("production"),
            test_listener_rule: text("test"),
            role_arn: text("role"),
        }),
        load_balancer_name: None,
    };
    Revision {
        family: "f".to_owned(),
        revision: number,
        launch_type: Some(LaunchType::Fargate),
        strategy: Vec::new(),
        platform_version: "1.4.0".to_owned(),
        network: network(),
        load_balancers: balanced.then_some(balancer).into_iter().collect(),
        registries: Vec::new(),
        connect: None,
        volumes: Vec::new(),
    }
}

fn service(desired: i32, breaker: bool, (fewest, most): (i32, i32), now: Timestamp) -> Service {
    let breaker = DeploymentCircuitBreaker { enable: breaker, rollback: breaker };
    Service {
        realm: "1/r".to_owned(),
        cluster: "c".to_owned(),
        name: "s".to_owned(),
        status: ServiceStatus::Active,
        controller: Controller::Ecs,
        desired_count: desired,
        deployments: Vec::new(),
        ongoing: None,
        serving: None,
        configuration: DeploymentConfiguration {
            deployment_circuit_breaker: Some(breaker),
            maximum_percent: Some(most),
            minimum_healthy_percent: Some(fewest),
            strategy: Some(DeploymentStrategy::Rolling),
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
        let mut service = service(1, true, (100, 200), now);
        let last = draft(&world, &mut service, revision(1, false)).unwrap();
        let mut history = Self {
            world,
            now,
            service,
            last,
            production: BTreeMap::new(),
            tasks: Vec::new(),
            revisions: 1,
            events: Vec::new(),
            balanced: false,
            alarms: AlarmsSeen { on: Vec::new(), takes: Duration::from_secs(60) },
        };
        history.balanced = history.below(2) == 0;
        let shares = [(100, 200), (50, 100), (0, 100), (50, 200), (100, 150), (0, 200)];
        let (desired, breaker) = (history.below(12), history.below(2) == 0);
        let share = shares[history.below(shares.len() as u32) as usize];
        history.service = self::service(desired as i32, breaker, share, now);
        history.choose_strategy();
        history.deploy(1);
        history
    }

    fn choose_strategy(&mut self) {
        let minutes = |history: &Self| Some(history.below(6) as i32);
        let strategies = [
            DeploymentStrategy::Rolling,
            DeploymentStrategy::BlueGreen,
            DeploymentStrategy::Linear,
            DeploymentStrategy::Canary,
        ];
        let strategy = strategies[self.below(4) as usize];
        let hooks = (0..self.below(3)).map(|_| self.hook()).collect();
        let (bake, step, canary) = (minutes(self), minutes(self), minutes(self));
        let (watched, rollback) = (self.below(2) == 0, self.below(2) == 0);
        let configuration = &mut self.service.configuration;
        let alarm_names = vec!["alarm".to_owned()];
        configuration.alarms =
            watched.then_some(DeploymentAlarms { alarm_names, rollback, enable: true });
        configuration.strategy = Some(strategy);
        if strategy == DeploymentStrategy::Rolling {
            return;
        }
        configuration.bake_time_in_minutes = bake;
        configuration.lifecycle_hooks = Some(hooks);
        configuration.linear_configuration =
            Some(LinearConfiguration { step_percent: Some(30.1), step_bake_time_in_minutes: step });
        configuration.canary_configuration = Some(CanaryConfiguration {
            canary_percent: Some(5.5),
            canary_bake_time_in_minutes: canary,
        });
    }

    fn hook(&self) -> DeploymentLifecycleHook {
        use DeploymentLifecycleHookStage::*;
        let stages = [
            ReconcileService,
            PreScaleUp,
            PostScaleUp,
            TestTrafficShift,
            PostTestTrafficShift,
            PreProductionTrafficShift,
            ProductionTrafficShift,
            PostProductionTrafficShift,
        ];
        let actions =
            [DeploymentLifecycleHookAction::Continue, DeploymentLifecycleHookAction::Rollback];
        DeploymentLifecycleHook {
            // A function, or somebody who asks.
            hook_target_arn: (self.below(2) == 0).then(|| "arn:function".to_owned()),
            lifecycle_stages: Some(vec![stages[self.below(8) as usize]]),
            timeout_configuration: Some(DeploymentLifecycleHookTimeoutConfiguration {
                timeout_in_minutes: Some(10),
                action: Some(actions[self.below(2) as usize]),
            }),
            ..Default::default()
        }
    }

    fn is_shifting(&self) -> bool {
        self.last.is_ongoing() && self.last.shift.is_some()
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
            let last = self.last.clone();
            let service = self.service.clone();
            let seen = Seen {
                service: &service,
                ongoing: service.ongoing.as_ref().map(|_| &last),
                tasks: &tasks,
                alarms: &self.alarms,
                now: self.now,
                scaled: &|wait| wait,
            };
            let plan = plan(&seen);
            if plan.is_nothing(&seen) {
                return;
            }
            self.apply(plan);
        }
        panic!("there is no end to what is planned");
    }

    /// Tasks of deployments that production traffic is sent to: how many there are, and how many are well.
    fn behind(&self, group: &str) -> (i32, i32) {
        let own = self.service.deployments.iter().filter(|d| d.is_in(group)).map(|d| &d.id);
        let ids: Vec<_> = own.collect();
        let own = |task: &&Task| task.started_by.as_ref().is_some_and(|id| ids.contains(&id));
        let alive = |task: &&Task| !task.stopping && task.last_status <= LastStatus::Running;
        let tasks: Vec<_> = self.tasks.iter().filter(own).filter(alive).collect();
        (tasks.len() as i32, tasks.iter().filter(|task| is_healthy(task)).count() as i32)
    }

    /// Requests are sent only to a whole revision that is well, unless they are sent back.
    fn direct(&mut self, plan: &Plan) {
        for traffic in plan.traffic.iter().filter(|traffic| traffic.rule == "production") {
            let going_back = plan.ongoing.as_ref().unwrap().is_going_back();
            let whole: i32 = traffic.shares.iter().map(|(_, weight)| weight).sum();
            assert!(whole == 100 || whole == 1000, "{traffic:?}");
            for (group, weight) in &traffic.shares {
                let before = self.production.insert(group.clone(), weight * 1000 / whole);
                let more = before.unwrap_or(0) < weight * 1000 / whole;
                let back =
                    plan.ongoing.as_ref().unwrap().production(&self.service.deployments[0].id) == 0;
                if more && !going_back && !back {
                    let (_, well) = self.behind(group);
                    assert!(well >= self.service.desired_count, "{well} well for {traffic:?}");
                }
            }
        }
    }

    fn apply(&mut self, plan: Plan) {
        let (alive, healthy) = (self.alive(), self.healthy());
        self.direct(&plan);
        let busy: Vec<_> =
            self.production.iter().filter(|(_, w)| **w > 0).map(|(g, _)| g.clone()).collect();
        let behind: Vec<_> = busy.iter().map(|group| self.behind(group).0).collect();
        let ill = |task: &Task| task.health() == Some(Health::Unhealthy);
        let mut failed = 0;
        for (id, reckoned) in plan.reckon {
            let task = self.tasks.iter_mut().find(|task| task.id == id).unwrap();
            task.reckoned = reckoned;
        }
        for (id, reason) in plan.stop {
            let task = self.tasks.iter_mut().find(|task| task.id == id).unwrap();
            assert!(!task.stopping, "stopped once");
            assert!(!ill(task) || reason.contains("health") || !reason.is_empty());
            failed += i32::from(reason.contains("health checks"));
            task.stop(TaskStopCode::ServiceSchedulerInitiated, &reason, self.now);
        }
        let shifting = plan.ongoing.as_ref().is_some_and(|ongoing| ongoing.shift.is_some());
        for start in plan.start {
            let deployment = plan.service.deployments.iter().find(|d| d.id == start.deployment);
            let deployment = deployment.unwrap();
            let revision = &deployment.revision;
            let primary = plan.service.deployments[0].id == start.deployment;
            assert!(primary || shifting, "only the primary grows");
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
            task.targets = targets::of(deployment);
            task.number(&self.world);
            self.tasks.push(task);
        }
        let before = std::mem::replace(&mut self.service, plan.service);
        if let Some(ongoing) = plan.ongoing {
            assert_eq!(ongoing.is_ongoing(), self.service.ongoing.is_some());
            self.last = ongoing;
        }
        for event in plan.events {
            self.service.tell(String::new(), self.now, &event);
            self.events.push(event);
        }
        let desired = self.service.desired_count;
        if self.service.status == ServiceStatus::Active {
            assert!(!self.service.deployments.is_empty());
            for (group, before) in busy.iter().zip(behind) {
                let (there, _) = self.behind(group);
                assert!(there >= desired.min(before - failed), "{group} has requests to answer");
            }
        }
        let (most, fewest) = (before.most_tasks(), before.fewest_healthy());
        if shifting {
            assert!(self.alive() <= (2 * desired).max(alive), "two revisions at most");
        } else {
            assert!(self.alive() <= most.max(alive), "{} of at most {most}", self.alive());
            if self.service.status == ServiceStatus::Active {
                assert!(self.healthy() >= fewest.min(healthy), "{} of {fewest}", self.healthy());
            }
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
        match self.below(5) {
            0 => self.service.desired_count = self.below(12) as i32,
            1 => self.deploy(self.revisions + 1),
            2 if self.is_shifting() && self.last.source().is_some() => {
                let past = crate::api::ServiceDeploymentLifecycleStage::CleanUp;
                if !self.last.is_going_back() && self.last.shift.as_ref().unwrap().stage != past {
                    self.last.status = ServiceDeploymentStatus::RollbackRequested;
                }
            }
            3 => self.let_on(),
            _ => self.deploy(self.service.deployments[0].revision.revision),
        }
    }

    /// Somebody lets the deployment go on; a function does so, or says that it must go back.
    fn let_on(&mut self) {
        use DeploymentLifecycleHookStatus::{AwaitingAction, Failed, InProgress, Succeeded};
        let says_no = self.below(4) == 0;
        let hooks = self.last.shift.iter_mut().flat_map(|shift| &mut shift.hooks);
        for hook in hooks {
            match hook.status {
                AwaitingAction => hook.status = Succeeded,
                InProgress => hook.status = if says_no { Failed } else { Succeeded },
                _ => {}
            }
        }
    }

    fn deploy(&mut self, number: i32) {
        self.revisions = self.revisions.max(number);
        let revision = revision(number, self.balanced);
        self.last = draft(&self.world, &mut self.service, revision).unwrap();
        self.last.created_at = self.now;
        if let Some(shift) = &mut self.last.shift {
            shift.since = self.now;
        }
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
            if self.service.configuration.alarms.is_some() {
                match self.below(60) {
                    0 => self.alarms.on = vec!["alarm".to_owned()],
                    1..10 => self.alarms.on.clear(),
                    _ => {}
                }
            }
            self.pass(false);
        }
        self.alarms.on.clear();
        for _ in 0..3000 {
            self.pass(true);
        }
        let primary = &self.service.deployments[0];
        let ended = primary.rollout != DeploymentRolloutState::InProgress;
        let breaker =
            self.service.configuration.deployment_circuit_breaker.as_ref().unwrap().enable;
        let good = !BAD(primary.revision.revision);
        let rolling = self.last.shift.is_none();
        if rolling && self.service.fewest_healthy() >= self.service.most_tasks() && !ended {
            let told = self.events.iter().any(|event| event == BLOCKED);
            let fails = !good && !breaker;
            assert!(told || fails, "stuck, and does not say so: {:#?}", self.service);
        } else if good || breaker {
            assert!(ended, "it never ends: {:#?} {:#?}", self.service, self.last);
            assert!(!self.last.is_ongoing(), "it never ends: {:#?}", self.last);
            assert!(self.service.ongoing.is_none() && self.last.finished_at.is_some());
        }
        // A bad revision is in place, too, when no task of it was wanted.
        if primary.rollout == DeploymentRolloutState::Completed && good {
            let desired = self.service.desired_count;
            assert!(self.service.steady, "{:#?}", self.service);
            assert_eq!((self.alive(), self.healthy()), (desired, desired));
            assert_eq!(self.service.deployments.len(), 1);
            for (_, group) in primary.balancers().filter(|_| !self.production.is_empty()) {
                assert_eq!(self.production[group], 1000, "it has all the requests");
            }
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
    let seeds = simulation::seeds(200);
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
    let mut revision = revision(1, false);
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

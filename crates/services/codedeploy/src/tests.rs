//! Random histories of deployments on a simulated disk that crashes at any commit, beside an ECS and a load balancer
//! that outlive it and fail now and then: there is always one primary version, requests always go to what is well,
//! every deployment ends, and a rollback ends on the last good version. `SEEDS` says how many histories are tried,
//! `SEED` tries one again.

use crate::{CodeDeploy, api::*, model::Deployment, ops};
use cloudwatch::api as cloudwatch_api;
use ecs::api::{self as ecs_api, StabilityStatus};
use elbv2::api as elb_api;
use iam::Iam;
use lambda::api as lambda_api;
use s3::S3;
use serde_json::{Value as Json, json};
use simulation::{Kept, Process, below, handler};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::Store;
use wire::{Context, Fault, Front, Limits, Service};
use world::World;

const REALM: &str = "123456789012/us-east-1";
const ROLE: &str = "arn:aws:iam::123456789012:role/deploys";
const LISTENERS: [&str; 2] = ["production", "test"];
const GROUPS: [&str; 2] = ["arn:one", "arn:two"];
/// Versions with such numbers never become steady.
const BAD: fn(u32) -> bool = |version| version % 4 == 3;

/// A task set.
#[derive(Clone, Debug)]
struct Set {
    id: String,
    token: String,
    group: String,
    version: u32,
    primary: bool,
    /// So many looks until it is steady.
    slow: u32,
}

/// What outlives crashes.
#[derive(Default)]
struct Outside {
    sets: Vec<Set>,
    /// Percent of the requests that each target group gets, by listener.
    weights: BTreeMap<String, BTreeMap<String, i32>>,
    /// All tokens that task sets were made with.
    tokens: Vec<String>,
}

impl simulation::Outside for Outside {
    fn check(&self) {
        let primary = self.sets.iter().filter(|set| set.primary).count();
        assert_eq!(primary, 1, "one version is primary: {:?}", self.sets);
        for (group, weight) in self.weights["production"].iter().filter(|(_, weight)| **weight > 0)
        {
            let well = self.sets.iter().any(|set| set.group == **group && set.slow == 0);
            assert!(well, "{weight} percent of the requests go to {group}: {:?}", self.sets);
        }
        assert!(self.sets.len() <= 3, "{:?}", self.sets);
    }
}

impl Outside {
    fn primary(&self) -> &Set {
        self.sets.iter().find(|set| set.primary).expect("there is always one")
    }
}

type Shared = Arc<Mutex<Outside>>;

fn gone() -> Fault {
    Fault::new("TaskSetNotFoundException", "The task set is not there.")
}

fn task_set(set: &Set) -> ecs_api::TaskSet {
    ecs_api::TaskSet {
        id: Some(set.id.clone()),
        external_id: Some(set.token.clone()),
        status: Some(if set.primary { "PRIMARY" } else { "ACTIVE" }.to_owned()),
        stability_status: Some(match set.slow {
            0 => StabilityStatus::SteadyState,
            _ => StabilityStatus::Stabilizing,
        }),
        load_balancers: Some(vec![ecs_api::LoadBalancer {
            target_group_arn: Some(set.group.clone()),
            ..Default::default()
        }]),
        ..Default::default()
    }
}

fn ecs(world: &World, outside: &Shared) -> wire::Service {
    use ecs_api::*;
    wire::Service::new(&SPEC)
        .operation(
            &OP_DESCRIBE_SERVICES,
            handler(
                "ecs:DescribeServices",
                world,
                outside,
                |outside, _, _: DescribeServicesRequest| {
                    let sets = outside.sets.iter().map(task_set).collect();
                    for set in outside.sets.iter_mut().filter(|set| set.slow < u32::MAX) {
                        set.slow = set.slow.saturating_sub(1);
                    }
                    let controller =
                        DeploymentController { r#type: DeploymentControllerType::CodeDeploy };
                    let service = Service {
                        task_sets: Some(sets),
                        deployment_controller: Some(controller),
                        status: Some("ACTIVE".to_owned()),
                        ..Default::default()
                    };
                    Ok(DescribeServicesResponse { services: Some(vec![service]), failures: None })
                },
            ),
        )
        .operation(
            &OP_CREATE_TASK_SET,
            handler(
                "ecs:CreateTaskSet",
                world,
                outside,
                |outside, world, input: CreateTaskSetRequest| {
                    let token = input.client_token.unwrap();
                    if let Some(known) = outside.sets.iter().find(|set| set.token == token) {
                        return Ok(CreateTaskSetResponse { task_set: Some(task_set(known)) });
                    }
                    assert!(!outside.tokens.contains(&token), "a deployment makes one task set");
                    outside.tokens.push(token.clone());
                    let [balancer] = &input.load_balancers.unwrap()[..] else { panic!() };
                    let version = input.task_definition.parse().unwrap();
                    let made = Set {
                        id: format!("ecs-svc/{}", outside.tokens.len()),
                        token,
                        group: balancer.target_group_arn.clone().unwrap(),
                        version,
                        primary: false,
                        slow: if BAD(version) { u32::MAX } else { 1 + below(world, 10) },
                    };
                    let taken = outside.sets.iter().any(|set| set.group == made.group);
                    assert!(!taken, "{made:?} beside {:?}", outside.sets);
                    outside.sets.push(made.clone());
                    Ok(CreateTaskSetResponse { task_set: Some(task_set(&made)) })
                },
            ),
        )
        .operation(
            &OP_DELETE_TASK_SET,
            handler(
                "ecs:DeleteTaskSet",
                world,
                outside,
                |outside, _, input: DeleteTaskSetRequest| {
                    let at = outside.sets.iter().position(|set| set.id == input.task_set);
                    let set = outside.sets.remove(at.ok_or_else(gone)?);
                    assert!(!set.primary, "the primary one goes: {set:?}");
                    Ok(DeleteTaskSetResponse { task_set: Some(task_set(&set)) })
                },
            ),
        )
        .operation(
            &OP_UPDATE_SERVICE_PRIMARY_TASK_SET,
            handler(
                "ecs:UpdateServicePrimaryTaskSet",
                world,
                outside,
                |outside, _, input: UpdateServicePrimaryTaskSetRequest| {
                    let known = outside.sets.iter().any(|set| set.id == input.primary_task_set);
                    known.then_some(()).ok_or_else(gone)?;
                    for set in &mut outside.sets {
                        set.primary = set.id == input.primary_task_set;
                    }
                    Ok(UpdateServicePrimaryTaskSetResponse { task_set: None })
                },
            ),
        )
}

fn balancer(world: &World, outside: &Shared) -> Service {
    use elb_api::*;
    let tuples = |weights: &BTreeMap<String, i32>| {
        let tuple = |(group, weight): (&String, &i32)| TargetGroupTuple {
            target_group_arn: Some(group.clone()),
            weight: Some(*weight),
        };
        weights.iter().map(tuple).collect()
    };
    let action = move |weights: &BTreeMap<String, i32>| Action {
        r#type: ActionTypeEnum::Forward,
        target_group_arn: None,
        authenticate_oidc_config: None,
        authenticate_cognito_config: None,
        order: None,
        redirect_config: None,
        fixed_response_config: None,
        forward_config: Some(ForwardActionConfig {
            target_groups: Some(tuples(weights)),
            target_group_stickiness_config: None,
        }),
        jwt_validation_config: None,
    };
    wire::Service::new(&SPEC)
        .operation(
            &OP_DESCRIBE_TARGET_GROUPS,
            handler(
                "elasticloadbalancing:DescribeTargetGroups",
                world,
                outside,
                |_, _, _: DescribeTargetGroupsInput| {
                    let group = |arn: &str| TargetGroup {
                        target_group_arn: Some(arn.to_owned()),
                        ..Default::default()
                    };
                    let all = GROUPS.map(group).to_vec();
                    Ok(DescribeTargetGroupsOutput { target_groups: Some(all), next_marker: None })
                },
            ),
        )
        .operation(
            &OP_DESCRIBE_RULES,
            handler(
                "elasticloadbalancing:DescribeRules",
                world,
                outside,
                move |outside, _, input: DescribeRulesInput| {
                    let weights = &outside.weights[&input.listener_arn.unwrap()];
                    let rule = Rule {
                        actions: Some(vec![action(weights)]),
                        is_default: Some(true),
                        ..Default::default()
                    };
                    Ok(DescribeRulesOutput { rules: Some(vec![rule]), next_marker: None })
                },
            ),
        )
        .operation(
            &OP_MODIFY_LISTENER,
            handler(
                "elasticloadbalancing:ModifyListener",
                world,
                outside,
                |outside, _, input: ModifyListenerInput| {
                    let actions = input.default_actions.unwrap();
                    let [action] = &actions[..] else { panic!() };
                    let groups =
                        action.forward_config.as_ref().and_then(|f| f.target_groups.as_ref());
                    let weights = groups.unwrap().iter().map(|tuple| {
                        (tuple.target_group_arn.clone().unwrap(), tuple.weight.unwrap())
                    });
                    let weights: BTreeMap<String, i32> = weights.collect();
                    assert_eq!(weights.values().sum::<i32>(), 100);
                    outside.weights.insert(input.listener_arn, weights);
                    Ok(ModifyListenerOutput::default())
                },
            ),
        )
}

/// Functions: they say yes, no or nothing at all, after a while.
fn functions(world: &World, outside: &Shared, house: &Arc<CodeDeploy>, root: &Context) -> Service {
    let (house, root) = (house.clone(), root.clone());
    Service::new(&lambda_api::SPEC).operation(
        &lambda_api::OP_INVOKE,
        handler(
            "lambda:InvokeFunction",
            world,
            outside,
            move |_, world, input: lambda_api::InvocationRequest| {
                let event: Json = serde_json::from_slice(&input.payload.unwrap()).unwrap();
                let status = match below(world, 8) {
                    0 => None,
                    1 => Some(LifecycleEventStatus::Failed),
                    _ => Some(LifecycleEventStatus::Succeeded),
                };
                let (house, root, own) = (house.clone(), root.clone(), world.clone());
                world.spawn("a function", async move {
                    own.sleep(Duration::from_secs(below(&own, 120).into())).await;
                    let text = |name: &str| event[name].as_str().map(str::to_owned);
                    let input = PutLifecycleEventHookExecutionStatusInput {
                        deployment_id: text("DeploymentId"),
                        lifecycle_event_hook_execution_id: text("LifecycleEventHookExecutionId"),
                        status: Some(status.unwrap_or(LifecycleEventStatus::Succeeded)),
                    };
                    if status.is_some() {
                        // The deployment may be over, or its event said to be well already.
                        let said = ops::deployment::put_lifecycle_event_hook_execution_status;
                        let _ = said(&house, &root, input).await;
                    }
                });
                Ok(lambda_api::InvocationResponse::default())
            },
        ),
    )
}

/// An alarm that is on at times, for as long as a look at it.
fn alarms(world: &World, outside: &Shared) -> Service {
    use cloudwatch_api::*;
    wire::Service::new(&SPEC).operation(
        &OP_DESCRIBE_ALARMS,
        handler(
            "cloudwatch:DescribeAlarms",
            world,
            outside,
            |_, world, input: DescribeAlarmsInput| {
                assert_eq!(input.state_value, Some(StateValue::Alarm));
                let on = |name| MetricAlarm { alarm_name: Some(name), ..Default::default() };
                let on = input.alarm_names.into_iter().flatten().map(on);
                let alarms = if below(world, 300) == 0 { on.collect() } else { Vec::new() };
                Ok(DescribeAlarmsOutput { metric_alarms: Some(alarms), ..Default::default() })
            },
        ),
    )
}

/// What a crash ends.
struct Life {
    world: World,
    house: Arc<CodeDeploy>,
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
    let iam = Iam::new(store.clone(), world.clone(), kept.sealer.clone()).unwrap();
    let s3 = S3::new(store.clone(), world.clone(), iam.clone(), kept.directory.path()).unwrap();
    let house = CodeDeploy::new(store, world.clone(), iam.clone(), s3).unwrap();
    let root = simulation::root(&world, iam.clone());
    let services = vec![
        iam::api::service(iam.clone()),
        crate::api::service(house.clone()),
        ecs(&world, outside),
        balancer(&world, outside),
        functions(&world, outside, &house, &root),
        alarms(&world, outside),
    ];
    let front = Arc::new(Front::new(services, Vec::new(), iam, world.clone(), Limits::default()));
    house.start(front.clone());
    Life { world, house, root, front }
}

struct History {
    process: Process<Life>,
    outside: Shared,
    versions: u32,
    /// The version that the last deployment that succeeded is of.
    good: u32,
}

impl History {
    async fn new(seed: u64) -> Self {
        let outside = Shared::default();
        {
            let mut outside = outside.lock().unwrap();
            outside.sets.push(Set {
                id: "ecs-svc/0".to_owned(),
                token: String::new(),
                group: GROUPS[0].to_owned(),
                version: 0,
                primary: true,
                slow: 0,
            });
            for listener in LISTENERS {
                let weights = BTreeMap::from([(GROUPS[0].to_owned(), 100)]);
                outside.weights.insert(listener.to_owned(), weights);
            }
        }
        let shared = outside.clone();
        let process = Process::new(seed, move |kept, world| live(kept, world, &shared));
        let history = Self { process, outside, versions: 0, good: 0 };
        history.make().await;
        history.process.unsettle();
        history
    }

    fn below(&self, bound: u32) -> u32 {
        self.process.below(bound)
    }

    /// Makes the role, the application and its group, of random kind.
    async fn make(&self) {
        let trust = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Service": "codedeploy.amazonaws.com"}}}"#;
        let all = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}"#;
        let policy = json!({"RoleName": "deploys", "PolicyName": "all", "PolicyDocument": all});
        let configs =
            ["ECSAllAtOnce", "ECSLinear10PercentEvery1Minutes", "ECSCanary10Percent5Minutes"];
        let config = format!("CodeDeployDefault.{}", configs[self.below(3) as usize]);
        let events = match self.below(4) {
            0 => vec![],
            1 => vec!["DEPLOYMENT_FAILURE"],
            2 => vec!["DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_REQUEST"],
            _ => vec!["DEPLOYMENT_STOP_ON_ALARM", "DEPLOYMENT_STOP_ON_REQUEST"],
        };
        let ready = match self.below(3) {
            0 => json!({"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 5}),
            _ => json!({"actionOnTimeout": "CONTINUE_DEPLOYMENT"}),
        };
        let names = GROUPS.map(|group| json!({"name": group}));
        let pair = json!({
            "targetGroups": names, "prodTrafficRoute": {"listenerArns": ["production"]},
            "testTrafficRoute": {"listenerArns": ["test"]},
        });
        let group = json!({
            "applicationName": "a", "deploymentGroupName": "g", "deploymentConfigName": config,
            "serviceRoleArn": ROLE,
            "deploymentStyle": {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
            "blueGreenDeploymentConfiguration": {
                "terminateBlueInstancesOnDeploymentSuccess": {
                    "action": "TERMINATE", "terminationWaitTimeInMinutes": self.below(3),
                },
                "deploymentReadyOption": ready,
            },
            "loadBalancerInfo": {"targetGroupPairInfoList": [pair]},
            "ecsServices": [{"serviceName": "s", "clusterName": "c"}],
            "alarmConfiguration": {"enabled": self.below(2) == 0, "alarms": [{"name": "alarm"}]},
            "autoRollbackConfiguration": {"enabled": !events.is_empty(), "events": events},
        });
        let Life { front, root, .. } = &self.process.life;
        for (service, operation, request) in [
            (
                "iam",
                "CreateRole",
                json!({"RoleName": "deploys", "AssumeRolePolicyDocument": trust}),
            ),
            ("iam", "PutRolePolicy", policy),
            (
                "codedeploy",
                "CreateApplication",
                json!({"applicationName": "a", "computePlatform": "ECS"}),
            ),
            ("codedeploy", "CreateDeploymentGroup", group),
        ] {
            front.call(root.clone(), service, operation, request).await.unwrap();
        }
    }

    /// Calls an operation; nothing when the process crashed meanwhile.
    async fn call<T>(
        &mut self,
        call: impl AsyncFn(&CodeDeploy, &Context) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let called = self.process.call(async |life| {
            let mut root = life.root.clone();
            root.now = life.world.now();
            call(&life.house, &root).await
        });
        called.await
    }

    fn all(&self) -> Vec<Arc<Deployment>> {
        self.process
            .life
            .house
            .store
            .read()
            .scan_prefix::<Deployment>(&format!("{REALM}/"))
            .collect()
    }

    fn open(&self) -> Option<Arc<Deployment>> {
        let open: Vec<_> = self.all().into_iter().filter(|one| one.is_open()).collect();
        assert!(open.len() <= 1, "a group has one deployment at a time");
        open.into_iter().next()
    }

    /// Begins a deployment of a new version.
    async fn deploy(&mut self) {
        self.versions += 1;
        let mut spec = json!({"version": 0.0, "Resources": [{"Target": {"Type": "AWS::ECS::Service", "Properties": {
            "TaskDefinition": self.versions.to_string(),
            "LoadBalancerInfo": {"ContainerName": "main", "ContainerPort": 80},
        }}}]});
        let hooks: Vec<Json> = crate::model::HookEvent::ALL
            .into_iter()
            .filter(|_| self.below(5) == 0)
            .map(|event| json!({event.name(): "f"}))
            .collect();
        if !hooks.is_empty() {
            spec["Hooks"] = json!(hooks);
        }
        let revision = RevisionLocation {
            revision_type: Some(RevisionLocationType::AppSpecContent),
            app_spec_content: Some(AppSpecContent {
                content: Some(spec.to_string()),
                sha256: None,
            }),
            ..RevisionLocation::default()
        };
        self.call(async move |house, root| {
            let input = CreateDeploymentInput {
                application_name: "a".to_owned(),
                deployment_group_name: Some("g".to_owned()),
                revision: Some(revision.clone()),
                ..CreateDeploymentInput::default()
            };
            ops::deployment::create_deployment(house, root, input).await
        })
        .await;
    }

    /// What somebody does meanwhile.
    async fn meddle(&mut self, id: &str) {
        let id = id.to_owned();
        let (choice, back) = (self.below(3), self.below(2) == 0);
        self.call(async move |house, root| {
            if choice == 0 {
                let input = StopDeploymentInput {
                    deployment_id: id.clone(),
                    auto_rollback_enabled: Some(back),
                };
                return ops::deployment::stop_deployment(house, root, input).await.map(|_| ());
            }
            let input = ContinueDeploymentInput {
                deployment_id: Some(id.clone()),
                deployment_wait_type: Some(match choice {
                    1 => DeploymentWaitType::ReadyWait,
                    _ => DeploymentWaitType::TerminationWait,
                }),
            };
            ops::deployment::continue_deployment(house, root, input).await
        })
        .await;
    }

    /// Waits until no deployment is open, through crashes and whatever somebody does.
    async fn rest(&mut self) {
        for _ in 0..20_000 {
            let Some(open) = self.open() else { return };
            match self.below(60) {
                0 => self.meddle(&open.id).await,
                _ => {
                    let seconds = self.below(20);
                    let wait = Duration::from_millis(200 + u64::from(seconds) * 1000);
                    self.process.wait(wait).await;
                }
            }
        }
        panic!("a deployment does not end: {:?}", self.open().map(|one| (one.phase, one.status)));
    }

    /// What must hold when everything is over.
    fn check(&mut self) {
        let mut all = self.all();
        all.sort_by_key(|one| (one.created, one.rolls_back.is_some()));
        let outside = self.outside.lock().unwrap();
        simulation::Outside::check(&*outside);
        let told = |one: &Arc<Deployment>| {
            let (phase, status, error) = (one.phase, one.status, &one.error);
            format!("{} of {:?}: {phase:?} {status:?} {error:?}\n", one.id, one.rolls_back)
        };
        let told: String = all.iter().map(told).collect();
        let Some(last) = all.last() else { return };
        let version = |deployment: &Deployment| -> u32 {
            let content = deployment.revision.app_spec_content.as_ref().unwrap();
            let spec: Json = serde_json::from_str(content.content.as_ref().unwrap()).unwrap();
            let properties = &spec["Resources"][0]["Target"]["Properties"];
            properties["TaskDefinition"].as_str().unwrap().parse().unwrap()
        };
        let primary = outside.primary();
        let production = &outside.weights["production"];
        match (last.status, &last.rolls_back) {
            (DeploymentStatus::Succeeded, Some(_)) => {
                assert_eq!(
                    primary.version, self.good,
                    "a rollback ends on the last good version\n{told}"
                );
                assert_eq!(production[&primary.group], 100, "{told}");
                assert_eq!(outside.sets.len(), 1, "{:?}\n{told}", outside.sets);
            }
            (DeploymentStatus::Succeeded, None) => {
                self.good = version(last);
                assert!(!BAD(self.good));
                assert_eq!(primary.version, self.good, "{told}");
                assert_eq!(production[&primary.group], 100, "{told}");
                assert_eq!(outside.sets.len(), 1, "{:?}\n{told}", outside.sets);
            }
            (DeploymentStatus::Failed | DeploymentStatus::Stopped, None) => {
                let touched = !last.plan.blue.is_empty();
                let asked = last.rollback.as_ref().is_some_and(|rollback| {
                    let alarmed = |(code, _): &(ErrorCode, String)| *code == ErrorCode::AlarmActive;
                    let of = match last.status {
                        _ if last.error.as_ref().is_some_and(alarmed) => {
                            AutoRollbackEvent::DeploymentStopOnAlarm
                        }
                        DeploymentStatus::Failed => AutoRollbackEvent::DeploymentFailure,
                        _ => AutoRollbackEvent::DeploymentStopOnRequest,
                    };
                    rollback.events.iter().flatten().any(|event| *event == of)
                });
                assert!(!(touched && asked), "it should have been rolled back: {:?}", last.error);
                // What nobody brought back stays as it was left; what is primary then is what a rollback would end on.
                self.good = primary.version;
            }
            (status, back) => panic!("{status:?} {back:?}: {:?}", last.error),
        }
    }

    async fn run(mut self) {
        for _ in 0..6 {
            self.deploy().await;
            self.rest().await;
            self.check();
        }
        self.process.life.world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deployments_come_to_rest_whatever_happens() {
    for seed in simulation::seeds(40) {
        eprintln!("again: SEED={seed} cargo test -p codedeploy deployments_come_to_rest");
        History::new(seed).await.run().await;
    }
}

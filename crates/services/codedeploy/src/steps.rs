//! The phases of a deployment, each as calls of ECS's and the load balancer's own operations, as the group's role.

use crate::{
    CodeDeploy,
    api::{ErrorCode, InstanceAction, RevisionLocation, RevisionLocationType, TargetGroupPairInfo},
    appspec::{self, Spec},
    config,
    drive::Flow,
    hooks,
    model::{Deployment, Diagnosis, Phase, Plan},
};
use serde_json::{Map, Value as Json, json};
use std::{sync::Arc, time::Duration};
use store::DiskFault;
use wire::{Context, Fault, Principal};

/// The service that roles trust.
pub(crate) const SERVICE: &str = "codedeploy.amazonaws.com";
/// How long a role is taken on for.
const SESSION: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// How long green may take to become steady.
const INSTALL_MINUTES: u32 = 60;
/// How often ECS is asked how far it is, the less often the longer it takes. It is in the same process: asking costs
/// little.
const LOOK: Duration = Duration::from_millis(200);
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// Why a deployment cannot go on.
pub(crate) struct Failed {
    pub code: ErrorCode,
    pub message: String,
    /// It may go on another time.
    pub again: bool,
    /// What is to be said of the lifecycle event's function.
    pub diagnosis: Option<Diagnosis>,
}

impl Failed {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), again: false, diagnosis: None }
    }

    pub(crate) fn of(code: ErrorCode, fault: &Fault) -> Self {
        let code = match &*fault.code {
            code if code.contains("AccessDenied") => ErrorCode::IamRolePermissions,
            _ => code,
        };
        Self {
            code,
            message: format!("{} ({})", fault.message, fault.code),
            again: !fault.is_sender(),
            diagnosis: None,
        }
    }
}

/// Who calls, and for which deployment.
pub(crate) struct Work<'a> {
    pub service: &'a Arc<CodeDeploy>,
    pub deployment: &'a Deployment,
    principal: Principal,
}

fn work<'a>(service: &'a Arc<CodeDeploy>, deployment: &'a Deployment) -> Result<Work<'a>, Failed> {
    let role = &deployment.group.role;
    let session = service.iam.assume_for_service(role, SERVICE, &deployment.id, SESSION);
    let session =
        session.map_err(|error| Failed::new(ErrorCode::IamRoleMissing, error.to_string()))?;
    Ok(Work { service, deployment, principal: session.principal })
}

/// The task sets of a deployment's service, as the group's role sees them; none when it cannot.
pub(crate) async fn task_sets(service: &Arc<CodeDeploy>, deployment: &Deployment) -> Vec<Json> {
    let found = match work(service, deployment) {
        Ok(work) => work.described().await,
        Err(failed) => Err(failed),
    };
    match found {
        Ok(found) => found["taskSets"].as_array().cloned().unwrap_or_default(),
        Err(failed) => {
            let (id, why) = (&deployment.id, failed.message);
            tracing::debug!(deployment = id, why, "a deployment's task sets cannot be looked at");
            Vec::new()
        }
    }
}

/// Carries the phase that a deployment is in a step further.
pub(crate) async fn step(
    service: &Arc<CodeDeploy>,
    deployment: &Deployment,
) -> Result<Flow, Failed> {
    let work = work(service, deployment)?;
    match deployment.phase {
        Phase::Prepare => work.prepare().await,
        Phase::Hook(event) => hooks::step(&work, event).await,
        Phase::Install => work.install().await,
        Phase::Test => work.test().await,
        Phase::Ready => work.ready(),
        Phase::Shift => work.shift().await,
        Phase::Primary => work.primary().await,
        Phase::Terminate => work.terminate().await,
        Phase::Restore => work.restore().await,
    }
}

/// Fails when an alarm is on that is to stop the deployment.
/// <https://docs.aws.amazon.com/codedeploy/latest/userguide/monitoring-create-alarms.html>
pub(crate) async fn alarms(
    service: &Arc<CodeDeploy>,
    deployment: &Deployment,
) -> Result<(), Failed> {
    let Some((names, goes_on)) = deployment.alarms() else { return Ok(()) };
    let work = work(service, deployment)?;
    let ask = json!({"AlarmNames": names, "StateValue": "ALARM"});
    let on = match service.front().call(work.context(), "monitoring", "DescribeAlarms", ask).await {
        Ok(on) => on,
        Err(_) if goes_on => return Ok(()),
        Err(fault) => return Err(Failed::of(ErrorCode::InternalError, &fault)),
    };
    let on = on["MetricAlarms"].as_array().into_iter().flatten();
    let on: Vec<&str> = on.filter_map(|alarm| alarm["AlarmName"].as_str()).collect();
    match on.is_empty() {
        true => Ok(()),
        false => Err(Failed::new(
            ErrorCode::AlarmActive,
            format!(
                "One or more alarms have been activated according to the Amazon CloudWatch metrics you \
                 selected, and the \
                 affected deployments have been stopped. Activated alarms: <{}>",
                on.join(", ")
            ),
        )),
    }
}

impl Work<'_> {
    fn region(&self) -> &str {
        self.deployment.realm.split_once('/').map_or("", |(_, region)| region)
    }

    pub(crate) fn context(&self) -> Context {
        self.service.front().context(self.principal.clone(), self.region())
    }

    async fn ecs(&self, operation: &str, mut request: Json) -> Result<Json, Failed> {
        let group = &self.deployment.group;
        request["cluster"] = json!(group.cluster);
        let answer = self.service.front().call(self.context(), "ecs", operation, request).await;
        answer.map_err(|fault| Failed::of(ErrorCode::EcsUpdateError, &fault))
    }

    async fn elb(&self, operation: &str, request: Json) -> Result<Json, Failed> {
        let answer = self
            .service
            .front()
            .call(self.context(), "elasticloadbalancing", operation, request)
            .await;
        answer.map_err(|fault| Failed::of(ErrorCode::ElasticLoadBalancingInvalid, &fault))
    }

    /// The service as ECS describes it.
    async fn described(&self) -> Result<Json, Failed> {
        let name = &self.deployment.group.service;
        let answer = self.ecs("DescribeServices", json!({"services": [name]})).await?;
        let found = answer["services"][0].clone();
        match found["status"].as_str() {
            Some("ACTIVE") => Ok(found),
            _ => Err(Failed::new(
                ErrorCode::InvalidEcsService,
                format!("The ECS service {name} is not there, or not active."),
            )),
        }
    }

    fn pair(&self) -> Result<&TargetGroupPairInfo, Failed> {
        let pairs = self.deployment.group.load_balancer.target_group_pair_info_list.as_ref();
        pairs.and_then(|pairs| pairs.first()).ok_or_else(|| {
            Failed::new(
                ErrorCode::MissingElbInformation,
                "The deployment group has no target group pair.",
            )
        })
    }

    pub(crate) fn minutes(&self, minutes: u32) -> Duration {
        self.service.world.scaled(MINUTE * minutes)
    }

    /// How long the phase has been going on.
    pub(crate) fn passed(&self) -> Duration {
        self.service.world.now().since(self.deployment.since)
    }

    pub(crate) async fn note(&self, change: impl FnOnce(&mut Deployment)) -> Result<(), Failed> {
        use store::Record;
        let key = self.deployment.key();
        let noted = self.service.store.write(|tx| {
            tx.update::<Deployment>(&key, change);
            Ok::<_, DiskFault>(())
        });
        noted.await.map_err(|error| Failed {
            code: ErrorCode::InternalError,
            message: error.to_string(),
            again: true,
            diagnosis: None,
        })
    }

    async fn spec(&self) -> Result<Spec, Failed> {
        let invalid = |message: String| {
            Failed::new(
                ErrorCode::InvalidRevision,
                format!("The AppSpec file cannot be used: {message}"),
            )
        };
        let text = text(self, &self.deployment.revision).await.map_err(invalid)?;
        appspec::read(&text).map_err(invalid)
    }

    async fn prepare(&self) -> Result<Flow, Failed> {
        if self.deployment.plan.blue.is_empty() {
            let plan = self.plan().await?;
            self.note(|deployment| deployment.plan = plan).await?;
            return Ok(Flow::Again);
        }
        let service = self.described().await?;
        let sets = service["taskSets"].as_array().into_iter().flatten();
        let left: Vec<&Json> =
            sets.filter(|set| set["status"] != "PRIMARY" && set["status"] != "DRAINING").collect();
        // What an earlier deployment left behind makes room, once no request goes there any more.
        if !left.is_empty() {
            self.lead(self.listeners(false)?, 0).await?;
            self.lead(self.listeners(true)?, 0).await?;
        }
        for left in left {
            let gone = json!({"service": self.deployment.group.service, "taskSet": left["id"], "force": true});
            self.ecs("DeleteTaskSet", gone).await?;
        }
        Ok(Flow::On)
    }

    /// Reads the revision, and looks at what there is.
    async fn plan(&self) -> Result<Plan, Failed> {
        let Spec { hooks, .. } = self.spec().await?;
        let service = self.described().await?;
        if service["deploymentController"]["type"] != "CODE_DEPLOY" {
            return Err(Failed::new(
                ErrorCode::InvalidEcsService,
                "The ECS service's deployment controller is not CODE_DEPLOY.",
            ));
        }
        let mut sets = service["taskSets"].as_array().into_iter().flatten();
        let primary = sets.find(|set| set["status"] == "PRIMARY").ok_or_else(|| {
            Failed::new(ErrorCode::InvalidEcsService, "The ECS service has no primary task set.")
        })?;
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        let blue_group = text(&primary["loadBalancers"][0]["targetGroupArn"]);
        let names = self.pair()?.target_groups.iter().flatten();
        let names: Vec<String> = names.filter_map(|group| group.name.clone()).collect();
        let found = self.elb("DescribeTargetGroups", json!({"Names": names})).await?;
        let groups = found["TargetGroups"].as_array().cloned().unwrap_or_default();
        let arns: Vec<String> = groups.iter().map(|group| text(&group["TargetGroupArn"])).collect();
        if !arns.contains(&blue_group) {
            return Err(Failed::new(
                ErrorCode::ElasticLoadBalancingInvalid,
                "The primary task set's target group is not one of the deployment group's pair.",
            ));
        }
        let green_group = arns.into_iter().find(|arn| *arn != blue_group).ok_or_else(|| {
            Failed::new(ErrorCode::MissingElbInformation, "The pair has no second target group.")
        })?;
        Ok(Plan { blue: text(&primary["id"]), blue_group, green_group, hooks })
    }

    /// The task set with this id.
    async fn set(&self, id: &str) -> Result<Option<Json>, Failed> {
        let service = self.described().await?;
        let sets = service["taskSets"].as_array().into_iter().flatten();
        Ok(sets.into_iter().find(|set| set["id"] == json!(id)).cloned())
    }

    async fn install(&self) -> Result<Flow, Failed> {
        let Some(green) = &self.deployment.green else {
            let made = self.create().await?;
            self.note(|deployment| deployment.green = Some(made)).await?;
            return Ok(Flow::Wait(LOOK));
        };
        let set = self.set(green).await?.ok_or_else(|| {
            Failed::new(ErrorCode::EcsUpdateError, "The replacement task set is gone.")
        })?;
        if set["stabilityStatus"] == "STEADY_STATE" {
            return Ok(Flow::On);
        }
        if self.passed() > self.minutes(INSTALL_MINUTES) {
            return Err(Failed::new(
                ErrorCode::Timeout,
                format!(
                    "The deployment timed out while waiting for the replacement task set to become healthy. This time \
                     out period is {INSTALL_MINUTES} minutes."
                ),
            ));
        }
        Ok(Flow::Wait((self.passed() / 20).clamp(LOOK, LONGEST_LOOK)))
    }

    /// Makes the green task set; its id. The deployment's own id makes sure that there is one.
    async fn create(&self) -> Result<String, Failed> {
        let Spec { service: spec, .. } = self.spec().await?;
        // A target group that no listener leads to has no health, and ECS takes none such: green gets its place in the
        // listener, and no traffic yet.
        self.lead(self.listeners(false)?, 0).await?;
        let service = self.described().await?;
        let sets = service["taskSets"].as_array().into_iter().flatten();
        let mut sets = sets.into_iter();
        let blue = sets.find(|set| set["id"] == json!(self.deployment.plan.blue)).cloned();
        let blue = blue.unwrap_or_default();
        let balancer = json!({
            "targetGroupArn": self.deployment.plan.green_group,
            "containerName": spec.load_balancer.name, "containerPort": spec.load_balancer.port,
        });
        let mut request = Map::new();
        let mut set = |name: &str, value: Json| {
            // What the file does not say is as it was.
            if !value.is_null() {
                request.insert(name.to_owned(), value);
            }
        };
        set("service", json!(self.deployment.group.service));
        set("externalId", json!(self.deployment.id));
        set("clientToken", json!(self.deployment.id));
        set("taskDefinition", json!(spec.task_definition));
        set("loadBalancers", json!([balancer]));
        set("scale", json!({"value": 100.0, "unit": "PERCENT"}));
        set("platformVersion", json!(spec.platform_version));
        let network = spec.network.map(Json::Object);
        set(
            "networkConfiguration",
            network.unwrap_or_else(|| blue["networkConfiguration"].clone()),
        );
        match spec.strategy {
            Some(strategy) => set("capacityProviderStrategy", json!(strategy)),
            None => match blue["capacityProviderStrategy"].as_array().filter(|all| !all.is_empty())
            {
                Some(strategy) => set("capacityProviderStrategy", json!(strategy)),
                None => set("launchType", json!("FARGATE")),
            },
        }
        let made = self.ecs("CreateTaskSet", Json::Object(request)).await?;
        let id = made["taskSet"]["id"].as_str();
        id.map(str::to_owned).ok_or_else(|| {
            Failed::new(ErrorCode::InternalError, "The task set was not understood.")
        })
    }

    fn listeners(&self, test: bool) -> Result<Vec<String>, Failed> {
        let pair = self.pair()?;
        let route = if test { &pair.test_traffic_route } else { &pair.prod_traffic_route };
        Ok(route.as_ref().and_then(|route| route.listener_arns.clone()).unwrap_or_default())
    }

    /// Lets every rule of the listeners that leads to one of the pair lead to both by weight, `green` percent to green.
    async fn lead(&self, listeners: Vec<String>, green: i32) -> Result<(), Failed> {
        let Plan { blue_group, green_group, .. } = &self.deployment.plan;
        let wanted = json!([
            {"TargetGroupArn": blue_group, "Weight": 100 - green},
            {"TargetGroupArn": green_group, "Weight": green},
        ]);
        for listener in listeners {
            let found = self.elb("DescribeRules", json!({"ListenerArn": listener})).await?;
            let mut leads = false;
            for rule in found["Rules"].as_array().into_iter().flatten() {
                let mut actions = rule["Actions"].as_array().cloned().unwrap_or_default();
                let mut ours = actions.iter_mut().filter(|action| {
                    let text = action.to_string();
                    action["Type"] == "forward"
                        && (text.contains(blue_group.as_str())
                            || text.contains(green_group.as_str()))
                });
                let Some(action) = ours.next() else { continue };
                leads = true;
                if let Some(action) = action.as_object_mut() {
                    action.remove("TargetGroupArn");
                    let config = action.entry("ForwardConfig").or_insert_with(|| json!({}));
                    if config["TargetGroups"] == wanted {
                        continue;
                    }
                    config["TargetGroups"] = wanted.clone();
                }
                match rule["IsDefault"] == json!(true) {
                    true => {
                        let changed = json!({"ListenerArn": listener, "DefaultActions": actions});
                        self.elb("ModifyListener", changed).await?;
                    }
                    false => {
                        let changed = json!({"RuleArn": rule["RuleArn"], "Actions": actions});
                        self.elb("ModifyRule", changed).await?;
                    }
                }
            }
            if !leads {
                return Err(Failed::new(
                    ErrorCode::ElasticLoadBalancingInvalid,
                    format!(
                        "The listener {listener} leads to none of the deployment group's target groups."
                    ),
                ));
            }
        }
        Ok(())
    }

    async fn test(&self) -> Result<Flow, Failed> {
        self.lead(self.listeners(true)?, 100).await?;
        Ok(Flow::On)
    }

    fn ready(&self) -> Result<Flow, Failed> {
        if self.deployment.let_on {
            return Ok(Flow::On);
        }
        let option = self.deployment.group.blue_green.deployment_ready_option.as_ref();
        let minutes = option.and_then(|option| option.wait_time_in_minutes).unwrap_or_default();
        let limit = self.minutes(minutes.unsigned_abs());
        match limit.checked_sub(self.passed()) {
            Some(left) if !left.is_zero() => Ok(Flow::Wait(left)),
            _ => Err(Failed::new(
                ErrorCode::Timeout,
                format!("The deployment was not continued within {minutes} minutes."),
            )),
        }
    }

    async fn shift(&self) -> Result<Flow, Failed> {
        let (weight, next) =
            config::weight(&self.deployment.routing, self.passed(), self.minutes(1));
        if self.deployment.weight != weight {
            // Written down first: a rollback must know that traffic may have moved.
            self.note(|deployment| deployment.weight = weight).await?;
        }
        self.lead(self.listeners(false)?, weight).await?;
        Ok(match next {
            None => Flow::On,
            Some(left) => Flow::Wait(left),
        })
    }

    async fn make_primary(&self, set: &str) -> Result<(), Failed> {
        let asked = json!({"service": self.deployment.group.service, "primaryTaskSet": set});
        self.ecs("UpdateServicePrimaryTaskSet", asked).await.map(|_| ())
    }

    async fn primary(&self) -> Result<Flow, Failed> {
        let green = self.deployment.green.clone().unwrap_or_default();
        if self.set(&green).await?.is_none_or(|set| set["status"] != "PRIMARY") {
            self.make_primary(&green).await?;
        }
        Ok(Flow::On)
    }

    async fn terminate(&self) -> Result<Flow, Failed> {
        let option = self
            .deployment
            .group
            .blue_green
            .terminate_blue_instances_on_deployment_success
            .as_ref();
        if option.and_then(|option| option.action) == Some(InstanceAction::KeepAlive) {
            return Ok(Flow::Done);
        }
        let minutes = option.and_then(|option| option.termination_wait_time_in_minutes);
        let limit = self.minutes(minutes.unwrap_or_default().unsigned_abs());
        if !self.deployment.let_on
            && let Some(left) = limit.checked_sub(self.passed()).filter(|left| !left.is_zero())
        {
            return Ok(Flow::Wait(left));
        }
        self.delete(&self.deployment.plan.blue).await?;
        Ok(Flow::Done)
    }

    /// Deletes a task set that is there, and is not the primary one.
    async fn delete(&self, set: &str) -> Result<(), Failed> {
        match self.set(set).await? {
            Some(found) if found["status"] == "ACTIVE" => {
                let gone = json!({
                    "service": self.deployment.group.service, "taskSet": set, "force": true,
                });
                self.ecs("DeleteTaskSet", gone).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Traffic comes back to blue, and green goes.
    async fn restore(&self) -> Result<Flow, Failed> {
        let blue = &self.deployment.plan.blue;
        let Some(set) = self.set(blue).await? else {
            return Err(Failed::new(
                ErrorCode::EcsUpdateError,
                "The original task set is gone; there is nothing to roll back to.",
            ));
        };
        self.lead(self.listeners(false)?, 0).await?;
        self.lead(self.listeners(true)?, 0).await?;
        if set["status"] != "PRIMARY" {
            self.make_primary(blue).await?;
        }
        // The process may have died between making green and writing that down.
        let made = json!(self.deployment.rolls_back);
        let service = self.described().await?;
        let sets = service["taskSets"].as_array().into_iter().flatten();
        let green = sets.filter(|set| set["externalId"] == made && set["id"] != json!(blue));
        for green in green.filter_map(|set| set["id"].as_str()) {
            self.delete(green).await?;
        }
        self.note(|deployment| deployment.weight = 0).await?;
        Ok(Flow::Done)
    }
}

/// The AppSpec file's text.
async fn text(work: &Work<'_>, revision: &RevisionLocation) -> Result<String, String> {
    let missing = || "the revision has no content".to_owned();
    let whole = |content: &Option<String>, sha256: &Option<String>| {
        let content = content.clone().ok_or_else(missing)?;
        let hash = wire::sigv4::sha256_hex(content.as_bytes());
        match sha256.as_ref().is_none_or(|given| given.eq_ignore_ascii_case(&hash)) {
            true => Ok(content),
            false => Err("its content does not have the SHA-256 that the revision says".to_owned()),
        }
    };
    match revision.revision_type {
        Some(RevisionLocationType::AppSpecContent) => {
            let given = revision.app_spec_content.as_ref().ok_or_else(missing)?;
            whole(&given.content, &given.sha256)
        }
        Some(RevisionLocationType::String) => {
            let given = revision.string.as_ref().ok_or_else(missing)?;
            whole(&given.content, &given.sha256)
        }
        Some(RevisionLocationType::S3) => {
            let place = revision.s3_location.as_ref().ok_or_else(missing)?;
            let (Some(bucket), Some(key)) = (&place.bucket, &place.key) else {
                return Err(missing());
            };
            let longest = appspec::LONGEST as u64;
            let bytes = work.service.s3.bytes(&work.context(), bucket, key, longest).await?;
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
        }
        _ => Err("revisions come from S3 or with the request".to_owned()),
    }
}

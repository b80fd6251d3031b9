//! Deployment groups.

use super::{PAGE, application, group, group_arn, is_name, tag};
use crate::{
    CodeDeploy,
    api::*,
    config, faults,
    model::{Application, Deployment, Group},
    steps::SERVICE,
};
use store::{Record, Tx};
use wire::{Context, Fault, Page};

fn invalid(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::new(code, message)
}

/// Deployments to ECS are blue and green, with traffic control.
fn style(given: Option<DeploymentStyle>) -> Result<DeploymentStyle, Fault> {
    let right = given.as_ref().is_some_and(|style| {
        style.deployment_type == Some(DeploymentType::BlueGreen)
            && style.deployment_option == Some(DeploymentOption::WithTrafficControl)
    });
    given.filter(|_| right).ok_or_else(|| {
        invalid(
            "InvalidDeploymentStyleException",
            "For ECS deployment group, deployment type must be BLUE_GREEN and deployment option WITH_TRAFFIC_CONTROL",
        )
    })
}

fn blue_green(
    given: Option<BlueGreenDeploymentConfiguration>,
) -> Result<BlueGreenDeploymentConfiguration, Fault> {
    const CODE: &str = "InvalidBlueGreenDeploymentConfigurationException";
    let given = given.ok_or_else(|| {
        invalid(
            CODE,
            "For ECS deployment group, blueGreenDeploymentConfiguration must be specified.",
        )
    })?;
    let ready = given.deployment_ready_option.as_ref();
    let (action, wait) = (
        ready.and_then(|ready| ready.action_on_timeout),
        ready.and_then(|ready| ready.wait_time_in_minutes).unwrap_or_default(),
    );
    let stops = action == Some(DeploymentReadyAction::StopDeployment);
    if stops != (wait > 0) || !(0..=2880).contains(&wait) {
        return Err(invalid(
            CODE,
            "waitTimeInMinutes is 1 to 2880 with STOP_DEPLOYMENT, and 0 with CONTINUE_DEPLOYMENT.",
        ));
    }
    let blue = given.terminate_blue_instances_on_deployment_success.as_ref();
    let wait = blue.and_then(|blue| blue.termination_wait_time_in_minutes).unwrap_or_default();
    match (0..=2880).contains(&wait) {
        true => Ok(given),
        false => Err(invalid(CODE, "terminationWaitTimeInMinutes is 0 to 2880.")),
    }
}

fn load_balancer(given: Option<LoadBalancerInfo>) -> Result<LoadBalancerInfo, Fault> {
    const CODE: &str = "InvalidLoadBalancerInfoException";
    let pairs = given.as_ref().and_then(|info| info.target_group_pair_info_list.as_ref());
    let Some([pair]) = pairs.map(Vec::as_slice) else {
        return Err(invalid(
            CODE,
            "For ECS deployment group, one target group pair must be specified.",
        ));
    };
    if pair.target_groups.as_ref().map_or(0, Vec::len) != 2 {
        return Err(invalid(CODE, "A target group pair has two target groups."));
    }
    let listeners = |route: &Option<TrafficRoute>| {
        route.as_ref().and_then(|route| route.listener_arns.as_ref()).map_or(0, Vec::len)
    };
    match (listeners(&pair.prod_traffic_route), listeners(&pair.test_traffic_route)) {
        (1, 0 | 1) => Ok(given.unwrap_or_default()),
        _ => Err(invalid(
            CODE,
            "There must be one listener for production traffic, and at most one for tests.",
        )),
    }
}

fn ecs_service(given: Option<Vec<ECSService>>) -> Result<(String, String), Fault> {
    let services = given.unwrap_or_default();
    let [ECSService { service_name: Some(service), cluster_name }] = services.as_slice() else {
        return Err(invalid("InvalidECSServiceException", "One ECS service must be specified."));
    };
    let cluster = cluster_name.clone().unwrap_or_else(|| "default".to_owned());
    Ok((cluster, service.clone()))
}

/// One group has a service, so that two deployments never move the same traffic.
fn check_service(tx: &Tx, record: &Group) -> Result<(), Fault> {
    let mut others = tx.scan_prefix::<Group>(&format!("{}/", record.realm));
    let same = |other: &Group| {
        (&other.cluster, &other.service) == (&record.cluster, &record.service)
            && other.key() != record.key()
    };
    match others.find(|other| same(other)) {
        None => Ok(()),
        Some(other) => Err(invalid(
            "ECSServiceMappingLimitExceededException",
            format!("The ECS service is already in the deployment group {}.", other.name),
        )),
    }
}

/// The most alarms of a group.
const MOST_ALARMS: usize = 10;

/// Whether deployments can be stopped by these.
/// <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_AlarmConfiguration.html>
pub(crate) fn alarms(given: AlarmConfiguration) -> Result<AlarmConfiguration, Fault> {
    let wrong = |why: &str| Err(invalid("InvalidAlarmConfigException", why));
    let mut names = std::collections::BTreeSet::new();
    for alarm in given.alarms.iter().flatten() {
        match alarm.name.as_deref() {
            Some(name) if name.is_empty() || name.chars().count() > 255 => {
                return wrong("The name of an alarm must have between 1 and 255 characters.");
            }
            Some(name) if !names.insert(name) => {
                return wrong("An alarm is given more than once.");
            }
            Some(_) => {}
            None => return wrong("The name of an alarm must be specified."),
        }
    }
    if given.enabled == Some(true) && names.is_empty() {
        return wrong("Alarms are enabled, but none is given.");
    }
    match names.len() > MOST_ALARMS {
        true => Err(invalid(
            "AlarmsLimitExceededException",
            format!("A deployment group has {MOST_ALARMS} alarms at most."),
        )),
        false => Ok(given),
    }
}

pub(crate) async fn create_deployment_group(
    service: &CodeDeploy,
    ctx: &Context,
    input: CreateDeploymentGroupInput,
) -> Result<CreateDeploymentGroupOutput, Fault> {
    let (name, of) = (input.deployment_group_name, input.application_name);
    ctx.authorise("codedeploy:CreateDeploymentGroup", &group_arn(ctx, &of, &name))?;
    application(service, ctx, &of)?;
    if !is_name(&name) {
        return Err(invalid(
            "InvalidDeploymentGroupNameException",
            "The deployment group name is not valid.",
        ));
    }
    ctx.authorise_with(
        "iam:PassRole",
        &input.service_role_arn,
        &[("iam:PassedToService", SERVICE)],
    )?;
    let (cluster, ecs_service) = ecs_service(input.ecs_services)?;
    let id = service.world.uuid();
    let record = Group {
        realm: ctx.realm(),
        application: of,
        name,
        id: id.clone(),
        config: input.deployment_config_name.unwrap_or_else(|| config::DEFAULT.to_owned()),
        role: input.service_role_arn,
        rollback: input.auto_rollback_configuration,
        alarms: input.alarm_configuration.map(alarms).transpose()?,
        style: style(input.deployment_style)?,
        blue_green: blue_green(input.blue_green_deployment_configuration)?,
        load_balancer: load_balancer(input.load_balancer_info)?,
        cluster,
        service: ecs_service,
        succeeded: None,
        revision: None,
        attempted: None,
        tags: tag::collect(input.tags.unwrap_or_default())?,
    };
    if config::routing(&service.store.read(), &record.realm, &record.config).is_none() {
        return Err(faults::no_config(&record.config));
    }
    service
        .store
        .write(move |tx| {
            if tx
                .get::<Application>(&Application::key_of(&record.realm, &record.application))
                .is_none()
            {
                return Err(faults::no_application(&record.application));
            }
            if tx.get::<Group>(&record.key()).is_some() {
                return Err(Fault::new(
                    "DeploymentGroupAlreadyExistsException",
                    format!("Deployment group name already exists in application: {}", record.name),
                ));
            }
            check_service(tx, &record)?;
            tx.put(record);
            Ok(())
        })
        .await?;
    Ok(CreateDeploymentGroupOutput { deployment_group_id: Some(id) })
}

pub(crate) async fn update_deployment_group(
    service: &CodeDeploy,
    ctx: &Context,
    input: UpdateDeploymentGroupInput,
) -> Result<UpdateDeploymentGroupOutput, Fault> {
    let place = (input.application_name.as_str(), input.current_deployment_group_name.as_str());
    let found = group(service, ctx, place, "codedeploy:UpdateDeploymentGroup")?;
    if let Some(role) = &input.service_role_arn {
        ctx.authorise_with("iam:PassRole", role, &[("iam:PassedToService", SERVICE)])?;
    }
    let mut changed = Group::clone(&found);
    if let Some(config) = input.deployment_config_name {
        if config::routing(&service.store.read(), &found.realm, &config).is_none() {
            return Err(faults::no_config(&config));
        }
        changed.config = config;
    }
    if let Some(role) = input.service_role_arn {
        changed.role = role;
    }
    if let Some(given) = input.auto_rollback_configuration {
        changed.rollback = Some(given);
    }
    if let Some(given) = input.alarm_configuration {
        changed.alarms = Some(alarms(given)?);
    }
    if let Some(given) = input.deployment_style {
        changed.style = style(Some(given))?;
    }
    if let Some(given) = input.blue_green_deployment_configuration {
        changed.blue_green = blue_green(Some(given))?;
    }
    if let Some(given) = input.load_balancer_info {
        changed.load_balancer = load_balancer(Some(given))?;
    }
    if let Some(given) = input.ecs_services {
        (changed.cluster, changed.service) = ecs_service(Some(given))?;
    }
    let missing = faults::no_group(&changed.name);
    service
        .store
        .write(move |tx| {
            let newest = tx.get::<Group>(&changed.key()).ok_or(missing)?;
            check_service(tx, &changed)?;
            // What deployments have written meanwhile stays.
            let (succeeded, revision, attempted) =
                (newest.succeeded.clone(), newest.revision.clone(), newest.attempted.clone());
            tx.put(Group { succeeded, revision, attempted, tags: newest.tags.clone(), ..changed });
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(UpdateDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) })
}

pub(crate) async fn get_deployment_group(
    service: &CodeDeploy,
    ctx: &Context,
    input: GetDeploymentGroupInput,
) -> Result<GetDeploymentGroupOutput, Fault> {
    let place = (input.application_name.as_str(), input.deployment_group_name.as_str());
    let found = group(service, ctx, place, "codedeploy:GetDeploymentGroup")?;
    Ok(GetDeploymentGroupOutput {
        deployment_group_info: Some(DeploymentGroupInfo {
            application_name: Some(found.application.clone()),
            deployment_group_id: Some(found.id.clone()),
            deployment_group_name: Some(found.name.clone()),
            deployment_config_name: Some(found.config.clone()),
            service_role_arn: Some(found.role.clone()),
            target_revision: found.revision.clone(),
            auto_rollback_configuration: found.rollback.clone(),
            alarm_configuration: found.alarms.clone(),
            deployment_style: Some(found.style.clone()),
            blue_green_deployment_configuration: Some(found.blue_green.clone()),
            load_balancer_info: Some(found.load_balancer.clone()),
            last_successful_deployment: found.succeeded.clone(),
            last_attempted_deployment: found.attempted.clone(),
            compute_platform: Some(ComputePlatform::Ecs),
            ecs_services: Some(vec![ECSService {
                service_name: Some(found.service.clone()),
                cluster_name: Some(found.cluster.clone()),
            }]),
            ..DeploymentGroupInfo::default()
        }),
    })
}

pub(crate) async fn list_deployment_groups(
    service: &CodeDeploy,
    ctx: &Context,
    input: ListDeploymentGroupsInput,
) -> Result<ListDeploymentGroupsOutput, Fault> {
    let of = input.application_name;
    ctx.authorise("codedeploy:ListDeploymentGroups", &group_arn(ctx, &of, "*"))?;
    application(service, ctx, &of)?;
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<Group>(&format!("{}/{of}/", ctx.realm()));
    let all = all.map(|one| (one.name.clone(), one.name.clone()));
    let listing = format!("ListDeploymentGroups {of}");
    let page = Page::take(&listing, input.next_token.as_deref(), PAGE, all);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListDeploymentGroupsOutput {
        application_name: Some(of),
        deployment_groups: Some(page.items),
        next_token: page.next_token,
    })
}

pub(crate) async fn delete_deployment_group(
    service: &CodeDeploy,
    ctx: &Context,
    input: DeleteDeploymentGroupInput,
) -> Result<DeleteDeploymentGroupOutput, Fault> {
    let (of, name, realm) = (input.application_name, input.deployment_group_name, ctx.realm());
    ctx.authorise("codedeploy:DeleteDeploymentGroup", &group_arn(ctx, &of, &name))?;
    service
        .store
        .write(move |tx| {
            let mut all = tx.scan_prefix::<Deployment>(&format!("{realm}/"));
            let own = |one: &Deployment| one.group.application == of && one.group.name == name;
            if all.any(|one| one.is_open() && own(&one)) {
                return Err(invalid(
                    "InvalidDeploymentGroupNameException",
                    "A deployment of the group is under way; stop it first.",
                ));
            }
            drop(all);
            // As on AWS, deleting what is not there is no error.
            tx.delete::<Group>(&Group::key_of(&realm, &of, &name));
            Ok(())
        })
        .await?;
    Ok(DeleteDeploymentGroupOutput { hooks_not_cleaned_up: Some(Vec::new()) })
}

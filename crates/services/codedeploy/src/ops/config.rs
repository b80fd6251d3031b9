//! Deployment configurations.

use super::{PAGE, is_name};
use crate::{
    CodeDeploy,
    api::*,
    config, faults,
    model::{Config, Group},
};
use store::Record;
use wire::{Context, Fault, Page};

fn arn(ctx: &Context, name: &str) -> String {
    ctx.arn("codedeploy", format!("deploymentconfig:{name}"))
}

pub(crate) async fn create_deployment_config(
    service: &CodeDeploy,
    ctx: &Context,
    input: CreateDeploymentConfigInput,
) -> Result<CreateDeploymentConfigOutput, Fault> {
    let name = input.deployment_config_name;
    ctx.authorise("codedeploy:CreateDeploymentConfig", &arn(ctx, &name))?;
    if !is_name(&name) || name.starts_with("CodeDeployDefault") {
        return Err(Fault::new(
            "InvalidDeploymentConfigNameException",
            "The deployment configuration name is not valid.",
        ));
    }
    if input.compute_platform != Some(ComputePlatform::Ecs) {
        return Err(Fault::new(
            "InvalidComputePlatformException",
            "The compute platform must be ECS.",
        ));
    }
    let invalid = |message| Fault::new("InvalidTrafficRoutingConfigurationException", message);
    let routing = input
        .traffic_routing_config
        .ok_or_else(|| invalid("A traffic routing configuration is required.".to_owned()))?;
    config::check(&routing).map_err(invalid)?;
    let id = service.world.uuid();
    let record = Config { realm: ctx.realm(), name, id: id.clone(), routing, created: ctx.now };
    service
        .store
        .write(move |tx| {
            if tx.get::<Config>(&record.key()).is_some() {
                return Err(Fault::new(
                    "DeploymentConfigAlreadyExistsException",
                    format!("Deployment configuration already exists: {}", record.name),
                ));
            }
            tx.put(record);
            Ok(())
        })
        .await?;
    Ok(CreateDeploymentConfigOutput { deployment_config_id: Some(id) })
}

pub(crate) async fn get_deployment_config(
    service: &CodeDeploy,
    ctx: &Context,
    input: GetDeploymentConfigInput,
) -> Result<GetDeploymentConfigOutput, Fault> {
    let name = &input.deployment_config_name;
    ctx.authorise("codedeploy:GetDeploymentConfig", &arn(ctx, name))?;
    let snapshot = service.store.read();
    let own = snapshot.get::<Config>(&Config::key_of(&ctx.realm(), name));
    let routing = config::routing(&snapshot, &ctx.realm(), name);
    Ok(GetDeploymentConfigOutput {
        deployment_config_info: Some(DeploymentConfigInfo {
            deployment_config_id: own.as_ref().map(|config| config.id.clone()),
            deployment_config_name: Some(name.clone()),
            create_time: own.map(|config| config.created),
            compute_platform: Some(ComputePlatform::Ecs),
            traffic_routing_config: Some(routing.ok_or_else(|| faults::no_config(name))?),
            ..DeploymentConfigInfo::default()
        }),
    })
}

pub(crate) async fn list_deployment_configs(
    service: &CodeDeploy,
    ctx: &Context,
    input: ListDeploymentConfigsInput,
) -> Result<ListDeploymentConfigsOutput, Fault> {
    ctx.authorise("codedeploy:ListDeploymentConfigs", &arn(ctx, "*"))?;
    let snapshot = service.store.read();
    let own = snapshot.scan_prefix::<Config>(&format!("{}/", ctx.realm()));
    let mut all: Vec<String> = own.map(|config| config.name.clone()).collect();
    all.extend(config::predefined().map(str::to_owned));
    all.sort();
    let all = all.into_iter().map(|name| (name.clone(), name));
    let page = Page::take("ListDeploymentConfigs", input.next_token.as_deref(), PAGE, all);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListDeploymentConfigsOutput {
        deployment_configs_list: Some(page.items),
        next_token: page.next_token,
    })
}

pub(crate) async fn delete_deployment_config(
    service: &CodeDeploy,
    ctx: &Context,
    input: DeleteDeploymentConfigInput,
) -> Result<(), Fault> {
    let (name, realm) = (input.deployment_config_name, ctx.realm());
    ctx.authorise("codedeploy:DeleteDeploymentConfig", &arn(ctx, &name))?;
    service
        .store
        .write(move |tx| {
            if config::own(&name).is_some() {
                return Err(Fault::new(
                    "InvalidOperationException",
                    "AWS's own configurations cannot be deleted.",
                ));
            }
            let mut groups = tx.scan_prefix::<Group>(&format!("{realm}/"));
            if groups.any(|group| group.config == name) {
                return Err(faults::in_use(&name));
            }
            drop(groups);
            tx.delete::<Config>(&Config::key_of(&realm, &name));
            Ok(())
        })
        .await
}

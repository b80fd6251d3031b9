//! Applications.

use super::{PAGE, application, application_arn, is_name, tag};
use crate::{
    CodeDeploy,
    api::*,
    faults,
    model::{Application, Deployment, Group},
};
use store::Record;
use wire::{Context, Fault, Page};

pub(crate) async fn create_application(
    service: &CodeDeploy,
    ctx: &Context,
    input: CreateApplicationInput,
) -> Result<CreateApplicationOutput, Fault> {
    let name = input.application_name;
    ctx.authorise("codedeploy:CreateApplication", &application_arn(ctx, &name))?;
    if !is_name(&name) {
        return Err(Fault::new(
            "InvalidApplicationNameException",
            "The application name is not valid.",
        ));
    }
    if input.compute_platform != Some(ComputePlatform::Ecs) {
        return Err(Fault::new(
            "InvalidComputePlatformException",
            "The compute platform must be ECS: Neargate has no deployments to servers or functions yet.",
        ));
    }
    let tags = tag::collect(input.tags.unwrap_or_default())?;
    let id = service.world.uuid();
    let record = Application { realm: ctx.realm(), name, id: id.clone(), created: ctx.now, tags };
    service
        .store
        .write(move |tx| {
            if tx.get::<Application>(&record.key()).is_some() {
                return Err(Fault::new(
                    "ApplicationAlreadyExistsException",
                    format!("Application already exists: {}", record.name),
                ));
            }
            tx.put(record);
            Ok(())
        })
        .await?;
    Ok(CreateApplicationOutput { application_id: Some(id) })
}

pub(crate) async fn get_application(
    service: &CodeDeploy,
    ctx: &Context,
    input: GetApplicationInput,
) -> Result<GetApplicationOutput, Fault> {
    let name = &input.application_name;
    ctx.authorise("codedeploy:GetApplication", &application_arn(ctx, name))?;
    let found = application(service, ctx, name)?;
    Ok(GetApplicationOutput {
        application: Some(ApplicationInfo {
            application_id: Some(found.id.clone()),
            application_name: Some(found.name.clone()),
            create_time: Some(found.created),
            linked_to_git_hub: Some(false),
            compute_platform: Some(ComputePlatform::Ecs),
            ..ApplicationInfo::default()
        }),
    })
}

pub(crate) async fn list_applications(
    service: &CodeDeploy,
    ctx: &Context,
    input: ListApplicationsInput,
) -> Result<ListApplicationsOutput, Fault> {
    ctx.authorise("codedeploy:ListApplications", &application_arn(ctx, "*"))?;
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<Application>(&format!("{}/", ctx.realm()));
    let all = all.map(|one| (one.name.clone(), one.name.clone()));
    let page = Page::take("ListApplications", input.next_token.as_deref(), PAGE, all);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListApplicationsOutput { applications: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn delete_application(
    service: &CodeDeploy,
    ctx: &Context,
    input: DeleteApplicationInput,
) -> Result<(), Fault> {
    let (name, realm) = (input.application_name, ctx.realm());
    ctx.authorise("codedeploy:DeleteApplication", &application_arn(ctx, &name))?;
    service
        .store
        .write(move |tx| {
            // As on AWS, deleting what is not there is no error, and its groups go with it.
            let groups: Vec<_> = tx
                .scan_prefix::<Group>(&format!("{realm}/{name}/"))
                .map(|group| group.key())
                .collect();
            let under_way = tx
                .scan_prefix::<Deployment>(&format!("{realm}/"))
                .any(|one| one.is_open() && one.group.application == name);
            if under_way {
                return Err(Fault::new(
                    "InvalidDeploymentGroupNameException",
                    "A deployment of the application is under way; stop it first.",
                ));
            }
            for key in groups {
                tx.delete::<Group>(&key);
            }
            tx.delete::<Application>(&Application::key_of(&realm, &name));
            Ok(())
        })
        .await
}

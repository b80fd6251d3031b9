//! Pipelines.

use super::{find, tag};
use crate::{
    CodePipeline,
    actions::SERVICE,
    api::*,
    check::check,
    faults, follow,
    model::{Execution, Pipeline, Version},
    start::{Begin, begin},
};
use std::{collections::BTreeMap, result::Result};
use store::Record;
use wire::{Context, Fault, Page};

/// The most pipelines of an account in a region.
/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/limits.html>
const MOST_PIPELINES: usize = 1000;
/// So many are on a page unless asked otherwise.
const PAGE: usize = 100;

fn whole(
    ctx: &Context,
    mut declaration: PipelineDeclaration,
    version: i32,
) -> Result<PipelineDeclaration, Fault> {
    check(&declaration, &ctx.region)?;
    let passed = [("iam:PassedToService", SERVICE)];
    ctx.authorise_with("iam:PassRole", &declaration.role_arn, &passed)?;
    declaration.version = Some(version);
    declaration.pipeline_type.get_or_insert(PipelineType::V1);
    declaration.execution_mode.get_or_insert(ExecutionMode::Superseded);
    let actions = declaration.stages.iter_mut().flat_map(|stage| &mut stage.actions);
    for action in actions {
        action.run_order.get_or_insert(1);
    }
    Ok(declaration)
}

pub(crate) async fn create_pipeline(
    service: &CodePipeline,
    ctx: &Context,
    input: CreatePipelineInput,
) -> Result<CreatePipelineOutput, Fault> {
    let arn = ctx.arn("codepipeline", &input.pipeline.name);
    ctx.authorise("codepipeline:CreatePipeline", &arn)?;
    let tags = tag::collect(input.tags.unwrap_or_default())?;
    if !tags.is_empty() {
        ctx.authorise("codepipeline:TagResource", &arn)?;
    }
    let mut pipeline = Pipeline {
        realm: ctx.realm(),
        declaration: whole(ctx, input.pipeline, 1)?,
        created: ctx.now,
        updated: ctx.now,
        tags: tags.clone(),
        disabled: BTreeMap::new(),
        begun: 0,
        seen: BTreeMap::new(),
    };
    pipeline.seen = follow::look(service, &pipeline);
    let declaration = pipeline.declaration.clone();
    let wanted = Begin {
        trigger: TriggerType::CreatePipeline,
        detail: ctx.principal.arn.clone(),
        ..Begin::default()
    };
    let (world, now) = (service.world.clone(), ctx.now);
    service
        .store
        .write(move |tx| {
            let key = pipeline.key();
            if tx.get::<Pipeline>(&key).is_some() {
                return Err(Fault::new(
                    "PipelineNameInUseException",
                    format!("A pipeline with the name '{}' already exists.", pipeline.name()),
                ));
            }
            if tx.scan_prefix::<Pipeline>(&format!("{}/", pipeline.realm)).count() >= MOST_PIPELINES
            {
                return Err(Fault::new(
                    "LimitExceededException",
                    format!("An account can have at most {MOST_PIPELINES} pipelines in a region."),
                ));
            }
            let (realm, declaration) = (pipeline.realm.clone(), pipeline.declaration.clone());
            tx.put(Version { realm, declaration });
            tx.put(pipeline);
            // As on AWS, what is made runs at once.
            begin(tx, &world, &key, now, wanted).map(|_| ())
        })
        .await?;
    Ok(CreatePipelineOutput { pipeline: Some(declaration), tags: Some(tag::answer(&tags)) })
}

pub(crate) async fn update_pipeline(
    service: &CodePipeline,
    ctx: &Context,
    input: UpdatePipelineInput,
) -> Result<UpdatePipelineOutput, Fault> {
    let name = input.pipeline.name.clone();
    find(service, ctx, &name, "codepipeline:UpdatePipeline")?;
    let declaration = whole(ctx, input.pipeline, 0)?;
    let (key, now) = (Pipeline::key_of(&ctx.realm(), &name), ctx.now);
    let missing = faults::no_pipeline(ctx, &name);
    let declaration = service
        .store
        .write(move |tx| {
            let pipeline = tx.get::<Pipeline>(&key).ok_or(missing)?;
            let version = Some(pipeline.version() + 1);
            let declaration = PipelineDeclaration { version, ..declaration };
            tx.put(Version { realm: pipeline.realm.clone(), declaration: declaration.clone() });
            let stages: Vec<&String> = declaration.stages.iter().map(|stage| &stage.name).collect();
            tx.update::<Pipeline>(&key, |pipeline| {
                pipeline.updated = now;
                pipeline.disabled.retain(|stage, _| stages.contains(&stage));
                pipeline.declaration = declaration.clone();
            });
            Ok::<_, Fault>(declaration)
        })
        .await?;
    Ok(UpdatePipelineOutput { pipeline: Some(declaration) })
}

pub(crate) async fn get_pipeline(
    service: &CodePipeline,
    ctx: &Context,
    input: GetPipelineInput,
) -> Result<GetPipelineOutput, Fault> {
    let pipeline = find(service, ctx, &input.name, "codepipeline:GetPipeline")?;
    let version = input.version.unwrap_or(pipeline.version());
    let key = Version::key_of(&pipeline.realm, pipeline.name(), version);
    let found = service.store.read().get::<Version>(&key).ok_or_else(|| {
        Fault::new(
            "PipelineVersionNotFoundException",
            format!("The pipeline '{}' has no version {version}.", input.name),
        )
    })?;
    Ok(GetPipelineOutput {
        pipeline: Some(found.declaration.clone()),
        metadata: Some(PipelineMetadata {
            pipeline_arn: Some(pipeline.arn()),
            created: Some(pipeline.created),
            updated: Some(pipeline.updated),
            polling_disabled_at: None,
        }),
    })
}

pub(crate) async fn list_pipelines(
    service: &CodePipeline,
    ctx: &Context,
    input: ListPipelinesInput,
) -> Result<ListPipelinesOutput, Fault> {
    ctx.authorise("codepipeline:ListPipelines", "*")?;
    let snapshot = service.store.read();
    let all = snapshot.scan_prefix::<Pipeline>(&format!("{}/", ctx.realm())).map(|pipeline| {
        let summary = PipelineSummary {
            name: Some(pipeline.name().to_owned()),
            version: Some(pipeline.version()),
            pipeline_type: pipeline.declaration.pipeline_type,
            execution_mode: Some(pipeline.mode()),
            created: Some(pipeline.created),
            updated: Some(pipeline.updated),
        };
        (pipeline.name().to_owned(), summary)
    });
    let size = input.max_results.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    let page = Page::take("ListPipelines", input.next_token.as_deref(), size, all);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListPipelinesOutput { pipelines: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn delete_pipeline(
    service: &CodePipeline,
    ctx: &Context,
    input: DeletePipelineInput,
) -> Result<(), Fault> {
    let name = input.name;
    ctx.authorise("codepipeline:DeletePipeline", &ctx.arn("codepipeline", &name))?;
    let realm = ctx.realm();
    service
        .store
        .write(move |tx| {
            // As on AWS, deleting what is not there is no error.
            tx.delete::<Pipeline>(&Pipeline::key_of(&realm, &name));
            let versions: Vec<_> = tx
                .scan_prefix::<Version>(&Version::prefix_of(&realm, &name))
                .map(|version| version.key())
                .collect();
            for key in versions {
                tx.delete::<Version>(&key);
            }
            let executions: Vec<_> = tx
                .scan_prefix::<Execution>(&Execution::prefix_of(&realm, &name))
                .map(|execution| execution.key())
                .collect();
            for key in executions {
                tx.delete::<Execution>(&key);
            }
            Ok(())
        })
        .await
}

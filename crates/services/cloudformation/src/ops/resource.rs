//! Resources of stacks.

use super::{PAGE, find};
use crate::{
    CloudFormation,
    api::*,
    faults,
    model::{self, Resource},
};
use std::sync::Arc;
use store::Record;
use wire::{Context, Fault, Page};

fn not_checked() -> StackResourceDriftInformation {
    StackResourceDriftInformation {
        stack_resource_drift_status: Some(StackResourceDriftStatus::NotChecked),
        last_check_timestamp: None,
    }
}

pub(crate) async fn describe_stack_resource(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DescribeStackResourceInput,
) -> Result<DescribeStackResourceOutput, Fault> {
    let stack = find(house, ctx, "DescribeStackResource", &input.stack_name)?;
    let logical = &input.logical_resource_id;
    let record = house.store.read().get::<Resource>(&Resource::key_of(&stack.id, logical));
    let record = record.ok_or_else(|| {
        faults::validation(format!("Resource {logical} does not exist for stack {}", stack.name))
    })?;
    let detail = StackResourceDetail {
        stack_name: Some(stack.name.clone()),
        stack_id: Some(stack.arn()),
        logical_resource_id: Some(record.logical.clone()),
        physical_resource_id: record.now.id.clone(),
        resource_type: Some(record.kind.clone()),
        last_updated_timestamp: Some(record.changed),
        resource_status: Some(record.status.clone()),
        resource_status_reason: record.reason.clone(),
        metadata: Some(record.metadata.clone().unwrap_or_else(|| "{}".to_owned())),
        drift_information: Some(not_checked()),
        ..StackResourceDetail::default()
    };
    Ok(DescribeStackResourceOutput { stack_resource_detail: Some(detail) })
}

pub(crate) async fn describe_stack_resources(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DescribeStackResourcesInput,
) -> Result<DescribeStackResourcesOutput, Fault> {
    let snapshot = house.store.read();
    let stack = match (&input.stack_name, &input.physical_resource_id) {
        (Some(name), _) => find(house, ctx, "DescribeStackResources", name)?,
        (None, Some(physical)) => {
            ctx.authorise(
                "cloudformation:DescribeStackResources",
                &ctx.arn("cloudformation", "stack/*"),
            )?;
            let stacks = snapshot.scan_prefix::<model::Stack>(&format!("{}/", ctx.realm()));
            let owner = stacks.filter(|stack| stack.is_live()).find(|stack| {
                let mut records = snapshot.scan_prefix::<Resource>(&format!("{}/", stack.id));
                records.any(|record| record.now.id.as_ref() == Some(physical))
            });
            owner
                .ok_or_else(|| faults::validation(format!("Stack for {physical} does not exist")))?
        }
        (None, None) => {
            return Err(faults::validation(
                "Either Stack Name or Physical Resource Id must be specified.",
            ));
        }
    };
    let records = snapshot.scan_prefix::<Resource>(&format!("{}/", stack.id));
    let wanted = records.filter(|record| {
        input.logical_resource_id.as_ref().is_none_or(|logical| record.logical == *logical)
    });
    let resources: Vec<StackResource> = wanted
        .map(|record| StackResource {
            stack_name: Some(stack.name.clone()),
            stack_id: Some(stack.arn()),
            logical_resource_id: Some(record.logical.clone()),
            physical_resource_id: record.now.id.clone(),
            resource_type: Some(record.kind.clone()),
            timestamp: Some(record.changed),
            resource_status: Some(record.status.clone()),
            resource_status_reason: record.reason.clone(),
            drift_information: Some(not_checked()),
            ..StackResource::default()
        })
        .take(PAGE)
        .collect();
    Ok(DescribeStackResourcesOutput { stack_resources: Some(resources) })
}

pub(crate) async fn list_stack_resources(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ListStackResourcesInput,
) -> Result<ListStackResourcesOutput, Fault> {
    let stack = find(house, ctx, "ListStackResources", &input.stack_name)?;
    let snapshot = house.store.read();
    let records = snapshot.scan_prefix::<Resource>(&format!("{}/", stack.id));
    let ordered = records.map(|record| (record.key(), record));
    let page = Page::take("resources", input.next_token.as_deref(), PAGE, ordered);
    let page = page.map_err(|_| faults::bad_token())?;
    let summaries = page.items.iter().map(|record| StackResourceSummary {
        logical_resource_id: Some(record.logical.clone()),
        physical_resource_id: record.now.id.clone(),
        resource_type: Some(record.kind.clone()),
        last_updated_timestamp: Some(record.changed),
        resource_status: Some(record.status.clone()),
        resource_status_reason: record.reason.clone(),
        drift_information: Some(StackResourceDriftInformationSummary {
            stack_resource_drift_status: Some(StackResourceDriftStatus::NotChecked),
            last_check_timestamp: None,
        }),
        ..StackResourceSummary::default()
    });
    Ok(ListStackResourcesOutput {
        stack_resource_summaries: Some(summaries.collect()),
        next_token: page.next_token,
    })
}

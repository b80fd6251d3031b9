//! Events of stacks, the newest first.

use super::{PAGE, find};
use crate::{CloudFormation, api::*, faults, model};
use std::sync::Arc;
use wire::{Context, Fault, Page};

pub(crate) async fn describe_stack_events(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: DescribeStackEventsInput,
) -> Result<DescribeStackEventsOutput, Fault> {
    let stack = find(house, ctx, "DescribeStackEvents", &input.stack_name)?;
    let snapshot = house.store.read();
    let newest_first = snapshot.scan_prefix::<model::Event>(&format!("{}/", stack.id)).rev();
    let ordered = newest_first.map(|event| (format!("{:020}", u64::MAX - event.number), event));
    let page = Page::take("events", input.next_token.as_deref(), PAGE, ordered);
    let page = page.map_err(|_| faults::bad_token())?;
    let events = page.items.iter().map(|event| StackEvent {
        stack_id: Some(stack.arn()),
        event_id: Some(event.id.clone()),
        stack_name: Some(stack.name.clone()),
        logical_resource_id: Some(event.logical.clone()),
        physical_resource_id: Some(event.physical.clone().unwrap_or_default()),
        resource_type: Some(event.kind.clone()),
        timestamp: Some(event.at),
        resource_status: Some(event.status.clone()),
        resource_status_reason: event.reason.clone(),
        resource_properties: event.properties.clone(),
        client_request_token: event.token.clone(),
        ..StackEvent::default()
    });
    Ok(DescribeStackEventsOutput {
        stack_events: Some(events.collect()),
        next_token: page.next_token,
    })
}

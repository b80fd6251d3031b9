//! The default bus, which every account has in every region.

use super::bus;
use crate::{Events, api::*, faults};
use wire::{Context, Fault};

pub(crate) async fn describe_event_bus(
    _: &Events,
    ctx: &Context,
    input: DescribeEventBusRequest,
) -> Result<DescribeEventBusResponse, Fault> {
    let arn = ctx.arn("events", "event-bus/default");
    ctx.authorise("events:DescribeEventBus", &arn)?;
    bus(ctx, input.name.as_deref())?;
    Ok(DescribeEventBusResponse {
        name: Some("default".to_owned()),
        arn: Some(arn),
        ..DescribeEventBusResponse::default()
    })
}

pub(crate) async fn list_event_buses(
    _: &Events,
    ctx: &Context,
    input: ListEventBusesRequest,
) -> Result<ListEventBusesResponse, Fault> {
    ctx.authorise("events:ListEventBuses", "*")?;
    if input.next_token.is_some() {
        return Err(faults::token());
    }
    let shown = input.name_prefix.is_none_or(|prefix| "default".starts_with(&prefix));
    let bus = shown.then(|| EventBus {
        name: Some("default".to_owned()),
        arn: Some(ctx.arn("events", "event-bus/default")),
        ..EventBus::default()
    });
    Ok(ListEventBusesResponse { event_buses: Some(bus.into_iter().collect()), next_token: None })
}

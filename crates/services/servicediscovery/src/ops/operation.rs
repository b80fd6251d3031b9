//! Operations: what was asked for, and is done.

use super::{
    find::all,
    listing::{Filter, page},
};
use crate::{ServiceDiscovery, api::*, faults, model::Operation as Record};
use std::sync::Arc;
use wire::{Context, Fault};

pub(crate) async fn get_operation(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: GetOperationRequest,
) -> Result<GetOperationResponse, Fault> {
    ctx.authorise("servicediscovery:GetOperation", "*")?;
    let key = format!("{}/{}", ctx.realm(), input.operation_id);
    let found = discovery.store.read().get::<Record>(&key);
    let found = found.ok_or_else(|| faults::no_operation(&input.operation_id))?;
    let operation = Operation {
        id: Some(found.id.clone()),
        owner_account: found.realm.split_once('/').map(|(account, _)| account.to_owned()),
        r#type: Some(found.kind),
        status: Some(OperationStatus::Success),
        error_message: None,
        error_code: None,
        create_date: Some(found.at),
        update_date: Some(found.at),
        targets: Some(found.targets.clone()),
    };
    Ok(GetOperationResponse { operation: Some(operation) })
}

pub(crate) async fn list_operations(
    discovery: &ServiceDiscovery,
    ctx: &Context,
    input: ListOperationsRequest,
) -> Result<ListOperationsResponse, Fault> {
    ctx.authorise("servicediscovery:ListOperations", "*")?;
    let mut filters = Vec::new();
    for filter in input.filters.unwrap_or_default() {
        let known: &[_] = match filter.name {
            OperationFilterName::UpdateDate => &[FilterCondition::Between],
            _ => &[FilterCondition::Eq, FilterCondition::In],
        };
        filters.push((filter.name, Filter::new(filter.values, filter.condition, known)?));
    }
    let takes = |found: &Record| {
        let target = |filter: &Filter, of| found.target(of).is_some_and(|id| filter.takes(id));
        filters.iter().all(|(name, filter)| match name {
            OperationFilterName::NamespaceId => target(filter, OperationTargetType::Namespace),
            OperationFilterName::ServiceId => target(filter, OperationTargetType::Service),
            OperationFilterName::Status => filter.takes(OperationStatus::Success.as_str()),
            OperationFilterName::Type => filter.takes(found.kind.as_str()),
            OperationFilterName::UpdateDate => filter.takes_time(found.at.seconds_f64()),
        })
    };
    let summary = |found: Arc<Record>| {
        let (id, status) = (Some(found.id.clone()), Some(OperationStatus::Success));
        (found.id.clone(), OperationSummary { id, status })
    };
    let found = all::<Record>(&discovery.store.read(), &ctx.realm());
    let found = found.into_iter().filter(|found| takes(found)).map(summary);
    let (operations, next_token) =
        page("ListOperations", input.next_token.as_deref(), input.max_results, found)?;
    Ok(ListOperationsResponse { operations, next_token })
}

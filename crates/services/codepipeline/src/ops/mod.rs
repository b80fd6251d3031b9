//! Handlers: authorise, validate, commit, answer.

pub(crate) mod approval;
pub(crate) mod execution;
pub(crate) mod job;
pub(crate) mod pipeline;
pub(crate) mod state;
pub(crate) mod tag;

use crate::{
    CodePipeline, faults,
    model::{Execution, Pipeline},
};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};

/// The pipeline with this name, if the caller may do `action` to it.
pub(crate) fn find(
    service: &CodePipeline,
    ctx: &Context,
    name: &str,
    action: &str,
) -> Result<Arc<Pipeline>, Fault> {
    ctx.authorise(action, &ctx.arn("codepipeline", name))?;
    let found = service.store.read().get::<Pipeline>(&Pipeline::key_of(&ctx.realm(), name));
    found.ok_or_else(|| faults::no_pipeline(ctx, name))
}

/// All executions of a pipeline, the oldest first.
pub(crate) fn executions(service: &CodePipeline, pipeline: &Pipeline) -> Vec<Arc<Execution>> {
    let prefix = Execution::prefix_of(&pipeline.realm, pipeline.name());
    service.store.read().scan_prefix::<Execution>(&prefix).collect()
}

/// The execution with this id, as it is in a transaction.
pub(crate) fn execution(
    tx: &Tx,
    realm: &str,
    pipeline: &str,
    id: &str,
) -> Result<Execution, Fault> {
    let prefix = Execution::prefix_of(realm, pipeline);
    let found = tx.scan_prefix::<Execution>(&prefix).find(|execution| execution.id == id);
    found.map(Arc::unwrap_or_clone).ok_or_else(|| faults::no_execution(id))
}

//! What stacks give each other.

use super::PAGE;
use crate::{CloudFormation, api::*, engine, faults};
use std::sync::Arc;
use wire::{Context, Fault, Page};

pub(crate) async fn list_exports(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ListExportsInput,
) -> Result<ListExportsOutput, Fault> {
    ctx.authorise("cloudformation:ListExports", "*")?;
    let all = engine::exports(&house.store.read(), &ctx.realm());
    let page = Page::take(
        "exports",
        input.next_token.as_deref(),
        PAGE,
        all.into_iter().map(|(name, export)| (name.clone(), (name, export))),
    );
    let page = page.map_err(|_| faults::bad_token())?;
    let exports = page.items.into_iter().map(|(name, (stack, value))| Export {
        exporting_stack_id: Some(stack.arn()),
        name: Some(name),
        value: Some(value),
    });
    Ok(ListExportsOutput { exports: Some(exports.collect()), next_token: page.next_token })
}

pub(crate) async fn list_imports(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ListImportsInput,
) -> Result<ListImportsOutput, Fault> {
    ctx.authorise("cloudformation:ListImports", "*")?;
    let users = engine::importers(&house.store.read(), &ctx.realm(), &input.export_name);
    if users.is_empty() {
        let message = format!("Export '{}' is not imported by any stack.", input.export_name);
        return Err(faults::validation(message));
    }
    let page = Page::take(
        "imports",
        input.next_token.as_deref(),
        PAGE,
        users.into_iter().map(|name| (name.clone(), name)),
    );
    let page = page.map_err(|_| faults::bad_token())?;
    Ok(ListImportsOutput { imports: Some(page.items), next_token: page.next_token })
}

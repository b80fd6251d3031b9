//! The targets of rules.

use super::{rule::find, size};
use crate::{Events, api::*, faults, model::Rule as Record, target};
use wire::{Context, Fault, Page};

/// The most targets of one rule.
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html>
const MOST_TARGETS: usize = 5;

pub(crate) async fn put_targets(
    events: &Events,
    ctx: &Context,
    input: PutTargetsRequest,
) -> Result<PutTargetsResponse, Fault> {
    let bus = input.event_bus_name.as_deref();
    find(events, ctx, &input.rule, bus, "events:PutTargets")?;
    for one in &input.targets {
        target::check(ctx, one)?;
    }
    let key = Record::key_of(&ctx.realm(), &input.rule);
    events
        .store
        .write(move |tx| {
            let rule = tx.get::<Record>(&key).ok_or_else(|| faults::no_rule(&input.rule))?;
            let mut targets = rule.targets.clone();
            targets.extend(input.targets.into_iter().map(|target| (target.id.clone(), target)));
            if targets.len() > MOST_TARGETS {
                return Err(faults::limit(
                    "The requested resource exceeds the maximum number allowed.",
                ));
            }
            tx.update::<Record>(&key, |rule| rule.targets = targets);
            Ok(())
        })
        .await?;
    Ok(PutTargetsResponse { failed_entry_count: Some(0), failed_entries: Some(Vec::new()) })
}

pub(crate) async fn list_targets_by_rule(
    events: &Events,
    ctx: &Context,
    input: ListTargetsByRuleRequest,
) -> Result<ListTargetsByRuleResponse, Fault> {
    let bus = input.event_bus_name.as_deref();
    let rule = find(events, ctx, &input.rule, bus, "events:ListTargetsByRule")?;
    let targets = rule.targets.iter().map(|(id, target)| (id.clone(), target.clone()));
    let listing = format!("ListTargetsByRule {}", rule.name);
    let page = Page::take(&listing, input.next_token.as_deref(), size(input.limit), targets);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListTargetsByRuleResponse { targets: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn remove_targets(
    events: &Events,
    ctx: &Context,
    input: RemoveTargetsRequest,
) -> Result<RemoveTargetsResponse, Fault> {
    let bus = input.event_bus_name.as_deref();
    find(events, ctx, &input.rule, bus, "events:RemoveTargets")?;
    let key = Record::key_of(&ctx.realm(), &input.rule);
    let missing = events
        .store
        .write(move |tx| {
            let rule = tx.get::<Record>(&key).ok_or_else(|| faults::no_rule(&input.rule))?;
            let mut targets = rule.targets.clone();
            let missing: Vec<String> =
                input.ids.into_iter().filter(|id| targets.remove(id).is_none()).collect();
            tx.update::<Record>(&key, |rule| rule.targets = targets);
            Ok::<_, Fault>(missing)
        })
        .await?;
    let entries = missing.iter().map(|id| RemoveTargetsResultEntry {
        target_id: Some(id.clone()),
        error_code: Some("ResourceNotFoundException".to_owned()),
        error_message: Some(format!("Target {id} does not exist.")),
    });
    Ok(RemoveTargetsResponse {
        failed_entry_count: Some(missing.len() as i32),
        failed_entries: Some(entries.collect()),
    })
}

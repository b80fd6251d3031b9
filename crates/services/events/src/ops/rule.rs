//! Rules.

use super::{bus, rule_arn, size, tag};
use crate::{Events, api::*, faults, model::Rule as Record, pattern::Pattern};
use std::sync::Arc;
use wire::{Context, Fault, Page};

/// The most rules of an account in a region.
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html>
const MOST_RULES: usize = 300;

fn state(rule: &Record) -> Option<RuleState> {
    Some(if rule.enabled { RuleState::Enabled } else { RuleState::Disabled })
}

/// The rule with this name, if the caller may do `action` to it.
pub(crate) fn find(
    events: &Events,
    ctx: &Context,
    name: &str,
    bus_name: Option<&str>,
    action: &str,
) -> Result<Arc<Record>, Fault> {
    ctx.authorise(action, &rule_arn(ctx, name))?;
    bus(ctx, bus_name)?;
    let found = events.store.read().get::<Record>(&Record::key_of(&ctx.realm(), name));
    found.ok_or_else(|| faults::no_rule(name))
}

pub(crate) async fn put_rule(
    events: &Events,
    ctx: &Context,
    input: PutRuleRequest,
) -> Result<PutRuleResponse, Fault> {
    let arn = rule_arn(ctx, &input.name);
    ctx.authorise("events:PutRule", &arn)?;
    bus(ctx, input.event_bus_name.as_deref())?;
    let tags = tag::collect(input.tags.unwrap_or_default())?;
    if !tags.is_empty() {
        ctx.authorise("events:TagResource", &arn)?;
    }
    if let Some(role) = &input.role_arn {
        ctx.authorise_with(
            "iam:PassRole",
            role,
            &[("iam:PassedToService", crate::target::SERVICE)],
        )?;
    }
    let pattern = input.event_pattern.filter(|pattern| !pattern.is_empty()).ok_or_else(|| {
        faults::validation("Parameter(s) EventPattern or ScheduleExpression must be specified.")
    })?;
    Pattern::read(&pattern).map_err(|error| faults::pattern(&error))?;
    let enabled = match input.state {
        None | Some(RuleState::Enabled) => true,
        Some(RuleState::Disabled) => false,
        Some(RuleState::EnabledWithAllCloudtrailManagementEvents) => {
            return Err(faults::validation(
                "There is no CloudTrail whose events a rule could ask for.",
            ));
        }
    };
    let rule = Record {
        realm: ctx.realm(),
        name: input.name,
        pattern,
        description: input.description,
        role: input.role_arn,
        enabled,
        targets: Default::default(),
        tags,
    };
    events
        .store
        .write(move |tx| {
            let key = Record::key_of(&rule.realm, &rule.name);
            let rule = match tx.get::<Record>(&key) {
                // What is put anew keeps its targets and tags, and has nothing else of before.
                Some(old) => {
                    Record { targets: old.targets.clone(), tags: old.tags.clone(), ..rule }
                }
                None => {
                    let prefix = format!("{}/", rule.realm);
                    if tx.scan_prefix::<Record>(&prefix).count() >= MOST_RULES {
                        return Err(faults::limit(
                            "The requested resource exceeds the maximum number allowed.",
                        ));
                    }
                    rule
                }
            };
            tx.put(rule);
            Ok(())
        })
        .await?;
    Ok(PutRuleResponse { rule_arn: Some(arn) })
}

pub(crate) async fn describe_rule(
    events: &Events,
    ctx: &Context,
    input: DescribeRuleRequest,
) -> Result<DescribeRuleResponse, Fault> {
    let bus = input.event_bus_name.as_deref();
    let rule = find(events, ctx, &input.name, bus, "events:DescribeRule")?;
    Ok(DescribeRuleResponse {
        name: Some(rule.name.clone()),
        arn: Some(rule.arn()),
        event_pattern: Some(rule.pattern.clone()),
        state: state(&rule),
        description: rule.description.clone(),
        role_arn: rule.role.clone(),
        event_bus_name: Some("default".to_owned()),
        created_by: Some(ctx.account().to_owned()),
        ..DescribeRuleResponse::default()
    })
}

pub(crate) async fn list_rules(
    events: &Events,
    ctx: &Context,
    input: ListRulesRequest,
) -> Result<ListRulesResponse, Fault> {
    ctx.authorise("events:ListRules", "*")?;
    bus(ctx, input.event_bus_name.as_deref())?;
    let prefix = input.name_prefix.unwrap_or_default();
    let snapshot = events.store.read();
    let start = format!("{}/{prefix}", ctx.realm());
    let rules = snapshot.scan_prefix::<Record>(&start).map(|rule| {
        let answer = Rule {
            name: Some(rule.name.clone()),
            arn: Some(rule.arn()),
            event_pattern: Some(rule.pattern.clone()),
            state: state(&rule),
            description: rule.description.clone(),
            role_arn: rule.role.clone(),
            event_bus_name: Some("default".to_owned()),
            ..Rule::default()
        };
        (rule.name.clone(), answer)
    });
    let listing = format!("ListRules {prefix}");
    let page = Page::take(&listing, input.next_token.as_deref(), size(input.limit), rules);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListRulesResponse { rules: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn delete_rule(
    events: &Events,
    ctx: &Context,
    input: DeleteRuleRequest,
) -> Result<(), Fault> {
    ctx.authorise("events:DeleteRule", &rule_arn(ctx, &input.name))?;
    bus(ctx, input.event_bus_name.as_deref())?;
    let key = Record::key_of(&ctx.realm(), &input.name);
    events
        .store
        .write(move |tx| {
            // As on AWS, deleting what is not there is no error.
            let Some(rule) = tx.get::<Record>(&key) else { return Ok(()) };
            if !rule.targets.is_empty() {
                return Err(faults::validation("Rule can't be deleted since it has targets."));
            }
            tx.delete::<Record>(&key);
            Ok(())
        })
        .await
}

async fn enable(events: &Events, ctx: &Context, name: String, enabled: bool) -> Result<(), Fault> {
    let key = Record::key_of(&ctx.realm(), &name);
    events
        .store
        .write(move |tx| match tx.update::<Record>(&key, |rule| rule.enabled = enabled) {
            true => Ok(()),
            false => Err(faults::no_rule(&name)),
        })
        .await
}

pub(crate) async fn enable_rule(
    events: &Events,
    ctx: &Context,
    input: EnableRuleRequest,
) -> Result<(), Fault> {
    ctx.authorise("events:EnableRule", &rule_arn(ctx, &input.name))?;
    bus(ctx, input.event_bus_name.as_deref())?;
    enable(events, ctx, input.name, true).await
}

pub(crate) async fn disable_rule(
    events: &Events,
    ctx: &Context,
    input: DisableRuleRequest,
) -> Result<(), Fault> {
    ctx.authorise("events:DisableRule", &rule_arn(ctx, &input.name))?;
    bus(ctx, input.event_bus_name.as_deref())?;
    enable(events, ctx, input.name, false).await
}

pub(crate) async fn list_rule_names_by_target(
    events: &Events,
    ctx: &Context,
    input: ListRuleNamesByTargetRequest,
) -> Result<ListRuleNamesByTargetResponse, Fault> {
    ctx.authorise("events:ListRuleNamesByTarget", "*")?;
    bus(ctx, input.event_bus_name.as_deref())?;
    let (snapshot, arn) = (events.store.read(), &input.target_arn);
    let rules = snapshot.scan_prefix::<Record>(&format!("{}/", ctx.realm()));
    let rules = rules.filter(|rule| rule.targets.values().any(|target| target.arn == *arn));
    let names = rules.map(|rule| (rule.name.clone(), rule.name.clone()));
    let listing = format!("ListRuleNamesByTarget {arn}");
    let page = Page::take(&listing, input.next_token.as_deref(), size(input.limit), names);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListRuleNamesByTargetResponse { rule_names: Some(page.items), next_token: page.next_token })
}

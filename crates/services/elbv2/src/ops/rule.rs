//! Rules of listeners. Every listener has a default one, which has no record: it is the listener's default actions.

use super::{
    action::{check_groups, normalise as normalise_actions},
    condition::normalise as normalise_conditions,
    find::{FoundRule, balancer_of, default_rule_arn, find, find_rule, listeners_of, rules_of},
    listing::{check_one, page},
    tag::{authorise_create, tags_in},
};
use crate::{
    ElbV2,
    api::*,
    faults,
    model::{Listener as ListenerRecord, LoadBalancer as Balancer, Rule as Record},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Tx, View};
use wire::{Context, Fault};

/// Rules of one load balancer, without the default ones.
const MOST_RULES: usize = 100;

fn answer(rule: &Record) -> Rule {
    Rule {
        rule_arn: Some(rule.arn()),
        priority: Some(rule.priority.to_string()),
        conditions: Some(rule.conditions.clone()),
        actions: Some(rule.actions.clone()),
        is_default: Some(false),
        transforms: None,
    }
}

fn default_answer(listener: &ListenerRecord) -> Rule {
    Rule {
        rule_arn: Some(default_rule_arn(listener)),
        priority: Some("default".to_owned()),
        conditions: Some(Vec::new()),
        actions: Some(listener.default_actions.clone()),
        is_default: Some(true),
        transforms: None,
    }
}

/// Only HTTP has something that rules could look at.
fn check_has_rules(balancer: &Balancer, listener: &ListenerRecord) -> Result<(), Fault> {
    match balancer.kind {
        LoadBalancerTypeEnum::Application => Ok(()),
        _ => Err(faults::unsupported_protocol(format!(
            "Rules are not supported for listeners with protocol '{}'",
            listener.protocol.as_str()
        ))),
    }
}

pub(crate) async fn create_rule(
    elb: &ElbV2,
    ctx: &Context,
    input: CreateRuleInput,
) -> Result<CreateRuleOutput, Fault> {
    let arn = input.listener_arn;
    authorise_create(ctx, "CreateRule", &arn, input.tags.as_ref())?;
    let conditions = normalise_conditions(input.conditions)?;
    let tags = tags_in(input.tags)?;
    let (realm, id, priority) = (ctx.realm(), elb.id(), input.priority);
    let made = elb.store.write(move |tx| {
        let listener = find::<ListenerRecord>(tx, &realm, &arn)?;
        let balancer = balancer_of(tx, &listener)?;
        check_has_rules(&balancer, &listener)?;
        let actions = normalise_actions(balancer.kind, listener.port, input.actions)?;
        check_groups(tx, &balancer, listener.protocol, &actions)?;
        if rules_of(tx, &listener).iter().any(|rule| rule.priority == priority) {
            return Err(faults::priority_in_use(priority));
        }
        let listeners = listeners_of(tx, &balancer);
        let count: usize = listeners.iter().map(|listener| rules_of(tx, listener).len()).sum();
        if count >= MOST_RULES {
            return Err(faults::too_many("TooManyRules", "rules", MOST_RULES));
        }
        let rule = Record {
            realm,
            id,
            listener: listener.id.clone(),
            listener_path: format!("{}/{}", listener.balancer_path, listener.id),
            priority,
            conditions,
            actions,
            tags,
        };
        tx.put(rule.clone());
        Ok(rule)
    });
    Ok(CreateRuleOutput { rules: Some(vec![answer(&made.await?)]) })
}

/// The key that a rule is listed by: the default one comes last.
fn keyed(rule: &Record) -> (String, Rule) {
    (format!("{}/{:05}", rule.listener, rule.priority), answer(rule))
}

fn default_keyed(listener: &ListenerRecord) -> (String, Rule) {
    (format!("{}/default", listener.id), default_answer(listener))
}

pub(crate) async fn describe_rules(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeRulesInput,
) -> Result<DescribeRulesOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeRules", "*")?;
    let arns = input.rule_arns.unwrap_or_default();
    check_one(&[!arns.is_empty(), input.listener_arn.is_some()])?;
    let snapshot = elb.store.read();
    let realm = ctx.realm();
    let mut rules = Vec::new();
    if let Some(arn) = &input.listener_arn {
        let listener = find::<ListenerRecord>(&snapshot, &realm, arn)?;
        check_has_rules(&*balancer_of(&snapshot, &listener)?, &listener)?;
        rules.extend(rules_of(&snapshot, &listener).iter().map(|rule| keyed(rule)));
        rules.push(default_keyed(&listener));
    } else if arns.is_empty() {
        let message = "You must specify either listener rule ARNs or a listener ARN";
        return Err(faults::invalid(message));
    }
    for arn in &arns {
        rules.push(match find_rule(&snapshot, &realm, arn)? {
            FoundRule::Own(rule) => keyed(&rule),
            FoundRule::Default(listener) => default_keyed(&listener),
        });
    }
    let (rules, next_marker) =
        page("DescribeRules", input.marker.as_deref(), input.page_size, rules)?;
    Ok(DescribeRulesOutput { rules, next_marker })
}

pub(crate) async fn modify_rule(
    elb: &ElbV2,
    ctx: &Context,
    input: ModifyRuleInput,
) -> Result<ModifyRuleOutput, Fault> {
    let arn = input.rule_arn;
    ctx.authorise("elasticloadbalancing:ModifyRule", &arn)?;
    let conditions = input.conditions.map(normalise_conditions).transpose()?;
    let realm = ctx.realm();
    let changed = elb.store.write(move |tx| match find_rule(tx, &realm, &arn)? {
        FoundRule::Own(rule) => modify(tx, Arc::unwrap_or_clone(rule), conditions, input.actions),
        FoundRule::Default(_) if conditions.is_some() => {
            let message = format!("Conditions of default rule '{arn}' cannot be modified");
            Err(faults::not_permitted(message))
        }
        FoundRule::Default(listener) => {
            modify_default(tx, Arc::unwrap_or_clone(listener), input.actions)
        }
    });
    Ok(ModifyRuleOutput { rules: Some(vec![changed.await?]) })
}

fn modify(
    tx: &mut Tx,
    mut rule: Record,
    conditions: Option<Vec<RuleCondition>>,
    actions: Option<Vec<Action>>,
) -> Result<Rule, Fault> {
    rule.conditions = conditions.unwrap_or(rule.conditions);
    if let Some(actions) = actions {
        let listener = tx.get::<ListenerRecord>(&format!("{}/{}", rule.realm, rule.listener));
        let listener = listener.ok_or_else(faults::no_listener)?;
        rule.actions = checked_actions(tx, &listener, actions)?;
    }
    tx.put(rule.clone());
    Ok(answer(&rule))
}

fn modify_default(
    tx: &mut Tx,
    mut listener: ListenerRecord,
    actions: Option<Vec<Action>>,
) -> Result<Rule, Fault> {
    if let Some(actions) = actions {
        listener.default_actions = checked_actions(tx, &listener, actions)?;
        tx.put(listener.clone());
    }
    Ok(default_answer(&listener))
}

fn checked_actions(
    view: &impl View,
    listener: &ListenerRecord,
    actions: Vec<Action>,
) -> Result<Vec<Action>, Fault> {
    let balancer = balancer_of(view, listener)?;
    let actions = normalise_actions(balancer.kind, listener.port, actions)?;
    check_groups(view, &balancer, listener.protocol, &actions)?;
    Ok(actions)
}

pub(crate) async fn delete_rule(
    elb: &ElbV2,
    ctx: &Context,
    input: DeleteRuleInput,
) -> Result<DeleteRuleOutput, Fault> {
    let arn = input.rule_arn;
    ctx.authorise("elasticloadbalancing:DeleteRule", &arn)?;
    let realm = ctx.realm();
    elb.store
        .write(move |tx| match find_rule(tx, &realm, &arn)? {
            FoundRule::Own(rule) => {
                tx.delete::<Record>(&format!("{realm}/{}", rule.id));
                Ok(())
            }
            FoundRule::Default(_) => {
                Err(faults::not_permitted(format!("Default rule '{arn}' cannot be deleted")))
            }
        })
        .await?;
    Ok(DeleteRuleOutput {})
}

pub(crate) async fn set_rule_priorities(
    elb: &ElbV2,
    ctx: &Context,
    input: SetRulePrioritiesInput,
) -> Result<SetRulePrioritiesOutput, Fault> {
    let action = "elasticloadbalancing:SetRulePriorities";
    if input.rule_priorities.is_empty() {
        ctx.authorise(action, "*")?;
        return Err(faults::invalid("At least one rule priority must be specified"));
    }
    let mut wanted = Vec::new();
    for pair in input.rule_priorities {
        let arn = pair.rule_arn.unwrap_or_default();
        ctx.authorise(action, &arn)?;
        wanted.push((arn, pair.priority));
    }
    let realm = ctx.realm();
    let set = elb.store.write(move |tx| {
        let mut rules = BTreeMap::new();
        for (arn, priority) in wanted {
            let Some(priority) = priority else {
                return Err(faults::invalid(format!("Rule '{arn}' must have a priority")));
            };
            let rule = match find_rule(tx, &realm, &arn)? {
                FoundRule::Own(rule) => rule,
                FoundRule::Default(_) => {
                    let message = format!("Priority of default rule '{arn}' cannot be modified");
                    return Err(faults::not_permitted(message));
                }
            };
            let rule = Record { priority, ..Arc::unwrap_or_clone(rule) };
            if rules.insert(rule.id.clone(), rule).is_some() {
                let message = format!("Rule '{arn}' is specified more than once");
                return Err(faults::invalid(message));
            }
        }
        check_priorities(tx, &realm, &rules)?;
        rules.values().for_each(|rule| tx.put(rule.clone()));
        Ok(rules.values().map(answer).collect())
    });
    Ok(SetRulePrioritiesOutput { rules: Some(set.await?) })
}

/// Whether each priority is one rule's only, in each listener, once `changed` is stored.
fn check_priorities(
    view: &impl View,
    realm: &str,
    changed: &BTreeMap<String, Record>,
) -> Result<(), Fault> {
    let mut taken = BTreeSet::new();
    for rule in view.records::<Record>(&format!("{realm}/")) {
        if !changed.contains_key(&rule.id) {
            taken.insert((rule.listener.clone(), rule.priority));
        }
    }
    for rule in changed.values() {
        if !taken.insert((rule.listener.clone(), rule.priority)) {
            return Err(faults::priority_in_use(rule.priority));
        }
    }
    Ok(())
}

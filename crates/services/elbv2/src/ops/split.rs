//! How requests are divided between target groups, for who shifts them from one to another: ECS does, inside
//! transactions of its own.

use super::{
    action::{check_groups, forwarded, normalise},
    find::{FoundRule, balancer_of, find, find_rule},
};
use crate::{
    ElbV2,
    api::{Action, ActionTypeEnum, ForwardActionConfig, TargetGroupTuple},
    faults,
    model::{Listener, Rule},
};
use std::sync::Arc;
use store::{Snapshot, Tx, View};
use wire::Fault;

/// A rule, with its listener; or a listener, whose default action is meant.
struct Place {
    listener: Arc<Listener>,
    rule: Option<Arc<Rule>>,
}

impl Place {
    /// What a rule's ARN names, that of a listener's default rule included, or a listener's.
    fn find(view: &impl View, realm: &str, arn: &str) -> Result<Self, Fault> {
        if let Ok(listener) = find::<Listener>(view, realm, arn) {
            return Ok(Self { listener, rule: None });
        }
        match find_rule(view, realm, arn)? {
            FoundRule::Default(listener) => Ok(Self { listener, rule: None }),
            FoundRule::Own(rule) => {
                let listener = view.record::<Listener>(&format!("{realm}/{}", rule.listener));
                Ok(Self { listener: listener.ok_or_else(faults::no_listener)?, rule: Some(rule) })
            }
        }
    }

    fn actions(&self) -> &[Action] {
        self.rule.as_ref().map_or(&self.listener.default_actions, |rule| &rule.actions)
    }

    /// The action that forwards; it is the only one, or there is none.
    fn forward(&self, arn: &str) -> Result<&Action, Fault> {
        let forward = self.actions().iter().find(|a| a.r#type == ActionTypeEnum::Forward);
        forward.ok_or_else(|| faults::invalid_action(format!("'{arn}' does not forward requests")))
    }
}

impl ElbV2 {
    /// The target groups that a rule, or a listener's default action, forwards to. `arn` is the rule's or the
    /// listener's. Fails when it names none, or one that does not forward.
    pub fn forwarded(&self, realm: &str, arn: &str) -> Result<Vec<String>, Fault> {
        let snapshot: Snapshot = self.store.read();
        let place = Place::find(&snapshot, realm, arn)?;
        place.forward(arn)?;
        Ok(forwarded(place.actions()).map(str::to_owned).collect())
    }

    /// Divides the requests that a rule, or a listener's default action, forwards between target groups by weight (0 to
    /// 999), inside any transaction over the same store. It fails, and then writes nothing, where ModifyRule would.
    pub fn split(
        tx: &mut Tx,
        realm: &str,
        arn: &str,
        shares: &[(String, i32)],
    ) -> Result<(), Fault> {
        let place = Place::find(tx, realm, arn)?;
        let mut action = place.forward(arn)?.clone();
        let Place { listener, rule } = place;
        let sticky = action.forward_config.take().and_then(|c| c.target_group_stickiness_config);
        let tuple = |(group, weight): &(String, i32)| TargetGroupTuple {
            target_group_arn: Some(group.clone()),
            weight: Some(*weight),
        };
        action.target_group_arn = None;
        action.forward_config = Some(ForwardActionConfig {
            target_groups: Some(shares.iter().map(tuple).collect()),
            target_group_stickiness_config: sticky,
        });
        let balancer = balancer_of(tx, &listener)?;
        let actions = normalise(balancer.kind, listener.port, vec![action])?;
        check_groups(tx, &balancer, listener.protocol, &actions)?;
        match rule {
            Some(rule) => tx.put(Rule { actions, ..Arc::unwrap_or_clone(rule) }),
            None => tx.put(Listener { default_actions: actions, ..Arc::unwrap_or_clone(listener) }),
        }
        Ok(())
    }
}

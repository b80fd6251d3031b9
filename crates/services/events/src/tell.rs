//! The seam to the services: what happened, told within the transaction in which it happened.
//!
//! An event is matched against the rules of its account and region at once, and what is left of it is one
//! [`Delivery`] for each target: an event that no rule asks for costs nothing, and none is lost or invented by a crash.

use crate::{
    model::{Delivery, Rule},
    pattern::Pattern,
};
use serde_json::{Value as Json, json};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};
use store::Tx;
use world::{Timestamp, World};

/// Patterns that were read before, by their text.
static PATTERNS: LazyLock<Mutex<HashMap<String, Arc<Pattern>>>> = LazyLock::new(Mutex::default);
/// So many are kept.
const MOST_PATTERNS: usize = 4096;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id, a UUID.
    pub id: String,
    /// `account/region`.
    pub realm: String,
    /// `aws.ecs`.
    pub source: String,
    /// `ECS Task State Change`.
    pub detail_type: String,
    /// When it happened.
    pub time: Timestamp,
    /// The ARNs of what it is about.
    pub resources: Vec<String>,
    /// What is to be said of it: an object.
    pub detail: Json,
}

impl Event {
    /// The event as patterns see it and targets get it.
    /// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html>
    pub(crate) fn json(&self) -> Json {
        let (account, region) = self.realm.split_once('/').expect("realms are account/region");
        // Whole seconds, as AWS has them.
        let time = self.time.datetime().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "version": "0", "id": self.id, "detail-type": self.detail_type, "source": self.source,
            "account": account, "time": time, "region": region, "resources": self.resources, "detail": self.detail,
        })
    }
}

/// The pattern of this text, which was checked when its rule was put.
pub(crate) fn pattern(text: &str) -> Option<Arc<Pattern>> {
    let mut kept = PATTERNS.lock().expect("nothing panics with the lock held");
    if let Some(pattern) = kept.get(text) {
        return Some(pattern.clone());
    }
    match Pattern::read(text) {
        Ok(pattern) => {
            if kept.len() >= MOST_PATTERNS {
                kept.clear();
            }
            let pattern = Arc::new(pattern);
            kept.insert(text.to_owned(), pattern.clone());
            Some(pattern)
        }
        Err(error) => {
            tracing::error!(%error, "a stored event pattern cannot be read; it matches nothing");
            None
        }
    }
}

/// Whether any rule of `realm` asks for events at all: whoever has much to put together asks first.
pub fn is_heeded(tx: &Tx, realm: &str) -> bool {
    let mut rules = tx.scan_prefix::<Rule>(&format!("{realm}/"));
    rules.any(|rule| rule.enabled && !rule.targets.is_empty())
}

/// Tells an event to the rules of its account and region; `world` names the deliveries.
pub fn tell(tx: &mut Tx, world: &World, event: &Event) {
    let rules: Vec<Arc<Rule>> = tx
        .scan_prefix::<Rule>(&format!("{}/", event.realm))
        .filter(|rule| rule.enabled && !rule.targets.is_empty())
        .collect();
    if rules.is_empty() {
        return;
    }
    let json = event.json();
    for rule in rules {
        if !pattern(&rule.pattern).is_some_and(|pattern| pattern.matches(&json)) {
            continue;
        }
        for target in rule.targets.values() {
            tx.put(Delivery {
                id: world.uuid(),
                realm: event.realm.clone(),
                rule: rule.name.clone(),
                target: target.clone(),
                event: json.clone(),
                since: event.time,
                attempts: 0,
                due: event.time,
            });
        }
    }
}

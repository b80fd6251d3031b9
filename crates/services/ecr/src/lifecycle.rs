//! Lifecycle policies: reading them, and deciding which images they expire.
//! <https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html>

use crate::{
    Ecr,
    content::{self, by_image},
    model::{Image, Place, Repository, Tag},
};
use iam::policy::matches;
use images::Digest;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::Tx;
use wire::Fault;
use world::{Timestamp, World};

/// AWS promises a day; an hour is easier to wait for.
const ROUND: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// AWS's limits.
const MOST_WILDCARDS: usize = 4;
const MOST_RULES: usize = 50;

/// A policy as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LifecyclePolicy {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    rule_priority: u32,
    #[serde(default)]
    #[allow(dead_code)] // for people
    description: Option<String>,
    selection: Selection,
    action: Action,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    tag_status: TagStatus,
    #[serde(default)]
    tag_prefix_list: Option<Vec<String>>,
    #[serde(default)]
    tag_pattern_list: Option<Vec<String>>,
    count_type: String,
    #[serde(default)]
    count_unit: Option<String>,
    count_number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TagStatus {
    Tagged,
    Untagged,
    Any,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    r#type: String,
}

impl LifecyclePolicy {
    /// Reads a policy; the error is what AWS puts behind "Lifecycle policy validation failure:".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut policy: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if policy.rules.is_empty() || policy.rules.len() > MOST_RULES {
            return Err(format!("a policy has 1 to {MOST_RULES} rules"));
        }
        policy.rules.sort_by_key(|rule| rule.rule_priority);
        let mut priorities = BTreeSet::new();
        for rule in &policy.rules {
            if rule.rule_priority == 0 || !priorities.insert(rule.rule_priority) {
                return Err("rulePriority must be unique and at least 1".to_owned());
            }
            rule.check()?;
        }
        let any = |rule: &Rule| rule.selection.tag_status == TagStatus::Any;
        let last = policy.rules.len() - 1;
        if policy.rules[..last].iter().any(any) {
            return Err("the rule with tagStatus any must have the highest rulePriority".to_owned());
        }
        if policy
            .rules
            .iter()
            .filter(|rule| rule.selection.tag_status == TagStatus::Untagged)
            .count()
            > 1
        {
            return Err("only one rule may have tagStatus untagged".to_owned());
        }
        Ok(policy)
    }

    /// The images that the policy expires at `now`, each with the priority of the rule that does it. `images` are all
    /// of one repository's, with their tags.
    fn expired(
        &self,
        images: &[(Arc<Image>, Vec<String>)],
        now: Timestamp,
    ) -> BTreeMap<Digest, u32> {
        let mut claimed: BTreeSet<&Digest> = BTreeSet::new();
        let mut expired = BTreeMap::new();
        // What an index holds goes only after the index.
        let held: BTreeSet<&Digest> = images.iter().flat_map(|(image, _)| &image.images).collect();
        for rule in &self.rules {
            let mut selected: Vec<&Arc<Image>> = images
                .iter()
                .filter(|(_, tags)| rule.selection.selects(tags))
                .map(|(image, _)| image)
                .collect();
            selected.sort_by_key(|image| std::cmp::Reverse((image.pushed, image.digest.clone())));
            for (rank, image) in selected.iter().enumerate() {
                let due = rule.selection.is_due(image, rank as u64, now);
                // An image that a rule is about is no lower rule's affair.
                if claimed.insert(&image.digest) && due && !held.contains(&image.digest) {
                    expired.insert(image.digest.clone(), rule.rule_priority);
                }
            }
        }
        expired
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.action.r#type != "expire" {
            return Err(format!(
                "action type '{}': Neargate has no archive storage class; images can expire only",
                self.action.r#type
            ));
        }
        let selection = &self.selection;
        let lists = [&selection.tag_prefix_list, &selection.tag_pattern_list];
        let given =
            lists.iter().filter(|list| list.as_ref().is_some_and(|list| !list.is_empty())).count();
        match (selection.tag_status, given) {
            (TagStatus::Tagged, 1) | (TagStatus::Untagged | TagStatus::Any, 0) => {}
            (TagStatus::Tagged, _) => {
                return Err(
                    "tagStatus tagged needs either tagPrefixList or tagPatternList".to_owned()
                );
            }
            _ => return Err("tagPrefixList and tagPatternList are for tagStatus tagged".to_owned()),
        }
        for pattern in lists.into_iter().flatten().flatten() {
            let valid = pattern.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-*".contains(&b));
            if pattern.is_empty() || !valid || pattern.matches('*').count() > MOST_WILDCARDS {
                return Err(format!(
                    "'{pattern}' is not a tag with at most {MOST_WILDCARDS} wildcards"
                ));
            }
        }
        match (&*selection.count_type, selection.count_unit.as_deref()) {
            ("imageCountMoreThan", None) | ("sinceImagePushed", Some("days")) => {}
            ("imageCountMoreThan", Some(_)) => {
                return Err("countUnit is for countType sinceImagePushed".to_owned());
            }
            ("sinceImagePushed", _) => return Err("countUnit must be days".to_owned()),
            (other, _) => {
                return Err(format!("countType '{other}' is not one that images expire by"));
            }
        }
        if selection.count_number == 0 {
            return Err("countNumber must be at least 1".to_owned());
        }
        Ok(())
    }
}

impl Selection {
    /// Of several prefixes or patterns an image must meet all.
    fn selects(&self, tags: &[String]) -> bool {
        let all = |list: &Option<Vec<String>>, fits: &dyn Fn(&str, &str) -> bool| {
            let list = list.iter().flatten();
            list.into_iter().all(|wanted| tags.iter().any(|tag| fits(wanted, tag)))
        };
        match self.tag_status {
            TagStatus::Any => true,
            TagStatus::Untagged => tags.is_empty(),
            TagStatus::Tagged => {
                !tags.is_empty()
                    && all(&self.tag_prefix_list, &|prefix, tag| tag.starts_with(prefix))
                    && all(&self.tag_pattern_list, &matches)
            }
        }
    }

    /// `rank` counts the selected images from the youngest.
    fn is_due(&self, image: &Image, rank: u64, now: Timestamp) -> bool {
        match &*self.count_type {
            "imageCountMoreThan" => rank >= self.count_number,
            _ => {
                let days = u32::try_from(self.count_number).unwrap_or(u32::MAX);
                now.since(image.pushed) >= DAY.saturating_mul(days)
            }
        }
    }
}

/// Applies every policy, again and again.
pub(crate) async fn drive(ecr: Arc<Ecr>) {
    loop {
        let snapshot = ecr.store.read();
        let with_policy = snapshot.scan::<Repository>().filter(|found| found.lifecycle.is_some());
        let places: Vec<Place> = with_policy.map(|found| found.place.clone()).collect();
        for place in places {
            if let Err(fault) = ecr.apply_lifecycle(&place).await {
                tracing::warn!(
                    repository = place.key(),
                    fault = fault.message,
                    "a lifecycle policy was not applied"
                );
            }
        }
        ecr.world.sleep(ROUND).await;
    }
}

impl Ecr {
    /// Applies the repository's lifecycle policy, if it has one, at this moment.
    pub(crate) async fn apply_lifecycle(&self, place: &Place) -> Result<(), Fault> {
        let (place, now, world) = (place.clone(), self.world.now(), self.world.clone());
        self.store
            .write(move |tx| {
                let repository = tx.get::<Repository>(&place.key());
                let text = repository.and_then(|repository| repository.lifecycle.clone());
                let Some(text) = text else { return Ok(()) };
                match LifecyclePolicy::parse(&text) {
                    Ok(policy) => expire(tx, &world, &place, &policy, now),
                    Err(error) => {
                        tracing::error!(
                            error,
                            repository = place.key(),
                            "a stored lifecycle policy cannot be read"
                        );
                    }
                }
                tx.update::<Repository>(&place.key(), |repository| {
                    repository.evaluated = Some(now)
                });
                Ok(())
            })
            .await
    }
}

fn expire(tx: &mut Tx, world: &World, place: &Place, policy: &LifecyclePolicy, now: Timestamp) {
    let mut tags = by_image(tx.scan_prefix::<Tag>(&place.prefix()));
    let images: Vec<(Arc<Image>, Vec<String>)> = tx
        .scan_prefix::<Image>(&place.prefix())
        .map(|image| {
            let tags = tags.remove(&image.digest).unwrap_or_default();
            (image, tags)
        })
        .collect();
    let mut gone: BTreeSet<Digest> = policy.expired(&images, now).into_keys().collect();
    // What is said about an image goes with it.
    let about = images
        .iter()
        .filter(|(image, _)| image.subject.as_ref().is_some_and(|of| gone.contains(of)));
    let about: Vec<Digest> = about.map(|(image, _)| image.digest.clone()).collect();
    gone.extend(about);
    for digest in gone {
        content::delete(tx, world, place, &digest);
        tracing::info!(repository = place.key(), %digest, "an image expired");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000_000;

    fn image(name: &str, age_days: i64, tags: &[&str]) -> (Arc<Image>, Vec<String>) {
        let place = Place { realm: "1/r".into(), name: "app".into() };
        let image = Image {
            place,
            digest: Digest::of(name.as_bytes()),
            media_type: String::new(),
            manifest_bytes: 0,
            artifact_type: None,
            size: 0,
            pushed: Timestamp::from_millis(NOW - age_days * 86_400_000),
            pulled: None,
            subject: None,
            parts: Vec::new(),
            images: Vec::new(),
            annotations: BTreeMap::new(),
        };
        (Arc::new(image), tags.iter().map(|tag| (*tag).to_owned()).collect())
    }

    fn rule(priority: u32, mut selection: Value, count: u64) -> Value {
        selection["countNumber"] = count.into();
        if selection["countType"] == "sinceImagePushed" {
            selection["countUnit"] = "days".into();
        }
        json!({"rulePriority": priority, "selection": selection, "action": {"type": "expire"}})
    }

    fn expired(rules: Vec<Value>, images: &[(Arc<Image>, Vec<String>)]) -> Vec<bool> {
        let policy = LifecyclePolicy::parse(&json!({"rules": rules}).to_string()).unwrap();
        let gone = policy.expired(images, Timestamp::from_millis(NOW));
        images.iter().map(|(image, _)| gone.contains_key(&image.digest)).collect()
    }

    #[test]
    fn by_age_and_by_count() {
        let images =
            [image("a", 20, &[]), image("b", 14, &[]), image("c", 1, &[]), image("d", 30, &["v1"])];
        let age = json!({"tagStatus": "untagged", "countType": "sinceImagePushed"});
        assert_eq!(expired(vec![rule(1, age, 14)], &images), [true, true, false, false]);
        let count = json!({"tagStatus": "any", "countType": "imageCountMoreThan"});
        assert_eq!(expired(vec![rule(1, count, 2)], &images), [true, false, false, true]);
    }

    #[test]
    fn a_higher_rule_shields_its_images() {
        let images =
            [image("a", 9, &["prod-1"]), image("b", 8, &["prod-2"]), image("c", 7, &["dev"])];
        let prod = json!({"tagStatus": "tagged", "tagPrefixList": ["prod"], "countType": "imageCountMoreThan"});
        let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan"});
        // The second rule counts all three, but only `dev` is left to it.
        let rules = vec![rule(1, prod, 1), rule(2, any, 1)];
        assert_eq!(expired(rules, &images), [true, false, false]);
    }

    #[test]
    fn all_patterns_must_fit_and_indexes_hold_their_images() {
        let mut images =
            [image("a", 9, &["web-1", "prod"]), image("b", 9, &["web-2"]), image("c", 9, &["x"])];
        let both = json!({"tagStatus": "tagged", "tagPatternList": ["web*", "pr*d"], "countType": "sinceImagePushed"});
        assert_eq!(expired(vec![rule(1, both, 1)], &images), [true, false, false]);
        let digest = images[0].0.digest.clone();
        Arc::get_mut(&mut images[2].0).unwrap().images.push(digest);
        let any = json!({"tagStatus": "any", "countType": "sinceImagePushed"});
        assert_eq!(expired(vec![rule(1, any, 1)], &images), [false, true, true]);
    }

    #[test]
    fn wrong_policies_are_refused() {
        let age = json!({"tagStatus": "untagged", "countType": "sinceImagePushed"});
        let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan"});
        let tagged = json!({"tagStatus": "tagged", "countType": "imageCountMoreThan"});
        let mut archive = rule(1, any.clone(), 1);
        archive["action"] = json!({"type": "transition"});
        let mut pulled = rule(1, any.clone(), 1);
        pulled["selection"]["countType"] = "sinceImagePulled".into();
        let wrong = [
            vec![],
            vec![rule(0, age.clone(), 1)],
            vec![rule(1, age.clone(), 0)],
            vec![rule(1, age.clone(), 1), rule(1, any.clone(), 1)],
            vec![rule(1, any, 1), rule(2, age.clone(), 1)],
            vec![rule(1, age.clone(), 1), rule(2, age, 2)],
            vec![rule(1, tagged, 1)],
            vec![archive],
            vec![pulled],
        ];
        for rules in wrong {
            let text = json!({"rules": rules}).to_string();
            assert!(LifecyclePolicy::parse(&text).is_err(), "{text}");
        }
        assert!(LifecyclePolicy::parse("{").is_err());
    }
}

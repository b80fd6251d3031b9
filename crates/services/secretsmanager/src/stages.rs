//! Staging labels: how they move from version to version.
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html>

use crate::{
    faults,
    model::{Secret, VersionState},
};
use std::{collections::BTreeSet, time::Duration};
use wire::Fault;
use world::Timestamp;

/// The version that is read unless another is asked for.
pub(crate) const CURRENT: &str = "AWSCURRENT";
/// The version that was current before.
pub(crate) const PREVIOUS: &str = "AWSPREVIOUS";
/// The most labels of one version.
const MOST_STAGES: usize = 20;
/// The most versions of one secret.
const MOST_VERSIONS: usize = 100;
/// Versions are not removed before they are so old.
const KEPT: Duration = Duration::from_secs(24 * 3600);

fn index(secret: &Secret, id: &str) -> Option<usize> {
    secret.versions.iter().position(|version| version.id == id)
}

fn strip(secret: &mut Secret, stage: &str) {
    for version in &mut secret.versions {
        version.stages.remove(stage);
    }
}

/// Gives `stage` to the version `id` and takes it from any other. When AWSCURRENT moves, AWSPREVIOUS
/// moves to the version that it leaves.
pub(crate) fn attach(secret: &mut Secret, id: &str, stage: &str) {
    let holder = secret.staged(stage).map(|version| version.id.clone());
    if holder.as_deref() == Some(id) {
        return;
    }
    strip(secret, stage);
    if let Some(left) = holder.filter(|_| stage == CURRENT) {
        strip(secret, PREVIOUS);
        if let Some(index) = index(secret, &left) {
            secret.versions[index].stages.insert(PREVIOUS.to_owned());
        }
    }
    if let Some(index) = index(secret, id) {
        secret.versions[index].stages.insert(stage.to_owned());
    }
}

/// Adds a version with `stages`; answers the ids of old ones that had to go. The first version is
/// always the current one.
pub(crate) fn add(
    secret: &mut Secret,
    id: &str,
    stages: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Vec<String>, Fault> {
    let mut gone = Vec::new();
    while secret.versions.len() >= MOST_VERSIONS {
        let old =
            |version: &VersionState| version.stages.is_empty() && version.created + KEPT <= now;
        let Some(oldest) = secret.versions.iter().position(old) else {
            return Err(faults::limit(format!(
                "The secret has {MOST_VERSIONS} versions, and none that is deprecated and older \
                 than a day."
            )));
        };
        gone.push(secret.versions.remove(oldest).id);
    }
    let first = secret.versions.is_empty();
    secret.versions.push(VersionState {
        id: id.to_owned(),
        created: now,
        accessed: None,
        stages: BTreeSet::new(),
    });
    for stage in stages {
        attach(secret, id, stage);
    }
    if first {
        attach(secret, id, CURRENT);
    }
    Ok(gone)
}

/// What UpdateSecretVersionStage does.
/// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html>
pub(crate) fn update(
    secret: &mut Secret,
    stage: &str,
    remove_from: Option<&str>,
    move_to: Option<&str>,
) -> Result<(), Fault> {
    for id in [remove_from, move_to].into_iter().flatten() {
        secret.version(id).ok_or_else(|| {
            faults::not_found(format!(
                "Secrets Manager can't find the specified secret value for VersionId: {id}"
            ))
        })?;
    }
    let holder = secret.staged(stage).map(|version| version.id.clone());
    if let Some(remove) = remove_from
        && holder.as_deref() != Some(remove)
    {
        return Err(faults::parameter(format!(
            "The parameter RemoveFromVersionId isn't valid. Staging label {stage} isn't attached to \
             version {remove}."
        )));
    }
    match (move_to, remove_from) {
        (Some(to), from) => {
            if let Some(holder) = holder.filter(|holder| from.is_none() && holder != to) {
                return Err(faults::parameter(format!(
                    "The parameter RemoveFromVersionId can't be empty. Staging label {stage} is \
                     currently attached to version {holder}, so you must explicitly reference that \
                     version in RemoveFromVersionId."
                )));
            }
            attach(secret, to, stage);
            if secret.version(to).is_some_and(|version| version.stages.len() > MOST_STAGES) {
                return Err(faults::limit("A version can have at most 20 staging labels."));
            }
        }
        (None, Some(_)) if stage == CURRENT => {
            return Err(faults::parameter(
                "You can only move staging label AWSCURRENT to a different secret version. It can’t \
                 be completely removed.",
            ));
        }
        (None, Some(_)) => strip(secret, stage),
        (None, None) => {
            return Err(faults::parameter(
                "You must specify RemoveFromVersionId, MoveToVersionId, or both.",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret {
            realm: "1/r".into(),
            name: "n".into(),
            suffix: "abcdef".into(),
            description: None,
            kms_key_id: None,
            created: Timestamp::default(),
            changed: Timestamp::default(),
            accessed: None,
            deletion: None,
            tags: Default::default(),
            versions: Vec::new(),
        }
    }

    fn put(secret: &mut Secret, id: &str, stages: &[&str]) {
        let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
        add(secret, id, &stages, Timestamp::default()).unwrap();
    }

    fn holder<'a>(secret: &'a Secret, stage: &str) -> &'a str {
        secret.staged(stage).map_or("", |version| &version.id)
    }

    #[test]
    fn the_previous_version_follows_the_current_one() {
        let mut s = secret();
        put(&mut s, "a", &["AWSPENDING"]);
        assert_eq!((holder(&s, CURRENT), holder(&s, "AWSPENDING")), ("a", "a"));
        put(&mut s, "b", &[CURRENT]);
        assert_eq!((holder(&s, CURRENT), holder(&s, PREVIOUS)), ("b", "a"));
        put(&mut s, "c", &["AWSPENDING"]);
        assert_eq!((holder(&s, CURRENT), holder(&s, "AWSPENDING")), ("b", "c"));
        update(&mut s, CURRENT, Some("b"), Some("c")).unwrap();
        assert_eq!((holder(&s, CURRENT), holder(&s, PREVIOUS)), ("c", "b"));
        assert!(s.version("a").unwrap().stages.is_empty());
        // Back again.
        update(&mut s, CURRENT, Some("c"), Some("b")).unwrap();
        assert_eq!((holder(&s, CURRENT), holder(&s, PREVIOUS)), ("b", "c"));
    }

    #[test]
    fn labels_move_only_when_it_is_said_from_where() {
        let mut s = secret();
        put(&mut s, "a", &[CURRENT, "x"]);
        put(&mut s, "b", &["y"]);
        assert!(update(&mut s, "x", None, Some("b")).is_err());
        assert!(update(&mut s, "x", Some("b"), Some("a")).is_err());
        assert!(update(&mut s, CURRENT, Some("a"), None).is_err());
        assert!(update(&mut s, "x", None, None).is_err());
        assert!(update(&mut s, "x", Some("nobody"), None).is_err());
        update(&mut s, "x", Some("a"), None).unwrap();
        assert_eq!(holder(&s, "x"), "");
        update(&mut s, "new", None, Some("b")).unwrap();
        assert_eq!(holder(&s, "new"), "b");
    }

    #[test]
    fn old_deprecated_versions_make_room() {
        let mut s = secret();
        (0..100).for_each(|number| put(&mut s, &number.to_string(), &[CURRENT]));
        let stages = BTreeSet::from([CURRENT.to_owned()]);
        let early = add(&mut s, "x", &stages, Timestamp::default());
        assert_eq!(early.unwrap_err().code, "LimitExceededException");
        assert_eq!(add(&mut s, "x", &stages, Timestamp::default() + KEPT).unwrap(), ["0"]);
        assert_eq!(holder(&s, PREVIOUS), "99");
    }
}

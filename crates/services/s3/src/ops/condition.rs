//! Conditions on requests: RFC 9110, section 13, as S3 follows it.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html>

use super::time;
use crate::{faults, model::Object};
use s3s::{
    S3Result,
    dto::{ETagCondition, Timestamp},
};

/// The conditions of a read.
#[derive(Default)]
pub(super) struct Conditions {
    pub(super) matches: Option<ETagCondition>,
    pub(super) none_match: Option<ETagCondition>,
    pub(super) modified_since: Option<Timestamp>,
    pub(super) unmodified_since: Option<Timestamp>,
}

fn fits(condition: &ETagCondition, etag: &str) -> bool {
    condition.is_any() || condition.as_etag().is_some_and(|given| given.value() == etag)
}

/// Headers know whole seconds.
fn is_later(object: &Object, than: &Timestamp) -> bool {
    let whole = object.modified.millis() - object.modified.millis().rem_euclid(1000);
    time(world::Timestamp::from_millis(whole)) > *than
}

impl Conditions {
    /// Whether the object may be read: else 412, or 304 when `unchanged` is how that is told.
    pub(super) fn check(&self, object: &Object, unchanged: bool) -> S3Result<()> {
        match (&self.matches, &self.unmodified_since) {
            (Some(condition), _) if !fits(condition, &object.etag) => {
                return Err(faults::precondition("If-Match"));
            }
            (None, Some(since)) if is_later(object, since) => {
                return Err(faults::precondition("If-Unmodified-Since"));
            }
            _ => {}
        }
        let same = match (&self.none_match, &self.modified_since) {
            (Some(condition), _) => fits(condition, &object.etag),
            (None, Some(since)) => !is_later(object, since),
            (None, None) => false,
        };
        match (same, unchanged) {
            (false, _) => Ok(()),
            (true, true) => Err(faults::not_modified()),
            (true, false) => Err(faults::precondition("If-None-Match")),
        }
    }
}

/// The conditions of a write: of what is there, or that nothing is.
pub(super) fn check_write(
    there: Option<&Object>,
    matches: Option<&ETagCondition>,
    none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    if let Some(condition) = matches {
        let object = there.ok_or_else(faults::no_key)?;
        if !fits(condition, &object.etag) {
            return Err(faults::precondition("If-Match"));
        }
    }
    match none_match {
        Some(condition) if !condition.is_any() => {
            Err(faults::not_built("If-None-Match", "only * can be asked for when writing"))
        }
        Some(_) if there.is_some() => Err(faults::precondition("If-None-Match")),
        _ => Ok(()),
    }
}

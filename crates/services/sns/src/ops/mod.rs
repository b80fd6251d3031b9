//! The operations.

pub(crate) mod message;
pub(crate) mod permission;
pub(crate) mod subscription;
pub(crate) mod tag;
pub(crate) mod topic;

use crate::{Sns, faults, model::Topic};
use std::sync::Arc;
use store::View;
use wire::{Context, Fault, Page, ResourcePolicy};

/// Of what is listed, so much is on a page, as on AWS.
const PAGE: usize = 100;

/// A topic, for who may do `action` with it; of another account, its policy decides.
fn topic(sns: &Sns, ctx: &Context, action: &str, arn: &str) -> Result<Arc<Topic>, Fault> {
    let key = Topic::key_of(arn);
    let found = key.as_ref().and_then(|key| sns.store.read().get::<Topic>(key));
    let account = key.as_ref().and_then(|key| key.split('/').next()).unwrap_or(ctx.account());
    let policy = found.as_ref().and_then(|topic| topic.policy.as_deref());
    let owned = ResourcePolicy { account, policy };
    ctx.authorise_owned(&format!("sns:{action}"), arn, owned)?;
    if key.is_none() {
        return Err(faults::invalid("TopicArn"));
    }
    found.ok_or_else(faults::no_topic)
}

/// A topic that may have gone since it was looked up.
fn still(view: &impl View, key: &str) -> Result<Arc<Topic>, Fault> {
    view.record(key).ok_or_else(faults::no_topic)
}

fn page<T>(
    listing: &str,
    token: Option<&str>,
    ordered: impl Iterator<Item = (String, T)>,
) -> Result<Page<T>, Fault> {
    let page = Page::take(listing, token, PAGE, ordered);
    page.map_err(|_| faults::invalid("NextToken Reason: the token is not valid"))
}

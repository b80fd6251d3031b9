//! Handlers.

pub(crate) mod certificate;
pub(crate) mod request;
pub(crate) mod tag;

use crate::{Acm, faults, model::Certificate};
use std::sync::Arc;
use wire::{Context, Fault};

/// The certificate of this ARN, if the caller may do `action` to it.
fn find(acm: &Acm, ctx: &Context, action: &str, arn: &str) -> Result<Arc<Certificate>, Fault> {
    ctx.authorise(&format!("acm:{action}"), arn)?;
    let id = arn.strip_prefix("arn:aws:acm:").and_then(|rest| rest.split_once(":certificate/"));
    let (_, id) = id.ok_or_else(|| faults::bad_arn(arn))?;
    let found = acm.store.read().get::<Certificate>(&Certificate::key_of(&ctx.realm(), id));
    let found = found.filter(|certificate| certificate.arn() == arn);
    found.ok_or_else(|| faults::no_certificate(arn))
}

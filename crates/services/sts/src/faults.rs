//! Every fault that STS answers with.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html#API_AssumeRole_Errors>

use iam::policy::Malformed;
use wire::{Context, Fault};

pub(crate) fn assume_denied(ctx: &Context, role: &str) -> Fault {
    let message = format!(
        "User: {} is not authorized to perform: sts:AssumeRole on resource: {role}",
        ctx.principal.arn
    );
    Fault::new("AccessDenied", message).status(403)
}

pub(crate) fn root_assumes() -> Fault {
    Fault::new("AccessDenied", "Roles may not be assumed by root accounts.").status(403)
}

pub(crate) fn too_long(most_s: i32) -> Fault {
    let message = format!(
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role ({most_s})."
    );
    Fault::new("ValidationError", message)
}

pub(crate) fn chained_too_long() -> Fault {
    let message = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
    Fault::new("ValidationError", message)
}

pub(crate) fn session_asks() -> Fault {
    Fault::new("AccessDenied", "Cannot call GetSessionToken with session credentials").status(403)
}

pub(crate) fn malformed(error: Malformed) -> Fault {
    Fault::new("MalformedPolicyDocument", error.to_string())
}

pub(crate) fn packed_too_large() -> Fault {
    let message =
        "Packed size of session tags and policies consumes more than 100% of the allotted space.";
    Fault::new("PackedPolicyTooLarge", message)
}

pub(crate) fn no_policy(arn: &str) -> Fault {
    Fault::new("ValidationError", format!("PolicyArn {arn} is not valid."))
}

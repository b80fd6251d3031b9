//! Every fault that Certificate Manager answers.
//! <https://docs.aws.amazon.com/acm/latest/APIReference/CommonErrors.html>

use wire::{Family, Fault};

pub(crate) fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message)
}

pub(crate) fn bad_arn(arn: &str) -> Fault {
    Fault::new("InvalidArnException", format!("{arn} is not the ARN of a certificate"))
}

pub(crate) fn no_certificate(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Could not find certificate {arn}."))
}

pub(crate) fn in_use(arn: &str) -> Fault {
    Fault::new("ResourceInUseException", format!("Certificate {arn} is in use."))
}

pub(crate) fn too_many_names(most: usize) -> Fault {
    let message = format!("A certificate can be for at most {most} names.");
    Fault::new("LimitExceededException", message)
}

/// Nothing was issued; the cause is logged, the caller learns no more than AWS would tell.
pub(crate) fn issue(error: &crate::issue::IssueError) -> Fault {
    tracing::error!(error = error as &dyn std::error::Error, "no certificate was issued");
    Fault::internal(Family::Json)
}

pub(crate) fn too_many_tags() -> Fault {
    Fault::new("TooManyTagsException", "A certificate can have at most 50 tags.")
}

pub(crate) fn invalid_tag(message: impl Into<String>) -> Fault {
    Fault::new("InvalidTagException", message)
}

pub(crate) fn bad_token() -> Fault {
    validation("The NextToken value is invalid.")
}

//! Every fault that CloudWatch answers with.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Operations.html>, each operation's page.

use std::error::Error;
use wire::Fault;

pub(crate) fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationError", message)
}

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterValue", message)
}

pub(crate) fn combination(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterCombination", message)
}

pub(crate) fn missing(message: impl Into<String>) -> Fault {
    Fault::new("MissingParameter", message)
}

pub(crate) fn no_alarm() -> Fault {
    Fault::new("ResourceNotFound", "Alarm does not exist").status(404)
}

pub(crate) fn no_resource(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Unknown resource: {arn}")).status(404)
}

pub(crate) fn bad_token() -> Fault {
    Fault::new("InvalidNextToken", "The next token is not valid")
}

pub(crate) fn limit(message: impl Into<String>) -> Fault {
    Fault::new("LimitExceeded", message)
}

/// The disk refused points, or to give them back.
pub(crate) fn points(error: &(dyn Error + 'static)) -> Fault {
    tracing::error!(error, "metrics");
    Fault::new("InternalServiceFault", "Metrics cannot be written or read").status(500)
}

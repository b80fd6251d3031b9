//! Every fault that CloudWatch Logs answers with.
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/CommonErrors.html> and each operation's page.

use logstore::{AppendError, ReadError};
use wire::Fault;

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterException", message)
}

pub(crate) fn no_group() -> Fault {
    Fault::new("ResourceNotFoundException", "The specified log group does not exist.")
}

pub(crate) fn no_stream() -> Fault {
    Fault::new("ResourceNotFoundException", "The specified log stream does not exist.")
}

pub(crate) fn no_resource() -> Fault {
    Fault::new("ResourceNotFoundException", "The specified resource does not exist.")
}

pub(crate) fn group_exists() -> Fault {
    Fault::new("ResourceAlreadyExistsException", "The specified log group already exists")
}

pub(crate) fn stream_exists() -> Fault {
    Fault::new("ResourceAlreadyExistsException", "The specified log stream already exists")
}

/// The log store could not do it. The cause is logged here, once.
pub(crate) fn unavailable(error: &dyn std::error::Error) -> Fault {
    tracing::error!(error = chain(error), "the log store failed");
    let message = "The service cannot complete the request.";
    Fault::new("ServiceUnavailableException", message).status(503)
}

pub(crate) fn append(error: &AppendError) -> Fault {
    match error {
        AppendError::Deleted => no_stream(),
        AppendError::TooLarge { .. } => invalid(error.to_string()),
        error => unavailable(error),
    }
}

pub(crate) fn read(error: &ReadError) -> Fault {
    unavailable(error)
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

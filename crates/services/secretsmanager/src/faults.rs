//! Every fault that Secrets Manager answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/secretsmanager/latest/apireference/> names it. None holds a value.

use wire::{Family, Fault};

pub(crate) fn parameter(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterException", message)
}

pub(crate) fn request(message: impl Into<String>) -> Fault {
    Fault::new("InvalidRequestException", message)
}

pub(crate) fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message)
}

pub(crate) fn limit(message: impl Into<String>) -> Fault {
    Fault::new("LimitExceededException", message)
}

pub(crate) fn not_found(message: impl Into<String>) -> Fault {
    Fault::new("ResourceNotFoundException", message)
}

pub(crate) fn no_secret() -> Fault {
    not_found("Secrets Manager can't find the specified secret.")
}

pub(crate) fn marked_deleted() -> Fault {
    request("You can't perform this operation on the secret because it was marked for deletion.")
}

pub(crate) fn version_exists(id: &str) -> Fault {
    Fault::new(
        "ResourceExistsException",
        format!(
            "You can't use ClientRequestToken {id} because that value is already in use for a \
             version of secret with another value."
        ),
    )
}

pub(crate) fn token() -> Fault {
    Fault::new("InvalidNextTokenException", "The specified NextToken is invalid.")
}

pub(crate) fn no_kms() -> Fault {
    parameter(
        "Neargate has no KMS: the only key that secrets are sealed with is \
         alias/aws/secretsmanager.",
    )
}

/// A sealed value could not be opened. The cause is logged here, once; it holds no value.
pub(crate) fn unsealable(error: &dyn std::error::Error) -> Fault {
    tracing::error!(%error, "a secret's value could not be opened");
    Fault::internal(Family::Json)
}

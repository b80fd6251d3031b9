//! Every fault that Parameter Store answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/> names it. None holds a value.

use wire::{Family, Fault};

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message)
}

pub(crate) fn not_found(name: &str) -> Fault {
    Fault::new("ParameterNotFound", format!("Parameter {name} not found."))
}

pub(crate) fn no_version(name: &str, selector: &str) -> Fault {
    Fault::new(
        "ParameterVersionNotFound",
        format!(
            "Systems Manager could not find version {selector} of {name}. \
             Verify the version and try again."
        ),
    )
}

pub(crate) fn no_label(name: &str, label: &str) -> Fault {
    Fault::new(
        "ParameterVersionNotFound",
        format!(
            "Systems Manager could not find label {label} for parameter {name}. \
             Verify the label and try again."
        ),
    )
}

pub(crate) fn exists() -> Fault {
    Fault::new(
        "ParameterAlreadyExists",
        "The parameter already exists. To overwrite this value, set the overwrite option in the \
         request to true.",
    )
}

pub(crate) fn token() -> Fault {
    Fault::new("InvalidNextToken", "The specified token isn't valid.")
}

pub(crate) fn no_kms() -> Fault {
    Fault::new(
        "InvalidKeyId",
        "Neargate has no KMS: the only key that SecureStrings are sealed with is alias/aws/ssm.",
    )
}

pub(crate) fn no_resource(id: &str) -> Fault {
    Fault::new(
        "InvalidResourceId",
        format!("The resource ID \"{id}\" is not valid. Verify the ID and try again."),
    )
}

/// A sealed value could not be opened. The cause is logged here, once; it holds no value.
pub(crate) fn unsealable(error: &dyn std::error::Error) -> Fault {
    tracing::error!(%error, "a parameter's value could not be opened");
    Fault::internal(Family::Json)
}

//! Every fault that CloudFormation answers.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/CommonErrors.html>

use wire::Fault;

pub(crate) fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationError", message)
}

pub(crate) fn no_stack(name: &str) -> Fault {
    validation(format!("Stack with id {name} does not exist"))
}

pub(crate) fn already_exists(name: &str) -> Fault {
    Fault::new("AlreadyExistsException", format!("Stack [{name}] already exists"))
}

pub(crate) fn insufficient_capabilities(message: String) -> Fault {
    Fault::new("InsufficientCapabilitiesException", message)
}

pub(crate) fn no_change_set(name: &str) -> Fault {
    Fault::new("ChangeSetNotFound", format!("ChangeSet [{name}] does not exist")).status(404)
}

pub(crate) fn change_set_status(message: impl Into<String>) -> Fault {
    Fault::new("InvalidChangeSetStatus", message)
}

pub(crate) fn bad_token() -> Fault {
    validation("The next token is invalid.")
}

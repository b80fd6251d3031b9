//! Every fault that CodeDeploy answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/codedeploy/latest/APIReference/> names it.

use wire::Fault;

pub(crate) fn no_application(name: &str) -> Fault {
    Fault::new("ApplicationDoesNotExistException", format!("No application found for name: {name}"))
}

pub(crate) fn no_group(name: &str) -> Fault {
    Fault::new(
        "DeploymentGroupDoesNotExistException",
        format!("No Deployment Group found for name: {name}"),
    )
}

pub(crate) fn no_config(name: &str) -> Fault {
    Fault::new(
        "DeploymentConfigDoesNotExistException",
        format!("No Deployment Configuration found for name: {name}"),
    )
}

pub(crate) fn no_deployment(id: &str) -> Fault {
    Fault::new("DeploymentDoesNotExistException", format!("The deployment {id} could not be found"))
}

pub(crate) fn token() -> Fault {
    Fault::new("InvalidNextTokenException", "The next token was specified in an invalid format.")
}

pub(crate) fn in_use(what: &str) -> Fault {
    Fault::new("DeploymentConfigInUseException", format!("{what} is in use."))
}

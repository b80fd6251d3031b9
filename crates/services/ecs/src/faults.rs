//! Every fault that ECS answers with.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html> and each operation's page.

use wire::Fault;

/// The caller sent what cannot be.
pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterException", message)
}

/// The caller asked for what cannot be done.
pub(crate) fn client(message: impl Into<String>) -> Fault {
    Fault::new("ClientException", message)
}

pub(crate) fn no_cluster() -> Fault {
    Fault::new("ClusterNotFoundException", "Cluster not found.")
}

pub(crate) fn cluster_has_tasks() -> Fault {
    Fault::new(
        "ClusterContainsTasksException",
        "The Cluster cannot be deleted while Tasks are active.",
    )
}

pub(crate) fn cluster_has_services() -> Fault {
    Fault::new(
        "ClusterContainsServicesException",
        "The Cluster cannot be deleted while Services are active.",
    )
}

pub(crate) fn no_service() -> Fault {
    Fault::new("ServiceNotFoundException", "Service not found.")
}

pub(crate) fn no_task_set() -> Fault {
    Fault::new("TaskSetNotFoundException", "TaskSet not found.")
}

pub(crate) fn no_service_deployment() -> Fault {
    Fault::new("ServiceDeploymentNotFoundException", "Service deployment not found.")
}

/// The resource is in no state for what the caller asked for.
pub(crate) fn conflict(message: impl Into<String>) -> Fault {
    Fault::new("ConflictException", message)
}

pub(crate) fn no_namespace() -> Fault {
    Fault::new("NamespaceNotFoundException", "The specified namespace was not found.")
}

pub(crate) fn service_not_active() -> Fault {
    Fault::new("ServiceNotActiveException", "Service was not ACTIVE.")
}

pub(crate) fn no_task() -> Fault {
    invalid("The referenced task was not found.")
}

pub(crate) fn no_task_definition() -> Fault {
    client("Unable to describe task definition.")
}

pub(crate) fn not_runnable() -> Fault {
    client("TaskDefinition not found.")
}

pub(crate) fn inactive_task_definition() -> Fault {
    client("TaskDefinition is inactive")
}

pub(crate) fn bad_token() -> Fault {
    invalid("Invalid token provided")
}

pub(crate) fn token_reused(tasks: Vec<String>) -> Fault {
    let message = "The client token was used before with other parameters.";
    Fault::new("ConflictException", message).detail("resourceIds", tasks)
}

pub(crate) fn no_platform() -> Fault {
    let message = "The specified platform does not exist.";
    Fault::new("PlatformUnknownException", message)
}

pub(crate) fn no_resource(arn: &str) -> Fault {
    invalid(format!("The specified resource {arn} was not found."))
}

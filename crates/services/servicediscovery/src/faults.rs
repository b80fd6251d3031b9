//! Every fault that Cloud Map answers with.
//! <https://docs.aws.amazon.com/cloud-map/latest/api/CommonErrors.html> and each operation's page.

use wire::Fault;

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidInput", message)
}

pub(crate) fn no_namespace(id: &str) -> Fault {
    Fault::new("NamespaceNotFound", format!("Failed to find namespace {id}."))
}

pub(crate) fn no_service(id: &str) -> Fault {
    Fault::new("ServiceNotFound", format!("Failed to find service {id}."))
}

pub(crate) fn no_instance(id: &str) -> Fault {
    Fault::new("InstanceNotFound", format!("Failed to find instance {id}."))
}

pub(crate) fn no_operation(id: &str) -> Fault {
    Fault::new("OperationNotFound", format!("Failed to find operation {id}."))
}

pub(crate) fn no_resource(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Failed to find resource {arn}."))
}

pub(crate) fn no_custom_health(service: &str) -> Fault {
    let message = format!("Service {service} has no custom health check configuration.");
    Fault::new("CustomHealthNotFound", message)
}

pub(crate) fn namespace_exists(id: &str) -> Fault {
    Fault::new("NamespaceAlreadyExists", format!("Namespace already exists: {id}."))
}

pub(crate) fn service_exists(id: &str) -> Fault {
    Fault::new("ServiceAlreadyExists", format!("Service already exists: {id}."))
}

pub(crate) fn in_use(message: &str) -> Fault {
    Fault::new("ResourceInUse", message)
}

pub(crate) fn limit(message: String) -> Fault {
    Fault::new("ResourceLimitExceeded", message)
}

pub(crate) fn too_many_attributes() -> Fault {
    let message = "A service can have at most 30 attributes.";
    Fault::new("ServiceAttributesLimitExceededException", message)
}

pub(crate) fn too_many_tags() -> Fault {
    Fault::new("TooManyTagsException", "A resource can have at most 50 tags.")
}

//! Every fault that EC2 answers with.
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>

use wire::Fault;

pub(crate) fn not_found(kind: &'static str, name: &str, id: &str) -> Fault {
    Fault::new(kind, format!("The {name} ID '{id}' does not exist"))
}

pub(crate) fn no_group(id: &str) -> Fault {
    Fault::new("InvalidGroup.NotFound", format!("The security group '{id}' does not exist"))
}

pub(crate) fn group_exists(name: &str, vpc: &str) -> Fault {
    let message = format!("The security group '{name}' already exists for VPC '{vpc}'");
    Fault::new("InvalidGroup.Duplicate", message)
}

pub(crate) fn group_in_use(id: &str) -> Fault {
    Fault::new("DependencyViolation", format!("resource {id} has a dependent object"))
}

/// Something still needs it.
pub(crate) fn dependency(kind: &str, id: &str) -> Fault {
    let message = format!("The {kind} '{id}' has dependencies and cannot be deleted.");
    Fault::new("DependencyViolation", message)
}

pub(crate) fn of(code: &'static str, message: impl Into<String>) -> Fault {
    Fault::new(code, message)
}

pub(crate) fn default_group() -> Fault {
    Fault::new("CannotDelete", "the specified group: \"default\" name cannot be deleted by a user")
}

pub(crate) fn rule_exists(rule: &str) -> Fault {
    let message = format!("the specified rule \"{rule}\" already exists");
    Fault::new("InvalidPermission.Duplicate", message)
}

pub(crate) fn no_rule() -> Fault {
    let message = "The specified rule does not exist in this security group.";
    Fault::new("InvalidPermission.NotFound", message)
}

pub(crate) fn no_rule_id(id: &str) -> Fault {
    let message = format!("The security group rule ID '{id}' does not exist");
    Fault::new("InvalidSecurityGroupRuleId.NotFound", message)
}

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidParameterValue", message)
}

pub(crate) fn missing(what: &str) -> Fault {
    Fault::new("MissingParameter", format!("The request must contain the parameter {what}"))
}

pub(crate) fn would_succeed() -> Fault {
    let message = "Request would have succeeded, but DryRun flag is set.";
    Fault::new("DryRunOperation", message).status(412)
}

/// The rules are stored but the kernel has not taken them.
pub(crate) fn not_applied() -> Fault {
    Fault::new(
        "InternalError",
        "What was asked for is stored but could not be applied; see serve's log.",
    )
    .status(500)
}

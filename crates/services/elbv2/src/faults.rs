//! Every fault that Elastic Load Balancing answers with.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/CommonErrors.html> and each operation's page.

use wire::Fault;

pub(crate) fn no_balancer() -> Fault {
    Fault::new("LoadBalancerNotFound", "One or more load balancers not found")
}

pub(crate) fn no_balancer_named(name: &str) -> Fault {
    Fault::new("LoadBalancerNotFound", format!("Load balancers '[{name}]' not found"))
}

pub(crate) fn no_listener() -> Fault {
    Fault::new("ListenerNotFound", "One or more listeners not found")
}

pub(crate) fn no_rule() -> Fault {
    Fault::new("RuleNotFound", "One or more rules not found")
}

pub(crate) fn no_target_group() -> Fault {
    Fault::new("TargetGroupNotFound", "One or more target groups not found")
}

pub(crate) fn no_target_group_in_action(arn: &str) -> Fault {
    Fault::new("TargetGroupNotFound", format!("Target groups '{arn}' not found"))
}

pub(crate) fn bad_arn(arn: &str, what: &str) -> Fault {
    let arn: String = arn.chars().take(256).collect();
    invalid(format!("'{arn}' is not a valid {what} ARN"))
}

pub(crate) fn balancer_exists(name: &str) -> Fault {
    let message =
        format!("A load balancer with the same name '{name}' exists, but with different settings");
    Fault::new("DuplicateLoadBalancerName", message)
}

pub(crate) fn target_group_exists(name: &str) -> Fault {
    let message =
        format!("A target group with the same name '{name}' exists, but with different settings");
    Fault::new("DuplicateTargetGroupName", message)
}

pub(crate) fn listener_exists(balancer: &str) -> Fault {
    let message =
        format!("A listener already exists on this port for this load balancer '{balancer}'");
    Fault::new("DuplicateListener", message)
}

pub(crate) fn priority_in_use(priority: i32) -> Fault {
    Fault::new("PriorityInUse", format!("Priority '{priority}' is currently in use"))
}

pub(crate) fn target_group_in_use(arn: &str) -> Fault {
    let message = format!("Target group '{arn}' is currently in use by a listener or a rule");
    Fault::new("ResourceInUse", message)
}

pub(crate) fn shared_target_group(arn: &str) -> Fault {
    let message = format!(
        "The following target groups cannot be associated with more than one load balancer: {arn}"
    );
    Fault::new("TargetGroupAssociationLimit", message)
}

pub(crate) fn incompatible(arn: &str, listener: &str, group: &str) -> Fault {
    let message = format!(
        "The listener and its associated target group '{arn}' have incompatible protocols: \
         '{listener}' and '{group}'"
    );
    Fault::new("IncompatibleProtocols", message)
}

pub(crate) fn protected(arn: &str) -> Fault {
    let message =
        format!("Load balancer '{arn}' cannot be deleted because deletion protection is enabled");
    not_permitted(message)
}

pub(crate) fn not_permitted(message: impl Into<String>) -> Fault {
    Fault::new("OperationNotPermitted", message)
}

pub(crate) fn no_subnet(id: &str) -> Fault {
    Fault::new("SubnetNotFound", format!("The subnet ID '{id}' does not exist"))
}

pub(crate) fn no_internet_gateway(vpc: &str) -> Fault {
    Fault::new("InvalidSubnet", format!("VPC {vpc} has no internet gateway"))
}

pub(crate) fn invalid_groups() -> Fault {
    Fault::new("InvalidSecurityGroup", "One or more security groups are invalid")
}

pub(crate) fn invalid_target(message: impl Into<String>) -> Fault {
    Fault::new("InvalidTarget", message)
}

pub(crate) fn invalid_action(message: impl Into<String>) -> Fault {
    Fault::new("InvalidLoadBalancerAction", message)
}

pub(crate) fn invalid_configuration(message: impl Into<String>) -> Fault {
    Fault::new("InvalidConfigurationRequest", message)
}

pub(crate) fn unsupported_protocol(message: impl Into<String>) -> Fault {
    Fault::new("UnsupportedProtocol", message)
}

pub(crate) fn duplicate_tags() -> Fault {
    Fault::new("DuplicateTagKeys", "Tag keys must be unique")
}

/// A quota is used up: `code` is `TooManyRules` and the like.
pub(crate) fn too_many(code: &'static str, what: &str, limit: usize) -> Fault {
    Fault::new(code, format!("The maximum number of {what} has been reached: {limit}"))
}

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("ValidationError", message)
}

/// AWS has it and Neargate does not, in the words that refused members get.
pub(crate) fn not_built(what: &str, reason: &str) -> Fault {
    invalid(format!("Neargate does not support {what}: {reason}"))
}

pub(crate) fn no_certificate(arn: &str) -> Fault {
    Fault::new("CertificateNotFound", format!("Certificate ARN '{arn}' is not valid"))
}

pub(crate) fn certificate_needed(protocol: &str) -> Fault {
    invalid(format!("A certificate must be specified for {protocol} listeners"))
}

pub(crate) fn no_ssl_policy(name: &str) -> Fault {
    Fault::new("SSLPolicyNotFound", format!("SSL policy '{name}' not found"))
}

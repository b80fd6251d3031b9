//! Every fault that IAM answers with.
//! <https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html> and each operation's page.

use crate::policy::Malformed;
use wire::Fault;

pub(crate) fn no_entity(kind: &str, name: &str) -> Fault {
    Fault::new("NoSuchEntity", format!("The {kind} with name {name} cannot be found.")).status(404)
}

pub(crate) fn no_key(id: &str) -> Fault {
    Fault::new("NoSuchEntity", format!("The Access Key with id {id} cannot be found.")).status(404)
}

pub(crate) fn no_policy(arn: &str) -> Fault {
    let message = format!("Policy {arn} does not exist or is not attachable.");
    Fault::new("NoSuchEntity", message).status(404)
}

pub(crate) fn no_version(arn: &str, version: &str) -> Fault {
    let message = format!("Policy {arn} version {version} does not exist or is not attachable.");
    Fault::new("NoSuchEntity", message).status(404)
}

pub(crate) fn no_inline(kind: &str, policy: &str) -> Fault {
    let message = format!("The {kind} policy with name {policy} cannot be found.");
    Fault::new("NoSuchEntity", message).status(404)
}

pub(crate) fn not_attached(arn: &str) -> Fault {
    Fault::new("NoSuchEntity", format!("Policy {arn} was not found.")).status(404)
}

pub(crate) fn exists(kind: &str, name: &str) -> Fault {
    let message = format!("{kind} with name {name} already exists.");
    Fault::new("EntityAlreadyExists", message).status(409)
}

pub(crate) fn policy_exists(name: &str) -> Fault {
    let message =
        format!("A policy called {name} already exists. Duplicate names are not allowed.");
    Fault::new("EntityAlreadyExists", message).status(409)
}

pub(crate) fn conflict(first: &str) -> Fault {
    let message = format!("Cannot delete entity, must {first} first.");
    Fault::new("DeleteConflict", message).status(409)
}

pub(crate) fn default_version() -> Fault {
    let message = "Cannot delete the default version of a policy.";
    Fault::new("DeleteConflict", message).status(409)
}

pub(crate) fn attached_policy() -> Fault {
    let message = "Cannot delete a policy attached to entities.";
    Fault::new("DeleteConflict", message).status(409)
}

pub(crate) fn versions_left() -> Fault {
    let message = "This policy has more than one version. \
                   Before you delete a policy, you must delete the policy's versions. \
                   The default version is deleted with the policy.";
    Fault::new("DeleteConflict", message).status(409)
}

pub(crate) fn limit(quota: &str, limit: usize) -> Fault {
    Fault::new("LimitExceeded", format!("Cannot exceed quota for {quota}: {limit}")).status(409)
}

pub(crate) fn malformed(error: Malformed) -> Fault {
    Fault::new("MalformedPolicyDocument", error.to_string())
}

pub(crate) fn unmodifiable(arn: &str) -> Fault {
    let message = format!("Cannot perform the operation on the AWS managed policy {arn}.");
    Fault::new("AccessDenied", message).status(403)
}

pub(crate) fn bad_marker() -> Fault {
    Fault::new("ValidationError", "Invalid Marker.")
}

pub(crate) fn no_user_name() -> Fault {
    Fault::new("ValidationError", "Must specify userName when calling with non-User credentials")
}

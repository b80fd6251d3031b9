//! Every fault that this service answers.
//! <https://docs.aws.amazon.com/autoscaling/application/APIReference/CommonErrors.html>

use wire::Fault;

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message)
}

pub(crate) fn no_target(resource: &str) -> Fault {
    Fault::new(
        "ObjectNotFoundException",
        format!(
            "No scalable target found for service namespace: ecs, resource ID: {resource}, scalable dimension: \
             ecs:service:DesiredCount"
        ),
    )
}

pub(crate) fn no_policy(name: &str, resource: &str) -> Fault {
    Fault::new(
        "ObjectNotFoundException",
        format!(
            "No scaling policy found for service namespace: ecs, resource ID: {resource}, scalable dimension: \
             ecs:service:DesiredCount: {name}"
        ),
    )
}

pub(crate) fn no_action(name: &str, resource: &str) -> Fault {
    Fault::new(
        "ObjectNotFoundException",
        format!(
            "No scheduled action found for service namespace: ecs, resource ID: {resource}, scalable dimension: \
             ecs:service:DesiredCount: {name}"
        ),
    )
}

pub(crate) fn no_resource(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("No scalable target found for {arn}"))
        .detail("ResourceName", arn)
}

pub(crate) fn too_many_tags(arn: &str) -> Fault {
    Fault::new("TooManyTagsException", "A scalable target can have at most 50 tags.")
        .detail("ResourceName", arn)
}

pub(crate) fn limit(what: &str, most: usize) -> Fault {
    Fault::new("LimitExceededException", format!("The limit of {most} {what} is reached."))
}

pub(crate) fn bad_token() -> Fault {
    Fault::new("InvalidNextTokenException", "The NextToken value is invalid.")
}

//! Every fault that CodeBuild answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/codebuild/latest/APIReference/> names it.

use wire::Fault;

pub(crate) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidInputException", message.into())
}

pub(crate) fn no_project(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Project cannot be found: {arn}"))
}

pub(crate) fn no_build(arn: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Build cannot be found: {arn}"))
}

pub(crate) fn project_exists(arn: &str) -> Fault {
    Fault::new("ResourceAlreadyExistsException", format!("Project already exists: {arn}"))
}

pub(crate) fn limit(message: impl Into<String>) -> Fault {
    Fault::new("AccountLimitExceededException", message.into())
}

pub(crate) fn token() -> Fault {
    invalid("Invalid pagination token")
}

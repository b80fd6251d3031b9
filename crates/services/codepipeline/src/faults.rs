//! Every fault that CodePipeline answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/codepipeline/latest/APIReference/> names it.

use wire::Fault;

pub(crate) fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message)
}

pub(crate) fn no_pipeline(ctx: &wire::Context, name: &str) -> Fault {
    let account = ctx.account();
    Fault::new(
        "PipelineNotFoundException",
        format!("Account '{account}' does not have a pipeline with name '{name}'"),
    )
}

pub(crate) fn no_execution(id: &str) -> Fault {
    Fault::new(
        "PipelineExecutionNotFoundException",
        format!("The pipeline execution with id '{id}' was not found."),
    )
}

pub(crate) fn no_stage(name: &str) -> Fault {
    Fault::new("StageNotFoundException", format!("The stage '{name}' was not found."))
}

pub(crate) fn structure(message: impl Into<String>) -> Fault {
    Fault::new("InvalidStructureException", message)
}

pub(crate) fn stage(message: impl Into<String>) -> Fault {
    Fault::new("InvalidStageDeclarationException", message)
}

pub(crate) fn action(message: impl Into<String>) -> Fault {
    Fault::new("InvalidActionDeclarationException", message)
}

pub(crate) fn token() -> Fault {
    Fault::new("InvalidNextTokenException", "The next token is not valid.")
}

pub(crate) fn too_many(limit: usize) -> Fault {
    Fault::new(
        "ConcurrentPipelineExecutionsLimitExceededException",
        format!("The pipeline has reached the limit of {limit} concurrent executions."),
    )
}

//! Every fault that EventBridge answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/eventbridge/latest/APIReference/> names it.

use crate::pattern::Malformed;
use wire::Fault;

pub(crate) fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationException", message)
}

pub(crate) fn no_rule(name: &str) -> Fault {
    Fault::new(
        "ResourceNotFoundException",
        format!("Rule {name} does not exist on EventBus default."),
    )
}

pub(crate) fn no_bus(name: &str) -> Fault {
    Fault::new("ResourceNotFoundException", format!("Event bus {name} does not exist."))
}

pub(crate) fn pattern(error: &Malformed) -> Fault {
    Fault::new("InvalidEventPatternException", error.to_string())
}

pub(crate) fn limit(message: impl Into<String>) -> Fault {
    Fault::new("LimitExceededException", message)
}

pub(crate) fn token() -> Fault {
    validation("The token is not valid.")
}

//! Every fault that SNS answers with.
//! <https://docs.aws.amazon.com/sns/latest/api/API_Operations.html>, each operation's page.

use wire::Fault;

pub(crate) fn invalid(reason: impl std::fmt::Display) -> Fault {
    Fault::new("InvalidParameter", format!("Invalid parameter: {reason}"))
}

pub(crate) fn no_topic() -> Fault {
    Fault::new("NotFound", "Topic does not exist").status(404)
}

pub(crate) fn no_subscription() -> Fault {
    Fault::new("NotFound", "Subscription does not exist").status(404)
}

pub(crate) fn no_resource() -> Fault {
    Fault::new("ResourceNotFound", "Resource does not exist").status(404)
}

pub(crate) fn limit(code: &'static str, what: &str) -> Fault {
    Fault::new(code, format!("{what} limit exceeded")).status(403)
}

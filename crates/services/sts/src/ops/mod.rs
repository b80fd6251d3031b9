//! Handlers: authorise, validate, answer.

pub(crate) mod session;

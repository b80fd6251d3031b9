//! IAM's policy language: reading documents and evaluating them.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>

mod condition;
mod document;
mod evaluate;
mod pattern;

pub use document::{Document, Kind, Malformed};
pub use evaluate::{Effect, Request, evaluate};
pub use pattern::matches;

#[cfg(test)]
mod tests;

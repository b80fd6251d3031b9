//! How commands print, and how they fail.

use clap::ValueEnum;
use serde::Serialize;
use std::{error::Error, process::ExitCode};

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Why a command failed, and what to do next.
pub(crate) struct Failure {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

#[derive(Serialize)]
struct FailureJson<'a> {
    error: &'a str,
    causes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Failure {
    /// A failure without a deeper cause.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), causes: Vec::new(), hint: None }
    }

    /// The same, with what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it on standard error; the exit code is 1.
    pub(crate) fn tell(self, format: Format) -> ExitCode {
        match format {
            Format::Json => {
                let json = FailureJson {
                    error: &self.what,
                    causes: &self.causes,
                    hint: self.hint.as_deref(),
                };
                eprintln!("{}", serde_json::to_string(&json).expect("texts are JSON"));
            }
            Format::Text => {
                eprintln!("neargate: {}", self.what);
                self.causes.iter().for_each(|cause| eprintln!("  because: {cause}"));
                if let Some(hint) = &self.hint {
                    eprintln!("  {hint}");
                }
            }
        }
        ExitCode::FAILURE
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self { what: error.to_string(), causes, hint: None }
    }
}

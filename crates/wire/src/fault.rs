//! What AWS answers when it does not do what was asked.

use crate::shape::{Family, ServiceSpec};
use std::borrow::Cow;

/// An error answer, free of any protocol. Services make theirs in `faults.rs`; those that every service
/// shares are made here, in the dialect of the service's family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// AWS's code, `ClusterNotFoundException`.
    pub code: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What the caller reads.
    pub message: String,
    /// Further members that AWS's shape of this fault has.
    pub details: Vec<(&'static str, Detail)>,
}

/// A further member of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// A list of texts.
    List(Vec<String>),
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Detail {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<Vec<String>> for Detail {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

impl Fault {
    /// A fault of the caller's making (status 400).
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: code.into(), status: 400, message: message.into(), details: Vec::new() }
    }

    /// The same fault with another HTTP status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same fault with a further member.
    pub fn detail(mut self, name: &'static str, detail: impl Into<Detail>) -> Self {
        self.details.push((name, detail.into()));
        self
    }

    /// Whether the caller could have avoided it.
    pub fn is_sender(&self) -> bool {
        self.status < 500
    }

    /// Something went wrong on our side. The cause is logged where this is made; the caller learns no more than
    /// AWS would tell.
    pub fn internal(family: Family) -> Self {
        let (code, message) = match family {
            Family::Json => (
                "InternalFailure",
                "The request processing has failed because of an unknown error, exception or failure.",
            ),
            Family::Query => (
                "InternalFailure",
                "The request processing has failed because of an unknown error, exception or failure.",
            ),
            Family::Ec2 => ("InternalError", "An internal error has occurred"),
        };
        Self::new(code, message).status(500)
    }

    /// The operation is not one that is built here. AWS's own answer, and a message that says so.
    pub fn unknown_operation(spec: &ServiceSpec, operation: &str) -> Self {
        let operation: String = operation.chars().take(128).collect();
        match spec.family {
            Family::Json => Self::new(
                "UnknownOperationException",
                format!("Neargate does not implement {}:{operation}.", spec.name),
            ),
            Family::Query | Family::Ec2 => Self::new(
                "InvalidAction",
                format!(
                    "The action {operation} is not valid for this web service: \
                     Neargate does not implement {}:{operation}.",
                    spec.name
                ),
            ),
        }
    }

    /// The body could not be read as the protocol's form.
    pub fn serialization(family: Family, message: impl Into<String>) -> Self {
        match family {
            Family::Json => Self::new("SerializationException", message),
            Family::Query | Family::Ec2 => Self::new("MalformedInput", message),
        }
    }

    /// The body is larger than the service takes.
    pub fn too_large(family: Family, limit_bytes: usize) -> Self {
        let code = match family {
            Family::Json => "RequestEntityTooLargeException",
            Family::Query | Family::Ec2 => "RequestEntityTooLarge",
        };
        Self::new(code, format!("The request body is larger than {limit_bytes} bytes.")).status(413)
    }

    /// The caller may not do this.
    pub fn access_denied(family: Family, message: String) -> Self {
        match family {
            Family::Json => Self::new("AccessDeniedException", message),
            Family::Query => Self::new("AccessDenied", message).status(403),
            Family::Ec2 => Self::new(
                "UnauthorizedOperation",
                format!("You are not authorized to perform this operation. {message}"),
            )
            .status(403),
        }
    }
}

/// What a caller learns when the disk refuses a write: that it is our side, and, when the disk is full, that.
impl From<store::DiskFault> for Fault {
    fn from(fault: store::DiskFault) -> Self {
        tracing::error!(error = &fault as &dyn std::error::Error, "a write did not reach the disk");
        Self::internal(Family::Json)
    }
}

//! AWS's protocols. Each has one walk from bytes to a [`Value`](crate::Value) and one back, both led by the shape.

mod cbor;
pub(crate) mod json;
mod query;
mod raw;
mod rest_json;
mod xml;

pub(crate) use query::action;
pub(crate) use rest_json::match_path;

use crate::{
    fault::Fault,
    shape::{Family, Operation, ServiceSpec},
    value::Value,
};
use bytes::Bytes;
use hyper::{HeaderMap, Uri, header::HeaderValue};
use std::borrow::Cow;

/// How deep a request may nest. AWS's deepest shapes stay far below.
pub(crate) const MAX_DEPTH: usize = 48;

/// The protocol that a request came in, and that its answer leaves in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `application/x-amz-json-1.0` or `-1.1`, the operation in `X-Amz-Target`.
    Json {
        /// 0 or 1, the number after `1.`.
        minor: u8,
    },
    /// A form with `Action` and `Version`, answered in XML.
    Query,
    /// EC2's own variant of Query.
    Ec2,
    /// Smithy RPC v2 with CBOR.
    Cbor,
    /// JSON bodies, the rest in path, query string and headers.
    RestJson,
}

/// The parts of a request that decoding looks at.
pub(crate) struct Incoming<'a> {
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
}

/// An answer before it becomes an HTTP response.
pub(crate) struct Outgoing {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, HeaderValue)>,
    pub body: Vec<u8>,
}

impl Protocol {
    /// The dialect in which this protocol names AWS's common errors.
    pub(crate) fn family(self) -> Family {
        match self {
            Self::Json { .. } | Self::Cbor | Self::RestJson => Family::Json,
            Self::Query => Family::Query,
            Self::Ec2 => Family::Ec2,
        }
    }

    pub(crate) fn decode(self, operation: &Operation, incoming: &Incoming) -> Result<Value, Fault> {
        match self {
            Self::Json { .. } => json::decode(operation.input, incoming.body),
            Self::Cbor => cbor::decode(operation.input, incoming.body),
            Self::Query => query::decode(operation.input, incoming, false),
            Self::Ec2 => query::decode(operation.input, incoming, true),
            Self::RestJson => rest_json::decode(operation, incoming),
        }
    }

    pub(crate) fn encode(
        self,
        spec: &ServiceSpec,
        operation: &Operation,
        value: &Value,
        request_id: &str,
    ) -> Outgoing {
        let (content_type, headers, body) = match self {
            Self::Json { .. } => (self.json_type(), vec![], json::encode(operation.output, value)),
            Self::Cbor => {
                (cbor::CONTENT_TYPE, vec![cbor::header()], cbor::encode(operation.output, value))
            }
            Self::Query => {
                (xml::CONTENT_TYPE, vec![], xml::query_answer(spec, operation, value, request_id))
            }
            Self::Ec2 => {
                (xml::CONTENT_TYPE, vec![], xml::ec2_answer(spec, operation, value, request_id))
            }
            Self::RestJson => (
                "application/json",
                rest_json::headers(operation.output, value),
                rest_json::encode(operation.output, value),
            ),
        };
        let status = match self {
            Self::RestJson => rest_json::status(operation.output, value),
            _ => 200,
        };
        Outgoing { status, content_type, headers, body }
    }

    pub(crate) fn encode_fault(
        self,
        spec: Option<&ServiceSpec>,
        fault: &Fault,
        request_id: &str,
    ) -> Outgoing {
        let status = fault.status;
        let codes = spec.map_or(&[][..], |spec| spec.query_codes);
        let shaped = shape_of(codes, fault);
        let query_error = || {
            let who = if status < 500 { "Sender" } else { "Receiver" };
            let told = HeaderValue::try_from(format!("{};{who}", fault.code)).ok();
            told.filter(|_| !codes.is_empty()).map(|told| ("x-amzn-query-error", told))
        };
        let (content_type, headers, body) = match self {
            Self::Json { .. } => {
                (self.json_type(), query_error().into_iter().collect(), json::fault(&shaped))
            }
            Self::RestJson => {
                // A code is an identifier, so this cannot fail; were it ever not one, the body has it too.
                let code = HeaderValue::from_str(&fault.code).ok();
                let headers = code.map(|code| ("x-amzn-errortype", code)).into_iter().collect();
                ("application/json", headers, json::fault(fault))
            }
            Self::Cbor => {
                let headers = std::iter::once(cbor::header()).chain(query_error()).collect();
                (cbor::CONTENT_TYPE, headers, cbor::fault(&shaped))
            }
            Self::Query => (xml::CONTENT_TYPE, vec![], xml::query_fault(spec, fault, request_id)),
            Self::Ec2 => (xml::CONTENT_TYPE, vec![], xml::ec2_fault(fault, request_id)),
        };
        Outgoing { status, content_type, headers, body }
    }

    fn json_type(self) -> &'static str {
        match self {
            Self::Json { minor: 0 } => "application/x-amz-json-1.0",
            _ => "application/x-amz-json-1.1",
        }
    }
}

/// The fault by the name of its shape, where that is not its code.
fn shape_of<'a>(codes: &[(&'static str, &str)], fault: &'a Fault) -> Cow<'a, Fault> {
    match codes.iter().find(|(_, code)| *code == fault.code) {
        Some((shape, _)) => Cow::Owned(Fault { code: Cow::Borrowed(*shape), ..fault.clone() }),
        None => Cow::Borrowed(fault),
    }
}

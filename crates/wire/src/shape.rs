//! The tables that codegen writes from AWS's models: shapes, members, constraints, operations.

use std::sync::OnceLock;

/// A type of AWS's model.
pub struct Shape {
    /// The shape's name in the model, for messages.
    pub name: &'static str,
    /// What it is made of.
    pub kind: Kind,
    /// What its values must satisfy.
    pub constraint: Constraint,
    /// Its values must never be shown, not even in a fault's message.
    pub sensitive: bool,
}

/// What a shape is made of.
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A 32-bit or 64-bit whole number.
    Integer {
        /// Out of this range the value cannot be read at all (32 or 64 bits).
        bits: u8,
    },
    /// A floating point number.
    Double,
    /// Text; with `values`, one of those.
    String {
        /// The enum's values, empty when any text will do.
        values: &'static [&'static str],
    },
    /// Bytes, base64 in text protocols.
    Blob,
    /// A point in time.
    Timestamp(TimeFormat),
    /// Several values of one shape.
    List {
        /// The shape of each.
        member: &'static Shape,
        /// Its name in XML and Query (`member` unless the model says otherwise).
        item: &'static str,
        /// Without a wrapper in XML and Query.
        flattened: bool,
    },
    /// Text keys to values of one shape.
    Map {
        /// The key's shape.
        key: &'static Shape,
        /// The value's shape.
        value: &'static Shape,
        /// The names of key and value in XML and Query.
        names: (&'static str, &'static str),
        /// Without an `entry` wrapper in XML and Query.
        flattened: bool,
    },
    /// Named members, in the order in which generated structs hold them.
    Structure(&'static [Member]),
}

/// How a time is written where the protocol leaves a choice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// The protocol's own way.
    Protocol,
    /// RFC 3339.
    Iso8601,
    /// Seconds since the epoch.
    Epoch,
}

/// A member of a structure.
pub struct Member {
    /// Its name in the model, which is its name in JSON and CBOR.
    pub name: &'static str,
    /// Its name in Query requests.
    pub query: &'static str,
    /// Its name in XML answers (and in the body of REST protocols).
    pub xml: &'static str,
    /// Its shape.
    pub shape: &'static Shape,
    /// A request without it is refused.
    pub required: bool,
    /// Where REST protocols put it.
    pub location: Location,
    /// What we do with it when a request sets it.
    pub mark: Mark,
}

/// Where a REST protocol puts a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the body.
    Body,
    /// A label of the path.
    Uri(&'static str),
    /// A parameter of the query string.
    QueryString(&'static str),
    /// A header.
    Header(&'static str),
    /// The whole body: bytes as they are.
    Payload,
    /// The answer's status, an integer.
    Status,
}

/// No member is accepted and ignored: it is one of these.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It does what AWS says it does.
    Honoured,
    /// Setting it answers a fault with this reason.
    Refused(&'static str),
}

/// What a value must satisfy beyond its type. Lengths are of text in UTF-16 units as AWS counts them, of bytes in a
/// blob, of elements in a list or map.
pub struct Constraint {
    /// The least length or value.
    pub min: Option<i64>,
    /// The greatest length or value.
    pub max: Option<i64>,
    /// The regular expression that the whole text must match, as AWS writes it.
    pub pattern: Option<&'static Pattern>,
}

impl Constraint {
    /// Anything goes.
    pub const NONE: Self = Self { min: None, max: None, pattern: None };
}

/// A regular expression of AWS's, compiled at its first use.
pub struct Pattern {
    source: &'static str,
    compiled: OnceLock<regex::Regex>,
}

impl Pattern {
    /// `source` must compile; codegen checks that.
    pub const fn new(source: &'static str) -> Self {
        Self { source, compiled: OnceLock::new() }
    }

    /// The expression as AWS writes it.
    pub fn source(&self) -> &'static str {
        self.source
    }

    pub(crate) fn matches_whole(&self, text: &str) -> bool {
        let regex = self.compiled.get_or_init(|| {
            regex::Regex::new(&format!("^(?:{})$", self.source))
                .expect("codegen compiled this expression before it wrote it down")
        });
        regex.is_match(text)
    }
}

/// An operation of a service.
pub struct Operation {
    /// AWS's name, `RunTask`.
    pub name: &'static str,
    /// The request's structure.
    pub input: &'static Shape,
    /// The answer's structure.
    pub output: &'static Shape,
    /// The element that Query wraps the answer in, `RunTaskResult`.
    pub result_wrapper: &'static str,
    /// The HTTP method and the path with `{labels}` for REST protocols.
    pub http: (&'static str, &'static str),
}

/// What sets services apart on the wire besides their shapes.
pub struct ServiceSpec {
    /// The service's name in credential scopes and in IAM actions: `ecs`.
    pub name: &'static str,
    /// What stands before the dot in `X-Amz-Target`, empty where JSON is not spoken.
    pub target_prefix: &'static str,
    /// The XML namespace of Query answers, empty where Query is not spoken.
    pub xml_namespace: &'static str,
    /// The API version that Query requests carry.
    pub api_version: &'static str,
    /// The name of the service in rpcv2Cbor paths, empty where CBOR is not spoken.
    pub cbor_name: &'static str,
    /// How its faults are named when no operation of its own answers.
    pub family: Family,
    /// Of a service that once spoke Query only: its faults' shapes whose names are not their codes, with those. Its
    /// faults are made with the codes, which its clients know; JSON and CBOR say both.
    /// <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#aws-protocols-awsquerycompatible-trait>
    pub query_codes: &'static [(&'static str, &'static str)],
    /// The code for a broken constraint.
    pub constraint_code: &'static str,
    /// The code for a member that is refused here.
    pub refusal_code: &'static str,
}

/// The three dialects of AWS's common errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// JSON and CBOR services: `UnrecognizedClientException`.
    Json,
    /// Query services: `InvalidClientTokenId`.
    Query,
    /// EC2: `AuthFailure`.
    Ec2,
}

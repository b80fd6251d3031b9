//! CloudWatch Logs' filter patterns: which log lines match.
//!
//! What the language is, its limits and its errors follow AWS's page "Filter pattern syntax for
//! metric filters, subscription filters, filter log events, and Live Tail". Where the page says
//! nothing, the item says what was chosen.

mod fields;
mod glob;
mod json;
mod lexer;
mod logic;
mod operand;
mod regex;
mod selector;
mod text;

pub use selector::Selector;

use lexer::Cursor;
use std::collections::BTreeMap;

/// The longest pattern, in characters: the limit of the API's `FilterPattern`.
pub const MAX_PATTERN_CHARS: usize = 1024;

/// Why a text is no filter pattern. Displays as AWS words it, with the reason where AWS gives none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Characters that must stand in double quotes, or not at all.
    #[error("Invalid character(s) in term '{0}'")]
    Characters(String),
    /// It does not follow the grammar.
    #[error("Invalid filter pattern: {0}")]
    Syntax(&'static str),
    /// A regular expression that is not of the supported kind.
    #[error("Invalid filter pattern: the regular expression is not supported: {0}")]
    Regex(String),
    /// It is longer than [`MAX_PATTERN_CHARS`].
    #[error("Invalid filter pattern: longer than {MAX_PATTERN_CHARS} characters")]
    TooLong,
    /// More than two regular expressions.
    #[error("Invalid filter pattern: more than 2 regular expressions")]
    TooManyRegexes,
    /// More than one wildcard in a property selector, or three in the pattern.
    #[error(
        "Invalid filter pattern: more than 1 wildcard in a property selector or 3 in the pattern"
    )]
    TooManyWildcards,
    /// Parentheses are nested too deeply.
    #[error("Invalid filter pattern: nested too deeply")]
    TooDeep,
}

/// A filter pattern. Made once, it is matched against any number of lines; matching takes time
/// linear in the line, whatever the pattern.
#[derive(Debug)]
pub struct Pattern {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Everything,
    Text(text::TextPattern),
    Json(json::JsonPattern),
    Fields(fields::FieldPattern),
}

impl Pattern {
    /// Reads a pattern. An empty one matches everything.
    pub fn parse(pattern: &str) -> Result<Self, ParseError> {
        if pattern.chars().count() > MAX_PATTERN_CHARS {
            return Err(ParseError::TooLong);
        }
        let pattern = pattern.trim();
        let mut cursor = Cursor::new(pattern);
        let kind = match pattern.as_bytes().first() {
            None => Kind::Everything,
            Some(b'{') => Kind::Json(json::JsonPattern::parse(&mut cursor)?),
            Some(b'[') => Kind::Fields(fields::FieldPattern::parse(&mut cursor)?),
            Some(_) => Kind::Text(text::TextPattern::parse(&mut cursor)?),
        };
        Ok(Self { kind })
    }

    /// Whether a line matches. A JSON pattern matches no line that is not JSON.
    pub fn matches(&self, line: &str) -> bool {
        match &self.kind {
            Kind::Everything => true,
            Kind::Text(pattern) => pattern.matches(line),
            Kind::Json(pattern) => pattern.matches(line),
            Kind::Fields(pattern) => pattern.matches(line),
        }
    }

    /// False when no line inside `text`, lines side by side, can match; cheaper than asking for
    /// each.
    pub fn may_match(&self, text: &str) -> bool {
        match &self.kind {
            Kind::Text(pattern) => pattern.may_match(text),
            Kind::Everything | Kind::Json(_) | Kind::Fields(_) => true,
        }
    }

    /// The values that the pattern names in a line, if the line matches: for a space-delimited
    /// pattern each field by its name (`$status`) or, unnamed, by its number (`$3`); for a JSON
    /// pattern the value of each property selector (`$.user.id`); for others nothing.
    pub fn extract(&self, line: &str) -> Option<BTreeMap<String, String>> {
        match &self.kind {
            Kind::Everything => Some(BTreeMap::new()),
            Kind::Text(pattern) => pattern.matches(line).then(BTreeMap::new),
            Kind::Json(pattern) => pattern.extract(line),
            Kind::Fields(pattern) => pattern.extract(line),
        }
    }

    /// Whether the pattern names values, as metric dimensions and extracted metric values need: a
    /// JSON or a space-delimited one.
    pub fn names_values(&self) -> bool {
        matches!(self.kind, Kind::Json(_) | Kind::Fields(_))
    }
}

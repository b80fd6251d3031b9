//! Patterns for JSON lines: conditions on properties.

use super::{
    ParseError,
    lexer::Cursor,
    logic::Logic,
    operand::{self, Comparison},
    selector::Selector,
};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct JsonPattern {
    conditions: Logic<Condition>,
}

#[derive(Debug)]
struct Condition {
    selector: Selector,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Compare(Comparison),
    IsNull,
    Is(bool),
    NotExists,
}

impl JsonPattern {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        cursor.eat("{");
        let conditions = Logic::parse(cursor, &mut Condition::parse)?;
        if !cursor.eat("}") {
            return Err(match cursor.peek() {
                Some(_) => cursor.invalid(),
                None => ParseError::Syntax("a brace is not closed"),
            });
        }
        if cursor.rest().is_empty() { Ok(Self { conditions }) } else { Err(cursor.invalid()) }
    }

    pub(super) fn matches(&self, line: &str) -> bool {
        self.matching(line).is_some()
    }

    pub(super) fn extract(&self, line: &str) -> Option<BTreeMap<String, String>> {
        let root = self.matching(line)?;
        let mut values = BTreeMap::new();
        self.conditions.for_each(&mut |condition| {
            if let Some(value) = condition.selector.first_text(&root) {
                values.insert(condition.selector.text().to_owned(), value);
            }
        });
        Some(values)
    }

    /// The line's JSON, if it matches.
    fn matching(&self, line: &str) -> Option<Value> {
        // Most lines that are not JSON are told by their first character.
        let line = line.trim_start();
        if !line.starts_with(['{', '[']) {
            return None;
        }
        let root: Value = serde_json::from_str(line).ok()?;
        self.conditions.holds(&|condition| condition.holds(&root)).then_some(root)
    }
}

impl Condition {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let selector = Selector::read(cursor)?;
        cursor.skip_spaces();
        let test = if cursor.keyword("IS") {
            cursor.skip_spaces();
            if cursor.keyword("NULL") {
                Test::IsNull
            } else if cursor.keyword("TRUE") {
                Test::Is(true)
            } else if cursor.keyword("FALSE") {
                Test::Is(false)
            } else if cursor.keyword("NOT") {
                return Err(ParseError::Syntax("IS NOT is not supported"));
            } else {
                return Err(ParseError::Syntax("IS needs NULL, TRUE or FALSE"));
            }
        } else if cursor.keyword("NOT") {
            cursor.skip_spaces();
            if !cursor.keyword("EXISTS") {
                return Err(ParseError::Syntax("NOT needs EXISTS"));
            }
            Test::NotExists
        } else if cursor.keyword("EXISTS") {
            return Err(ParseError::Syntax("EXISTS is not supported; '= *' is"));
        } else {
            Test::Compare(Comparison::parse(cursor)?)
        };
        Ok(Self { selector, test })
    }

    fn holds(&self, root: &Value) -> bool {
        match &self.test {
            Test::Compare(comparison) => self.selector.any(root, &mut |v| compare(comparison, v)),
            Test::IsNull => self.selector.any(root, &mut Value::is_null),
            Test::Is(wanted) => self.selector.any(root, &mut |v| v.as_bool() == Some(*wanted)),
            Test::NotExists => !self.selector.any(root, &mut |_| true),
        }
    }
}

/// A selector that points at an array or an object matches nothing, whatever the operator; null
/// neither.
fn compare(comparison: &Comparison, value: &Value) -> bool {
    match value {
        Value::String(text) => comparison.holds(operand::Value::Text(text)),
        Value::Number(number) => comparison.holds(operand::Value::Number(&number.to_string())),
        Value::Bool(flag) => {
            comparison.holds(operand::Value::Text(if *flag { "true" } else { "false" }))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

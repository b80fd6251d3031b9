//! Property selectors: `$.users[0].id`, `$.['cluster.name']`, `$.items[*].price`.

use super::{ParseError, lexer::Cursor};
use serde_json::Value;

/// Points at values of a JSON line.
#[derive(Debug)]
pub struct Selector {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Property(String),
    Element(usize),
    /// Every element of an array, or every property of an object.
    Any,
}

impl Selector {
    /// Reads a selector that stands alone, as in a metric's value.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(text.trim());
        let selector = Self::read(&mut cursor)?;
        if cursor.rest().is_empty() { Ok(selector) } else { Err(cursor.invalid()) }
    }

    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let whole = cursor.rest();
        if !cursor.eat("$") {
            return Err(match cursor.peek() {
                Some(_) => ParseError::Syntax("a property selector begins with '$.'"),
                None => ParseError::Syntax("a condition is missing"),
            });
        }
        let mut steps = Vec::new();
        loop {
            let dot = cursor.eat(".");
            if cursor.eat("[") {
                steps.push(Self::read_bracket(cursor)?);
            } else if dot && cursor.eat("*") {
                steps.push(Step::Any);
            } else if dot {
                let name = cursor.take_while(|c| c.is_alphanumeric() || c == '-' || c == '_');
                if name.is_empty() {
                    return Err(cursor.invalid());
                }
                steps.push(Step::Property(name.to_owned()));
            } else {
                break;
            }
        }
        if steps.is_empty() {
            return Err(ParseError::Syntax("a property selector needs a property"));
        }
        match steps.iter().filter(|step| matches!(step, Step::Any)).count() {
            0 => {}
            1 => cursor.count_wildcard()?,
            _ => return Err(ParseError::TooManyWildcards),
        }
        let text = whole[..whole.len() - cursor.rest().len()].to_owned();
        Ok(Self { text, steps })
    }

    fn read_bracket(cursor: &mut Cursor<'_>) -> Result<Step, ParseError> {
        cursor.skip_spaces();
        let step = match cursor.peek() {
            Some('*') => {
                cursor.eat("*");
                Step::Any
            }
            Some(quote @ ('\'' | '"')) => Step::Property(cursor.quoted(quote)?),
            _ => {
                let digits = cursor.take_while(|c| c.is_ascii_digit());
                match digits.parse() {
                    Ok(index) => Step::Element(index),
                    Err(_) if digits.is_empty() => return Err(cursor.invalid()),
                    Err(_) => return Err(ParseError::Syntax("an array index is too large")),
                }
            }
        };
        cursor.skip_spaces();
        if cursor.eat("]") {
            Ok(step)
        } else {
            Err(ParseError::Syntax("a bracket of a property selector is not closed"))
        }
    }

    /// The selector as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of the first number or string that it points at in a line; none when the line is
    /// not JSON or has no such value.
    pub fn value(&self, line: &str) -> Option<String> {
        let root = serde_json::from_str(line).ok()?;
        self.first_text(&root)
    }

    pub(super) fn first_text(&self, root: &Value) -> Option<String> {
        let mut found = None;
        self.any(root, &mut |value| {
            found = scalar(value);
            found.is_some()
        });
        found
    }

    /// Whether `test` holds for one of the values that the selector points at.
    pub(super) fn any<'v>(&self, root: &'v Value, test: &mut dyn FnMut(&'v Value) -> bool) -> bool {
        any(&self.steps, root, test)
    }
}

fn any<'v>(steps: &[Step], value: &'v Value, test: &mut dyn FnMut(&'v Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else { return test(value) };
    match (step, value) {
        (Step::Property(name), Value::Object(properties)) => {
            properties.get(name).is_some_and(|value| any(rest, value, test))
        }
        (Step::Element(index), Value::Array(elements)) => {
            elements.get(*index).is_some_and(|value| any(rest, value, test))
        }
        (Step::Any, Value::Array(elements)) => elements.iter().any(|value| any(rest, value, test)),
        (Step::Any, Value::Object(properties)) => {
            properties.values().any(|value| any(rest, value, test))
        }
        _ => false,
    }
}

/// The text of a value node: a string, a number, true or false.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

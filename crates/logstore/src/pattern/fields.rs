//! Patterns for space-delimited lines: `[ip, user, ..., status = 4*, bytes > 1000]`.

use super::{
    ParseError,
    lexer::Cursor,
    logic::Logic,
    operand::{Comparison, Value},
};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct FieldPattern {
    /// Those before the ellipsis, or all.
    front: Vec<Field>,
    /// Those behind it, if there is one.
    back: Option<Vec<Field>>,
}

#[derive(Debug, Default)]
struct Field {
    /// Empty for an unnamed field.
    name: String,
    conditions: Option<Logic<Comparison>>,
}

impl FieldPattern {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        cursor.eat("[");
        let mut pattern = Self { front: Vec::new(), back: None };
        loop {
            cursor.skip_spaces();
            if cursor.eat("...") {
                if pattern.back.replace(Vec::new()).is_some() {
                    return Err(ParseError::Syntax("more than one ellipsis"));
                }
            } else {
                let field = Field::parse(cursor)?;
                pattern.back.as_mut().unwrap_or(&mut pattern.front).push(field);
            }
            cursor.skip_spaces();
            if cursor.eat("]") {
                break;
            }
            if !cursor.eat(",") {
                return Err(match cursor.peek() {
                    Some(_) => cursor.invalid(),
                    None => ParseError::Syntax("a bracket is not closed"),
                });
            }
        }
        if cursor.rest().is_empty() { Ok(pattern) } else { Err(cursor.invalid()) }
    }

    pub(super) fn matches(&self, line: &str) -> bool {
        self.assign(&split(line)).is_some()
    }

    pub(super) fn extract(&self, line: &str) -> Option<BTreeMap<String, String>> {
        let fields = split(line);
        let assigned = self.assign(&fields)?;
        let named = assigned.into_iter().enumerate().map(|(at, (field, value))| {
            let key = match field.filter(|field| !field.name.is_empty()) {
                Some(field) => format!("${}", field.name),
                None => format!("${}", at + 1),
            };
            (key, value.to_owned())
        });
        Some(named.collect())
    }

    /// Which of the pattern's fields takes which of the line's, if all conditions hold. A line with
    /// fewer fields does not match. If a line has more, the last field of a pattern without
    /// ellipsis takes the rest: so `[w1 = ERROR, w2]` matches every line that begins with ERROR, as
    /// AWS has it.
    fn assign<'l>(&self, line: &[Part<'l>]) -> Option<Vec<(Option<&Field>, &'l str)>> {
        let back = self.back.as_deref().unwrap_or_default();
        let between = line.len().checked_sub(self.front.len() + back.len())?;
        let mut values: Vec<&str> = line.iter().map(|part| part.value).collect();
        let mut hidden = between;
        if self.back.is_none() {
            if let Some(last) = self.front.len().checked_sub(1).filter(|_| between > 0) {
                values.truncate(self.front.len());
                values[last] = line[last].and_rest;
            }
            hidden = 0;
        }
        let fields = self.front.iter().map(Some);
        let fields = fields.chain(std::iter::repeat_n(None, hidden)).chain(back.iter().map(Some));
        let assigned: Vec<_> = fields.zip(values).collect();
        let holds =
            |(field, value): &(Option<&Field>, &str)| field.is_none_or(|field| field.holds(value));
        assigned.iter().all(holds).then_some(assigned)
    }
}

impl Field {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        if matches!(cursor.peek(), Some(',' | ']') | None) {
            return Ok(Self::default());
        }
        let mut name: Option<String> = None;
        let start = cursor.rest();
        if cursor.peek() != Some('(') {
            let bare = read_name(cursor)?;
            cursor.skip_spaces();
            if matches!(cursor.peek(), Some(',' | ']')) {
                return Ok(Self { name: bare.to_owned(), conditions: None });
            }
            cursor.rewind(start);
        }
        let conditions = Logic::parse(cursor, &mut |cursor| {
            let other = read_name(cursor)?;
            if name.get_or_insert_with(|| other.to_owned()) != other {
                return Err(ParseError::Syntax("the conditions of one field name another"));
            }
            cursor.skip_spaces();
            Comparison::parse(cursor)
        })?;
        Ok(Self { name: name.unwrap_or_default(), conditions: Some(conditions) })
    }

    fn holds(&self, value: &str) -> bool {
        let test = |comparison: &Comparison| comparison.holds(Value::Field(value));
        self.conditions.as_ref().is_none_or(|conditions| conditions.holds(&test))
    }
}

fn read_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, ParseError> {
    let name = cursor.take_while(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if name.is_empty() { Err(cursor.invalid()) } else { Ok(name) }
}

/// A field of a line.
#[derive(Debug)]
struct Part<'l> {
    /// Without its brackets or quotes.
    value: &'l str,
    /// With everything behind it.
    and_rest: &'l str,
}

/// The fields of a line: what stands between white space, double quotes or brackets.
fn split(line: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = line.trim();
    // What is not closed once is not closed further on: looking again for each field would take
    // long.
    let (mut quotes_close, mut brackets_close) = (true, true);
    while !rest.is_empty() {
        let and_rest = rest;
        let part = match rest.as_bytes()[0] {
            b'"' if quotes_close => {
                let part = enclosed(rest, b'"');
                quotes_close = part.is_some();
                part
            }
            b'[' if brackets_close => {
                let part = enclosed(rest, b']');
                brackets_close = part.is_some();
                part
            }
            _ => None,
        };
        let (value, behind) = part.unwrap_or_else(|| {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            rest.split_at(end)
        });
        rest = behind.trim_start();
        parts.push(Part { value, and_rest });
    }
    parts
}

/// What stands between the first character and the next `close` that is followed by white space or
/// the end; none when it is not closed.
fn enclosed(text: &str, close: u8) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut escaped = false;
    for (at, &byte) in bytes.iter().enumerate().skip(1) {
        let ends = bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace);
        if byte == close && !escaped && ends {
            return Some((&text[1..at], &text[at + 1..]));
        }
        escaped = byte == b'\\' && !escaped;
    }
    None
}

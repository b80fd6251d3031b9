//! Comparisons of a value with a number, a text or a regular expression.

use super::{ParseError, glob::Glob, lexer::Cursor, lexer::is_word};
use regex::Regex;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    /// The operator that is next.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Option<Self> {
        let spelled = [
            ("!=", Self::NotEqual),
            ("<=", Self::LessOrEqual),
            (">=", Self::GreaterOrEqual),
            ("<", Self::Less),
            (">", Self::Greater),
            // AWS's page had this form for space-delimited patterns once.
            ("=!", Self::NotEqual),
            ("=", Self::Equal),
        ];
        spelled.into_iter().find(|(text, _)| cursor.eat(text)).map(|(_, operator)| operator)
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// An operator and what is on its right.
#[derive(Debug)]
pub(super) struct Comparison {
    operator: Operator,
    operand: Operand,
}

#[derive(Debug)]
enum Operand {
    Number(Number, String),
    Text(Glob),
    Regex(Regex),
}

/// A value of a log line.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// A JSON number, as it is written.
    Number(&'a str),
    /// A JSON text (or true or false).
    Text(&'a str),
    /// A field of a space-delimited line: a number if it reads as one.
    Field(&'a str),
}

impl Comparison {
    /// Reads operator and operand.
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let Some(operator) = Operator::parse(cursor) else { return Err(cursor.invalid()) };
        cursor.skip_spaces();
        let operand = match cursor.peek() {
            Some('"') => Operand::Text(Glob::new(&cursor.quoted('"')?)),
            Some('%') => Operand::Regex(cursor.regex()?),
            _ => {
                let word = cursor.take_while(|c| is_word(c) || ".*+-".contains(c));
                match Number::parse(word) {
                    _ if word.is_empty() => return Err(cursor.invalid()),
                    Some(number) => Operand::Number(number, word.to_owned()),
                    None => Operand::Text(Glob::new(word)),
                }
            }
        };
        let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
        if ordered && !matches!(operand, Operand::Number(..)) {
            return Err(ParseError::Syntax("an order needs a number to compare with"));
        }
        Ok(Self { operator, operand })
    }

    pub(super) fn holds(&self, value: Value<'_>) -> bool {
        let (Value::Number(text) | Value::Text(text) | Value::Field(text)) = value;
        let equal = match &self.operand {
            Operand::Number(number, spelled) => {
                let read = match value {
                    Value::Text(_) => None,
                    Value::Number(text) | Value::Field(text) => Number::parse(text),
                };
                if let Some(order) = read.and_then(|read| read.order(*number)) {
                    return self.operator.holds(order);
                }
                // A text is equal to a number that is spelled alike, and in no order with it.
                if !matches!(self.operator, Operator::Equal | Operator::NotEqual) {
                    return false;
                }
                text == spelled
            }
            Operand::Text(glob) => glob.matches(text),
            Operand::Regex(regex) => regex.is_match(text),
        };
        equal == (self.operator == Operator::Equal)
    }
}

/// Whole numbers are compared exactly: ids are longer than a float's mantissa.
#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    /// Reads digits with an optional sign, fraction and exponent; nothing else that the standard
    /// library takes for a number.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let fit = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
        if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.bytes().all(fit)
        {
            return None;
        }
        let whole = text.parse().ok().map(Self::Whole);
        whole.or_else(|| text.parse().ok().filter(|f: &f64| f.is_finite()).map(Self::Float))
    }

    fn order(self, other: Self) -> Option<Ordering> {
        let float = |number| match number {
            Self::Whole(whole) => whole as f64,
            Self::Float(float) => float,
        };
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (a, b) => float(a).partial_cmp(&float(b)),
        }
    }
}

//! Patterns for unstructured lines: terms that must, may or must not be there.

use super::{ParseError, lexer::Cursor, lexer::is_word};
use memchr::memmem::Finder;
use regex::Regex;

#[derive(Debug)]
pub(super) struct TextPattern {
    required: Vec<Term>,
    /// One of them must be there, but only if there are no other terms.
    optional: Vec<Term>,
    excluded: Vec<Term>,
}

#[derive(Debug)]
enum Term {
    /// Nothing but white space in quotes: AWS's way to match everything.
    Anything,
    Phrase(Box<Finder<'static>>),
    Regex(Box<Regex>),
}

impl Term {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        match cursor.peek() {
            Some('"') => Ok(Self::phrase(&cursor.quoted('"')?)),
            Some('%') => Ok(Self::Regex(Box::new(cursor.regex()?))),
            Some(c) if is_word(c) => Ok(Self::phrase(cursor.take_while(is_word))),
            Some(_) => Err(cursor.invalid()),
            None => Err(ParseError::Syntax("a term is missing")),
        }
    }

    fn phrase(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::Anything;
        }
        Self::Phrase(Box::new(Finder::new(text).into_owned()))
    }

    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Phrase(finder) => finder.find(line.as_bytes()).is_some(),
            Self::Regex(regex) => regex.is_match(line),
        }
    }

    /// For several lines side by side; expressions may be anchored to a line.
    fn may_be_in(&self, text: &str) -> bool {
        matches!(self, Self::Regex(_)) || self.is_in(text)
    }
}

impl TextPattern {
    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let mut pattern = Self { required: Vec::new(), optional: Vec::new(), excluded: Vec::new() };
        while cursor.peek().is_some() {
            let kind = if cursor.eat("?") {
                &mut pattern.optional
            } else if cursor.eat("-") {
                cursor.skip_spaces();
                &mut pattern.excluded
            } else {
                &mut pattern.required
            };
            kind.push(Term::parse(cursor)?);
            if cursor.peek().is_some_and(|c| !c.is_whitespace()) {
                return Err(cursor.invalid());
            }
            cursor.skip_spaces();
        }
        // "If you combine "?" with other filter patterns, all question mark terms will be ignored."
        if !(pattern.required.is_empty() && pattern.excluded.is_empty()) {
            pattern.optional.clear();
        }
        Ok(pattern)
    }

    pub(super) fn matches(&self, line: &str) -> bool {
        self.required.iter().all(|term| term.is_in(line))
            && !self.excluded.iter().any(|term| term.is_in(line))
            && (self.optional.is_empty() || self.optional.iter().any(|term| term.is_in(line)))
    }

    pub(super) fn may_match(&self, text: &str) -> bool {
        let mut optional = self.optional.iter();
        self.required.iter().all(|term| term.may_be_in(text))
            && (self.optional.is_empty() || optional.any(|term| term.may_be_in(text)))
    }
}

//! Characters and terms.

use super::ParseError;

/// AWS's limit of regular expressions in a pattern.
const MAX_REGEXES: usize = 2;
/// AWS's limit of wildcards in property selectors of a pattern.
const MAX_WILDCARDS: usize = 3;

/// A place in a pattern, and what was counted on the way there.
pub(super) struct Cursor<'a> {
    rest: &'a str,
    regexes: usize,
    wildcards: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(pattern: &'a str) -> Self {
        Self { rest: pattern, regexes: 0, wildcards: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Goes back to where `rest` was what is left.
    pub(super) fn rewind(&mut self, rest: &'a str) {
        self.rest = rest;
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Steps over `text` if it is next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes the characters up to the first that is not `fit`.
    pub(super) fn take_while(&mut self, fit: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fit(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Takes a keyword in capitals if it is next and whole.
    pub(super) fn keyword(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        if rest.starts_with(is_word) {
            return false;
        }
        self.rest = rest;
        true
    }

    /// What stands here cannot: the run of such characters.
    pub(super) fn invalid(&self) -> ParseError {
        let fit = |c: char| !is_word(c) && !c.is_whitespace();
        let end = self.rest.find(|c| !fit(c)).unwrap_or(self.rest.len());
        match &self.rest[..end] {
            "" => ParseError::Syntax("a term stands where none can"),
            run => ParseError::Characters(run.chars().take(16).collect()),
        }
    }

    /// What stands between double quotes; `\"` and `\\` stand for the second character. The opening
    /// quote is next.
    pub(super) fn quoted(&mut self, quote: char) -> Result<String, ParseError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        chars.next();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return Ok(text);
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            match chars.next() {
                Some((_, escaped)) if escaped == quote || escaped == '\\' => text.push(escaped),
                // Any other backslash is one.
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            }
        }
        Err(ParseError::Syntax("a quotation mark is not closed"))
    }

    /// The regular expression between percent signs, the first of which is next.
    pub(super) fn regex(&mut self) -> Result<::regex::Regex, ParseError> {
        self.regexes += 1;
        if self.regexes > MAX_REGEXES {
            return Err(ParseError::TooManyRegexes);
        }
        let body = self.rest.strip_prefix('%').unwrap_or(self.rest);
        let Some((body, rest)) = body.split_once('%') else {
            return Err(ParseError::Syntax("a percent sign is not closed"));
        };
        self.rest = rest;
        super::regex::compile(body)
    }

    pub(super) fn count_wildcard(&mut self) -> Result<(), ParseError> {
        self.wildcards += 1;
        if self.wildcards > MAX_WILDCARDS { Err(ParseError::TooManyWildcards) } else { Ok(()) }
    }
}

/// What a term may hold without quotes.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

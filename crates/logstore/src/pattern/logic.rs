//! `&&`, `||` and parentheses over conditions of any kind: `()` binds before `&&`, `&&` before
//! `||`.

use super::{ParseError, lexer::Cursor};

/// How deep parentheses may be nested.
const MAX_DEPTH: usize = 64;

#[derive(Debug)]
pub(super) enum Logic<C> {
    One(C),
    All(Vec<Logic<C>>),
    Any(Vec<Logic<C>>),
}

impl<C> Logic<C> {
    pub(super) fn holds(&self, condition: &impl Fn(&C) -> bool) -> bool {
        match self {
            Self::One(one) => condition(one),
            Self::All(parts) => parts.iter().all(|part| part.holds(condition)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(condition)),
        }
    }

    pub(super) fn for_each<'a>(&'a self, visit: &mut impl FnMut(&'a C)) {
        match self {
            Self::One(one) => visit(one),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.for_each(visit));
            }
        }
    }

    /// Reads conditions, each with `one`.
    pub(super) fn parse<F>(cursor: &mut Cursor<'_>, one: &mut F) -> Result<Self, ParseError>
    where
        F: FnMut(&mut Cursor<'_>) -> Result<C, ParseError>,
    {
        Self::parse_any(cursor, one, 0)
    }

    fn parse_any<F>(cursor: &mut Cursor<'_>, one: &mut F, depth: usize) -> Result<Self, ParseError>
    where
        F: FnMut(&mut Cursor<'_>) -> Result<C, ParseError>,
    {
        let mut parts = vec![Self::parse_all(cursor, one, depth)?];
        while cursor.eat("||") {
            parts.push(Self::parse_all(cursor, one, depth)?);
        }
        Ok(if parts.len() > 1 { Self::Any(parts) } else { parts.remove(0) })
    }

    fn parse_all<F>(cursor: &mut Cursor<'_>, one: &mut F, depth: usize) -> Result<Self, ParseError>
    where
        F: FnMut(&mut Cursor<'_>) -> Result<C, ParseError>,
    {
        let mut parts = vec![Self::parse_part(cursor, one, depth)?];
        while cursor.eat("&&") {
            parts.push(Self::parse_part(cursor, one, depth)?);
        }
        Ok(if parts.len() > 1 { Self::All(parts) } else { parts.remove(0) })
    }

    fn parse_part<F>(cursor: &mut Cursor<'_>, one: &mut F, depth: usize) -> Result<Self, ParseError>
    where
        F: FnMut(&mut Cursor<'_>) -> Result<C, ParseError>,
    {
        cursor.skip_spaces();
        let part = if cursor.eat("(") {
            if depth == MAX_DEPTH {
                return Err(ParseError::TooDeep);
            }
            let inner = Self::parse_any(cursor, one, depth + 1)?;
            if !cursor.eat(")") {
                return Err(ParseError::Syntax("a parenthesis is not closed"));
            }
            inner
        } else {
            Self::One(one(cursor)?)
        };
        cursor.skip_spaces();
        Ok(part)
    }
}

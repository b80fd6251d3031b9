//! Text with asterisks.

use memchr::memmem;

/// A text in which each `*` stands for any text, also an empty one. AWS's page says "use the
/// asterisk as a wild card" and does not bind it to the ends, so it holds anywhere.
#[derive(Debug)]
pub(super) struct Glob {
    /// What stands between the asterisks; without any, the only piece is the whole text.
    pieces: Vec<String>,
}

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        Self { pieces: text.split('*').map(str::to_owned).collect() }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.pieces.as_slice() else {
            return self.pieces.first().is_some_and(|only| only == text);
        };
        let Some(text) = text.strip_prefix(first.as_str()) else { return false };
        let Some(text) = text.strip_suffix(last.as_str()) else { return false };
        let mut rest = text.as_bytes();
        // The leftmost place for each piece leaves most for those behind it.
        middle.iter().all(|piece| match memmem::find(rest, piece.as_bytes()) {
            Some(at) => {
                rest = &rest[at + piece.len()..];
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_the_regular_expression_would(glob in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let regex = format!("^(?:{})$", glob.replace('*', ".*"));
            let regex = ::regex::Regex::new(&regex).unwrap();
            prop_assert_eq!(Glob::new(&glob).matches(&text), regex.is_match(&text));
        }
    }
}

//! Pagination, once for all services: a page of an ordered listing and the token for the next.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};

/// One page of a listing that is ordered by key.
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The token that continues the listing, if there is more.
    pub next_token: Option<String>,
}

/// The token is not one that this listing gave out.
#[derive(Debug, PartialEq, Eq)]
pub struct PageError;

/// Longer tokens are not ours.
const MAX_TOKEN: usize = 4096;

impl<T> Page<T> {
    /// Takes a page of at most `size` from `ordered`, which is in the order of its keys. `listing` names the listing,
    /// so that one's token does not pass for another's. A token holds the last key that was shown, so a listing goes
    /// on correctly when items come or go in between. Keys are no secrets: the caller has seen them.
    pub fn take(
        listing: &str,
        token: Option<&str>,
        size: usize,
        ordered: impl Iterator<Item = (String, T)>,
    ) -> Result<Self, PageError> {
        let after = token.map(|token| Self::read(listing, token)).transpose()?;
        let rest = ordered.filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        let mut items = Vec::new();
        let mut last = None;
        for (key, item) in rest {
            if items.len() == size {
                let next_token = last.map(|key: String| BASE64.encode(format!("{listing}\0{key}")));
                return Ok(Self { items, next_token });
            }
            items.push(item);
            last = Some(key);
        }
        Ok(Self { items, next_token: None })
    }

    fn read(listing: &str, token: &str) -> Result<String, PageError> {
        if token.len() > MAX_TOKEN {
            return Err(PageError);
        }
        let text = BASE64.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or(PageError)?;
        let key = text.strip_prefix(listing).and_then(|rest| rest.strip_prefix('\0'));
        key.map(str::to_owned).ok_or(PageError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| (name.to_string(), name.to_uppercase())).collect()
    }

    #[test]
    fn pages_follow_each_other_through_changes() {
        let first = Page::take("x", None, 2, keys(&["a", "b", "c", "d"]).into_iter()).unwrap();
        assert_eq!(first.items, ["A", "B"]);
        let token = first.next_token.unwrap();
        let second = Page::take("x", Some(&token), 2, keys(&["a", "bb", "d"]).into_iter()).unwrap();
        assert_eq!((second.items, second.next_token), (vec!["BB".into(), "D".into()], None));
    }

    #[test]
    fn an_exact_last_page_has_no_token() {
        let page = Page::take("x", None, 2, keys(&["a", "b"]).into_iter()).unwrap();
        assert_eq!(page.next_token, None);
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let page = Page::take("x", None, 1, keys(&["a", "b"]).into_iter()).unwrap();
        for token in [page.next_token.as_deref().unwrap(), "", "%%%", "YQ"] {
            assert!(Page::take("y", Some(token), 1, keys(&["a"]).into_iter()).is_err(), "{token}");
        }
    }
}

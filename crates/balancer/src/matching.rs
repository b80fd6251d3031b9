//! Which rule is a request's.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-condition-types.html>

use crate::config::Condition;
use hyper::{HeaderMap, Uri, http::request::Parts};
use std::net::IpAddr;

/// Whether `text` is of the form of `pattern`: `*` stands for any number of characters, `?` for one.
pub(crate) fn wildcard(pattern: &str, text: &str, ignore_case: bool) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let same = |a: u8, b: u8| a == b || ignore_case && a.eq_ignore_ascii_case(&b);
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and the text that it stands before: one star ever needs to be tried again.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || same(c, text[t]) => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, before)) => {
                    star = Some((at, before + 1));
                    (p, t) = (at + 1, before + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The host that a request asks for, in lower case, without port.
pub(crate) fn host(parts: &Parts) -> Option<String> {
    host_of(&parts.uri, &parts.headers)
}

/// The same, of what a request has.
pub(crate) fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = uri.authority().map(|a| a.as_str());
    let header = headers.get(hyper::header::HOST).and_then(|value| value.to_str().ok());
    let host = named.or(header)?;
    let end = match host.starts_with('[') {
        true => host.find(']').map_or(host.len(), |end| end + 1),
        false => host.find(':').unwrap_or(host.len()),
    };
    Some(host[..end].to_ascii_lowercase())
}

/// Whether the request meets the condition.
pub(crate) fn meets(condition: &Condition, parts: &Parts, client: IpAddr) -> bool {
    match condition {
        Condition::Host(patterns) => host(parts)
            .is_some_and(|host| patterns.iter().any(|pattern| wildcard(pattern, &host, true))),
        Condition::Path(patterns) => {
            patterns.iter().any(|pattern| wildcard(pattern, parts.uri.path(), false))
        }
        Condition::Header { name, values } => {
            let mut given = parts.headers.get_all(name.as_str()).iter();
            given.any(|given| {
                let given = String::from_utf8_lossy(given.as_bytes());
                values.iter().any(|value| wildcard(value, &given, true))
            })
        }
        Condition::Method(methods) => methods.iter().any(|m| m == parts.method.as_str()),
        Condition::Query(wanted) => {
            let query = parts.uri.query().unwrap_or_default();
            query.split('&').filter(|pair| !pair.is_empty()).any(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                wanted.iter().any(|(k, v)| {
                    k.as_ref().is_none_or(|k| wildcard(k, key, true)) && wildcard(v, value, true)
                })
            })
        }
        Condition::Source(blocks) => {
            blocks.iter().any(|(base, prefix)| within(client, *base, *prefix))
        }
    }
}

fn within(address: IpAddr, base: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (32_u32, u128::from(ip.to_bits())),
        IpAddr::V6(ip) => (128, ip.to_bits()),
    };
    let ((width, a), (other, b)) = (bits(address), bits(base));
    let shift = width.saturating_sub(u32::from(prefix));
    width == other && (shift == 128 || a >> shift == b >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, text, matches) in [
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "example.com", false),
            ("/img/*", "/img/", true),
            ("/img/*/pics", "/img/a/b/pics", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(wildcard(pattern, text, false), matches, "{pattern} {text}");
        }
        assert!(wildcard("WWW.*", "www.x", true) && !wildcard("/A", "/a", false));
        let long = "a".repeat(10_000);
        assert!(!wildcard(&"*a".repeat(50), &format!("{long}b"), false), "and that is quick");
    }

    /// The same, as slowly as it is plain.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|from| plainly(rest, &text[from..])),
            ([b'?', rest @ ..], [_, tail @ ..]) => plainly(rest, tail),
            ([a, rest @ ..], [b, tail @ ..]) if a == b => plainly(rest, tail),
            _ => false,
        }
    }

    proptest::proptest! {
        #[test]
        fn wildcards_are_what_they_are_plainly(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let plain = plainly(pattern.as_bytes(), text.as_bytes());
            proptest::prop_assert_eq!(wildcard(&pattern, &text, false), plain);
        }

        #[test]
        fn any_host_is_one_or_none(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..40)) {
            let mut headers = HeaderMap::new();
            let value = hyper::header::HeaderValue::from_bytes(&bytes).expect("visible");
            headers.insert(hyper::header::HOST, value);
            if let Some(host) = host_of(&Uri::from_static("/"), &headers) {
                proptest::prop_assert!(host.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn blocks() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(within(ip("10.1.2.3"), ip("10.0.0.0"), 8));
        assert!(!within(ip("11.1.2.3"), ip("10.0.0.0"), 8));
        assert!(within(ip("1.2.3.4"), ip("0.0.0.0"), 0) && within(ip("::1"), ip("::"), 0));
        assert!(!within(ip("::1"), ip("0.0.0.0"), 0));
    }
}

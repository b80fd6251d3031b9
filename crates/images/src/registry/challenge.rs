//! `WWW-Authenticate` headers (RFC 9110, section 11.6.1), as registries use them.

/// How a registry wants to be persuaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// Docker's token authentication.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Reads one header's value; a header may hold several challenges, of which Bearer is preferred.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut found = None;
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (scheme, after) = rest.split_at(end);
        let (parameters, next) = parameters(after);
        let get = |name: &str| {
            let found = parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = get("realm")
        {
            return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
        }
        if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
        if next.len() >= rest.len() {
            break; // no progress: not a header we understand
        }
        rest = next;
    }
    found
}

/// `name=value` or `name="value"` pairs between commas, and what follows them.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', ',', '\t']);
        let end =
            start.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.!#$%&'*+^`|~".contains(c)));
        let Some(end) = end else { return (found, start) };
        let (name, after) = start.split_at(end);
        let Some(value) = after.trim_start().strip_prefix('=') else {
            return (found, if name.is_empty() { "" } else { start });
        };
        let value = value.trim_start();
        let (text, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([',', ' ']).unwrap_or(value.len());
                (value[..end].to_string(), &value[end..])
            }
        };
        if name.is_empty() {
            return (found, "");
        }
        found.push((name.to_string(), text));
        rest = after;
    }
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_headers_of_real_registries() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let (service, scope) = (service.map(String::from), scope.map(String::from));
            Some(Challenge::Bearer { realm: realm.into(), service, scope })
        };
        let hub =
            r#"Bearer realm="https://auth.x/token",service="r.x",scope="repository:a/b:pull""#;
        let scope = Some("repository:a/b:pull");
        assert_eq!(parse(hub), bearer("https://auth.x/token", Some("r.x"), scope));
        assert_eq!(parse("bearer realm=x"), bearer("x", None, None));
        assert_eq!(parse(r#"Basic realm="a, b""#), Some(Challenge::Basic));
        assert_eq!(parse(r#"Basic realm="a", Bearer realm="b""#), bearer("b", None, None));
        assert_eq!(parse(r#"Negotiate, Basic realm="x\"y""#), Some(Challenge::Basic));
        assert_eq!(parse("Digest nonce=1"), None);
        assert_eq!(parse("Bearer"), None);
    }

    proptest! {
        #[test]
        fn any_header_ends(text in "\\PC{0,80}") {
            let _ = parse(&text); // only that it returns
        }

        #[test]
        fn near_headers_end(text in "(Bearer|Basic|realm|=|\"|,| |x|\\\\){0,30}") {
            let _ = parse(&text); // only that it returns
        }
    }
}

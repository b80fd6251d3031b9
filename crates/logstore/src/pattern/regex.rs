//! The regular expressions that filter patterns allow, in terms of a linear-time engine.

use super::ParseError;
use regex::{Regex, RegexBuilder};
use std::{iter::Peekable, str::Chars};

/// What a compiled expression may take: `{m,n}` can make a short one large.
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// Compiles the text between the percent signs.
pub(super) fn compile(body: &str) -> Result<Regex, ParseError> {
    if body.is_empty() {
        return Err(ParseError::Regex("it is empty".into()));
    }
    let translated = translate(body)?;
    let built = RegexBuilder::new(&translated)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build();
    built.map_err(|error| ParseError::Regex(reason(&error)))
}

/// The engine's message without its drawing of the expression.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".into(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    }
}

/// Checks every character and spells out what the two dialects read differently: classes are ASCII
/// here, an omitted minimum is 0, and inside brackets only a range has its own meaning.
fn translate(body: &str) -> Result<String, ParseError> {
    let mut out = String::with_capacity(body.len() + 16);
    let mut chars = body.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => translate_escape(&mut chars, &mut out)?,
            '[' if in_class => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                // First in a class it stands for itself.
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            // Two of them are an operator of the engine.
            '-' if in_class && chars.peek() == Some(&'-') => out.push_str("\\-"),
            '{' if !in_class && chars.peek() == Some(&',') => out.push_str("{0"),
            '#' => out.push_str("\\#"),
            _ if is_allowed(c) => out.push(c),
            _ => return Err(ParseError::Characters(c.to_string())),
        }
    }
    Ok(out)
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":_=@/;,- ^$?[]{}|*+.".contains(c)
}

fn translate_escape(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), ParseError> {
    let Some(c) = chars.next() else {
        return Err(ParseError::Regex("it ends in a backslash".into()));
    };
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[a-zA-Z_0-9]"),
        'W' => out.push_str("[^a-zA-Z_0-9]"),
        's' => out.push_str("[ \\t\\n\\r\\f\\v]"),
        'S' => out.push_str("[^ \\t\\n\\r\\f\\v]"),
        't' | 'n' | 'r' => out.extend(['\\', c]),
        'x' => {
            let digits: String = chars.by_ref().take(2).collect();
            let value =
                u8::from_str_radix(&digits, 16).ok().filter(|v| digits.len() == 2 && *v < 128);
            let Some(value) = value else {
                return Err(ParseError::Regex("\\x needs two digits of an ASCII character".into()));
            };
            out.push_str(&format!("\\x{value:02x}"));
        }
        '#' | '-' | '^' | '$' | '?' | '[' | ']' | '{' | '}' | '|' | '\\' | '*' | '+' | '.' => {
            out.extend(['\\', c]);
        }
        ':' | '_' | '=' | '@' | '/' | ';' | ',' | ' ' => out.push(c),
        other => return Err(ParseError::Characters(other.to_string())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_operators() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("^[hc]at", &["hat", "cats"], &["the hat"]),
            ("[hc]at$", &["a hat"], &["hats"]),
            ("colou?r", &["color", "colour"], &["colr"]),
            ("[abcx-z]", &["a", "y"], &["d"]),
            ("^a{3,5}$", &["aaa", "aaaaa"], &["aa", "aaaaaa"]),
            ("^a{,2}$", &["", "aa"], &["aaa"]),
            ("^a{2,}$", &["aa", "aaaa"], &["a"]),
            ("gra|ey", &["gray", "grey"], &["gry"]),
            (
                "^starting|^initializing|^shutting down",
                &["starting up", "shutting down"],
                &["skipping initializing"],
            ),
            ("abcc|ab[^c]$", &["abcc ...", "aba"], &["aac"]),
            ("\\[.\\]", &["[a]", "[7]", "[]]", "[ ]"], &["a", "[]"]),
            ("10\\.10\\.0\\.1", &["at 10.10.0.1:80"], &["10010,051"]),
            ("10.10.0.1", &["10.10.0.1", "10010,051"], &["10.10"]),
            ("ab*c", &["ac", "abc", "abbbc"], &["adc"]),
            ("ab[0-9]*", &["ab", "ab0", "ab129"], &["a1"]),
            ("ab+c", &["abc", "abbbc"], &["ac"]),
            (".at", &["hat", "4at", "#at", " at"], &["at"]),
            ("^\\d\\D$", &["1a"], &["a1", "11", "\u{661}a"]),
            ("\\s\\S", &["a b", "\tx"], &["ab "]),
            ("^\\w+\\W$", &["a_9!"], &["é!"]),
            ("\\x3A\\x28", &["f:(x)"], &["f(:"]),
            ("[\\d\\-x--]", &["5", "-", "x"], &["y"]),
            ("[^\\D5]", &["4"], &["5", "a"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[[a]", &["[", "a"], &["b"]),
            ("a#b", &["a#b"], &["ab"]),
        ];
        for (body, matching, others) in cases {
            let regex = compile(body).unwrap();
            for line in *matching {
                assert!(regex.is_match(line), "%{body}% must match {line:?}");
            }
            for line in *others {
                assert!(!regex.is_match(line), "%{body}% must not match {line:?}");
            }
        }
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for body in ["something!", "(a)", "a\"b", "é", "a~b", "\\(", "a&&b", "<a>"] {
            assert!(matches!(compile(body), Err(ParseError::Characters(_))), "{body}");
        }
        for body in ["", "a\\", "[a", "*a", "\\xZZ", "\\xff", "\\x4", "a{1000}{1000}", "a{9"] {
            assert!(matches!(compile(body), Err(ParseError::Regex(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_text_compiles_or_not(
            body in "[\\[\\]{}^$?|*+.\\\\a-c0-3,:#=@/; -]{0,40}",
            line: String,
        ) {
            if let Ok(regex) = compile(&body) {
                regex.is_match(&line);
            }
        }
    }
}

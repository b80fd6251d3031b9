//! Filter patterns: AWS's documented examples, its limits and errors, and hostile input.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use logstore::pattern::{MAX_PATTERN_CHARS, ParseError, Pattern, Selector};
use proptest::prelude::*;

fn matches(pattern: &str, line: &str) -> bool {
    Pattern::parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).matches(line)
}

/// Which of the lines match, by their place.
fn matching(pattern: &str, lines: &[&str]) -> Vec<usize> {
    let pattern = Pattern::parse(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    let hit = |at: &usize| {
        let matches = pattern.matches(lines[*at]);
        assert!(!matches || pattern.may_match(&lines.concat()), "may_match is wrong");
        matches
    };
    (0..lines.len()).filter(hit).collect()
}

const REQUESTS: &[&str] = &[
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[ERROR 420] INVALID ARGUMENTS",
    "[ERROR 500] INTERNAL SERVER ERROR",
    "[SUCCESS 200] AUTHORIZED REQUEST",
    "[INFO] REQUEST FAILED",
];

#[test]
fn terms_in_unstructured_lines() {
    let cases: &[(&str, &[usize])] = &[
        ("", &[0, 1, 2, 3, 4, 5, 6]),
        ("\" \"", &[0, 1, 2, 3, 4, 5, 6]),
        ("\"\"", &[0, 1, 2, 3, 4, 5, 6]),
        ("ERROR", &[0, 1, 2, 3, 4]),
        ("error", &[]),
        ("ERROR ARGUMENTS", &[2, 3]),
        ("?ERROR ?ARGUMENTS", &[0, 1, 2, 3, 4]),
        ("?MISSING ?\"INTERNAL SERVER\"", &[2, 4]),
        ("\"INTERNAL SERVER ERROR\"", &[4]),
        ("ERROR -ARGUMENTS", &[0, 1, 4]),
        ("\"ERROR\" - \"ARGUMENTS\"", &[0, 1, 4]),
        ("-ERROR", &[5, 6]),
        ("-ERROR -AUTHORIZED", &[6]),
        // Combined with others, the optional terms have no effect.
        ("?ERROR ?ARGUMENTS REQUEST", &[0, 1, 5, 6]),
        ("?ERROR -REQUEST", &[2, 3, 4]),
        ("%AUTHORIZED%", &[1, 5]),
        ("%^\\[ERROR 4[0-9]{2}\\]%", &[0, 1, 2, 3]),
        ("%REQUEST$% -%^.INFO%", &[0, 1, 5]),
    ];
    for (pattern, expected) in cases {
        assert_eq!(matching(pattern, REQUESTS), *expected, "{pattern}");
    }
    assert!(matches("ERROR", "Exiting with ERRORCODE: -1"));
    assert!(matches(r#""\"level\":\"error\"""#, r#"{"level":"error"}"#));
    assert!(matches(r#""C:\\temp""#, r"in C:\temp"));
}

const TRAIL: &str = r#"{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111",
    "arrayKey":["value","another value"],"objectList":[{"name":"a","id":1},{"name":"b","id":2}],
    "SomeObject":null,"cluster.name":"c","ThisFlag":true,"latency":600,"ratio":0.5,
    "account":123456789012345678901,"status":"404","detail-type":"x","off":false}"#;

#[test]
fn conditions_on_json_lines() {
    let holding = [
        r#"{ $.eventType = "UpdateTrail" }"#,
        "{$.eventType=UpdateTrail}",
        r#"{ $.eventType = "Update*" }"#,
        r#"{ $.eventType = "*Trail" }"#,
        r#"{ $.eventType = "*" }"#,
        "{ $.eventType = *date* }",
        "{ $.eventType = U*T* }",
        "{ $.sourceIPAddress != 123.123.* }",
        r#"{ $.arrayKey[0] = "value" }"#,
        "{ $.eventType = %Trail% }",
        "{ $.arrayKey[*] = %val.{2}% }",
        r"{ $.* = %111\.111\.111\.1[0-9]{1,2}% }",
        "{ $.['cluster.name'] = \"c\" }",
        "{ $['cluster.name'] = \"c\" }",
        "{ $.SomeObject IS NULL }",
        "{ $.SomeOtherObject NOT EXISTS }",
        "{ $.objectList[7].id NOT EXISTS }",
        "{ $.ThisFlag IS TRUE }",
        "{ $.off IS FALSE }",
        "{ $.ThisFlag = true }",
        "{ $.objectList[1].id = 2 }",
        "{ $.objectList[*].id = 2 }",
        "{ $.objectList[*].id != 2 }",
        "{ $.detail-type = x }",
        "{ $.latency = * }",
        "{ $.latency >= 500 }",
        "{ $.latency > +599 }",
        "{ $.latency < 10e3 }",
        "{ $.latency = 6e2 }",
        "{ $.latency = 6.0e+2 }",
        "{ $.latency = 6* }",
        "{ $.latency != 599 }",
        "{ $.ratio <= 0.5 }",
        "{ $.ratio > 10e-3 }",
        "{ $.ratio > -1 }",
        "{ $.status = 404 }",
        "{ $.status = 4* }",
        "{ $.latency = \"600\" }",
    ];
    for pattern in holding {
        assert!(matches(pattern, TRAIL), "{pattern}");
    }
}

#[test]
fn conditions_that_do_not_hold_on_json_lines() {
    let failing = [
        r#"{ $.eventType = "updateTrail" }"#,
        "{ $.eventType = Update }",
        "{ $.eventType != %Trail% }",
        "{ $.sourceIPAddress != 111.111.* }",
        r#"{ $.arrayKey[1] = "value" }"#,
        r#"{ $.arrayKey[9] = "value" }"#,
        // What points at an array, an object, null or nothing matches nothing, whatever the
        // operator.
        "{ $.arrayKey = value }",
        "{ $.arrayKey != value }",
        "{ $.objectList[0] != 1 }",
        "{ $.SomeObject != x }",
        "{ $.SomeOtherObject != x }",
        "{ $.SomeOtherObject IS NULL }",
        "{ $.SomeObject NOT EXISTS }",
        "{ $.ThisFlag IS FALSE }",
        "{ $.eventType IS TRUE }",
        "{ $.eventType > 5 }",
        "{ $.latency > 600 }",
        "{ $.latency = 600.5 }",
        "{ $.status > 4 }",
    ];
    for pattern in failing {
        assert!(!matches(pattern, TRAIL), "{pattern}");
    }
    assert!(!matches("{ $.a NOT EXISTS }", "not JSON"));
    assert!(!matches("{ $.a NOT EXISTS }", "{\"a\""));
    assert!(matches("{ $[0] = 1 }", "[1]"));
    let id = r#"{"id":9007199254740993}"#;
    assert!(matches("{ $.id = 9007199254740993 }", id), "whole numbers are compared exactly");
    assert!(!matches("{ $.id = 9007199254740992 }", id));
}

#[test]
fn compound_conditions() {
    let line = r#"{"user":{"id":1,"email":"John.Stiles@example.com"},
        "users":[{"id":2,"email":"John.Doe@example.com"},{"id":3,"email":"Jane.Doe@example.com"}],
        "actions":["GET","PUT","DELETE"],"coordinates":[[0,1,2],[4,5,6],[7,8,9]]}"#;
    let cases = [
        (r#"{ ($.user.id = 1) && ($.users[0].email = "John.Doe@example.com") }"#, true),
        (r#"{ ($.user.id = 2 && $.users[0].email = "nonmatch") || $.actions[2] = "GET" }"#, false),
        (
            concat!(
                r#"{ $.user.email = "John.Stiles@example.com" || "#,
                r#"$.coordinates[0][1] = "nonmatch" && $.actions[2] = "nonmatch" }"#,
            ),
            true,
        ),
        (
            concat!(
                r#"{ ($.user.email = "John.Stiles@example.com" || "#,
                r#"$.coordinates[0][1] = "nonmatch") && $.actions[2] = "nonmatch" }"#,
            ),
            false,
        ),
        ("{ $.coordinates[2][0]=7&&(($.user.id=1||$.x=1)&&$.actions[1]=PUT) }", true),
    ];
    for (pattern, expected) in cases {
        assert_eq!(matches(pattern, line), expected, "{pattern}");
    }
}

const ACCESS: &str = concat!(
    "127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] ",
    "\"GET /index.html HTTP/1.0\" 404 1534"
);

#[test]
fn fields_of_space_delimited_lines() {
    let holding = [
        r"[ip=%127\.0\.0\.[1-9]%, user, name, time, request =*.html*, status_code = 4*, bytes]",
        "[ip, user, username, timestamp, request, status_code, bytes]",
        "[..., request =*.html*, status_code = 4*, bytes]",
        "[..., status_code, bytes > 1000]",
        "[ip, user, ..., status_code=404, bytes]",
        "[ip = 127.0.0.1, ...]",
        "[ip, user, name, time, request =*.html*, status = 404 || status = 410, bytes]",
        "[ip, user, username, timestamp, request, status_code = 4* && bytes > 1000, x]",
        "[ip, user, username, timestamp, request, status_code = 4* && status_code != 403, bytes]",
        "[..., request=*.html*, status_code=4*,]",
        "[..., bytes <= 1.534e3]",
        "[ip, rest=*frank*]",
        "[...]",
    ];
    for pattern in &holding[..7] {
        assert!(matches(pattern, ACCESS), "{pattern}");
    }
    // AWS's page had this one, and AWS refuses it: the conditions of a field are about that field.
    assert!(Pattern::parse(holding[7]).is_err());
    for pattern in &holding[8..] {
        assert!(matches(pattern, ACCESS), "{pattern}");
    }
    let failing = [
        "[a, b, c, d, e, f, g, h]",
        "[..., status_code = 5*, bytes]",
        "[..., bytes > 2000]",
        "[user=127.0.0.1, ip=Prod, username!=frank, ...]",
        "[ip, user > 5, ...]",
    ];
    for pattern in failing {
        assert!(!matches(pattern, ACCESS), "{pattern}");
    }
}

#[test]
fn words_in_order() {
    let lines = [
        "INFO 09/25/2014 12:00:00 GET /service/resource/67 1200",
        "INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310",
        "WARNING 09/25/2014 12:00:02 Invalid user request",
        "ERROR 09/25/2014 12:00:02 Failed to process request",
    ];
    let cases: &[(&str, &[usize])] = &[
        ("[w1=ERROR, w2]", &[3]),
        ("[w1=ERROR || w1=WARNING, w2]", &[2, 3]),
        ("[w1!=ERROR && w1!=WARNING, w2]", &[0, 1]),
        ("[w1=!ERROR&&w1=!WARNING, w2]", &[0, 1]),
        ("[(w1=ERROR || w1=WARNING) && w1!=W*, w2]", &[3]),
        ("[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]", &[0]),
        ("[logLevel, date, time, method, url=%/service/resource/[0-9]+/part/[0-9]+$%, ms]", &[1]),
    ];
    for (pattern, expected) in cases {
        assert_eq!(matching(pattern, &lines), *expected, "{pattern}");
    }
    // The pattern of AWS's Lambda subscriptions: tabs, and the last field takes the rest.
    let line = "2026-01-02T03:04:05.678Z\tc7a0-11\tINFO {\"a\": 1}";
    let pattern = Pattern::parse(r#"[timestamp=*Z, request_id="*-*", event]"#).unwrap();
    assert_eq!(pattern.extract(line).unwrap()["$event"], "INFO {\"a\": 1}");
}

#[test]
fn values_are_extracted() {
    let pattern = Pattern::parse("[..., request=*.html*, status_code=4*,]").unwrap();
    let values: Vec<_> = pattern.extract(ACCESS).unwrap().into_iter().collect();
    let expected = [
        ("$1", "127.0.0.1"),
        ("$2", "Prod"),
        ("$3", "frank"),
        ("$4", "10/Oct/2000:13:25:15 -0700"),
        ("$7", "1534"),
        ("$request", "GET /index.html HTTP/1.0"),
        ("$status_code", "404"),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assert_eq!(values, expected);
    assert!(pattern.extract("x").is_none());

    let pattern = Pattern::parse("{ $.latency = * && $.objectList[0].name = a }").unwrap();
    let values = pattern.extract(TRAIL).unwrap();
    assert_eq!(
        (values["$.latency"].as_str(), values["$.objectList[0].name"].as_str()),
        ("600", "a")
    );
    assert!(pattern.names_values() && !Pattern::parse("ERROR").unwrap().names_values());
    assert!(Pattern::parse("ERROR").unwrap().extract("ERROR").unwrap().is_empty());

    assert_eq!(Selector::parse("$.latency").unwrap().value(TRAIL).as_deref(), Some("600"));
    assert_eq!(Selector::parse("$.arrayKey").unwrap().value(TRAIL), None);
    assert_eq!(Selector::parse("$.x").unwrap().value("no JSON"), None);
    assert!(Selector::parse("$.x y").is_err() && Selector::parse("1").is_err());
}

#[test]
fn characters_that_need_quotes_are_named_as_aws_names_them() {
    let cases = [
        ("?Status: timeout", ":"),
        ("email@domain.com", "@"),
        ("foo-bar", "-"),
        ("(", "("),
        ("level\\\":", "\\\":"),
        ("%^(a|b)%", "("),
        ("%something!%", "!"),
        ("{ $.\"sc-status\" = 5* }", "\""),
        ("{ $.a = x@y }", "@"),
        ("[a, b=/x]", "/"),
        ("{ $.a # 1 }", "#"),
    ];
    for (pattern, characters) in cases {
        let error = Pattern::parse(pattern).unwrap_err();
        assert_eq!(error, ParseError::Characters(characters.into()), "{pattern}");
    }
    let error = Pattern::parse("foo-bar").unwrap_err();
    assert_eq!(error.to_string(), "Invalid character(s) in term '-'");
}

#[test]
fn what_is_not_a_pattern_is_refused() {
    let cases = [
        "\"open",
        "%open",
        "?",
        "-",
        "{",
        "{}",
        "{ }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a = 1",
        "{ $.a = 1 } x",
        "{ a = 1 }",
        "{ $ = 1 }",
        "{ $. = 1 }",
        "{ $.a[x] = 1 }",
        "{ $.a[1 = 1 }",
        "{ $.a[99999999999999999999] = 1 }",
        "{ ($.a = 1 }",
        "{ $.a = 1) }",
        "{ $.a = 1 && }",
        "{ $.a = 1 || || $.b = 1 }",
        "{ $.a > x }",
        "{ $.a > \"5\" }",
        "{ $.a > %5% }",
        "{ $.a IS NOT NULL }",
        "{ $.a IS 5 }",
        "{ $.a EXISTS }",
        "{ $.a NOT 5 }",
        "[",
        "[a",
        "[a,",
        "[a b]",
        "[a=]",
        "[..., a, ...]",
        "[a=1 || b=1]",
        "[a] x",
        "[a>x]",
        "a\"b\"",
        "%%",
    ];
    for pattern in cases {
        assert!(Pattern::parse(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn limits() {
    use ParseError::{TooDeep, TooLong, TooManyRegexes, TooManyWildcards};
    let refused = |pattern: &str| Pattern::parse(pattern).unwrap_err();
    assert_eq!(refused("{ $.a = %a% || $.b = %b% || $.c = %c% }"), TooManyRegexes);
    assert_eq!(refused("[a=%a%, b=%b%, c=%c%]"), TooManyRegexes);
    assert_eq!(refused("{ $.*.a[*] = 1 }"), TooManyWildcards);
    assert_eq!(refused("{ $.* = 1 || $.a.* = 1 || $.b[*] = 1 || $.c[*] = 1 }"), TooManyWildcards);
    assert!(Pattern::parse("{ $.* = 1 || $.a.* = 1 || $.b[*] = 1 }").is_ok());
    assert!(Pattern::parse(&"a".repeat(MAX_PATTERN_CHARS)).is_ok());
    assert_eq!(refused(&"a".repeat(MAX_PATTERN_CHARS + 1)), TooLong);
    assert_eq!(refused(&format!("{{ {}", "(".repeat(900))), TooDeep);
    assert!(matches!(refused("%a{999}{999}%"), ParseError::Regex(_)));
}

/// Not a timed test: with a quadratic splitter this line would take minutes.
#[test]
fn hostile_lines_are_split_in_one_pass() {
    let line = "\"a [b ".repeat(200_000);
    assert!(matches("[a, ...]", &line));
}

proptest! {
    #[test]
    fn any_text_is_a_pattern_or_not(pattern: String, line: String) {
        if let Ok(pattern) = Pattern::parse(&pattern) {
            pattern.extract(&line);
        }
    }

    #[test]
    fn near_patterns_hold_together(
        pattern in concat!(
            r#"[{\[]?( ?(\$\.[ab]|a|b|=|!=|<|[0-9]|\*|\.\.\.|,|&&|\|\||\(|\)|"x"|%x%|-|\?|"#,
            r#"IS|NULL|NOT|EXISTS|\[0\])){0,12} ?[}\]]?"#,
        ),
        line in "(\\{\"a\":[0-9\"x]{1,3}\\}|[ab0-9 \"\\[\\]]{0,20})",
    ) {
        if let Ok(pattern) = Pattern::parse(&pattern) {
            let extracted = pattern.extract(&line);
            prop_assert_eq!(extracted.is_some(), pattern.matches(&line));
            prop_assert!(extracted.is_none() || pattern.may_match(&line));
        }
    }

    #[test]
    fn a_quoted_phrase_matches_exactly_the_lines_that_hold_it(phrase: String, line: String) {
        let quoted = phrase.replace('\\', "\\\\").replace('"', "\\\"");
        prop_assume!(quoted.chars().count() < 1000);
        let pattern = Pattern::parse(&format!("\"{quoted}\"")).unwrap();
        let around = format!("{line}{phrase}{line}");
        prop_assert!(pattern.matches(&around));
        prop_assert_eq!(pattern.matches(&line), phrase.trim().is_empty() || line.contains(&phrase));
    }
}

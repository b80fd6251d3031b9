//! The language of event patterns: read once, matched often.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-event-patterns.html>
//!
//! A pattern has the shape of the events that it wants. Its leaves are lists of which one entry must fit; of an event's
//! list one element must fit, and where a pattern asks several things of the objects in a list, one object must fit
//! all of them.

use serde_json::{Map, Value as Json};
use std::{fmt, net::IpAddr};

/// Deeper patterns and events are refused: what walks them is recursive.
pub(crate) const DEEPEST: usize = 64;
/// The most entries of one pattern's leaves, and the most of those that read a whole value (wildcards, and what is
/// alike in any case): they bound what matching costs.
const MOST_MATCHERS: usize = 1000;
const MOST_READERS: usize = 50;
/// Numbers that patterns can be about.
const LARGEST_NUMBER: f64 = 5e9;

/// What is wrong with a pattern.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event pattern is not valid. Reason: {}", self.0)
    }
}

/// An event pattern.
#[derive(Debug)]
pub struct Pattern(Node);

#[derive(Debug)]
enum Node {
    /// Every field fits, and of each `$or` one alternative.
    Object { fields: Vec<(String, Node)>, or: Vec<Vec<Node>> },
    /// One of them fits.
    Leaf(Vec<Matcher>),
}

#[derive(Debug)]
enum Matcher {
    Equal(Json),
    Exists(bool),
    Text(Text),
    Numeric(Vec<(Comparison, f64)>),
    Cidr(IpAddr, u8),
    /// Neither of these values, for strings and numbers.
    AnythingBut(Vec<Json>),
    AnythingButText(Vec<Text>),
}

#[derive(Debug)]
enum Text {
    Prefix(String),
    Suffix(String),
    Same(String),
    PrefixAnyCase(String),
    SuffixAnyCase(String),
    /// What stands between its stars.
    Wildcard(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

fn bad<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(reason.into()))
}

impl Pattern {
    /// Reads a pattern.
    pub fn read(text: &str) -> Result<Self, Malformed> {
        let json: Json = match serde_json::from_str(text) {
            Ok(json) => json,
            Err(error) => return bad(format!("it is not JSON: {error}")),
        };
        let Json::Object(map) = json else { return bad("Filter is not an object") };
        if map.is_empty() {
            return bad("Empty patterns are not allowed");
        }
        let mut reader = Reader::default();
        reader.object(map, 0).map(Self)
    }

    /// Whether an event fits.
    pub fn matches(&self, event: &Json) -> bool {
        self.0.matches(Some(event))
    }
}

#[derive(Default)]
struct Reader {
    matchers: usize,
    readers: usize,
}

impl Reader {
    fn object(&mut self, map: Map<String, Json>, depth: usize) -> Result<Node, Malformed> {
        if depth > DEEPEST {
            return bad("it nests too deeply");
        }
        let (mut fields, mut or) = (Vec::new(), Vec::new());
        for (name, value) in map {
            match value {
                Json::Array(alternatives)
                    if name == "$or" && alternatives.iter().all(Json::is_object) =>
                {
                    if alternatives.len() < 2 {
                        return bad("$or needs at least two alternatives");
                    }
                    let read = alternatives.into_iter().map(|alternative| match alternative {
                        Json::Object(map) => self.object(map, depth + 1),
                        _ => bad("$or is a list of objects"),
                    });
                    or.push(read.collect::<Result<_, _>>()?);
                }
                Json::Array(values) => fields.push((name, self.leaf(values)?)),
                Json::Object(map) if map.is_empty() => {
                    return bad(format!("\"{name}\" is an empty object"));
                }
                Json::Object(map) => {
                    let node = self.object(map, depth + 1)?;
                    fields.push((name, node));
                }
                _ => return bad(format!("\"{name}\" must be an object or an array")),
            }
        }
        Ok(Node::Object { fields, or })
    }

    fn leaf(&mut self, values: Vec<Json>) -> Result<Node, Malformed> {
        if values.is_empty() {
            return bad("Empty arrays are not allowed");
        }
        self.matchers += values.len();
        if self.matchers > MOST_MATCHERS {
            return bad("it is too complex");
        }
        let matchers: Vec<Matcher> = values.into_iter().map(matcher).collect::<Result<_, _>>()?;
        self.readers += matchers.iter().map(Matcher::readers).sum::<usize>();
        match self.readers > MOST_READERS {
            true => bad(
                "Rule is too complex - try using fewer wildcard characters or fewer ignored cases",
            ),
            false => Ok(Node::Leaf(matchers)),
        }
    }
}

/// The one key and value of `{"prefix": …}`.
fn single(map: Map<String, Json>) -> Result<(String, Json), Malformed> {
    let mut entries = map.into_iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        _ => bad("Only one key allowed in match expression"),
    }
}

fn matcher(value: Json) -> Result<Matcher, Malformed> {
    let map = match value {
        Json::Object(map) => map,
        Json::Array(_) => return bad("Match value must be String, number, true, false, or null"),
        scalar => return Ok(Matcher::Equal(scalar)),
    };
    let (kind, value) = single(map)?;
    match (kind.as_str(), value) {
        ("exists", Json::Bool(there)) => Ok(Matcher::Exists(there)),
        ("exists", _) => bad("exists must be either true or false"),
        ("numeric", Json::Array(parts)) => numeric(parts),
        ("numeric", _) => bad("Value of numeric must be an array"),
        ("cidr", Json::String(text)) => cidr(&text),
        ("anything-but", value) => anything_but(value),
        (kind, value) => text(kind, value).map(Matcher::Text),
    }
}

fn text(kind: &str, value: Json) -> Result<Text, Malformed> {
    let value = match (kind, value) {
        ("prefix" | "suffix", Json::Object(map)) => {
            let (inner, value) = single(map)?;
            let (true, Json::String(value)) = (inner == "equals-ignore-case", value) else {
                return bad(format!("{kind} takes a string or equals-ignore-case"));
            };
            let value = value.to_lowercase();
            return Ok(match kind {
                "prefix" => Text::PrefixAnyCase(value),
                _ => Text::SuffixAnyCase(value),
            });
        }
        (_, Json::String(value)) => value,
        ("prefix" | "suffix" | "wildcard" | "equals-ignore-case" | "cidr", _) => {
            return bad(format!("{kind} match pattern must be a string"));
        }
        (kind, _) => return bad(format!("Unrecognized match type {kind}")),
    };
    match kind {
        "prefix" => Ok(Text::Prefix(value)),
        "suffix" => Ok(Text::Suffix(value)),
        "equals-ignore-case" => Ok(Text::Same(value.to_lowercase())),
        "wildcard" => wildcard(&value),
        kind => bad(format!("Unrecognized match type {kind}")),
    }
}

/// `*` is any text; `\*` and `\\` are themselves.
fn wildcard(value: &str) -> Result<Text, Malformed> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '*' if part.is_empty() && !parts.is_empty() => {
                return bad("Consecutive wildcard characters are not allowed");
            }
            '*' => parts.push(std::mem::take(&mut part)),
            '\\' => match letters.next() {
                Some(escaped @ ('*' | '\\')) => part.push(escaped),
                _ => return bad("Invalid escape character in wildcard"),
            },
            letter => part.push(letter),
        }
    }
    parts.push(part);
    Ok(Text::Wildcard(parts))
}

fn anything_but(value: Json) -> Result<Matcher, Malformed> {
    let scalar = |value: &Json| value.is_string() || value.is_number();
    match value {
        Json::Object(map) => {
            let (kind, value) = single(map)?;
            if !matches!(&*kind, "prefix" | "suffix" | "wildcard" | "equals-ignore-case") {
                return bad(format!("Unsupported anything-but pattern: {kind}"));
            }
            let values = match value {
                Json::Array(values) if !values.is_empty() => values,
                Json::Array(_) => return bad("Empty arrays are not allowed"),
                value => vec![value],
            };
            let texts = values.into_iter().map(|value| text(&kind, value));
            texts.collect::<Result<_, _>>().map(Matcher::AnythingButText)
        }
        Json::Array(values) if values.is_empty() => bad("Empty arrays are not allowed"),
        Json::Array(values) => {
            let strings = values.iter().all(Json::is_string);
            match strings || values.iter().all(Json::is_number) {
                true => Ok(Matcher::AnythingBut(values)),
                false => bad("Inside anything but list, start|null|boolean is not supported."),
            }
        }
        value if scalar(&value) => Ok(Matcher::AnythingBut(vec![value])),
        _ => bad(
            "Inside anything-but, either a string, a number, a list of either or an object is expected",
        ),
    }
}

fn numeric(parts: Vec<Json>) -> Result<Matcher, Malformed> {
    if parts.is_empty() || !parts.len().is_multiple_of(2) || parts.len() > 4 {
        return bad("Invalid numeric match: operators and numbers, one or two of each");
    }
    let mut read: Vec<(Comparison, f64)> = Vec::new();
    for pair in parts.chunks(2) {
        let comparison = match pair[0].as_str() {
            Some("<") => Comparison::Less,
            Some("<=") => Comparison::LessOrEqual,
            Some("=") => Comparison::Equal,
            Some(">=") => Comparison::GreaterOrEqual,
            Some(">") => Comparison::Greater,
            _ => return bad("Unrecognized numeric range operator"),
        };
        let Some(number) = pair[1].as_f64() else {
            return bad("Value of numeric operator must be numeric");
        };
        if number.abs() > LARGEST_NUMBER {
            return bad("Value must be between -5.0E9 and 5.0E9, inclusive");
        }
        read.push((comparison, number));
    }
    if let [(first, low), (second, high)] = read[..] {
        use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
        let range =
            matches!(first, Greater | GreaterOrEqual) && matches!(second, Less | LessOrEqual);
        if !range || low >= high {
            return bad("Bottom must be less than top");
        }
    }
    Ok(Matcher::Numeric(read))
}

fn cidr(text: &str) -> Result<Matcher, Malformed> {
    let malformed = || Malformed(format!("Malformed CIDR, one '/' required: {text}"));
    let (address, bits) = text.split_once('/').ok_or_else(malformed)?;
    let address: IpAddr = address.parse().map_err(|_| malformed())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(malformed)?;
    Ok(Matcher::Cidr(address, bits))
}

impl Node {
    /// Whether what an event has at this place fits; nothing, where it has none.
    fn matches(&self, value: Option<&Json>) -> bool {
        match (self, value) {
            (_, Some(Json::Array(items))) if items.is_empty() => self.matches(None),
            (_, Some(Json::Array(items))) => items.iter().any(|item| self.matches(Some(item))),
            (Self::Object { fields, or }, value) => {
                let object = value.and_then(Json::as_object);
                let field = |name: &str| object.and_then(|object| object.get(name));
                fields.iter().all(|(name, node)| node.matches(field(name)))
                    && or.iter().all(|any| any.iter().any(|node| node.matches(value)))
            }
            (Self::Leaf(matchers), value) => matchers.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

impl Matcher {
    /// How many of its parts read a whole value.
    fn readers(&self) -> usize {
        let texts = match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::AnythingButText(texts) => texts,
            _ => &[],
        };
        texts.iter().filter(|text| !matches!(text, Text::Prefix(_) | Text::Suffix(_))).count()
    }

    fn matches(&self, value: Option<&Json>) -> bool {
        // An object is no leaf: it neither exists nor equals anything.
        let Some(value) = value.filter(|value| !value.is_object()) else {
            return matches!(self, Self::Exists(false));
        };
        match self {
            Self::Exists(there) => *there,
            Self::Equal(wanted) => wanted == value,
            Self::Text(text) => value.as_str().is_some_and(|value| text.matches(value)),
            Self::Numeric(range) => value.as_f64().is_some_and(|number| {
                range.iter().all(|(comparison, bound)| comparison.holds(number, *bound))
            }),
            Self::Cidr(network, bits) => {
                let address = value.as_str().and_then(|text| text.parse().ok());
                address.is_some_and(|address| within(address, *network, *bits))
            }
            Self::AnythingBut(values) => !values.contains(value),
            Self::AnythingButText(texts) => {
                value.as_str().is_some_and(|value| !texts.iter().any(|text| text.matches(value)))
            }
        }
    }
}

impl Comparison {
    fn holds(self, number: f64, bound: f64) -> bool {
        match self {
            Self::Less => number < bound,
            Self::LessOrEqual => number <= bound,
            Self::Equal => number == bound,
            Self::GreaterOrEqual => number >= bound,
            Self::Greater => number > bound,
        }
    }
}

impl Text {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => value.ends_with(suffix.as_str()),
            Self::Same(same) => value.to_lowercase() == *same,
            Self::PrefixAnyCase(prefix) => value.to_lowercase().starts_with(prefix.as_str()),
            Self::SuffixAnyCase(suffix) => value.to_lowercase().ends_with(suffix.as_str()),
            Self::Wildcard(pattern) => wild(pattern, value),
        }
    }
}

/// The first part begins the value, the last ends it, and those between follow each other: each is found once, so it
/// takes no longer than reading the value.
fn wild(parts: &[String], value: &str) -> bool {
    let [first, between @ .., last] = parts else {
        return parts.first().is_some_and(|whole| whole == value);
    };
    let Some(mut rest) = value.strip_prefix(first.as_str()) else { return false };
    for part in between {
        let Some(at) = rest.find(part.as_str()) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last.as_str())
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let shifted = |bytes: u128, width: u8| bytes.checked_shr(u32::from(width - bits)).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let number = |ip: std::net::Ipv4Addr| u128::from(u32::from(ip));
            shifted(number(address), 32) == shifted(number(network), 32)
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            shifted(address.into(), 128) == shifted(network.into(), 128)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fits(pattern: Json, event: &Json) -> bool {
        Pattern::read(&pattern.to_string()).unwrap().matches(event)
    }

    fn event() -> Json {
        json!({
            "source": "aws.ecs", "detail-type": "ECS Task State Change", "resources": ["arn:a", "arn:b"],
            "detail": {
                "state": "RUNNING", "count": 7, "rate": 1.5, "ip": "10.0.1.9", "none": null, "on": true, "empty": "",
                "list": [], "things": [{"name": "a", "size": 1}, {"name": "b", "size": 2}],
            },
        })
    }

    #[test]
    fn every_operator_does_what_its_page_says() {
        let event = event();
        let of = |matcher: Json| move |field: &str| json!({"detail": {field: [matcher.clone()]}});
        let yes: Vec<(&str, Json)> = vec![
            ("state", json!("RUNNING")),
            ("none", json!(null)),
            ("on", json!(true)),
            ("empty", json!("")),
            ("count", json!(7)),
            ("state", json!({"prefix": "RUN"})),
            ("state", json!({"prefix": {"equals-ignore-case": "run"}})),
            ("state", json!({"suffix": "ING"})),
            ("state", json!({"suffix": {"equals-ignore-case": "nInG"}})),
            ("state", json!({"equals-ignore-case": "running"})),
            ("state", json!({"wildcard": "R*N*G"})),
            ("state", json!({"anything-but": "STOPPED"})),
            ("state", json!({"anything-but": ["STOPPED", "PENDING"]})),
            ("state", json!({"anything-but": {"prefix": "STOP"}})),
            ("state", json!({"anything-but": {"suffix": ["x", "y"]}})),
            ("state", json!({"anything-but": {"wildcard": "*S*"}})),
            ("count", json!({"anything-but": [1, 2]})),
            ("count", json!({"numeric": [">", 0, "<=", 7]})),
            ("rate", json!({"numeric": ["=", 1.5]})),
            ("ip", json!({"cidr": "10.0.0.0/16"})),
            ("state", json!({"exists": true})),
            ("missing", json!({"exists": false})),
            ("list", json!({"exists": false})),
        ];
        for (field, matcher) in yes {
            assert!(fits(of(matcher.clone())(field), &event), "{field} {matcher}");
        }
        let no: Vec<(&str, Json)> = vec![
            ("state", json!("running")),
            ("count", json!("7")),
            ("none", json!("null")),
            ("state", json!({"prefix": "run"})),
            ("state", json!({"wildcard": "R*X"})),
            ("state", json!({"anything-but": ["RUNNING"]})),
            ("state", json!({"anything-but": {"equals-ignore-case": "running"}})),
            ("missing", json!({"anything-but": "x"})),
            ("count", json!({"numeric": ["<", 7]})),
            ("ip", json!({"cidr": "10.0.2.0/24"})),
            ("ip", json!({"cidr": "::/0"})),
            ("state", json!({"exists": false})),
            ("missing", json!({"exists": true})),
        ];
        for (field, matcher) in no {
            assert!(!fits(of(matcher.clone())(field), &event), "{field} {matcher}");
        }
    }

    #[test]
    fn lists_and_alternatives() {
        let event = event();
        assert!(fits(json!({"resources": ["arn:b"]}), &event));
        assert!(!fits(json!({"resources": ["arn:c"]}), &event));
        // One object must fit all that is asked of the objects of a list.
        assert!(fits(json!({"detail": {"things": {"name": ["b"], "size": [2]}}}), &event));
        assert!(!fits(json!({"detail": {"things": {"name": ["a"], "size": [2]}}}), &event));
        let or = json!({"source": ["aws.ecs"], "$or": [{"detail": {"count": [1]}}, {"detail": {"on": [true]}}]});
        assert!(fits(or, &event));
        let or = json!({"$or": [{"detail": {"count": [1]}}, {"detail": {"on": [false]}}]});
        assert!(!fits(or, &event));
        assert!(fits(json!({"nothing": {"at": {"all": [{"exists": false}]}}}), &event));
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for bad in [
            "",
            "[]",
            "{}",
            "7",
            r#"{"a": "b"}"#,
            r#"{"a": []}"#,
            r#"{"a": {}}"#,
            r#"{"a": [["b"]]}"#,
            r#"{"a": [{"prefix": 1}]}"#,
            r#"{"a": [{"what": "x"}]}"#,
            r#"{"a": [{"prefix": "a", "suffix": "b"}]}"#,
            r#"{"a": [{"numeric": []}]}"#,
            r#"{"a": [{"numeric": ["<"]}]}"#,
            r#"{"a": [{"numeric": ["<", "x"]}]}"#,
            r#"{"a": [{"numeric": [">", 5, "<", 1]}]}"#,
            r#"{"a": [{"numeric": ["<", 6000000000]}]}"#,
            r#"{"a": [{"cidr": "10.0.0.0"}]}"#,
            r#"{"a": [{"cidr": "10.0.0.0/33"}]}"#,
            r#"{"a": [{"exists": 1}]}"#,
            r#"{"a": [{"wildcard": "a**b"}]}"#,
            r#"{"a": [{"wildcard": "a\\x"}]}"#,
            r#"{"a": [{"anything-but": []}]}"#,
            r#"{"a": [{"anything-but": ["x", 1]}]}"#,
            r#"{"a": [{"anything-but": {"numeric": ["<", 1]}}]}"#,
            r#"{"$or": [{"a": [1]}]}"#,
        ] {
            let told = Pattern::read(bad).unwrap_err().to_string();
            assert!(told.starts_with("Event pattern is not valid. Reason: "), "{bad}: {told}");
        }
        let costly = format!(r#"{{"a": [{}]}}"#, vec![r#"{"wildcard": "*x*"}"#; 51].join(","));
        assert!(Pattern::read(&costly).unwrap_err().to_string().contains("too complex"));
        let deep = format!("{}[1]{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert!(Pattern::read(&deep).is_err());
    }

    proptest! {
        #[test]
        fn wildcards_agree_with_a_plain_reading(pattern in "[ab*]{0,8}", value in "[ab]{0,10}") {
            fn plain(pattern: &[u8], value: &[u8]) -> bool {
                match pattern.split_first() {
                    None => value.is_empty(),
                    Some((b'*', rest)) => (0..=value.len()).any(|taken| plain(rest, &value[taken..])),
                    Some((letter, rest)) => value.split_first().is_some_and(|(first, value)| {
                        first == letter && plain(rest, value)
                    }),
                }
            }
            if let Ok(Text::Wildcard(read)) = wildcard(&pattern) {
                prop_assert_eq!(wild(&read, &value), plain(pattern.as_bytes(), value.as_bytes()));
            }
        }

        #[test]
        fn any_text_is_answered(text in "[\\[\\]{}\":,a-z$0-9-]{0,60}") {
            if let Ok(pattern) = Pattern::read(&text) {
                pattern.matches(&event());
            }
        }
    }
}

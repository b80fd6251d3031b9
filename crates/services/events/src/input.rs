//! What a target gets of an event: all of it, a part, a constant, or what a template makes of it.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html>

use crate::api::{InputTransformer, Target};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What may stand in templates besides what their paths find.
pub(crate) struct Surroundings<'a> {
    pub rule_name: &'a str,
    pub rule_arn: &'a str,
    /// RFC 3339, in UTC.
    pub ingestion_time: &'a str,
}

/// The text that `target` gets of `event`.
pub(crate) fn text(target: &Target, event: &Json, around: &Surroundings) -> String {
    if let Some(constant) = &target.input {
        return constant.clone();
    }
    if let Some(path) = &target.input_path {
        return find(event, path).unwrap_or(&Json::Null).to_string();
    }
    match &target.input_transformer {
        Some(transformer) => transform(transformer, event, around),
        None => event.to_string(),
    }
}

/// Whether a path is one that we read: `$`, `$.detail.a-b`, `$.resources[0]`, `$.detail['a b']`.
pub(crate) fn is_path(path: &str) -> bool {
    steps(path).is_some()
}

enum Step {
    Field(String),
    Index(usize),
}

fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, more) = after.split_at(end);
            if name.is_empty() {
                return None;
            }
            steps.push(Step::Field(name.to_owned()));
            rest = more;
        } else {
            let (inner, more) = rest.strip_prefix('[')?.split_once(']')?;
            let quoted = inner.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\''));
            steps.push(match quoted {
                Some(name) => Step::Field(name.to_owned()),
                None => Step::Index(inner.parse().ok()?),
            });
            rest = more;
        }
    }
    Some(steps)
}

fn find<'a>(event: &'a Json, path: &str) -> Option<&'a Json> {
    steps(path)?.iter().try_fold(event, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Index(index) => value.get(index),
    })
}

/// The names that a template has in `<…>`.
pub(crate) fn names(template: &str) -> Vec<&str> {
    pieces(template).into_iter().filter_map(|piece| piece.err()).collect()
}

/// A template's text (`Ok`) and names (`Err`), in order.
fn pieces(template: &str) -> Vec<Result<&str, &str>> {
    let is_name = |name: &&str| {
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        !name.is_empty() && name.bytes().all(letter)
    };
    let (mut pieces, mut rest) = (Vec::new(), template);
    let mut from = 0;
    while let Some(open) = rest[from..].find('<').map(|at| at + from) {
        let name = rest[open + 1..].split_once('>').map(|(name, _)| name).filter(is_name);
        match name {
            Some(name) => {
                pieces.push(Ok(&rest[..open]));
                pieces.push(Err(name));
                rest = &rest[open + name.len() + 2..];
                from = 0;
            }
            None => from = open + 1,
        }
    }
    pieces.push(Ok(rest));
    pieces
}

fn transform(transformer: &InputTransformer, event: &Json, around: &Surroundings) -> String {
    let none = BTreeMap::new();
    let paths = transformer.input_paths_map.as_ref().unwrap_or(&none);
    let mut made = String::new();
    for piece in pieces(&transformer.input_template) {
        let name = match piece {
            Ok(text) => {
                made.push_str(text);
                continue;
            }
            Err(name) => name,
        };
        let within = is_within_string(&made);
        match (name, paths.get(name)) {
            (_, Some(path)) => place(&mut made, find(event, path), within),
            ("aws.events.rule-arn", None) => {
                place(&mut made, Some(&around.rule_arn.into()), within)
            }
            ("aws.events.rule-name", None) => {
                place(&mut made, Some(&around.rule_name.into()), within)
            }
            ("aws.events.event.ingestion-time", None) => {
                place(&mut made, Some(&around.ingestion_time.into()), within);
            }
            ("aws.events.event" | "aws.events.event.json", None) => {
                place(&mut made, Some(event), within)
            }
            // Putting the target made sure that there is no other.
            _ => {}
        }
    }
    made
}

/// A value in a template: what is not there is nothing; within quotes a string comes without its own.
fn place(made: &mut String, value: Option<&Json>, within_string: bool) {
    let Some(value) = value else { return };
    let text = value.to_string();
    match (value, within_string) {
        (Json::String(_), true) => made.push_str(&text[1..text.len() - 1]),
        (_, true) => {
            let quoted = Json::String(text).to_string();
            made.push_str(&quoted[1..quoted.len() - 1]);
        }
        (_, false) => made.push_str(&text),
    }
}

/// Whether what follows `text` is inside of a JSON string that it began.
fn is_within_string(text: &str) -> bool {
    let (mut within, mut escaped) = (false, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if within => escaped = true,
            '"' => within = !within,
            _ => {}
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(paths: &[(&str, &str)], template: &str) -> Target {
        let paths = paths.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned()));
        Target {
            input_transformer: Some(InputTransformer {
                input_paths_map: Some(paths.collect()),
                input_template: template.to_owned(),
            }),
            ..Target::default()
        }
    }

    fn of(target: &Target, event: &Json) -> String {
        let around = Surroundings { rule_name: "r", rule_arn: "arn:r", ingestion_time: "now" };
        text(target, event, &around)
    }

    #[test]
    fn templates_place_what_paths_find() {
        let event = json!({"source": "s", "resources": ["one"], "detail": {"state": "a\"b", "n": 5, "o": {"x": 1}}});
        let paths = [
            ("state", "$.detail.state"),
            ("n", "$.detail.n"),
            ("o", "$.detail.o"),
            ("r", "$.resources[0]"),
        ];
        let made = of(
            &target(&paths, r#"{"s": <state>, "t": "is <state> of <r>", "n": <n>, "o": <o>}"#),
            &event,
        );
        let made: Json = serde_json::from_str(&made).unwrap();
        assert_eq!(made, json!({"s": "a\"b", "t": "is a\"b of one", "n": 5, "o": {"x": 1}}));
        let made =
            of(&target(&[("m", "$.missing")], r#""<m> by <aws.events.rule-name>, 1 < 2""#), &event);
        assert_eq!(made, r#"" by r, 1 < 2""#);
        let whole = of(&target(&[], r#"{"e": <aws.events.event>}"#), &event);
        assert_eq!(serde_json::from_str::<Json>(&whole).unwrap()["e"], event);
    }

    #[test]
    fn parts_and_constants() {
        let event = json!({"detail": {"a b": [1, {"c": "d"}]}});
        let part = |path: &str| Target { input_path: Some(path.to_owned()), ..Target::default() };
        assert_eq!(of(&part("$.detail['a b'][1].c"), &event), "\"d\"");
        assert_eq!(of(&part("$"), &event), event.to_string());
        assert_eq!(of(&part("$.nothing"), &event), "null");
        for bad in ["", "detail", "$.", "$..a", "$[", "$[x]", "$.a[1"] {
            assert!(!is_path(bad), "{bad}");
        }
        assert_eq!(names("<a> <b-c> < d> <> <e"), ["a", "b-c"]);
    }
}

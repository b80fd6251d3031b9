//! A template's text, JSON or YAML, as one tree. Short forms (`!Ref x`) become the long ones.
//! <https://docs.aws.amazon.com/cloudformation/latest/userguide/template-formats.html>

use super::malformed;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput, Tag};
use serde_json::{Map, Value as Json, json};
use std::borrow::Cow;
use wire::Fault;

/// How deep a template nests at most.
const MOST_DEPTH: usize = 100;

/// Reads a template's text.
pub(crate) fn read(text: &str) -> Result<Json, Fault> {
    let text = text.trim_start_matches('\u{feff}');
    let tree = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            malformed(format!("JSON not well-formed. (line {line}, column {column})"))
        }),
        false => Yaml { parser: Parser::new_from_str(text) }.document(),
    }?;
    match tree {
        Json::Object(_) => Ok(tree),
        _ => Err(malformed("unsupported structure.")),
    }
}

struct Yaml<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

fn not_well_formed(at: Marker) -> Fault {
    let (line, column) = (at.line(), at.col() + 1);
    malformed(format!("YAML not well-formed. (line {line}, column {column})"))
}

impl<'a> Yaml<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Marker), Fault> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start)),
            Some(Err(error)) => Err(not_well_formed(*error.marker())),
            None => Ok((Event::StreamEnd, Marker::default())),
        }
    }

    /// The first document; what follows it is an error.
    fn document(mut self) -> Result<Json, Fault> {
        let mut found = Json::Null;
        let mut documents = 0;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(found),
                (Event::Nothing | Event::StreamStart | Event::DocumentEnd, _) => {}
                (Event::DocumentStart(_), at) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(not_well_formed(at));
                    }
                }
                (event, at) => found = self.node(event, at, 0)?,
            }
        }
    }

    fn node(&mut self, event: Event<'a>, at: Marker, depth: usize) -> Result<Json, Fault> {
        if depth > MOST_DEPTH {
            return Err(not_well_formed(at));
        }
        match event {
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain;
                let value = match &tag {
                    None if plain => scalar(&text),
                    Some(tag) if plain && short(tag).is_none() && tag.suffix != "str" => {
                        scalar(&text)
                    }
                    _ => Json::String(text.into_owned()),
                };
                Ok(long_form(tag, value))
            }
            Event::SequenceStart(_, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Ok(long_form(tag, items.into())),
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(_, tag) => {
                let mut map = Map::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, _) => return Ok(long_form(tag, map.into())),
                        (Event::Scalar(text, _, _, None), _) => text.into_owned(),
                        (_, at) => return Err(not_well_formed(at)),
                    };
                    let (event, at) = self.next()?;
                    let value = self.node(event, at, depth + 1)?;
                    map.insert(key, value);
                }
            }
            Event::Alias(_) => {
                Err(super::error("YAML aliases are not allowed in CloudFormation templates"))
            }
            _ => Err(not_well_formed(at)),
        }
    }
}

/// The name of a function's short form.
fn short(tag: &Tag) -> Option<&str> {
    (tag.handle == "!").then_some(tag.suffix.as_str())
}

fn long_form(tag: Option<Cow<Tag>>, value: Json) -> Json {
    let Some(name) = tag.as_deref().and_then(short) else { return value };
    let value = match (name, value) {
        ("GetAtt", Json::String(text)) => match text.split_once('.') {
            Some((resource, attribute)) => json!([resource, attribute]),
            None => json!(text),
        },
        (_, value) => value,
    };
    let name = match name {
        "Ref" | "Condition" => name.to_owned(),
        _ => format!("Fn::{name}"),
    };
    json!({ name: value })
}

/// A plain scalar. Numbers that would be written otherwise than they stand there (`0123`, `1.10`) stay text, and so do
/// dates: `2012-10-17` is a policy's version.
fn scalar(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return json!(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return json!(false);
        }
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>()
        && number.to_string() == text
    {
        return json!(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number.to_string() == text => json!(number),
        _ => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_become_long_ones() {
        let text = "A: !Ref B\nC: !GetAtt D.E.F\nG: !Sub '${H}'\nI: !If [J, !Ref K, !Condition L]\n\
                    M: !Join ['', [a, 1]]\nN: !Base64\n  Fn::Sub: x\n";
        let expected = json!({
            "A": {"Ref": "B"},
            "C": {"Fn::GetAtt": ["D", "E.F"]},
            "G": {"Fn::Sub": "${H}"},
            "I": {"Fn::If": ["J", {"Ref": "K"}, {"Condition": "L"}]},
            "M": {"Fn::Join": ["", ["a", 1]]},
            "N": {"Fn::Base64": {"Fn::Sub": "x"}},
        });
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn scalars_stay_what_people_mean() {
        let text = "a: 2012-10-17\nb: 012345678901\nc: 1.10\nd: 80\ne: 0.5\nf: yes\ng: 'yes'\nh: !!str \
         80\ni:\nj: 'x\n  y'\n";
        let expected = json!({
            "a": "2012-10-17", "b": "012345678901", "c": "1.10", "d": 80, "e": 0.5, "f": true, "g": "yes",
            "h": "80", "i": null, "j": "x y",
        });
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_template_is_told_where() {
        let told = |text: &str| read(text).unwrap_err().message;
        assert_eq!(
            told("{\"a\": }"),
            "Template format error: JSON not well-formed. (line 1, column 7)"
        );
        assert!(
            told("a: [1, 2").starts_with("Template format error: YAML not well-formed. (line ")
        );
        assert_eq!(told("hello"), "Template format error: unsupported structure.");
        assert_eq!(told(""), "Template format error: unsupported structure.");
        assert!(told("a: &x 1\nb: *x\n").contains("aliases"));
        assert!(told(&"[".repeat(10_000)).contains("well-formed"));
        assert!(told(&"{\"a\":".repeat(10_000)).contains("well-formed"));
    }
}

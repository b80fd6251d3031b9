//! AWS's constraints, in AWS's words: "1 validation error detected: Value 'x' at 'name' failed to satisfy
//! constraint: Member must …".

use crate::{
    fault::Fault,
    shape::{Family, Kind, Mark, ServiceSpec, Shape},
    value::Value,
};

/// AWS stops listing after this many.
const MOST_ERRORS: usize = 10;

/// Checks a decoded request against its shape's constraints and marks.
pub(crate) fn validate(spec: &ServiceSpec, shape: &Shape, value: &Value) -> Result<(), Fault> {
    let mut found = Found { errors: Vec::new(), refusal: None, missing: None };
    check(shape, Some(value), &mut Path::default(), true, false, &mut found);
    if !found.errors.is_empty() {
        return Err(constraint_fault(spec, &found));
    }
    match found.refusal {
        None => Ok(()),
        Some((path, reason)) => {
            let message = format!("Neargate does not support {path}: {reason}");
            Err(Fault::new(spec.refusal_code, message))
        }
    }
}

fn constraint_fault(spec: &ServiceSpec, found: &Found) -> Fault {
    if spec.family == Family::Ec2
        && let Some(name) = &found.missing
    {
        let message = format!("The request must contain the parameter {name}");
        return Fault::new("MissingParameter", message);
    }
    let count = found.errors.len();
    let plural = if count == 1 { "error" } else { "errors" };
    let listed = found.errors[..count.min(MOST_ERRORS)].join("; ");
    Fault::new(spec.constraint_code, format!("{count} validation {plural} detected: {listed}"))
}

struct Found {
    errors: Vec<String>,
    refusal: Option<(String, &'static str)>,
    missing: Option<String>,
}

#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn text(&self) -> String {
        self.0.join(".")
    }
}

fn check(
    shape: &Shape,
    value: Option<&Value>,
    path: &mut Path,
    required: bool,
    sensitive: bool,
    found: &mut Found,
) {
    let Some(value) = value else {
        if required {
            let at = path.text();
            found.errors.push(format!(
                "Value null at '{at}' failed to satisfy constraint: Member must not be null"
            ));
            found.missing.get_or_insert(at);
        }
        return;
    };
    let sensitive = sensitive || shape.sensitive;
    let mut fail = |constraint: String| {
        let shown = if sensitive { String::new() } else { format!(" '{}'", shown(value)) };
        let at = path.text();
        found.errors.push(format!(
            "Value{shown} at '{at}' failed to satisfy constraint: Member must {constraint}"
        ));
    };
    match (&shape.kind, value) {
        (Kind::String { values }, Value::String(text)) => {
            check_length(shape, text.encode_utf16().count(), &mut fail);
            if let Some(pattern) = shape.constraint.pattern
                && !pattern.matches_whole(text)
            {
                fail(format!("satisfy regular expression pattern: {}", pattern.source()));
            }
            if !values.is_empty() && !values.contains(&text.as_str()) {
                fail(format!("satisfy enum value set: [{}]", values.join(", ")));
            }
        }
        (Kind::Blob, Value::Blob(bytes)) => check_length(shape, bytes.len(), &mut fail),
        (Kind::Integer { .. }, Value::Integer(number)) => {
            if let Some(min) = shape.constraint.min.filter(|min| number < min) {
                fail(format!("have value greater than or equal to {min}"));
            }
            if let Some(max) = shape.constraint.max.filter(|max| number > max) {
                fail(format!("have value less than or equal to {max}"));
            }
        }
        (Kind::List { member, .. }, Value::List(items)) => {
            check_length(shape, items.len(), &mut fail);
            for (index, item) in items.iter().enumerate() {
                path.0.push(format!("{}.member", index + 1));
                check(member, Some(item), path, false, sensitive, found);
                path.0.pop();
            }
        }
        (Kind::Map { key, value: shape_of_value, .. }, Value::Map(entries)) => {
            check_length(shape, entries.len(), &mut fail);
            for (name, item) in entries {
                path.0.push(name.chars().take(64).collect());
                check(key, Some(&Value::String(name.clone())), path, false, sensitive, found);
                check(shape_of_value, Some(item), path, false, sensitive, found);
                path.0.pop();
            }
        }
        (Kind::Structure(members), Value::Structure(values)) => {
            for (member, item) in members.iter().zip(values) {
                path.0.push(member.name.to_owned());
                if let (Mark::Refused(reason), Some(item)) = (member.mark, item)
                    && says_something(item)
                {
                    found.refusal.get_or_insert_with(|| (path.text(), reason));
                }
                check(member.shape, item.as_ref(), path, member.required, sensitive, found);
                path.0.pop();
            }
        }
        _ => {}
    }
}

/// `false`, an empty list and the like ask for nothing, so a refused member may hold them: clients that fill in
/// every default go on working.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Boolean(on) => *on,
        Value::List(items) => !items.is_empty(),
        Value::Map(entries) => !entries.is_empty(),
        Value::Structure(members) => members.iter().flatten().any(says_something),
        Value::String(text) => !text.is_empty(),
        Value::Integer(_) | Value::Double(_) | Value::Blob(_) | Value::Timestamp(_) => true,
    }
}

fn check_length(shape: &Shape, length: usize, fail: &mut impl FnMut(String)) {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    if let Some(min) = shape.constraint.min.filter(|min| length < *min) {
        fail(format!("have length greater than or equal to {min}"));
    }
    if let Some(max) = shape.constraint.max.filter(|max| length > *max) {
        fail(format!("have length less than or equal to {max}"));
    }
}

/// A value as AWS shows it in a message, cut to a size that fits one.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Boolean(on) => on.to_string(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let inner = entries.iter().map(|(key, value)| format!("{key}={}", shown(value)));
            format!("{{{}}}", inner.collect::<Vec<_>>().join(", "))
        }
        Value::Blob(_) | Value::Timestamp(_) | Value::Structure(_) => "…".to_owned(),
    };
    match text.char_indices().nth(1024) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

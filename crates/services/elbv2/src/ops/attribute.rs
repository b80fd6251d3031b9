//! Attributes: text under well-known keys. Those that do something here take what AWS takes; the others are told with
//! AWS's defaults and take nothing else.

use crate::faults;
use std::collections::BTreeMap;
use wire::Fault;

/// An attribute that AWS knows.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Its key.
    pub(super) key: &'static str,
    /// Its value unless it is set.
    pub(super) default: &'static str,
    /// What it can be set to.
    pub(super) takes: Takes,
}

/// What an attribute can be set to.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    /// `true` or `false`.
    Flag,
    /// A whole number within these, both included.
    Range(u32, u32),
    /// 0, or a whole number within these.
    ZeroOr(u32, u32),
    /// Text of at most so many bytes.
    Text(usize),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// AWS itself takes nothing but the default.
    Fixed,
    /// Only the default, since what it would change is not built.
    Unbuilt,
}

/// An attribute in a table.
pub(super) const fn known(key: &'static str, default: &'static str, takes: Takes) -> Known {
    Known { key, default, takes }
}

/// What is set by `wanted`, if all of it can be. `what` is `Load balancer` or `Target group`.
pub(super) fn changes(
    what: &str,
    table: &[Known],
    wanted: impl Iterator<Item = (Option<String>, Option<String>)>,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut changes = BTreeMap::new();
    for (key, value) in wanted {
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        let known = table.iter().find(|known| known.key == key);
        let known = known.ok_or_else(|| {
            faults::invalid(format!("{what} attribute key '{key}' is not recognized"))
        })?;
        check(what, known, &value)?;
        changes.insert(key, value);
    }
    match changes.is_empty() {
        true => Err(faults::invalid(format!("{what} attributes must be specified"))),
        false => Ok(changes),
    }
}

fn check(what: &str, known: &Known, value: &str) -> Result<(), Fault> {
    let key = known.key;
    let bad = |expected: String| {
        let value: String = value.chars().take(256).collect();
        let message = format!("{what} attribute value '{value}' for key '{key}' {expected}");
        Err(faults::invalid(message))
    };
    match known.takes {
        Takes::Flag if value != "true" && value != "false" => {
            bad("must be 'true' or 'false'".to_owned())
        }
        Takes::Range(least, most) => match value.parse::<u32>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            _ => bad(format!("must be between '{least}' and '{most}' inclusive")),
        },
        Takes::ZeroOr(least, most) => match value.parse::<u32>() {
            Ok(number) if number == 0 || (least..=most).contains(&number) => Ok(()),
            _ => bad(format!("must be '0' or between '{least}' and '{most}' inclusive")),
        },
        Takes::Text(most) if value.len() > most => bad(format!("can be {most} bytes long at most")),
        Takes::OneOf(all) if !all.contains(&value) => {
            bad(format!("must be one of '{}'", all.join(", ")))
        }
        Takes::Fixed if value != known.default => {
            bad(format!("is not valid: it cannot be changed from '{}'", known.default))
        }
        Takes::Unbuilt if value != known.default => Err(faults::not_built(
            &format!("{what} attribute '{key}' with the value '{value}'").to_lowercase(),
            &format!("only its default, '{}', is built", known.default),
        )),
        _ => Ok(()),
    }
}

/// All attributes with their values.
pub(super) fn listed(
    table: &[Known],
    set: &BTreeMap<String, String>,
) -> Vec<(Option<String>, Option<String>)> {
    let value = |known: &Known| {
        let value = set.get(known.key).cloned().unwrap_or_else(|| known.default.to_owned());
        (Some(known.key.to_owned()), Some(value))
    };
    table.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Known; 5] = [
        known("flag", "false", Takes::Flag),
        known("range", "60", Takes::Range(1, 4000)),
        known("choice", "append", Takes::OneOf(&["append", "remove"])),
        known("fixed", "true", Takes::Fixed),
        known("unbuilt", "", Takes::Unbuilt),
    ];

    fn set(key: &str, value: &str) -> Result<BTreeMap<String, String>, Fault> {
        changes("Load balancer", &TABLE, [(Some(key.into()), Some(value.into()))].into_iter())
    }

    #[test]
    fn values() {
        for (key, value) in [
            ("flag", "true"),
            ("range", "4000"),
            ("choice", "remove"),
            ("fixed", "true"),
            ("unbuilt", ""),
        ] {
            assert_eq!(set(key, value).unwrap()[key], value);
        }
        for (key, value, says) in [
            ("flag", "yes", "must be 'true' or 'false'"),
            ("range", "0", "between '1' and '4000'"),
            ("range", "x", "between '1' and '4000'"),
            ("choice", "x", "one of 'append, remove'"),
            ("fixed", "false", "cannot be changed"),
            ("unbuilt", "x", "Neargate does not support"),
            ("other", "x", "Load balancer attribute key 'other' is not recognized"),
        ] {
            let fault = set(key, value).unwrap_err();
            assert!(fault.message.contains(says), "{key}: {}", fault.message);
        }
    }
}

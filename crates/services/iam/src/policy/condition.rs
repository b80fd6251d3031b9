//! Condition blocks.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>

use super::{
    document::{Malformed, texts},
    pattern,
};
use serde_json::{Map, Value};
use std::net::IpAddr;
use world::Timestamp;

/// One key of one operator, with its values.
#[derive(Debug)]
pub(super) struct Condition {
    operator: Operator,
    negated: bool,
    if_exists: bool,
    quantifier: Quantifier,
    key: String,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    Numeric(Comparison),
    Date(Comparison),
    Bool,
    BinaryEquals,
    IpAddress,
    Arn,
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equals,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    Plain,
    ForAllValues,
    ForAnyValue,
}

impl Condition {
    pub(super) fn read_all(operators: &Map<String, Value>) -> Result<Vec<Self>, Malformed> {
        let mut conditions = Vec::new();
        for (name, keys) in operators {
            let Value::Object(keys) = keys else { return Err(Malformed::Syntax) };
            let unknown = || Malformed::ConditionType(name.chars().take(64).collect());
            let (quantifier, rest) = match name.split_once(':') {
                None => (Quantifier::Plain, name.as_str()),
                Some(("ForAllValues", rest)) => (Quantifier::ForAllValues, rest),
                Some(("ForAnyValue", rest)) => (Quantifier::ForAnyValue, rest),
                Some(_) => return Err(unknown()),
            };
            let (rest, if_exists) = match rest.strip_suffix("IfExists") {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let (operator, negated) = operator(rest).ok_or_else(unknown)?;
            if operator == Operator::Null && (if_exists || quantifier != Quantifier::Plain) {
                return Err(unknown());
            }
            for (key, value) in keys {
                let (key, values) = (key.clone(), texts(value)?);
                conditions.push(Self { operator, negated, if_exists, quantifier, key, values });
            }
        }
        Ok(conditions)
    }

    /// Whether it holds for a request that has `found` under the key (`None`: the key is absent). `expand` replaces
    /// policy variables, or gives `None` when one has no value: then nothing matches that value.
    pub(super) fn holds(
        &self,
        found: Option<&[String]>,
        expand: impl Fn(&str) -> Option<String>,
    ) -> bool {
        if self.operator == Operator::Null {
            return self.values.iter().all(|value| (value == "true") == found.is_none());
        }
        let Some(found) = found else {
            return self.if_exists
                || self.quantifier == Quantifier::ForAllValues
                || self.negated && self.quantifier == Quantifier::Plain;
        };
        let wanted: Vec<String> = self.values.iter().filter_map(|value| expand(value)).collect();
        let one = |value: &String| {
            let matched = wanted.iter().any(|wanted| self.compare(wanted, value));
            matched != self.negated
        };
        match self.quantifier {
            Quantifier::ForAllValues => found.iter().all(one),
            Quantifier::Plain if self.negated => found.iter().all(one),
            Quantifier::Plain | Quantifier::ForAnyValue => found.iter().any(one),
        }
    }

    /// The key, in lower case: keys are not case-sensitive.
    pub(super) fn key(&self) -> String {
        self.key.to_ascii_lowercase()
    }

    fn compare(&self, wanted: &str, value: &str) -> bool {
        match self.operator {
            Operator::StringEquals | Operator::BinaryEquals => wanted == value,
            Operator::StringEqualsIgnoreCase => wanted.to_lowercase() == value.to_lowercase(),
            Operator::StringLike => pattern::matches(wanted, value),
            Operator::Numeric(how) => both(wanted, value, |text| text.parse::<f64>().ok())
                .is_some_and(|(wanted, value)| how.compare(value, wanted)),
            Operator::Date(how) => {
                both(wanted, value, date).is_some_and(|(wanted, value)| how.compare(value, wanted))
            }
            Operator::Bool => wanted.eq_ignore_ascii_case(value),
            Operator::IpAddress => in_block(wanted, value),
            Operator::Arn => pattern::arn_matches(wanted, value),
            Operator::Null => unreachable!("Null is answered before values are compared"),
        }
    }
}

fn operator(name: &str) -> Option<(Operator, bool)> {
    use Comparison::{Equals, Greater, GreaterOrEqual, Less, LessOrEqual};
    Some(match name {
        "StringEquals" => (Operator::StringEquals, false),
        "StringNotEquals" => (Operator::StringEquals, true),
        "StringEqualsIgnoreCase" => (Operator::StringEqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Operator::StringEqualsIgnoreCase, true),
        "StringLike" => (Operator::StringLike, false),
        "StringNotLike" => (Operator::StringLike, true),
        "NumericEquals" => (Operator::Numeric(Equals), false),
        "NumericNotEquals" => (Operator::Numeric(Equals), true),
        "NumericLessThan" => (Operator::Numeric(Less), false),
        "NumericLessThanEquals" => (Operator::Numeric(LessOrEqual), false),
        "NumericGreaterThan" => (Operator::Numeric(Greater), false),
        "NumericGreaterThanEquals" => (Operator::Numeric(GreaterOrEqual), false),
        "DateEquals" => (Operator::Date(Equals), false),
        "DateNotEquals" => (Operator::Date(Equals), true),
        "DateLessThan" => (Operator::Date(Less), false),
        "DateLessThanEquals" => (Operator::Date(LessOrEqual), false),
        "DateGreaterThan" => (Operator::Date(Greater), false),
        "DateGreaterThanEquals" => (Operator::Date(GreaterOrEqual), false),
        "Bool" => (Operator::Bool, false),
        "BinaryEquals" => (Operator::BinaryEquals, false),
        "IpAddress" => (Operator::IpAddress, false),
        "NotIpAddress" => (Operator::IpAddress, true),
        "ArnEquals" | "ArnLike" => (Operator::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Operator::Arn, true),
        "Null" => (Operator::Null, false),
        _ => return None,
    })
}

impl Comparison {
    fn compare(self, value: f64, wanted: f64) -> bool {
        match self {
            Self::Equals => value == wanted,
            Self::Less => value < wanted,
            Self::LessOrEqual => value <= wanted,
            Self::Greater => value > wanted,
            Self::GreaterOrEqual => value >= wanted,
        }
    }
}

fn both<T>(a: &str, b: &str, read: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    Some((read(a)?, read(b)?))
}

/// RFC 3339, a bare day, or seconds since the epoch.
fn date(text: &str) -> Option<f64> {
    let day = || Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"));
    let time = Timestamp::parse_rfc3339(text).or_else(day);
    time.map(Timestamp::seconds_f64).or_else(|| text.parse().ok())
}

/// Whether an address lies in a CIDR block (or is the one address).
fn in_block(block: &str, address: &str) -> bool {
    let (network, bits) = match block.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok()),
        None => (block, Some(128)),
    };
    match (network.parse(), address.parse(), bits) {
        (Ok(IpAddr::V4(network)), Ok(IpAddr::V4(address)), Some(bits)) => {
            let kept = 32 - bits.min(32);
            (u64::from(network.to_bits()) >> kept) == (u64::from(address.to_bits()) >> kept)
        }
        (Ok(IpAddr::V6(network)), Ok(IpAddr::V6(address)), Some(bits)) => {
            let kept = 128 - bits.min(128);
            let shift = |bits: u128| bits.checked_shr(kept).unwrap_or(0);
            shift(network.to_bits()) == shift(address.to_bits())
        }
        _ => false,
    }
}

//! Values whose form is known to fit a shape, between the protocols and the generated structs.

use bytes::Bytes;
use std::collections::BTreeMap;
use world::Timestamp;

/// A value that fits some [`crate::Shape`]: the walk that made it has checked that.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `Kind::Boolean`.
    Boolean(bool),
    /// `Kind::Integer`, within its bits.
    Integer(i64),
    /// `Kind::Double`.
    Double(f64),
    /// `Kind::String`.
    String(String),
    /// `Kind::Blob`.
    Blob(Bytes),
    /// `Kind::Timestamp`.
    Timestamp(Timestamp),
    /// `Kind::List`.
    List(Vec<Value>),
    /// `Kind::Map`.
    Map(Vec<(String, Value)>),
    /// `Kind::Structure`: one place per member, in the shape's order.
    Structure(Vec<Option<Value>>),
}

impl Value {
    /// The members of a structure, to be taken one by one.
    pub fn fields(self) -> Fields {
        match self {
            Self::Structure(members) => Fields(members),
            other => unreachable!("the decoder gives structures for structures, not {other:?}"),
        }
    }
}

/// The members of a structure, taken by their index in the shape.
pub struct Fields(Vec<Option<Value>>);

impl Fields {
    /// Takes an optional member.
    pub fn optional<T: FromValue>(&mut self, index: usize) -> Option<T> {
        self.0[index].take().map(T::from_value)
    }

    /// Takes a required member. Validation has refused requests without it.
    pub fn required<T: FromValue>(&mut self, index: usize) -> T {
        let value = self.0[index].take().expect("validation refused requests without this member");
        T::from_value(value)
    }
}

/// Made from a value of the right form. Generated structs and enums implement it.
pub trait FromValue {
    /// `value` fits the shape that `Self` was generated from.
    fn from_value(value: Value) -> Self;
}

/// Turns into a value of the right form.
pub trait IntoValue {
    /// The value, fitting the shape that `Self` was generated from.
    fn into_value(self) -> Value;
}

macro_rules! scalar {
    ($type:ty, $variant:ident, $from:expr, $into:expr) => {
        impl FromValue for $type {
            fn from_value(value: Value) -> Self {
                match value {
                    Value::$variant(inner) => $from(inner),
                    other => unreachable!(
                        concat!("the decoder gives ", stringify!($variant), ", not {:?}"),
                        other
                    ),
                }
            }
        }
        impl IntoValue for $type {
            fn into_value(self) -> Value {
                Value::$variant($into(self))
            }
        }
    };
}

scalar!(bool, Boolean, |b| b, |b| b);
scalar!(i64, Integer, |i| i, |i| i);
scalar!(i32, Integer, |i: i64| i32::try_from(i).expect("the decoder checked the bits"), i64::from);
scalar!(f64, Double, |d| d, |d| d);
scalar!(String, String, |s| s, |s| s);
scalar!(Bytes, Blob, |b| b, |b| b);
scalar!(Timestamp, Timestamp, |t| t, |t| t);

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Self {
        match value {
            Value::List(items) => items.into_iter().map(T::from_value).collect(),
            other => unreachable!("the decoder gives lists for lists, not {other:?}"),
        }
    }
}

impl<T: IntoValue> IntoValue for Vec<T> {
    fn into_value(self) -> Value {
        Value::List(self.into_iter().map(T::into_value).collect())
    }
}

impl<T: FromValue> FromValue for BTreeMap<String, T> {
    fn from_value(value: Value) -> Self {
        match value {
            Value::Map(entries) => {
                entries.into_iter().map(|(key, value)| (key, T::from_value(value))).collect()
            }
            other => unreachable!("the decoder gives maps for maps, not {other:?}"),
        }
    }
}

impl<T: IntoValue> IntoValue for BTreeMap<String, T> {
    fn into_value(self) -> Value {
        Value::Map(self.into_iter().map(|(key, value)| (key, value.into_value())).collect())
    }
}

impl<T: FromValue> FromValue for Box<T> {
    fn from_value(value: Value) -> Self {
        Box::new(T::from_value(value))
    }
}

impl<T: IntoValue> IntoValue for Box<T> {
    fn into_value(self) -> Value {
        (*self).into_value()
    }
}

/// What operations without a request take.
impl FromValue for () {
    fn from_value(_: Value) -> Self {}
}

/// What operations without an answer give.
impl IntoValue for () {
    fn into_value(self) -> Value {
        Value::Structure(Vec::new())
    }
}

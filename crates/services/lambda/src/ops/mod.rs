//! One function per operation.

pub(crate) mod invoke;

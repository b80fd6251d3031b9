//! Neargate.
fn main() {}

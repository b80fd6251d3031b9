//! Any filter pattern on any line: nothing panics, and the ways to ask agree with each other.
//!
//!     cargo +nightly fuzz run pattern

#![no_main]

use libfuzzer_sys::fuzz_target;
use logstore::pattern::{Pattern, Selector};

fuzz_target!(|input: (&str, &str)| {
    let (pattern, line) = input;
    if let Ok(selector) = Selector::parse(pattern) {
        selector.value(line);
    }
    if let Ok(pattern) = Pattern::parse(pattern) {
        let matches = pattern.matches(line);
        assert_eq!(pattern.extract(line).is_some(), matches);
        assert!(!matches || pattern.may_match(line));
    }
});

//! Any text as an image name: what parses, parses to itself.
#![no_main]

use images::{Digest, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    if let Ok(reference) = input.parse::<Reference>() {
        let full = reference.to_string();
        assert_eq!(full.parse::<Reference>().expect("its full form").to_string(), full);
        assert!(!reference.repository().contains(".."));
        assert!(!reference.selector().is_empty());
    }
    if let Ok(digest) = input.parse::<Digest>() {
        assert_eq!(digest.to_string(), input);
    }
});

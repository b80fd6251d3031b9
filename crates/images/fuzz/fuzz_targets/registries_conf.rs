//! Any text as registries.conf, and what it makes of names.
#![no_main]

use images::{Reference, Registries};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|input: &str| {
    let mut registries = Registries::default();
    if registries.add(input, Path::new("registries.conf")).is_ok() {
        for name in ["nginx", "a.b/c/d:e", "localhost:5000/x", "sub.example.com/team/app"] {
            let reference: Reference = name.parse().expect("a name");
            if let Ok(endpoints) = registries.endpoints(&reference) {
                assert!(!endpoints.is_empty());
            }
        }
    }
});

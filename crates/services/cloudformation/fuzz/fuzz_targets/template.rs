//! Any text as a template: it is read, transformed and evaluated, or refused; nothing panics, hangs or grows without
//! bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    // What it comes to does not matter.
    let _ = cloudformation::template::attempt(&text);
    // Most text is no template: as properties, it reaches the functions.
    let _ = cloudformation::template::attempt(&format!(
        "Resources:\n  R:\n    Type: A\n    Properties: {text}"
    ));
});

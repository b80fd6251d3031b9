//! Any bytes as a manifest and as an image configuration.
#![no_main]

use images::{ImageConfig, Manifest, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Ok(manifest) = Manifest::parse(input, "") {
        manifest.children();
        match manifest {
            Manifest::Index(index) => drop(index.select(&Platform::linux("amd64"))),
            Manifest::Image(image) => drop(image.check_runnable()),
        }
    }
    if let Ok(config) = ImageConfig::parse(input) {
        drop(config.check_layers(1));
    }
});

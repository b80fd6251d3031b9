//! Any bytes as a layer: they unpack or are refused, and nothing outside is touched or left behind.
//! Needs root.
#![no_main]

use images::{Digest, LayerLimits, LayerStore};
use libfuzzer_sys::fuzz_target;
use world::World;

fuzz_target!(|input: &[u8]| {
    let mut tar = input.to_vec();
    // The checksum is no secret: with it mended, damage reaches what lies behind it.
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let root = dir.path().join("layers");
    let limits = LayerLimits { max_bytes: 4 << 20, max_entries: 1000, max_name_bytes: 1 << 20 };
    let store = LayerStore::open(&root, &World::system(), limits).expect("an empty store");
    if let Ok(prepared) = store.prepare(&Digest::of(&tar), &tar[..]) {
        let layer = prepared.publish().expect("a name for it");
        store.seam(&[layer.clone(), layer]).expect("a layer over itself");
    }
    let left = std::fs::read_dir(root.join("tmp")).expect("the directory").count();
    assert_eq!(left, 0, "something is left");
    assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 1, "it escaped");
});

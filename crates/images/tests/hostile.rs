//! Any bytes at all may claim to be a layer.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use images::{Digest, LayerLimits, LayerStore};
use proptest::prelude::*;
use support::tar_of;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_unpack_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        try_unpack(&bytes)?;
    }

    #[test]
    fn a_damaged_tar_unpacks_or_is_refused(
        at in 0usize..2560, byte in any::<u8>(), cut in 0usize..2560, squeeze in any::<bool>(),
    ) {
        let mut tar = tar_of(&[("dir/a", b"content"), ("b", &[7; 600])]);
        tar[at] = byte;
        tar.truncate(tar.len() - cut.min(tar.len() / 2));
        if squeeze {
            let mut gzip = support::gzip(&tar).bytes;
            let middle = gzip.len() / 2;
            gzip[middle] = byte;
            return try_unpack(&gzip);
        }
        try_unpack(&tar)?;
    }
}

fn try_unpack(bytes: &[u8]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("layers");
    let store = LayerStore::open(&root, &World::system(), LayerLimits::default()).unwrap();
    let done = store.prepare(&Digest::of(bytes), bytes).map(drop); // dropped: never published
    prop_assert!(std::fs::read_dir(root.join("tmp")).unwrap().next().is_none(), "{done:?}");
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    prop_assert_eq!(names, 1);
    Ok(())
}

//! Secrets at rest.

#![allow(clippy::unwrap_used)] // a failure here is a failed test

use std::os::unix::fs::PermissionsExt;
use store::{SealError, Sealed, Sealer};
use tempfile::TempDir;
use world::World;

#[tokio::test]
async fn what_is_sealed_opens_with_the_same_key_and_context_only() {
    let dir = TempDir::new().unwrap();
    let sealer = Sealer::load(dir.path(), World::system()).unwrap();
    let sealed = sealer.seal("arn:a/1", b"hunter2");
    assert_ne!(sealed, sealer.seal("arn:a/1", b"hunter2"), "a fresh nonce each time");
    let again = Sealer::load(dir.path(), World::system()).unwrap();
    assert_eq!(again.open("arn:a/1", &sealed).unwrap(), b"hunter2");
    let wrong = again.open("arn:a/2", &sealed).unwrap_err();
    assert!(matches!(wrong, SealError::Open { context } if context == "arn:a/2"));
    let stranger = Sealer::in_memory(World::system());
    assert!(stranger.open("arn:a/1", &sealed).is_err());
    assert_eq!(sealer.open("", &sealer.seal("", b"")).unwrap(), b"");
}

#[tokio::test]
async fn sealed_json_is_text_that_tells_nothing_and_takes_no_change() {
    let sealer = Sealer::in_memory(World::system());
    let sealed = sealer.seal("c", b"hunter2 hunter2 hunter2");
    let json = serde_json::to_string(&sealed).unwrap();
    assert!(!json.contains("hunter2") && !format!("{sealed:?}").contains("hunter2"));
    assert_eq!(serde_json::from_str::<Sealed>(&json).unwrap(), sealed);
    for (at, letter) in json.char_indices().skip(1).take(json.len() - 2) {
        let other = if letter == 'A' { 'B' } else { 'A' };
        let mut changed = json.clone();
        changed.replace_range(at..=at, &other.to_string());
        if let Ok(changed) = serde_json::from_str::<Sealed>(&changed) {
            assert!(sealer.open("c", &changed).is_err(), "a change at {at} went unnoticed");
        }
    }
    for short in ["\"\"", "\"AQ==\"", "\"AQAAAAAAAAAAAAAAAA==\""] {
        let cut: Sealed = serde_json::from_str(short).unwrap();
        assert!(sealer.open("c", &cut).is_err());
    }
    assert!(serde_json::from_str::<Sealed>("\"not base64!\"").is_err());
}

#[tokio::test]
async fn the_key_file_is_private_whole_and_never_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sealing.key");
    drop(Sealer::load(dir.path(), World::system()).unwrap());
    let key = std::fs::read(&path).unwrap();
    assert_eq!((key.len(), path.metadata().unwrap().permissions().mode() & 0o777), (32, 0o600));

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let error = Sealer::load(dir.path(), World::system()).err().unwrap();
    assert!(matches!(error, SealError::KeyMode { mode: 0o644, .. }));

    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&path, &key[..31]).unwrap();
    let error = Sealer::load(dir.path(), World::system()).err().unwrap();
    assert!(matches!(error, SealError::KeyLength { found: 31, .. }));
}

#[tokio::test]
async fn a_crash_while_the_key_was_made_does_not_stop_the_next_start() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("sealing.key.new"), b"half").unwrap();
    let sealer = Sealer::load(dir.path(), World::system()).unwrap();
    assert_eq!(sealer.open("c", &sealer.seal("c", b"x")).unwrap(), b"x");
}

//! The blob store: verified, resumable, swept with care, and clean on a full disk.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use images::{Algorithm, BlobError, BlobStore, Digest, Failure, Hasher, Images, ImagesOptions};
use images::{Platform, Policy, Registries, RegistrySource};
use std::{path::Path, process::Command, sync::Arc, time::Duration};
use support::registry::Registry;
use support::{Content, noise, plain, silent, tar_of};
use world::{Timestamp, World};

fn files(dir: &Path) -> Vec<String> {
    let found = Command::new("find").arg(dir).args(["-type", "f"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(String::from).collect()
}

#[tokio::test]
async fn blobs_are_verified_and_readable_in_parts() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
    let store = BlobStore::open(dir.path(), &world).unwrap();
    let bytes = noise(100_000, 1);
    let digest = Digest::of(&bytes);
    assert!(matches!(store.get(&digest).await, Err(BlobError::NotFound(_))));
    let wrong = store.put(&Digest::of(b"x"), bytes.clone().into()).await;
    assert!(matches!(wrong, Err(BlobError::Mismatch { .. })));
    store.put(&digest, bytes.clone().into()).await.unwrap();
    let blob = store.get(&digest).await.unwrap();
    assert_eq!(blob.size, 100_000);
    assert_eq!(blob.read_at(99_990, 50).await.unwrap(), bytes[99_990..]);
    assert_eq!(blob.read_at(200_000, 50).await.unwrap().len(), 0);
    let (hex, path) = (digest.hex(), files(dir.path()).remove(0));
    assert!(path.ends_with(&format!("blobs/sha256/{}/{hex}", &hex[..2])), "{path}");
    // Rot on the disk is noticed where whole blobs are read.
    std::fs::write(&path, noise(100_000, 2)).unwrap();
    assert!(matches!(store.read(&digest, 1 << 20).await, Err(BlobError::Mismatch { .. })));
    assert!(store.delete(&digest).await.unwrap() && !store.delete(&digest).await.unwrap());
    assert!(!store.exists(&digest).await.unwrap());
}

#[tokio::test]
async fn uploads_survive_a_restart() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
    let bytes = noise(3_000_000, 1);
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(&bytes);
    for digest in [Digest::of(&bytes), hasher.finish()] {
        let store = BlobStore::open(dir.path(), &world).unwrap();
        let mut upload = store.start().await.unwrap();
        let id = upload.id().to_string();
        upload.append(bytes[..1_000_000].to_vec().into()).await.unwrap();
        assert!(matches!(store.resume(&id).await, Err(BlobError::UploadBusy(_))));
        upload.flush().await.unwrap();
        drop((upload, store));
        let store = BlobStore::open(dir.path(), &world).unwrap();
        let mut upload = store.resume(&id).await.unwrap();
        assert_eq!(upload.offset(), 1_000_000);
        let gap = upload.check_offset(999_999);
        assert!(matches!(gap, Err(BlobError::OutOfOrder { have: 1_000_000, .. })));
        upload.append(bytes[1_000_000..].to_vec().into()).await.unwrap();
        assert!(!store.exists(&digest).await.unwrap(), "nothing unfinished is visible");
        upload.finish(&digest).await.unwrap();
        assert_eq!(store.size(&digest).await.unwrap(), Some(3_000_000));
        assert!(matches!(store.resume(&id).await, Err(BlobError::UploadUnknown(_))));
    }
    let store = BlobStore::open(dir.path(), &world).unwrap();
    for bad in ["", "../../etc/passwd", "0123456789abcdef0123456789abcdef"] {
        assert!(matches!(store.resume(bad).await, Err(BlobError::UploadUnknown(_))), "{bad}");
    }
    let mut upload = store.start().await.unwrap();
    upload.append(b"x".to_vec().into()).await.unwrap();
    assert!(upload.finish(&Digest::of(b"y")).await.is_err());
    let cancelled = store.start().await.unwrap();
    cancelled.cancel().await.unwrap();
    assert_eq!(files(&dir.path().join("uploads")).len(), 0);
    assert_eq!(files(dir.path()).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_blob_from_many_hands() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::system());
    let store = BlobStore::open(dir.path(), &world).unwrap();
    let bytes = noise(500_000, 1);
    let digest = Digest::of(&bytes);
    let puts = (0..16).map(|_| store.put(&digest, bytes.clone().into()));
    let done = futures_util::future::join_all(puts).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(store.read(&digest, 1 << 20).await.unwrap(), bytes);
    assert_eq!(files(dir.path()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_spares_the_young_and_the_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::simulated(1, Timestamp::from_millis(1_800_000_000_000));
    let store = BlobStore::open(dir.path(), &world).unwrap();
    let digests: Vec<Digest> =
        ["old", "wanted", "renewed"].map(|t| Digest::of(t.as_bytes())).into();
    for text in ["old", "wanted", "renewed"] {
        store.put(&Digest::of(text.as_bytes()), text.into()).await.unwrap();
    }
    let upload = store.start().await.unwrap();
    let hour = Duration::from_secs(3600);
    assert_eq!(store.sweep(|_| false, hour).await.unwrap().blobs, 0);
    world.sleep(2 * hour).await;
    assert!(store.renew(&digests[2]).await.unwrap());
    store.put(&Digest::of(b"young"), "young".into()).await.unwrap();
    let wanted = digests[1].clone();
    let swept = store.sweep(move |digest| *digest == wanted, hour).await.unwrap();
    assert_eq!((swept.blobs, swept.bytes), (1, 3));
    assert!(!store.exists(&digests[0]).await.unwrap());
    assert!(store.exists(&digests[1]).await.unwrap() && store.exists(&digests[2]).await.unwrap());
    assert_eq!(store.expire_uploads(hour).await.unwrap(), 0, "somebody holds it");
    let id = upload.id().to_string();
    drop(upload);
    assert_eq!(store.expire_uploads(hour).await.unwrap(), 1);
    assert!(matches!(store.resume(&id).await, Err(BlobError::UploadUnknown(_))));
}

/// A file system of a few megabytes.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size},mode=700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path());
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: needs the right to mount");
            return None;
        }
        Some(Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_left_clean() {
    let Some(small) = Small::new("2m") else { return };
    let world = World::system();
    let store = BlobStore::open(&small.0.path().join("ecr"), &world).unwrap();
    let bytes = noise(4 << 20, 1);
    let failed = store.put(&Digest::of(&bytes), bytes.into()).await.unwrap_err();
    assert!(matches!(&failed, BlobError::Disk(disk) if disk.is_full()), "{failed:?}");
    assert!(files(small.0.path()).is_empty());

    let images = Images::open(small.0.path(), &world, ImagesOptions::default()).unwrap();
    let mut content = Content::default();
    let platform = Platform::linux("amd64");
    content.image("wide", &platform, &[plain(&tar_of(&[("big", &noise(4 << 20, 1))]))]);
    content.image("deep", &platform, &[support::gzip(&tar_of(&[("big", &vec![0; 8 << 20])]))]);
    let registry = Registry::start(&world, content).await;
    let source = RegistrySource::new(&world, Registries::default(), Arc::new(|_, _| None));
    let source: Arc<dyn images::Source> = Arc::new(source);
    for tag in ["wide", "deep"] {
        let reference = registry.reference(&format!("app:{tag}"));
        let pull = images.pull(&reference, &platform, Policy::Always, source.clone(), silent());
        let failed = pull.await.unwrap_err();
        assert_eq!(failed.failure(), Failure::DiskFull, "{tag}: {failed:?}");
        assert!(files(small.0.path()).is_empty(), "{tag}: {:?}", files(small.0.path()));
    }
}

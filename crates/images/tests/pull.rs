//! Pulling over HTTP from a registry with faults, and from a store of this machine.
//! Unpacking keeps owners and device nodes, so these tests run as root.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use images::manifest::Manifest;
use images::registry::{Credentials, CredentialsFor};
use images::{
    BlobStore, Digest, Event, Image, Images, ImagesOptions, Platform, Policy, PullError, Reference,
    Registries, RegistrySource, Source, StoreSource,
};
use std::{path::Path, sync::Arc};
use support::registry::{Door, Fault, Registry};
use support::{Content, House, gzip, noise, plain, recorder, silent, tar_of, zstd_layer};

fn nobody() -> CredentialsFor {
    Arc::new(|_, _| None)
}

fn user() -> CredentialsFor {
    Arc::new(|_, _| Some(Credentials::Basic { user: "user".into(), password: "secret".into() }))
}

fn source(house: &House, credentials: CredentialsFor) -> Arc<dyn Source> {
    Arc::new(RegistrySource::new(&house.world, Registries::default(), credentials))
}

fn amd64() -> Platform {
    Platform::linux("amd64")
}

async fn pull(house: &House, reference: &Reference) -> Result<Image, PullError> {
    let source = source(house, nobody());
    house.images.pull(reference, &amd64(), Policy::Always, source, silent()).await
}

fn kind(failed: &PullError) -> images::Failure {
    failed.failure()
}

/// The uppermost layer's content of a path.
fn read(image: &Image, path: &str) -> Vec<u8> {
    let found = image.layers.iter().rev().map(|layer| layer.join(path)).find(|p| p.exists());
    std::fs::read(found.unwrap_or_else(|| panic!("{path} is in no layer"))).unwrap()
}

fn big() -> Vec<u8> {
    tar_of(&[("big", &noise(3 << 20, 1))])
}

#[tokio::test(flavor = "multi_thread")]
async fn three_compressions_and_shared_layers() {
    let house = House::new();
    let layers = [
        gzip(&tar_of(&[("a", b"one")])),
        zstd_layer(&tar_of(&[("b", b"two")])),
        plain(&tar_of(&[("c", b"three")])),
    ];
    let mut content = Content::default();
    let digest = content.image("v1", &amd64(), &layers);
    let more = [&layers[..], &[gzip(&tar_of(&[("d", b"four")]))]].concat();
    content.image("v2", &amd64(), &more);
    let registry = Registry::start(&house.world, content).await;
    let image = pull(&house, &registry.reference("app:v1")).await.unwrap();
    assert_eq!((&image.digest, image.layers.len()), (&digest, 3));
    let contents = ["a", "b", "c"].map(|path| read(&image, path));
    assert_eq!(contents, [&b"one"[..], b"two", b"three"]);
    assert_eq!(image.config.cmd, ["/bin/true"]);
    assert!(house.rests().is_empty(), "{:?}", house.rests());

    let (progress, events) = recorder();
    let second = registry.reference("app:v2");
    let source = source(&house, nobody());
    let second =
        house.images.pull(&second, &amd64(), Policy::Always, source, progress).await.unwrap();
    assert_eq!(second.layers[..3], image.layers[..]);
    assert_eq!(house.layer_count(), 4);
    let present =
        events.lock().unwrap().iter().filter(|e| matches!(e, Event::Present { .. })).count();
    assert_eq!(present, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_here_is_not_asked_for_again() {
    let house = House::new();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[gzip(&tar_of(&[("a", b"one")]))]);
    let registry = Registry::start(&house.world, content).await;
    let reference = registry.reference("app:v1");
    let first = pull(&house, &reference).await.unwrap();
    registry.set(|state| state.log.clear());
    // Another process: only what is on disk counts.
    let reopened = Images::open(house.dir.path(), &house.world, ImagesOptions::default()).unwrap();
    let source = source(&house, nobody());
    let again = reopened.pull(&reference, &amd64(), Policy::IfMissing, source, silent()).await;
    assert_eq!(again.unwrap().layers, first.layers);
    assert!(registry.log().is_empty(), "{:?}", registry.log());
    pull(&house, &reference).await.unwrap();
    assert_eq!(registry.log(), ["/v2/app/manifests/v1"], "asked for, but not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_resumed_where_it_broke() {
    let house = House::new();
    let layer = gzip(&big());
    let length = layer.bytes.len();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[layer]);
    let registry = Registry::start(&house.world, content).await;
    // The manifest and the configuration go through, the layer's stream breaks twice.
    let none = Fault::None;
    registry.faults(&[none, none, Fault::Cut(1 << 20), Fault::Cut(1 << 19)]);
    let image = pull(&house, &registry.reference("app:v1")).await.unwrap();
    assert_eq!(read(&image, "big"), noise(3 << 20, 1));
    let ranges: Vec<String> = registry.log().into_iter().filter(|l| l.contains("bytes=")).collect();
    assert_eq!(ranges.len(), 2, "{ranges:?}");
    let config = registry.blob_bytes() - length as u64;
    assert!(config < 1000, "no byte of the layer came twice, but {config} bytes besides");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_goes_on_with_what_the_first_one_got() {
    let house = House::new();
    let layer = gzip(&big());
    let digest = Digest::of(&layer.bytes);
    let mut content = Content::default();
    content.image("v1", &amd64(), std::slice::from_ref(&layer));
    let registry = Registry::start(&house.world, content).await;
    registry.faults(&[Fault::None, Fault::None, Fault::Cut(1 << 20), Fault::Status(404)]);
    let reference = registry.reference("app:v1");
    let failed = pull(&house, &reference).await.unwrap_err();
    assert_eq!(kind(&failed), images::Failure::NotFound);
    assert_eq!(house.rests().len(), 1, "the rest of the download, and no half layer");
    let (progress, events) = recorder();
    let reopened = Images::open(house.dir.path(), &house.world, ImagesOptions::default()).unwrap();
    let fresh = source(&house, nobody());
    reopened.pull(&reference, &amd64(), Policy::Always, fresh, progress).await.unwrap();
    let asked = registry.log().into_iter().rfind(|l| l.contains(&digest.to_string())).unwrap();
    let from: usize = asked.rsplit_once("bytes=").unwrap().1.trim_end_matches('-').parse().unwrap();
    assert!(from >= 1 << 19, "resumed from {from}");
    let last = events.lock().unwrap().iter().rev().find_map(|event| match event {
        Event::Downloaded { done, total, .. } => Some((*done, *total)),
        _ => None,
    });
    assert_eq!(last.unwrap(), (layer.bytes.len() as u64, layer.bytes.len() as u64));
    assert!(house.rests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_rest_is_fetched_anew_and_ranges_may_be_ignored() {
    let house = House::new();
    let layer = gzip(&big());
    let mut content = Content::default();
    content.image("v1", &amd64(), std::slice::from_ref(&layer));
    let registry = Registry::start(&house.world, content).await;
    let name = format!("{}-{}", Digest::of(&layer.bytes).hex(), layer.diff_id.hex());
    let rest = house.dir.path().join("partial").join(name);
    std::fs::write(&rest, vec![0; 1 << 20]).unwrap(); // as after a power cut
    pull(&house, &registry.reference("app:v1")).await.unwrap();

    let second = House::new();
    std::fs::write(
        second.dir.path().join("partial").join(rest.file_name().unwrap()),
        &layer.bytes[..9999],
    )
    .unwrap();
    registry.faults(&[Fault::None, Fault::None, Fault::WholeAnyway]);
    let image = pull(&second, &registry.reference("app:v1")).await.unwrap();
    assert_eq!(read(&image, "big"), noise(3 << 20, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_found_and_nothing_is_left() {
    let house = House::new();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[gzip(&big())]);
    let registry = Registry::start(&house.world, content).await;
    registry.faults(&[Fault::None, Fault::None, Fault::Flip(777_777)]);
    let failed = pull(&house, &registry.reference("app:v1")).await.unwrap_err();
    assert!(matches!(failed, PullError::Digest { .. }), "{failed:?}");
    assert!(house.rests().is_empty() && house.layer_count() == 0);
    registry.faults(&[Fault::None, Fault::Flip(5)]);
    let failed = pull(&house, &registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(kind(&failed), images::Failure::Digest, "the configuration, this time");
    pull(&house, &registry.reference("app:v1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_about_layers_are_found() {
    let house = House::new();
    let mut content = Content::default();
    let mut wrong = gzip(&tar_of(&[("a", b"one")]));
    wrong.diff_id = Digest::of(b"something else");
    content.image("diff-id", &amd64(), &[wrong]);
    let mut torn = gzip(&big());
    torn.bytes.truncate(torn.bytes.len() / 2);
    content.image("torn", &amd64(), &[torn]);
    let mut noise_layer = plain(&noise(4096, 3));
    noise_layer.media_type = format!("{}+gzip", support::OCI_LAYER);
    content.image("noise", &amd64(), &[noise_layer]);
    let registry = Registry::start(&house.world, content).await;
    for (tag, expected) in [
        ("diff-id", images::Failure::Digest),
        ("torn", images::Failure::Corrupt),
        ("noise", images::Failure::Corrupt),
    ] {
        let failed = pull(&house, &registry.reference(&format!("app:{tag}"))).await.unwrap_err();
        assert_eq!(kind(&failed), expected, "{tag}: {failed:?}");
        assert!(house.rests().is_empty() && house.layer_count() == 0, "{tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_and_checked() {
    let house = House::new();
    let mut content = Content::default();
    let arm = Platform::linux("arm64");
    let one = content.image("amd", &amd64(), &[gzip(&tar_of(&[("a", b"amd")]))]);
    let two = content.image("arm", &arm, &[gzip(&tar_of(&[("a", b"arm")]))]);
    let index = content.index("both", &[(one.clone(), amd64()), (two.clone(), arm.clone())]);
    content.index("lying", &[(two.clone(), amd64())]);
    content.index("arms", &[(two, arm)]);
    let registry = Registry::start(&house.world, content).await;
    let image = pull(&house, &registry.reference("app:both")).await.unwrap();
    assert_eq!((image.digest.clone(), image.index_digest.clone()), (one, Some(index)));
    assert_eq!(read(&image, "a"), b"amd");
    for tag in ["arm", "lying", "arms"] {
        let failed = pull(&house, &registry.reference(&format!("app:{tag}"))).await.unwrap_err();
        assert_eq!(kind(&failed), images::Failure::Platform, "{tag}: {failed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_open_to_the_right_words_only() {
    let house = House::new();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[gzip(&tar_of(&[("a", b"one")]))]);
    let registry = Registry::start(&house.world, content).await;
    let reference = registry.reference("app:v1");
    for door in [Door::Bearer, Door::Basic] {
        registry.set(|state| state.door = door);
        let failed = pull(&house, &reference).await.unwrap_err();
        assert_eq!(kind(&failed), images::Failure::Unauthorised, "{door:?}: {failed:?}");
        let known = source(&house, user());
        let image = house.images.pull(&reference, &amd64(), Policy::Always, known, silent()).await;
        assert_eq!(read(&image.unwrap(), "a"), b"one", "{door:?}");
    }
    let tokens = registry.log().iter().filter(|line| line.starts_with("/token")).count();
    assert_eq!(tokens, 2, "one refused, one used for manifest, configuration and layer alike");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_does_not_take_the_credentials_along() {
    let house = House::new();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[gzip(&tar_of(&[("a", b"one")]))]);
    let registry = Registry::start(&house.world, content.clone()).await;
    let store = Registry::start(&house.world, content).await;
    let elsewhere = store.host.clone();
    registry.set(|state| {
        state.door = Door::Basic;
        state.redirect = Some(elsewhere);
    });
    let known = source(&house, user());
    let reference = registry.reference("app:v1");
    let image =
        house.images.pull(&reference, &amd64(), Policy::Always, known, silent()).await.unwrap();
    assert_eq!(read(&image, "a"), b"one");
    let state = store.state.lock().unwrap();
    assert!(state.blob_bytes > 0 && !state.leaked);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_passes_is_waited_out() {
    let house = House::new();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[gzip(&tar_of(&[("a", b"one")]))]);
    let registry = Registry::start(&house.world, content).await;
    registry.faults(&[Fault::RateLimit, Fault::Status(503), Fault::None, Fault::Status(500)]);
    pull(&house, &registry.reference("app:v1")).await.unwrap();
    registry.faults(&[Fault::RateLimit; 5]);
    let failed = pull(&house, &registry.reference("app:v1")).await.unwrap_err();
    assert_eq!(kind(&failed), images::Failure::RateLimited);
    let missing = pull(&house, &registry.reference("app:none")).await.unwrap_err();
    assert_eq!(kind(&missing), images::Failure::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn network_failures_are_told_apart() {
    let house = House::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let refused = pull(&house, &format!("{closed}/app:v1").parse().unwrap()).await.unwrap_err();
    assert_eq!(kind(&refused), images::Failure::ConnectionRefused, "{refused:?}");
    let unknown = pull(&house, &"no-such-host.invalid/app:v1".parse().unwrap()).await.unwrap_err();
    assert_eq!(kind(&unknown), images::Failure::NameNotResolved, "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_before_the_registry() {
    let house = House::new();
    let mut content = Content::default();
    content.image("v1", &amd64(), &[gzip(&tar_of(&[("a", b"one")]))]);
    let mirror = Registry::start(&house.world, content.clone()).await;
    let empty = Registry::start(&house.world, Content::default()).await;
    let mut conf = Registries::default();
    let text = format!(
        "[[registry]]\nprefix = 'up.example/team'\nlocation = 'up.invalid'\n\
         [[registry.mirror]]\nlocation = '{}'\ninsecure = true\n\
         [[registry.mirror]]\nlocation = '{}/cache'\ninsecure = true\n\
         [aliases]\n'short' = 'up.example/team/app'\n",
        empty.host, mirror.host
    );
    conf.add(&text, Path::new("registries.conf")).unwrap();
    let source: Arc<dyn Source> = Arc::new(RegistrySource::new(&house.world, conf, nobody()));
    let reference: Reference = "short:v1".parse().unwrap();
    let image =
        house.images.pull(&reference, &amd64(), Policy::Always, source, silent()).await.unwrap();
    assert_eq!(read(&image, "a"), b"one");
    assert!(mirror.log()[0].starts_with("/v2/cache/app/manifests/v1"), "{:?}", mirror.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_the_same_time_share_their_work() {
    let house = House::new();
    let layer = gzip(&big());
    let mut content = Content::default();
    content.image("v1", &amd64(), std::slice::from_ref(&layer));
    content.image("v2", &amd64(), &[layer.clone(), gzip(&tar_of(&[("x", b"y")]))]);
    let registry = Registry::start(&house.world, content).await;
    let source = source(&house, nobody());
    let references = ["v1", "v1", "v2", "v2"].map(|tag| registry.reference(&format!("app:{tag}")));
    let platform = amd64();
    let pulls = references.iter().map(|reference| {
        house.images.pull(reference, &platform, Policy::Always, source.clone(), silent())
    });
    let images = futures_util::future::join_all(pulls).await;
    assert!(images.iter().all(Result::is_ok), "{images:?}");
    let digest = Digest::of(&layer.bytes).to_string();
    assert_eq!(registry.log().iter().filter(|line| line.contains(&digest)).count(), 1);
    assert_eq!(house.layer_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_spares_what_is_held() {
    let house = House::new();
    let shared = gzip(&tar_of(&[("shared", b"s")]));
    let mut content = Content::default();
    content.image("v1", &amd64(), &[shared.clone(), gzip(&tar_of(&[("one", b"1")]))]);
    content.image("v2", &amd64(), &[shared, gzip(&tar_of(&[("two", b"2")]))]);
    let registry = Registry::start(&house.world, content).await;
    let one = pull(&house, &registry.reference("app:v1")).await.unwrap();
    let two = pull(&house, &registry.reference("app:v2")).await.unwrap();
    assert_eq!(house.images.gc(|_| true, |_| false).await.unwrap().layers, 0);
    let collected = house.images.gc(|_| false, |_| false).await.unwrap();
    assert_eq!((collected.images, collected.layers), (2, 0), "both are held");
    let used = one.layers.clone();
    drop(one);
    let is_used = move |directory: &Path| used.iter().any(|used| used == directory);
    assert_eq!(house.images.gc(|_| false, is_used).await.unwrap().layers, 0, "a task uses them");
    assert_eq!(house.images.gc(|_| false, |_| false).await.unwrap().layers, 1);
    assert_eq!((read(&two, "shared"), read(&two, "two")), (b"s".to_vec(), b"2".to_vec()));
    drop(two);
    assert_eq!(house.images.gc(|_| false, |_| false).await.unwrap().layers, 2);
    assert!(house.rests().is_empty() && house.layer_count() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_the_local_store_need_no_http() {
    let house = House::new();
    let mut content = Content::default();
    let digest = content.image("v1", &amd64(), &[gzip(&big()), plain(&tar_of(&[("a", b"one")]))]);
    let store = BlobStore::open(&house.dir.path().join("ecr"), &house.world).unwrap();
    for (name, bytes) in &content.blobs {
        store.put(&name.parse().unwrap(), bytes.clone().into()).await.unwrap();
    }
    let (kind, bytes) = content.manifests["v1"].clone();
    assert!(Manifest::parse(&bytes, &kind).is_ok());
    store.put(&digest, bytes.into()).await.unwrap();
    let found = digest.clone();
    let lookup = move |reference: &Reference| {
        (reference.repository() == "app").then(|| (found.clone(), kind.clone()))
    };
    let source: Arc<dyn Source> = Arc::new(StoreSource::new(store, Arc::new(lookup)));
    let here: Reference = "ecr.local/app:v1".parse().unwrap();
    let image = house.images.pull(&here, &amd64(), Policy::Always, source.clone(), silent()).await;
    let image = image.unwrap();
    assert_eq!((read(&image, "a"), read(&image, "big").len()), (b"one".to_vec(), 3 << 20));
    let other: Reference = "ecr.local/other:v1".parse().unwrap();
    let failed = house.images.pull(&other, &amd64(), Policy::Always, source, silent()).await;
    assert_eq!(kind_of(failed), images::Failure::NotFound);
    assert!(house.rests().is_empty());
}

fn kind_of(result: Result<Image, PullError>) -> images::Failure {
    result.unwrap_err().failure()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_layer_twice_is_mounted_once() {
    let house = House::new();
    let (empty, other) = (gzip(&tar_of(&[("e", b"")])), gzip(&tar_of(&[("f", b"")])));
    let mut content = Content::default();
    content.image("v1", &amd64(), &[empty.clone(), other, empty]);
    let registry = Registry::start(&house.world, content).await;
    let image = pull(&house, &registry.reference("app:v1")).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[1].join("e").exists(), "where it was on top");
}

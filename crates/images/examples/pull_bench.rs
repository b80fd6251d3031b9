//! Pull and unpack of an image of some 300 MB over loopback, beside `skopeo copy` + `umoci unpack`, and `docker pull`
//! where a daemon answers.
//! Run as root: `cargo run --release -p images --example pull_bench [runs]`.
#![allow(missing_docs, clippy::unwrap_used)] // a benchmark: it may just stop

#[path = "../tests/support/mod.rs"]
mod support;

use images::{Platform, Policy, Registries, RegistrySource, Source};
use std::{path::Path, process::Command, sync::Arc, time::Duration};
use support::registry::Registry;
use support::{Content, House, gzip, noise, silent};
use world::World;

/// Four layers of about 75 MB: files of many sizes, half text that compresses, half noise that does
/// not.
fn image() -> Content {
    let text = "The quick brown fox jumps over the lazy dog; pack my box with five dozen jugs. ";
    let layers: Vec<_> = (0..4u64)
        .map(|layer| {
            let mut builder = tar::Builder::new(Vec::new());
            let mut total = 0;
            for file in 0.. {
                let length = 1000 << (file % 11);
                let mut content = noise(length, layer * 100_000 + file);
                if file % 2 == 0 {
                    content = (0..length / text.len() + 1)
                        .flat_map(|line| format!("{line} {text}").into_bytes())
                        .take(length)
                        .collect();
                }
                let mut header = tar::Header::new_gnu();
                header.set_size(length as u64);
                header.set_mode(0o644);
                let path = format!("layer{layer}/dir{}/file{file}", file % 50);
                builder.append_data(&mut header, path, &content[..]).unwrap();
                total += length;
                if total > 75 << 20 {
                    break;
                }
            }
            gzip(&builder.into_inner().unwrap())
        })
        .collect();
    let mut content = Content::default();
    content.image("v1", &Platform::host(), &layers);
    content
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn skopeo_and_umoci(host: &str, dir: &Path) {
    let (from, to) = (format!("docker://{host}/app:v1"), format!("oci:{}/image:v1", dir.display()));
    let policy = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false"];
    run(Command::new("skopeo").args(policy).args([&from, &to]));
    let image = format!("{}/image:v1", dir.display());
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(dir.join("bundle")));
}

fn docker(words: &[&str]) -> bool {
    Command::new("docker").args(words).output().is_ok_and(|output| output.status.success())
}

/// Until everything written is on the disk, so that nobody pays for the one before.
fn settle() {
    run(&mut Command::new("sync"));
}

#[tokio::main]
async fn main() {
    let runs: usize = std::env::args().nth(1).map_or(3, |n| n.parse().unwrap());
    let world = World::system();
    let registry = Registry::start(&world, image()).await;
    let mut ratios = Vec::new();
    let mut docker_ratios = Vec::new();
    let has_docker = docker(&["version"]);
    for _ in 0..runs {
        settle();
        let house = House::new();
        let credentials = Arc::new(|_: &str, _: &str| None);
        let source = RegistrySource::new(&world, Registries::default(), credentials);
        let source: Arc<dyn Source> = Arc::new(source);
        let reference = registry.reference("app:v1");
        let start = world.monotonic();
        let platform = Platform::host();
        let pull = house.images.pull(&reference, &platform, Policy::Always, source, silent());
        let image = pull.await.unwrap();
        let ours: Duration = start.elapsed();
        assert_eq!(image.layers.len(), 4);
        // Its flush to the disk goes on behind the pull's back; it must not slow the others down.
        house.world.end().await;
        settle();
        let dir = tempfile::tempdir().unwrap();
        let host = registry.host.clone();
        let path = dir.path().to_path_buf();
        let start = world.monotonic();
        #[allow(clippy::disallowed_methods)] // a blocking call in a program that does nothing else
        tokio::task::spawn_blocking(move || skopeo_and_umoci(&host, &path)).await.unwrap();
        let theirs = start.elapsed();
        println!("pull+unpack {ours:.2?}   skopeo+umoci {theirs:.2?}");
        ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
        if has_docker {
            settle();
            let name = format!("{}/app:v1", registry.host);
            let start = world.monotonic();
            #[allow(clippy::disallowed_methods)] // as above
            let pulled = tokio::task::spawn_blocking(move || {
                let pulled = docker(&["pull", "-q", &name]);
                (start.elapsed(), pulled, docker(&["rmi", "-f", &name]))
            });
            let (theirs, pulled, _) = pulled.await.unwrap();
            assert!(pulled, "docker pull failed");
            println!("docker pull {theirs:.2?}");
            docker_ratios.push(theirs.as_secs_f64() / ours.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("skopeo+umoci / pull+unpack: {:.2} (median of {runs})", ratios[runs / 2]);
    docker_ratios.sort_by(f64::total_cmp);
    if let Some(ratio) = docker_ratios.get(runs / 2) {
        println!("docker pull / pull+unpack: {ratio:.2} (median of {runs})");
    }
    world.end().await;
}

//! The merged tree of a real image, beside what `umoci unpack` makes of it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use images::{Digest, Image, Platform, Policy, Registries, RegistrySource};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};
use support::registry::Registry;
use support::{Content, House, silent};

/// Four layers: devices, links, attributes and odd modes; then deletions, replacements of
/// directories by files and the other way round; and a directory emptied and filled again.
const BUILD: &str = r#"
set -eu
cd "$1"
b="buildah --root $1/store --runroot $1/run --storage-driver vfs"
c=$($b from scratch)
layer() {
    m=$($b mount "$c"); (cd "$m"; eval "$1"); $b umount "$c" >/dev/null
    id=$($b commit -q "$c"); $b rm "$c" >/dev/null; c=$($b from "$id")
}
layer '
    mkdir -p bin etc/deep/er tmp var/lib gone/inside swap opaque/old usr/lib
    cp "$(command -v busybox)" bin/busybox; ln bin/busybox bin/sh; ln -s busybox bin/ls
    chmod 1777 tmp; chmod 4755 bin/busybox; chown 12:34 var/lib; chmod 2750 var/lib
    mknod null c 1 3; mkfifo pipe; echo cap > usr/lib/cap
    echo a > etc/a; echo b > etc/deep/er/b; echo c > gone/inside/c
    echo d > opaque/old/d; echo s > swap/s
    ln -s /etc abs; ln -s ../etc/a usr/rel; touch -d @1000000000.5 etc/a
    python3 -c "import os; os.setxattr(\"usr/lib/cap\", \"user.note\", b\"hello\")" || true
    setcap cap_net_raw+ep usr/lib/cap || true
'
layer '
    rm -rf gone etc/deep; rm -r swap; echo file > swap; rm null
    echo two > etc/two; ln etc/two etc/deux
'
layer '
    rm -rf opaque; mkdir opaque; echo new > opaque/new
    rm pipe; mkdir pipe; echo in > pipe/in; chmod 700 var/lib
'
layer '
    rm swap; mkdir -p swap/again; mkdir -p gone; echo back > gone/back
    echo over > etc/a; ln -sfn /usr abs
'
$b push -q "$id" "oci:$1/image:latest"
$b rm -a >/dev/null
umoci unpack --image "$1/image:latest" "$1/bundle" >/dev/null
"#;

fn have(tool: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .unwrap()
        .status
        .success()
}

/// Reads an OCI layout as the registry's content.
fn layout(dir: &Path) -> Content {
    let mut content = Content::default();
    for entry in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        content.blob(fs::read(entry.unwrap().path()).unwrap());
    }
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let top = &index["manifests"][0];
    let bytes = content.blobs[top["digest"].as_str().unwrap()].clone();
    content.manifests.insert("v1".into(), (top["mediaType"].as_str().unwrap().into(), bytes));
    content
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut names, mut found) = (vec![0u8; 4096], BTreeMap::new());
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    for name in names[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 4096];
        let n = rustix::fs::lgetxattr(path, name.as_str(), &mut value[..]).unwrap();
        value.truncate(n);
        // umoci keeps its own notes in user.*; overlayfs hides its own in trusted.overlay.*.
        if !name.starts_with("user.rootlesscontainers") {
            found.insert(name, value);
        }
    }
    found
}

/// Everything about a tree that an application could see. Times of directories are left out:
/// neither tool nor specification says what they are when files in them come from several layers.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut links) = (BTreeMap::new(), BTreeMap::<u64, (Vec<PathBuf>, PathBuf)>::new());
    let mut queue = vec![root.to_path_buf()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_path_buf();
            let kind = stat.file_type();
            let mut text = format!("{:o} {}:{} ", stat.mode(), stat.uid(), stat.gid());
            text += &format!("{:?} ", xattrs(&path));
            if kind.is_symlink() {
                text += &fs::read_link(&path).unwrap().display().to_string();
            } else if kind.is_file() {
                text += &Digest::of(&fs::read(&path).unwrap()).to_string();
            } else if kind.is_char_device() || kind.is_block_device() {
                text += &stat.rdev().to_string();
            } else if kind.is_dir() {
                queue.push(path);
            }
            if !kind.is_dir() {
                text += &format!(" {}.{}", stat.mtime(), stat.mtime_nsec());
                let (_, first) = links.entry(stat.ino()).or_insert((Vec::new(), name.clone()));
                *first = first.clone().min(name.clone());
                links.get_mut(&stat.ino()).unwrap().0.push(name.clone());
            }
            found.insert(name, text);
        }
    }
    // Names of one file share its first name.
    for (names, first) in links.into_values().filter(|(names, _)| names.len() > 1) {
        for name in names {
            *found.get_mut(&name).unwrap() += &format!(" = {}", first.display());
        }
    }
    found
}

struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(image: &Image) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<String> =
            image.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        let options = format!("ro,lowerdir={}", lower.join(":"));
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "-o", &options, "overlay"]).arg(dir.path());
        assert!(mount.status().unwrap().success());
        Mounted(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(self.0.path()).status().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_image_is_unpacked_as_umoci_does() {
    for tool in ["buildah", "umoci", "busybox"] {
        if !have(tool) {
            eprintln!("skipped: needs {tool}");
            return;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let build = Command::new("sh").args(["-c", BUILD, "build"]).arg(dir.path()).output().unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let house = House::new();
    let registry = Registry::start(&house.world, layout(&dir.path().join("image"))).await;
    let source = RegistrySource::new(&house.world, Registries::default(), Arc::new(|_, _| None));
    let platform = Platform::host();
    let reference = registry.reference("app:v1");
    let source = Arc::new(source);
    let image = house.images.pull(&reference, &platform, Policy::Always, source, silent()).await;
    let image = image.unwrap();
    assert!(image.layers.len() >= 4);
    let mounted = Mounted::new(&image);
    let (ours, theirs) = (tree(mounted.0.path()), tree(&dir.path().join("bundle/rootfs")));
    assert!(theirs.len() > 20 && theirs.contains_key(Path::new("gone/back")), "{theirs:#?}");
    let seen = |path: &str, what: &str| {
        let text = &theirs[Path::new(path)];
        assert!(text.contains(what), "the image lost its {what}: {text}");
    };
    seen("etc/two", "etc/deux");
    seen("usr/lib/cap", "security.capability");
    seen("usr/lib/cap", "user.note");
    for path in ours.keys().chain(theirs.keys()) {
        assert_eq!(ours.get(path), theirs.get(path), "{}", path.display());
    }
}

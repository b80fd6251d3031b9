//! Unpacking: every kind of entry as it should be, and every hostile one refused with nothing left
//! behind. These tests run as root, as unpacking does.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use images::{Digest, LayerError, LayerLimits, LayerStore};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use support::tar_of;
use tar::EntryType;
use world::World;

struct Unpacked {
    dir: tempfile::TempDir,
    store: LayerStore,
}

impl Unpacked {
    fn new(limits: LayerLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(&dir.path().join("layers"), &World::system(), limits).unwrap();
        fs::write(dir.path().join("outside"), "untouched").unwrap();
        Unpacked { dir, store }
    }

    fn take(&self, tar: &[u8]) -> Result<PathBuf, LayerError> {
        let prepared = self.store.prepare(&Digest::of(tar), tar)?;
        Ok(prepared.publish().unwrap().path)
    }

    /// Nothing half-made remains, and nothing outside was touched.
    fn is_clean(&self) -> bool {
        let empty = |dir: &str| fs::read_dir(self.dir.path().join(dir)).unwrap().next().is_none();
        let outside = fs::read(self.dir.path().join("outside")).unwrap();
        empty("layers/tmp") && outside == b"untouched"
    }
}

fn unpack(tar: &[u8]) -> (Unpacked, Result<PathBuf, LayerError>) {
    let unpacked = Unpacked::new(LayerLimits::default());
    let result = unpacked.take(tar);
    (unpacked, result)
}

/// Writes tars entry by entry, with names that the tar crate would refuse.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, kind: EntryType, path: &[u8], link: &[u8], content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path);
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path.as_bytes(), b"", content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path.as_bytes(), b"", b"")
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Symlink, path.as_bytes(), to.as_bytes(), b"")
    }

    fn link(self, path: &str, to: &str) -> Self {
        self.add(EntryType::Link, path.as_bytes(), to.as_bytes(), b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
            text.extend_from_slice(format!("{length} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.add(EntryType::XHeader, b"pax", b"", &text)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let n = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    let found = fs::symlink_metadata(path).unwrap();
    found.file_type().is_char_device() && found.rdev() == 0
}

#[test]
fn every_kind_of_entry() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut entry = |kind, path: &str, mode, content: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1234);
        header.set_gid(5_000_000);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        match link {
            Some(link) => builder.append_link(&mut header, path, link).unwrap(),
            None => builder.append_data(&mut header, path, content).unwrap(),
        }
    };
    let long = format!("d/{}/{}", "n".repeat(200), "m".repeat(200));
    entry(EntryType::Directory, "d", 0o2775, b"", None);
    entry(EntryType::Regular, "d/suid", 0o4755, b"#!", None);
    entry(EntryType::Regular, &long, 0o600, b"long", None);
    entry(EntryType::Link, "d/hard", 0o600, b"", Some("d/suid"));
    entry(EntryType::Symlink, "d/soft", 0o777, b"", Some("/etc/../etc/passwd"));
    entry(EntryType::Char, "d/null", 0o666, b"", None);
    entry(EntryType::Block, "d/disk", 0o660, b"", None);
    entry(EntryType::Fifo, "d/pipe", 0o622, b"", None);
    let (_kept, root) = unpack(&builder.into_inner().unwrap());
    let d = root.unwrap().join("d");
    let stat = |name: &str| fs::symlink_metadata(d.join(name)).unwrap();
    let dir = fs::metadata(&d).unwrap();
    assert_eq!(
        (dir.mode() & 0o7777, dir.uid(), dir.gid(), dir.mtime()),
        (0o2775, 1234, 5_000_000, 1_000_000_000)
    );
    assert_eq!((stat("suid").mode() & 0o7777, stat("suid").gid()), (0o4755, 5_000_000));
    assert_eq!(stat("suid").ino(), stat("hard").ino());
    assert_eq!(fs::read_link(d.join("soft")).unwrap(), Path::new("/etc/../etc/passwd"));
    assert_eq!((stat("soft").uid(), stat("soft").mtime()), (1234, 1_000_000_000));
    assert!(stat("null").file_type().is_char_device() && stat("null").rdev() == 0x103);
    assert!(stat("disk").file_type().is_block_device() && stat("disk").mode() & 0o7777 == 0o660);
    assert!(stat("pipe").file_type().is_fifo() && stat("pipe").mode() & 0o7777 == 0o622);
    assert_eq!(fs::read(d.parent().unwrap().join(long)).unwrap(), b"long");
}

#[test]
fn attributes_and_long_names_of_pax() {
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let name = format!("{}/{}", "p".repeat(180), "q".repeat(180));
    let tar = Tar::default()
        .pax(&[("path", name.as_bytes()), ("mtime", b"123456.5"), ("uid", b"3000000")])
        .file("short", "x")
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.k", b"v")])
        .file("ping", "x")
        .pax(&[("SCHILY.xattr.user.d", b"w"), ("SCHILY.xattr.security.selinux", b"label\0")])
        .dir("dir");
    let (_kept, root) = unpack(&tar.end());
    let root = root.unwrap();
    let found = fs::metadata(root.join(name)).unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec(), found.uid()), (123_456, 500_000_000, 3_000_000));
    assert_eq!(xattr(&root.join("ping"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&root.join("ping"), "user.k").unwrap(), b"v");
    assert_eq!(xattr(&root.join("dir"), "user.d").unwrap(), b"w");
}

#[test]
fn sparse_files_of_all_three_kinds() {
    let map = b"2\n0\n4\n1048576\n4\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"headtail");
    let size = b"1048580";
    let version = |n: &'static [u8]| ("GNU.sparse.major", n);
    let new = [
        version(b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"new"),
        ("GNU.sparse.realsize", size),
    ];
    let old = [("GNU.sparse.size", &size[..]), ("GNU.sparse.map", b"0,4,1048576,4")];
    let tar = Tar::default()
        .pax(&new)
        .add(EntryType::Regular, b"GNUSparseFile.0/new", b"", &data)
        .pax(&old)
        .file("old", "headtail");
    let (_kept, root) = unpack(&tar.end());
    let root = root.unwrap();
    for name in ["new", "old"] {
        let bytes = fs::read(root.join(name)).unwrap();
        assert_eq!(
            (bytes.len(), &bytes[..4], &bytes[1 << 20..]),
            (1_048_580, &b"head"[..], &b"tail"[..])
        );
        assert!(bytes[4..1 << 20].iter().all(|b| *b == 0));
        assert!(fs::metadata(root.join(name)).unwrap().blocks() < 100, "the hole is one");
    }
    // GNU's oldest form, as GNU tar itself writes it, with more segments than fit into the header.
    let dir = tempfile::tempdir().unwrap();
    let sparse = fs::File::create(dir.path().join("s")).unwrap();
    for n in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[n as u8 + 1], n * 100_000).unwrap();
    }
    let mut gnu = std::process::Command::new("tar");
    gnu.args(["-S", "--format=gnu", "-cf", "out.tar", "s"]).current_dir(dir.path());
    assert!(gnu.status().unwrap().success());
    let (_kept, root) = unpack(&fs::read(dir.path().join("out.tar")).unwrap());
    assert_eq!(fs::read(root.unwrap().join("s")).unwrap(), fs::read(dir.path().join("s")).unwrap());
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    let tar = Tar::default()
        .file(".wh.gone", "")
        .dir("kept")
        .file("kept/.wh..wh..opq", "")
        .file("kept/new", "n")
        .file(".wh.turned", "")
        .dir("turned")
        .file("turned/new", "n")
        .dir("again")
        .file(".wh.again", "")
        .file("file", "f")
        .file(".wh.file", "")
        .file(".wh.bare", "")
        .file("bare/x", "x");
    let (_kept, root) = unpack(&tar.end());
    let root = root.unwrap();
    assert!(is_whiteout(&root.join("gone")));
    for dir in ["kept", "turned", "again", "bare"] {
        assert_eq!(xattr(&root.join(dir), "trusted.overlay.opaque").unwrap(), b"y", "{dir}");
    }
    assert_eq!(fs::read(root.join("file")).unwrap(), b"f", "it hides the lower one anyway");
    assert!(fs::read_dir(root.join("kept")).unwrap().count() == 1, "no whiteout file remains");
}

#[test]
fn symbolic_links_lead_nowhere_outside() {
    let tar = Tar::default()
        .symlink("abs", "/")
        .file("abs/one", "1")
        .symlink("up", "../../../..")
        .file("up/two", "2")
        .dir("real")
        .symlink("via", "/real")
        .file("via/three", "3")
        .file("replaced", "x")
        .symlink("replaced", "/real/three")
        .file("replaced", "file again");
    let (kept, root) = unpack(&tar.end());
    let root = root.unwrap();
    for (path, content) in
        [("one", "1"), ("two", "2"), ("real/three", "3"), ("replaced", "file again")]
    {
        assert_eq!(fs::read_to_string(root.join(path)).unwrap(), content);
    }
    assert!(kept.is_clean() && !Path::new("/one").exists() && !Path::new("/two").exists());
}

#[test]
fn hostile_entries_are_refused() {
    let outside = |t: Tar| t.end();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("parent", outside(Tar::default().file("../outside", "x"))),
        ("inner parent", outside(Tar::default().file("a/../../outside", "x"))),
        ("absolute", outside(Tar::default().file("/outside", "x"))),
        ("nothing", outside(Tar::default().add(EntryType::Regular, b"", b"", b""))),
        ("nul", outside(Tar::default().pax(&[("path", b"a\0b")]).file("x", "x"))),
        ("link up", outside(Tar::default().link("x", "../../outside"))),
        ("link absolute", outside(Tar::default().link("x", "/etc/passwd"))),
        (
            "link through a symlink",
            outside(Tar::default().symlink("s", "/etc").link("x", "s/passwd")),
        ),
        ("link to a lower layer", outside(Tar::default().link("x", "lower"))),
        ("link to a directory", outside(Tar::default().dir("d").link("x", "d"))),
        ("link to a whiteout", outside(Tar::default().file(".wh.w", "").link("x", "w"))),
        ("loop", outside(Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", "x"))),
        ("dangling", outside(Tar::default().symlink("a", "nowhere").file("a/x", "x"))),
        ("file as parent", outside(Tar::default().file("f", "x").file("f/x", "x"))),
        ("root as file", outside(Tar::default().file("./", "x").symlink(".", "/etc"))),
        ("empty whiteout", outside(Tar::default().file(".wh.", ""))),
        ("whiteout of ..", outside(Tar::default().file("d/.wh...", ""))),
        ("beneath a whiteout", outside(Tar::default().file(".wh.x/y", ""))),
        ("device 0/0", outside(Tar::default().add(EntryType::Char, b"wh", b"", b""))),
        ("long component", outside(Tar::default().pax(&[("path", &[b'n'; 256])]).file("x", ""))),
        ("long name", outside(Tar::default().pax(&[("path", &[b'n'; 5000])]).file("x", ""))),
        (
            "overlay's attribute",
            outside(
                Tar::default().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/x")]).dir("d"),
            ),
        ),
        ("unknown kind", outside(Tar::default().add(EntryType::new(b'M'), b"m", b"", b""))),
        ("bad checksum", {
            let mut t = Tar::default().file("a", "x").end();
            t[0] = b'b';
            t
        }),
        ("cut off", Tar::default().file("a", &"x".repeat(600)).end()[..700].to_vec()),
        (
            "sparse overlap",
            outside(
                Tar::default()
                    .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,4,2,4")])
                    .file("s", "12345678"),
            ),
        ),
        (
            "sparse beyond",
            outside(
                Tar::default()
                    .pax(&[("GNU.sparse.size", b"4"), ("GNU.sparse.map", b"0,8")])
                    .file("s", "12345678"),
            ),
        ),
        ("uid of all ones", outside(Tar::default().pax(&[("uid", b"4294967295")]).file("s", ""))),
    ];
    for (what, tar) in cases {
        let (kept, result) = unpack(&tar);
        assert!(result.is_err(), "{what} was accepted");
        assert!(kept.is_clean(), "{what} left something");
        assert!(
            !matches!(result, Err(LayerError::DiffId { .. } | LayerError::Disk(_))),
            "{what}: {result:?}"
        );
    }
}

#[test]
fn bombs_meet_their_limits() {
    let small = LayerLimits { max_bytes: 1 << 20, max_entries: 10, max_name_bytes: 300 };
    let zeros = tar_of(&[("zeros", &vec![0; 8 << 20])]);
    let bomb = support::gzip(&zeros);
    let store = Unpacked::new(small);
    let refused = store.store.prepare(&bomb.diff_id, &bomb.bytes[..]).map(|_| ()).unwrap_err();
    assert!(matches!(refused, LayerError::Limit(_)), "{refused:?}");
    let many = (0..11).fold(Tar::default(), |tar, n| tar.file(&n.to_string(), "")).end();
    assert!(matches!(store.take(&many), Err(LayerError::Limit("entries"))));
    let names =
        (0..4).fold(Tar::default(), |tar, n| tar.file(&format!("{n}{}", "n".repeat(90)), ""));
    assert!(matches!(store.take(&names.end()), Err(LayerError::Limit("bytes of names"))));
    // An extended header that claims a gigabyte allocates nothing.
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(1 << 30);
    header.set_cksum();
    assert!(store.take(header.as_bytes()).is_err());
    assert!(store.is_clean());
}

#[test]
fn an_unsettled_layer_of_an_earlier_boot_is_not_trusted() {
    let kept = Unpacked::new(LayerLimits::default());
    let tar = tar_of(&[("a", b"x")]);
    let path = kept.take(&tar).unwrap();
    let note = path.parent().unwrap().join("layer.json");
    let open = || {
        let root = kept.dir.path().join("layers");
        LayerStore::open(&root, &World::system(), LayerLimits::default()).unwrap()
    };
    assert!(
        open().get(&Digest::of(&tar)).is_some(),
        "the same boot: a crash of ours loses nothing"
    );
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let text = fs::read_to_string(&note).unwrap().replace(boot.trim(), "another boot");
    fs::write(&note, text).unwrap();
    assert!(open().get(&Digest::of(&tar)).is_none());
    assert!(!path.exists());
    let path = kept.take(&tar).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(kept.store.settle()).unwrap();
    let note = path.parent().unwrap().join("layer.json");
    let text = fs::read_to_string(&note).unwrap().replace(boot.trim(), "another boot");
    fs::write(&note, text).unwrap();
    assert!(open().get(&Digest::of(&tar)).is_some(), "settled");
    let half = kept.dir.path().join("layers/tmp/half");
    fs::create_dir(&half).unwrap();
    open();
    assert!(!half.exists(), "what a crash left half-made");
}

#[test]
fn a_seam_gives_bare_directories_what_lower_layers_say() {
    let kept = Unpacked::new(LayerLimits::default());
    let mut lower = tar::Builder::new(Vec::new());
    for (path, mode) in [("tmp", 0o1777), ("var", 0o755), ("var/spool", 0o700), ("hidden", 0o700)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        header.set_uid(7);
        lower.append_data(&mut header, path, &b""[..]).unwrap();
    }
    let upper = Tar::default().file("tmp/x", "x").file("var/spool/y", "y");
    let upper = upper.file(".wh.hidden", "").file("hidden/z", "z");
    let layers: Vec<_> = [lower.into_inner().unwrap(), upper.end()]
        .iter()
        .map(|tar| kept.store.prepare(&Digest::of(tar), &tar[..]).unwrap().publish().unwrap())
        .collect();
    let seam = kept.store.seam(&layers).unwrap().expect("tmp and var/spool differ");
    let stat = |path: &str| fs::symlink_metadata(seam.path.join(path)).unwrap();
    assert_eq!((stat("tmp").mode() & 0o7777, stat("tmp").uid()), (0o1777, 7));
    assert_eq!((stat("var/spool").permissions().mode() & 0o7777, stat("var").uid()), (0o700, 7));
    assert!(!seam.path.join("hidden").exists(), "a whiteout lies between");
    assert!(kept.store.seam(&layers[..1]).unwrap().is_none());
    let again = kept.store.seam(&layers).unwrap().unwrap();
    assert_eq!(again.path, seam.path);
}

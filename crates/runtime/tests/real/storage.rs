//! Files: the root, volumes, tmpfs, layers.

use crate::harness::{eventually, finish, lab};
use runtime::{Condition, ContainerSpec, Dependency, Directory, Filesystem, Mount, VolumeSource};
use std::os::unix::fs::MetadataExt;

pub fn volume(name: &str, target: &str, read_only: bool, copy_up: bool) -> Mount {
    Mount::Volume { name: name.into(), target: target.into(), read_only, copy_up }
}

#[tokio::test]
async fn a_volume_is_shared_and_filled_from_the_image() {
    let Some(lab) = lab() else { return };
    let mut writer =
        lab.shell("writer", "cat deep/seed; echo more > deep/more; pwd; stat -c %u deep");
    writer.mounts = vec![volume("v", "/data", false, true)];
    writer.cwd = "/data".into();
    writer.essential = false;
    let mut reader =
        lab.shell("reader", "cat /in/deep/more; touch /in/x 2>/dev/null || echo read-only");
    reader.mounts = vec![volume("v", "/in", true, false)];
    reader.depends_on =
        vec![Dependency { container: "writer".into(), condition: Condition::Success }];
    let task = lab.start(lab.spec("vol", vec![writer, reader])).await;
    let ran = finish(&task).await;
    assert_eq!(ran.stdout("writer"), "from the image\n/data\n0\n", "{ran:#?}");
    assert_eq!(ran.stdout("reader"), "more\nread-only\n", "{ran:#?}");
    let file = task.dir().join("scratch/volumes/v/deep/more");
    assert_eq!(file.metadata().unwrap().uid(), task.spec().ids.map_or(0, |ids| ids.first));
    lab.engine.remove("vol").await.unwrap();
}

#[tokio::test]
async fn a_disk_is_as_large_as_the_task_was_promised() {
    let Some(lab) = lab() else { return };
    if !lab.engine.capabilities().await.unwrap().disk_limit {
        println!("skipped: needs loop devices, ext4 and mke2fs");
        return;
    }
    let script = "dd if=/dev/zero of=/x bs=1M count=64 2>/dev/null || echo root is full
        dd if=/dev/zero of=/v/x bs=1M count=1 2>/dev/null || echo so is the volume
        rm /x
        dd if=/dev/zero of=/v/x bs=1M count=64 2>/dev/null || echo volume is full
        rm /v/x; echo well > /v/y && cat /v/y";
    let mut main = lab.shell("main", script);
    main.mounts = vec![volume("v", "/v", false, false)];
    let mut spec = lab.spec("disk", vec![main]);
    spec.limits.disk_bytes = Some(32 << 20);
    let task = lab.start(spec).await;
    let ran = finish(&task).await;
    let expected = "root is full\nso is the volume\nvolume is full\nwell\n";
    assert_eq!(ran.stdout("main"), expected, "{ran:#?}");
    assert!(!task.dir().join("disk").exists(), "its file has no name");
    assert_eq!(
        std::fs::read_dir(task.dir().join("scratch")).unwrap().count(),
        0,
        "seen inside only"
    );
    lab.engine.remove("disk").await.unwrap();
    let ours = lab.dir().to_str().unwrap().to_owned();
    eventually(|| {
        let loops = std::fs::read_dir("/sys/block").unwrap().flatten();
        let backing = loops.map(|l| std::fs::read_to_string(l.path().join("loop/backing_file")));
        (!backing.flatten().any(|file| file.contains(&ours))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_kept_disk_goes_from_task_to_task() {
    let Some(lab) = lab() else { return };
    if !lab.engine.capabilities().await.unwrap().disk_limit {
        println!("skipped: needs loop devices, ext4 and mke2fs");
        return;
    }
    let image = lab.dir().join("kept.disk");
    runtime::make_disk(&image, 32 << 20, Filesystem::Scratch).unwrap();
    let mut seen = Vec::new();
    for (id, script) in [
        ("first", "rm -rf /k/lost+found; echo mine > /k/x; chown 7:8 /k/x; ls /k"),
        (
            "second",
            "stat -c '%u %g' /k/x; cat /k/x; dd if=/dev/zero of=/k/y bs=1M count=64 2>/dev/null || echo full",
        ),
    ] {
        let mut main = lab.shell("main", script);
        main.mounts = vec![volume("k", "/k", false, false)];
        let mut spec = lab.spec(id, vec![main]);
        let source = VolumeSource::Disk { image: image.clone(), filesystem: Filesystem::Scratch };
        spec.volumes.insert("k".into(), source);
        let task = lab.start(spec).await;
        seen.push(finish(&task).await.stdout("main").to_owned());
        lab.engine.remove(id).await.unwrap();
    }
    assert_eq!(seen, ["x\n", "7 8\nmine\nfull\n"]);
}

#[tokio::test]
async fn a_read_only_root_has_writable_places_where_asked() {
    let Some(lab) = lab() else { return };
    let script = "touch /x 2>/dev/null || echo read-only
        touch /etc/hosts 2>/dev/null || echo hosts
        touch /v/x /t/x && echo writable
        dd if=/dev/zero of=/t/big bs=1k count=2000 2>/dev/null || echo full
        echo x > /dev/shm/x && echo shm";
    let mut main = lab.shell("main", script);
    main.read_only_root = true;
    main.mounts = vec![
        volume("v", "/v", false, false),
        Mount::Tmpfs {
            target: "/t".into(),
            size_bytes: 1 << 20,
            options: vec!["mode=0700".into()],
        },
    ];
    // The mount points must be there: a read-only root gets none, but they are made before it is
    // one.
    let ran = lab.run(main).await;
    assert_eq!(ran.stdout("main"), "read-only\nhosts\nwritable\nfull\nshm\n", "{ran:#?}");
}

#[tokio::test]
async fn upper_layers_hide_lower_ones() {
    let Some(lab) = lab() else { return };
    let upper = lab.dir().join("upper-layer");
    std::fs::create_dir_all(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/fresh"), "fresh\n").unwrap();
    let device = rustix::fs::makedev(0, 0);
    let kind = rustix::fs::FileType::CharacterDevice;
    let whiteout = upper.join("etc/group");
    rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, 0o600.into(), device).unwrap();
    let mut main = lab.shell("main", "cat /etc/fresh; test -e /etc/group || echo hidden; id -u");
    main.layers.push(upper);
    let ran = lab.run(main).await;
    assert_eq!(ran.stdout("main"), "fresh\nhidden\n0\n", "{ran:#?}");
}

#[tokio::test]
async fn a_hosts_directory_can_be_mounted_with_its_ids() {
    let Some(lab) = lab() else { return };
    let shared = lab.dir().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "from the host\n").unwrap();
    let mut main = lab.shell("main", "cat /h/file; stat -c %u /h/file; touch /h/made");
    main.mounts = vec![volume("h", "/h", false, false)];
    let mut spec = lab.spec("host", vec![main]);
    spec.volumes.insert(
        "h".into(),
        VolumeSource::Directory(Directory { base: lab.dir().to_owned(), beneath: "shared".into() }),
    );
    let ran = finish(&lab.start(spec).await).await;
    assert_eq!((ran.stdout("main"), ran.exit("main").code), ("from the host\n0\n", 0), "{ran:#?}");
    assert_eq!(shared.join("made").metadata().unwrap().uid(), 0);
}

#[tokio::test]
async fn an_image_cannot_reach_the_host_through_links() {
    let Some(lab) = lab() else { return };
    let evil = lab.dir().join("evil");
    std::fs::create_dir_all(&evil).unwrap();
    let outside = lab.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, evil.join("link")).unwrap();
    let mut main = lab.shell("main", "pwd; touch here");
    main.layers.push(evil);
    main.cwd = "/link/below".into();
    let mut spec = ContainerSpec { essential: true, ..main };
    spec.mounts = vec![volume("v", "/link/volume", false, false)];
    lab.run(spec).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");

    let evil = lab.dir().join("evil-dev");
    std::fs::create_dir_all(&evil).unwrap();
    std::os::unix::fs::symlink(&outside, evil.join("dev")).unwrap();
    let mut main = lab.shell("main", "true");
    main.layers.push(evil);
    lab.run(main).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was made outside");
}

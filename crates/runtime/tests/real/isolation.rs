//! What separates a container from the host.

use crate::harness::{LIMIT, Lab, finish, lab, wait_started};
use runtime::ContainerSpec;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::os::{fd::OwnedFd, unix::fs::MetadataExt};

async fn has_userns(lab: &Lab) -> bool {
    let capabilities = lab.engine.capabilities().await.unwrap();
    assert_eq!(capabilities.missing().count(), 0, "{capabilities:#?}");
    if !capabilities.user_namespace {
        println!("skipped: needs user namespaces and id-mapped mounts");
    }
    capabilities.user_namespace
}

fn ids(pid: i32, kind: &str) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with(kind)).unwrap().to_owned();
    line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect()
}

#[tokio::test]
async fn root_inside_is_not_root_outside() {
    let Some(lab) = lab() else { return };
    if !has_userns(&lab).await {
        return;
    }
    let script = "id -u; touch /file /data/deep/file; chown 33:34 /file; \
                  stat -c %u:%g /bin/busybox; \
                  cat /proc/self/uid_map; sleep 100";
    let task = lab.start(lab.spec("root", vec![lab.shell("main", script)])).await;
    let pid = wait_started(&task, "main").await;
    let first = task.spec().ids.unwrap().first;
    assert_eq!(ids(pid, "Uid:"), [first; 4]);
    assert_eq!(ids(pid, "Gid:"), [first; 4]);
    let upper = task.dir().join("scratch/containers/main/upper");
    let deep = upper.join("data/deep/file");
    let owner = crate::harness::eventually(|| deep.metadata().ok().map(|m| m.uid())).await;
    assert_eq!(owner, first);
    let chowned = || upper.join("file").metadata().ok().filter(|m| m.uid() == first + 33);
    assert_eq!(crate::harness::eventually(chowned).await.gid(), first + 34);
    // The image's own file is still the image's.
    assert_eq!(lab.layer().join("bin/busybox").metadata().unwrap().uid(), 0);
    task.kill("enough").await.unwrap();
    let ran = finish(&task).await;
    assert!(ran.stdout("main").starts_with("0\n0:0\n"), "{ran:#?}");
    lab.engine.remove("root").await.unwrap();
}

#[tokio::test]
async fn two_tasks_do_not_share_ids_or_processes() {
    let Some(lab) = lab() else { return };
    if !has_userns(&lab).await {
        return;
    }
    let one = lab.start(lab.spec("one", vec![lab.shell("main", "sleep 100")])).await;
    let two = lab.start(lab.spec("two", vec![lab.shell("main", "sleep 100")])).await;
    assert_ne!(one.spec().ids, two.spec().ids);
    let (a, b) = (wait_started(&one, "main").await, wait_started(&two, "main").await);
    for kind in ["user", "net", "pid", "mnt", "ipc", "uts", "cgroup"] {
        let ns = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(ns(a), ns(b), "{kind}");
        assert_ne!(ns(a), std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(), "{kind}");
    }
    lab.engine.remove("one").await.unwrap();
    lab.engine.remove("two").await.unwrap();
}

#[tokio::test]
async fn what_is_dangerous_is_refused() {
    let Some(lab) = lab() else { return };
    let script = "mount -t tmpfs x /tmp 2>/dev/null && echo mount
        mknod /tmp/disk b 8 0 2>/dev/null && head -c1 /tmp/disk 2>/dev/null && echo device
        unshare -m true 2>/dev/null && echo unshare
        echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo sysctl
        echo b > /proc/sysrq-trigger 2>/dev/null && echo sysrq
        head -c1 /proc/kcore 2>/dev/null | grep -q . && echo kcore
        touch /sys/x 2>/dev/null && echo sys
        echo 9 > /sys/fs/cgroup/pids/pids.max 2>/dev/null && echo cgroup
        echo 9 > /sys/fs/cgroup/pids.max 2>/dev/null && echo cgroup
        ls /sys/firmware 2>/dev/null | grep -q . && echo firmware
        grep -q 'Seccomp:.2' /proc/self/status || echo unfiltered
        grep -q 'NoNewPrivs:.0' /proc/self/status || echo nnp
        grep CapEff /proc/self/status
        cat /proc/self/cgroup | grep -v ':/$' && echo 'cgroup namespace'
        echo end";
    let mut hard =
        lab.shell("hard", "grep NoNewPrivs /proc/self/status; grep CapBnd /proc/self/status");
    hard.no_new_privileges = true;
    hard.capabilities.drop = vec!["ALL".into()];
    hard.essential = false;
    let mut ptrace = lab.shell("ptrace", "grep CapEff /proc/self/status");
    ptrace.capabilities.add = vec!["SYS_PTRACE".into()];
    ptrace.essential = false;
    let mut main = lab.shell("main", script);
    main.essential = false;
    let task = lab.start(lab.spec("refuse", vec![main, hard, ptrace])).await;
    let ran = finish(&task).await;
    assert_eq!(ran.stdout("main"), "CapEff:\t00000000a80425fb\nend\n", "{ran:#?}");
    assert_eq!(ran.stdout("hard"), "NoNewPrivs:\t1\nCapBnd:\t0000000000000000\n", "{ran:#?}");
    assert_eq!(ran.stdout("ptrace"), "CapEff:\t00000000a80c25fb\n", "{ran:#?}");
    lab.engine.remove("refuse").await.unwrap();
}

#[tokio::test]
async fn a_privileged_container_is_root_of_its_own_namespaces_only() {
    let Some(lab) = lab() else { return };
    if !has_userns(&lab).await {
        return;
    }
    let script = "mkdir -p /m && mount -t tmpfs none /m && echo mounted
        unshare -m mount -t tmpfs none /mnt 2>/dev/null; unshare -n true && echo unshared
        echo 1 > /proc/sys/kernel/panic 2>/dev/null || echo not the machine
        mknod /x b 7 0 2>/dev/null || echo no devices
        mount -t ext4 /dev/sda1 /m 2>/dev/null || echo no disks
        echo seen > /seen; sleep 1000";
    let mut main = lab.shell("main", script);
    main.privileged = true;
    let task = lab.start(lab.spec("power", vec![main])).await;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV;
    let open = |root: &OwnedFd, path: &str| {
        rustix::fs::openat2(root, path, OFlags::RDONLY, Mode::empty(), resolve)
    };
    let seen = async {
        loop {
            // There is none before the container runs.
            let Ok(root) = task.root("main").await else { continue };
            if open(&root, "/seen").is_ok() {
                return root;
            }
        }
    };
    let root = tokio::time::timeout(LIMIT, seen).await.unwrap();
    assert_eq!(open(&root, "/proc/version").unwrap_err(), rustix::io::Errno::XDEV);
    assert!(task.root("other").await.is_err());
    task.kill("seen").await.unwrap();
    let ran = finish(&task).await;
    let expected = "mounted\nunshared\nnot the machine\nno devices\nno disks\n";
    assert_eq!(ran.stdout("main"), expected, "{ran:#?}");
    lab.engine.remove("power").await.unwrap();
}

#[tokio::test]
async fn a_user_that_is_not_root_has_no_capabilities() {
    let Some(lab) = lab() else { return };
    let mut main = lab.shell("main", "grep -E 'Cap(Prm|Eff|Amb)|Groups' /proc/self/status");
    main.user = "web".into();
    let ran = lab.run(main).await;
    let none = "0000000000000000";
    let expected = format!("Groups:\t34 50 \nCapPrm:\t{none}\nCapEff:\t{none}\nCapAmb:\t{none}\n");
    assert_eq!(ran.stdout("main").replace("34 50\n", "34 50 \n"), expected, "{ran:#?}");
}

#[tokio::test]
async fn the_network_is_the_tasks_own_and_root_inside_owns_it() {
    let Some(lab) = lab() else { return };
    // Low ports and the loopback work; the containers of a task share them.
    let server = "echo hi | nc -l -p 80";
    let client = "while ! nc 127.0.0.1 80 </dev/null 2>/dev/null | grep hi; do sleep 0.05; done; \
                  ip link | grep -c '^[0-9]'";
    let server = ContainerSpec { essential: false, ..lab.shell("server", server) };
    let task = lab.engine.create(lab.spec("net", vec![server, lab.shell("client", client)])).await;
    let task = task.unwrap();
    let netns = task.netns().unwrap();
    assert!(std::fs::File::open(&netns).is_ok(), "{netns:?} can be opened from outside");
    task.start().await.unwrap();
    let ran = finish(&task).await;
    assert_eq!(ran.stdout("client"), "hi\n1\n", "{ran:#?}");
    lab.engine.remove("net").await.unwrap();
}

#[tokio::test]
async fn the_containers_own_limits_are_shown_to_it() {
    let Some(lab) = lab() else { return };
    let script =
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    let mut main = lab.shell("main", script);
    main.limits.memory_bytes = Some(96 << 20);
    let ran = lab.run(main).await;
    assert_eq!(ran.stdout("main"), format!("{}\n", 96 << 20), "{ran:#?}");
}

#[tokio::test]
async fn without_user_namespaces_containers_run_and_devices_stay_out_of_reach() {
    let Some(mut lab) = lab() else { return };
    lab.engine = crate::harness::engine_with(lab.dir(), &lab.instance, &lab.world, false);
    let device = lab.layer().join("disk");
    let kind = rustix::fs::FileType::BlockDevice;
    let (mode, number) = (0o666.into(), rustix::fs::makedev(7, 0));
    rustix::fs::mknodat(rustix::fs::CWD, &device, kind, mode, number).unwrap();
    let script = "mknod /dev/own b 7 0 2>/dev/null && echo mknod
        head -c1 /disk 2>&1 | grep -q 'Permission denied' || echo device
        mount -t tmpfs x /tmp 2>/dev/null && echo mount
        echo 9 > /sys/fs/cgroup/pids/pids.max 2>/dev/null && echo cgroup
        cat /proc/self/uid_map; grep CapEff /proc/self/status; id -u";
    let task = lab.start(lab.spec("plain", vec![lab.shell("main", script)])).await;
    assert_eq!(task.spec().ids, None);
    let ran = finish(&task).await;
    let lines: Vec<&str> = ran.stdout("main").lines().map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{ran:#?}");
    assert!(lines[0].ends_with("4294967295"), "{ran:#?}");
    assert_eq!(lines[1..], ["CapEff:\t00000000a00425fb", "0"], "{ran:#?}");
    lab.engine.remove("plain").await.unwrap();

    let mut odd = lab.shell("main", "true");
    odd.init = true;
    odd.capabilities.add = vec!["SYS_PTRACE".into()];
    let ran = lab.run(odd).await;
    ran.position(|e| matches!(e, runtime::EventKind::ContainerFailed { .. }));
}

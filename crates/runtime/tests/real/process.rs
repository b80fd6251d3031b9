//! What a container's process is given.

use crate::harness::lab;
use runtime::{Directory, EventKind, StartFailure, StopReason, Ulimit};
use std::path::PathBuf;

#[tokio::test]
async fn output_and_exit_code_arrive() {
    let Some(lab) = lab() else { return };
    let ran = lab.run(lab.shell("main", "echo hello; echo oops >&2; exit 7")).await;
    assert_eq!((ran.stdout("main"), ran.stderr("main")), ("hello\n", "oops\n"), "{ran:#?}");
    let exit = ran.exit("main");
    assert_eq!((exit.code, exit.signal, exit.oom), (7, None, false));
    let reason = StopReason::EssentialContainerExited { container: "main".into() };
    assert_eq!(ran.events.last(), Some(&EventKind::TaskStopped { reason }));
}

async fn failure(lab: &crate::harness::Lab, spec: runtime::ContainerSpec) -> StartFailure {
    let name = spec.name.clone();
    let ran = lab.run(spec).await;
    let found = ran.events.into_iter().find_map(|e| match e {
        EventKind::ContainerFailed { container, failure } if container == name => Some(failure),
        _ => None,
    });
    found.expect("it failed to start")
}

#[tokio::test]
async fn each_reason_not_to_start_is_told_apart() {
    let Some(lab) = lab() else { return };
    let with = |args: &[&str]| {
        let mut spec = lab.shell("main", "");
        spec.args = args.iter().map(|a| (*a).to_owned()).collect();
        spec
    };
    let command = "no-such-command".to_owned();
    let not_found = StartFailure::CommandNotFound { command };
    assert_eq!(failure(&lab, with(&["no-such-command"])).await, not_found);
    let command = "/bin/denied".to_owned();
    assert_eq!(
        failure(&lab, with(&["/bin/denied"])).await,
        StartFailure::PermissionDenied { command }
    );
    let failed = failure(&lab, with(&["/etc/passwd"])).await;
    assert!(matches!(failed, StartFailure::PermissionDenied { .. }), "{failed:?}");

    let mut nobody = lab.shell("main", "true");
    nobody.user = "nobody".into();
    let failed = failure(&lab, nobody).await;
    assert!(matches!(failed, StartFailure::User { .. }), "{failed:?}");

    let mut lost = lab.shell("main", "true");
    let (name, target) = ("x".to_owned(), "/x".to_owned());
    lost.mounts.push(runtime::Mount::Volume { name, target, read_only: false, copy_up: false });
    let mut spec = lab.spec("lost", vec![lost]);
    let nowhere = runtime::VolumeSource::Directory(Directory {
        base: lab.dir().join("nowhere"),
        beneath: PathBuf::new(),
    });
    spec.volumes.insert("x".into(), nowhere);
    let ran = crate::harness::finish(&lab.start(spec).await).await;
    let is_mount = |kind: &EventKind| {
        let EventKind::ContainerFailed { failure, .. } = kind else { return false };
        matches!(failure, StartFailure::Mount { .. })
    };
    assert!(ran.events.iter().any(is_mount), "{ran:#?}");

    let mut file = lab.shell("main", "true");
    file.cwd = "/etc/passwd/below".into();
    let failed = failure(&lab, file).await;
    assert!(matches!(failed, StartFailure::WorkingDirectory { .. }), "{failed:?}");

    let mut init = with(&["no-such-command"]);
    init.init = true;
    let failed = failure(&lab, init).await;
    assert!(matches!(failed, StartFailure::CommandNotFound { .. }), "{failed:?}");
}

#[tokio::test]
async fn environment_directory_and_limits_are_as_asked() {
    let Some(lab) = lab() else { return };
    let script = "env | grep -v SHLVL; pwd; ulimit -n; ulimit -Hn; cat /etc/resolv.conf /etc/hosts \
                  /etc/hostname; hostname; cat /proc/sys/net/ipv4/ip_default_ttl; \
                  cat /proc/sys/kernel/msgmax; \
                  stat -c %a /made/here; test -e /dev/shm && echo shm";
    let mut spec = lab.shell("main", script);
    spec.env = vec![("A".into(), "1 2".into()), ("B".into(), String::new())];
    spec.cwd = "/made/here".into();
    spec.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    spec.sysctls.insert("net.ipv4.ip_default_ttl".into(), "42".into());
    spec.sysctls.insert("kernel.msgmax".into(), "4096".into());
    let ran = lab.run(spec).await;
    let lines: Vec<&str> = ran.stdout("main").lines().collect();
    for line in [
        "A=1 2",
        "B=",
        "HOME=/root",
        "HOSTNAME=box",
        "/made/here",
        "100",
        "200",
        "shm",
        "nameserver 10.0.0.2",
        "127.0.0.1 localhost",
        "42",
        "4096",
        "755",
    ] {
        assert!(lines.contains(&line), "{line}: {ran:#?}");
    }
    assert_eq!(lines.iter().filter(|l| **l == "box").count(), 2, "{ran:#?}");
}

#[tokio::test]
async fn users_are_found_in_the_containers_own_files() {
    let Some(lab) = lab() else { return };
    let script =
        "id -u; id -g; id -G; echo $HOME; echo ok > /dev/stdout; echo $(stat -L -c %u /proc/self)";
    for (user, expected) in [
        ("web", "33\n34\n34 50\n/data\nok\n33\n"),
        ("33:50", "33\n50\n50\n/data\nok\n33\n"),
        ("1000:1001", "1000\n1001\n1001\n/\nok\n1000\n"),
        ("", "0\n0\n0\n/root\nok\n0\n"),
    ] {
        let mut spec = lab.shell("main", script);
        spec.user = user.into();
        let ran = lab.run(spec).await;
        assert_eq!(ran.stdout("main"), expected, "{user}: {ran:#?}");
    }
}

#[tokio::test]
async fn init_reaps_and_passes_signals_on() {
    let Some(lab) = lab() else { return };
    // The inner shell is orphaned when the outer one ends, and becomes init's.
    let script = "trap 'echo term; exit 5' TERM; sh -c 'sleep 0.1 & exit 0'; echo pid $$; \
                  kill -TERM 1; sleep 5 & wait $!; sleep 5";
    let mut spec = lab.shell("main", script);
    spec.init = true;
    let ran = lab.run(spec).await;
    assert!(!ran.stdout("main").contains("pid 1\n"), "{ran:#?}");
    assert!(ran.stdout("main").ends_with("term\n"), "{ran:#?}");
    assert_eq!(ran.exit("main").code, 5);
}

#[tokio::test]
async fn signals_and_descriptors_are_as_a_program_expects() {
    let Some(lab) = lab() else { return };
    for (args, expected) in [
        (
            &["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"][..],
            "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n",
        ),
        // The last is the directory that is being listed.
        (&["ls", "/proc/self/fd"][..], "0\n1\n2\n3\n"),
    ] {
        let mut main = lab.shell("main", "");
        main.args = args.iter().map(|a| (*a).to_owned()).collect();
        assert_eq!(lab.run(main).await.stdout("main"), expected);
    }
}

#[tokio::test]
async fn a_terminal_is_one() {
    let Some(lab) = lab() else { return };
    let mut spec = lab.shell("main", "test -t 0 && test -t 1 && tty && echo here > /dev/console");
    spec.tty = true;
    let ran = lab.run(spec).await;
    assert_eq!(ran.exit("main").code, 0, "{ran:#?}");
    assert!(ran.stdout("main").ends_with("here\r\n"), "{ran:#?}");
}

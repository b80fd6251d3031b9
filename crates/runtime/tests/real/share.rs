//! Directories in which a task acts as somebody else.

use crate::{
    harness::{Lab, Ran, finish, lab},
    storage::volume,
};
use runtime::{Actor, ContainerSpec, Directory, TaskSpec, VolumeSource};
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

const FIXED: Actor = Actor::Fixed { uid: 1234, gid: 5678, groups: Vec::new() };

fn directory(lab: &Lab, owner: u32) -> PathBuf {
    let directory = lab.dir().join("share");
    std::fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(owner), Some(owner)).unwrap();
    directory
}

fn name(user: &str) -> String {
    format!("u{}", user.split(':').next().unwrap())
}

fn spec(lab: &Lab, id: &str, directory: &Path, actor: Actor, scripts: &[(&str, &str)]) -> TaskSpec {
    let container = |(user, script): &(&str, &str)| {
        let mut container: ContainerSpec = lab.shell(&name(user), script);
        container.user = (*user).to_owned();
        container.essential = false;
        container.mounts = vec![volume("s", "/s", false, false)];
        container
    };
    let mut containers: Vec<_> = scripts.iter().map(container).collect();
    containers[0].essential = true;
    let mut spec = lab.spec(id, containers);
    let directory = Directory { base: directory.to_owned(), beneath: PathBuf::new() };
    spec.volumes.insert("s".into(), VolumeSource::Share { directory, actor });
    spec
}

async fn run(lab: &Lab, spec: TaskSpec) -> Ran {
    finish(&lab.start(spec).await).await
}

#[tokio::test]
async fn whoever_asks_acts_as_one() {
    let Some(lab) = lab() else { return };
    let share = directory(&lab, 1234);
    std::fs::write(share.join("secret"), "root's").unwrap();
    std::fs::set_permissions(share.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    let script = "cd /s
        echo one > a; mkdir -p d/e; ln -s /etc/passwd link; ln a hard; mv a d/b; stat -c '%u %g %h' d/b
        cat d/b; readlink link; chown 7 d/b 2>/dev/null || echo no chown; chmod 600 d/b; stat -c %a d/b
        mknod dev b 8 0 2>/dev/null || echo no device; mkfifo fifo && echo fifo
        cat secret 2>/dev/null || echo no secret; cat < /s/link | head -c 4; echo
        for i in $(seq 300); do echo $i > d/e/$i; done; ls d/e | wc -l; rm -r d/e; ls
        echo two >> hard; cat d/b; : > d/b; wc -c < hard; touch -d '2001-02-03 04:05:06' d/b; stat -c %y d/b
        printf '#!/bin/sh\necho ran\n' > run; chmod +x run; ./run
        dd if=/dev/zero of=big bs=1M count=3 2>/dev/null; wc -c < big; df -P . | tail -1 | cut -d' ' -f1";
    let ran = run(&lab, spec(&lab, "as", &share, FIXED, &[("0", script)])).await;
    let expected = "1234 5678 2\none\n/etc/passwd\nno chown\n600\nno device\nfifo\nno secret\nroot\n300\n\
                    d\nfifo\nhard\nlink\nsecret\none\ntwo\n0\n\
                    2001-02-03 04:05:06.000000000 +0000\nran\n3145728\nshare\n";
    assert_eq!(ran.stdout("u0"), expected, "{ran:#?}");
    let made = share.join("hard").metadata().unwrap();
    assert_eq!((made.uid(), made.gid()), (1234, 5678));
    // Another user of another task finds them, and is the same.
    let script = "cat /s/hard; echo more > /s/hard && echo written; stat -c %u /s/hard; id -u";
    let ran = run(&lab, spec(&lab, "other", &share, FIXED, &[("99", script)])).await;
    assert_eq!(ran.stdout("u99"), "written\n1234\n99\n", "{ran:#?}");
}

#[tokio::test]
async fn root_is_nobody_where_it_is_squashed() {
    let Some(lab) = lab() else { return };
    let share = directory(&lab, 0);
    std::fs::set_permissions(&share, PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::write(share.join("roots"), "r").unwrap();
    std::fs::set_permissions(share.join("roots"), PermissionsExt::from_mode(0o600)).unwrap();
    let script = "cat /s/roots 2>/dev/null || echo refused; echo x > /s/$(id -u); stat -c '%u %g' /s/$(id -u)";
    let scripts = [("0", script), ("1000:1000", script)];
    for (user, script) in scripts {
        let id = format!("squash{}", &user[..1]);
        let ran = run(&lab, spec(&lab, &id, &share, Actor::RootSquashed, &[(user, script)])).await;
        let who = if user == "0" { "65534 65534" } else { "1000 1000" };
        assert_eq!(ran.stdout(&name(user)), format!("refused\n{who}\n"), "{ran:#?}");
    }
}

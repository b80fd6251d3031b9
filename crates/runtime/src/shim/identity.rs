//! Who a command runs as, looked up in the container's own files, which may say anything.

use crate::journal::StartFailure;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use std::{fs::File, io::Read, os::fd::BorrowedFd};

/// How much of a user or group file is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The kernel's own limit is higher; more than this is a mistake or an attack.
const MAX_GROUPS: usize = 1024;

/// A user as the kernel needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks up `user` (`uid`, `uid:gid`, `name`, `name:group`, or empty for root) beneath `root`. Ids
/// must be below `count`, or the user namespace does not have them.
pub(crate) fn resolve(
    root: BorrowedFd<'_>,
    user: &str,
    count: u32,
) -> Result<Identity, StartFailure> {
    let identity = lookup(user, &read(root, "etc/passwd"), &read(root, "etc/group"))?;
    let all = identity.groups.iter().chain([&identity.uid, &identity.gid]);
    let missing = all.copied().find(|id| *id >= count);
    match missing {
        Some(id) => {
            Err(StartFailure::User { what: format!("id {id} (only ids below {count} exist)") })
        }
        None => Ok(identity),
    }
}

/// A file beneath `root`, symbolic links taken as the container would; empty when there is none.
fn read(root: BorrowedFd<'_>, path: &str) -> Vec<u8> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // Not blocking: it might be a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let Ok(fd) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) else {
        return Vec::new();
    };
    let regular = rustix::fs::fstat(&fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    // What cannot be read is as if it were not there: the user is then not found.
    if !regular || File::from(fd).take(MAX_FILE).read_to_end(&mut bytes).is_err() {
        bytes.clear();
    }
    bytes
}

fn lookup(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, StartFailure> {
    let (user, wanted) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let missing = |kind: &str, what: &str| StartFailure::User { what: format!("{kind} {what}") };
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n != u32::MAX);
    let user = if user.is_empty() { "0" } else { user };
    let wanted = wanted.filter(|g| !g.is_empty());
    let entries = || lines(passwd).filter_map(User::parse);
    let found = entries().find(|u| u.name == user).or_else(|| {
        let uid = number(user)?;
        entries().find(|u| u.uid == uid)
    });
    let (uid, own_gid, name, home) = match (found, number(user)) {
        (Some(u), _) => (u.uid, u.gid, Some(u.name), u.home.to_owned()),
        (None, Some(uid)) => (uid, 0, None, String::new()),
        (None, None) => return Err(missing("user", user)),
    };
    let groups = || lines(group).filter_map(Group::parse);
    let gid = match wanted {
        None => own_gid,
        Some(wanted) => groups()
            .find(|g| g.name == wanted)
            .map(|g| g.gid)
            .or_else(|| number(wanted))
            .ok_or_else(|| missing("group", wanted))?,
    };
    // Like other engines: who names a group gets that one only. The group itself is always among
    // them, or it could be shed, and with it what is forbidden to its members.
    let member = |g: &Group| name.is_some_and(|name| g.members.split(',').any(|m| m == name));
    let mut more: Vec<u32> = match wanted {
        Some(_) => Vec::new(),
        None => groups().filter(member).map(|g| g.gid).take(MAX_GROUPS).collect(),
    };
    more.push(gid);
    more.sort_unstable();
    more.dedup();
    let home = if home.is_empty() { "/".to_owned() } else { home };
    Ok(Identity { uid, gid, groups: more, home })
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).unwrap_or_default();
        let home = if home.contains('\0') { "" } else { home };
        Some(Self { name, uid, gid, home })
    }
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\n\xff\xfe\nweb:x:33:34::/srv:\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:34:\nlogs:x:50:web,app\ndisk:x:6:app\nvideo:x:7:web\n";

    fn ids(user: &str) -> Option<(u32, u32, Vec<u32>, String)> {
        lookup(user, PASSWD, GROUP).ok().map(|i| (i.uid, i.gid, i.groups, i.home))
    }

    #[test]
    fn every_way_to_name_a_user() {
        assert_eq!(ids(""), Some((0, 0, vec![0], "/root".into())));
        assert_eq!(ids("web"), Some((33, 34, vec![7, 34, 50], "/srv".into())));
        assert_eq!(ids("33"), Some((33, 34, vec![7, 34, 50], "/srv".into())));
        assert_eq!(ids("web:logs"), Some((33, 50, vec![50], "/srv".into())));
        assert_eq!(ids("1000:1001"), Some((1000, 1001, vec![1001], "/".into())));
        assert_eq!(ids("1000"), Some((1000, 0, vec![0], "/".into())));
        assert_eq!((ids("nobody"), ids("web:none"), ids("4294967295")), (None, None, None));
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("etc/passwd")).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "me:x:5:6::/me:\n").unwrap();
        let root = File::open(dir.path()).unwrap();
        assert_eq!(resolve(root.as_fd(), "me", 65536).unwrap().uid, 5);
        assert!(resolve(root.as_fd(), "70000", 65536).is_err());
    }

    proptest! {
        #[test]
        fn any_files_give_an_answer(
            user in ".{0,40}",
            passwd in proptest::collection::vec(any::<u8>(), 0..400),
            group in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            // That it answers, whatever it answers.
            let _ = lookup(&user, &passwd, &group);
        }
    }
}

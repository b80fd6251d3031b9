//! System calls that no crate at hand wraps, each in one small function.

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, loop_config,
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

/// Gives a detached mount the id mapping of a user namespace: what is owned by N on disk appears as
/// owned by what the namespace maps N to.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    mount_setattr(mount, &attributes)
}

/// Sets attributes of a mount, not of those below it.
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: &libc::mount_attr,
) -> io::Result<()> {
    // SAFETY: the descriptor, the empty path and the attributes live through the call, and the size
    // is that of the attributes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Enters namespaces: one by its file, or those in `kinds` of a process by its pidfd.
pub(crate) fn setns(fd: BorrowedFd<'_>, kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a descriptor that lives through the call and a number.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into()).map(drop)
}

/// Leaves namespaces for new ones.
pub(crate) fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a number; it changes only which namespaces this process is in.
    check(unsafe { libc::unshare(kinds) }.into()).map(drop)
}

/// What [`fork`] answers.
pub(crate) enum Forked {
    /// In the new process.
    Child,
    /// In the old one, with the new one's id.
    Parent(i32),
}

/// Makes a process that is a copy of this one. With `sibling` its parent is this process's parent.
///
/// This process must have one thread: others are not copied, but the locks that they hold are.
pub(crate) fn fork(sibling: bool) -> io::Result<Forked> {
    let parent = if sibling { libc::CLONE_PARENT } else { 0 };
    // SAFETY: without a stack and without CLONE_VM this is fork: the child goes on with a copy of
    // everything, and there is one thread only (see above), so no lock is held by a thread that is
    // gone.
    let pid = unsafe { libc::syscall(libc::SYS_clone, parent | libc::SIGCHLD, 0, 0, 0, 0) };
    match check(pid)? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// Ends this process at once, without running anything that the copied program registered for its
/// end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Makes this process be sent `signal` when its parent ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    check(result.into()).map(drop)
}

/// Makes this process's memory and descriptors unreadable for others of the same user.
pub(crate) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, u32::from(dumpable), 0, 0, 0) };
    check(result.into()).map(drop)
}

/// Keeps permitted capabilities when the user changes from root to another.
pub(crate) fn keep_capabilities(keep: bool) -> io::Result<()> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, u32::from(keep), 0, 0, 0) };
    check(result.into()).map(drop)
}

/// Takes from setuid binaries their power, for this process and all that come from it.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Sets the name that process lists show, at most 15 bytes.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the name lives through the call. A failure would leave the old name, which does no
    // harm.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Closes every descriptor from `first` on, or, with `at_exec`, marks it to be closed at exec.
pub(crate) fn close_from(first: u32, at_exec: bool) -> io::Result<()> {
    let flags = if at_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: callers call this just before exec or in a process that uses none of those
    // descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    check(result).map(drop)
}

/// Unblocks all signals and gives all of them their default action, as a container's command
/// expects.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's sigaction: handler, flags, restorer, mask. All zero is the default action.
    let action = [0u64; 4];
    // SAFETY: all pointers are to locals. The call is made directly because the C library keeps two
    // signals to itself, which whoever started the control plane may have ignored all the same.
    unsafe {
        for signal in 1..=64 {
            // KILL and STOP cannot be changed, and need not be.
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            );
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        check(libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()).into()).map(drop)
    }
}

/// Blocks `signals` and makes them readable from a descriptor.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: all pointers are to locals; the descriptor that comes back is nobody else's.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()).into())?;
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets the real, effective and saved group, then user.
pub(crate) fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: take numbers only. The system calls change the one thread that there is.
    unsafe {
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid)).map(drop)
    }
}

/// Sets the group and the user that this thread uses files as. Root's powers over files come and go with the user.
pub(crate) fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: take numbers only. They cannot fail for root, and answer the ids of before.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

/// Sets the supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice lives through the call, and its length is given.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(result).map(drop)
}

/// Sets a resource limit of this process.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the limit lives through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, &limit, std::ptr::null::<libc::rlimit64>())
    };
    check(result).map(drop)
}

/// A resource limit of this process: soft, hard.
pub(crate) fn rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit is a local that the call fills.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &mut limit,
        )
    };
    check(result).map(|_| (limit.rlim_cur, limit.rlim_max))
}

/// Becomes another program. Only comes back when that fails.
pub(crate) fn execve(path: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists end with null and, like the path, live through the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Makes a terminal this process's controlling one. The process must lead its session.
pub(crate) fn set_controlling_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: takes a descriptor that lives through the call and a number.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(result.into()).map(drop)
}

/// The other end of a terminal whose controlling end is `master`.
pub(crate) fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes a descriptor that lives through the call and flags; what comes back is ours
    // alone.
    unsafe {
        let fd = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: a zeroed ifreq is valid; the request lives through the calls that fill and read it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request).into()).map(drop)
    }
}

/// The number of a loop device that nobody uses, as yet.
pub(crate) fn free_loop(control: impl AsFd) -> io::Result<u32> {
    let control = control.as_fd().as_raw_fd();
    // SAFETY: takes a descriptor that lives through the call.
    let number = unsafe { libc::ioctl(control, LOOP_CTL_GET_FREE.into()) };
    check(number.into()).map(|number| number as u32)
}

/// Makes a loop device show `file`, until nobody has it open or mounted.
pub(crate) fn set_loop(device: impl AsFd, file: impl AsFd) -> io::Result<()> {
    // SAFETY: these are numbers and arrays of numbers, for which zero is valid.
    let mut config: loop_config = unsafe { std::mem::zeroed() };
    config.fd = file.as_fd().as_raw_fd() as u32;
    config.block_size = 4096;
    // Not cached twice; where the file system cannot do that, the kernel leaves it out.
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR as u32 | LO_FLAGS_DIRECT_IO as u32;
    let device = device.as_fd().as_raw_fd();
    // SAFETY: the descriptors and the configuration live through the call.
    check(unsafe { libc::ioctl(device, LOOP_CONFIGURE.into(), &config) }.into()).map(drop)
}

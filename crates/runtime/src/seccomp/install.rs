//! Putting a filter in force.

use std::io;

/// Filters the system calls of this process, and of all that come from it, from now on. Needs
/// either `CAP_SYS_ADMIN` in the user namespace or no-new-privileges.
pub(crate) fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program, which the kernel only reads, lives through the call, and its length is
    // given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // As for other engines' containers: no mitigation against speculative store bypass is
            // forced on programs that did not ask for it.
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &program,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! What a start leaves in memory that nothing needs after it.

use nix::sys::mman::{MmapAdvise, madvise};
use std::{ffi::c_void, num::NonZeroUsize, ptr::NonNull};

/// Gives back the pages of this program's code. A start runs through code that is not run again, and through much of it
/// once; what is run after this comes back from the page cache as it is needed, sixteen pages at a time.
pub(super) fn give_back_code() {
    let outcome = std::fs::read_to_string("/proc/self/maps").and_then(|maps| {
        let exe = std::fs::read_link("/proc/self/exe")?;
        let name = exe.to_string_lossy();
        for (start, length) in maps.lines().filter_map(|line| code(line, &name)) {
            let start = NonNull::<c_void>::without_provenance(start);
            // SAFETY: the mapping is of this program's file, private, and executable but not writable: no page of it
            // differs from the file (the linker makes no text relocations), so that each reads the same when it is
            // read again.
            unsafe { madvise(start, length, MmapAdvise::MADV_DONTNEED) }?;
        }
        Ok(())
    });
    if let Err(error) = outcome {
        tracing::warn!(%error, "memory that only the start needed could not be given back");
    }
}

/// Where a line of `/proc/self/maps` says that code of the file `exe` is, and how long that is.
/// <https://man7.org/linux/man-pages/man5/proc_pid_maps.5.html>
fn code(line: &str, exe: &str) -> Option<(NonZeroUsize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()? != "r-xp" || !line.ends_with(exe) {
        return None;
    }
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    Some((NonZeroUsize::new(start)?, length))
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn only_the_programs_code_is_given_back() {
        let of =
            |line: &str| code(line, "/opt/neargate").map(|(start, length)| (start.get(), length));
        let line = "00400000-02c00000 r-xp 00200000 fe:00 123                        /opt/neargate";
        assert_eq!(of(line), Some((0x40_0000, 0x280_0000)));
        assert_eq!(of(&line.replace("r-xp", "r--p")), None);
        assert_eq!(of(&line.replace("r-xp", "rwxp")), None);
        assert_eq!(of(&line.replace("neargate", "other")), None);
        assert_eq!(of("7f00-7f01 r-xp 0 0:0 0"), None);
    }
}

//! Names in the host's own list of names: a block between two marks that are ours, and nothing beside it.

use nix::fcntl::{Flock, FlockArg};
use std::{
    fs,
    io::{self, Read, Seek, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Why names could not be written.
#[derive(Debug, Error)]
#[error("cannot write {path}")]
pub struct HostsError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes the names of `instance` into `file`; without names, its block goes.
pub(super) fn write(
    file: &Path,
    instance: &str,
    names: &[(Ipv4Addr, String)],
) -> Result<(), HostsError> {
    change(file, instance, names).map_err(|source| HostsError { path: file.to_owned(), source })
}

fn change(file: &Path, instance: &str, names: &[(Ipv4Addr, String)]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let open = options.read(true).write(true).create(!names.is_empty()).truncate(false).open(file);
    let open = match open {
        Err(error) if names.is_empty() && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    // Several Neargates may write at once.
    let mut file = Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let mut before = String::new();
    file.read_to_string(&mut before)?;
    let after = with_block(&before, instance, names);
    if after == before {
        return Ok(());
    }
    // In place: in a container this file is a mount, which cannot be replaced. Longer first, so that no moment
    // has less.
    file.rewind()?;
    file.write_all(after.as_bytes())?;
    file.set_len(after.len() as u64)?;
    file.sync_all()
}

fn with_block(text: &str, instance: &str, names: &[(Ipv4Addr, String)]) -> String {
    let (begin, end) =
        (format!("# neargate {instance} begin"), format!("# neargate {instance} end"));
    let mut ours = false;
    let mut kept = String::new();
    for line in text.lines() {
        ours |= line == begin;
        if !ours {
            kept.push_str(line);
            kept.push('\n');
        }
        ours &= line != end;
    }
    if !names.is_empty() {
        let lines = names.iter().map(|(ip, name)| format!("{ip} {name}\n"));
        kept.push_str(&format!("{begin}\n{}{end}\n", lines.collect::<String>()));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_block_changes() {
        let names = [(Ipv4Addr::new(198, 18, 0, 1), "web.localhost".to_owned())];
        let file = "127.0.0.1 localhost\n# mine\n";
        let with = with_block(file, "abc", &names);
        assert!(with.starts_with(file) && with.contains("\n198.18.0.1 web.localhost\n"), "{with}");
        let both = with_block(&with, "other", &names);
        assert_eq!(with_block(&both, "other", &[]), with);
        assert_eq!(with_block(&with, "abc", &names), with);
        assert_eq!(with_block(&with, "abc", &[]), file);
    }
}

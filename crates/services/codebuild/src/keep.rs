//! What is read out of a build's container, from outside and while it runs. All of it is the build's: every path is
//! taken as the container would take it and within its root file system alone, and everything is bounded.

use globset::{GlobBuilder, GlobMatcher};
use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};
use thiserror::Error;

/// The most files of one output.
const MOST_FILES: usize = 100_000;
/// The deepest directory that is looked into.
const DEEPEST: usize = 128;

/// Why something cannot be kept.
#[derive(Debug, Error)]
pub(crate) enum KeepError {
    /// There is no such directory.
    #[error("no matching base directory path found for {0}")]
    NoBase(String),
    /// Nothing matches.
    #[error("no matching artifact paths found")]
    Nothing,
    /// A pattern means nothing.
    #[error("{0} is not a pattern: {1}")]
    Pattern(String, #[source] globset::Error),
    /// There is too much of it.
    #[error("it has more than {0}")]
    Many(String),
    /// It cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// What.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// The root file system of a running container.
pub(crate) struct Root(pub OwnedFd);

/// A file to keep.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it is in the container.
    pub path: PathBuf,
    /// What it is called in what is kept: its path from the base directory.
    pub name: PathBuf,
}

impl Root {
    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        // What is mounted within could be served by the build itself, and never answer.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        // With O_PATH, openat2 refuses what has no meaning.
        let flags = match flags.contains(OFlags::PATH) {
            true => flags | OFlags::CLOEXEC,
            false => flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
        };
        Ok(rustix::fs::openat2(self.0.as_fd(), path, flags, Mode::empty(), resolve)?)
    }

    /// A regular file.
    pub(crate) fn file(&self, path: &Path) -> io::Result<File> {
        let file = self.open(path, OFlags::RDONLY)?;
        let mode = rustix::fs::fstat(&file)?.st_mode;
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Ok(File::from(file)),
            _ => Err(io::Error::other("it is no regular file")),
        }
    }

    /// The text of a file, to so many bytes.
    pub(crate) fn text(&self, path: &Path, most: u64) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.file(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The target of a symbolic link; none for what is none.
    pub(crate) fn link(&self, path: &Path) -> Option<PathBuf> {
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let target = rustix::fs::readlinkat(&link, "", Vec::new()).ok()?;
        Some(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Whether there is such a directory.
    fn is_directory(&self, path: &Path) -> bool {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// The files that patterns mean beneath `base`, where it is another pattern's too only once, in the order of their
    /// names. `links` says whether symbolic links count as files themselves.
    pub(crate) fn find(
        &self,
        base: &Path,
        patterns: &[String],
        exclude: &[String],
        links: bool,
    ) -> Result<Vec<Found>, KeepError> {
        if !self.is_directory(base) {
            return Err(KeepError::NoBase(base.display().to_string()));
        }
        let exclude = exclude
            .iter()
            .map(|pattern| matcher(&base.join(pattern)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut found = Vec::new();
        for pattern in patterns {
            let whole = tidy(&base.join(pattern));
            let matcher = matcher(&whole)?;
            let begin = fixed(&whole);
            let mut take = |path: &Path| -> Result<(), KeepError> {
                if !matcher.is_match(path) || exclude.iter().any(|one| one.is_match(path)) {
                    return Ok(());
                }
                if found.len() >= MOST_FILES {
                    return Err(KeepError::Many(format!("{MOST_FILES} files")));
                }
                let name = path.strip_prefix(base).or_else(|_| path.strip_prefix("/"));
                let name = name.unwrap_or(path).to_owned();
                found.push(Found { path: path.to_owned(), name });
                Ok(())
            };
            match self.is_directory(&begin) {
                true => self.walk(&begin, links, 0, &mut take)?,
                false if self.file(&begin).is_ok() => take(&begin)?,
                false => {}
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup();
        Ok(found)
    }

    /// Every file beneath a directory. Links to directories are not followed: they may lead round in a circle.
    fn walk(
        &self,
        directory: &Path,
        links: bool,
        depth: usize,
        take: &mut dyn FnMut(&Path) -> Result<(), KeepError>,
    ) -> Result<(), KeepError> {
        let told =
            |source: io::Error| KeepError::Read { path: directory.display().to_string(), source };
        if depth > DEEPEST {
            return Err(KeepError::Many(format!("{DEEPEST} directories within each other")));
        }
        let opened = match self.open(directory, OFlags::RDONLY | OFlags::DIRECTORY) {
            // Something else is mounted there.
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => return Ok(()),
            opened => opened.map_err(told)?,
        };
        let mut entries = Vec::new();
        for entry in Dir::new(opened).map_err(|error| told(error.into()))? {
            let entry = entry.map_err(|error| told(error.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = OsStr::from_bytes(name).to_owned();
                entries.push((name, entry.file_type()));
            }
            if entries.len() > MOST_FILES {
                return Err(KeepError::Many(format!("{MOST_FILES} files in a directory")));
            }
        }
        for (name, kind) in entries {
            let path = directory.join(name);
            match kind {
                FileType::Directory => self.walk(&path, links, depth + 1, take)?,
                FileType::Symlink if links => take(&path)?,
                FileType::RegularFile | FileType::Symlink | FileType::Unknown
                    if self.file(&path).is_ok() =>
                {
                    take(&path)?;
                }
                // Pipes, sockets and devices are nothing that can be kept.
                _ => {}
            }
        }
        Ok(())
    }
}

/// A path without `.` and `..`; those that lead beyond the root lead nowhere.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(part) => tidy.push(part),
            Component::ParentDir => drop(tidy.pop()),
            _ => {}
        }
    }
    tidy
}

fn matcher(pattern: &Path) -> Result<GlobMatcher, KeepError> {
    let text = pattern.to_string_lossy();
    let glob = GlobBuilder::new(&text).literal_separator(true).build();
    Ok(glob.map_err(|error| KeepError::Pattern(text.into_owned(), error))?.compile_matcher())
}

/// What of a pattern's path means itself.
fn fixed(pattern: &Path) -> PathBuf {
    let means_itself =
        |part: &Component| !part.as_os_str().as_bytes().iter().any(|byte| b"*?[{\\".contains(byte));
    pattern.components().take_while(means_itself).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, os::unix::fs::symlink};

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("src/a.txt", "a"),
            ("src/dist/index.html", "i"),
            ("src/dist/js/app.js", "j"),
            ("src/dist/js/app.js.map", "m"),
            ("out/b.txt", "b"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        symlink("/out/b.txt", dir.path().join("src/link")).unwrap();
        symlink("/etc/passwd", dir.path().join("src/outside")).unwrap();
        symlink("/src", dir.path().join("src/dist/circle")).unwrap();
        symlink("../../../../../../../../etc/passwd", dir.path().join("src/up")).unwrap();
        nix_fifo(&dir.path().join("src/pipe"));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        (dir, Root(fd))
    }

    fn nix_fifo(path: &Path) {
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    }

    fn names(
        root: &Root,
        base: &str,
        patterns: &[&str],
        exclude: &[&str],
        links: bool,
    ) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let found = root.find(Path::new(base), &owned(patterns), &owned(exclude), links).unwrap();
        found.iter().map(|found| found.name.display().to_string()).collect()
    }

    #[test]
    fn patterns_mean_files_beneath_their_base() {
        let (_dir, root) = root();
        let all = ["a.txt", "dist/index.html", "dist/js/app.js", "dist/js/app.js.map", "link"];
        assert_eq!(names(&root, "/src", &["**/*"], &[], false), all);
        assert_eq!(names(&root, "/src", &["*"], &[], false), ["a.txt", "link"]);
        assert_eq!(
            names(&root, "/src", &["dist/*", "dist/index.html"], &[], false),
            ["dist/index.html"]
        );
        assert_eq!(
            names(&root, "/src/dist", &["**/*"], &["**/*.map"], false),
            ["index.html", "js/app.js"]
        );
        assert_eq!(
            names(&root, "/src", &["/out/**/*", "./a.txt"], &[], false),
            ["out/b.txt", "a.txt"]
        );
        assert_eq!(names(&root, "/src", &["none*"], &[], false), Vec::<String>::new());
        let links = names(&root, "/src", &["*"], &[], true);
        assert_eq!(links, ["a.txt", "link", "outside", "up"]);
        assert!(matches!(
            root.find(Path::new("/none"), &[], &[], false),
            Err(KeepError::NoBase(_))
        ));
    }

    #[test]
    fn nothing_outside_is_read() {
        let (_dir, root) = root();
        assert_eq!(root.text(Path::new("/src/link"), 10).unwrap(), "b");
        assert!(root.text(Path::new("/src/outside"), 10).is_err());
        assert!(root.text(Path::new("/src/up"), 10).is_err());
        assert!(root.text(Path::new("/../../etc/passwd"), 10).is_err());
        assert!(root.file(Path::new("/src/pipe")).is_err(), "it would wait for ever");
        assert_eq!(root.link(Path::new("/src/outside")), Some("/etc/passwd".into()));
        assert_eq!(tidy(Path::new("/a/../../b/./c")), Path::new("/b/c"));
    }

    proptest! {
        #[test]
        fn any_pattern_is_followed_or_refused(pattern in "[a-z*?\\[\\]{},./\\\\!]{0,30}") {
            let (_dir, root) = root();
            let _ = root.find(Path::new("/src"), &[pattern], &[], false);
        }
    }
}

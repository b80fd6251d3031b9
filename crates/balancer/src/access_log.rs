//! Access logs: lines that workers write into one file for each load balancer. Now and then a file is closed, and
//! whoever delivers it finds it under `logs/` in the process's directory, named by the load balancer and when it ended.
//! Its first line says what the control plane wanted to have said there.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// The name of a file that is written to.
const OPEN: &str = "open";
/// The same, of a process that has handed over.
const LEAVING: &str = "leaving";
/// What the names of closed ones end in.
const CLOSED: &str = "log";
/// A file that is longer is closed before its time, in bytes: whoever delivers it has it in memory.
const LONG: u64 = 64 << 20;
/// Lines that wait for the disk, in bytes.
const BUFFER: usize = 64 << 10;
/// The most that lies here when nobody delivers it, in bytes; what comes then is lost, and told in the log.
const MOST: u64 = 2 << 30;

/// The logs of all load balancers.
#[derive(Default)]
pub(crate) struct Book {
    directory: PathBuf,
    /// The process has handed over; the one that took over has files of its own.
    leaving: AtomicBool,
    pages: Mutex<HashMap<String, Page>>,
}

struct Page {
    file: BufWriter<File>,
    path: PathBuf,
    head: String,
    /// In the file, and in all of the load balancer that are here.
    own: u64,
    bytes: u64,
    /// Lines that were not written, and why is told once.
    lost: u64,
}

impl Book {
    /// The logs under `directory`. What a process that ended has left open is closed.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let directory = directory.join("logs");
        fs::create_dir_all(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let open = entry?.path().join(OPEN);
            if open.exists() {
                close(&open)?;
            }
        }
        Ok(Self { directory, leaving: AtomicBool::new(false), pages: Mutex::default() })
    }

    /// Writes a line of a load balancer. `head` is what a new file begins with.
    pub(crate) fn write(&self, balancer: &str, head: &str, line: &str) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.get(balancer).is_some_and(|page| page.head != head) {
            finish(pages.remove(balancer));
        }
        let page = match pages.entry(balancer.to_owned()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let name = if self.leaving.load(Relaxed) { LEAVING } else { OPEN };
                match Page::new(&self.directory.join(balancer), name, head) {
                    Ok(page) => new.insert(page),
                    Err(error) => return tracing::warn!(%error, "an access log cannot be begun"),
                }
            }
        };
        page.write(line);
        if page.own < LONG {
            return;
        }
        finish(pages.remove(balancer));
    }

    /// Leaves the names of files to another process, and closes what was written so far.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.close();
    }

    /// Takes that back.
    pub(crate) fn stay(&self) {
        self.leaving.store(false, Relaxed);
    }

    /// Closes what was written so far; what cannot be is tried again the next time.
    pub(crate) fn close(&self) {
        let pages = {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *pages)
        };
        for (_, page) in pages {
            finish(Some(page));
        }
    }
}

fn finish(page: Option<Page>) {
    if let Some(Err(error)) = page.map(Page::close) {
        tracing::warn!(%error, "an access log cannot be closed");
    }
}

impl Page {
    fn new(directory: &Path, name: &str, head: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut bytes = 0;
        for entry in fs::read_dir(directory)? {
            // What is delivered just now is gone, and counts no more.
            bytes += entry?.metadata().map_or(0, |of| of.len());
        }
        let path = directory.join(name);
        if path.exists() {
            close(&path)?;
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        let mut file = BufWriter::with_capacity(BUFFER, file);
        writeln!(file, "{head}")?;
        let head = head.to_owned();
        Ok(Self { file, path, head, own: 0, bytes, lost: 0 })
    }

    fn write(&mut self, line: &str) {
        self.own += line.len() as u64;
        self.bytes += line.len() as u64;
        if self.bytes > MOST {
            self.lost += 1;
        } else if let Err(error) = self.file.write_all(line.as_bytes()) {
            if self.lost == 0 {
                tracing::warn!(%error, "an access log cannot be written");
            }
            self.lost += 1;
        }
    }

    fn close(mut self) -> io::Result<()> {
        if self.lost > 0 {
            let (lost, path) = (self.lost, &self.path);
            tracing::warn!(lost, path = %path.display(), "lines of an access log are lost");
        }
        self.file.flush()?;
        close(&self.path)
    }
}

/// A file that waits for its delivery.
pub struct Closed {
    /// Where it is. Whoever has delivered it removes it.
    pub path: PathBuf,
    /// When it ended, in milliseconds since 1970.
    pub end_ms: u64,
    /// Tells it from others of the same load balancer that ended then.
    pub random: String,
}

/// The files of a process's directory that wait, the oldest first. None when there never was any.
pub fn closed(directory: &Path) -> io::Result<Vec<Closed>> {
    let mut found = Vec::new();
    let balancers = match fs::read_dir(directory.join("logs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        balancers => balancers?,
    };
    for balancer in balancers {
        for entry in fs::read_dir(balancer?.path())? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let ended = stem
                .split_once('-')
                .and_then(|(ms, random)| Some((ms.parse().ok()?, random.to_owned())));
            if let Some((end_ms, random)) = ended {
                found.push(Closed { path, end_ms, random });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Gives a file the name of one that is done: by its end, so that names sort by time.
fn close(open: &Path) -> io::Result<()> {
    let end = fs::metadata(open)?.modified().unwrap_or(UNIX_EPOCH);
    let ms = end.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let random =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    fs::rename(open, open.with_file_name(format!("{ms:013}-{random:08x}.{CLOSED}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_begin_with_their_head_and_are_closed_by_whoever_comes_next() {
        let directory = tempfile::tempdir().unwrap();
        let book = Book::open(directory.path()).unwrap();
        book.write("b1", "head", "one\n");
        book.write("b1", "other", "two\n");
        // The process ends without a word; nothing of what reached the disk is lost.
        book.pages.lock().unwrap().get_mut("b1").unwrap().file.flush().unwrap();
        drop(Book::open(directory.path()).unwrap());
        let files: Vec<PathBuf> =
            closed(directory.path()).unwrap().into_iter().map(|closed| closed.path).collect();
        let texts: Vec<String> =
            files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts, ["head\none\n", "other\ntwo\n"]);
    }
}

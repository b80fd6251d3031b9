//! From the containers' pipes and terminals into the spool.

use super::cutter::Cutter;
use super::state::{Shim, Source, wall_ms};
use crate::{
    journal::EventKind,
    spec::LogMode,
    spool::{MAX_FRAME_BYTES, Stream},
};
use std::{io, os::fd::OwnedFd};

/// Reads of one source before the others have their turn.
const READS_AT_ONCE: usize = 8;
/// A pipe's capacity may be raised by its writers, within the kernel's limit for everybody.
const READS_AT_END: usize = 1024;

/// Where a container writes.
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) container: usize,
    pub(super) stream: Stream,
    paused: bool,
    cutter: Cutter,
}

impl Output {
    pub(super) fn new(fd: OwnedFd, container: usize, stream: Stream) -> Self {
        Self { fd, container, stream, paused: false, cutter: Cutter::default() }
    }
}

enum Read {
    Bytes,
    Nothing,
    End,
}

impl Shim {
    /// Reads what there is, unless its writer is to wait.
    pub(super) fn read_output(&mut self, token: u64) {
        for _ in 0..READS_AT_ONCE {
            let Some(Source::Output(output)) = self.sources.get_mut(&token) else { return };
            let container = output.container;
            let full = !self.stalled.is_empty() || self.spool.is_full();
            if full && self.spec.containers[container].log == LogMode::Blocking {
                output.paused = true;
                return self.listen(token, false);
            }
            match self.read_once(token) {
                Read::Bytes => {}
                Read::Nothing => return,
                Read::End => return drop(self.take(token)),
            }
        }
    }

    /// Reads everything that an ended container left in its pipes, full or not.
    pub(super) fn drain_container(&mut self, container: usize) {
        let of = |source: &Source| matches!(source, Source::Output(o) if o.container == container);
        let tokens: Vec<u64> =
            self.sources.iter().filter(|(_, s)| of(s)).map(|(token, _)| *token).collect();
        for token in tokens {
            for _ in 0..READS_AT_END {
                match self.read_once(token) {
                    Read::Bytes => {}
                    Read::Nothing => break,
                    Read::End => {
                        self.take(token);
                        break;
                    }
                }
            }
        }
        self.tell_dropped(container);
    }

    /// Before the shim's own end.
    pub(super) fn drain_outputs(&mut self) {
        for container in 0..self.runs.len() {
            self.drain_container(container);
        }
    }

    fn read_once(&mut self, token: u64) -> Read {
        let Some(Source::Output(output)) = self.sources.get(&token) else { return Read::End };
        self.buffer.resize(MAX_FRAME_BYTES, 0);
        match rustix::io::read(&output.fd, &mut self.buffer) {
            Ok(0) => Read::End,
            Ok(read) => {
                let bytes = std::mem::take(&mut self.buffer);
                self.keep_or_drop(token, &bytes[..read]);
                self.buffer = bytes;
                Read::Bytes
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Read::Nothing,
            // The last process on a terminal closed it.
            Err(rustix::io::Errno::IO) => Read::End,
            Err(e) => {
                self.log("output cannot be read", &io::Error::from(e));
                Read::End
            }
        }
    }

    fn keep_or_drop(&mut self, token: u64, bytes: &[u8]) {
        let Some(Source::Output(output)) = self.sources.get(&token) else { return };
        let (container, stream) = (output.container, output.stream);
        let LogMode::NonBlocking { max_buffer_bytes } = self.spec.containers[container].log else {
            return self.keep(container, stream, bytes);
        };
        let room = max_buffer_bytes.saturating_sub(self.spool.unconsumed(container as u16));
        let fits = self.stalled.is_empty() && bytes.len() as u64 <= room;
        let Some(Source::Output(output)) = self.sources.get_mut(&token) else { return };
        let cut = output.cutter.cut(bytes, fits);
        self.runs[container].dropped += cut.dropped;
        if cut.end_line_first {
            self.keep(container, stream, b"\n");
        }
        if !cut.kept.is_empty() {
            self.keep(container, stream, cut.kept);
        }
        if fits {
            self.tell_dropped(container);
        }
    }

    fn tell_dropped(&mut self, container: usize) {
        let lines = std::mem::take(&mut self.runs[container].dropped);
        if lines > 0 {
            let container = self.spec.containers[container].name.clone();
            self.record(EventKind::OutputDropped { container, lines });
        }
    }

    fn keep(&mut self, container: usize, stream: Stream, bytes: &[u8]) {
        let (time, index) = (wall_ms(), container as u16);
        self.grew = true;
        if self.stalled.is_empty() {
            match self.spool.append(time, index, stream, bytes) {
                Ok(()) => return,
                Err(error) => self.log("output cannot be written yet", &error),
            }
            self.retry_later();
        }
        self.stalled.push_back((time, index, stream, bytes.to_vec()));
    }

    /// Writes what a full disk refused.
    pub(super) fn write_stalled(&mut self) {
        while let Some((time, container, stream, bytes)) = self.stalled.front() {
            if let Err(error) = self.spool.append(*time, *container, *stream, bytes) {
                self.log("output cannot be written yet", &error);
                return self.retry_later();
            }
            self.stalled.pop_front();
            self.grew = true;
        }
        self.resume_outputs();
    }

    /// Lets waiting writers go on, if there is room.
    pub(super) fn resume_outputs(&mut self) {
        if !self.stalled.is_empty() || self.spool.is_full() {
            return;
        }
        let mut resumed = Vec::new();
        for (token, source) in &mut self.sources {
            if let Source::Output(output) = source
                && std::mem::take(&mut output.paused)
            {
                resumed.push(*token);
            }
        }
        for token in resumed {
            self.listen(token, true);
        }
    }

    /// Begins to read what a container writes.
    pub(super) fn listen_to(
        &mut self,
        fd: OwnedFd,
        container: usize,
        stream: Stream,
    ) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&fd)? | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&fd, flags)?;
        self.add(Source::Output(Output::new(fd, container, stream)))?;
        Ok(())
    }
}

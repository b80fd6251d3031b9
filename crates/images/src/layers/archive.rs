//! A reader of tar streams that allocates nothing a hostile one could blow up: every extension
//! header, name and sparse map is bounded before it is read. (The `tar` crate reads extension
//! headers whole, whatever their size, and knows neither pax sparse files nor limits; so this is
//! our own.)

use super::TarError;
use super::header::{BLOCK, Header, Segments, segments};
use super::pax::{Extended, MAX_SEGMENTS, decimal};
use std::io::{self, BufRead, Read};

/// The largest extended header, in bytes.
const MAX_EXTENSION_BYTES: u64 = 2 << 20;
/// The longest name, in bytes: the kernel's PATH_MAX.
const MAX_NAME_BYTES: u64 = 4096;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    /// Major and minor number.
    Character(u32, u32),
    /// Major and minor number.
    Block(u32, u32),
    Fifo,
}

/// One entry; its data are read from the archive.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    /// As written; not checked for anything but its length.
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file's length once unpacked.
    pub(super) real_size: u64,
    /// Where the stored bytes belong, in order: offset and length. One segment for a plain file.
    pub(super) segments: Segments,
}

/// A tar stream.
pub(super) struct Archive<R> {
    input: R,
    /// Bytes of the current entry's data not yet read.
    left: u64,
    /// Bytes that fill its last block.
    padding: u64,
    global: Extended,
}

impl<R: BufRead> Archive<R> {
    pub(super) fn new(input: R) -> Self {
        Archive { input, left: 0, padding: 0, global: Extended::default() }
    }

    /// Gives the stream back, for what follows the archive's end.
    pub(super) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry, or `None` at the end. Data left unread are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        let mut announced = false;
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else {
                // Extension headers that announce nothing are a cut-off archive.
                return if announced { Err(TarError::Truncated) } else { Ok(None) };
            };
            let header = Header::parse(&block)?;
            match header.kind() {
                b'x' | b'X' => {
                    let records = self.extension(header.size()?, MAX_EXTENSION_BYTES)?;
                    extended.merge(&records)?;
                }
                b'g' => {
                    let records = self.extension(header.size()?, MAX_EXTENSION_BYTES)?;
                    self.global.merge(&records)?;
                    // What names or shapes one file cannot be meant for all of them, and would be
                    // copied for each.
                    let Extended { uid, gid, mtime, .. } = std::mem::take(&mut self.global);
                    self.global = Extended { uid, gid, mtime, ..Extended::default() };
                    continue;
                }
                b'L' => long_name = Some(self.long(header.size()?)?),
                b'K' => long_link = Some(self.long(header.size()?)?),
                // A volume's label is no file.
                b'V' => {
                    self.extension(header.size()?, MAX_EXTENSION_BYTES)?;
                    continue;
                }
                _ => return self.entry(&header, extended, long_name, long_link).map(Some),
            }
            announced = true;
        }
    }

    /// The next block that is a header; `None` after two blocks of zeros or at the stream's end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        if self.input.fill_buf().map_err(TarError::Read)?.is_empty() {
            return Ok(None);
        }
        self.exact(&mut block)?;
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        if self.input.fill_buf().map_err(TarError::Read)?.is_empty() {
            return Ok(None);
        }
        self.exact(&mut block)?;
        match block.iter().all(|b| *b == 0) {
            true => Ok(None),
            false => Err(TarError::Checksum),
        }
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        mut extended: Extended,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let sparse = std::mem::take(&mut extended.sparse);
        let name = sparse.name.clone().or(extended.path).or(long_name);
        let path = name.unwrap_or_else(|| header.name());
        let link = extended.link.or(long_link).unwrap_or_else(|| header.link());
        if path.len() as u64 > MAX_NAME_BYTES || link.len() as u64 > MAX_NAME_BYTES {
            return Err(TarError::NameTooLong);
        }
        let kind = match header.kind() {
            // Before ustar, a directory was a file whose name ends in a slash.
            0 | b'0' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => header.device().map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => header.device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind(other)),
        };
        // Only files have data; what other kinds say of their size is not followed by any.
        let stored = match (kind, extended.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => header.size()?,
            _ => 0,
        };
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        let (segments, real_size) = match (kind, header.kind()) {
            (Kind::File, b'S') => self.gnu_sparse(header)?,
            (Kind::File, _) if sparse.is_used() => self.pax_sparse(&sparse)?,
            _ => (vec![(0, stored)], stored),
        };
        check_sparse(&segments, real_size, self.left)?;
        Ok(Entry {
            kind,
            path,
            link,
            mode: header.mode()?,
            uid: extended.uid.map_or_else(|| header.uid(), Ok)?,
            gid: extended.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: extended.mtime.map_or_else(|| header.mtime().map(|s| (s, 0)), Ok)?,
            xattrs: extended.xattrs,
            real_size,
            segments,
        })
    }

    /// GNU's old format: the table goes on in blocks before the data, which the size does not
    /// count.
    fn gnu_sparse(&mut self, header: &Header<'_>) -> Result<(Segments, u64), TarError> {
        let (mut map, mut more, real_size) = header.gnu_sparse()?;
        while more {
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            map.extend(segments(&block[..504])?);
            if map.len() > MAX_SEGMENTS {
                return Err(TarError::Sparse);
            }
            more = block[504] != 0;
        }
        Ok((map, real_size))
    }

    /// The pax formats; version 1.0 has its map in the data, as decimal lines filling whole blocks.
    fn pax_sparse(&mut self, said: &super::pax::Sparse) -> Result<(Segments, u64), TarError> {
        let real_size = said.real_size.ok_or(TarError::Sparse)?;
        let numbers = match (said.major, said.minor) {
            (Some(1), Some(0)) => self.map_in_data()?,
            (None | Some(0), _) => said.numbers.clone(),
            _ => return Err(TarError::Sparse),
        };
        if !numbers.len().is_multiple_of(2) {
            return Err(TarError::Sparse);
        }
        Ok((numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), real_size))
    }

    fn map_in_data(&mut self) -> Result<Vec<u64>, TarError> {
        let (mut line, mut numbers) = (Vec::new(), Vec::new());
        let mut wanted = None;
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            if self.left < BLOCK as u64 {
                return Err(TarError::Sparse);
            }
            let mut block = [0; BLOCK];
            self.exact(&mut block)?;
            self.left -= BLOCK as u64;
            for byte in block {
                if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                    break;
                }
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(TarError::Sparse);
                    }
                    continue;
                }
                let number = decimal(&line).ok_or(TarError::Sparse)?;
                line.clear();
                match wanted {
                    Some(_) => numbers.push(number),
                    None if number > MAX_SEGMENTS as u64 => return Err(TarError::Sparse),
                    None => wanted = Some(2 * number as usize),
                }
            }
        }
        Ok(numbers)
    }

    /// Reads data of the current entry, handing out the stream's own buffer. Empty only when all is
    /// read.
    pub(super) fn data(&mut self, limit: u64) -> Result<&[u8], TarError> {
        let wanted = self.left.min(limit);
        if wanted == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf().map_err(TarError::Read)?;
        if buffer.is_empty() {
            return Err(TarError::Truncated);
        }
        let n = usize::try_from(wanted).map_or(buffer.len(), |wanted| wanted.min(buffer.len()));
        Ok(&buffer[..n])
    }

    /// Marks `n` bytes of [`Archive::data`] as read.
    pub(super) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.left -= n as u64;
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        while rest > 0 {
            let have = self.input.fill_buf().map_err(TarError::Read)?.len();
            if have == 0 {
                return Err(TarError::Truncated);
            }
            let n = (have as u64).min(rest);
            self.input.consume(n as usize);
            rest -= n;
        }
        Ok(())
    }

    fn extension(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, TarError> {
        if size > limit {
            return Err(TarError::Extension);
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut bytes).map_err(TarError::Read)?;
        if bytes.len() as u64 != size {
            return Err(TarError::Truncated);
        }
        self.padding = size.wrapping_neg() % BLOCK as u64;
        Ok(bytes)
    }

    /// GNU's long name, which ends in a NUL.
    fn long(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_NAME_BYTES + 1 {
            return Err(TarError::NameTooLong);
        }
        let mut name = self.extension(size, MAX_NAME_BYTES + 1)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.input.read_exact(buffer).map_err(|failed| match failed.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Read(failed),
        })
    }
}

/// Segments come in order, do not overlap, lie inside the file and are all there.
fn check_sparse(segments: &[(u64, u64)], real_size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut total) = (0u64, 0u64);
    for (offset, length) in segments {
        if *offset < end {
            return Err(TarError::Sparse);
        }
        end = offset.checked_add(*length).ok_or(TarError::Sparse)?;
        total += length;
    }
    match end <= real_size && total == stored && real_size <= i64::MAX as u64 {
        true => Ok(()),
        false => Err(TarError::Sparse),
    }
}

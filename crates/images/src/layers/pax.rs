//! Extended headers of POSIX.1-2001 ("pax"): records `length key=value\n` that overrule the header
//! block.

use super::TarError;
use super::header::owner;

/// Most extended attributes of one file.
const MAX_XATTRS: usize = 128;
/// The kernel's limits for one extended attribute.
const MAX_XATTR_NAME_BYTES: usize = 255;
const MAX_XATTR_VALUE_BYTES: usize = 64 << 10;
/// Most segments of one sparse file.
pub(super) const MAX_SEGMENTS: usize = 1 << 16;

/// What extended headers said, merged.
#[derive(Default, Clone)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// What is said of a sparse file, in GNU's three versions of saying it.
#[derive(Default, Clone)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) real_size: Option<u64>,
    /// Offsets and lengths by turns (versions 0.0 and 0.1).
    pub(super) numbers: Vec<u64>,
}

impl Extended {
    /// Takes the records of one extended header in. A later record overrules an earlier one.
    pub(super) fn merge(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        while !records.is_empty() {
            let space = records.iter().take(20).position(|b| *b == b' ').ok_or(TarError::Pax)?;
            let length = decimal(&records[..space]).ok_or(TarError::Pax)?;
            let length = usize::try_from(length).map_err(|_| TarError::Pax)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(TarError::Pax);
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or(TarError::Pax)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let number = || match value {
            b"" => Ok(None),
            digits => decimal(digits).map(Some).ok_or(TarError::Pax),
        };
        let id = |what| match number()? {
            None => Ok(None),
            Some(id) => {
                owner(i64::try_from(id).map_err(|_| TarError::Number(what))?, what).map(Some)
            }
        };
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.link = bytes(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = id("uid")?,
            b"gid" => self.gid = id("gid")?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.name" => self.sparse.name = bytes(),
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.minor" => self.sparse.minor = number()?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // They come by turns; anything else would shift every later segment.
                let offset_next = self.sparse.numbers.len().is_multiple_of(2);
                if offset_next != (key == b"GNU.sparse.offset") {
                    return Err(TarError::Sparse);
                }
                self.sparse.push(number()?.ok_or(TarError::Sparse)?)?;
            }
            b"GNU.sparse.map" => {
                self.sparse.numbers.clear();
                for part in value.split(|b| *b == b',') {
                    self.sparse.push(decimal(part).ok_or(TarError::Sparse)?)?;
                }
            }
            _ => {
                // Everything else only comments (atime, uname, …), as the standard allows.
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarError> {
        let fits = (1..=MAX_XATTR_NAME_BYTES).contains(&name.len())
            && !name.contains(&0)
            && value.len() <= MAX_XATTR_VALUE_BYTES;
        self.xattrs.retain(|(known, _)| known != name);
        if !fits || self.xattrs.len() >= MAX_XATTRS {
            return Err(TarError::Xattr);
        }
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }
}

impl Sparse {
    fn push(&mut self, number: u64) -> Result<(), TarError> {
        if self.numbers.len() >= 2 * MAX_SEGMENTS {
            return Err(TarError::Sparse);
        }
        self.numbers.push(number);
        Ok(())
    }

    pub(super) fn is_used(&self) -> bool {
        self.major.is_some() || self.real_size.is_some() || !self.numbers.is_empty()
    }
}

/// Decimal digits only, as a u64.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]seconds[.fraction]`.
fn time(value: &[u8]) -> Result<Option<(i64, u32)>, TarError> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| TarError::Pax)?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = decimal(whole.as_bytes()).ok_or(TarError::Pax)?;
    let seconds = i64::try_from(seconds).map_err(|_| TarError::Number("mtime"))?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TarError::Pax);
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| TarError::Pax)?;
    Ok(Some(match (negative, nanoseconds) {
        (false, n) => (seconds, n),
        (true, 0) => (-seconds, 0),
        (true, n) => (-seconds - 1, 1_000_000_000 - n),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_to_the_byte() {
        let mut extended = Extended::default();
        let records = b"12 path=a/b\n20 mtime=-1.25\0\n";
        assert!(extended.merge(records).is_err(), "a NUL is no digit");
        extended.merge(b"12 path=a/b\n15 mtime=-1.25\n11 uid=123\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!((extended.mtime, extended.uid), (Some((-2, 750_000_000)), Some(123)));
        extended.merge(b"25 SCHILY.xattr.user.a=\0\n").unwrap();
        assert_eq!(extended.xattrs, [(b"user.a".to_vec(), vec![0])]);
        for bad in [&b"3 a"[..], b"5 a=b", b"99 a=b\n", b"0 a=b\n", b"x a=b\n", b"6 abc\n"] {
            assert!(Extended::default().merge(bad).is_err(), "{bad:?}");
        }
    }
}

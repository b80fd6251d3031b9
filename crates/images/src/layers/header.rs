//! One 512-byte tar header block: POSIX ustar, GNU and old v7.

use super::TarError;

/// Offsets and lengths of what a sparse file has.
pub(super) type Segments = Vec<(u64, u64)>;

/// Everything in a tar comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// A header block whose checksum has been found right.
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

/// The three dialects of a header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    /// Schilling's tar: a shorter prefix.
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    /// Checks the checksum. Both the right sum of unsigned bytes and the historical one of signed
    /// bytes do.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, TarError> {
        let stored = number(&block[148..156]).ok_or(TarError::Number("checksum"))?;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        match stored == unsigned || stored == signed {
            true => Ok(Header(block)),
            false => Err(TarError::Checksum),
        }
    }

    fn dialect(&self) -> Dialect {
        match (&self.0[257..263], &self.0[263..265], &self.0[508..512]) {
            (b"ustar\0", b"00", b"tar\0") => Dialect::Star,
            (b"ustar\0", ..) => Dialect::Ustar,
            (b"ustar ", ..) => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The name as this block alone tells it.
    pub(super) fn name(&self) -> Vec<u8> {
        let prefix = match self.dialect() {
            Dialect::Ustar => text(&self.0[345..500]),
            Dialect::Star => text(&self.0[345..476]),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        let mut name = prefix.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(text(&self.0[..100]));
        name
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        let mode = field(&self.0[100..108], "mode")?;
        u32::try_from(mode & 0o7777).map_err(|_| TarError::Number("mode"))
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        owner(field(&self.0[108..116], "uid")?, "uid")
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        owner(field(&self.0[116..124], "gid")?, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        let size = field(&self.0[124..136], "size")?;
        u64::try_from(size).map_err(|_| TarError::Number("size"))
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        field(&self.0[136..148], "mtime")
    }

    /// Major and minor number.
    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        if self.dialect() == Dialect::V7 {
            return Ok((0, 0));
        }
        let part = |bytes| {
            let number = field(bytes, "device")?;
            u32::try_from(number).map_err(|_| TarError::Number("device"))
        };
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }

    /// GNU's old sparse header: up to four segments, whether more follow in blocks of their own,
    /// and the file's real size.
    pub(super) fn gnu_sparse(&self) -> Result<(Segments, bool, u64), TarError> {
        let real = field(&self.0[483..495], "real size")?;
        let real = u64::try_from(real).map_err(|_| TarError::Number("real size"))?;
        Ok((segments(&self.0[386..482])?, self.0[482] != 0, real))
    }
}

/// The segments of a GNU sparse table, which ends at the first empty field.
pub(super) fn segments(table: &[u8]) -> Result<Segments, TarError> {
    let mut found = Vec::new();
    for entry in table.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        let part = |bytes| {
            let number = field(bytes, "sparse map")?;
            u64::try_from(number).map_err(|_| TarError::Number("sparse map"))
        };
        found.push((part(&entry[..12])?, part(&entry[12..])?));
    }
    Ok(found)
}

/// A user or group id; the last one means "leave it" to the kernel and so cannot be one.
pub(super) fn owner(id: i64, what: &'static str) -> Result<u32, TarError> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(TarError::Number(what)),
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

fn field(bytes: &[u8], what: &'static str) -> Result<i64, TarError> {
    number(bytes).ok_or(TarError::Number(what))
}

/// A number in octal digits between blanks, or, with the top bit set, in base 256 (two's
/// complement).
fn number(bytes: &[u8]) -> Option<i64> {
    if bytes[0] & 0x80 != 0 {
        let negative = bytes[0] & 0x40 != 0;
        let first = if negative { bytes[0] | 0x80 } else { bytes[0] & 0x7f };
        let mut value = if negative { -1i128 } else { 0 };
        for byte in std::iter::once(&first).chain(&bytes[1..]) {
            value = (value << 8) | i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    let mut value = 0i64;
    for digit in &digits[..end] {
        if !(b'0'..=b'7').contains(digit) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_form() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"77777777777\x20"), Some(0o77777777777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(number(b"0000648\0"), None);
        assert_eq!(number(b"-000644\0"), None);
        let mut huge = [0x80; 12];
        huge[1] = 0x7f;
        assert_eq!(number(&huge), None);
    }
}

//! What a push asks for: the commands at the head of a receive-pack request, before the pack.
//! <https://git-scm.com/docs/gitprotocol-pack#_reference_update_request_and_packfile_transfer>

use crate::names;

/// The longest head, in bytes: some ten thousand references.
pub(crate) const MOST_BYTES: usize = 2 << 20;

/// Why a head is none that we take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It goes on after what is there.
    More,
    /// It is not what git sends.
    Malformed,
    /// It is a signed push.
    Signed,
}

/// The full names of the references that a push changes, read from the head of its request.
pub(crate) fn references(mut input: &[u8]) -> Result<Vec<String>, Unread> {
    let mut names = Vec::new();
    loop {
        let length = input.get(..4).ok_or(Unread::More)?;
        let length = std::str::from_utf8(length)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let length = length.and_then(|text| usize::from_str_radix(text, 16).ok());
        match length.ok_or(Unread::Malformed)? {
            0 => return Ok(names),
            1..=4 => return Err(Unread::Malformed),
            length => {
                let line = input.get(4..length).ok_or(Unread::More)?;
                names.extend(reference(line)?);
                input = &input[length..];
            }
        }
    }
}

/// The name in `OLD NEW NAME`, with `\0CAPABILITIES` behind the first; none in other lines.
fn reference(line: &[u8]) -> Result<Option<String>, Unread> {
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Unread::Malformed)?;
    let line = line.strip_suffix('\n').unwrap_or(line);
    if line.starts_with("push-cert") {
        return Err(Unread::Signed);
    }
    match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["shallow", _] => Ok(None),
        [old, new, name] if names::is_object_id(old) && names::is_object_id(new) => {
            Ok(Some(name.to_owned()))
        }
        _ => Err(Unread::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    fn packet(line: &str) -> String {
        let mut packet = String::new();
        write!(packet, "{:04x}{line}", line.len() + 4).unwrap();
        packet
    }

    #[test]
    fn every_reference_of_a_push_is_seen() {
        let (zero, id) = ("0".repeat(40), "a".repeat(40));
        let mut head = packet(&format!("shallow {id}"));
        head += &packet(&format!("{zero} {id} refs/heads/main\0 report-status atomic"));
        head += &packet(&format!("{id} {zero} refs/heads/a b\n"));
        head += "0000PACK...";
        let seen = references(head.as_bytes()).unwrap();
        assert_eq!(seen, ["refs/heads/main", "refs/heads/a b"]);
        let end = head.find("0000PACK").unwrap();
        for cut in 0..end + 4 {
            assert_eq!(references(&head.as_bytes()[..cut]), Err(Unread::More), "{cut}");
        }
    }

    #[test]
    fn what_is_no_push_is_refused() {
        for bad in ["zzzz", "0003", "0001", "+123", "PACK", "000ahello\n"] {
            assert_eq!(references(bad.as_bytes()), Err(Unread::Malformed), "{bad}");
        }
        let signed = packet("push-cert\0caps");
        assert_eq!(references(signed.as_bytes()), Err(Unread::Signed));
        assert_eq!(references(b"0000"), Ok(vec![]));
    }
}

//! Bodies that clients compress.

use crate::{fault::Fault, shape::Family};
use bytes::Bytes;
use hyper::{HeaderMap, header::CONTENT_ENCODING};
use std::io::Read;

/// A body as it was before the client compressed it, which clients do with long ones of some operations.
/// <https://smithy.io/2.0/spec/behavior-traits.html#requestcompression-trait>
pub(crate) fn unpacked(
    headers: &HeaderMap,
    body: &Bytes,
    most: usize,
    family: Family,
) -> Result<Bytes, Fault> {
    if headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding != "gzip") {
        return Ok(body.clone());
    }
    let mut plain = Vec::new();
    let reader = flate2::read::GzDecoder::new(&body[..]);
    // A byte more than may be tells that there are more.
    let read = reader.take(most as u64 + 1).read_to_end(&mut plain);
    read.map_err(|_| Fault::serialization(family, "The body is not what gzip makes."))?;
    match plain.len() > most {
        true => Err(Fault::too_large(family, most)),
        false => Ok(plain.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use hyper::header::HeaderValue;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    fn read(body: &Bytes, most: usize) -> Result<Bytes, String> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        unpacked(&headers, body, most, Family::Json).map_err(|fault| fault.code.into_owned())
    }

    #[test]
    fn compressed_bodies_are_read_up_to_the_limit() {
        assert_eq!(read(&gzip(b"words"), 5), Ok(Bytes::from_static(b"words")));
        assert_eq!(read(&gzip(b"words"), 4), Err("RequestEntityTooLargeException".to_owned()));
        // A thousand times as long as it looks.
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 20_000);
        assert_eq!(read(&bomb, 20_000), Err("RequestEntityTooLargeException".to_owned()));
    }

    #[test]
    fn what_is_no_gzip_is_refused_or_left_alone() {
        let cut = gzip(b"words").slice(..10);
        for body in [cut, Bytes::new(), Bytes::from_static(b"{}")] {
            assert_eq!(read(&body, 100), Err("SerializationException".to_owned()));
        }
        let plain = Bytes::from_static(b"{}");
        assert_eq!(unpacked(&HeaderMap::new(), &plain, 1, Family::Json).ok(), Some(plain));
    }
}

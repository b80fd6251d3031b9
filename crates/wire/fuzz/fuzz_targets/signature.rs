//! Any header and any query as a signature: it is read or refused, and never verifies.
#![no_main]

use hyper::{HeaderMap, Method, Uri, header::HeaderValue};
use libfuzzer_sys::fuzz_target;
use wire::sigv4::{self, Head};
use world::Timestamp;

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (path, date, authorization) = input;
    let Ok(uri) = path.parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(authorization) {
        headers.insert("authorization", value);
    }
    if let Ok(value) = HeaderValue::from_str(date) {
        headers.insert("x-amz-date", value);
    }
    headers.insert("host", HeaderValue::from_static("localhost"));
    let head = Head { method: &Method::POST, uri: &uri, headers: &headers };
    if let Ok(read) = sigv4::read(head) {
        let hash = sigv4::sha256_hex(b"");
        let now = Timestamp::from_millis(1_800_000_000_000);
        assert!(read.verify(head, &hash, "a secret that nobody knows", now).is_err());
    }
});

use super::*;
use hyper::header::HeaderValue;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

/// The worked example of AWS's signing guide (ListUsers, 2015-08-30).
fn example() -> (Uri, HeaderMap) {
    let uri = "/?Action=ListUsers&Version=2010-05-08".parse().unwrap();
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
        SignedHeaders=content-type;host;x-amz-date, \
        Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    let headers = headers(&[
        ("authorization", authorization),
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
    ]);
    (uri, headers)
}

fn check(
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureFault> {
    let head = Head { method: &Method::GET, uri, headers };
    let authorization = read(head)?;
    authorization.verify(head, &sha256_hex(body), SECRET, now)
}

#[test]
fn the_documented_example_verifies() {
    let (uri, headers) = example();
    assert_eq!(check(&uri, &headers, b"", at("2015-08-30T12:40:00Z")), Ok(()));
}

#[test]
fn any_change_breaks_it() {
    let now = at("2015-08-30T12:36:00Z");
    let (uri, headers) = example();
    let mismatch = |result| matches!(result, Err(SignatureFault::Mismatch(_)));
    assert!(mismatch(check(&uri, &headers, b"x", now)));
    let other: Uri = "/?Action=ListRoles&Version=2010-05-08".parse().unwrap();
    assert!(mismatch(check(&other, &headers, b"", now)));
    let mut changed = headers.clone();
    changed.insert("host", HeaderValue::from_static("sts.amazonaws.com"));
    assert!(mismatch(check(&uri, &changed, b"", now)));
    let mut smuggled = headers.clone();
    smuggled.insert("x-amz-target", HeaderValue::from_static("a.B"));
    assert!(mismatch(check(&uri, &smuggled, b"", now)));
}

#[test]
fn time_has_fifteen_minutes_each_way() {
    let (uri, headers) = example();
    let late = check(&uri, &headers, b"", at("2015-08-30T12:51:01Z")).unwrap_err();
    assert_eq!(
        late,
        SignatureFault::Expired(
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z \
             (20150830T125101Z - 15 min.)"
                .into()
        )
    );
    let early = check(&uri, &headers, b"", at("2015-08-30T12:20:59Z")).unwrap_err();
    assert!(matches!(early, SignatureFault::NotYetCurrent(_)));
    assert_eq!(check(&uri, &headers, b"", at("2015-08-30T12:51:00Z")), Ok(()));
}

#[test]
fn presigned_urls_hold_until_they_expire() {
    let time = at("2026-01-02T03:04:05Z");
    let query = presign_get(
        ("AKIDEXAMPLE", SECRET),
        ("us-east-1", "ecr"),
        "localhost:4566",
        "/v2/a/blobs/sha256:00",
        time,
        Duration::from_secs(60),
    );
    let uri: Uri = format!("/v2/a/blobs/sha256:00?{query}").parse().unwrap();
    let headers = headers(&[("host", "localhost:4566")]);
    let verify = |now| {
        let head = Head { method: &Method::GET, uri: &uri, headers: &headers };
        read(head).unwrap().verify(head, UNSIGNED_PAYLOAD, SECRET, now)
    };
    assert_eq!(verify(time + Duration::from_secs(60)), Ok(()));
    let late = verify(time + Duration::from_secs(61));
    assert!(matches!(late, Err(SignatureFault::Expired(_))));
}

#[test]
fn what_is_missing_is_said() {
    let (uri, mut headers) = example();
    headers.insert("authorization", HeaderValue::from_static("Basic Zm9vOmJhcg=="));
    let fault = check(&uri, &headers, b"", at("2015-08-30T12:36:00Z"));
    assert!(matches!(fault, Err(SignatureFault::Incomplete(_))));
    headers.insert(
        "authorization",
        HeaderValue::from_static(
            "AWS4-HMAC-SHA256 Credential=AKID/20150830/us-east-1/iam/aws4_request",
        ),
    );
    let fault = check(&uri, &headers, b"", at("2015-08-30T12:36:00Z"));
    assert!(matches!(fault, Err(SignatureFault::Incomplete(m)) if m.contains("SignedHeaders")));
    headers.remove("authorization");
    let fault = check(&uri, &headers, b"", at("2015-08-30T12:36:00Z"));
    assert_eq!(fault, Err(SignatureFault::Missing));
}

#[test]
fn paths_are_signed_as_each_service_does() {
    assert_eq!(canonical_path("/a/./b/../c%20d/", "ecs"), "/a/c%2520d/");
    assert_eq!(canonical_path("/", "ecs"), "/");
    assert_eq!(canonical_path("/a//b%20c", "s3"), "/a//b%20c");
}

proptest::proptest! {
    #[test]
    fn no_header_panics(text in ".{0,300}", query in "[ -~]{0,200}") {
        let Ok(value) = HeaderValue::from_str(&text) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value);
        headers.insert("x-amz-date", HeaderValue::from_static("20150830T123600Z"));
        let uri: Uri = format!("/?{query}").parse().unwrap_or_default();
        let head = Head { method: &Method::GET, uri: &uri, headers: &headers };
        if let Ok(authorization) = read(head) {
            // Whatever was read, a made-up signature does not hold.
            assert!(authorization.verify(head, "", SECRET, Timestamp::from_millis(0)).is_err());
        }
    }
}

#[test]
fn what_is_no_request_is_signed_too() {
    let (canonical, scope) =
        ("GIT\n/v1/repos/app\n\nhost:git\n\nhost\n", ("us-east-1", "codecommit"));
    let time = "20150830T123600";
    let hash = sha256_hex(canonical.as_bytes());
    let text = format!("{ALGORITHM}\n{time}\n20150830/us-east-1/codecommit/aws4_request\n{hash}");
    let key = signing_key("secret", "20150830", scope.0, scope.1);
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let holds = |canonical: &str, scope, secret: &str, now: &str| {
        verify_canonical(canonical, time, scope, &signature, secret, at(now))
    };
    assert!(holds(canonical, scope, "secret", "2015-08-30T12:36:00Z"));
    assert!(holds(canonical, scope, "secret", "2015-08-30T12:51:00Z"));
    assert!(!holds(canonical, scope, "secret", "2015-08-30T12:51:01Z"));
    assert!(!holds(canonical, scope, "secret", "2015-08-30T12:20:59Z"));
    assert!(!holds(canonical, scope, "other", "2015-08-30T12:36:00Z"));
    assert!(!holds("GIT", scope, "secret", "2015-08-30T12:36:00Z"));
    assert!(!holds(canonical, ("eu-west-1", "codecommit"), "secret", "2015-08-30T12:36:00Z"));
    for bad in ["", "2015", "20150830X123600", "ü0150830T1236"] {
        assert!(!verify_canonical(
            canonical,
            bad,
            scope,
            &signature,
            "secret",
            at("2015-08-30T12:36:00Z")
        ));
    }
}

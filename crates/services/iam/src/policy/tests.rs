use super::{pattern::matches, *};
use std::collections::BTreeMap;
use wire::{Principal, PrincipalKind};

fn user(name: &str) -> Principal {
    Principal {
        account: "123456789012".into(),
        kind: PrincipalKind::User { name: name.into() },
        arn: format!("arn:aws:iam::123456789012:user/{name}"),
        user_id: "AIDAEXAMPLE".into(),
        session_policies: vec![],
    }
}

fn ask(statement: &str, action: &str, resource: &str, keys: &[(&str, &[&str])]) -> Effect {
    let text = format!(r#"{{"Version": "2012-10-17", "Statement": [{statement}]}}"#);
    let kind = if statement.contains("Principal") { Kind::Resource } else { Kind::Identity };
    let document = Document::parse(&text, kind).unwrap();
    let keys: BTreeMap<String, Vec<String>> = keys
        .iter()
        .map(|(k, v)| (k.to_lowercase(), v.iter().map(|v| v.to_string()).collect()))
        .collect();
    let principal = user("ann");
    evaluate([&document], &Request { principal: &principal, action, resource, keys: &keys })
}

const ALLOW: Effect = Effect::Allow { by_name: false };

#[test]
fn actions_and_resources() {
    let s = r#"{"Effect": "Allow", "Action": ["ecs:Run*", "S3:getobject"], "Resource": "arn:aws:ecs:*:*:task/a-?/*"}"#;
    assert_eq!(ask(s, "ecs:RunTask", "arn:aws:ecs:us-east-1:1:task/a-b/c", &[]), ALLOW);
    assert_eq!(ask(s, "s3:GetObject", "arn:aws:ecs:us-east-1:1:task/a-b/c", &[]), ALLOW);
    assert_eq!(ask(s, "ecs:StopTask", "arn:aws:ecs:us-east-1:1:task/a-b/c", &[]), Effect::Nothing);
    assert_eq!(ask(s, "ecs:RunTask", "arn:aws:ecs:us-east-1:1:task/a-bb/c", &[]), Effect::Nothing);
    let s = r#"{"Effect": "Allow", "NotAction": "iam:*", "NotResource": "arn:aws:s3:::x"}"#;
    assert_eq!(ask(s, "ecs:RunTask", "*", &[]), ALLOW);
    assert_eq!(ask(s, "iam:GetUser", "*", &[]), Effect::Nothing);
    assert_eq!(ask(s, "s3:GetObject", "arn:aws:s3:::x", &[]), Effect::Nothing);
}

#[test]
fn a_deny_wins_wherever_it_stands() {
    let allow = r#"{"Effect": "Allow", "Action": "*", "Resource": "*"}"#;
    let deny = r#"{"Effect": "Deny", "Action": "ecs:RunTask", "Resource": "*"}"#;
    for s in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
        assert_eq!(ask(&s, "ecs:RunTask", "*", &[]), Effect::Deny);
        assert_eq!(ask(&s, "ecs:StopTask", "*", &[]), ALLOW);
    }
}

#[test]
fn conditions_as_documented() {
    let with = |condition: &str, keys: &[(&str, &[&str])]| {
        let s = format!(
            r#"{{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {condition}}}"#
        );
        ask(&s, "a:B", "*", keys) == ALLOW
    };
    type Case<'a> = (&'a str, &'a [(&'a str, &'a [&'a str])], bool);
    let cases: [Case; 24] = [
        (
            r#"{"StringEquals": {"aws:username": ["bob", "ann"]}}"#,
            &[("aws:username", &["ann"])],
            true,
        ),
        (r#"{"StringEquals": {"AWS:UserName": "ann"}}"#, &[("aws:username", &["ann"])], true),
        (r#"{"StringEquals": {"aws:username": "Ann"}}"#, &[("aws:username", &["ann"])], false),
        (r#"{"StringEquals": {"aws:username": "ann"}}"#, &[], false),
        (r#"{"StringEqualsIfExists": {"aws:username": "ann"}}"#, &[], true),
        (
            r#"{"StringNotEquals": {"aws:username": ["bob", "eve"]}}"#,
            &[("aws:username", &["ann"])],
            true,
        ),
        (
            r#"{"StringNotEquals": {"aws:username": ["bob", "ann"]}}"#,
            &[("aws:username", &["ann"])],
            false,
        ),
        (r#"{"StringNotEquals": {"aws:username": "bob"}}"#, &[], true),
        (r#"{"StringLike": {"x": "a*z"}}"#, &[("x", &["abcz"])], true),
        (r#"{"StringNotLike": {"x": "a*z"}}"#, &[("x", &["abcz"])], false),
        (r#"{"NumericLessThan": {"x": "10"}}"#, &[("x", &["9.5"])], true),
        (r#"{"NumericGreaterThanEquals": {"x": 10}}"#, &[("x", &["9.5"])], false),
        (
            r#"{"DateGreaterThan": {"x": "2026-01-01T00:00:00Z"}}"#,
            &[("x", &["2026-01-02T00:00:00Z"])],
            true,
        ),
        (r#"{"DateLessThan": {"x": "2026-01-01"}}"#, &[("x", &["2026-01-02T00:00:00Z"])], false),
        (
            r#"{"Bool": {"aws:SecureTransport": "true"}}"#,
            &[("aws:securetransport", &["false"])],
            false,
        ),
        (
            r#"{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}"#,
            &[("aws:sourceip", &["10.9.8.7"])],
            true,
        ),
        (
            r#"{"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}"#,
            &[("aws:sourceip", &["10.9.8.7"])],
            false,
        ),
        (r#"{"IpAddress": {"aws:SourceIp": "::/0"}}"#, &[("aws:sourceip", &["fe80::1"])], true),
        (
            r#"{"ArnLike": {"x": "arn:aws:*:*:1:a"}}"#,
            &[("x", &["arn:aws:ecs:us-east-1:1:a"])],
            true,
        ),
        (r#"{"ArnLike": {"x": "arn:aws:*:1:a"}}"#, &[("x", &["arn:aws:ecs:us-east-1:1:a"])], false),
        (r#"{"Null": {"x": "true"}}"#, &[], true),
        (r#"{"Null": {"x": "false"}}"#, &[], false),
        (r#"{"ForAllValues:StringEquals": {"x": ["a", "b"]}}"#, &[("x", &["a", "c"])], false),
        (r#"{"ForAnyValue:StringEquals": {"x": ["a", "b"]}}"#, &[("x", &["a", "c"])], true),
    ];
    for (condition, keys, expected) in cases {
        assert_eq!(with(condition, keys), expected, "{condition} {keys:?}");
    }
}

#[test]
fn variables_are_replaced_and_missing_ones_match_nothing() {
    let s =
        r#"{"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::home/${aws:username}/*"}"#;
    assert_eq!(ask(s, "a:B", "arn:aws:s3:::home/ann/x", &[("aws:username", &["ann"])]), ALLOW);
    assert_eq!(
        ask(s, "a:B", "arn:aws:s3:::home/bob/x", &[("aws:username", &["ann"])]),
        Effect::Nothing
    );
    assert_eq!(ask(s, "a:B", "arn:aws:s3:::home//x", &[]), Effect::Nothing);
    let s = r#"{"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::home/${aws:username, 'guest'}"}"#;
    assert_eq!(ask(s, "a:B", "arn:aws:s3:::home/guest", &[]), ALLOW);
}

#[test]
fn principals_by_name_account_and_everyone() {
    let with = |principal: &str| {
        let s = format!(
            r#"{{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": {principal}}}"#
        );
        ask(&s, "a:B", "*", &[])
    };
    assert_eq!(with(r#""*""#), ALLOW);
    assert_eq!(with(r#"{"AWS": "123456789012"}"#), ALLOW);
    assert_eq!(with(r#"{"AWS": "arn:aws:iam::123456789012:root"}"#), ALLOW);
    assert_eq!(
        with(r#"{"AWS": "arn:aws:iam::123456789012:user/ann"}"#),
        Effect::Allow { by_name: true }
    );
    assert_eq!(with(r#"{"AWS": "arn:aws:iam::123456789012:user/bob"}"#), Effect::Nothing);
    assert_eq!(with(r#"{"Service": "ecs-tasks.amazonaws.com"}"#), Effect::Nothing);
}

#[test]
fn malformed_documents_are_told_apart() {
    let parse = |text: &str, kind| Document::parse(text, kind).unwrap_err();
    let identity = |s: &str| {
        parse(&format!(r#"{{"Version": "2012-10-17", "Statement": {s}}}"#), Kind::Identity)
    };
    assert_eq!(parse("{", Kind::Identity), Malformed::Json);
    assert_eq!(parse("[]", Kind::Identity), Malformed::Syntax);
    assert_eq!(
        parse(r#"{"Version": "2020-01-01", "Statement": []}"#, Kind::Identity),
        Malformed::Version
    );
    assert_eq!(
        identity(r#"{"Effect": "Maybe", "Action": "a:b", "Resource": "*"}"#),
        Malformed::Syntax
    );
    assert_eq!(identity(r#"{"Effect": "Allow", "Resource": "*"}"#), Malformed::NoActions);
    assert_eq!(
        identity(r#"{"Effect": "Allow", "Action": "RunTask", "Resource": "*"}"#),
        Malformed::Vendor
    );
    assert_eq!(identity(r#"{"Effect": "Allow", "Action": "a:b"}"#), Malformed::NoResources);
    assert_eq!(
        identity(r#"{"Effect": "Allow", "Action": "a:b", "Resource": "*", "Principal": "*"}"#),
        Malformed::StrayPrincipal
    );
    assert_eq!(
        identity(
            r#"{"Effect": "Allow", "Action": "a:b", "Resource": "*", "Condition": {"Near": {"x": "y"}}}"#
        ),
        Malformed::ConditionType("Near".into())
    );
}

proptest::proptest! {
    #[test]
    fn wildcards_agree_with_a_regular_expression(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        fn slow(p: &[u8], t: &[u8]) -> bool {
            match p.split_first() {
                None => t.is_empty(),
                Some((b'*', rest)) => (0..=t.len()).any(|i| slow(rest, &t[i..])),
                Some((c, rest)) => t.split_first().is_some_and(|(d, t)| (*c == b'?' || c == d) && slow(rest, t)),
            }
        }
        proptest::prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        for kind in [Kind::Identity, Kind::Trust, Kind::Resource] {
            if let Ok(document) = Document::parse(&text, kind) {
                let principal = user("ann");
                let keys = BTreeMap::new();
                let request = Request { principal: &principal, action: "a:B", resource: "*", keys: &keys };
                evaluate([&document], &request);
            }
        }
    }
}

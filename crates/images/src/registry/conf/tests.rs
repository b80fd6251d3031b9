//! What registries.conf says, and what it must not say.

use super::*;
use crate::Digest;
use proptest::prelude::*;

fn conf(text: &str) -> Registries {
    let mut registries = Registries::default();
    registries.add(text, Path::new("r.conf")).unwrap_or_else(|e| panic!("{e:?}"));
    registries
}

fn asked(conf: &Registries, name: &str) -> Vec<String> {
    let reference: Reference = name.parse().unwrap();
    conf.endpoints(&reference).unwrap().iter().map(|e| e.reference.to_string()).collect()
}

#[test]
fn mirrors_come_first_and_prefixes_are_rewritten() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "example.com/foo"
        location = "inner.example/bar"
        [[registry.mirror]]
        location = "m0.local/mirror"
        [[registry.mirror]]
        location = "m1.local"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry]]
        location = "example.com/foo/deep"
        blocked = true
        [[registry]]
        prefix = "*.wild.example"
        insecure = true
        "#,
    );
    assert_eq!(
        asked(&conf, "example.com/foo/i:t"),
        ["m0.local/mirror/i:t", "inner.example/bar/i:t"]
    );
    let pinned = format!("example.com/foo/i@{}", Digest::of(b""));
    assert_eq!(asked(&conf, &pinned).len(), 3);
    assert_eq!(asked(&conf, "example.com/food:t"), ["example.com/food:t"]);
    assert_eq!(asked(&conf, "example.com:5000/foo/i:t"), ["example.com:5000/foo/i:t"]);
    let blocked = conf.endpoints(&"example.com/foo/deep/x".parse().unwrap());
    assert!(matches!(blocked, Err(SourceError::Blocked(_))));
    let wild = conf.endpoints(&"a.b.wild.example/x".parse().unwrap()).unwrap();
    assert!(wild[0].insecure && wild[0].reference.registry() == "a.b.wild.example");
    assert!(!conf.endpoints(&"wild.example/x".parse().unwrap()).unwrap()[0].insecure);
}

#[test]
fn short_names_follow_aliases_then_the_search_list() {
    let mut conf = conf(
        r#"
        unqualified-search-registries = ["a.example", "b.example"]
        [aliases]
        "app" = "c.example/team/app"
        "gone" = "c.example/gone"
        "#,
    );
    assert_eq!(asked(&conf, "app:1"), ["c.example/team/app:1"]);
    assert_eq!(asked(&conf, "other"), ["a.example/other:latest", "b.example/other:latest"]);
    conf.add("short-name-mode = \"enforcing\"\n[aliases]\ngone = \"\"", Path::new("z")).unwrap();
    let refused = conf.endpoints(&"gone".parse().unwrap());
    assert!(matches!(refused, Err(SourceError::Ambiguous(_))));
    assert_eq!(asked(&Registries::default(), "nginx"), ["docker.io/library/nginx:latest"]);
}

#[test]
fn what_means_nothing_is_refused() {
    for bad in [
        "x = ",
        "[registries.search]\nregistries = ['a']",
        "short-name-mode = 'maybe'",
        "unqualified-search-registries = ['http://a']",
        "[[registry]]\nlocation = 'https://a.b'",
        "[[registry]]\nprefix = 'a.*.b'\nlocation = 'c.d'",
        "[[registry]]\nprefix = '*.a.b/c'",
        "[[registry]]\nprefix = 'a.b/c'",
        "[[registry]]\nlocation = ''",
        "[[registry]]\nlocation = 'a.b/../c'",
        "[[registry]]\nlocation = 'a.b'\nmirror = [{ location = '' }]",
        "[aliases]\n'a.b/c' = 'd.e/f'",
        "[aliases]\n'a:t' = 'd.e/f'",
        "[aliases]\n'a' = 'f'",
    ] {
        assert!(Registries::default().add(bad, Path::new("r")).is_err(), "{bad}");
    }
}

#[test]
fn drop_ins_overrule_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let drop_ins = dir.path().join("d");
    std::fs::create_dir(&drop_ins).unwrap();
    let main = dir.path().join("registries.conf");
    std::fs::write(&main, "[[registry]]\nlocation='a.b'\nblocked=true").unwrap();
    std::fs::write(drop_ins.join("20.conf"), "[[registry]]\nlocation='a.b'\ninsecure=true")
        .unwrap();
    std::fs::write(drop_ins.join("10.conf"), "[[registry]]\nlocation='a.b'\nblocked=true").unwrap();
    std::fs::write(drop_ins.join("30.txt"), "not read").unwrap();
    let conf = Registries::load(&main, &[drop_ins, dir.path().join("none")]).unwrap();
    assert!(conf.endpoints(&"a.b/c".parse().unwrap()).unwrap()[0].insecure);
}

#[test]
fn a_configuration_as_distributions_ship_it_is_read() {
    let system = Path::new("/etc/containers");
    if !system.join("registries.conf").exists() {
        eprintln!("skipped: needs the containers' registries.conf");
        return;
    }
    let drop_ins = [system.join("registries.conf.d")];
    Registries::load(&system.join("registries.conf"), &drop_ins)
        .unwrap_or_else(|e| panic!("{e:?}"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}", name in "[a-z./:*-]{0,20}") {
        let mut conf = Registries::default();
        let _ = conf.add(&text, Path::new("r")); // only that it returns
        let table = format!("[[registry]]\nprefix = '{name}'\nlocation = 'x.y'");
        if conf.add(&table, Path::new("r")).is_ok() {
            let found = conf.endpoints(&"a.b/c/d:e".parse().unwrap());
            prop_assert!(found.is_ok_and(|found| !found.is_empty()));
        }
    }
}

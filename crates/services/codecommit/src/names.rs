//! What repositories, references and paths may be called.
//! <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>,
//! <https://git-scm.com/docs/git-check-ref-format>

use crate::faults;
use wire::Fault;

const LONGEST_REPOSITORY: usize = 100;
const LONGEST_REFERENCE: usize = 256;
const LONGEST_PATH: usize = 4096;
/// What branches' full names begin with.
pub(crate) const BRANCH: &str = "refs/heads/";
/// What tags' full names begin with.
pub(crate) const TAG: &str = "refs/tags/";

pub(crate) fn is_repository(name: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    (1..=LONGEST_REPOSITORY).contains(&name.len())
        && name.chars().all(letter)
        && !name.ends_with(".git")
        && name != "."
        && name != ".."
}

/// Whether git takes `name` as a branch's, a tag's or (with its slashes) a whole reference's.
pub(crate) fn is_reference(name: &str) -> bool {
    let forbidden = |letter: char| {
        letter.is_ascii_control()
            || matches!(letter, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    (1..=LONGEST_REFERENCE).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('.')
        && name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(forbidden)
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

pub(crate) fn branch(name: &str) -> Result<(), Fault> {
    // A branch that is called like a commit or like HEAD could not be told from it.
    let confusing = is_object_id(name) || name == "HEAD" || name.starts_with("refs/");
    if is_reference(name) && !confusing { Ok(()) } else { Err(faults::branch_name()) }
}

/// A full SHA-1, in lower case.
pub(crate) fn is_object_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A file's path, without the slash that AWS lets it begin with.
pub(crate) fn file(path: &str) -> Result<&str, Fault> {
    let path = folder(path)?;
    if path.is_empty() { Err(faults::path()) } else { Ok(path) }
}

/// A folder's path, without slashes at its ends; empty for the root.
pub(crate) fn folder(path: &str) -> Result<&str, Fault> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(path);
    }
    let part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && !part.eq_ignore_ascii_case(".git")
            && !part.contains('\0')
    };
    if path.len() <= LONGEST_PATH && path.split('/').all(part) {
        Ok(path)
    } else {
        Err(faults::path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_are_awss() {
        for good in ["a", "My.repo_1-x", &"x".repeat(100)] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", ".", "..", "a.git", "a/b", "a b", "ä", &"x".repeat(101)] {
            assert!(!is_repository(bad), "{bad}");
        }
    }

    #[test]
    fn names_of_branches_are_gits() {
        for good in ["main", "feature/x", "a-b", "v1.0", "ü"] {
            assert!(branch(good).is_ok(), "{good}");
        }
        let id = "a".repeat(40);
        for bad in [
            "",
            "-x",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "@",
            "a@{b",
            "a\nb",
            "HEAD",
            "refs/heads/a",
            &id,
        ] {
            assert!(branch(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_stay_within() {
        assert_eq!(file("/a/b.txt").unwrap(), "a/b.txt");
        assert_eq!(folder("/").unwrap(), "");
        for bad in ["", "/", "a//b", "../a", "a/../b", "a/./b", ".git/config", "a/.GIT/x", "a\0b"] {
            assert!(file(bad).is_err(), "{bad}");
        }
    }
}

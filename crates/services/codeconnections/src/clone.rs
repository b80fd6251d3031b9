//! Commits that are handed on instead of their files (`CODEBUILD_CLONE_REF`): who gets one clones the repository.

use serde::{Deserialize, Serialize};

/// The longest one, in bytes: what is longer is something else.
const LONGEST: usize = 8 << 10;

/// A commit to clone. It is an artifact's content, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneReference {
    /// Where it is.
    #[serde(rename = "neargateClone")]
    pub origin: Origin,
    /// Which it is.
    pub commit: String,
}

/// The repository of a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// One of CodeCommit's, by its name.
    CodeCommit(String),
    /// One elsewhere: the ARN of a connection, and its name there.
    Connection(String, String),
}

impl CloneReference {
    /// As an artifact has it.
    pub fn content(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a reference is plain data")
    }

    /// What an artifact says, if it is one of these.
    pub fn read(content: &[u8]) -> Option<Self> {
        let is_one = content.len() <= LONGEST && content.starts_with(b"{");
        is_one.then(|| serde_json::from_slice(content).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_is_read() {
        let origin = Origin::Connection("arn:c".to_owned(), "a/b".to_owned());
        let reference = CloneReference { origin, commit: "1".to_owned() };
        assert_eq!(CloneReference::read(&reference.content()), Some(reference));
        for other in [&b"PK"[..], b"{}", b"{\"commit\": \"1\"}", b""] {
            assert_eq!(CloneReference::read(other), None);
        }
    }
}

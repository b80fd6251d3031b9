//! What is in a repository, read with git's plumbing.

use crate::{
    faults,
    git::{Bare, GitError},
    names,
};
use std::collections::BTreeMap;
use wire::Fault;

/// The tree that has nothing in it, which every git knows.
pub(crate) const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// A commit, as it is written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    pub tree: String,
    pub parents: Vec<String>,
    pub author: String,
    pub committer: String,
    /// Headers after the committer: signatures and the like.
    pub rest: String,
    pub message: String,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `100644`, `100755`, `120000` (symbolic link), `160000` (submodule), `040000` (tree).
    pub mode: String,
    pub id: String,
    /// Bytes of a blob.
    pub size: Option<u64>,
    /// As it was asked for: relative to the tree that was listed.
    pub path: String,
}

/// One difference between two trees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Mode and id.
    pub before: Option<(String, String)>,
    /// Mode and id.
    pub after: Option<(String, String)>,
    pub path: String,
}

/// All references and what they point at.
pub(crate) async fn references(bare: &Bare) -> Result<BTreeMap<String, String>, GitError> {
    let output = bare.run(&["for-each-ref", "--format=%(objectname) %(refname)"]).await?;
    let output = text(output);
    let pairs = output.lines().map(|line| line.split_once(' '));
    let pairs = pairs.map(|pair| pair.map(|(id, name)| (name.to_owned(), id.to_owned())));
    pairs.collect::<Option<_>>().ok_or(GitError::Answer("for-each-ref"))
}

/// The commit that a branch's name, a tag's, a full name, a full id or `HEAD` means.
pub(crate) async fn resolve(bare: &Bare, specifier: &str) -> Result<String, Fault> {
    let candidates = if names::is_object_id(specifier) || specifier == "HEAD" {
        vec![specifier.to_owned()]
    } else if !names::is_reference(specifier) {
        return Err(faults::commit_specifier());
    } else if specifier.starts_with("refs/") {
        vec![specifier.to_owned()]
    } else {
        vec![format!("{}{specifier}", names::BRANCH), format!("{}{specifier}", names::TAG)]
    };
    let asked: String = candidates.iter().map(|name| format!("{name}^{{commit}}\n")).collect();
    let output = text(bare.feed(&["cat-file", "--batch-check"], asked.as_bytes()).await?);
    let commit = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [id, "commit", _] => Some(id.to_owned()),
        _ => None,
    };
    output.lines().find_map(commit).ok_or_else(|| faults::no_commit(specifier))
}

/// The content of an object and its kind (`commit`, `blob`, …), if it is there and has at most `most` bytes.
pub(crate) async fn object(bare: &Bare, id: &str, most: u64) -> Result<Object, GitError> {
    let line = format!("{id}\n");
    let head = text(bare.feed(&["cat-file", "--batch-check"], line.as_bytes()).await?);
    let [_, kind, size] = head.trim_end().split(' ').collect::<Vec<_>>()[..] else {
        return Ok(Object::Missing);
    };
    let size: u64 = size.parse().map_err(|_| GitError::Answer("cat-file"))?;
    if size > most {
        return Ok(Object::Large);
    }
    let kind = kind.to_owned();
    let content = bare.run(&["cat-file", &kind, id]).await?;
    Ok(Object::Found { kind, content })
}

/// What was asked for by its id.
pub(crate) enum Object {
    Missing,
    Large,
    Found { kind: String, content: Vec<u8> },
}

/// Reads a commit. <https://git-scm.com/docs/git-commit-tree>
pub(crate) fn commit(content: &[u8]) -> Commit {
    let content = String::from_utf8_lossy(content);
    let (head, message) = content.split_once("\n\n").unwrap_or((&content, ""));
    let mut commit = Commit { message: message.to_owned(), ..Commit::default() };
    let mut rest = Vec::new();
    for line in head.lines() {
        match line.split_once(' ') {
            Some(("tree", id)) if commit.tree.is_empty() => commit.tree = id.to_owned(),
            Some(("parent", id)) if rest.is_empty() => commit.parents.push(id.to_owned()),
            Some(("author", who)) if commit.author.is_empty() => commit.author = who.to_owned(),
            Some(("committer", who)) if commit.committer.is_empty() => {
                commit.committer = who.to_owned();
            }
            _ => rest.push(line),
        }
    }
    commit.rest = rest.join("\n");
    commit
}

/// Name, e-mail address and date (`1484167798 -0800`) of `Jane Doe <jane@example.com> 1484167798 -0800`.
pub(crate) fn person(text: &str) -> (&str, &str, &str) {
    let (name, rest) = text.split_once('<').unwrap_or((text, ""));
    let (email, date) = rest.split_once('>').unwrap_or((rest, ""));
    (name.trim_end(), email, date.trim_start())
}

/// The entries of a tree, by `COMMIT:PATH` or id; with `all`, those of its subtrees instead of these.
pub(crate) async fn tree(bare: &Bare, tree: &str, all: bool) -> Result<Vec<Entry>, GitError> {
    let mut arguments = vec!["ls-tree", "-z", "-l"];
    arguments.extend(all.then_some("-r"));
    arguments.push(tree);
    entries(&bare.run(&arguments).await?)
}

/// The entry at `path` of a commit's tree.
pub(crate) async fn entry(
    bare: &Bare,
    commit: &str,
    path: &str,
) -> Result<Option<Entry>, GitError> {
    let output = bare.run(&["ls-tree", "-z", "-l", commit, "--", path]).await?;
    Ok(entries(&output)?.into_iter().find(|entry| entry.path == path))
}

fn entries(output: &[u8]) -> Result<Vec<Entry>, GitError> {
    let lines = output.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    let entry = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let (head, path) = line.split_once('\t')?;
        let [mode, _, id, size] = head.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let (mode, id, path) = (mode.to_owned(), id.to_owned(), path.to_owned());
        Some(Entry { mode, id, size: size.parse().ok(), path })
    };
    lines.map(entry).collect::<Option<_>>().ok_or(GitError::Answer("ls-tree"))
}

/// What differs between two commits or trees, within `paths` if there are any.
pub(crate) async fn differences(
    bare: &Bare,
    before: &str,
    after: &str,
    paths: &[&str],
) -> Result<Vec<Difference>, GitError> {
    let mut arguments =
        vec!["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-commit-id"];
    arguments.extend([before, after, "--"]);
    arguments.extend(paths);
    let output = bare.run(&arguments).await?;
    let mut fields = output.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    let mut found = Vec::new();
    while let (Some(head), Some(path)) = (fields.next(), fields.next()) {
        let (head, path) = (String::from_utf8_lossy(head), String::from_utf8_lossy(path));
        let parts: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
        let [before_mode, after_mode, before_id, after_id, _] = parts[..] else {
            return Err(GitError::Answer("diff-tree"));
        };
        let side =
            |mode: &str, id: &str| (mode != "000000").then(|| (mode.to_owned(), id.to_owned()));
        found.push(Difference {
            before: side(before_mode, before_id),
            after: side(after_mode, after_id),
            path: path.into_owned(),
        });
    }
    Ok(found)
}

pub(crate) fn text(output: Vec<u8>) -> String {
    match String::from_utf8(output) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_read_as_git_writes_them() {
        let content = b"tree t1\nparent p1\nparent p2\nauthor A U Thor <a@x> 1 +0100\ncommitter C <> 2 -0800\n\
                        gpgsig -----BEGIN\n parent not one\n\nsubject\n\nbody\n";
        let read = commit(content);
        assert_eq!((read.tree.as_str(), read.parents.len()), ("t1", 2));
        assert_eq!(person(&read.author), ("A U Thor", "a@x", "1 +0100"));
        assert_eq!(person(&read.committer), ("C", "", "2 -0800"));
        assert_eq!(read.message, "subject\n\nbody\n");
        assert_eq!(read.rest, "gpgsig -----BEGIN\n parent not one");
    }
}

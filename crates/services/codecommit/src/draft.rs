//! A commit in the making: a tree with changes, written as git's objects, and the branch that moves to it.

use crate::{
    CodeCommit,
    api::FileModeTypeEnum,
    faults,
    git::Bare,
    names, objects,
    ops::branch::{NOTHING, swap, tip},
};
use std::collections::BTreeMap;
use wire::{Context, Fault};

/// The largest file that the API puts, in bytes.
/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
pub(crate) const MOST_FILE_BYTES: usize = 6 << 20;
/// The longest name, address and message, in characters and bytes.
const LONGEST_NAME: usize = 1000;
const LONGEST_MESSAGE: usize = 10 << 10;
/// What keeps a folder that would be empty.
const KEEPER: &str = ".gitkeep";

/// Who a commit is by and what it says.
#[derive(Default)]
pub(crate) struct Words {
    pub name: Option<String>,
    pub email: Option<String>,
    pub message: Option<String>,
}

/// Paths to modes and ids, of files only.
pub(crate) type Files = BTreeMap<String, (String, String)>;

/// A commit in the making.
pub(crate) struct Draft<'a> {
    bare: &'a Bare,
    /// The first is what the branch must be at to move to it.
    parents: Vec<String>,
    files: Files,
}

pub(crate) fn mode(mode: FileModeTypeEnum) -> &'static str {
    match mode {
        FileModeTypeEnum::Normal => "100644",
        FileModeTypeEnum::Executable => "100755",
        FileModeTypeEnum::Symlink => "120000",
    }
}

/// What AWS calls a file's mode; none for a tree's and a submodule's.
pub(crate) fn mode_name(mode: &str) -> Option<FileModeTypeEnum> {
    match mode {
        "100644" | "100664" => Some(FileModeTypeEnum::Normal),
        "100755" => Some(FileModeTypeEnum::Executable),
        "120000" => Some(FileModeTypeEnum::Symlink),
        _ => None,
    }
}

impl Words {
    fn check(&self) -> Result<(), Fault> {
        if self.name.as_ref().is_some_and(|name| name.chars().count() > LONGEST_NAME) {
            return Err(Fault::new(
                "NameLengthExceededException",
                format!("A name can have at most {LONGEST_NAME} characters."),
            ));
        }
        let bad = |email: &String| {
            email.chars().count() > LONGEST_NAME || email.contains(['<', '>', '\n', '\0'])
        };
        if self.email.as_ref().is_some_and(bad) {
            return Err(Fault::new("InvalidEmailException", "The email address is not valid."));
        }
        if self.message.as_ref().is_some_and(|message| message.len() > LONGEST_MESSAGE) {
            return Err(Fault::new(
                "CommitMessageLengthExceededException",
                format!("A commit message can have at most {LONGEST_MESSAGE} bytes."),
            ));
        }
        Ok(())
    }

    /// `NAME <EMAIL> SECONDS +0000`, as git writes people. Who has given no name is called as IAM calls them.
    fn line(&self, ctx: &Context) -> String {
        let arn = &ctx.principal.arn;
        let caller = arn.rsplit_once('/').map_or(arn.as_str(), |(_, name)| name);
        let name = self.name.as_deref().filter(|name| !name.trim().is_empty()).unwrap_or(caller);
        let name: String = name.chars().filter(|c| !matches!(c, '<' | '>' | '\n' | '\0')).collect();
        let email = self.email.as_deref().unwrap_or_default();
        format!("{} <{email}> {} +0000", name.trim(), ctx.now.millis() / 1000)
    }
}

impl<'a> Draft<'a> {
    /// Begins a commit on `branch`, whose tip must be `parent`. The first commit of an empty repository makes its
    /// branch.
    pub(crate) async fn begin(
        bare: &'a Bare,
        branch: &str,
        parent: Option<&str>,
    ) -> Result<Self, Fault> {
        let Some(tip) = tip(bare, branch).await? else {
            let references = objects::references(bare).await?;
            if references.contains_key(&format!("{}{branch}", names::TAG)) {
                return Err(Fault::new(
                    "BranchNameIsTagNameException",
                    format!("{branch} is the name of a tag, not of a branch."),
                ));
            }
            if !references.is_empty() {
                return Err(faults::no_branch(branch));
            }
            if let Some(parent) = parent {
                return Err(no_parent(parent));
            }
            return Ok(Self { bare, parents: Vec::new(), files: Files::new() });
        };
        let Some(parent) = parent else {
            return Err(Fault::new(
                "ParentCommitIdRequiredException",
                "A parent commit ID is required. To view the full commit ID of a branch in a repository, use \
                 GetBranch or a Git command (for example, git pull or git log).",
            ));
        };
        if !names::is_object_id(parent) {
            return Err(Fault::new(
                "InvalidParentCommitIdException",
                "The parent commit ID is not valid. It must be a full SHA-1 hash of 40 characters.",
            ));
        }
        if parent != tip {
            objects::resolve(bare, parent).await.map_err(|_| no_parent(parent))?;
            return Err(faults::outdated(branch));
        }
        let entries = objects::tree(bare, parent, true).await?;
        let files = entries.into_iter().map(|entry| (entry.path, (entry.mode, entry.id))).collect();
        Ok(Self { bare, parents: vec![tip], files })
    }

    /// A commit of these files, after these parents.
    pub(crate) fn of(bare: &'a Bare, parents: Vec<String>, files: Files) -> Self {
        Self { bare, parents, files }
    }

    /// The mode and id of the file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&(String, String)> {
        self.files.get(path)
    }

    /// Puts a file with this content; its id. Its mode is `mode`, or the one it had.
    pub(crate) async fn put(
        &mut self,
        path: &str,
        content: &[u8],
        mode: Option<FileModeTypeEnum>,
    ) -> Result<String, Fault> {
        if content.len() > MOST_FILE_BYTES {
            return Err(faults::too_large(
                "FileContentSizeLimitExceededException",
                MOST_FILE_BYTES,
            ));
        }
        let id = self.bare.feed(&["hash-object", "-w", "--stdin"], content).await?;
        let id = objects::text(id).trim().to_owned();
        self.put_id(path, &id, mode)?;
        Ok(id)
    }

    /// [`Draft::put`] with a content that the repository has.
    pub(crate) fn put_id(
        &mut self,
        path: &str,
        id: &str,
        mode: Option<FileModeTypeEnum>,
    ) -> Result<(), Fault> {
        self.check_place(path)?;
        let before = self.files.get(path).map(|(mode, _)| mode.clone());
        let mode = mode.map(|given| self::mode(given).to_owned()).or(before);
        let mode = mode.unwrap_or_else(|| "100644".to_owned());
        self.files.insert(path.to_owned(), (mode, id.to_owned()));
        Ok(())
    }

    /// [`Draft::put`] with a mode and a content that the repository has.
    pub(crate) fn put_as(&mut self, path: &str, file: (String, String)) -> Result<(), Fault> {
        self.check_place(path)?;
        self.files.insert(path.to_owned(), file);
        Ok(())
    }

    /// A file cannot be where a folder is, nor below a file.
    fn check_place(&self, path: &str) -> Result<(), Fault> {
        let below = format!("{path}/");
        if self
            .files
            .range(below.clone()..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(&below))
        {
            return Err(Fault::new(
                "FileNameConflictsWithDirectoryNameException",
                format!("{path} is the name of a folder."),
            ));
        }
        if self.files.get(path).is_some_and(|(mode, _)| mode == "160000") {
            return Err(submodule(path));
        }
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        for folder in above {
            match self.files.get(folder) {
                Some((mode, _)) if mode == "160000" => return Err(submodule(folder)),
                Some(_) => {
                    return Err(Fault::new(
                        "DirectoryNameConflictsWithFileNameException",
                        format!("{folder} is the name of a file."),
                    ));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Removes a file; what it was.
    pub(crate) async fn remove(
        &mut self,
        path: &str,
        keep_folder: bool,
    ) -> Result<(String, String), Fault> {
        let removed = self.files.remove(path).ok_or_else(|| faults::no_file(path))?;
        self.keep_folder(path, keep_folder).await?;
        Ok(removed)
    }

    /// Keeps the folder of a file that is no more, if that is wanted and it would be empty.
    pub(crate) async fn keep_folder(&mut self, path: &str, keep: bool) -> Result<(), Fault> {
        let folder = path.rsplit_once('/').map(|(folder, _)| folder);
        if let Some(folder) = folder.filter(|_| keep) {
            let below = format!("{folder}/");
            let next = self.files.range(below.clone()..).next();
            if !next.is_some_and(|(name, _)| name.starts_with(&below)) {
                self.put(&format!("{below}{KEEPER}"), b"", None).await?;
            }
        }
        Ok(())
    }

    /// Writes tree and commit and moves the branch; their ids, the commit's first.
    pub(crate) async fn commit(
        self,
        codecommit: &CodeCommit,
        ctx: &Context,
        (repository, branch): (&str, &str),
        words: &Words,
    ) -> Result<(String, String), Fault> {
        let written = self.write(ctx, words).await?;
        let old = self.parents.first().map_or(NOTHING, String::as_str);
        if !swap(self.bare, branch, old, &written.0).await? {
            return Err(faults::outdated(branch));
        }
        codecommit.settle(repository, Some(&ctx.principal.arn)).await?;
        Ok(written)
    }

    /// Writes tree and commit; their ids, the commit's first.
    pub(crate) async fn write(
        &self,
        ctx: &Context,
        words: &Words,
    ) -> Result<(String, String), Fault> {
        words.check()?;
        let tree = self.write_tree().await?;
        let who = words.line(ctx);
        let mut content = format!("tree {tree}\n");
        for parent in &self.parents {
            content.push_str(&format!("parent {parent}\n"));
        }
        let message = words.message.as_deref().unwrap_or_default().replace('\0', "");
        content.push_str(&format!("author {who}\ncommitter {who}\n\n{message}"));
        let written = ["hash-object", "-t", "commit", "-w", "--stdin"];
        let commit = self.bare.feed(&written, content.as_bytes()).await?;
        Ok((objects::text(commit).trim().to_owned(), tree))
    }

    async fn write_tree(&self) -> Result<String, Fault> {
        // An index of its own, which no one else sees.
        let scratch = self.bare.scratch()?;
        let index = scratch.path().join("index");
        let index = index.to_str().ok_or(crate::git::GitError::Answer("the index's path"))?;
        let environment = [("GIT_INDEX_FILE", index)];
        let mut lines = Vec::new();
        for (path, (mode, id)) in &self.files {
            lines.extend_from_slice(format!("{mode} {id}\t{path}\0").as_bytes());
        }
        let update = ["update-index", "-z", "--add", "--index-info"];
        self.bare.feed_with(&update, &lines, &environment).await?;
        let tree = self.bare.feed_with(&["write-tree"], b"", &environment).await?;
        Ok(objects::text(tree).trim().to_owned())
    }
}

fn no_parent(parent: &str) -> Fault {
    let message = format!("The parent commit {parent} does not exist");
    Fault::new("ParentCommitDoesNotExistException", message)
}

fn submodule(path: &str) -> Fault {
    let message = format!("{path} is the path of a submodule.");
    Fault::new("FilePathConflictsWithSubmodulePathException", message)
}

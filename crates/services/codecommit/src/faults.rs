//! Every fault that CodeCommit answers with, named as each operation's page of
//! <https://docs.aws.amazon.com/codecommit/latest/APIReference/> names it.

use wire::Fault;

pub(crate) fn no_repository(name: &str) -> Fault {
    Fault::new("RepositoryDoesNotExistException", format!("{name} does not exist"))
}

pub(crate) fn repository_exists(name: &str) -> Fault {
    Fault::new("RepositoryNameExistsException", format!("Repository named {name} already exists"))
}

pub(crate) fn repository_name() -> Fault {
    Fault::new(
        "InvalidRepositoryNameException",
        "The repository name is not valid. Repository names can be any valid combination of letters, numbers, \
         periods, underscores, and dashes between 1 and 100 characters in length. Names are case sensitive. \
         Repository names cannot end in .git and cannot contain any of the following characters: ! ? @ # $ % ^ & * \
         ( ) + = { } [ ] | \\ / > < ~ ` ' \" ; :",
    )
}

pub(crate) fn branch_name() -> Fault {
    Fault::new(
        "InvalidBranchNameException",
        "The branch name is not valid. Branch names must follow the rules of git's references and have between 1 and \
         256 characters.",
    )
}

pub(crate) fn no_branch(name: &str) -> Fault {
    Fault::new("BranchDoesNotExistException", format!("Branch {name} does not exist"))
}

pub(crate) fn commit_id() -> Fault {
    Fault::new("InvalidCommitIdException", "A commit ID is a full SHA-1 hash of 40 characters.")
}

pub(crate) fn no_commit(specifier: &str) -> Fault {
    Fault::new("CommitDoesNotExistException", format!("Commit {specifier} does not exist"))
}

pub(crate) fn commit_specifier() -> Fault {
    Fault::new(
        "InvalidCommitException",
        "The commit specifier is not valid. Use a branch name, a tag, a full commit ID, or HEAD.",
    )
}

pub(crate) fn path() -> Fault {
    Fault::new(
        "InvalidPathException",
        "The path is not valid. A path is relative to the repository's root, has at most 4096 bytes, and no part of \
         it is empty, \".\", \"..\" or \".git\".",
    )
}

pub(crate) fn no_file(path: &str) -> Fault {
    let message = format!("Could not find path {path}");
    Fault::new("FileDoesNotExistException", message)
}

pub(crate) fn too_large(code: &'static str, limit_bytes: usize) -> Fault {
    Fault::new(code, format!("A file can have at most {limit_bytes} bytes here."))
}

pub(crate) fn token() -> Fault {
    Fault::new(
        "InvalidContinuationTokenException",
        "The specified continuation token is not valid.",
    )
}

pub(crate) fn outdated(branch: &str) -> Fault {
    Fault::new(
        "ParentCommitIdOutdatedException",
        format!("The parent commit ID is outdated: it is not the tip of the branch {branch}."),
    )
}

/// Two commits that come from no common one.
pub(crate) fn apart() -> Fault {
    Fault::new(
        "TipsDivergenceExceededException",
        "The two have no commit in common, so whether they conflict cannot be told.",
    )
}

//! CodeCommit: git repositories over HTTP, and AWS's API to what is in them. Records are `codecommit.*`; the
//! repositories themselves are git's, bare, one directory each, and everything that is done to them is done by the
//! installed git.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod approval;
mod commands;
mod door;
mod draft;
mod faults;
mod git;
mod login;
mod merge;
pub mod model;
mod names;
mod objects;
mod ops;
mod pull;
pub mod resources;
mod settle;
mod triggers;

pub use door::GitDoor;

use git::Git;
use iam::Iam;
use lambda::Lambda;
use model::{
    ApprovalRuleTemplate, PullRequest, PullRequestCount, PullRequestEvent, References, Repository,
};
use sns::Sns;
use std::{
    collections::HashMap,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};
use store::{ReadError, Store};
use thiserror::Error;
use wire::{Context, Fault};
use world::World;

/// Whom triggers tell.
pub struct Told {
    /// Functions.
    pub lambda: Arc<Lambda>,
    /// Topics.
    pub sns: Arc<Sns>,
}

/// The service's state.
pub struct CodeCommit {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    git: Git,
    /// What follows `git-codecommit.REGION` in clone URLs: `.localhost:4566`.
    host: String,
    /// One repository's references are compared with what was told by one at a time.
    settling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Whom triggers ask.
    told: OnceLock<Told>,
}

/// Why the service cannot be.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The repositories' directory cannot be made.
    #[error("the directory of git repositories: {0}")]
    Directory(#[from] std::io::Error),
}

impl CodeCommit {
    /// The service over `store`, with its repositories in `directory`. Clone URLs are
    /// `http://git-codecommit.REGION.DOMAIN:PORT/v1/repos/NAME`, where the front door listens.
    pub fn new(
        store: Store,
        world: World,
        iam: Arc<Iam>,
        directory: &Path,
        domain: &str,
        port: u16,
    ) -> Result<Arc<Self>, OpenError> {
        store.declare::<Repository>()?;
        store.declare::<References>()?;
        store.declare::<PullRequestCount>()?;
        store.declare::<PullRequest>()?;
        store.declare::<PullRequestEvent>()?;
        store.declare::<ApprovalRuleTemplate>()?;
        events::declare(&store)?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let git = Git::new(directory.to_owned(), world.clone());
        let host = format!(".{domain}:{port}");
        let settling = Mutex::default();
        let told = OnceLock::new();
        Ok(Arc::new(Self { store, world, iam, git, host, settling, told }))
    }

    /// Begins to bring repositories and records together again after a crash.
    pub fn start(self: &Arc<Self>, told: Told) {
        if self.told.set(told).is_err() {
            return;
        }
        let codecommit = self.clone();
        self.world.spawn("repositories' tidying", async move { settle::tidy(codecommit).await });
    }

    /// The commit that a branch of the repository has in `realm` (`account/region`), for those who follow it.
    pub fn tip(&self, realm: &str, repository: &str, branch: &str) -> Option<String> {
        let snapshot = self.store.read();
        let repository = snapshot.get::<Repository>(&Repository::key_of(realm, repository))?;
        let references = snapshot.get::<References>(&repository.id)?;
        references.told.get(&format!("{}{branch}", names::BRANCH)).cloned()
    }

    /// The files of a commit, zipped, if the caller may have them (`codecommit:UploadArchive`, as pipelines need).
    pub async fn archive(
        &self,
        ctx: &Context,
        repository: &str,
        commit: &str,
    ) -> Result<Vec<u8>, Fault> {
        let (_, bare) = ops::open(self, ctx, repository, "codecommit:UploadArchive")?;
        let commit = objects::resolve(&bare, commit).await?;
        Ok(bare.archive(&commit).await?)
    }

    /// Checks a version (a commit, a branch or a tag; the default branch without) out into `target`, which is made,
    /// with so many commits of history, if the caller may read the repository (`codecommit:GitPull`). Answers the
    /// commit.
    pub async fn checkout(
        &self,
        ctx: &Context,
        repository: &str,
        version: Option<&str>,
        depth: Option<u32>,
        target: &Path,
    ) -> Result<String, Fault> {
        let (repository, bare) = ops::open(self, ctx, repository, "codecommit:GitPull")?;
        let commit = objects::resolve(&bare, version.unwrap_or("HEAD")).await?;
        bare.checkout(&commit, depth, target, &self.clone_url(&repository)).await?;
        Ok(commit)
    }

    /// Where git finds the repositories of a region: `http://git-codecommit.REGION.localhost:4566`.
    pub fn endpoint(&self, region: &str) -> String {
        format!("http://git-codecommit.{region}{}", self.host)
    }

    pub(crate) fn clone_url(&self, repository: &Repository) -> String {
        format!("{}/v1/repos/{}", self.endpoint(repository.region()), repository.name)
    }
}

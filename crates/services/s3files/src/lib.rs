//! S3 Files: buckets as file systems that tasks share.
//!
//! Each is a directory of this machine that is kept the same as its bucket, both ways ([`synchronize`]): what is put
//! into the bucket is a file a moment later, and is there before a task sees the directory; what a task writes is an
//! object a minute later. What a task sees is decided in [`S3Files::mount`], as for EFS, on which AWS builds it.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-files.html>

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
pub mod model;
mod mount;
mod ops;
mod plan;
mod synchronize;
mod tree;

pub use mount::Wanted;

use ec2::Ec2;
use iam::Iam;
use s3::S3;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use store::{ReadError, Record, Store};
use synchronize::Progress;
use tree::Tree;
use world::World;

/// What the names of the directories end with that are between the sides.
const ASIDE: &str = ".aside";
/// What the names of deleted file systems' directories begin with.
const GONE: &str = ".gone-";

/// The service's state.
pub struct S3Files {
    store: Store,
    world: World,
    ec2: Arc<Ec2>,
    iam: Arc<Iam>,
    s3: Arc<S3>,
    /// Where the file systems are, each under its id.
    directory: PathBuf,
    progress: Mutex<HashMap<String, Arc<Progress>>>,
}

impl S3Files {
    /// The service over `store`, with its file systems below `directory`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        ec2: Arc<Ec2>,
        iam: Arc<Iam>,
        s3: Arc<S3>,
        directory: PathBuf,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::FileSystem>()?;
        store.declare::<model::MountTarget>()?;
        store.declare::<model::AccessPoint>()?;
        store.declare::<model::Entry>()?;
        let progress = Mutex::default();
        Ok(Arc::new(Self { store, world, ec2, iam, s3, directory, progress }))
    }

    /// Begins to keep file systems and buckets the same.
    pub fn start(self: &Arc<Self>) {
        for system in self.store.read().scan::<model::FileSystem>() {
            self.follow(system.key());
        }
    }

    /// Where a file system is.
    fn tree(&self, id: &str) -> Tree {
        Tree {
            root: self.directory.join(id),
            aside: self.directory.join(format!("{id}{ASIDE}")),
            lost: format!(".s3files-lost+found-{id}"),
        }
    }

    fn progress(&self, key: &str) -> Arc<Progress> {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key.to_owned()).or_default().clone()
    }

    fn forget(&self, key: &str) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Deletes a file system's files. Blocks.
    fn remove(&self, id: &str) -> io::Result<()> {
        let (tree, gone) = (self.tree(id), self.directory.join(format!("{GONE}{id}")));
        std::fs::rename(&tree.root, &gone)?;
        std::fs::remove_dir_all(gone)?;
        std::fs::remove_dir_all(tree.aside)
    }

    /// Takes away what an earlier crash left: of file systems that were not made, or are deleted; and what was between
    /// the sides. A directory of no known file system that holds something stays. Blocks.
    pub fn sweep(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let snapshot = self.store.read();
        let known: Vec<_> = snapshot.scan::<model::FileSystem>().collect();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_suffix(ASIDE).unwrap_or(&name);
            if name.starts_with(GONE) {
                std::fs::remove_dir_all(entry.path())?;
            } else if known.iter().any(|system| system.id == id) {
                self.tree(id).sweep()?;
            } else if let Err(error) = std::fs::remove_dir(entry.path()) {
                tracing::warn!(name, %error, "a directory of no known file system is left alone");
            }
        }
        Ok(())
    }
}

/// Makes a directory that nobody but root may look into. Blocks.
fn private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

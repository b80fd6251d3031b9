//! Elastic File System: file systems that tasks share and that outlive them. Each is a directory of this machine.
//!
//! What a task sees of one is decided here ([`Efs::mount`]): whether its network leads to a mount target, whether the
//! file system's policy lets it in, and who it is inside. Mounting itself is the container engine's work.
//! <https://docs.aws.amazon.com/efs/latest/ug/whatisefs.html>

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod faults;
pub mod model;
mod mount;
mod ops;
pub mod resources;
mod root;
mod size;

pub use mount::{Mounted, Wanted};
pub use root::{Made, Root};

/// The port of NFS, which security groups have to let through.
pub const NFS: u16 = 2049;

use ec2::Ec2;
use iam::Iam;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{ReadError, Store};
use world::World;

/// What the names of deleted file systems' directories begin with.
const GONE: &str = ".gone-";

/// The service's state.
pub struct Efs {
    store: Store,
    world: World,
    ec2: Arc<Ec2>,
    iam: Arc<Iam>,
    /// Where the file systems are, each under its id.
    directory: PathBuf,
    sizes: size::Sizes,
}

impl Efs {
    /// The service over `store`, with its file systems below `directory`. Fails when a stored record cannot be read.
    pub fn new(
        store: Store,
        world: World,
        ec2: Arc<Ec2>,
        iam: Arc<Iam>,
        directory: &Path,
    ) -> Result<Arc<Self>, ReadError> {
        store.declare::<model::FileSystem>()?;
        store.declare::<model::MountTarget>()?;
        store.declare::<model::AccessPoint>()?;
        let (directory, sizes) = (directory.to_owned(), size::Sizes::default());
        Ok(Arc::new(Self { store, world, ec2, iam, directory, sizes }))
    }

    /// Where a file system is.
    fn place(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }

    /// Deletes a file system's files. Blocks.
    fn remove(&self, id: &str) -> io::Result<()> {
        let gone = self.directory.join(format!("{GONE}{id}"));
        std::fs::rename(self.place(id), &gone)?;
        std::fs::remove_dir_all(gone)
    }

    /// Takes away what an earlier crash left: directories of file systems that were not made, or are deleted. What
    /// holds files and was not deleted stays, whether it is known or not. Blocks.
    pub fn sweep(&self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let snapshot = self.store.read();
        let known: Vec<String> =
            snapshot.scan::<model::FileSystem>().map(|known| known.id.clone()).collect();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(GONE) {
                std::fs::remove_dir_all(entry.path())?;
            } else if !known.contains(&name)
                && let Err(error) = std::fs::remove_dir(entry.path())
            {
                tracing::warn!(name, %error, "a directory of no known file system is left alone");
            }
        }
        Ok(())
    }
}

//! CodeBuild: builds in containers of their own. Records are `codebuild.*`.
//!
//! A build is carried from stage to stage by `drive`, each of which can be begun again after a crash. Its container is
//! a sandbox of ECS, with the source and a program that runs the buildspec's phases laid over the image; the program
//! goes on by itself whether or not anybody follows it, and what is kept of the build is read out of the container from
//! outside.

pub mod api {
    //! Requests and answers, as AWS defines them.
    mod generated;
    pub use generated::*;
}
mod buildspec;
mod cache;
mod check;
mod containers;
mod drive;
mod faults;
mod hear;
mod image;
mod keep;
mod log;
pub mod model;
mod ops;
mod phases;
pub mod report;
mod reports;
pub mod resources;
mod sandbox;
mod script;
mod source;
mod tell;
mod upload;

pub use containers::Containers;

use codecommit::CodeCommit;
use codeconnections::CodeConnections;
use ecs::{LogSinks, Secrets};
use iam::Iam;
use image::BuildImage;
use images::{DiskError, Reference, Source};
use model::{Build, Project, Report, ReportGroup};
use s3::S3;
use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use store::{ReadError, Store};
use thiserror::Error;
use wire::Front;
use world::World;

/// Where builds get what they need.
pub struct Neighbours {
    /// Roles.
    pub iam: Arc<Iam>,
    /// Repositories.
    pub codecommit: Arc<CodeCommit>,
    /// Sources, artifacts and caches.
    pub s3: Arc<S3>,
    /// Repositories elsewhere.
    pub connections: Arc<CodeConnections>,
    /// Containers.
    pub containers: Arc<dyn Containers>,
}

/// What is there once everything is.
pub struct Surroundings {
    /// The other services' operations.
    pub front: Arc<Front>,
    /// Where builds log.
    pub logs: Arc<dyn LogSinks>,
    /// Where variables come from whose values are kept elsewhere.
    pub secrets: Arc<dyn Secrets>,
}

/// The service cannot begin.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A stored record cannot be read.
    #[error("a record of CodeBuild cannot be read")]
    Read(#[from] ReadError),
    /// The default image cannot be kept.
    #[error("the images of builds cannot be opened")]
    Images(#[from] DiskError),
    /// Its directory cannot be made.
    #[error("{0} cannot be made")]
    Directory(PathBuf, #[source] io::Error),
}

/// The service's state.
pub struct CodeBuild {
    store: Store,
    world: World,
    iam: Arc<Iam>,
    codecommit: Arc<CodeCommit>,
    s3: Arc<S3>,
    connections: Arc<CodeConnections>,
    containers: Arc<dyn Containers>,
    /// What of builds lies on disk: `builds/ID`, `cache/…`.
    directory: PathBuf,
    image: Arc<BuildImage>,
    /// The port of the API on the host.
    port: u16,
    outside: OnceLock<Surroundings>,
}

impl CodeBuild {
    /// The service over `store`; `directory` is for what builds have on disk, `port` the API's on the host.
    pub fn new(
        store: Store,
        world: World,
        neighbours: Neighbours,
        directory: &Path,
        port: u16,
    ) -> Result<Arc<Self>, OpenError> {
        store.declare::<Project>()?;
        store.declare::<Build>()?;
        store.declare::<ReportGroup>()?;
        store.declare::<Report>()?;
        events::declare(&store)?;
        for part in ["builds", "cache", "image"] {
            let path = directory.join(part);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(|error| OpenError::Directory(path, error))?;
        }
        let Neighbours { iam, codecommit, s3, connections, containers } = neighbours;
        Ok(Arc::new(Self {
            image: Arc::new(BuildImage::open(&directory.join("image"), &world)?),
            directory: directory.to_owned(),
            outside: OnceLock::new(),
            store,
            world,
            iam,
            codecommit,
            s3,
            connections,
            containers,
            port,
        }))
    }

    /// Begins to carry builds out; those that an earlier control plane left are taken up where they are.
    pub fn start(self: &Arc<Self>, surroundings: Surroundings) {
        if self.outside.set(surroundings).is_ok() {
            let service = self.clone();
            self.world.spawn("builds", async move { drive::drive(service).await });
        }
    }

    /// Where an image comes from that AWS has for builds; none for other images.
    pub fn image_source(&self, reference: &Reference) -> Option<Arc<dyn Source>> {
        image::is_curated(reference).then(|| self.image.source())
    }

    fn outside(&self) -> &Surroundings {
        self.outside.get().expect("builds are carried out only after the start")
    }

    /// What of a build lies on disk.
    fn build_directory(&self, build: &Build) -> PathBuf {
        self.directory.join("builds").join(build.digits())
    }
}

#[cfg(test)]
mod tests;

//! Where builds run: containers of ECS, seen as builds need them.

use async_trait::async_trait;
use ecs::{Ecs, SandboxRequest, SandboxState, model::SandboxOwner};
use std::os::fd::OwnedFd;
use store::{DiskFault, Record, Tx};
use wire::Principal;

/// Whose work it is.
pub(crate) const OWNER: SandboxOwner = SandboxOwner::CodeBuild;

/// What is written beside a container that is started.
pub type Beside = Box<dyn FnOnce(&mut Tx) + Send>;

/// What runs builds' containers. Each has an id, and is followed by its state.
#[async_trait]
pub trait Containers: Send + Sync + 'static {
    /// Fetches an image, so that a container that needs it starts at once; with the credentials for its registry that a
    /// secret holds, where one is named. The error is for people.
    async fn fetch_image(
        &self,
        realm: &str,
        image: &str,
        credential: Option<&str>,
        principal: &Principal,
    ) -> Result<(), String>;

    /// Starts a container, once, beside what is written in the same transaction.
    async fn start(&self, request: SandboxRequest, beside: Beside) -> Result<(), DiskFault>;

    /// How far a container is; none when there never was one, or it was over long ago.
    fn state(&self, realm: &str, id: &str) -> Option<SandboxState>;

    /// Ends a container, at once; nothing when it is over.
    fn stop(&self, tx: &mut Tx, realm: &str, id: &str);

    /// The root directory of a container that runs. The error is for people.
    async fn root(&self, id: &str) -> Result<OwnedFd, String>;

    /// The host id that is root inside a container that runs.
    fn root_id(&self, id: &str) -> Option<u32>;

    /// The table that changes when a container's state does.
    fn table(&self) -> &'static str;
}

#[async_trait]
impl Containers for Ecs {
    async fn fetch_image(
        &self,
        realm: &str,
        image: &str,
        credential: Option<&str>,
        principal: &Principal,
    ) -> Result<(), String> {
        Ecs::fetch_image(self, realm, image, credential, principal).await
    }

    async fn start(&self, request: SandboxRequest, beside: Beside) -> Result<(), DiskFault> {
        self.start_sandbox(request, beside).await
    }

    fn state(&self, realm: &str, id: &str) -> Option<SandboxState> {
        self.sandbox(realm, OWNER, id)
    }

    fn stop(&self, tx: &mut Tx, realm: &str, id: &str) {
        self.stop_sandbox(tx, realm, OWNER, id, "The build is over.");
    }

    async fn root(&self, id: &str) -> Result<OwnedFd, String> {
        self.sandbox_root(id).await.map_err(|error| error.to_string())
    }

    fn root_id(&self, id: &str) -> Option<u32> {
        self.sandbox_root_id(id)
    }

    fn table(&self) -> &'static str {
        ecs::model::Task::TABLE
    }
}

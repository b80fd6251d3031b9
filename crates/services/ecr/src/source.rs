//! Images for tasks: from the repositories of this machine, with no HTTP and no copy in between.

use crate::{
    Ecr,
    content::{Asked, image},
};
use images::{Reference, Source, StoreSource};
use std::sync::Arc;
use wire::Principal;

/// What a pull needs, in the order in which clients ask for it.
const PULL: [&str; 3] =
    ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];

impl Ecr {
    /// Whether `reference` names a repository of ours, be it there or not.
    pub fn has(&self, reference: &Reference) -> bool {
        self.place(reference.registry(), reference.repository()).is_some()
    }

    /// Where `reference` is pulled from when it names a repository of ours; `None` when it does not. `principal` is
    /// whose permissions count, a task's execution role. The error is for people.
    pub fn source(
        self: &Arc<Self>,
        reference: &Reference,
        principal: Option<&Principal>,
    ) -> Option<Result<Arc<dyn Source>, String>> {
        let place = self.place(reference.registry(), reference.repository())?;
        let Some(principal) = principal else {
            return Some(Err("an execution role is required to pull from Amazon ECR".to_owned()));
        };
        let ctx = self.context(principal.clone(), place.region(), None);
        let allowed = ctx.authorise("ecr:GetAuthorizationToken", "*").and_then(|()| {
            PULL.iter().try_for_each(|action| {
                self.find(&ctx, Some(place.account()), &place.name, action).map(drop)
            })
        });
        if let Err(fault) = allowed {
            return Some(Err(format!("{}: {}", fault.code, fault.message)));
        }
        let ecr = self.clone();
        let lookup = move |reference: &Reference| {
            let asked = match (reference.digest(), reference.tag()) {
                (Some(digest), _) => Asked::Digest(digest.clone()),
                (None, tag) => Asked::Tag(tag?.to_owned()),
            };
            let found = image(&ecr.store.read(), &place, &asked)?;
            let (digest, media_type) = (found.digest.clone(), found.media_type.clone());
            let ecr = ecr.clone();
            ecr.world.clone().spawn("pull record", async move { ecr.pulled(&found).await });
            Some((digest, media_type))
        };
        Some(Ok(Arc::new(StoreSource::new(self.blobs.clone(), Arc::new(lookup)))))
    }
}

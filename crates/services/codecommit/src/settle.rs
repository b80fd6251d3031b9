//! After references changed: the records follow, and the world is told.
//!
//! Git's own references are the truth. Whoever changed some (a push, the API) settles before it answers; a change whose
//! answer a crash cut off is settled at the next start. So each change is told once, however it came about.

use crate::{
    CodeCommit,
    git::{Bare, GitError},
    model::{References, Repository},
    names::{BRANCH, TAG},
    objects, pull, triggers,
};
use events::Event;
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::OwnedMutexGuard;
use wire::Fault;

/// Full names to object ids.
pub(crate) type Tips = BTreeMap<String, String>;

/// What a repository without a default branch takes as one, of the branches that it now has.
fn first_branch(references: &Tips) -> Option<&str> {
    let branches = || references.keys().filter_map(|name| name.strip_prefix(BRANCH));
    let usual = ["main", "master"].into_iter().find(|usual| branches().any(|name| name == *usual));
    usual.or_else(|| branches().next())
}

/// What is told of each reference that changed.
/// <https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html>
fn changes(repository: &Repository, before: &Tips, now: &Tips, caller: Option<&str>) -> Vec<Json> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let detail = |full: &String| {
        let (kind, name) = match (full.strip_prefix(BRANCH), full.strip_prefix(TAG)) {
            (Some(branch), _) => ("branch", branch),
            (_, Some(tag)) => ("tag", tag),
            // Notes, others' pull requests: AWS tells nothing of them.
            _ => return None,
        };
        let (old, new) = (before.get(full), now.get(full));
        let event = match (old, new) {
            (None, _) => "referenceCreated",
            (_, None) => "referenceDeleted",
            _ => "referenceUpdated",
        };
        let mut detail = json!({
            "event": event, "repositoryName": repository.name, "repositoryId": repository.id,
            "referenceType": kind, "referenceName": name, "referenceFullName": full,
        });
        let more = [("commitId", new.or(old).map(String::as_str)), ("callerUserArn", caller)];
        for (name, value) in more {
            if let Some(value) = value {
                detail[name] = json!(value);
            }
        }
        if let (Some(old), Some(_)) = (old, new) {
            detail["oldCommitId"] = json!(old);
        }
        Some(detail)
    };
    changed.filter_map(detail).collect()
}

impl CodeCommit {
    /// Brings the records of the repository with this id up to what git has, and tells what `caller` (an ARN, where it
    /// is known) changed.
    pub(crate) async fn settle(&self, id: &str, caller: Option<&str>) -> Result<(), Fault> {
        let _turn = self.turn(id).await;
        let bare = self.git.bare(id);
        let now = objects::references(&bare).await?;
        let snapshot = self.store.read();
        let told = snapshot.get::<References>(id).unwrap_or_default();
        let Some(repository) = self.by_id(id) else { return Ok(()) };
        if told.told == now {
            return Ok(());
        }
        let chosen = match &repository.default_branch {
            None => first_branch(&now).map(str::to_owned),
            Some(_) => None,
        };
        if let Some(branch) = &chosen {
            point_head(&bare, branch).await?;
        }
        let details = changes(&repository, &told.told, &now, caller);
        let moves = pull::moves(self, &repository, &bare, &told.told, &now).await?;
        let caller = caller.map(str::to_owned);
        let (id, at, world) = (id.to_owned(), self.world.now(), self.world.clone());
        self.store
            .write(move |tx| {
                // It may have got another name meanwhile, or be gone.
                let found = tx.scan::<Repository>().find(|repository| repository.id == id);
                let Some(repository) = found else { return Ok(()) };
                tx.update::<Repository>(
                    &Repository::key_of(&repository.realm, &repository.name),
                    |repository| {
                        repository.modified = at;
                        if chosen.is_some() {
                            repository.default_branch = chosen;
                        }
                    },
                );
                for detail in details {
                    let event = Event {
                        id: world.uuid(),
                        realm: repository.realm.clone(),
                        source: "aws.codecommit".to_owned(),
                        detail_type: "CodeCommit Repository State Change".to_owned(),
                        time: at,
                        resources: vec![repository.arn()],
                        detail,
                    };
                    events::tell(tx, &world, &event);
                }
                triggers::tell(self, tx, &repository, (&told.told, &now), caller.as_deref(), at);
                pull::follow(tx, &world, &repository, moves, (caller.as_deref(), at));
                tx.put(References { repository: id, told: now });
                Ok::<_, Fault>(())
            })
            .await
    }

    /// The right to bring records and the references of the repository with this id together.
    pub(crate) async fn turn(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.settling.lock().expect("nothing panics with the lock held");
            all.entry(id.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Repository>> {
        self.store.read().scan::<Repository>().find(|repository| repository.id == id)
    }
}

/// Lets `HEAD` name the branch, so that a clone checks it out.
pub(crate) async fn point_head(bare: &Bare, branch: &str) -> Result<(), GitError> {
    bare.run(&["symbolic-ref", "HEAD", &format!("{BRANCH}{branch}")]).await.map(|_| ())
}

/// At the start: directories without a record go, records without a directory get one, and every repository is settled.
pub(crate) async fn tidy(codecommit: Arc<CodeCommit>) {
    if let Err(error) = remove_strays(&codecommit).await {
        tracing::error!(%error, "directories of deleted repositories could not be removed");
    }
    let all: Vec<_> = codecommit.store.read().scan::<Repository>().collect();
    for repository in all {
        let settled = async {
            let bare = codecommit.git.bare(&repository.id);
            if !bare.path().exists() {
                bare.init().await?;
            }
            if let Some(branch) = &repository.default_branch {
                point_head(&bare, branch).await?;
            }
            codecommit.settle(&repository.id, None).await
        };
        if let Err(fault) = settled.await {
            tracing::error!(
                repository = repository.name,
                fault = fault.message,
                "a repository is not as it should be"
            );
        }
    }
}

async fn remove_strays(codecommit: &CodeCommit) -> std::io::Result<()> {
    let mut entries = tokio::fs::read_dir(codecommit.git.directory()).await?;
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".git"));
        if id.is_some_and(|id| codecommit.by_id(id).is_none()) {
            tokio::fs::remove_dir_all(entry.path()).await?;
        }
    }
    Ok(())
}

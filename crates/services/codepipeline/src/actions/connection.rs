//! Sources of git hosts elsewhere.

use super::{Done, Failed, Work};
use crate::{api::SourceRevisionType, model::Revision};
use codeconnections::{CloneReference, Origin};
use std::collections::BTreeMap;
use world::Timestamp;

/// <https://docs.aws.amazon.com/codepipeline/latest/userguide/action-reference-CodestarConnectionSource.html>
pub(super) async fn source(work: &Work<'_>) -> Result<Done, Failed> {
    let (connection, repository) = (work.need("ConnectionArn")?, work.need("FullRepositoryId")?);
    let asked = work.asked_revision(SourceRevisionType::CommitId);
    let branch = match (&asked, &work.execution.branch) {
        (Some(_), Some(pushed)) => pushed,
        _ => work.need("BranchName")?,
    };
    let whole = format!("refs/heads/{branch}");
    let version = asked.as_deref().unwrap_or(&whole);
    let (connections, front) = (&work.service.connections, work.service.front());
    let (place, remote) =
        connections.remote(front, &work.context(), connection, repository).await?;
    let turn = work.turn().await;
    let fetched = remote.fetch(&work.service.world, version).await;
    let fetched = fetched.map_err(|why| {
        Failed::job(format!("{version} of {} cannot be fetched: {why}", place.url))
    })?;
    let content = match work.clones() {
        true => {
            let origin = Origin::Connection(connection.to_owned(), repository.to_owned());
            CloneReference { origin, commit: fetched.commit.clone() }.content()
        }
        false => fetched.archive,
    };
    let artifacts = work.put(content).await?;
    drop(turn);
    let date = |time: Timestamp| time.datetime().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let pairs = [
        ("AuthorDate", date(fetched.authored)),
        ("AuthorDisplayName", fetched.author),
        ("AuthorEmail", fetched.email),
        ("BranchName", branch.to_owned()),
        ("CommitId", fetched.commit.clone()),
        ("CommitMessage", fetched.message.clone()),
        ("ConnectionArn", connection.to_owned()),
        ("FullRepositoryName", repository.to_owned()),
        ("ProviderType", place.provider.as_str().to_owned()),
    ];
    let outputs: BTreeMap<_, _> =
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Done {
        summary: Some(fetched.message.clone()),
        external: Some(fetched.commit.clone()),
        outputs,
        artifacts,
        revision: Some(Revision {
            action: work.run.declaration.name.clone(),
            artifact: work.output_name(),
            id: fetched.commit,
            summary: fetched.message,
            created: fetched.committed,
        }),
    })
}

//! Repositories of git hosts elsewhere, which nothing here tells of: they are looked at every now and then, and when a
//! host's webhook says that there is something new.

use crate::{
    CodePipeline,
    actions::{SERVICE, SESSION},
    api::ActionDeclaration,
    model::{Followed, Pipeline, Watched},
    requests,
    triggers::{self, Start, Verdict},
};
use futures_util::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION,
    http::request::Parts,
};
use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};
use store::{DiskFault, Record};
use wire::{Body, Context, Peer, RawHandler, full_body};

/// How long a repository is not looked at unless something says that it changed.
const ROUND: Duration = Duration::from_secs(30);
/// The least from one look to the next, however often it is asked for.
const APART: Duration = Duration::from_secs(1);
/// So many are looked at at once: a host that does not answer holds up few others.
const MOST_LOOKS: usize = 8;
/// Where webhooks of hosts go.
const HOOK: &str = "/webhooks/connections";

/// The longest that a webhook says, in bytes, and how long it may take.
const LONGEST_NOTICE: usize = 1 << 20;
const NOTICE: Duration = Duration::from_secs(10);

/// The provider of actions whose source is elsewhere.
pub(crate) const PROVIDER: &str = "CodeStarSourceConnection";

/// Connection, repository and branch of an action whose source is elsewhere.
pub(crate) fn named(action: &ActionDeclaration) -> Option<[&str; 3]> {
    let configuration = action.configuration.as_ref()?;
    let get = |key: &str| configuration.get(key).map(String::as_str);
    Some([get("ConnectionArn")?, get("FullRepositoryId")?, get("BranchName")?])
}

/// Looks at the sources of pipelines, on and on.
pub(crate) async fn look(service: Arc<CodePipeline>) {
    let mut pipelines = service.store.watch_tables(&[Pipeline::TABLE]);
    loop {
        for looked in [round(&service).await, requests::round(&service).await] {
            if let Err(error) = looked {
                tracing::warn!(%error, "what sources elsewhere have could not be written down");
            }
        }
        service.world.sleep(APART).await;
        tokio::select! {
            () = service.world.sleep(ROUND) => {}
            () = pipelines.changed() => {}
            () = service.hooked.notified() => {}
        }
    }
}

async fn round(service: &Arc<CodePipeline>) -> Result<(), DiskFault> {
    let snapshot = service.store.read();
    // Each once, with a role that may see it.
    let (mut wanted, mut whole) = (BTreeMap::new(), BTreeMap::new());
    for pipeline in snapshot.scan::<Pipeline>() {
        let role = &pipeline.declaration.role_arn;
        let filtered = triggers::filtered(&pipeline.declaration);
        let actions = pipeline.declaration.stages.iter().flat_map(|stage| &stage.actions);
        let elsewhere = actions.filter(|action| action.action_type_id.provider == PROVIDER);
        for action in elsewhere {
            let Some([connection, repository, branch]) = named(action) else { continue };
            let of = |text: &str| text.to_owned();
            let (realm, connection, repository) =
                (pipeline.realm.clone(), of(connection), of(repository));
            if filtered.contains(action.name.as_str()) {
                let references = BTreeMap::new();
                let watched = Watched { realm, connection, repository, references };
                whole.insert(watched.key(), (watched, role.clone()));
            } else {
                let (branch, commit) = (of(branch), None);
                let followed = Followed { realm, connection, repository, branch, commit };
                wanted.insert(followed.key(), (followed, role.clone()));
            }
        }
    }
    forget::<Followed>(service, &wanted).await?;
    forget::<Watched>(service, &whole).await?;
    let wanted: Vec<(Followed, String)> = wanted.into_values().collect();
    for some in wanted.chunks(MOST_LOOKS) {
        let looks = some.iter().map(|(followed, role)| look_at(service, followed, role));
        join_all(looks).await.into_iter().collect::<Result<(), _>>()?;
    }
    let whole: Vec<(Watched, String)> = whole.into_values().collect();
    for some in whole.chunks(MOST_LOOKS) {
        let looks = some.iter().map(|(watched, role)| look_through(service, watched, role));
        join_all(looks).await.into_iter().collect::<Result<(), _>>()?;
    }
    Ok(())
}

/// Looks at all of a repository, and begins what was pushed begins.
async fn look_through(
    service: &CodePipeline,
    watched: &Watched,
    role: &str,
) -> Result<(), DiskFault> {
    let before = service.store.read().get::<Watched>(&watched.key());
    let before = before.map(|before| Watched::clone(&before));
    match news(service, before.as_ref(), watched, role).await {
        Ok((now, starts)) if before.as_ref().is_none_or(|b| b.references != now.references) => {
            triggers::start(service, before, now, starts).await
        }
        Ok(_) => Ok(()),
        Err(why) => {
            let Watched { connection, repository, .. } = watched;
            tracing::warn!(connection, repository, why, "a repository cannot be looked through");
            Ok(())
        }
    }
}

/// What a repository has now, and what is to begin by what was pushed since `before`. What was there when it was looked
/// at for the first time begins nothing.
async fn news(
    service: &CodePipeline,
    before: Option<&Watched>,
    watched: &Watched,
    role: &str,
) -> Result<(Watched, Vec<Start>), String> {
    let Watched { realm, connection, repository, .. } = watched;
    let ctx = look_as(service, realm, role)?;
    let found = service.connections.remote(service.front(), &ctx, connection, repository).await;
    let (_, remote) = found.map_err(|fault| fault.message)?;
    let references = remote.references(&service.world).await?;
    let mut starts = Vec::new();
    if let Some(before) = before.filter(|before| before.references != references) {
        for pushed in triggers::pushed(&before.references, &references) {
            let mut files = None;
            for (pipeline, action, filters) in triggers::followers(service, watched) {
                let verdict = Verdict::of(&filters, &pushed);
                if matches!(verdict, Verdict::Files(_)) && files.is_none() {
                    let known = before.references.iter();
                    let known = known.filter(|(name, at)| references.get(*name) == Some(*at));
                    let known = known.map(|(_, commit)| commit.clone()).collect();
                    let last = before.references.get(&pushed.reference).map(String::as_str);
                    let (world, commit) = (&service.world, &pushed.commit);
                    files = Some(remote.changed_files(world, commit, last, known).await?);
                }
                if verdict.with(files.as_deref().unwrap_or_default()) {
                    starts.push(Start {
                        pipeline,
                        action,
                        connection: connection.clone(),
                        commit: pushed.commit.clone(),
                        branch: pushed.branch().map(str::to_owned),
                    });
                }
            }
        }
    }
    Ok((Watched { references, ..watched.clone() }, starts))
}

/// As whom a pipeline's sources are looked at.
pub(crate) fn look_as(service: &CodePipeline, realm: &str, role: &str) -> Result<Context, String> {
    let session = service.iam.assume_for_service(role, SERVICE, "sources", SESSION);
    let principal = session.map_err(|error| error.to_string())?.principal;
    let region = realm.split_once('/').map_or("", |(_, region)| region);
    Ok(service.front().context(principal, region))
}

async fn look_at(service: &CodePipeline, followed: &Followed, role: &str) -> Result<(), DiskFault> {
    let Followed { realm, connection, repository, branch, .. } = followed;
    match tip(service, (realm, role), (connection, repository, branch)).await {
        Ok(commit) => keep(service, Followed { commit, ..followed.clone() }).await,
        Err(why) => {
            tracing::warn!(connection, repository, branch, why, "a source cannot be looked at");
            Ok(())
        }
    }
}

async fn tip(
    service: &CodePipeline,
    (realm, role): (&str, &str),
    (connection, repository, branch): (&str, &str, &str),
) -> Result<Option<String>, String> {
    let ctx = look_as(service, realm, role)?;
    let found = service.connections.remote(service.front(), &ctx, connection, repository).await;
    let (_, remote) = found.map_err(|fault| fault.message)?;
    remote.tip(&service.world, branch).await
}

/// Writes down what a source has, if that is another thing than before.
async fn keep(service: &CodePipeline, followed: Followed) -> Result<(), DiskFault> {
    let known = service.store.read().get::<Followed>(&followed.key());
    if known.is_some_and(|known| known.commit == followed.commit) {
        return Ok(());
    }
    let kept = service.store.write(move |tx| {
        tx.put(followed);
        Ok(())
    });
    kept.await
}

/// Forgets sources that nobody follows any more.
async fn forget<R: Record>(
    service: &CodePipeline,
    wanted: &BTreeMap<String, (R, String)>,
) -> Result<(), DiskFault> {
    let snapshot = service.store.read();
    let all = snapshot.scan::<R>().map(|one| one.key());
    let gone: Vec<String> = all.filter(|key| !wanted.contains_key(key)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let forgotten = service.store.write(move |tx| {
        for key in gone {
            tx.delete::<R>(&key);
        }
        Ok(())
    });
    forgotten.await
}

/// Where hosts say that something happened. Whoever asks, and whatever with, it means that sources are looked at now,
/// and pull requests that are really there: so nobody has to prove who they are.
pub struct Hook(pub Arc<CodePipeline>);

impl RawHandler for Hook {
    fn accepts(&self, head: &Parts) -> bool {
        // What is signed is for an API, be it of a bucket of that name.
        let signed = head.headers.contains_key(AUTHORIZATION) || head.uri.query().is_some();
        head.uri.path() == HOOK && head.method == Method::POST && !signed
    }

    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        _: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            let (status, says) = self.hear(request).await;
            self.0.hooked.notify_one();
            let mut response = Response::new(full_body(says));
            *response.status_mut() = status;
            response
        })
    }
}

impl Hook {
    async fn hear(&self, request: Request<Incoming>) -> (StatusCode, &'static str) {
        let looked = (StatusCode::ACCEPTED, "sources are looked at\n");
        let (head, body) = request.into_parts();
        let event = head.headers.get("x-event-key").and_then(|event| event.to_str().ok());
        let body = Limited::new(body, LONGEST_NOTICE).collect();
        // What is longer or slower says nothing of a pull request that is heeded.
        let Some(Ok(body)) = self.0.world.timeout(NOTICE, body).await else { return looked };
        let Some(notice) = requests::read(&body.to_bytes(), event) else { return looked };
        match requests::hear(&self.0, notice).await {
            Ok(true) => looked,
            Ok(false) => (StatusCode::SERVICE_UNAVAILABLE, "too many wait; tell it again\n"),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "it could not be written down\n"),
        }
    }
}

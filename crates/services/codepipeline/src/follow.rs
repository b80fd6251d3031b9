//! Sources that a pipeline follows by itself: on AWS they are asked every now and then (`PollForSourceChanges`, which
//! is on unless it is switched off); here what changes them wakes the pipeline. Sources elsewhere (`DetectChanges`) do
//! when something new is seen of them. Objects of S3 are looked at once a minute: every object would wake
//! everybody, and who cannot wait lets EventBridge start the pipeline.

use crate::{
    CodePipeline,
    api::{ActionDeclaration, TriggerType},
    elsewhere,
    model::{Execution, Followed, Pipeline},
    start::{Begin, begin},
    triggers,
};
use std::collections::BTreeMap;
use store::{DiskFault, Record};

/// What is seen of followed sources now, and the actions whose source has something new.
pub(crate) struct Due {
    seen: BTreeMap<String, Option<String>>,
    news: Vec<String>,
}

/// The source actions that follow their source.
fn followed(pipeline: &Pipeline) -> impl Iterator<Item = &ActionDeclaration> {
    let actions = pipeline.declaration.stages.iter().flat_map(|stage| &stage.actions);
    let filtered = triggers::filtered(&pipeline.declaration);
    actions.filter(move |action| {
        if filtered.contains(action.name.as_str()) {
            return false;
        }
        let switch = match action.action_type_id.provider.as_str() {
            "CodeCommit" | "S3" => "PollForSourceChanges",
            elsewhere::PROVIDER => "DetectChanges",
            _ => return false,
        };
        let follows = action.configuration.as_ref().and_then(|all| all.get(switch));
        follows.is_none_or(|follows| !follows.eq_ignore_ascii_case("false"))
    })
}

/// What the sources that a pipeline follows have now.
pub(crate) fn look(
    service: &CodePipeline,
    pipeline: &Pipeline,
) -> BTreeMap<String, Option<String>> {
    let snapshot = service.store.read();
    let tip = |action: &ActionDeclaration| {
        if action.action_type_id.provider == elsewhere::PROVIDER {
            let key = Followed::key_of(&pipeline.realm, elsewhere::named(action)?);
            // Until it was looked at, nothing is known of it: what is there then is not new.
            return snapshot.get::<Followed>(&key).map(|found| found.commit.clone());
        }
        let configuration = action.configuration.as_ref()?;
        if let Some(bucket) = configuration.get("S3Bucket") {
            return Some(service.s3.tip(bucket, configuration.get("S3ObjectKey")?));
        }
        let (name, branch) =
            (configuration.get("RepositoryName")?, configuration.get("BranchName")?);
        Some(service.codecommit.tip(&pipeline.realm, name, branch))
    };
    followed(pipeline).filter_map(|action| Some((action.name.clone(), tip(action)?))).collect()
}

/// What an execution is said to begin by, when a source has something new.
fn trigger(pipeline: &Pipeline, name: &str) -> (TriggerType, String) {
    let mut followed = followed(pipeline).filter(|action| action.name == name);
    let elsewhere = followed.find(|action| action.action_type_id.provider == elsewhere::PROVIDER);
    match elsewhere.and_then(elsewhere::named) {
        Some([connection, ..]) => (TriggerType::WebhookV2, connection.to_owned()),
        None => (TriggerType::PollForSourceChanges, name.to_owned()),
    }
}

/// What is new, if anything.
pub(crate) fn due(service: &CodePipeline, pipeline: &Pipeline) -> Option<Due> {
    let mut seen = look(service, pipeline);
    let mut news = first(service, pipeline, &mut seen);
    if seen == pipeline.seen {
        return None;
    }
    let new = |(action, tip): &(&String, &Option<String>)| {
        tip.is_some() && pipeline.seen.get(*action).is_some_and(|before| before != *tip)
    };
    news.extend(seen.iter().filter(new).map(|(action, _)| action.clone()));
    Some(Due { seen, news })
}

/// The actions of which something was seen for the first time, and it is not what the pipeline has had of them since it
/// is as it is. What is not known yet, because it is about to run, is left out of `seen`.
fn first(
    service: &CodePipeline,
    pipeline: &Pipeline,
    seen: &mut BTreeMap<String, Option<String>>,
) -> Vec<String> {
    let unknown: Vec<String> =
        seen.keys().filter(|action| !pipeline.seen.contains_key(*action)).cloned().collect();
    let snapshot = service.store.read();
    let mut news = Vec::new();
    for action in unknown {
        let prefix = Execution::prefix_of(&pipeline.realm, pipeline.name());
        let runs = snapshot.scan_prefix::<Execution>(&prefix).rev();
        let mut runs = runs.filter(|run| run.version == pipeline.version()).peekable();
        let open = runs.peek().is_some_and(|run| run.is_open());
        let had = runs.find_map(|run| {
            let mut revisions = run.revisions.iter();
            revisions.find(|revision| revision.action == action).map(|found| found.id.clone())
        });
        match (had, &seen[&action]) {
            (Some(had), Some(tip)) if had != *tip => news.push(action),
            (None, _) if open => {
                seen.remove(&action);
            }
            _ => {}
        }
    }
    news
}

/// Begins an execution for what is new, and remembers what was seen, at once or not at all.
pub(crate) async fn start(
    service: &CodePipeline,
    pipeline: &Pipeline,
    due: Due,
) -> Result<(), DiskFault> {
    let (key, known) = (pipeline.key(), pipeline.seen.clone());
    let (now, world) = (service.world.now(), service.world.clone());
    service
        .store
        .write(move |tx| {
            let Some(pipeline) = tx.get::<Pipeline>(&key) else { return Ok(()) };
            if pipeline.seen != known {
                return Ok(());
            }
            tx.update::<Pipeline>(&key, |pipeline| pipeline.seen = due.seen);
            if let Some(action) = due.news.first() {
                let (trigger, detail) = trigger(&pipeline, action);
                let wanted = Begin { trigger, detail, ..Begin::default() };
                if let Err(fault) = begin(tx, &world, &key, now, wanted) {
                    tracing::warn!(
                        pipeline = key,
                        why = fault.message,
                        "a change began no execution"
                    );
                }
            }
            Ok(())
        })
        .await
}

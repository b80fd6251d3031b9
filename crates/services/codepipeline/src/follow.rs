//! Sources that a pipeline follows by itself: on AWS they are asked every now and then (`PollForSourceChanges`, which
//! is on unless it is switched off); here what changes them wakes the pipeline.

use crate::{
    CodePipeline,
    api::{ActionDeclaration, TriggerType},
    model::Pipeline,
    start::{Begin, begin},
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
    actions.filter(|action| {
        let polls = action.configuration.as_ref().and_then(|all| all.get("PollForSourceChanges"));
        action.action_type_id.provider == "CodeCommit"
            && polls.is_none_or(|polls| !polls.eq_ignore_ascii_case("false"))
    })
}

/// What the sources that a pipeline follows have now.
pub(crate) fn look(
    service: &CodePipeline,
    pipeline: &Pipeline,
) -> BTreeMap<String, Option<String>> {
    let tip = |action: &ActionDeclaration| {
        let configuration = action.configuration.as_ref()?;
        let (name, branch) =
            (configuration.get("RepositoryName")?, configuration.get("BranchName")?);
        service.codecommit.tip(&pipeline.realm, name, branch)
    };
    followed(pipeline).map(|action| (action.name.clone(), tip(action))).collect()
}

/// What is new, if anything.
pub(crate) fn due(service: &CodePipeline, pipeline: &Pipeline) -> Option<Due> {
    let seen = look(service, pipeline);
    if seen == pipeline.seen {
        return None;
    }
    let new = |(action, tip): &(&String, &Option<String>)| {
        tip.is_some() && pipeline.seen.get(*action).is_some_and(|before| before != *tip)
    };
    let news = seen.iter().filter(new).map(|(action, _)| action.clone()).collect();
    Some(Due { seen, news })
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
                let wanted = Begin {
                    trigger: TriggerType::PollForSourceChanges,
                    detail: action.clone(),
                    ..Begin::default()
                };
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

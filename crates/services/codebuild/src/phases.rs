//! The phases of a build as it is described.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/view-build-details-phases.html>

use crate::{
    api::{self, BuildPhase, BuildPhaseType, PhaseContext, StatusType},
    model::{Build, Stage},
};
use std::time::Duration;
use world::Timestamp;

/// What went wrong: AWS's code for it, and words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    pub code: &'static str,
    pub message: String,
}

impl Why {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Begins a phase.
pub(crate) fn enter(document: &mut api::Build, phase: BuildPhaseType, now: Timestamp) {
    document.current_phase = Some(phase.as_str().to_owned());
    document.phases.get_or_insert_default().push(BuildPhase {
        phase_type: Some(phase),
        start_time: Some(now),
        ..BuildPhase::default()
    });
}

/// Ends the phase that goes on.
pub(crate) fn leave(
    document: &mut api::Build,
    status: StatusType,
    why: Option<Why>,
    now: Timestamp,
) {
    let last = document.phases.iter_mut().flatten().next_back();
    let Some(phase) = last.filter(|phase| phase.phase_status.is_none()) else { return };
    phase.phase_status = Some(status);
    phase.end_time = Some(now);
    let began = phase.start_time.unwrap_or(now);
    let took = if now > began { now.since(began) } else { Duration::ZERO };
    phase.duration_in_seconds = Some(took.as_secs() as i64);
    let (code, message) =
        why.map_or_else(Default::default, |why| (why.code.to_owned(), why.message));
    phase.contexts = Some(vec![PhaseContext { status_code: Some(code), message: Some(message) }]);
}

/// Ends the phase that goes on well, and begins another.
pub(crate) fn next(document: &mut api::Build, phase: BuildPhaseType, now: Timestamp) {
    leave(document, StatusType::Succeeded, None, now);
    enter(document, phase, now);
}

/// Ends the build.
pub(crate) fn end(build: &mut Build, status: StatusType, why: Option<Why>, now: Timestamp) {
    close(&mut build.document, status, why, now);
    build.stage = Stage::Over;
}

/// Ends its phases. What went wrong between two of them is told of the last.
fn close(document: &mut api::Build, status: StatusType, why: Option<Why>, now: Timestamp) {
    let last = document.phases.iter().flatten().next_back();
    let between = last.is_none_or(|phase| phase.phase_status.is_some());
    let (going_on, finalizing) = match why {
        Some(why) if between => (None, (status, Some(why))),
        why => (why, (StatusType::Succeeded, None)),
    };
    leave(document, status, going_on, now);
    enter(document, BuildPhaseType::Finalizing, now);
    leave(document, finalizing.0, finalizing.1, now);
    enter(document, BuildPhaseType::Completed, now);
    document.build_status = Some(status);
    document.build_complete = Some(true);
    document.end_time = Some(now);
}

/// A phase by the name that it has everywhere.
pub(crate) fn named(name: &str) -> Option<BuildPhaseType> {
    use BuildPhaseType::{Build, Install, PostBuild, PreBuild};
    [Install, PreBuild, Build, PostBuild].into_iter().find(|phase| phase.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_of_the_phase_that_goes_on_or_of_the_last() {
        for between in [false, true] {
            let mut document = api::Build::default();
            let now = Timestamp::from_millis(1);
            enter(&mut document, BuildPhaseType::PreBuild, now);
            if between {
                leave(&mut document, StatusType::Succeeded, None, now);
            }
            close(&mut document, StatusType::Failed, Some(Why::new("CLIENT_ERROR", "why")), now);
            let phases = document.phases.unwrap();
            let failed =
                phases.iter().filter(|phase| phase.phase_status == Some(StatusType::Failed));
            let failed: Vec<_> = failed.map(|phase| phase.phase_type).collect();
            let expected =
                if between { BuildPhaseType::Finalizing } else { BuildPhaseType::PreBuild };
            assert_eq!(failed, [Some(expected)]);
        }
    }
}

//! The phases of a build as it is described.
//! <https://docs.aws.amazon.com/codebuild/latest/userguide/view-build-details-phases.html>

use crate::{
    api::{BuildPhase, BuildPhaseType, PhaseContext, StatusType},
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
pub(crate) fn enter(build: &mut Build, phase: BuildPhaseType, now: Timestamp) {
    build.document.current_phase = Some(phase.as_str().to_owned());
    build.document.phases.get_or_insert_default().push(BuildPhase {
        phase_type: Some(phase),
        start_time: Some(now),
        ..BuildPhase::default()
    });
}

/// Ends the phase that goes on.
pub(crate) fn leave(build: &mut Build, status: StatusType, why: Option<Why>, now: Timestamp) {
    let last = build.document.phases.iter_mut().flatten().next_back();
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
pub(crate) fn next(build: &mut Build, phase: BuildPhaseType, now: Timestamp) {
    leave(build, StatusType::Succeeded, None, now);
    enter(build, phase, now);
}

/// Ends the build.
pub(crate) fn end(build: &mut Build, status: StatusType, why: Option<Why>, now: Timestamp) {
    leave(build, status, why, now);
    enter(build, BuildPhaseType::Finalizing, now);
    leave(build, StatusType::Succeeded, None, now);
    enter(build, BuildPhaseType::Completed, now);
    build.document.build_status = Some(status);
    build.document.build_complete = Some(true);
    build.document.end_time = Some(now);
    build.stage = Stage::Over;
}

/// A phase by the name that it has everywhere.
pub(crate) fn named(name: &str) -> Option<BuildPhaseType> {
    use BuildPhaseType::{Build, Install, PostBuild, PreBuild};
    [Install, PreBuild, Build, PostBuild].into_iter().find(|phase| phase.as_str() == name)
}

//! What a build's container tells of itself: how far its phases are, and why it ended before them.

use crate::{
    CodeBuild,
    api::{BuildPhaseType, StatusType},
    keep::Root,
    model::{Build, Stage},
    phases::{self, Why},
    script,
};
use ecs::SandboxState;
use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};
use world::Timestamp;

/// The most that is read of what a container tells, in bytes: it is the build's to write, too.
const MOST_TOLD: u64 = 1 << 20;

/// What was read of what a container tells.
pub(crate) struct Hearing {
    file: std::fs::File,
    /// The beginning of a line whose end is not there yet.
    part: Vec<u8>,
    read: u64,
    lines: usize,
}

impl Hearing {
    pub(crate) async fn open(service: &CodeBuild, build: &Build) -> Option<Self> {
        let root = service.containers.root(&build.sandbox()).await.ok()?;
        let path = format!("{}/{}", script::AGENT, script::PROGRESS);
        let mut file = Root(root).file(Path::new(&path)).ok()?;
        file.seek(SeekFrom::Start(0)).ok()?;
        Some(Self { file, part: Vec::new(), read: 0, lines: 0 })
    }

    /// Whether more was written than the program would write.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.read >= MOST_TOLD
    }

    /// The lines that are new, with their numbers.
    pub(crate) fn lines(&mut self) -> io::Result<Vec<(usize, String)>> {
        let before = self.part.len();
        (&mut self.file).take(MOST_TOLD.saturating_sub(self.read)).read_to_end(&mut self.part)?;
        self.read += (self.part.len() - before) as u64;
        let Some(end) = self.part.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.part.split_off(end + 1);
        let whole = std::mem::replace(&mut self.part, rest);
        let lines = String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect::<Vec<_>>();
        let numbered = lines.into_iter().map(|line| {
            self.lines += 1;
            (self.lines, line)
        });
        Ok(numbered.collect())
    }
}

/// Why a container ended before its phases did.
pub(crate) fn lost(build: &Build, state: SandboxState) -> Why {
    let SandboxState::Over { reason, exit_code, ran, .. } = state else {
        return Why::new("INTERNAL_SERVICE_ERROR", "the build's container is gone");
    };
    if !ran {
        let code = match reason.starts_with("CannotPullContainerError") {
            true => "BUILD_CONTAINER_UNABLE_TO_PULL_IMAGE",
            false => "CLIENT_ERROR",
        };
        return Why::new(code, format!("The build's container could not be started: {reason}"));
    }
    let phase = build.document.current_phase.as_deref().unwrap_or_default();
    // 137: killed, as by the kernel for want of memory.
    let code = exit_code.map(|code| format!(" with the exit code {code}")).unwrap_or_default();
    Why::new(
        "CLIENT_ERROR",
        format!("The build's container ended in {phase}{code} before its commands did: {reason}"),
    )
}

/// Puts what a container said at a time into its build's record.
pub(crate) fn apply(build: &mut Build, said: script::Said, at: Timestamp) {
    use script::Said::{Begin, Done, Enter, Leave, Lost};
    let current = build.document.current_phase.clone().unwrap_or_default();
    match said {
        Begin => phases::leave(&mut build.document, StatusType::Succeeded, None, at),
        Lost(_) => {}
        Enter(name) => {
            let known = build.document.phases.iter().flatten();
            let mut known = known.filter_map(|phase| phase.phase_type);
            if let Some(phase) = phases::named(&name)
                && !known.any(|known| known == phase)
            {
                phases::next(&mut build.document, phase, at);
            }
        }
        Leave(name, _) if name != current => {}
        Leave(_, None) => phases::leave(&mut build.document, StatusType::Succeeded, None, at),
        Leave(_, Some((command, status))) => {
            let command = build.plan.commands.get(command).cloned().unwrap_or_default();
            let message = format!(
                "Error while executing command: {}. Reason: exit status {status}",
                command.trim_end()
            );
            let why = Why::new("COMMAND_EXECUTION_ERROR", message);
            phases::leave(&mut build.document, StatusType::Failed, Some(why), at);
        }
        Done(succeeded) => {
            build.succeeded = succeeded;
            build.stage = Stage::Upload;
            phases::next(&mut build.document, BuildPhaseType::UploadArtifacts, at);
        }
    }
}

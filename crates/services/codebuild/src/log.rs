//! What CodeBuild itself writes into a build's log, beside its container.

use crate::{CodeBuild, model::Build};
use ecs::LogTarget;
use wire::Principal;
use world::Timestamp;

/// The longest line that is logged, in bytes.
const LONGEST: usize = 8 << 10;

/// The log group and stream of a build; none when it is not logged.
pub(crate) fn place(build: &Build) -> Option<(String, String)> {
    let logs = build.document.logs.as_ref()?;
    Some((logs.group_name.clone()?, logs.stream_name.clone()?))
}

/// A line as builds write them: `[Container] 2018/06/04 18:45:56 TEXT`.
pub(crate) fn line(now: Timestamp, text: &str) -> String {
    let time = now.rfc3339().get(..19).unwrap_or_default().replace('-', "/").replace('T', " ");
    format!("[Container] {time} {text}")
}

/// Writes lines that belong to one step of a build, as the service role; once, however often it is called with the same
/// ones. A log that cannot be written to is none of the build's failures; it is told ours.
pub(crate) async fn write(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
    step: &str,
    lines: &[String],
) {
    write_from(service, build, principal, step, 0, lines).await;
}

/// [`write`] of the lines from number `from` on of a step.
pub(crate) async fn write_from(
    service: &CodeBuild,
    build: &Build,
    principal: &Principal,
    step: &str,
    from: u64,
    lines: &[String],
) {
    let Some((group, stream)) = place(build) else { return };
    let target = LogTarget { realm: build.realm.clone(), group, stream, create_group: true };
    let now = service.world.now();
    let lines: Vec<(i64, String)> = lines
        .iter()
        .map(|text| {
            let mut end = text.len().min(LONGEST);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            (now.millis(), line(now, &text[..end]))
        })
        .collect();
    let source = format!("codebuild/{}/{step}", build.id);
    let range = from..from + lines.len() as u64;
    let written = async {
        let sink = service.outside().logs.open(&target, principal).await?;
        sink.append(&source, range, &lines).await
    };
    if let Err(reason) = written.await {
        tracing::warn!(build = build.name(), reason, "a build's log cannot be written to");
    }
}

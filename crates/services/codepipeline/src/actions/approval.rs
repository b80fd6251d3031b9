//! Manual approvals: they wait for PutApprovalResult, and end by themselves only when nobody decides.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/approvals.html>

use super::{Done, Failed, Work};
use std::time::Duration;

/// How long an approval waits unless its action says otherwise: seven days.
const MINUTES: i32 = 7 * 24 * 60;
/// The longest wait between two looks.
const ROUND: Duration = Duration::from_secs(60);

pub(super) async fn wait(work: &Work<'_>) -> Result<Done, Failed> {
    let minutes = work.run.declaration.timeout_in_minutes.unwrap_or(MINUTES);
    let world = &work.service.world;
    let limit = world.scaled(Duration::from_secs(60) * minutes.unsigned_abs());
    while work.is_wanted() {
        let passed = world.now().since(work.run.started);
        if passed >= limit {
            return Err(Failed::job(format!(
                "Nobody approved or rejected within {minutes} minutes."
            )));
        }
        world.sleep((limit - passed).min(ROUND)).await;
    }
    // It is decided: what is answered here is no longer asked for.
    Ok(Done::default())
}

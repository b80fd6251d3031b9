//! What the person at the machine does to tasks.

use crate::{
    Ecs,
    api::TaskStopCode,
    model::{LastStatus, Launch, Task},
    tell::change_task,
};
use std::sync::Arc;
use store::Record;

/// The capacity provider whose tasks can be interrupted.
const SPOT: &str = "FARGATE_SPOT";
/// AWS's words for one that was.
const INTERRUPTED: &str = "Your Spot Task was interrupted.";
/// The fewest letters of an id that name a task.
const FEWEST_LETTERS: usize = 4;

/// Why a task cannot be interrupted.
#[derive(Debug, thiserror::Error)]
pub enum InterruptError {
    /// No running task has this id or ARN.
    #[error("no running task has the id or ARN {0}")]
    NoTask(String),
    /// Its capacity is not taken away.
    #[error("the task does not run on FARGATE_SPOT: only such tasks are interrupted")]
    NotSpot,
    /// The disk refused it.
    #[error("it could not be written down")]
    Disk(#[from] store::DiskFault),
}

/// Why a command cannot be run in a container.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No running task has this id or ARN.
    #[error("no running task has the id or ARN {0}")]
    NoTask(String),
    /// The task has other containers.
    #[error("the task has several containers, name one with --container: {0}")]
    Which(String),
    /// It was not run for that.
    #[error(
        "the task was run without --enable-execute-command, as AWS requires; --force does it all the same"
    )]
    NotEnabled,
    /// The engine could not.
    #[error("the command could not be started")]
    Engine(#[from] runtime::EngineError),
}

impl Ecs {
    /// The task, not over yet, with this id (its beginning does) or ARN.
    fn running_task(&self, named: &str) -> Option<Arc<Task>> {
        let is = |task: &Task| {
            let short = named.len() >= FEWEST_LETTERS && task.id.starts_with(named);
            task.last_status != LastStatus::Stopped && (short || task.arn() == named)
        };
        self.store.read().scan::<Task>().find(|task| is(task))
    }

    /// Takes a FARGATE_SPOT task's capacity away as AWS does when it wants it back: SIGTERM at once, whatever is in
    /// flight, and the end when its stopTimeout is over, two minutes at most. Its service starts another. Answers the
    /// task's ARN.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html>
    pub async fn interrupt(&self, named: &str) -> Result<String, InterruptError> {
        let missing = || InterruptError::NoTask(named.to_owned());
        let task = self.running_task(named).filter(|task| !task.stopping).ok_or_else(missing)?;
        if task.launch != Launch::CapacityProvider(SPOT.to_owned()) {
            return Err(InterruptError::NotSpot);
        }
        let (key, now, world) = (task.key(), self.world.now(), self.world.clone());
        self.store
            .write(move |tx| {
                change_task(tx, &world, &key, |task| {
                    task.stop(TaskStopCode::SpotInterruption, INTERRUPTED, now);
                });
                Ok::<_, store::DiskFault>(())
            })
            .await?;
        Ok(task.arn())
    }

    /// Runs a command in a running container of the task with this id (its beginning does) or ARN.
    pub async fn exec(
        &self,
        task: &str,
        container: Option<String>,
        args: Vec<String>,
        terminal: Option<(u16, u16)>,
        force: bool,
    ) -> Result<runtime::ExecSession, ExecError> {
        let missing = || ExecError::NoTask(task.to_owned());
        let record = self.running_task(task).ok_or_else(missing)?;
        if !record.execute_command && !force {
            return Err(ExecError::NotEnabled);
        }
        let names: Vec<String> = record.containers.iter().map(|c| c.name.clone()).collect();
        let container = match (container, &names[..]) {
            (Some(container), _) => container,
            (None, [one]) => one.clone(),
            (None, _) => return Err(ExecError::Which(names.join(", "))),
        };
        let running = self.engine.task(&record.id).ok_or_else(missing)?;
        let request = runtime::ExecRequest {
            container,
            args,
            env: Vec::new(),
            user: None,
            cwd: None,
            terminal,
        };
        running.exec(request).await.map_err(ExecError::from)
    }
}

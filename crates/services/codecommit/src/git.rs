//! The installed git, run as a child process: the repositories on disk are its, and so is all that is done to them.
//!
//! No repository's or user's configuration has a say: the environment is ours, hooks are off, and what a client names
//! goes in by standard input, as an id that was looked up, or behind `refs/heads/`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use wire::{Family, Fault};
use world::World;

/// So many commands of the API run at once; more wait.
const MOST_COMMANDS: usize = 16;
/// So many clients exchange with git at once. They go at their own pace, so they have a bound of their own.
const MOST_EXCHANGES: usize = 64;
/// How long a client waits for its turn.
const TURN: Duration = Duration::from_secs(30);
/// How long a command of the API may take.
const COMMAND_TIME: Duration = Duration::from_secs(60);
/// How long packing may take.
const MAINTENANCE_TIME: Duration = Duration::from_secs(600);
/// The most that a command of the API may answer, in bytes.
const MOST_OUTPUT: u64 = 64 << 20;
/// The most of what it says that is kept, in bytes.
const MOST_SAID: u64 = 4096;
/// The largest archive of a commit, in bytes.
const MOST_ARCHIVE: u64 = 256 << 20;
/// The most bytes of one push: the largest repository that AWS's own limits describe is far beyond what one push may
/// bring, which is 2 GB.
const MOST_PUSH: &str = "2147483648";

/// What every command is told, whatever the repository says.
const SETTINGS: &[(&str, &str)] = &[
    ("core.hooksPath", "/dev/null"),
    ("core.fsync", "all"),
    ("core.quotePath", "false"),
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
    ("http.getanyfile", "false"),
    ("receive.autogc", "false"),
    ("receive.fsckObjects", "true"),
    ("receive.maxInputSize", MOST_PUSH),
    ("receive.denyDeleteCurrent", "refuse"),
    // What the API answers for by commit id can also be fetched by it.
    ("uploadpack.allowReachableSHA1InWant", "true"),
    ("uploadpack.allowFilter", "true"),
    // All of it is ours, whoever runs us.
    ("safe.directory", "*"),
];

/// Why git did not do what it was told. The details are for the log.
#[derive(Debug, Error)]
pub(crate) enum GitError {
    /// It could not be run.
    #[error("git could not be run: {0}")]
    Run(#[from] std::io::Error),
    /// It took too long.
    #[error("git {0} took too long")]
    Slow(String),
    /// It answered more than can be taken.
    #[error("git {0} answered too much")]
    Large(String),
    /// It says that it failed.
    #[error("git {command} failed: {message}")]
    Failed { command: String, message: String },
    /// It answered what no git answers.
    #[error("git's answer was not understood: {0}")]
    Answer(&'static str),
}

impl From<GitError> for Fault {
    fn from(error: GitError) -> Self {
        tracing::error!(%error, "a git command failed");
        Fault::internal(Family::Json)
    }
}

/// All repositories' directory, and the right to run git in it.
#[derive(Clone)]
pub(crate) struct Git {
    directory: PathBuf,
    world: World,
    commands: Arc<Semaphore>,
    exchanges: Arc<Semaphore>,
}

/// One repository on disk.
#[derive(Clone)]
pub(crate) struct Bare {
    git: Git,
    path: PathBuf,
}

impl Git {
    pub(crate) fn new(directory: PathBuf, world: World) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (commands, exchanges) = (semaphore(MOST_COMMANDS), semaphore(MOST_EXCHANGES));
        Self { directory, world, commands, exchanges }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The repository with this id.
    pub(crate) fn bare(&self, id: &str) -> Bare {
        Bare { git: self.clone(), path: self.directory.join(format!("{id}.git")) }
    }

    /// Waits until one more client may exchange with git; none when too many do for too long.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.world.timeout(TURN, self.exchanges.clone().acquire_owned()).await?;
        Some(permit.expect("the semaphore is never closed"))
    }
}

/// A git command in an environment of ours alone.
fn command(path: &Path) -> Command {
    let mut command = Command::new("git");
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8").env("GIT_DIR", path);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_LITERAL_PATHSPECS", "1");
    command.env("GIT_CONFIG_COUNT", SETTINGS.len().to_string());
    for (index, (key, value)) in SETTINGS.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), key);
        command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
    }
    command.kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Bare {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory for what a command needs on disk, removed when it is dropped.
    pub(crate) fn scratch(&self) -> Result<tempfile::TempDir, GitError> {
        Ok(tempfile::Builder::new().prefix("scratch-").tempdir_in(&self.path)?)
    }

    /// Makes the repository, empty. One that is there already is as good.
    pub(crate) async fn init(&self) -> Result<(), GitError> {
        self.run(&["init", "--quiet", "--bare", "--template=", "--initial-branch=main"]).await?;
        let path = self.path.clone();
        // Its name in the directory must last as the record that names it does.
        let synced = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            std::fs::File::open(&path)?.sync_all()?;
            match path.parent() {
                Some(parent) => std::fs::File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        });
        synced.await.map_err(std::io::Error::other)??;
        Ok(())
    }

    /// Lets git pack what has come loose, if it finds that it is time.
    pub(crate) async fn maintain(&self) -> Result<(), GitError> {
        let quietly = ["gc", "--auto", "--quiet"];
        self.feed_within((MAINTENANCE_TIME, MOST_OUTPUT), &quietly, b"", &[]).await.map(|_| ())
    }

    /// The files of a commit, zipped.
    pub(crate) async fn archive(&self, commit: &str) -> Result<Vec<u8>, GitError> {
        let zipped = ["archive", "--format=zip", commit];
        self.feed_within((MAINTENANCE_TIME, MOST_ARCHIVE), &zipped, b"", &[]).await
    }

    /// A working tree of a commit at `target`, with so many commits of history (all of it and every branch without), of
    /// which `url` is said to be the origin. Nothing of it is brought down to the disk.
    pub(crate) async fn checkout(
        &self,
        commit: &str,
        depth: Option<u32>,
        target: &Path,
        url: &str,
    ) -> Result<(), GitError> {
        let origin = self.path.to_string_lossy().into_owned();
        let depth = depth.map(|depth| format!("--depth={depth}"));
        let fetch = match &depth {
            Some(depth) => vec!["fetch", "--quiet", depth, &origin, commit],
            None => {
                vec!["fetch", "--quiet", "--tags", &origin, "+refs/heads/*:refs/remotes/origin/*"]
            }
        };
        let tree = Self { git: self.git.clone(), path: target.join(".git") };
        let place = target.to_string_lossy();
        let steps: [&[&str]; 4] = [
            &["init", "--quiet", "--template=", "--initial-branch=main"],
            &["config", "remote.origin.url", url],
            &fetch,
            &["checkout", "--quiet", "--detach", commit],
        ];
        for step in steps {
            let arguments = [&["-c", "core.fsync=none"], step].concat();
            let within = (MAINTENANCE_TIME, MOST_OUTPUT);
            tree.feed_within(within, &arguments, b"", &[("GIT_WORK_TREE", &place)]).await?;
        }
        Ok(())
    }

    /// The standard output of a git command.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        self.feed(arguments, b"").await
    }

    /// The standard output of a git command that reads `input`.
    pub(crate) async fn feed(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, GitError> {
        self.feed_with(arguments, input, &[]).await
    }

    /// [`Bare::feed`] with more environment.
    pub(crate) async fn feed_with(
        &self,
        arguments: &[&str],
        input: &[u8],
        environment: &[(&str, &str)],
    ) -> Result<Vec<u8>, GitError> {
        self.feed_within((COMMAND_TIME, MOST_OUTPUT), arguments, input, environment).await
    }

    async fn feed_within(
        &self,
        within: (Duration, u64),
        arguments: &[&str],
        input: &[u8],
        environment: &[(&str, &str)],
    ) -> Result<Vec<u8>, GitError> {
        let (status, output, message) = self.ask(within, arguments, input, environment).await?;
        match status.success() {
            true => Ok(output),
            false => Err(GitError::Failed { command: name_of(arguments), message }),
        }
    }

    /// The exit status and the standard output of a git command whose status is an answer.
    pub(crate) async fn status(
        &self,
        arguments: &[&str],
    ) -> Result<(Option<i32>, Vec<u8>), GitError> {
        let (status, output, _) =
            self.ask((COMMAND_TIME, MOST_OUTPUT), arguments, b"", &[]).await?;
        Ok((status.code(), output))
    }

    async fn ask(
        &self,
        (time, most): (Duration, u64),
        arguments: &[&str],
        input: &[u8],
        environment: &[(&str, &str)],
    ) -> Result<Answer, GitError> {
        let permit = self.git.commands.acquire().await;
        let _permit = permit.expect("the semaphore is never closed");
        let mut command = command(&self.path);
        let child = command.args(arguments).envs(environment.iter().copied()).spawn()?;
        let answered = self.git.world.timeout(time, converse(child, input, most));
        let Some(answered) = answered.await else {
            return Err(GitError::Slow(name_of(arguments)));
        };
        let answer = answered?;
        if answer.1.len() as u64 > most {
            return Err(GitError::Large(name_of(arguments)));
        }
        Ok(answer)
    }

    /// `git http-backend` (CGI, <https://git-scm.com/docs/git-http-backend>) for one request; `environment` is the
    /// request's.
    pub(crate) fn http_backend(
        &self,
        environment: &[(&str, String)],
        service: &str,
    ) -> Result<Child, GitError> {
        let mut command = command(&self.path);
        command.env_remove("GIT_DIR").env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("GIT_PROJECT_ROOT", &self.path).env("PATH_INFO", service);
        command.envs(environment.iter().map(|(key, value)| (*key, value)));
        Ok(command.arg("http-backend").spawn()?)
    }
}

fn name_of(arguments: &[&str]) -> String {
    arguments.first().copied().unwrap_or_default().to_owned()
}

type Answer = (std::process::ExitStatus, Vec<u8>, String);

/// Writes, reads both outputs to their ends, and waits. An input that is not read to its end is no error: the status
/// tells.
async fn converse(mut child: Child, input: &[u8], most: u64) -> Result<Answer, GitError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            match stdin.write_all(input).await {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    let (mut output, mut message) = (Vec::new(), Vec::new());
    let read = async {
        match stdout {
            Some(stdout) => stdout.take(most + 1).read_to_end(&mut output).await,
            None => Ok(0),
        }
    };
    let complain = async {
        match stderr {
            Some(mut stderr) => {
                (&mut stderr).take(MOST_SAID).read_to_end(&mut message).await?;
                // Nobody needs the rest, but it must not wait to say it.
                tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await
            }
            None => Ok(0),
        }
    };
    tokio::try_join!(write, read, complain)?;
    let status = child.wait().await?;
    Ok((status, output, String::from_utf8_lossy(&message).trim().to_owned()))
}

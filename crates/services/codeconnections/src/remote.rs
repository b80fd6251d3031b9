//! Repositories of other hosts, by the installed git: no configuration of this machine, and no protocol but HTTP, has a
//! say, and what a host answers is bounded in time and size.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{io::AsyncReadExt, process::Command};
use world::{Timestamp, World};

/// How long one git command may take.
const TIME: Duration = Duration::from_secs(15 * 60);
/// How long it may take to learn what a branch is at.
const LOOK_TIME: Duration = Duration::from_secs(30);
/// The most that a command may answer, in bytes; and the longest list of references.
const MOST_ARCHIVE: u64 = 256 << 20;
const MOST_OUTPUT: u64 = 1 << 20;

/// A repository elsewhere. No `Debug`: it may hold a password.
#[derive(Clone)]
pub struct Remote {
    /// Where git finds it.
    pub url: String,
    /// Name and password.
    pub login: Option<(String, String)>,
    /// Whether the host's certificate is checked.
    pub checked: bool,
}

/// A commit, and all of its files.
pub struct Fetched {
    /// Its id.
    pub commit: String,
    /// The name of who wrote it.
    pub author: String,
    /// Their e-mail address.
    pub email: String,
    /// When they wrote it.
    pub authored: Timestamp,
    /// When it was made.
    pub committed: Timestamp,
    /// What it says.
    pub message: String,
    /// The files, zipped.
    pub archive: Vec<u8>,
}

/// How much a command may take.
struct Bounds {
    time: Duration,
    bytes: u64,
}

impl Remote {
    /// The commit that a branch is at; none if there is no such branch.
    pub async fn tip(&self, world: &World, branch: &str) -> Result<Option<String>, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let whole = format!("refs/heads/{branch}");
        let bounds = Bounds { time: LOOK_TIME, bytes: MOST_OUTPUT };
        let look = ["ls-remote", "--quiet", "--heads", "--", &self.url, &whole];
        let listed = self.run(world, place.path(), bounds, &look).await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
        Ok(lines.find(|(_, name)| *name == whole).map(|(commit, _)| commit.to_owned()))
    }

    /// Fetches a commit, or what a branch is at.
    pub async fn fetch(&self, world: &World, version: &str) -> Result<Fetched, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let at = place.path();
        self.bring(world, at, version, Some(1)).await?;
        // One field a line; the message, which has lines of its own, last.
        let format = "--format=%H%n%an%n%ae%n%at%n%ct%n%B";
        let show = ["log", "-1", "--no-show-signature", format, "FETCH_HEAD"];
        let bounds = Bounds { time: TIME, bytes: MOST_OUTPUT };
        let shown = self.run(world, at, bounds, &show).await?;
        let shown = String::from_utf8_lossy(&shown).into_owned();
        let [commit, author, email, authored, committed, message] =
            shown.splitn(6, '\n').collect::<Vec<_>>()[..]
        else {
            return Err("git's answer was not understood".to_owned());
        };
        let seconds = |text: &str| {
            let seconds = text.parse::<i64>().unwrap_or_default();
            Timestamp::from_millis(seconds.saturating_mul(1000))
        };
        let bounds = Bounds { time: TIME, bytes: MOST_ARCHIVE };
        let archive = self.run(world, at, bounds, &["archive", "--format=zip", "FETCH_HEAD"]);
        Ok(Fetched {
            commit: commit.to_owned(),
            author: author.to_owned(),
            email: email.to_owned(),
            authored: seconds(authored),
            committed: seconds(committed),
            message: message.trim_end().to_owned(),
            archive: archive.await?,
        })
    }

    /// Checks a version (its default branch without) out into `target`, which is there, with so many commits of
    /// history. Answers the commit.
    pub async fn checkout(
        &self,
        world: &World,
        version: Option<&str>,
        depth: Option<u32>,
        target: &Path,
    ) -> Result<String, String> {
        self.bring(world, target, version.unwrap_or("HEAD"), depth).await?;
        let bounds = || Bounds { time: TIME, bytes: MOST_OUTPUT };
        let checkout = ["checkout", "--quiet", "--detach", "FETCH_HEAD"];
        self.run(world, target, bounds(), &checkout).await?;
        let commit = self.run(world, target, bounds(), &["rev-parse", "HEAD"]).await?;
        Ok(String::from_utf8_lossy(&commit).trim().to_owned())
    }

    async fn bring(
        &self,
        world: &World,
        at: &Path,
        version: &str,
        depth: Option<u32>,
    ) -> Result<(), String> {
        let bounds = || Bounds { time: TIME, bytes: MOST_OUTPUT };
        self.run(world, at, bounds(), &["init", "--quiet", "--template="]).await?;
        self.run(world, at, bounds(), &["remote", "add", "--", "origin", &self.url]).await?;
        let depth = depth.map(|depth| format!("--depth={depth}"));
        let mut fetch = vec!["fetch", "--quiet", "--no-recurse-submodules"];
        fetch.extend(depth.as_deref());
        fetch.extend(["--", "origin", version]);
        self.run(world, at, bounds(), &fetch).await.map(|_| ())
    }

    async fn run(
        &self,
        world: &World,
        at: &Path,
        bounds: Bounds,
        arguments: &[&str],
    ) -> Result<Vec<u8>, String> {
        let mut command = Command::new("git");
        command.env_clear().env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        // What is a repository above it is none of ours.
        command.env("GIT_CEILING_DIRECTORIES", at.parent().unwrap_or(at));
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "https:http");
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsync=none"]);
        command.args(["-c", &format!("http.sslVerify={}", self.checked), "-C"]);
        command.arg(at).args(arguments);
        if let Some((name, password)) = &self.login {
            // Everybody on the machine sees a process's arguments; its environment, only who runs it.
            let login = BASE64.encode(format!("{name}:{password}"));
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "http.extraHeader");
            command.env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {login}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = world.timeout(bounds.time, answer(command, bounds.bytes)).await;
        let (succeeded, output, words) =
            run.ok_or("git took too long")?.map_err(|error| format!("git: {error}"))?;
        if output.len() as u64 > bounds.bytes {
            return Err(format!("it is more than {} bytes", bounds.bytes));
        }
        match succeeded {
            true => Ok(output),
            false => Err(words.lines().last().unwrap_or("git failed").trim().to_owned()),
        }
    }
}

/// Whether a command succeeded, what it answered (at most one byte more than `most`), and what it said.
async fn answer(mut command: Command, most: u64) -> std::io::Result<(bool, Vec<u8>, String)> {
    let mut child = command.kill_on_drop(true).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async |from: Option<&mut (dyn tokio::io::AsyncRead + Unpin + Send)>, most| {
        let mut read = Vec::new();
        if let Some(from) = from {
            from.take(most).read_to_end(&mut read).await?;
        }
        std::io::Result::Ok(read)
    };
    let (mut stdout, mut stderr) = (stdout, stderr);
    let (output, words) = tokio::try_join!(
        read(stdout.as_mut().map(|out| out as _), most + 1),
        read(stderr.as_mut().map(|err| err as _), 4096),
    )?;
    drop((stdout, stderr));
    let status = child.wait().await?;
    Ok((status.success(), output, String::from_utf8_lossy(&words).into_owned()))
}

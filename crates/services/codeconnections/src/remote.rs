//! Repositories of other hosts, by the installed git: no configuration of this machine, and no protocol but that of the
//! repository's URL, has a say, and what a host answers is bounded in time and size.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Stdio,
    time::Duration,
};
use tokio::{io::AsyncReadExt, process::Command};
use world::{Timestamp, World};

/// How long one git command may take.
const TIME: Duration = Duration::from_secs(15 * 60);
/// How long it may take to bring what is needed to see which files changed: others wait to be looked at meanwhile.
const CHANGES_TIME: Duration = Duration::from_secs(120);
/// How long it may take to learn what a branch is at.
const LOOK_TIME: Duration = Duration::from_secs(30);
/// The most that a command may answer, in bytes; and the longest list of references.
const MOST_ARCHIVE: u64 = 256 << 20;
const MOST_OUTPUT: u64 = 1 << 20;
const MOST_REFERENCES: u64 = 4 << 20;
/// The most of what a command says that is kept, in bytes.
const MOST_SAID: u64 = 4096;
/// How SSH is spoken: with no settings of this machine, no questions, and no host that is not known.
const SSH: &str = "ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
    -o GlobalKnownHostsFile=/dev/null -o ConnectTimeout=20";
/// So many commits are told to git as known, of which nothing is new.
const MOST_KNOWN: usize = 20_000;

/// What a host wants to see. No `Debug`: it holds a secret.
#[derive(Clone)]
pub enum Login {
    /// Of a person, by HTTP.
    Password {
        /// Their name.
        name: String,
        /// Their password, or a token.
        password: String,
    },
    /// By SSH.
    Key {
        /// A private key, as OpenSSH has them.
        private: String,
        /// The keys that hosts are known by: lines of a file of known hosts.
        known_hosts: String,
    },
}

/// A repository elsewhere. No `Debug`: it may hold a password.
#[derive(Clone)]
pub struct Remote {
    /// Where git finds it.
    pub url: String,
    /// Who asks.
    pub login: Option<Login>,
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
        let whole = format!("refs/heads/{branch}");
        let mut tips = self.tips(world, std::slice::from_ref(&whole)).await?;
        Ok(tips.remove(&whole))
    }

    /// The commits that references are at, by their whole names; of those that are there.
    pub async fn tips(
        &self,
        world: &World,
        names: &[String],
    ) -> Result<BTreeMap<String, String>, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let bounds = Bounds { time: LOOK_TIME, bytes: MOST_OUTPUT };
        let mut look = vec!["ls-remote", "--quiet", "--", &self.url];
        look.extend(names.iter().map(String::as_str));
        let listed = self.run(world, place.path(), bounds, &look).await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let lines = listed.lines().filter_map(|line| line.split_once('\t'));
        // Git also lists what only ends in such a name.
        let asked = lines.filter(|(_, name)| names.iter().any(|asked| asked == name));
        Ok(asked.map(|(commit, name)| (name.to_owned(), commit.to_owned())).collect())
    }

    /// The commits that all branches and tags are at, by their whole names.
    pub async fn references(&self, world: &World) -> Result<BTreeMap<String, String>, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let bounds = Bounds { time: LOOK_TIME, bytes: MOST_REFERENCES };
        let look = ["ls-remote", "--quiet", "--heads", "--tags", "--", &self.url];
        let listed = self.run(world, place.path(), bounds, &look).await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let lines = listed.lines().filter_map(|line| line.split_once('\t'));
        // A tag that is an object of its own is followed by the commit that it is for, which takes its place.
        let own = |(commit, name): (&str, &str)| {
            (name.trim_end_matches("^{}").to_owned(), commit.to_owned())
        };
        Ok(lines.map(own).collect())
    }

    /// The files that the commits change which came with `commit`: those that neither what the reference was at before
    /// nor what others were and are at has.
    pub async fn changed_files(
        &self,
        world: &World,
        commit: &str,
        before: Option<&str>,
        mut known: Vec<String>,
    ) -> Result<Vec<String>, String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (at, mut wanted) = (place.path(), vec![commit]);
        self.begin(world, at).await?;
        let mut seen = BTreeSet::new();
        known.retain(|commit| seen.insert(commit.clone()));
        // No more than an argument list holds; branches come before tags.
        known.truncate(MOST_KNOWN);
        wanted.extend(known.iter().map(String::as_str));
        self.get(world, at, CHANGES_TIME, &["--filter=blob:none"], &wanted).await?;
        // After a forced push, what was there before may be gone; else it came with what is there now.
        let there = match before {
            Some(before) => {
                let bounds = Bounds { time: CHANGES_TIME, bytes: MOST_OUTPUT };
                let look = ["cat-file", "-e", &format!("{before}^{{commit}}")];
                self.run(world, at, bounds, &look).await.ok().map(|_| before)
            }
            None => None,
        };
        let mut log =
            vec!["log", "-z", "--name-only", "--format=", "--no-renames", commit, "--not"];
        log.extend(there);
        log.extend(known.iter().map(String::as_str));
        let bounds = Bounds { time: CHANGES_TIME, bytes: MOST_REFERENCES };
        let listed = self.run(world, at, bounds, &log).await?;
        let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect())
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
        self.begin(world, at).await?;
        let depth = depth.map(|depth| format!("--depth={depth}"));
        let how: Vec<&str> = depth.as_deref().into_iter().collect();
        self.get(world, at, TIME, &how, &[version]).await
    }

    async fn begin(&self, world: &World, at: &Path) -> Result<(), String> {
        let bounds = || Bounds { time: TIME, bytes: MOST_OUTPUT };
        self.run(world, at, bounds(), &["init", "--quiet", "--template="]).await?;
        let add = ["remote", "add", "--", "origin", &self.url];
        self.run(world, at, bounds(), &add).await.map(|_| ())
    }

    async fn get(
        &self,
        world: &World,
        at: &Path,
        time: Duration,
        how: &[&str],
        wanted: &[&str],
    ) -> Result<(), String> {
        let bounds = Bounds { time, bytes: MOST_OUTPUT };
        let mut fetch = vec!["fetch", "--quiet", "--no-recurse-submodules"];
        fetch.extend(how);
        fetch.extend(["--", "origin"]);
        fetch.extend(wanted);
        self.run(world, at, bounds, &fetch).await.map(|_| ())
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
        // Files that a command needs are there for as long as it runs.
        let own = tempfile::tempdir().map_err(|error| error.to_string())?;
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        // What is a repository above it is none of ours.
        command.env("GIT_CEILING_DIRECTORIES", at.parent().unwrap_or(at));
        command.env("GIT_TERMINAL_PROMPT", "0");
        match self.url.split_once("://").map(|(scheme, _)| scheme) {
            Some("ssh") => command.env("GIT_ALLOW_PROTOCOL", "ssh"),
            Some("file") => {
                // Whose repository it is was decided when the directory was named that it is in.
                let settings = own.path().join("gitconfig");
                write(&settings, "[safe]\n\tdirectory = *\n")?;
                command.env("GIT_CONFIG_GLOBAL", settings).env("GIT_ALLOW_PROTOCOL", "file")
            }
            _ => command.env("GIT_ALLOW_PROTOCOL", "https:http"),
        };
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsync=none"]);
        command.args(["-c", &format!("http.sslVerify={}", self.checked), "-C"]);
        command.arg(at).args(arguments);
        match &self.login {
            // The keys of whoever runs this are not for others to use.
            None => {
                let ssh = format!("{SSH} -o UserKnownHostsFile=/dev/null -o IdentityFile=none");
                command.env("GIT_SSH_COMMAND", ssh)
            }
            Some(Login::Password { name, password }) => {
                // Everybody on the machine sees a process's arguments; its environment, only who runs it.
                let login = BASE64.encode(format!("{name}:{password}"));
                command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "http.extraHeader");
                command.env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {login}"))
            }
            Some(Login::Key { private, known_hosts }) => {
                let (key, hosts) = (own.path().join("key"), own.path().join("known_hosts"));
                // A key's last line ends, as OpenSSH wants it to.
                write(&key, &format!("{}\n", private.trim_end()))?;
                write(&hosts, known_hosts)?;
                // Names of temporary directories have nothing that a shell would understand.
                let (key, hosts) = (key.display(), hosts.display());
                let ssh = format!("{SSH} -o UserKnownHostsFile={hosts} -i {key}");
                command.env("GIT_SSH_COMMAND", ssh)
            }
        };
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

/// Writes a file that nobody else may read.
fn write(path: &Path, text: &str) -> Result<(), String> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| error.to_string())
}

/// Whether a command succeeded, what it answered (at most one byte more than `most`), and what it said.
async fn answer(mut command: Command, most: u64) -> std::io::Result<(bool, Vec<u8>, String)> {
    let mut child = command.kill_on_drop(true).spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let answered = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            // The pipe is closed behind it: what answers more than that ends.
            stdout.take(most + 1).read_to_end(&mut output).await?;
        }
        std::io::Result::Ok(output)
    };
    let said = async {
        let mut words = Vec::new();
        if let Some(mut stderr) = stderr {
            (&mut stderr).take(MOST_SAID).read_to_end(&mut words).await?;
            // Nobody needs the rest, but it must not wait to say it.
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
        }
        std::io::Result::Ok(words)
    };
    let (output, words) = tokio::try_join!(answered, said)?;
    let status = child.wait().await?;
    Ok((status.success(), output, String::from_utf8_lossy(&words).into_owned()))
}

//! Keeps file systems and their buckets the same.
//!
//! Each pass lists both sides, holds them against what was the same last ([`Entry`]), and does what [`plan`] says.
//! Nothing is remembered that a crash could lose but how long a change made here has waited: what was done and not
//! written down is found to be the same by the next pass.

use crate::{
    S3Files,
    model::{Entry, FileSystem, MountTarget, Stamp},
    plan::{Local, Remote, Sides, Step, Versioned, plan},
    tree::{Attributes, Made, Tree},
};
use s3::{MirrorError, model::Object};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Record, Watch};
use wire::{Context, Fault};
use world::Timestamp;

/// How long a change that was made here waits for further ones before the bucket gets it.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-files-synchronization.html>
const GATHERED: Duration = Duration::from_secs(60);
/// How many times as long a file is waited for that never stops being written.
const PATIENCE: u32 = 5;
/// How often we look what was changed here.
const ROUND: Duration = Duration::from_secs(5);
/// A look takes no more than this part of the time.
const SHARE: u32 = 20;
/// How much is done before it is written down.
const BATCH: usize = 100;
/// The life of a session of the file system's role: longer than a pass.
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// What AWS's service is to the role, as S3 Files is built on EFS.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-files-prereq-policies.html>
pub(crate) const SERVICE: &str = "elasticfilesystem.amazonaws.com";
/// The largest object that is put at once.
const LARGEST: u64 = 5 << 30;

/// Why the sides are not the same after a pass, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Different {
    /// One of them could not even be looked at.
    #[error("{0}")]
    Unseen(String),
    /// Something could not be done, of what all else was.
    #[error("{0}")]
    Partly(String),
}

/// What is known of a file system while the process lives.
#[derive(Default)]
pub(crate) struct Progress {
    /// Since when the paths wait that were changed here. Whoever has it makes the pass.
    since: tokio::sync::Mutex<HashMap<String, Timestamp>>,
    /// Why the last pass did not do all that it had to.
    trouble: Mutex<Option<Different>>,
}

impl Progress {
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(ToString::to_string)
    }

    /// Whether the bucket does not have yet what was changed here before the last pass.
    pub(crate) async fn waits(&self) -> bool {
        !self.since.lock().await.is_empty()
    }
}

impl S3Files {
    /// Keeps a file system and its bucket the same, as long as it is there.
    pub(crate) fn follow(self: &Arc<Self>, key: String) {
        let service = self.clone();
        self.world.spawn("an S3 file system", async move {
            let tables = [Object::TABLE, MountTarget::TABLE, FileSystem::TABLE];
            let mut watch = service.store.watch_tables(&tables);
            while let Some(system) = service.store.read().get::<FileSystem>(&key) {
                let round = service.world.scaled(ROUND);
                let began = service.world.monotonic();
                // Nobody who cannot mount it sees it, or can change it.
                if service.is_reachable(&system) {
                    // Why not is told of the file system.
                    let _ = service.pass(&system).await;
                }
                let took = began.elapsed();
                // However much is put into the bucket, other things go on, too.
                service.world.sleep(took).await;
                let look = service.world.sleep(round.max(took * SHARE));
                tokio::select! {
                    () = look => {}
                    () = heard(&mut watch, &system) => {}
                }
            }
        });
    }

    fn is_reachable(&self, system: &FileSystem) -> bool {
        let snapshot = self.store.read();
        let mut targets = snapshot.scan_prefix::<MountTarget>(&format!("{}/", system.realm));
        targets.any(|target| target.file_system == system.id)
    }

    /// Whoever asks S3 for the file system.
    pub(crate) fn context(&self, realm: &str, role: &str, id: &str) -> Result<Context, String> {
        let session = self.iam.assume_for_service(role, SERVICE, id, SESSION);
        let session = session.map_err(|error| error.to_string())?;
        let region = realm.split_once('/').map_or("", |(_, region)| region);
        let identity = self.iam.clone();
        Ok(Context::internal(session.principal, region, self.world.now(), identity))
    }

    /// Makes both sides the same, but for what was changed here a moment ago.
    pub(crate) async fn pass(self: &Arc<Self>, system: &FileSystem) -> Result<(), Different> {
        let progress = self.progress(&system.key());
        let mut since = progress.since.lock().await;
        let passed = match self.context(&system.realm, &system.role, &system.id) {
            Err(reason) => Err(Different::Unseen(reason)),
            Ok(context) => Pass { service: self, system, context }.run(&mut since).await,
        };
        let trouble = passed.as_ref().err().cloned();
        let mut told = progress.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &trouble
            && *told != trouble
        {
            tracing::warn!(id = system.id, %reason, "a file system and its bucket are not the same");
        }
        *told = trouble;
        passed
    }
}

/// Returns when something happened that matters to a file system.
async fn heard(watch: &mut Watch, system: &FileSystem) {
    let ours = Object::key_of(&system.bucket, &system.prefix);
    loop {
        let Ok(commit) = watch.next().await else { return };
        let object = commit.of::<Object>().any(|change| change.key.starts_with(&ours));
        let other = commit.of::<MountTarget>().count() + commit.of::<FileSystem>().count();
        if object || other > 0 {
            return;
        }
    }
}

/// What the bucket has, by path. Keys that no path can be are left out.
fn remote_side(
    objects: Vec<Arc<Object>>,
    prefix: &str,
    lost: &str,
) -> BTreeMap<String, Remote<Object>> {
    let mut side = BTreeMap::new();
    for object in objects {
        let Some(rest) = object.key.strip_prefix(prefix).filter(|rest| !rest.is_empty()) else {
            continue;
        };
        let directory = rest.ends_with('/');
        let path = rest.strip_suffix('/').unwrap_or(rest);
        let is_name = |name: &str| {
            !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains('\0')
        };
        if !path.split('/').all(is_name) || path.split('/').next() == Some(lost) {
            continue;
        }
        for (end, _) in path.match_indices('/') {
            let above = side.entry(path[..end].to_owned());
            let above = above.or_insert(Remote::Directory(None));
            // Of a key and others below it, those below can be had.
            if !above.directory() {
                *above = Remote::Directory(None);
            }
        }
        let path = path.to_owned();
        match directory {
            true => drop(side.insert(path, Remote::Directory(Some(object)))),
            false => drop(side.entry(path).or_insert(Remote::File(object))),
        }
    }
    side
}

/// What AWS's file services call them in an object's metadata.
fn metadata_of(local: &Local) -> BTreeMap<String, String> {
    let stamp = &local.stamp;
    let kind = if local.directory { 0o040_000 } else { 0o100_000 };
    let mut all = BTreeMap::from([
        ("file-permissions".to_owned(), format!("0{:o}", kind | stamp.mode)),
        ("file-owner".to_owned(), stamp.uid.to_string()),
        ("file-group".to_owned(), stamp.gid.to_string()),
    ]);
    if !local.directory {
        all.insert("file-mtime".to_owned(), format!("{}ns", stamp.modified));
    }
    all
}

/// Whose a file is that an object says nothing, or nonsense, of: root's.
fn attributes_of(object: Option<&Object>, directory: bool) -> Attributes {
    let said = |name: &str| object.and_then(|object| object.about.metadata.get(name));
    let number = |name: &str| said(name).and_then(|text| text.parse().ok());
    let mode = said("file-permissions").and_then(|text| u32::from_str_radix(text, 8).ok());
    let modified = said("file-mtime").and_then(|text| text.strip_suffix("ns")?.parse().ok());
    let put = || object.map_or(0, |object| object.modified.millis().saturating_mul(1_000_000));
    Attributes {
        mode: mode.map_or(if directory { 0o755 } else { 0o644 }, |mode| mode & 0o7777),
        uid: number("file-owner").unwrap_or(0),
        gid: number("file-group").unwrap_or(0),
        modified: modified.unwrap_or_else(put),
    }
}

/// What is to be written down.
enum Note {
    Same(Entry),
    Gone(String),
}

struct Pass<'a> {
    service: &'a Arc<S3Files>,
    system: &'a FileSystem,
    context: Context,
}

impl Pass<'_> {
    fn key(&self, path: &str, directory: bool) -> String {
        format!("{}{path}{}", self.system.prefix, if directory { "/" } else { "" })
    }

    async fn run(&self, since: &mut HashMap<String, Timestamp>) -> Result<(), Different> {
        let (service, system) = (self.service, self.system);
        let tree = service.tree(&system.id);
        let now = service.world.now();
        let local = blocking(move || tree.walk())
            .await
            .map_err(|error| Different::Unseen(format!("the files cannot be listed: {error}")))?;
        // After the files: of what comes in between, a change of the bucket is seen in the next pass.
        let objects = service.s3.all(&self.context, &system.bucket, &system.prefix);
        let objects = objects.map_err(|error| Different::Unseen(error.to_string()))?;
        let remote = remote_side(objects, &system.prefix, &service.tree(&system.id).lost);
        let known: BTreeMap<String, Arc<Entry>> = {
            let snapshot = service.store.read();
            let entries = snapshot.scan_prefix::<Entry>(&Entry::prefix_of(&system.key()));
            entries.map(|entry| (entry.path.clone(), entry)).collect()
        };
        let gathered = service.world.scaled(GATHERED);
        let age = |path: &str| since.get(path).map_or(Duration::ZERO, |at| now.since(*at));
        let sides = Sides { known: &known, local: &local, remote: &remote };
        let (steps, waiting) = plan(&sides, |path| age(path) >= gathered);
        let restless: BTreeSet<String> =
            waiting.iter().filter(|path| age(path) >= gathered * PATIENCE).cloned().collect();
        since.retain(|path, _| waiting.contains(path));
        for path in waiting {
            since.entry(path).or_insert(now);
        }
        let (mut notes, mut failed) = (Vec::new(), None);
        for step in steps {
            match self.carry(step, &restless).await {
                Ok(Some(note)) => notes.push(note),
                // The next pass sees what it has become.
                Ok(None) | Err(Trouble::S3(MirrorError::Changed)) => {}
                Err(trouble) => failed = failed.or(Some(trouble.to_string())),
            }
            if notes.len() >= BATCH {
                self.write(std::mem::take(&mut notes)).await?;
            }
        }
        self.write(notes).await?;
        failed.map_or(Ok(()), |reason| Err(Different::Partly(reason)))
    }

    async fn write(&self, notes: Vec<Note>) -> Result<(), Different> {
        if notes.is_empty() {
            return Ok(());
        }
        let system = self.system.key();
        let written = self.service.store.write(move |tx| {
            // A file system that was deleted meanwhile leaves nothing.
            if tx.get::<FileSystem>(&system).is_none() {
                return Ok(());
            }
            for note in notes {
                match note {
                    Note::Same(entry) => tx.put(entry),
                    Note::Gone(path) => {
                        tx.delete::<Entry>(&format!("{}{path}", Entry::prefix_of(&system)));
                    }
                }
            }
            Ok::<_, Fault>(())
        });
        written.await.map_err(|fault| Different::Partly(fault.message))
    }

    fn same(&self, path: String, local: Local, version: Option<String>) -> Note {
        let (directory, stamp) = (local.directory, local.stamp);
        Note::Same(Entry { file_system: self.system.key(), path, directory, version, stamp })
    }

    /// A new name for something that is neither here nor there.
    fn aside(&self, what: &str) -> PathBuf {
        let name = format!("{what}-{}", self.service.world.hex(8));
        self.service.tree(&self.system.id).aside.join(name)
    }

    async fn carry(
        &self,
        step: Step<Object>,
        restless: &BTreeSet<String>,
    ) -> Result<Option<Note>, Trouble> {
        match step {
            Step::Import { path, remote, seen, conflict } => {
                self.import(path, remote, seen, conflict).await
            }
            Step::Remove { path, seen, conflict } => {
                let (tree, at) = (self.service.tree(&self.system.id), path.clone());
                let unused = self.service.world.hex(8);
                blocking(move || tree.remove(&at, seen, conflict, &unused)).await?;
                // A directory that holds something yet is something new.
                Ok(Some(Note::Gone(path)))
            }
            Step::Export { path, local, known } => {
                let patient = !restless.contains(&path);
                self.export(path, local, known, patient).await
            }
            Step::Erase { path, directory, known } => {
                let key = self.key(&path, directory);
                let place = (&*self.system.bucket, &*key);
                self.service.s3.drop_object(&self.context, place, &known).await?;
                Ok(Some(Note::Gone(path)))
            }
            Step::Compare { path, local, remote } => self.compare(path, local, remote).await,
            Step::Adopt { path, local, version } => Ok(Some(self.same(path, local, version))),
            Step::Forget { path } => Ok(Some(Note::Gone(path))),
        }
    }

    async fn import(
        &self,
        path: String,
        remote: Remote<Object>,
        seen: Option<Local>,
        conflict: bool,
    ) -> Result<Option<Note>, Trouble> {
        let version = remote.version().map(str::to_owned);
        let (tree, at) = (self.service.tree(&self.system.id), path.clone());
        let local = match remote {
            Remote::Directory(object) => {
                let attributes = attributes_of(object.as_deref(), true);
                let unused = self.service.world.hex(8);
                blocking(move || {
                    if let Some(seen) = seen.filter(|seen| !seen.directory) {
                        tree.remove(&at, seen, conflict, &unused)?;
                    }
                    tree.directory_at(&at, attributes)?;
                    let Attributes { mode, uid, gid, .. } = attributes;
                    let stamp = Stamp { mode, uid, gid, ..Stamp::default() };
                    Ok(Some(Local { directory: true, stamp }))
                })
                .await?
            }
            Remote::File(object) => {
                let new = self.aside("new");
                self.service.s3.fetch(&self.context, &object, &new).await?;
                let attributes = attributes_of(Some(&object), false);
                blocking(move || {
                    let file = File::open(&new)?;
                    Tree::dress(&file, attributes)?;
                    match tree.install(&at, &new, seen, conflict)? {
                        Made::Later => std::fs::remove_file(&new).map(|()| None),
                        // What it looks like now, unless somebody has changed it already: then, it is to look changed.
                        Made::Done => Ok(tree.look(&at)?.map(|local| {
                            let stamp = local.stamp;
                            let ours = stamp.size == object.size
                                && stamp.modified == attributes.modified
                                && (stamp.mode, stamp.uid, stamp.gid)
                                    == (attributes.mode, attributes.uid, attributes.gid);
                            let changed = if ours { stamp.changed } else { 0 };
                            Local { stamp: Stamp { changed, ..stamp }, ..local }
                        })),
                    }
                })
                .await?
            }
        };
        Ok(local.map(|local| self.same(path, local, version)))
    }

    async fn export(
        &self,
        path: String,
        local: Local,
        known: Option<String>,
        patient: bool,
    ) -> Result<Option<Note>, Trouble> {
        let key = self.key(&path, local.directory);
        if local.stamp.size > LARGEST {
            return Err(Trouble::TooLarge(path));
        }
        let copy = (!local.directory).then(|| self.aside("copy"));
        if let Some(copy) = &copy {
            let (tree, at, to) = (self.service.tree(&self.system.id), path.clone(), copy.clone());
            let copied = blocking(move || tree.copy(&at, &to)).await;
            let unchanged = matches!(copied, Ok(Some(stamp)) if stamp == local.stamp);
            if copied.is_err() || (patient && !unchanged) {
                // It went, or is being written: the next pass sees to it.
                return discard(copy).await.map(|()| None);
            }
        }
        let put = self.service.s3.keep(
            &self.context,
            (&self.system.bucket, &key),
            known,
            copy.clone(),
            metadata_of(&local),
        );
        let put = put.await;
        if let Some(copy) = &copy {
            discard(copy).await?;
        }
        Ok(Some(self.same(path, local, Some(put?.version().to_owned()))))
    }

    /// A file and an object that were never seen together: the same, as after a crash in between, or a conflict.
    async fn compare(
        &self,
        path: String,
        local: Local,
        remote: Arc<Object>,
    ) -> Result<Option<Note>, Trouble> {
        let version = Some(remote.version().to_owned());
        if local.stamp.size == remote.size {
            let (theirs, ours) = (self.aside("new"), self.aside("copy"));
            self.service.s3.fetch(&self.context, &remote, &theirs).await?;
            let (tree, at, new) =
                (self.service.tree(&self.system.id), path.clone(), theirs.clone());
            let (to, stamp) = (ours.clone(), local.stamp);
            let same =
                blocking(move || Ok(tree.copy(&at, &to)? == Some(stamp) && is_same(&new, &to)?));
            let same = same.await;
            discard(&theirs).await?;
            discard(&ours).await?;
            if same? {
                return Ok(Some(self.same(path, local, version)));
            }
        }
        self.import(path, Remote::File(remote), Some(local), true).await
    }
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    use io::Read;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(other.read(&mut right)? == 0);
        }
        if other.read_exact(&mut right[..read]).is_err() || left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

async fn discard(file: &Path) -> Result<(), Trouble> {
    match tokio::fs::remove_file(file).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> io::Result<R> + Send + 'static,
) -> io::Result<R> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    S3(#[from] MirrorError),
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{0} is larger than 5 GiB")]
    TooLarge(String),
}

//! Removing tasks, and finding what nobody removed.

use super::{
    Engine, EngineError, Identified, Task, blocking, files, lock, task::end_cgroup, watched,
};
use crate::cgroup;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Something under this engine's roots that belongs to no task that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leak {
    /// A cgroup of a task that is not there.
    Cgroup {
        /// The task's id.
        task: String,
    },
    /// A directory that is no task's.
    Directory(PathBuf),
    /// A shim whose task is not there.
    Shim {
        /// Its process.
        pid: i32,
        /// Its task's directory, as it was told.
        dir: PathBuf,
    },
    /// A mount beneath the tasks' directory; none is ever made there.
    Mount(PathBuf),
}

impl Engine {
    /// Ends a task, if it has not ended, and deletes everything that it left: processes, cgroups,
    /// its directory with its journal and output. A task that is not there is no error.
    pub async fn remove(&self, id: &str) -> Result<(), EngineError> {
        if !crate::spec::is_name(id, 64) {
            return Ok(());
        }
        let dir = self.inner.config.tasks_dir.join(id);
        match self.task(id) {
            Some(task) => self.end_task(&task).await?,
            None => self.end_stranger(&dir).await?,
        }
        end_cgroup(&self.inner.world, self.cgroup(id), id).await?;
        blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(EngineError::Files("remove", dir, e))
            }
            _ => Ok(()),
        })
        .await?;
        self.free_slot(id);
        let mut tasks = lock(&self.inner.tasks);
        tasks.remove(id);
        match tasks.is_empty() {
            true => Ok(self.cgroup(id).remove_instance()?),
            false => Ok(()),
        }
    }

    async fn end_task(&self, task: &Task) -> Result<(), EngineError> {
        if task.has_ended() {
            return Ok(());
        }
        if let Err(error) = task.kill("removed").await {
            // It died just now, or must be made to: the wait below ends it either way.
            tracing::debug!(task = task.id(), error = crate::chain(&error), "a shim did not obey");
        }
        task.await_shim().await;
        // The watcher closes the journal; it must not write into a directory that is being deleted.
        let closed = self.inner.world.timeout(std::time::Duration::from_secs(20), task.ended());
        match closed.await {
            Some(()) => Ok(()),
            None => Err(EngineError::Undead(task.id().to_owned())),
        }
    }

    /// Ends the shim of a task that was never adopted.
    async fn end_stranger(&self, dir: &Path) -> Result<(), EngineError> {
        if let Some(shim) = Identified::read(dir).filter(Identified::is_alive) {
            self.end_shim(shim.pid, || shim.is_alive()).await?;
        }
        Ok(())
    }

    async fn end_shim(&self, pid: i32, is_it: impl Fn() -> bool) -> Result<(), EngineError> {
        let Some(pidfd) = Pid::from_raw(pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
        else {
            return Ok(());
        };
        if !is_it() {
            return Ok(());
        }
        // An error means that it has ended.
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        if let Ok(pidfd) = watched(pidfd) {
            let limit = std::time::Duration::from_secs(10);
            let gone = self.inner.world.timeout(limit, async { pidfd.readable().await.map(drop) });
            if gone.await.is_none() {
                return Err(EngineError::Undead(format!("shim {pid}")));
            }
        }
        Ok(())
    }

    /// Looks for what belongs to no task: after a crash at an unlucky moment, or because somebody
    /// deleted files by hand.
    pub async fn leaks(&self) -> Result<Vec<Leak>, EngineError> {
        let engine = self.clone();
        blocking(move || engine.find_leaks()).await
    }

    fn find_leaks(&self) -> Result<Vec<Leak>, EngineError> {
        let mut known: BTreeSet<String> = lock(&self.inner.tasks).keys().cloned().collect();
        let mut leaks = Vec::new();
        for (dir, spec) in self.all_directories()? {
            match spec {
                Some(spec) => drop(known.insert(spec.id)),
                None if dir.file_name().is_some_and(|n| !known.contains(&*n.to_string_lossy())) => {
                    leaks.push(Leak::Directory(dir));
                }
                None => {}
            }
        }
        let cgroups = cgroup::tasks_of(&self.inner.layout, &self.inner.config.instance);
        leaks.extend(cgroups.difference(&known).map(|task| Leak::Cgroup { task: task.clone() }));
        leaks.extend(self.stray_shims(&known)?);
        leaks.extend(self.mounts()?);
        Ok(leaks)
    }

    fn stray_shims(&self, known: &BTreeSet<String>) -> Result<Vec<Leak>, EngineError> {
        let proc = Path::new("/proc");
        let mut strays = Vec::new();
        for entry in std::fs::read_dir(proc).map_err(files("list", proc))?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
                continue;
            };
            // Processes come and go while they are looked at.
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            if let Some(dir) = self.task_dir_of(&line)
                && !dir.file_name().is_some_and(|n| known.contains(&*n.to_string_lossy()))
            {
                strays.push(Leak::Shim { pid, dir });
            }
        }
        Ok(strays)
    }

    /// The task directory beneath ours in a shim's command line.
    fn task_dir_of(&self, line: &[u8]) -> Option<PathBuf> {
        let args: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let at = args.iter().position(|a| *a == b"--task-dir")?;
        let dir = Path::new(OsStr::from_bytes(args.get(at + 1)?));
        let instance = args.iter().position(|a| *a == b"--instance")?;
        let ours = *args.get(instance + 1)? == self.inner.config.instance.as_bytes();
        (ours && dir.parent() == Some(&self.inner.config.tasks_dir)).then(|| dir.to_owned())
    }

    fn mounts(&self) -> Result<Vec<Leak>, EngineError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = std::fs::read_to_string(path).map_err(files("read", path))?;
        let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let dir = &self.inner.config.tasks_dir;
        let beneath = points.filter(|p| p.starts_with(dir) && p != dir);
        Ok(beneath.map(Leak::Mount).collect())
    }

    /// Removes leaks.
    pub async fn mend(&self, leaks: &[Leak]) -> Result<(), EngineError> {
        // Whoever uses something goes before it.
        for leak in leaks {
            if let Leak::Shim { pid, dir } = leak {
                let path = PathBuf::from(format!("/proc/{pid}/cmdline"));
                let same = || {
                    std::fs::read(&path).is_ok_and(|l| self.task_dir_of(&l).as_ref() == Some(dir))
                };
                self.end_shim(*pid, same).await?;
            }
        }
        for leak in leaks {
            match leak {
                Leak::Shim { .. } => {}
                Leak::Cgroup { task } => {
                    end_cgroup(&self.inner.world, self.cgroup(task), task).await?;
                }
                Leak::Mount(point) => {
                    let flags = rustix::mount::UnmountFlags::DETACH;
                    rustix::mount::unmount(point, flags)
                        .map_err(|e| files("unmount", point)(e.into()))?;
                }
                Leak::Directory(dir) => self.mend_directory(dir.clone()).await?,
            }
        }
        Ok(())
    }

    async fn mend_directory(&self, dir: PathBuf) -> Result<(), EngineError> {
        self.end_stranger(&dir).await?;
        blocking(move || {
            let removed = match std::fs::symlink_metadata(&dir) {
                Ok(found) if found.is_dir() => std::fs::remove_dir_all(&dir),
                Ok(_) => std::fs::remove_file(&dir),
                Err(e) => Err(e),
            };
            match removed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(EngineError::Files("remove", dir, e))
                }
                _ => Ok(()),
            }
        })
        .await?;
        Ok(())
    }
}

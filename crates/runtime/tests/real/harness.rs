//! A laboratory: a directory, an engine, an image.

use runtime::{
    ContainerSpec, DEFAULT_SPOOL_BYTES, Engine, EngineConfig, Event, EventKind, Exit, Stream, Task,
    TaskLimits, TaskSpec,
};
use std::{
    collections::BTreeMap,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use world::World;

/// Applets that the image has.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "sleep", "ls", "id", "touch", "stat", "true", "false", "mkdir", "kill",
    "head", "dd", "env", "pwd", "hostname", "mount", "ps", "yes", "tail", "grep", "seq", "tty",
    "stty", "ip", "chmod", "chown", "unshare", "mknod", "date", "test", "sysctl", "rm", "wc", "nc",
    "ulimit", "printf", "readlink", "ln", "sync", "usleep", "tr", "su",
];

/// Nothing real takes as long; only what is broken does.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A directory with one engine's tasks, and an image. Dropping it leaves nothing.
pub struct Lab {
    pub engine: Engine,
    pub world: World,
    pub instance: String,
    dir: tempfile::TempDir,
}

/// Why containers cannot be run here, if so.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    (!Path::new("/bin/busybox").exists()).then(|| "a static busybox".to_owned())
}

/// A laboratory, or `None` after saying why there is none.
pub fn lab() -> Option<Lab> {
    if let Some(missing) = missing() {
        println!("skipped: needs {missing}");
        return None;
    }
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let instance = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = tempfile::Builder::new().prefix("runtime-").tempdir().unwrap();
    make_layer(&dir.path().join("layer"));
    let world = World::system();
    let engine = engine_in(dir.path(), &instance, &world);
    Some(Lab { engine, world, instance, dir })
}

/// An engine on the tasks in `dir`.
pub fn engine_in(dir: &Path, instance: &str, world: &World) -> Engine {
    engine_with(dir, instance, world, true)
}

/// The same, with or without user namespaces.
pub fn engine_with(dir: &Path, instance: &str, world: &World, user_namespaces: bool) -> Engine {
    let config = EngineConfig {
        exe: env!("CARGO_BIN_EXE_runtime-shim").into(),
        shim_args: Vec::new(),
        tasks_dir: dir.join("tasks"),
        disks_dir: dir.join("disks"),
        instance: instance.to_owned(),
        user_namespaces,
        first_id: None,
    };
    Engine::new(config, world.clone()).unwrap()
}

fn make_layer(layer: &Path) {
    for dir in ["bin", "etc", "tmp", "root", "data/deep"] {
        std::fs::create_dir_all(layer.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/data:/bin/sh\n";
    std::fs::write(layer.join("etc/passwd"), passwd).unwrap();
    std::fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:50:web\n").unwrap();
    std::fs::write(layer.join("data/deep/seed"), "from the image\n").unwrap();
    std::fs::write(layer.join("bin/denied"), "#!/bin/sh\n").unwrap();
    let mode = |path: &str, mode| {
        std::fs::set_permissions(layer.join(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("bin/denied", 0o644);
    mode("tmp", 0o1777);
}

impl Lab {
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    /// A container that runs a shell script.
    pub fn shell(&self, name: &str, script: &str) -> ContainerSpec {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        ContainerSpec::new(name, vec![self.layer()], args)
    }

    pub fn spec(&self, id: &str, containers: Vec<ContainerSpec>) -> TaskSpec {
        TaskSpec {
            id: id.to_owned(),
            hostname: "box".to_owned(),
            containers,
            volumes: Default::default(),
            limits: TaskLimits::default(),
            resolv_conf: "nameserver 10.0.0.2\n".to_owned(),
            hosts: "127.0.0.1 localhost\n".to_owned(),
            ids: None,
            share_pids: false,
            spool_bytes: DEFAULT_SPOOL_BYTES,
        }
    }

    /// Creates and starts a task.
    pub async fn start(&self, spec: TaskSpec) -> Task {
        let task = self.engine.create(spec).await.unwrap();
        task.start().await.unwrap();
        task
    }

    /// Runs one container to its end; its output, and how it ended.
    pub async fn run(&self, container: ContainerSpec) -> Ran {
        let task = self.start(self.spec("one", vec![container])).await;
        let ran = finish(&task).await;
        self.engine.remove("one").await.unwrap();
        ran
    }

    /// Whether any hierarchy still has a directory for this laboratory's engine.
    pub fn has_instance_cgroup(&self) -> bool {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let cgroup = |line: &&str| line.contains(" - cgroup");
        let mut points = text.lines().filter(cgroup).filter_map(|l| l.split(' ').nth(4));
        points.any(|p| Path::new(p).join(format!("neargate-{}", self.instance)).exists())
    }

    /// The cgroup directories of this laboratory's engine, in every hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let name = format!("neargate-{}", self.instance);
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let cgroup = |line: &&str| line.contains(" - cgroup");
        let points = text.lines().filter(cgroup).filter_map(|l| l.split(' ').nth(4));
        let dirs = points.map(|p| Path::new(p).join(&name)).filter(|d| d.exists());
        dirs.flat_map(|d| std::fs::read_dir(d).unwrap().flatten())
            .filter(|e| e.file_type().unwrap().is_dir())
            .map(|e| e.path())
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What a failed test left must not disturb the next ones.
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("tasks")) else { return };
        for entry in entries.flatten() {
            let text = std::fs::read_to_string(entry.path().join("shim.pid")).unwrap_or_default();
            let pid = text.split(' ').next().and_then(|p| p.trim().parse().ok());
            if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
                let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
                if name.is_ok_and(|n| n.contains("--task-dir")) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let cgroup = |line: &&str| line.contains(" - cgroup");
        for point in text.lines().filter(cgroup).filter_map(|l| l.split(' ').nth(4)) {
            let dir = Path::new(point).join(format!("neargate-{}", self.instance));
            // Processes of a task that was just ended may take a moment.
            for _ in 0..1000 {
                if remove_empty(&dir) {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }
}

/// Removes directories, deepest first.
fn remove_empty(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_empty(&entry.path());
    }
    std::fs::remove_dir(dir).is_ok() || !dir.exists()
}

/// How a task went.
#[derive(Debug)]
pub struct Ran {
    pub events: Vec<EventKind>,
    pub out: BTreeMap<(String, Stream), String>,
}

impl Ran {
    pub fn stdout(&self, container: &str) -> &str {
        self.out.get(&(container.to_owned(), Stream::Stdout)).map_or("", String::as_str)
    }

    pub fn stderr(&self, container: &str) -> &str {
        self.out.get(&(container.to_owned(), Stream::Stderr)).map_or("", String::as_str)
    }

    /// The last end of a container.
    pub fn exit(&self, name: &str) -> Exit {
        let exit = |e: &EventKind| match e {
            EventKind::ContainerExited { container, exit, .. } if container == name => Some(*exit),
            _ => None,
        };
        self.events.iter().rev().find_map(exit).unwrap_or_else(|| panic!("{name}: {self:#?}"))
    }

    /// Where an event that fits stands among the others.
    pub fn position(&self, fits: impl Fn(&EventKind) -> bool) -> usize {
        self.events.iter().position(fits).unwrap_or_else(|| panic!("{self:#?}"))
    }
}

/// Reads a task's events until one fits.
pub async fn wait_for(task: &Task, fits: impl Fn(&EventKind) -> bool) -> Event {
    let mut events = task.events(1);
    let wait = async {
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            if fits(&event.kind) {
                return event;
            }
        }
        panic!("the task ended first: {}", log_of(task));
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it never happened")
}

pub async fn wait_started(task: &Task, name: &str) -> i32 {
    let started = |e: &EventKind| match e {
        EventKind::ContainerStarted { container, .. } => container == name,
        _ => false,
    };
    match wait_for(task, started).await.kind {
        EventKind::ContainerStarted { pid, .. } => pid,
        _ => unreachable!(),
    }
}

/// Waits for a task's end, and gathers everything about it.
pub async fn finish(task: &Task) -> Ran {
    let mut ran = Ran { events: Vec::new(), out: BTreeMap::new() };
    let mut events = task.events(1);
    let gather = async {
        while let Some(event) = events.next().await {
            ran.events.push(event.unwrap().kind);
        }
        let mut output = task.output().unwrap();
        let mut bytes: BTreeMap<(String, Stream), Vec<u8>> = BTreeMap::new();
        while let Some(frame) = output.next().await {
            let frame = frame.unwrap();
            let name = task.spec().containers[usize::from(frame.container)].name.clone();
            bytes.entry((name, frame.stream)).or_default().extend(frame.bytes);
        }
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        ran.out = bytes.into_iter().map(|(k, b)| (k, text(b))).collect();
    };
    let in_time = tokio::time::timeout(LIMIT, gather).await;
    in_time.unwrap_or_else(|_| panic!("the task does not end: {}", log_of(task)));
    let log = log_of(task);
    if !log.is_empty() {
        println!("the shim's log: {log}");
    }
    ran
}

fn log_of(task: &Task) -> String {
    std::fs::read_to_string(task.dir().join("shim.log")).unwrap_or_default()
}

/// What `check` answers once it answers; it is asked again and again.
pub async fn eventually<T>(mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(found) = check() {
            return found;
        }
        World::system().sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happened");
}

//! Which hierarchies this machine has, and where.

use super::CgroupError;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The controllers of version 1 that are used; the first three must be there.
const V1: [&str; 5] = ["memory", "cpu", "pids", "blkio", "cpuacct"];
/// The controllers of version 2 that are used; the first three must be there.
const V2: [&str; 4] = ["memory", "cpu", "pids", "io"];

/// Where cgroups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One hierarchy with all controllers.
    V2 { root: PathBuf, controllers: Vec<String> },
    /// A hierarchy per controller, and maybe an empty version 2 hierarchy beside them, which counts
    /// CPU time and kills.
    V1 { controllers: BTreeMap<String, PathBuf>, unified: Option<PathBuf> },
}

impl Layout {
    /// Every hierarchy, once.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Path> {
        let (one, many, unified) = match self {
            Self::V2 { root, .. } => (Some(root.as_path()), None, None),
            Self::V1 { controllers, unified } => {
                // Co-mounted controllers share a directory.
                let mut roots: Vec<&Path> = controllers.values().map(PathBuf::as_path).collect();
                roots.sort_unstable();
                roots.dedup();
                (None, Some(roots), unified.as_deref())
            }
        };
        one.into_iter().chain(many.into_iter().flatten()).chain(unified)
    }

    pub(super) fn root_of(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V2 { root, .. } => Some(root),
            Self::V1 { controllers, .. } => controllers.get(controller).map(PathBuf::as_path),
        }
    }

    /// The version 2 hierarchy, with or without controllers.
    pub(super) fn v2(&self) -> Option<&Path> {
        match self {
            Self::V2 { root, .. } => Some(root),
            Self::V1 { unified, .. } => unified.as_deref(),
        }
    }

    /// In words.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::V2 { .. } => "version 2",
            Self::V1 { unified: Some(_), .. } => "hybrid (version 1 controllers)",
            Self::V1 { unified: None, .. } => "version 1",
        }
    }
}

/// Looks at the machine.
pub(crate) fn detect() -> Result<Layout, CgroupError> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Mounts)?;
    let controllers = |root: &Path| std::fs::read_to_string(root.join("cgroup.controllers"));
    from_mounts(&mounts, |root| controllers(root).unwrap_or_default())
}

fn from_mounts(
    mounts: &str,
    controllers_of: impl Fn(&Path) -> String,
) -> Result<Layout, CgroupError> {
    let mut v1 = BTreeMap::new();
    let mut unified = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut fields = left.split(' ').skip(3);
        let (root, point) = (fields.next(), fields.next());
        // Only whole hierarchies: a bind mount of a part of one is somebody's view.
        let (Some("/"), Some(point)) = (root, point) else { continue };
        let point = PathBuf::from(unescape(point));
        let mut right = right.split(' ');
        match (right.next(), right.nth(1)) {
            (Some("cgroup2"), _) => drop(unified.get_or_insert(point)),
            (Some("cgroup"), Some(options)) => {
                for name in options.split(',').filter(|o| V1.contains(o)) {
                    v1.entry(name.to_owned()).or_insert_with(|| point.clone());
                }
            }
            _ => {}
        }
    }
    if let Some(root) = &unified {
        let there = controllers_of(root);
        let has = |name: &&&str| there.split_whitespace().any(|n| n == **name);
        if V2[..3].iter().all(|name| has(&name)) {
            let controllers = V2.iter().filter(has).map(|n| (*n).to_owned()).collect();
            return Ok(Layout::V2 { root: root.clone(), controllers });
        }
    }
    for needed in &V1[..3] {
        if !v1.contains_key(*needed) {
            return Err(CgroupError::Missing(needed));
        }
    }
    // The version 2 hierarchy counts CPU time as well, and every hierarchy costs a move at each
    // start.
    if unified.is_some() && v1.get("cpuacct") != v1.get("cpu") {
        v1.remove("cpuacct");
    }
    Ok(Layout::V1 { controllers: v1, unified })
}

/// The mount table writes blanks and such as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_machine_is_recognised() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let all = |_: &Path| "cpuset cpu io memory hugetlb pids".to_owned();
        let Layout::V2 { root, controllers } = from_mounts(v2, all).unwrap() else { panic!() };
        assert_eq!((root.to_str(), controllers.len()), (Some("/sys/fs/cgroup"), 4));

        let v1 = "1 2 0:1 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  1 2 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  1 2 0:9 /part /elsewhere rw - cgroup cgroup rw,blkio\n\
                  1 2 0:3 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let hybrid = format!("{v1}1 2 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let none = |_: &Path| String::new();
        let layout = from_mounts(&hybrid, none).unwrap();
        assert_eq!(layout.roots().count(), 4);
        assert!(layout.root_of("blkio").is_none() && layout.v2().is_some());
        assert!(from_mounts(v1, none).unwrap().v2().is_none());
        let without = v1.replace("rw,pids", "rw");
        assert!(matches!(from_mounts(&without, none), Err(CgroupError::Missing("pids"))));
    }
}

//! Both sides are changed at random, between passes and in their midst; then they are left alone. They become the
//! same, and of what anybody wrote nothing is gone that nobody replaced or deleted.

use super::*;
use crate::model::Stamp;
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    version: String,
    content: u32,
}

impl Versioned for Kept {
    fn version(&self) -> &str {
        &self.version
    }
}

/// A path has a file with a content, or is a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    File(u32),
    Directory,
}

#[derive(Default)]
struct Both {
    files: BTreeMap<String, (Thing, Stamp)>,
    /// By key: directories' end with a slash.
    objects: BTreeMap<String, Arc<Kept>>,
    known: BTreeMap<String, Arc<Entry>>,
    /// Contents that had to make way.
    lost: BTreeSet<u32>,
    /// Contents that were put into the bucket, ever.
    put: BTreeSet<u32>,
    counter: u32,
}

const NAMES: [&str; 3] = ["a", "b", "b-c"];

#[derive(Clone, Debug)]
enum Change {
    Write(String),
    MakeDirectory(String),
    Delete(String),
    Put(String),
    PutDirectory(String),
    DeleteObject(String),
    Pass,
    /// A pass that is cut short after so many steps, with nothing written down of the last.
    Crash(usize),
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..=3).prop_map(|names| names.join("/"))
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = prop_oneof![
        4 => paths().prop_map(Change::Write),
        2 => paths().prop_map(Change::MakeDirectory),
        3 => paths().prop_map(Change::Delete),
        4 => paths().prop_map(Change::Put),
        1 => paths().prop_map(Change::PutDirectory),
        3 => paths().prop_map(Change::DeleteObject),
        5 => Just(Change::Pass),
        1 => (0_usize..4).prop_map(Change::Crash),
    ];
    prop::collection::vec(one, 1..40)
}

impl Both {
    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    fn stamp(&mut self, thing: Thing) -> Stamp {
        match thing {
            Thing::Directory => Stamp::default(),
            Thing::File(_) => Stamp { changed: i64::from(self.next()), ..Stamp::default() },
        }
    }

    fn set(&mut self, path: &str, thing: Thing) {
        let stamp = self.stamp(thing);
        self.files.insert(path.to_owned(), (thing, stamp));
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.files.get(path).is_some_and(|(thing, _)| *thing == Thing::Directory)
    }

    fn is_empty(&self, path: &str) -> bool {
        let below = format!("{path}/");
        !self.files.keys().any(|other| other.starts_with(&below))
    }

    /// Makes the directories above a path, as far as there are no files in the way.
    fn above(&mut self, path: &str) -> bool {
        for (end, _) in path.match_indices('/') {
            match self.files.get(&path[..end]) {
                None => self.set(&path[..end], Thing::Directory),
                Some((Thing::Directory, _)) => {}
                Some((Thing::File(_), _)) => return false,
            }
        }
        true
    }

    fn put(&mut self, key: String, content: u32) -> String {
        let version = format!("v{}", self.next());
        self.put.insert(content);
        self.objects.insert(key, Arc::new(Kept { version: version.clone(), content }));
        version
    }

    fn remote(&self) -> BTreeMap<String, Remote<Kept>> {
        let mut side = BTreeMap::new();
        for (key, object) in &self.objects {
            let path = key.trim_end_matches('/');
            for (end, _) in path.match_indices('/') {
                let above = side.entry(path[..end].to_owned());
                let above = above.or_insert(Remote::Directory(None));
                if !above.directory() {
                    *above = Remote::Directory(None);
                }
            }
            match key.ends_with('/') {
                true => drop(side.insert(path.to_owned(), Remote::Directory(Some(object.clone())))),
                false => drop(side.entry(path.to_owned()).or_insert(Remote::File(object.clone()))),
            }
        }
        side
    }

    fn local(&self) -> BTreeMap<String, Local> {
        let local = |(thing, stamp): &(Thing, Stamp)| Local {
            directory: *thing == Thing::Directory,
            stamp: *stamp,
        };
        self.files.iter().map(|(path, file)| (path.clone(), local(file))).collect()
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Write(path) if self.above(&path) && !self.is_directory(&path) => {
                let content = self.next();
                self.set(&path, Thing::File(content));
            }
            Change::MakeDirectory(path) if self.above(&path) && !self.files.contains_key(&path) => {
                self.set(&path, Thing::Directory);
            }
            Change::Delete(path) if self.is_empty(&path) => drop(self.files.remove(&path)),
            Change::Put(path) => {
                let content = self.next();
                self.put(path, content);
            }
            Change::PutDirectory(path) => drop(self.put(format!("{path}/"), 0)),
            Change::DeleteObject(path) => {
                self.objects.remove(&path);
                self.objects.remove(&format!("{path}/"));
            }
            Change::Pass => drop(self.pass(usize::MAX)),
            Change::Crash(after) => drop(self.pass(after)),
            _ => {}
        }
    }

    /// Does what is planned; how much that was. After `most` steps it is cut short.
    fn pass(&mut self, most: usize) -> usize {
        let (local, remote) = (self.local(), self.remote());
        let sides = Sides { known: &self.known, local: &local, remote: &remote };
        let (steps, _) = plan(&sides, |_| true);
        let count = steps.len();
        for (index, step) in steps.into_iter().enumerate().take(most.saturating_add(1)) {
            let cut = index == most;
            let noted = self.known.clone();
            self.carry(step);
            if cut {
                self.known = noted;
            }
        }
        count
    }

    fn same(&mut self, path: &str, version: Option<String>) {
        let (thing, stamp) = self.files[path];
        let entry = Entry {
            file_system: String::new(),
            path: path.to_owned(),
            directory: thing == Thing::Directory,
            version,
            stamp,
        };
        self.known.insert(path.to_owned(), Arc::new(entry));
    }

    /// Takes away what is at a path; false when there is something in it.
    fn clear(&mut self, path: &str, conflict: bool) -> bool {
        if self.is_directory(path) && !self.is_empty(path) {
            if !conflict {
                return false;
            }
            let below = format!("{path}/");
            let gone: Vec<String> =
                self.files.keys().filter(|other| other.starts_with(&below)).cloned().collect();
            for path in gone {
                self.clear(&path, true);
            }
        }
        if let Some((Thing::File(content), _)) = self.files.remove(path)
            && conflict
        {
            self.lost.insert(content);
        }
        true
    }

    fn import(&mut self, path: &str, remote: &Remote<Kept>, conflict: bool) {
        let thing = match remote {
            Remote::Directory(_) => Thing::Directory,
            Remote::File(object) => Thing::File(object.content),
        };
        let stays = thing == Thing::Directory && self.is_directory(path);
        if (stays || self.clear(path, conflict)) && self.above(path) {
            self.set(path, thing);
            self.same(path, remote.version().map(str::to_owned));
        }
    }

    fn carry(&mut self, step: Step<Kept>) {
        match step {
            Step::Import { path, remote, conflict, .. } => self.import(&path, &remote, conflict),
            Step::Remove { path, seen, conflict } => {
                // Of directories only empty ones.
                self.clear(&path, conflict && !seen.directory);
                self.known.remove(&path);
            }
            Step::Export { path, local, known } => {
                let key = if local.directory { format!("{path}/") } else { path.clone() };
                let there = self.objects.get(&key).map(|object| object.version.clone());
                if there == known
                    && let Some((thing, _)) = self.files.get(&path).copied()
                {
                    let content = if let Thing::File(content) = thing { content } else { 0 };
                    let version = self.put(key, content);
                    self.same(&path, Some(version));
                }
            }
            Step::Erase { path, directory, known } => {
                let key = if directory { format!("{path}/") } else { path.clone() };
                if self.objects.get(&key).is_some_and(|object| object.version == known) {
                    self.objects.remove(&key);
                    self.known.remove(&path);
                }
            }
            Step::Compare { path, local: _, remote } => {
                let ours = self.files.get(&path).map(|(thing, _)| *thing);
                match ours == Some(Thing::File(remote.content)) {
                    true => self.same(&path, Some(remote.version.clone())),
                    false => self.import(&path, &Remote::File(remote), true),
                }
            }
            Step::Adopt { path, version, .. } => {
                if self.files.contains_key(&path) {
                    self.same(&path, version);
                }
            }
            Step::Forget { path } => drop(self.known.remove(&path)),
        }
    }
}

/// Passes until nothing is left to be done.
fn settle(both: &mut Both) {
    for _ in 0..20 {
        if both.pass(usize::MAX) == 0 {
            return;
        }
    }
    panic!("it never ends: {:?} {:?} {:?}", both.files, both.objects, both.known);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn both_sides_become_the_same(all in changes()) {
        let mut both = Both::default();
        // What each file holds that nobody has overwritten or deleted, by whoever wrote it here.
        for change in all {
            let before: BTreeMap<_, _> = both.files.clone();
            let ours = matches!(change, Change::Write(_) | Change::Delete(_));
            both.change(change);
            if ours {
                continue;
            }
            // What is not here any more is in the bucket's history, or among the lost.
            for (thing, _) in before.into_values() {
                if let Thing::File(content) = thing
                    && !both.files.values().any(|(other, _)| *other == thing)
                {
                    prop_assert!(both.put.contains(&content) || both.lost.contains(&content));
                }
            }
        }
        settle(&mut both);
        let remote = both.remote();
        for (path, (thing, _)) in &both.files {
            match (thing, remote.get(path)) {
                (Thing::Directory, Some(Remote::Directory(_))) => {}
                (Thing::File(content), Some(Remote::File(object))) => {
                    prop_assert_eq!(*content, object.content);
                }
                (thing, other) => prop_assert!(false, "{path}: {thing:?} and {other:?}"),
            }
        }
        prop_assert_eq!(both.files.len(), remote.len());
        prop_assert_eq!(both.known.len(), remote.len());
    }
}

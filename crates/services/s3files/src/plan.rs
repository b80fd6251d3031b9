//! What is to be done so that a directory and a bucket are the same again: decided from what is known of both, and
//! of what was the same last.
//!
//! Where both were changed, the bucket is right, and what was here is set aside.
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-files-synchronization.html>

use crate::model::{Entry, Stamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A file or directory here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    pub(crate) directory: bool,
    pub(crate) stamp: Stamp,
}

/// What the bucket has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remote<O> {
    /// Keys below it; and one of its own, with a slash at its end.
    Directory(Option<Arc<O>>),
    /// A key.
    File(Arc<O>),
}

/// What is known of an object.
pub(crate) trait Versioned {
    /// What no other version of it has.
    fn version(&self) -> &str;
}

impl Versioned for s3::model::Object {
    fn version(&self) -> &str {
        self.version_name()
    }
}

impl<O: Versioned> Remote<O> {
    pub(crate) fn directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    pub(crate) fn version(&self) -> Option<&str> {
        match self {
            Self::Directory(object) => object.as_deref().map(O::version),
            Self::File(object) => Some(object.version()),
        }
    }
}

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step<O> {
    /// What the bucket has becomes what is here, in place of what was seen.
    Import { path: String, remote: Remote<O>, seen: Option<Local>, conflict: bool },
    /// What is here is taken away.
    Remove { path: String, seen: Local, conflict: bool },
    /// What is here becomes the object, in place of the version that is known.
    Export { path: String, local: Local, known: Option<String> },
    /// The object is deleted.
    Erase { path: String, directory: bool, known: String },
    /// Both are there and were never seen together: when they are the same, they are.
    Compare { path: String, local: Local, remote: Arc<O> },
    /// They are the same.
    Adopt { path: String, local: Local, version: Option<String> },
    /// Neither is there any more.
    Forget { path: String },
}

/// What there is.
pub(crate) struct Sides<'a, O> {
    pub(crate) known: &'a BTreeMap<String, Arc<Entry>>,
    pub(crate) local: &'a BTreeMap<String, Local>,
    pub(crate) remote: &'a BTreeMap<String, Remote<O>>,
}

/// What is to be done, in the order in which it can be, and which paths wait: those were changed here, and `ripe` says
/// not yet.
pub(crate) fn plan<O: Versioned>(
    sides: &Sides<'_, O>,
    ripe: impl Fn(&str) -> bool,
) -> (Vec<Step<O>>, BTreeSet<String>) {
    let Sides { known, local, remote } = sides;
    let all: BTreeSet<&String> = known.keys().chain(local.keys()).chain(remote.keys()).collect();
    let (mut steps, mut last, mut waiting) = (Vec::new(), Vec::new(), BTreeSet::new());
    // Below what becomes another kind of thing nothing is done before that.
    let mut blocked: Option<String> = None;
    for path in all {
        if blocked.as_ref().is_some_and(|above| path.starts_with(above.as_str())) {
            continue;
        }
        let place = Place {
            path,
            known: known.get(path).map(Arc::as_ref),
            local: local.get(path).copied(),
            remote: remote.get(path),
        };
        let below = format!("{path}/");
        let step = match place.decide(|| look_below(sides, &below)) {
            Decision::Nothing => continue,
            Decision::Now(step) => step,
            Decision::Late(step) => {
                last.push(step);
                continue;
            }
            Decision::Local(step) => {
                waiting.insert(path.clone());
                // Nothing is put below a key before that is deleted.
                if place.known.is_some_and(|known| !known.directory) && place.is_directory() {
                    blocked = Some(below);
                }
                if !ripe(path) {
                    continue;
                }
                match step {
                    Step::Erase { .. } => {
                        last.push(step);
                        continue;
                    }
                    step => step,
                }
            }
        };
        steps.push(step);
    }
    // What is in a directory goes before it.
    last.reverse();
    steps.extend(last);
    (steps, waiting)
}

/// What the bucket has below a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    /// What was known, and will be deleted when its own turn comes.
    Known,
    /// Something that was put or changed there.
    New,
}

fn look_below<O: Versioned>(sides: &Sides<'_, O>, below: &str) -> Below {
    let all = sides.remote.range(below.to_owned()..);
    let mut all = all.take_while(|(path, _)| path.starts_with(below)).peekable();
    if all.peek().is_none() {
        return Below::Nothing;
    }
    let is_known = |(path, remote): (&String, &Remote<O>)| {
        let known = sides.known.get(path);
        known.is_some_and(|known| known.version.as_deref() == remote.version())
    };
    if all.all(is_known) { Below::Known } else { Below::New }
}

/// All that there is of one path.
struct Place<'a, O> {
    path: &'a String,
    known: Option<&'a Entry>,
    local: Option<Local>,
    remote: Option<&'a Remote<O>>,
}

enum Decision<O> {
    Nothing,
    /// At once.
    Now(Step<O>),
    /// After the others.
    Late(Step<O>),
    /// Something was changed here.
    Local(Step<O>),
}

impl<O: Versioned> Place<'_, O> {
    fn is_directory(&self) -> bool {
        self.local.is_some_and(|local| local.directory)
    }

    fn becomes_another_kind(&self) -> bool {
        match (self.known, self.local) {
            (Some(known), Some(local)) => known.directory != local.directory,
            _ => false,
        }
    }

    fn local_changed(&self) -> bool {
        match (self.known, self.local) {
            (None, None) => false,
            (Some(known), Some(local)) => {
                known.directory != local.directory || known.stamp != local.stamp
            }
            _ => true,
        }
    }

    fn remote_changed(&self) -> bool {
        match (self.known, self.remote) {
            (None, None) => false,
            (Some(known), Some(remote)) => {
                known.directory != remote.directory()
                    || known.version.as_deref() != remote.version()
            }
            _ => true,
        }
    }

    fn decide(&self, below: impl FnOnce() -> Below) -> Decision<O> {
        match (self.local_changed(), self.remote_changed()) {
            (false, false) => Decision::Nothing,
            (false, true) => self.follow(),
            (true, false) => self.lead(below),
            (true, true) => self.settle(),
        }
    }

    /// The bucket's change is made here.
    fn follow(&self) -> Decision<O> {
        let path = self.path.clone();
        match (self.local, self.remote) {
            (Some(seen), None) => Decision::Late(Step::Remove { path, seen, conflict: false }),
            // A directory is one, with an object or without; its owner may be another now.
            (Some(local), Some(Remote::Directory(None))) if local.directory => {
                Decision::Now(Step::Adopt { path, local, version: None })
            }
            (seen, Some(remote)) => {
                Decision::Now(Step::Import { path, remote: clone(remote), seen, conflict: false })
            }
            (None, None) => Decision::Now(Step::Forget { path }),
        }
    }

    /// The change that was made here is made in the bucket.
    fn lead(&self, below: impl FnOnce() -> Below) -> Decision<O> {
        let path = self.path.clone();
        let known = self.known.and_then(|known| known.version.clone());
        let directory = self.known.is_some_and(|known| known.directory);
        match (self.local, known) {
            (Some(local), known) if !self.becomes_another_kind() => {
                Decision::Local(Step::Export { path, local, known })
            }
            (seen, known) if directory => match (below(), known) {
                (Below::Nothing, Some(known)) => {
                    Decision::Local(Step::Erase { path, directory, known })
                }
                (Below::Nothing, None) => Decision::Now(Step::Forget { path }),
                // What became a file here is a directory that somebody has put something into.
                (Below::New, _) if seen.is_some() => self.settle(),
                // It is there as long as the bucket has something in it.
                _ => Decision::Nothing,
            },
            (_, Some(known)) => Decision::Local(Step::Erase { path, directory, known }),
            (_, None) => Decision::Now(Step::Forget { path }),
        }
    }

    /// Both were changed.
    fn settle(&self) -> Decision<O> {
        let path = self.path.clone();
        match (self.local, self.remote) {
            (None, None) => Decision::Now(Step::Forget { path }),
            // What was known is gone on both sides; what is here is something else.
            (Some(_), None) if self.becomes_another_kind() => Decision::Now(Step::Forget { path }),
            (Some(local), Some(remote)) if local.directory && remote.directory() => {
                let version = remote.version().map(str::to_owned);
                Decision::Now(Step::Adopt { path, local, version })
            }
            (Some(local), Some(Remote::File(object))) if !local.directory => {
                Decision::Now(Step::Compare { path, local, remote: object.clone() })
            }
            (seen, Some(remote)) => {
                Decision::Now(Step::Import { path, remote: clone(remote), seen, conflict: true })
            }
            (Some(seen), None) => Decision::Late(Step::Remove { path, seen, conflict: true }),
        }
    }
}

fn clone<O>(remote: &Remote<O>) -> Remote<O> {
    match remote {
        Remote::Directory(object) => Remote::Directory(object.clone()),
        Remote::File(object) => Remote::File(object.clone()),
    }
}

#[cfg(test)]
mod tests;

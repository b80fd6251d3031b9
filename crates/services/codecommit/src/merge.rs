//! The merge of two commits, file by file, as AWS describes it: at the level of files or of lines, with what conflicts
//! left open or decided for one side. Renames are not followed.
//! <https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-resolve-conflict-pull-request.html>

use crate::{
    api::{ConflictDetailLevelTypeEnum, ConflictResolutionStrategyTypeEnum},
    draft::{Files, MOST_FILE_BYTES},
    faults,
    git::{Bare, GitError},
    objects::{self, Entry},
    ops,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};
use wire::Fault;

/// What `git merge-file` exits with when it could not try.
const MERGE_FAILED: i32 = 255;
/// How many bytes git looks at to tell whether a file is binary.
const GIT_LOOKS: usize = 8000;

/// Two commits and the best one that both come from.
pub(crate) struct Tips {
    pub source: String,
    pub destination: String,
    pub base: String,
}

/// How conflicts are found and decided.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// Whether a file that both sides changed is merged line by line.
    lines: bool,
    strategy: ConflictResolutionStrategyTypeEnum,
}

/// One path on both sides, and before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sides {
    pub source: Option<Entry>,
    pub destination: Option<Entry>,
    pub base: Option<Entry>,
}

/// What has to be decided by a person.
#[derive(Debug)]
pub(crate) struct Conflict {
    pub path: String,
    pub sides: Sides,
    /// The lines that differ, in so many places; none when the file was not merged by lines.
    pub hunks: usize,
    /// Whether contents differ.
    pub content: bool,
    /// Whether modes differ.
    pub mode: bool,
    /// Whether one side has a file where the other has a folder, a link or a submodule.
    pub kind: bool,
    /// The content's blob, where that is not what conflicts.
    pub merged: Option<String>,
    /// Whether the source, the destination and the base are binary, as far as they were looked at.
    pub binary: [Option<bool>; 3],
}

impl Conflict {
    fn new(path: &str, sides: &Sides) -> Self {
        let sides = sides.clone();
        Self {
            path: path.to_owned(),
            sides,
            hunks: 0,
            content: false,
            mode: false,
            kind: false,
            merged: None,
            binary: [None; 3],
        }
    }
}

/// What a merge comes to.
pub(crate) struct Merge {
    /// Without those that conflict.
    pub files: Files,
    pub conflicts: Vec<Conflict>,
}

impl Tips {
    /// What two specifiers mean.
    pub(crate) async fn find(bare: &Bare, source: &str, destination: &str) -> Result<Self, Fault> {
        let source = ops::resolve(bare, Some(source)).await?;
        let destination = ops::resolve(bare, Some(destination)).await?;
        let base = base(bare, &source, &destination).await?.ok_or_else(faults::apart)?;
        Ok(Self { source, destination, base })
    }

    /// Whether the destination can be moved to the source as it is.
    pub(crate) fn is_fast_forward(&self) -> bool {
        self.base == self.destination
    }
}

impl Manner {
    pub(crate) fn new(
        detail: Option<ConflictDetailLevelTypeEnum>,
        strategy: Option<ConflictResolutionStrategyTypeEnum>,
    ) -> Self {
        let strategy = strategy.unwrap_or(ConflictResolutionStrategyTypeEnum::None);
        let lines = detail == Some(ConflictDetailLevelTypeEnum::LineLevel)
            || strategy == ConflictResolutionStrategyTypeEnum::Automerge;
        Self { lines, strategy }
    }

    /// Whether what conflicts is decided by a list of decisions.
    pub(crate) fn is_by_list(self) -> bool {
        self.strategy == ConflictResolutionStrategyTypeEnum::Automerge
    }

    /// The side that has its way, as an index of `[source, destination]`.
    fn side(self) -> Option<usize> {
        match self.strategy {
            ConflictResolutionStrategyTypeEnum::AcceptSource => Some(0),
            ConflictResolutionStrategyTypeEnum::AcceptDestination => Some(1),
            _ => None,
        }
    }
}

/// The best commit that both come from.
pub(crate) async fn base(bare: &Bare, one: &str, two: &str) -> Result<Option<String>, GitError> {
    match bare.status(&["merge-base", one, two]).await? {
        (Some(0), output) => Ok(Some(objects::text(output).trim().to_owned())),
        (Some(1), _) => Ok(None),
        _ => Err(GitError::Answer("merge-base")),
    }
}

fn is_file(entry: &Entry) -> bool {
    entry.mode.starts_with("100")
}

fn same(one: Option<&Entry>, two: Option<&Entry>) -> bool {
    let essence = |entry: &Entry| (entry.mode.clone(), entry.id.clone());
    one.map(essence) == two.map(essence)
}

async fn files(bare: &Bare, commit: &str) -> Result<BTreeMap<String, Entry>, GitError> {
    let entries = objects::tree(bare, commit, true).await?;
    Ok(entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect())
}

/// Merges the source into the destination.
pub(crate) async fn merge(bare: &Bare, tips: &Tips, manner: Manner) -> Result<Merge, Fault> {
    let mut source = files(bare, &tips.source).await?;
    let mut destination = files(bare, &tips.destination).await?;
    let mut base = files(bare, &tips.base).await?;
    let mut kept = BTreeMap::new();
    let mut conflicts = Vec::new();
    let paths: BTreeSet<String> =
        [&source, &destination, &base].into_iter().flat_map(BTreeMap::keys).cloned().collect();
    for path in paths {
        let sides = Sides {
            source: source.remove(&path),
            destination: destination.remove(&path),
            base: base.remove(&path),
        };
        match decide(bare, &path, &sides, manner).await? {
            Decision::Take(Some((mode, id))) => {
                kept.insert(path, (mode, id, sides));
            }
            Decision::Take(None) => {}
            Decision::Conflict(conflict) => conflicts.push(*conflict),
        }
    }
    conflicts.extend(untangle(&mut kept, manner));
    conflicts.sort_by(|one, two| one.path.cmp(&two.path));
    let files = kept.into_iter().map(|(path, (mode, id, _))| (path, (mode, id))).collect();
    Ok(Merge { files, conflicts })
}

enum Decision {
    /// Mode and id; none for no file.
    Take(Option<(String, String)>),
    Conflict(Box<Conflict>),
}

fn take(entry: Option<&Entry>) -> Decision {
    Decision::Take(entry.map(|entry| (entry.mode.clone(), entry.id.clone())))
}

async fn decide(bare: &Bare, path: &str, sides: &Sides, manner: Manner) -> Result<Decision, Fault> {
    let (source, destination, base) =
        (sides.source.as_ref(), sides.destination.as_ref(), sides.base.as_ref());
    if same(source, destination) || same(destination, base) {
        return Ok(take(source));
    }
    if same(source, base) {
        return Ok(take(destination));
    }
    let chosen = manner.side().map(|side| [source, destination][side]);
    if let Some(chosen) = chosen.filter(|_| !manner.lines) {
        return Ok(take(chosen));
    }
    let mut conflict = Conflict::new(path, sides);
    conflict.content = true;
    let (Some(one), Some(two)) = (source, destination) else {
        // One side removed what the other changed.
        return Ok(chosen.map_or_else(|| Decision::Conflict(Box::new(conflict)), take));
    };
    conflict.kind = is_file(one) != is_file(two) || one.mode.get(..2) != two.mode.get(..2);
    conflict.content = one.id != two.id;
    let before = base.map(|base| base.mode.as_str());
    let mode = match (one.mode.as_str(), two.mode.as_str()) {
        (one, two) if one == two || Some(two) == before => Some(one),
        (one, two) if Some(one) == before => Some(two),
        _ => None,
    };
    conflict.mode = mode.is_none();
    if !conflict.kind && is_file(one) {
        let lines = by_lines(bare, one, two, base, manner).await?;
        conflict.hunks = lines.hunks;
        conflict.merged = lines.merged;
        conflict.binary = lines.binary;
    }
    let decided = chosen.flatten().map(|entry| entry.mode.as_str());
    let clean = conflict.merged.clone().filter(|_| manner.lines);
    match (clean, mode.or(decided), chosen) {
        (Some(id), Some(mode), _) => Ok(Decision::Take(Some((mode.to_owned(), id)))),
        (_, _, Some(chosen)) => Ok(take(chosen)),
        _ => Ok(Decision::Conflict(Box::new(conflict))),
    }
}

struct Lines {
    /// In how many places both changed the same lines.
    hunks: usize,
    /// What it comes to, if it does.
    merged: Option<String>,
    /// See [`Conflict::binary`].
    binary: [Option<bool>; 3],
}

/// Merges two files by lines.
async fn by_lines(
    bare: &Bare,
    source: &Entry,
    destination: &Entry,
    base: Option<&Entry>,
    manner: Manner,
) -> Result<Lines, Fault> {
    let mut lines = Lines { hunks: 0, merged: None, binary: [None; 3] };
    if source.id == destination.id {
        lines.merged = Some(source.id.clone());
        return Ok(lines);
    }
    let scratch = bare.scratch()?;
    let mut paths = Vec::new();
    for (index, entry) in [(1, Some(destination)), (2, base), (0, Some(source))] {
        let content = match entry {
            Some(entry) if entry.size.is_none_or(|size| size > MOST_FILE_BYTES as u64) => {
                return Ok(lines);
            }
            // A symbolic link that became a file on both sides.
            Some(entry) if !is_file(entry) => Vec::new(),
            Some(entry) => bare.run(&["cat-file", "blob", &entry.id]).await?,
            None => Vec::new(),
        };
        if entry.is_some() {
            let beginning = &content[..content.len().min(GIT_LOOKS)];
            lines.binary[index] = Some(beginning.contains(&0));
        }
        let path = scratch.path().join(index.to_string());
        let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(&content));
        written.map_err(GitError::Run)?;
        paths.push(path.to_string_lossy().into_owned());
    }
    let mut arguments = vec!["merge-file", "-p", "-q"];
    arguments.extend(manner.side().map(|side| ["--theirs", "--ours"][side]));
    arguments.extend(paths.iter().map(String::as_str));
    match bare.status(&arguments).await? {
        (Some(0), content) => {
            let id = bare.feed(&["hash-object", "-w", "--stdin"], &content).await?;
            lines.merged = Some(objects::text(id).trim().to_owned());
        }
        // Binary files cannot be merged.
        (Some(MERGE_FAILED), _) => {}
        (Some(hunks @ 1..MERGE_FAILED), _) => {
            lines.hunks = usize::try_from(hunks).unwrap_or_default();
        }
        _ => return Err(GitError::Answer("merge-file").into()),
    }
    Ok(lines)
}

type Kept = BTreeMap<String, (String, String, Sides)>;

/// Finds files that are where the other side has a folder.
fn untangle(kept: &mut Kept, manner: Manner) -> Vec<Conflict> {
    let mut tangled = Vec::new();
    for path in kept.keys() {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        tangled.extend(above.filter(|above| kept.contains_key(*above)).map(str::to_owned));
    }
    tangled.dedup();
    let mut conflicts = Vec::new();
    for path in tangled {
        let Some((_, _, sides)) = kept.get(&path) else { continue };
        let below = format!("{path}/");
        let of_source = sides.source.is_some();
        match manner.side() {
            Some(side) if (side == 0) == of_source => {
                kept.retain(|name, _| !name.starts_with(&below));
            }
            Some(_) => {
                kept.remove(&path);
            }
            None => {
                let sides = sides.clone();
                kept.remove(&path);
                conflicts.push(Conflict { kind: true, ..Conflict::new(&path, &sides) });
            }
        }
    }
    conflicts
}

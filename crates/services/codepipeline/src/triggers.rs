//! Triggers: of what is pushed elsewhere, what a pipeline begins with.
//! <https://docs.aws.amazon.com/codepipeline/latest/userguide/pipelines-filter.html>

use crate::{
    CodePipeline,
    api::{
        GitBranchFilterCriteria, GitConfiguration, GitFilePathFilterCriteria,
        GitPullRequestEventType, GitPullRequestFilter, GitPushFilter, GitTagFilterCriteria,
        PipelineDeclaration, PipelineTriggerDeclaration, PipelineType, SourceRevisionOverride,
        SourceRevisionType, TriggerType,
    },
    elsewhere, faults,
    model::{Pipeline, Watched},
    start::{Begin, begin},
};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::{BTreeMap, BTreeSet};
use store::{DiskFault, Record, Tx};
use wire::Fault;
use world::{Timestamp, World};

/// What a reference's name begins with.
const BRANCH: &str = "refs/heads/";
const TAG: &str = "refs/tags/";

/// A pattern as AWS has them: `*` and `?` do not go beyond a slash, `**` does, wherever it is.
fn pattern(text: &str) -> Result<GlobMatcher, Fault> {
    let parts: Vec<&str> = text.split('/').collect();
    let part = |part: &&str| match **part == *"**" {
        true => (*part).to_owned(),
        // To the library, it does so as a whole part of a path only.
        false => part.replace("**", "{*,*/**/*}"),
    };
    let text: Vec<String> = parts.iter().map(part).collect();
    let glob = GlobBuilder::new(&text.join("/")).literal_separator(true).build();
    let glob = glob.map_err(|error| faults::validation(format!("A trigger's pattern: {error}")))?;
    Ok(glob.compile_matcher())
}

/// Whether a name is among what a filter lets in. Of patterns that were checked there is none that cannot be read.
fn lets_in(includes: &Option<Vec<String>>, excludes: &Option<Vec<String>>, name: &str) -> bool {
    let matches = |patterns: &[String]| {
        let mut patterns = patterns.iter().filter_map(|text| pattern(text).ok());
        patterns.any(|pattern| pattern.is_match(name))
    };
    includes.as_deref().is_none_or(matches) && !excludes.as_deref().is_some_and(matches)
}

/// The actions that begin an execution by their triggers only.
pub(crate) fn filtered(declaration: &PipelineDeclaration) -> BTreeSet<&str> {
    let triggers = declaration.triggers.iter().flatten();
    let filtering = triggers.filter(|one| {
        let git = &one.git_configuration;
        git.push.is_some() || git.pull_request.is_some()
    });
    filtering.map(|one| one.git_configuration.source_action_name.as_str()).collect()
}

/// What is wrong with the triggers of a declaration, if anything.
pub(crate) fn check(declaration: &PipelineDeclaration) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for trigger in declaration.triggers.iter().flatten() {
        if declaration.pipeline_type != Some(PipelineType::V2) {
            return Err(faults::structure("Triggers are for pipelines of the type V2."));
        }
        let configuration = &trigger.git_configuration;
        let name = &configuration.source_action_name;
        if !seen.insert(name) {
            return Err(faults::structure(format!(
                "There is more than one trigger for the action {name}."
            )));
        }
        let mut actions = declaration.stages.iter().flat_map(|stage| &stage.actions);
        let provider = |action: &&str| **action == *elsewhere::PROVIDER;
        let found = actions.find(|action| action.name == *name);
        let found = found.map(|action| action.action_type_id.provider.as_str());
        if !found.as_ref().is_some_and(provider) {
            return Err(faults::structure(format!(
                "A trigger is for the action {name}, which is no source of the provider {}.",
                elsewhere::PROVIDER
            )));
        }
        for filter in configuration.push.iter().flatten() {
            check_filter(name, filter)?;
        }
        for filter in configuration.pull_request.iter().flatten() {
            let lists = [branches(&filter.branches), paths(&filter.file_paths)];
            check_lists(name, lists.into_iter().flatten())?;
        }
    }
    Ok(())
}

/// Patterns that let in, and patterns that do not.
type Lists<'a> = (&'a Option<Vec<String>>, &'a Option<Vec<String>>);

fn branches(filter: &Option<GitBranchFilterCriteria>) -> Option<Lists<'_>> {
    filter.as_ref().map(|one| (&one.includes, &one.excludes))
}

fn paths(filter: &Option<GitFilePathFilterCriteria>) -> Option<Lists<'_>> {
    filter.as_ref().map(|one| (&one.includes, &one.excludes))
}

fn wrong(action: &str, why: &str) -> Fault {
    faults::structure(format!("The trigger of {action}: {why}"))
}

fn check_filter(action: &str, filter: &GitPushFilter) -> Result<(), Fault> {
    let tags = filter.tags.as_ref().map(|one| (&one.includes, &one.excludes));
    let (branches, paths) = (branches(&filter.branches), paths(&filter.file_paths));
    if tags.is_some() && (branches.is_some() || paths.is_some()) {
        return Err(wrong(action, "a filter of tags has no branches and no file paths"));
    }
    let lists: Vec<_> = [tags, branches, paths].into_iter().flatten().collect();
    if lists.is_empty() {
        return Err(wrong(action, "a filter of pushes filters by tags, branches or file paths"));
    }
    check_lists(action, lists.into_iter())
}

fn check_lists<'a>(action: &str, lists: impl Iterator<Item = Lists<'a>>) -> Result<(), Fault> {
    for (includes, excludes) in lists {
        if includes.is_none() && excludes.is_none() {
            return Err(wrong(action, "a filter includes or excludes something"));
        }
        for text in includes.iter().chain(excludes).flatten() {
            pattern(text)?;
        }
    }
    Ok(())
}

/// What was pushed: a reference that is new, or at another commit than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub reference: String,
    pub commit: String,
}

impl Pushed {
    pub(crate) fn branch(&self) -> Option<&str> {
        self.reference.strip_prefix(BRANCH)
    }

    /// The name of the branch or tag.
    fn name(&self) -> &str {
        self.branch().or(self.reference.strip_prefix(TAG)).unwrap_or(&self.reference)
    }
}

/// What was pushed from one look to the next. What was deleted begins nothing.
pub(crate) fn pushed(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Vec<Pushed> {
    let new = now.iter().filter(|(name, commit)| before.get(*name) != Some(commit));
    new.map(|(reference, commit)| Pushed { reference: reference.clone(), commit: commit.clone() })
        .collect()
}

/// Whether a filter lets a push in, but for its files; and which of those it is about.
fn concerns<'a>(
    filter: &'a GitPushFilter,
    pushed: &Pushed,
) -> Option<Option<&'a GitFilePathFilterCriteria>> {
    let let_in = match (pushed.branch(), filter) {
        (None, GitPushFilter { tags: Some(GitTagFilterCriteria { includes, excludes }), .. }) => {
            lets_in(includes, excludes, pushed.name())
        }
        (None, _) | (Some(_), GitPushFilter { tags: Some(_), .. }) => false,
        (Some(name), GitPushFilter { branches, .. }) => {
            branches.as_ref().is_none_or(|GitBranchFilterCriteria { includes, excludes }| {
                lets_in(includes, excludes, name)
            })
        }
    };
    let_in.then_some(filter.file_paths.as_ref())
}

/// What filters say of a push.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict<'a> {
    /// It begins an execution, or none.
    Said(bool),
    /// It does when one of its files is among what one of these lets in.
    Files(Vec<&'a GitFilePathFilterCriteria>),
}

impl<'a> Verdict<'a> {
    pub(crate) fn of(filters: &'a [GitPushFilter], pushed: &Pushed) -> Self {
        let concerned: Vec<_> = filters.iter().filter_map(|one| concerns(one, pushed)).collect();
        match concerned.iter().any(Option::is_none) {
            true => Self::Said(true),
            false if concerned.is_empty() => Self::Said(false),
            false => Self::Files(concerned.into_iter().flatten().collect()),
        }
    }

    /// What filters of pull requests say of one for the branch `base`.
    pub(crate) fn of_request(
        filters: &'a [GitPullRequestFilter],
        happened: GitPullRequestEventType,
        base: &str,
    ) -> Self {
        let mut files = Vec::new();
        for filter in filters {
            let events = filter.events.as_ref();
            let is_meant = events.is_none_or(|events| events.contains(&happened));
            let branch = branches(&filter.branches);
            if !is_meant || branch.is_some_and(|(yes, no)| !lets_in(yes, no, base)) {
                continue;
            }
            match &filter.file_paths {
                None => return Self::Said(true),
                Some(paths) => files.push(paths),
            }
        }
        if files.is_empty() { Self::Said(false) } else { Self::Files(files) }
    }

    pub(crate) fn with(&self, files: &[String]) -> bool {
        match self {
            Self::Said(said) => *said,
            Self::Files(all) => all.iter().any(|paths| {
                files.iter().any(|file| lets_in(&paths.includes, &paths.excludes, file))
            }),
        }
    }
}

/// An execution that is to begin.
pub(crate) struct Start {
    /// The pipeline's key.
    pub pipeline: String,
    /// The source action.
    pub action: String,
    /// The ARN of its connection.
    pub connection: String,
    /// The commit that it is to give.
    pub commit: String,
    /// The branch that the commit was pushed to.
    pub branch: Option<String>,
}

/// Begins executions. One that cannot begin does not keep others from it.
pub(crate) fn begin_all(tx: &mut Tx, world: &World, now: Timestamp, starts: Vec<Start>) {
    for start in starts {
        let revision = SourceRevisionOverride {
            action_name: start.action,
            revision_type: SourceRevisionType::CommitId,
            revision_value: start.commit,
        };
        let wanted = Begin {
            trigger: TriggerType::WebhookV2,
            detail: start.connection,
            overrides: vec![revision],
            branch: start.branch,
            ..Begin::default()
        };
        if let Err(fault) = begin(tx, world, &start.pipeline, now, wanted) {
            let (pipeline, why) = (&start.pipeline, fault.message);
            tracing::warn!(pipeline, why, "what was pushed began no execution");
        }
    }
}

/// The triggers of a pipeline, and connection, repository and branch of the source that each is for.
pub(crate) fn sources(pipeline: &Pipeline) -> Vec<(&GitConfiguration, [&str; 3])> {
    let triggers = pipeline.declaration.triggers.iter().flatten();
    let source = |trigger: &'_ PipelineTriggerDeclaration| {
        let name = &trigger.git_configuration.source_action_name;
        let mut actions = pipeline.declaration.stages.iter().flat_map(|stage| &stage.actions);
        actions.find(|action| action.name == *name).and_then(elsewhere::named)
    };
    let with = |trigger| Some((trigger, source(trigger)?));
    triggers.filter_map(with).map(|(trigger, place)| (&trigger.git_configuration, place)).collect()
}

/// The keys of the pipelines that filter pushes to a repository, with the action and its filters.
pub(crate) fn followers(
    service: &CodePipeline,
    watched: &Watched,
) -> Vec<(String, String, Vec<GitPushFilter>)> {
    let mut found = Vec::new();
    for pipeline in service.store.read().scan_prefix::<Pipeline>(&format!("{}/", watched.realm)) {
        for (configuration, [connection, repository, _]) in sources(&pipeline) {
            let here = connection == watched.connection && repository == watched.repository;
            if let Some(push) = configuration.push.as_ref().filter(|_| here) {
                let action = configuration.source_action_name.clone();
                found.push((pipeline.key(), action, push.clone()));
            }
        }
    }
    found
}

/// Remembers what a repository has now, and begins what that begins, at once or not at all.
pub(crate) async fn start(
    service: &CodePipeline,
    before: Option<Watched>,
    watched: Watched,
    starts: Vec<Start>,
) -> Result<(), DiskFault> {
    let (now, world, key) = (service.world.now(), service.world.clone(), watched.key());
    let written = service.store.write(move |tx| {
        let known = tx.get::<Watched>(&key);
        if known.map(|known| known.references.clone()) != before.map(|before| before.references) {
            return Ok(());
        }
        tx.put(watched);
        begin_all(tx, &world, now, starts);
        Ok(())
    });
    written.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn matches(text: &str, name: &str) -> bool {
        pattern(text).unwrap().is_match(name)
    }

    #[test]
    fn patterns_are_as_aws_has_them() {
        for (text, yes, no) in [
            ("main", &["main"][..], &["main2", "a/main"][..]),
            ("feature-*", &["feature-", "feature-a"], &["feature-a/b", "a-feature-"]),
            ("feature-**", &["feature-a", "feature-a/b/c"], &["feature"]),
            ("feature/**", &["feature/a", "feature/a/b"], &["feature"]),
            ("v?.{1,2}", &["v1.1", "v2.2"], &["v1.3", "v11.1"]),
            ("**.py", &["a.py", "a/b/c.py"], &["a.pyc"]),
            ("src/**/*.py", &["src/a.py", "src/a/b.py"], &["a.py"]),
            ("*", &["a"], &["a/b"]),
            ("**", &["a", "a/b"], &[]),
        ] {
            assert!(yes.iter().all(|name| matches(text, name)), "{text}");
            assert!(!no.iter().any(|name| matches(text, name)), "{text}");
        }
        assert!(pattern("[").is_err() && pattern("{a").is_err());
    }

    fn filters(json: Json) -> Vec<GitPushFilter> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn filters_let_in_what_fits() {
        let branches =
            json!({"branches": {"includes": ["main", "release/*"], "excludes": ["release/0"]}});
        let tags = json!({"tags": {"excludes": ["test-*"]}});
        let paths = json!({"includes": ["doc/**"], "excludes": ["**.tmp"]});
        let paths = json!({"branches": {"includes": ["docs"]}, "filePaths": paths});
        let nothing: &[&str] = &[];
        for (filter, reference, files, expected) in [
            (&branches, "refs/heads/main", nothing, true),
            (&branches, "refs/heads/release/1", nothing, true),
            (&branches, "refs/heads/release/0", nothing, false),
            (&branches, "refs/heads/other", nothing, false),
            (&branches, "refs/tags/main", nothing, false),
            (&tags, "refs/tags/v1", nothing, true),
            (&tags, "refs/tags/test-1", nothing, false),
            (&tags, "refs/heads/v1", nothing, false),
            (&paths, "refs/heads/docs", &["doc/a", "b"], true),
            (&paths, "refs/heads/docs", &["doc/a.tmp", "b"], false),
            (&paths, "refs/heads/docs", nothing, false),
            (&paths, "refs/heads/main", &["doc/a"], false),
        ] {
            let pushed = Pushed { reference: reference.to_owned(), commit: String::new() };
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            let found = Verdict::of(&filters(json!([filter])), &pushed).with(&files);
            assert_eq!(found, expected, "{filter} {reference} {files:?}");
        }
        // One of several is enough, and files are looked at only when it depends on them.
        let pushed = Pushed { reference: "refs/heads/main".to_owned(), commit: String::new() };
        let all = filters(json!([tags, {"filePaths": {"includes": ["x"]}}, branches]));
        assert_eq!(Verdict::of(&all, &pushed), Verdict::Said(true));
        assert!(matches!(Verdict::of(&all[..2], &pushed), Verdict::Files(_)));
    }

    #[test]
    fn what_is_new_or_elsewhere_was_pushed() {
        let map = |pairs: &[(&str, &str)]| {
            let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
            pairs.iter().map(own).collect::<BTreeMap<_, _>>()
        };
        let before = map(&[("refs/heads/a", "1"), ("refs/heads/b", "1"), ("refs/heads/gone", "1")]);
        let now = map(&[("refs/heads/a", "1"), ("refs/heads/b", "2"), ("refs/tags/v", "2")]);
        let names: Vec<_> = pushed(&before, &now).into_iter().map(|one| one.reference).collect();
        assert_eq!(names, ["refs/heads/b", "refs/tags/v"]);
    }
}

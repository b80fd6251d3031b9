//! The life of pull requests: they follow their branches, and what happens to them is kept and told.

use crate::{
    CodeCommit,
    api::{self, *},
    approval::Rule,
    git::{Bare, GitError},
    merge,
    model::{self, PullRequest, PullRequestEvent, Repository},
    names::BRANCH,
    objects,
    settle::Tips,
};
use events::Event;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::{Record, Tx};
use wire::sigv4::sha256_hex;
use world::{Timestamp, World};

/// What happened to a pull request.
pub(crate) enum Happened {
    Created,
    /// Its source moved; from here.
    SourceMoved(String),
    /// It was closed without a merge.
    Closed,
    Merged,
    Approved(ApprovalState),
    Overridden(OverrideStatus),
    RuleCreated(model::ApprovalRule),
    RuleUpdated(model::ApprovalRule),
    RuleDeleted(model::ApprovalRule),
}

/// Who did what to a pull request, when.
pub(crate) struct Deed<'a> {
    pub actor: Option<&'a str>,
    pub at: Timestamp,
    pub what: Happened,
}

impl Happened {
    /// What it is called in the history, in events and in words.
    fn names(&self) -> (PullRequestEventType, &'static str, &'static str) {
        use PullRequestEventType as Type;
        match self {
            Self::Created => (Type::PullRequestCreated, "pullRequestCreated", "Created"),
            Self::SourceMoved(_) => (
                Type::PullRequestSourceReferenceUpdated,
                "pullRequestSourceBranchUpdated",
                "Source branch updated",
            ),
            Self::Closed => (Type::PullRequestStatusChanged, "pullRequestStatusChanged", "Closed"),
            Self::Merged => {
                (Type::PullRequestMergeStateChanged, "pullRequestMergeStatusUpdated", "Merged")
            }
            Self::Approved(_) => (
                Type::PullRequestApprovalStateChanged,
                "pullRequestApprovalStateChanged",
                "Approval state changed",
            ),
            Self::Overridden(_) => (
                Type::PullRequestApprovalRuleOverridden,
                "pullRequestApprovalRuleOverridden",
                "Approval rules overridden",
            ),
            Self::RuleCreated(_) => (
                Type::PullRequestApprovalRuleCreated,
                "pullRequestApprovalRuleCreated",
                "Approval rule created",
            ),
            Self::RuleUpdated(_) => (
                Type::PullRequestApprovalRuleUpdated,
                "pullRequestApprovalRuleUpdated",
                "Approval rule updated",
            ),
            Self::RuleDeleted(_) => (
                Type::PullRequestApprovalRuleDeleted,
                "pullRequestApprovalRuleDeleted",
                "Approval rule deleted",
            ),
        }
    }

    /// What the history says of it.
    fn describe(self, document: &mut api::PullRequestEvent, name: &str, pull: &PullRequest) {
        let (name, base) = (Some(name.to_owned()), pull.base.clone());
        let (source, revision) = (Some(pull.source_commit.clone()), Some(pull.revision.clone()));
        match self {
            Self::Created => {
                document.pull_request_created_event_metadata =
                    Some(PullRequestCreatedEventMetadata {
                        repository_name: name,
                        source_commit_id: source,
                        destination_commit_id: Some(pull.destination_commit.clone()),
                        merge_base: base,
                    });
            }
            Self::SourceMoved(before) => {
                document.pull_request_source_reference_updated_event_metadata =
                    Some(PullRequestSourceReferenceUpdatedEventMetadata {
                        repository_name: name,
                        before_commit_id: Some(before),
                        after_commit_id: source,
                        merge_base: base,
                    });
            }
            Self::Closed => {
                let pull_request_status = Some(PullRequestStatusEnum::Closed);
                document.pull_request_status_changed_event_metadata =
                    Some(PullRequestStatusChangedEventMetadata { pull_request_status });
            }
            Self::Merged => {
                document.pull_request_merged_state_changed_event_metadata =
                    Some(PullRequestMergedStateChangedEventMetadata {
                        repository_name: name,
                        destination_reference: Some(pull.destination.clone()),
                        merge_metadata: Some(merge_metadata(pull)),
                    });
            }
            Self::Approved(state) => {
                document.approval_state_changed_event_metadata =
                    Some(ApprovalStateChangedEventMetadata {
                        revision_id: revision,
                        approval_status: Some(state),
                    });
            }
            Self::Overridden(status) => {
                document.approval_rule_overridden_event_metadata =
                    Some(ApprovalRuleOverriddenEventMetadata {
                        revision_id: revision,
                        override_status: Some(status),
                    });
            }
            Self::RuleCreated(rule) | Self::RuleUpdated(rule) | Self::RuleDeleted(rule) => {
                document.approval_rule_event_metadata = Some(ApprovalRuleEventMetadata {
                    approval_rule_name: Some(rule.name),
                    approval_rule_id: Some(rule.id),
                    approval_rule_content: Some(rule.content),
                });
            }
        }
    }
}

/// Keeps a pull request as it is now, and what happened to it, and tells the world.
/// <https://docs.aws.amazon.com/codecommit/latest/userguide/monitoring-events.html>
pub(crate) fn put(
    tx: &mut Tx,
    world: &World,
    repository: &Repository,
    pull: PullRequest,
    deed: Deed<'_>,
) {
    let Deed { actor, at, what } = deed;
    let (kind, event, said) = what.names();
    let mut detail = detail(repository, &pull, actor);
    detail["event"] = json!(event);
    detail["notificationBody"] = json!(format!(
        "A pull request event occurred in the following AWS CodeCommit repository: {}. User: {}. Event: {said}. Pull \
         request: {}, {}.",
        repository.name,
        actor.unwrap_or("unknown"),
        pull.number,
        pull.title,
    ));
    match &what {
        Happened::Approved(state) => detail["approvalStatus"] = json!(state.as_str()),
        Happened::Overridden(status) => detail["overrideStatus"] = json!(status.as_str()),
        Happened::RuleCreated(rule) | Happened::RuleUpdated(rule) | Happened::RuleDeleted(rule) => {
            detail["approvalRuleName"] = json!(rule.name);
            detail["approvalRuleId"] = json!(rule.id);
            detail["approvalRuleContentSha256"] = json!(sha256_hex(rule.content.as_bytes()));
        }
        _ => {}
    }
    let mut document = api::PullRequestEvent {
        pull_request_id: Some(pull.number.to_string()),
        event_date: Some(at),
        pull_request_event_type: Some(kind),
        actor_arn: actor.map(str::to_owned),
        ..api::PullRequestEvent::default()
    };
    what.describe(&mut document, &repository.name, &pull);
    keep(tx, pull, document, at);
    let event = Event {
        id: world.uuid(),
        realm: repository.realm.clone(),
        source: "aws.codecommit".to_owned(),
        detail_type: "CodeCommit Pull Request State Change".to_owned(),
        time: at,
        resources: vec![repository.arn()],
        detail,
    };
    events::tell(tx, world, &event);
}

fn keep(tx: &mut Tx, mut pull: PullRequest, document: api::PullRequestEvent, at: Timestamp) {
    let key = PullRequest::key_of(&pull.realm, pull.number);
    let prefix = PullRequestEvent::prefix_of(&key);
    let last = tx.scan_prefix::<PullRequestEvent>(&prefix).next_back();
    let index = last.map_or(0, |last| last.index + 1);
    tx.put(PullRequestEvent { pull_request: key, index, document });
    pull.active = at;
    tx.put(pull);
}

fn detail(repository: &Repository, pull: &PullRequest, actor: Option<&str>) -> serde_json::Value {
    let date = |at: Timestamp| at.datetime().format("%a %b %d %H:%M:%S UTC %Y").to_string();
    let merged = pull.merge.as_ref().filter(|_| !pull.open);
    let mut detail = json!({
        "repositoryNames": [repository.name], "pullRequestId": pull.number.to_string(), "title": pull.title,
        "author": pull.author, "pullRequestStatus": if pull.open { "Open" } else { "Closed" },
        "isMerged": if merged.is_some() { "True" } else { "False" }, "revisionId": pull.revision,
        "sourceReference": pull.source, "sourceCommit": pull.source_commit,
        "destinationReference": pull.destination, "destinationCommit": pull.destination_commit,
        "creationDate": date(pull.created), "lastModifiedDate": date(pull.active),
    });
    let more = [
        ("callerUserArn", actor),
        ("description", pull.description.as_deref()),
        ("mergeOption", merged.map(|merge| merge.option.as_str())),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            detail[name] = json!(value);
        }
    }
    detail
}

fn merge_metadata(pull: &PullRequest) -> MergeMetadata {
    let merge = pull.merge.as_ref().filter(|_| !pull.open);
    MergeMetadata {
        is_merged: Some(merge.is_some()),
        merged_by: merge.and_then(|merge| merge.by.clone()),
        merge_commit_id: merge.map(|merge| merge.commit.clone()),
        merge_option: merge.map(|merge| merge.option),
    }
}

/// A rule as it is described.
pub(crate) fn rule(rule: &model::ApprovalRule) -> ApprovalRule {
    let template = rule.template.as_ref();
    ApprovalRule {
        approval_rule_id: Some(rule.id.clone()),
        approval_rule_name: Some(rule.name.clone()),
        approval_rule_content: Some(rule.content.clone()),
        rule_content_sha256: Some(sha256_hex(rule.content.as_bytes())),
        last_modified_date: Some(rule.modified),
        creation_date: Some(rule.created),
        last_modified_user: Some(rule.modified_by.clone()),
        origin_approval_rule_template: template.map(|(id, name)| OriginApprovalRuleTemplate {
            approval_rule_template_id: Some(id.clone()),
            approval_rule_template_name: Some(name.clone()),
        }),
    }
}

impl PullRequest {
    /// The names of the rules that are satisfied, and of those that are not.
    pub(crate) fn evaluate(&self) -> (Vec<String>, Vec<String>) {
        let names = self.rules.iter().map(|rule| {
            let satisfied =
                Rule::read(&rule.content).is_ok_and(|rule| rule.is_satisfied(&self.approvals));
            (satisfied, rule.name.clone())
        });
        let (yes, no): (Vec<_>, Vec<_>) = names.partition(|(satisfied, _)| *satisfied);
        let names = |of: Vec<(bool, String)>| of.into_iter().map(|(_, name)| name).collect();
        (names(yes), names(no))
    }

    /// Whether it may be merged.
    pub(crate) fn is_approved(&self) -> bool {
        self.overridden.is_some() || self.evaluate().1.is_empty()
    }
}

/// A pull request as it is described. While it is open, its base is looked up: both of its branches move.
pub(crate) async fn describe(
    bare: &Bare,
    repository: &Repository,
    pull: &PullRequest,
) -> Result<api::PullRequest, GitError> {
    let base = match pull.open {
        true => merge::base(bare, &pull.source_commit, &pull.destination_commit).await?,
        false => pull.base.clone(),
    };
    let status =
        if pull.open { PullRequestStatusEnum::Open } else { PullRequestStatusEnum::Closed };
    Ok(api::PullRequest {
        pull_request_id: Some(pull.number.to_string()),
        title: Some(pull.title.clone()),
        description: pull.description.clone(),
        last_activity_date: Some(pull.active),
        creation_date: Some(pull.created),
        pull_request_status: Some(status),
        author_arn: Some(pull.author.clone()),
        pull_request_targets: Some(vec![PullRequestTarget {
            repository_name: Some(repository.name.clone()),
            source_reference: Some(pull.source.clone()),
            destination_reference: Some(pull.destination.clone()),
            destination_commit: Some(pull.destination_commit.clone()),
            source_commit: Some(pull.source_commit.clone()),
            merge_base: base,
            merge_metadata: Some(merge_metadata(pull)),
        }]),
        client_request_token: pull.token.clone(),
        revision_id: Some(pull.revision.clone()),
        approval_rules: Some(pull.rules.iter().map(rule).collect()),
    })
}

/// What references' changes mean for one pull request.
pub(crate) enum Move {
    /// The source has another tip, the destination perhaps, too.
    Source { tips: (String, String), base: Option<String> },
    /// The destination has another tip.
    Destination(String),
    /// The destination has what was asked for; with its tip and the base.
    Merged { merge: model::Merge, destination: String, base: Option<String> },
    /// One of the branches is gone.
    Gone,
}

/// What the repository's references, which are `now` what they were not `before`, mean for its open pull requests.
pub(crate) async fn moves(
    codecommit: &CodeCommit,
    repository: &Repository,
    bare: &Bare,
    before: &Tips,
    now: &Tips,
) -> Result<Vec<(String, Move)>, GitError> {
    let snapshot = codecommit.store.read();
    let open: Vec<Arc<PullRequest>> = snapshot
        .scan_prefix::<PullRequest>(&format!("{}/", repository.realm))
        .filter(|pull| pull.open && pull.repository == repository.id)
        .collect();
    let mut arrived = BTreeMap::new();
    let mut moves = Vec::new();
    for pull in open {
        let key = PullRequest::key_of(&pull.realm, pull.number);
        let (Some(source), Some(destination)) = (now.get(&pull.source), now.get(&pull.destination))
        else {
            let merged = merged(bare, &pull, before, now, &mut arrived).await?;
            moves.push((key, merged.unwrap_or(Move::Gone)));
            continue;
        };
        if let Some(merged) = merged(bare, &pull, before, now, &mut arrived).await? {
            moves.push((key, merged));
        } else if *source != pull.source_commit {
            let base = merge::base(bare, source, destination).await?;
            moves.push((key, Move::Source { tips: (source.clone(), destination.clone()), base }));
        } else if *destination != pull.destination_commit {
            moves.push((key, Move::Destination(destination.clone())));
        }
    }
    Ok(moves)
}

/// Whether the destination now has what the pull request brings: the commit that was made to merge it, or, as after a
/// fast-forward that was pushed, the source's own. `arrived` remembers each branch's new commits.
async fn merged(
    bare: &Bare,
    pull: &PullRequest,
    before: &Tips,
    now: &Tips,
    arrived: &mut BTreeMap<String, BTreeSet<String>>,
) -> Result<Option<Move>, GitError> {
    let Some(tip) = now.get(&pull.destination).filter(|tip| **tip != pull.destination_commit)
    else {
        return Ok(None);
    };
    let new = match arrived.get(&pull.destination) {
        Some(new) => new,
        None => {
            let mut arguments = vec!["rev-list", "--first-parent", tip];
            let old = before.get(&pull.destination).map(|old| format!("^{old}"));
            arguments.extend(old.as_deref());
            let new = objects::text(bare.run(&arguments).await?);
            let new = new.lines().map(str::to_owned).collect();
            arrived.entry(pull.destination.clone()).or_insert(new)
        }
    };
    let by_push = || model::Merge {
        by: None,
        commit: pull.source_commit.clone(),
        option: MergeOptionTypeEnum::FastForwardMerge,
    };
    let merge = match &pull.merge {
        Some(merge) if new.contains(&merge.commit) => merge.clone(),
        _ if new.contains(&pull.source_commit) => by_push(),
        _ => return Ok(None),
    };
    let base = merge::base(bare, &pull.source_commit, &pull.destination_commit).await?;
    Ok(Some(Move::Merged { merge, destination: tip.clone(), base }))
}

/// Lets pull requests follow.
pub(crate) fn follow(
    tx: &mut Tx,
    world: &World,
    repository: &Repository,
    moves: Vec<(String, Move)>,
    (actor, at): (Option<&str>, Timestamp),
) {
    for (key, what) in moves {
        let Some(pull) = tx.get::<PullRequest>(&key).filter(|pull| pull.open) else { continue };
        let mut pull = PullRequest::clone(&pull);
        let happened = match what {
            Move::Destination(tip) => {
                pull.destination_commit = tip;
                tx.put(pull);
                continue;
            }
            Move::Source { tips, base } => {
                let before = std::mem::replace(&mut pull.source_commit, tips.0);
                pull.destination_commit = tips.1;
                pull.base = base;
                pull.revise(world);
                Happened::SourceMoved(before)
            }
            Move::Merged { merge, destination, base } => {
                let by = merge.by.or_else(|| actor.map(str::to_owned));
                pull.merge = Some(model::Merge { by, ..merge });
                pull.destination_commit = destination;
                pull.base = base;
                pull.open = false;
                Happened::Merged
            }
            Move::Gone => {
                pull.merge = None;
                pull.open = false;
                Happened::Closed
            }
        };
        put(tx, world, repository, pull, Deed { actor, at, what: happened });
    }
}

impl PullRequest {
    /// What is reviewed is another thing now: nobody has approved it.
    fn revise(&mut self, world: &World) {
        self.revision = sha256_hex(world.uuid().as_bytes());
        self.approvals.clear();
        self.overridden = None;
    }

    /// The short name of the branch that it is to be merged into.
    pub(crate) fn destination_branch(&self) -> &str {
        self.destination.strip_prefix(BRANCH).unwrap_or(&self.destination)
    }
}

/// Forgets what there is of a repository that is no more.
pub(crate) fn forget(tx: &mut Tx, repository: &str) {
    let pulls = tx.scan::<PullRequest>().filter(|pull| pull.repository == repository);
    let pulls: Vec<String> =
        pulls.map(|pull| PullRequest::key_of(&pull.realm, pull.number)).collect();
    for pull in pulls {
        let events = tx.scan_prefix::<PullRequestEvent>(&PullRequestEvent::prefix_of(&pull));
        let events: Vec<String> = events.map(|event| event.key()).collect();
        for event in events {
            tx.delete::<PullRequestEvent>(&event);
        }
        tx.delete::<PullRequest>(&pull);
    }
    let templates = tx.scan::<model::ApprovalRuleTemplate>();
    let templates = templates.filter(|template| template.repositories.contains(repository));
    let templates: Vec<String> = templates.map(|template| template.key()).collect();
    for template in templates {
        tx.update::<model::ApprovalRuleTemplate>(&template, |template| {
            template.repositories.remove(repository);
        });
    }
}

//! Pull requests.

use super::{find, open};
use crate::{
    CodeCommit,
    api::*,
    approval::Rule,
    faults, merge,
    model::{
        self, ApprovalRuleTemplate, PullRequest, PullRequestCount, PullRequestEvent, References,
        Repository,
    },
    names::{self, BRANCH, TAG},
    pull::{Deed, Happened, describe, put},
};
use std::{collections::BTreeSet, sync::Arc};
use wire::{Context, Fault, Page, sigv4::sha256_hex};

/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
const MOST_OPEN: usize = 1000;
const LONGEST_TITLE: usize = 150;
const LONGEST_DESCRIPTION: usize = 10240;
const LONGEST_TOKEN: usize = 64;
/// So many are on a page, at most and unless asked otherwise.
const PAGE: usize = 100;

/// The pull request that a caller names, if they may do `action` to its repository.
pub(super) fn named(
    codecommit: &CodeCommit,
    ctx: &Context,
    id: &str,
    action: &str,
) -> Result<(Arc<Repository>, Arc<PullRequest>), Fault> {
    let (repository, pull) = lookup(codecommit, ctx, id)?;
    ctx.authorise(action, &repository.arn())?;
    Ok((repository, pull))
}

/// [`named`] for what changes its destination: who asks must be allowed to change that branch.
pub(super) fn named_to_merge(
    codecommit: &CodeCommit,
    ctx: &Context,
    id: &str,
    action: &str,
) -> Result<(Arc<Repository>, Arc<PullRequest>), Fault> {
    let (repository, pull) = lookup(codecommit, ctx, id)?;
    let keys = [("codecommit:References", pull.destination.as_str())];
    ctx.authorise_with(action, &repository.arn(), &keys)?;
    Ok((repository, pull))
}

fn lookup(
    codecommit: &CodeCommit,
    ctx: &Context,
    id: &str,
) -> Result<(Arc<Repository>, Arc<PullRequest>), Fault> {
    let number: u64 = id.parse().map_err(|_| {
        Fault::new(
            "InvalidPullRequestIdException",
            format!("{id} is not a pull request ID: it is a number."),
        )
    })?;
    let pull =
        codecommit.store.read().get::<PullRequest>(&PullRequest::key_of(&ctx.realm(), number));
    let found = pull.and_then(|pull| Some((codecommit.by_id(&pull.repository)?, pull)));
    found.ok_or_else(|| no_pull_request(id))
}

pub(super) fn no_pull_request(id: &str) -> Fault {
    let message = format!("Pull request {id} does not exist");
    Fault::new("PullRequestDoesNotExistException", message)
}

/// [`change`] of one that is open.
pub(super) async fn change_open(
    codecommit: &CodeCommit,
    ctx: &Context,
    which: (&Repository, &PullRequest),
    how: impl FnOnce(&mut PullRequest) -> Result<Option<Happened>, Fault> + Send + 'static,
) -> Result<PullRequest, Fault> {
    change(codecommit, ctx, which, |pull| match pull.open {
        true => how(pull),
        false => Err(closed(pull)),
    })
    .await
}

pub(super) fn closed(pull: &PullRequest) -> Fault {
    let message = format!("Pull request {} is closed already.", pull.number);
    Fault::new("PullRequestAlreadyClosedException", message)
}

/// Changes a pull request as it is now, keeping and telling what happened.
pub(super) async fn change(
    codecommit: &CodeCommit,
    ctx: &Context,
    (repository, pull): (&Repository, &PullRequest),
    change: impl FnOnce(&mut PullRequest) -> Result<Option<Happened>, Fault> + Send + 'static,
) -> Result<PullRequest, Fault> {
    let key = PullRequest::key_of(&pull.realm, pull.number);
    let (number, id, world) = (pull.number, repository.id.clone(), codecommit.world.clone());
    let (actor, at) = (ctx.principal.arn.clone(), ctx.now);
    codecommit
        .store
        .write(move |tx| {
            let found = tx.get::<PullRequest>(&key);
            // It may have got another name meanwhile.
            let repository = tx.scan::<Repository>().find(|repository| repository.id == id);
            let Some((pull, repository)) = found.zip(repository) else {
                return Err(no_pull_request(&number.to_string()));
            };
            let mut pull = PullRequest::clone(&pull);
            match change(&mut pull)? {
                Some(what) => {
                    let deed = Deed { actor: Some(&actor), at, what };
                    put(tx, &world, &repository, pull.clone(), deed);
                }
                None => {
                    pull.active = at;
                    tx.put(pull.clone());
                }
            }
            Ok(pull)
        })
        .await
}

fn title(title: String) -> Result<String, Fault> {
    match (1..=LONGEST_TITLE).contains(&title.chars().count()) {
        true => Ok(title),
        false => Err(Fault::new(
            "InvalidTitleException",
            format!("A title has between 1 and {LONGEST_TITLE} characters."),
        )),
    }
}

fn description(text: Option<String>) -> Result<Option<String>, Fault> {
    match text.as_ref().is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
        false => Ok(text.filter(|text| !text.is_empty())),
        true => Err(Fault::new(
            "InvalidDescriptionException",
            format!("A description has at most {LONGEST_DESCRIPTION} characters."),
        )),
    }
}

/// The whole name of the branch that a reference means, and its tip.
fn branch(references: &References, name: &str) -> Result<(String, String), Fault> {
    let unsupported =
        || Fault::new("ReferenceTypeNotSupportedException", format!("{name} is not a branch."));
    let short = name.strip_prefix(BRANCH).unwrap_or(name);
    if short.starts_with(TAG) {
        return Err(unsupported());
    }
    if names::branch(short).is_err() {
        let message = format!("{name} is not the name of a branch.");
        return Err(Fault::new("InvalidReferenceNameException", message));
    }
    let whole = format!("{BRANCH}{short}");
    match references.told.get(&whole) {
        Some(tip) => Ok((whole, tip.clone())),
        None if references.told.contains_key(&format!("{TAG}{short}")) => Err(unsupported()),
        None => {
            let message = format!("Reference {name} does not exist");
            Err(Fault::new("ReferenceDoesNotExistException", message))
        }
    }
}

/// The one target that a pull request can have.
fn target(targets: Vec<Target>) -> Result<Target, Fault> {
    let names: BTreeSet<&String> = targets.iter().map(|target| &target.repository_name).collect();
    if names.len() > 1 {
        return Err(Fault::new(
            "MultipleRepositoriesInPullRequestException",
            "A pull request is of one repository.",
        ));
    }
    match <[Target; 1]>::try_from(targets) {
        Ok([target]) => Ok(target),
        Err(targets) if targets.is_empty() => {
            Err(Fault::new("TargetsRequiredException", "A pull request has a target."))
        }
        Err(_) => Err(Fault::new("InvalidTargetsException", "A pull request has one target.")),
    }
}

pub(crate) async fn create_pull_request(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreatePullRequestInput,
) -> Result<CreatePullRequestOutput, Fault> {
    let (title, description) = (title(input.title)?, description(input.description)?);
    let token = input.client_request_token;
    if token.as_ref().is_some_and(|token| !(1..=LONGEST_TOKEN).contains(&token.len())) {
        return Err(Fault::new(
            "InvalidClientRequestTokenException",
            format!("A token has between 1 and {LONGEST_TOKEN} characters."),
        ));
    }
    let target = target(input.targets)?;
    let action = "codecommit:CreatePullRequest";
    let (repository, bare) = open(codecommit, ctx, &target.repository_name, action)?;
    // Until it is kept, its branches stay where they are.
    let _turn = codecommit.turn(&repository.id).await;
    let references = codecommit.store.read().get::<References>(&repository.id).unwrap_or_default();
    let into = target.destination_reference.as_deref().or(repository.default_branch.as_deref());
    let into = into.ok_or_else(|| faults::no_branch("HEAD"))?;
    let (source, source_commit) = branch(&references, &target.source_reference)?;
    let (destination, destination_commit) = branch(&references, into)?;
    if source == destination {
        return Err(Fault::new(
            "SourceAndDestinationAreSameException",
            "The source and the destination are the same branch.",
        ));
    }
    let base = merge::base(&bare, &source_commit, &destination_commit).await?;
    let revision = sha256_hex(codecommit.world.uuid().as_bytes());
    let pull = PullRequest {
        realm: ctx.realm(),
        number: 0,
        repository: repository.id.clone(),
        title,
        description,
        author: ctx.principal.arn.clone(),
        token,
        created: ctx.now,
        active: ctx.now,
        open: true,
        source,
        destination,
        source_commit,
        destination_commit,
        base,
        revision,
        approvals: BTreeSet::new(),
        overridden: None,
        rules: Vec::new(),
        merge: None,
    };
    let pull = begin(codecommit, &repository, pull).await?;
    let pull_request = Some(describe(&bare, &repository, &pull).await?);
    Ok(CreatePullRequestOutput { pull_request })
}

/// Keeps a new pull request, with the rules that its repository's templates give it; the one that there is, if its
/// token was used before.
async fn begin(
    codecommit: &CodeCommit,
    repository: &Repository,
    mut pull: PullRequest,
) -> Result<PullRequest, Fault> {
    let (repository, world) = (repository.clone(), codecommit.world.clone());
    codecommit
        .store
        .write(move |tx| {
            let prefix = format!("{}/", pull.realm);
            let before = tx
                .scan_prefix::<PullRequest>(&prefix)
                .find(|before| pull.token.is_some() && before.token == pull.token);
            if let Some(before) = before {
                let essence = |pull: &PullRequest| {
                    let words = (pull.title.clone(), pull.description.clone(), pull.author.clone());
                    (words, pull.repository.clone(), pull.source.clone(), pull.destination.clone())
                };
                if essence(&before) != essence(&pull) {
                    return Err(Fault::new(
                        "IdempotencyParameterMismatchException",
                        "The token was used for another pull request.",
                    ));
                }
                return Ok(PullRequest::clone(&before));
            }
            let all = tx.scan_prefix::<PullRequest>(&prefix);
            if all.filter(|one| one.open && one.repository == pull.repository).count() >= MOST_OPEN
            {
                return Err(Fault::new(
                    "MaximumOpenPullRequestsExceededException",
                    format!("A repository can have at most {MOST_OPEN} open pull requests."),
                ));
            }
            let count = tx.get::<PullRequestCount>(&pull.realm).unwrap_or_default();
            pull.number = count.last + 1;
            tx.put(PullRequestCount { realm: pull.realm.clone(), last: pull.number });
            let templates = tx.scan_prefix::<ApprovalRuleTemplate>(&prefix);
            let templates = templates.filter(|one| one.repositories.contains(&pull.repository));
            let rules = templates.filter(|template| {
                Rule::read(&template.rule.content).is_ok_and(|rule| rule.is_for(&pull.destination))
            });
            pull.rules = rules
                .map(|template| model::ApprovalRule {
                    id: world.uuid(),
                    created: pull.created,
                    modified: pull.created,
                    template: Some((template.rule.id.clone(), template.rule.name.clone())),
                    ..template.rule.clone()
                })
                .collect();
            let author = pull.author.clone();
            let deed = Deed { actor: Some(&author), at: pull.created, what: Happened::Created };
            put(tx, &world, &repository, pull.clone(), deed);
            Ok(pull)
        })
        .await
}

pub(crate) async fn get_pull_request(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetPullRequestInput,
) -> Result<GetPullRequestOutput, Fault> {
    let action = "codecommit:GetPullRequest";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let pull_request = Some(described(codecommit, &repository, &pull).await?);
    Ok(GetPullRequestOutput { pull_request })
}

pub(super) async fn described(
    codecommit: &CodeCommit,
    repository: &Repository,
    pull: &PullRequest,
) -> Result<crate::api::PullRequest, Fault> {
    Ok(describe(&codecommit.git.bare(&repository.id), repository, pull).await?)
}

pub(super) fn page_size(asked: Option<i32>, most: usize) -> Result<usize, Fault> {
    match asked.map(usize::try_from) {
        None => Ok(most),
        Some(Ok(size)) if (1..=most).contains(&size) => Ok(size),
        Some(_) => Err(Fault::new(
            "InvalidMaxResultsException",
            format!("maxResults is between 1 and {most}."),
        )),
    }
}

pub(crate) async fn list_pull_requests(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListPullRequestsInput,
) -> Result<ListPullRequestsOutput, Fault> {
    let name = &input.repository_name;
    let repository = find(codecommit, ctx, name, "codecommit:ListPullRequests")?;
    let size = page_size(input.max_results, PAGE)?;
    let open = input.pull_request_status.map(|status| status == PullRequestStatusEnum::Open);
    let snapshot = codecommit.store.read();
    // The newest first.
    let pulls = snapshot.scan_prefix::<PullRequest>(&format!("{}/", repository.realm)).rev();
    let pulls = pulls
        .filter(|pull| pull.repository == repository.id)
        .filter(|pull| open.is_none_or(|open| pull.open == open))
        .filter(|pull| input.author_arn.as_ref().is_none_or(|author| pull.author == *author))
        .map(|pull| (format!("{:020}", u64::MAX - pull.number), pull.number.to_string()));
    let listing = format!("ListPullRequests {name}");
    let page = Page::take(&listing, input.next_token.as_deref(), size, pulls);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListPullRequestsOutput { pull_request_ids: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn describe_pull_request_events(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DescribePullRequestEventsInput,
) -> Result<DescribePullRequestEventsOutput, Fault> {
    let action = "codecommit:DescribePullRequestEvents";
    let (_, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let size = page_size(input.max_results, PAGE)?;
    let prefix = PullRequestEvent::prefix_of(&PullRequest::key_of(&pull.realm, pull.number));
    let snapshot = codecommit.store.read();
    let events = snapshot.scan_prefix::<PullRequestEvent>(&prefix);
    let events = events.map(|event| (format!("{:010}", event.index), event.document.clone()));
    let (kind, actor) = (input.pull_request_event_type, input.actor_arn);
    let asked = events.filter(|(_, event)| {
        kind.is_none_or(|kind| event.pull_request_event_type == Some(kind))
            && (actor.is_none() || event.actor_arn == actor)
    });
    let listing = format!("DescribePullRequestEvents {}", pull.number);
    let page = Page::take(&listing, input.next_token.as_deref(), size, asked);
    let page = page.map_err(|_| faults::token())?;
    let (pull_request_events, next_token) = (Some(page.items), page.next_token);
    Ok(DescribePullRequestEventsOutput { pull_request_events, next_token })
}

pub(crate) async fn update_pull_request_title(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdatePullRequestTitleInput,
) -> Result<UpdatePullRequestTitleOutput, Fault> {
    let action = "codecommit:UpdatePullRequestTitle";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let title = title(input.title)?;
    let changed = change_open(codecommit, ctx, (&repository, &pull), |pull| {
        pull.title = title;
        Ok(None)
    });
    let pull_request = Some(described(codecommit, &repository, &changed.await?).await?);
    Ok(UpdatePullRequestTitleOutput { pull_request })
}

pub(crate) async fn update_pull_request_description(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdatePullRequestDescriptionInput,
) -> Result<UpdatePullRequestDescriptionOutput, Fault> {
    let action = "codecommit:UpdatePullRequestDescription";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let description = description(Some(input.description))?;
    let changed = change_open(codecommit, ctx, (&repository, &pull), |pull| {
        pull.description = description;
        Ok(None)
    });
    let pull_request = Some(described(codecommit, &repository, &changed.await?).await?);
    Ok(UpdatePullRequestDescriptionOutput { pull_request })
}

pub(crate) async fn update_pull_request_status(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdatePullRequestStatusInput,
) -> Result<UpdatePullRequestStatusOutput, Fault> {
    let action = "codecommit:UpdatePullRequestStatus";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    if input.pull_request_status == PullRequestStatusEnum::Open {
        return Err(Fault::new(
            "InvalidPullRequestStatusUpdateException",
            "A pull request can be closed; it cannot be opened again.",
        ));
    }
    let bare = codecommit.git.bare(&repository.id);
    let base = merge::base(&bare, &pull.source_commit, &pull.destination_commit).await?;
    let changed = change_open(codecommit, ctx, (&repository, &pull), |pull| {
        pull.open = false;
        pull.merge = None;
        pull.base = base;
        Ok(Some(Happened::Closed))
    });
    let pull_request = Some(describe(&bare, &repository, &changed.await?).await?);
    Ok(UpdatePullRequestStatusOutput { pull_request })
}

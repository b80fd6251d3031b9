//! Approvals of pull requests, and the rules for them.

use super::pull_request::{change_open, named};
use crate::{
    CodeCommit,
    api::*,
    approval::Rule,
    model::{self, PullRequest},
    pull::{self, Happened},
};
use wire::{Context, Fault, sigv4::sha256_hex};

/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
const MOST_RULES: usize = 30;
const MOST_APPROVALS: usize = 200;
const LONGEST_NAME: usize = 100;

/// Whether this may be the name of a rule or a template; `what` names the code.
pub(super) fn name(name: &str, code: &'static str) -> Result<(), Fault> {
    match (1..=LONGEST_NAME).contains(&name.chars().count()) {
        true => Ok(()),
        false => {
            Err(Fault::new(code, format!("A name has between 1 and {LONGEST_NAME} characters.")))
        }
    }
}

fn content(content: &str) -> Result<(), Fault> {
    let code = "InvalidApprovalRuleContentException";
    let rule = Rule::read(content)
        .map_err(|why| Fault::new(code, format!("The rule is not valid: {why}")))?;
    match rule.is_of_a_template() {
        false => Ok(()),
        true => Err(Fault::new(code, "Only the rule of a template has DestinationReferences.")),
    }
}

/// A content can be changed by who knows it.
pub(super) fn unchanged(content: &str, known: Option<&str>) -> Result<(), Fault> {
    match known {
        Some(known) if known != sha256_hex(content.as_bytes()) => Err(Fault::new(
            "InvalidRuleContentSha256Exception",
            "The SHA-256 is not that of the content as it is.",
        )),
        _ => Ok(()),
    }
}

fn no_rule(name: &str) -> Fault {
    let message = format!("Approval rule {name} does not exist");
    Fault::new("ApprovalRuleDoesNotExistException", message)
}

/// Whether `revision` is the one that is reviewed.
fn current(pull: &PullRequest, revision: &str) -> Result<(), Fault> {
    match pull.revision == revision {
        true => Ok(()),
        false => Err(Fault::new(
            "RevisionNotCurrentException",
            "The revision is not the pull request's current one. Use GetPullRequest to learn that.",
        )),
    }
}

pub(crate) async fn create_pull_request_approval_rule(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreatePullRequestApprovalRuleInput,
) -> Result<CreatePullRequestApprovalRuleOutput, Fault> {
    let action = "codecommit:CreatePullRequestApprovalRule";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    name(&input.approval_rule_name, "InvalidApprovalRuleNameException")?;
    content(&input.approval_rule_content)?;
    let rule = model::ApprovalRule {
        id: codecommit.world.uuid(),
        name: input.approval_rule_name,
        content: input.approval_rule_content,
        created: ctx.now,
        modified: ctx.now,
        modified_by: ctx.principal.arn.clone(),
        template: None,
    };
    let new = rule.clone();
    change_open(codecommit, ctx, (&repository, &pull), move |pull| {
        if pull.rules.iter().any(|rule| rule.name == new.name) {
            return Err(Fault::new(
                "ApprovalRuleNameAlreadyExistsException",
                format!("Approval rule {} exists already.", new.name),
            ));
        }
        if pull.rules.len() >= MOST_RULES {
            return Err(Fault::new(
                "NumberOfRulesExceededException",
                format!("A pull request can have at most {MOST_RULES} approval rules."),
            ));
        }
        pull.rules.push(new.clone());
        Ok(Some(Happened::RuleCreated(new)))
    })
    .await?;
    Ok(CreatePullRequestApprovalRuleOutput { approval_rule: Some(pull::rule(&rule)) })
}

pub(crate) async fn update_pull_request_approval_rule_content(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdatePullRequestApprovalRuleContentInput,
) -> Result<UpdatePullRequestApprovalRuleContentOutput, Fault> {
    let action = "codecommit:UpdatePullRequestApprovalRuleContent";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    content(&input.new_rule_content)?;
    let (name, actor, at) = (input.approval_rule_name.clone(), ctx.principal.arn.clone(), ctx.now);
    let changed = change_open(codecommit, ctx, (&repository, &pull), move |pull| {
        let rule = pull.rules.iter_mut().find(|rule| rule.name == input.approval_rule_name);
        let rule = rule.ok_or_else(|| no_rule(&input.approval_rule_name))?;
        if rule.template.is_some() {
            return Err(Fault::new(
                "CannotModifyApprovalRuleFromTemplateException",
                format!("Approval rule {} comes from a template.", rule.name),
            ));
        }
        unchanged(&rule.content, input.existing_rule_content_sha256.as_deref())?;
        rule.content = input.new_rule_content;
        rule.modified = at;
        rule.modified_by = actor;
        Ok(Some(Happened::RuleUpdated(rule.clone())))
    });
    let changed = changed.await?;
    let rule = changed.rules.iter().find(|rule| rule.name == name);
    Ok(UpdatePullRequestApprovalRuleContentOutput { approval_rule: rule.map(pull::rule) })
}

pub(crate) async fn delete_pull_request_approval_rule(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DeletePullRequestApprovalRuleInput,
) -> Result<DeletePullRequestApprovalRuleOutput, Fault> {
    let action = "codecommit:DeletePullRequestApprovalRule";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let name = input.approval_rule_name;
    let found = pull.rules.iter().find(|rule| rule.name == name);
    let approval_rule_id = found.map(|rule| rule.id.clone());
    change_open(codecommit, ctx, (&repository, &pull), move |pull| {
        let at = pull.rules.iter().position(|rule| rule.name == name);
        let at = at.ok_or_else(|| no_rule(&name))?;
        if pull.rules[at].template.is_some() {
            return Err(Fault::new(
                "CannotDeleteApprovalRuleFromTemplateException",
                format!("Approval rule {name} comes from a template."),
            ));
        }
        Ok(Some(Happened::RuleDeleted(pull.rules.remove(at))))
    })
    .await?;
    Ok(DeletePullRequestApprovalRuleOutput { approval_rule_id })
}

pub(crate) async fn update_pull_request_approval_state(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdatePullRequestApprovalStateInput,
) -> Result<(), Fault> {
    let action = "codecommit:UpdatePullRequestApprovalState";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let actor = ctx.principal.arn.clone();
    change_open(codecommit, ctx, (&repository, &pull), move |pull| {
        current(pull, &input.revision_id)?;
        if pull.author == actor {
            return Err(Fault::new(
                "PullRequestCannotBeApprovedByAuthorException",
                "Who created a pull request cannot approve it.",
            ));
        }
        match input.approval_state {
            ApprovalState::Approve if pull.approvals.len() >= MOST_APPROVALS => {
                return Err(Fault::new(
                    "MaximumNumberOfApprovalsExceededException",
                    format!("A pull request can have at most {MOST_APPROVALS} approvals."),
                ));
            }
            ApprovalState::Approve => pull.approvals.insert(actor),
            ApprovalState::Revoke => pull.approvals.remove(&actor),
        };
        Ok(Some(Happened::Approved(input.approval_state)))
    })
    .await
    .map(|_| ())
}

pub(crate) async fn override_pull_request_approval_rules(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: OverridePullRequestApprovalRulesInput,
) -> Result<(), Fault> {
    let action = "codecommit:OverridePullRequestApprovalRules";
    let (repository, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    let actor = ctx.principal.arn.clone();
    change_open(codecommit, ctx, (&repository, &pull), move |pull| {
        current(pull, &input.revision_id)?;
        let status = input.override_status;
        let over = status == OverrideStatus::Override;
        if over == pull.overridden.is_some() {
            return Err(Fault::new(
                "OverrideAlreadySetException",
                "The override status of the pull request is this one already.",
            ));
        }
        pull.overridden = over.then_some(actor);
        Ok(Some(Happened::Overridden(status)))
    })
    .await
    .map(|_| ())
}

pub(crate) async fn evaluate_pull_request_approval_rules(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: EvaluatePullRequestApprovalRulesInput,
) -> Result<EvaluatePullRequestApprovalRulesOutput, Fault> {
    let action = "codecommit:EvaluatePullRequestApprovalRules";
    let (_, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    current(&pull, &input.revision_id)?;
    let (satisfied, not) = pull.evaluate();
    let evaluation = Evaluation {
        approved: Some(pull.is_approved()),
        overridden: Some(pull.overridden.is_some()),
        approval_rules_satisfied: Some(satisfied),
        approval_rules_not_satisfied: Some(not),
    };
    Ok(EvaluatePullRequestApprovalRulesOutput { evaluation: Some(evaluation) })
}

pub(crate) async fn get_pull_request_approval_states(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetPullRequestApprovalStatesInput,
) -> Result<GetPullRequestApprovalStatesOutput, Fault> {
    let action = "codecommit:GetPullRequestApprovalStates";
    let (_, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    current(&pull, &input.revision_id)?;
    let approval = |arn: &String| Approval {
        user_arn: Some(arn.clone()),
        approval_state: Some(ApprovalState::Approve),
    };
    let approvals = Some(pull.approvals.iter().map(approval).collect());
    Ok(GetPullRequestApprovalStatesOutput { approvals })
}

pub(crate) async fn get_pull_request_override_state(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetPullRequestOverrideStateInput,
) -> Result<GetPullRequestOverrideStateOutput, Fault> {
    let action = "codecommit:GetPullRequestOverrideState";
    let (_, pull) = named(codecommit, ctx, &input.pull_request_id, action)?;
    current(&pull, &input.revision_id)?;
    Ok(GetPullRequestOverrideStateOutput {
        overridden: Some(pull.overridden.is_some()),
        overrider: pull.overridden.clone(),
    })
}

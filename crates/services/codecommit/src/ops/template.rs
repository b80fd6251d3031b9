//! Templates of approval rules.

use super::{approval, find, pull_request::page_size};
use crate::{
    CodeCommit,
    api::*,
    approval::Rule,
    faults,
    model::{self, Repository},
};
use std::{collections::BTreeSet, sync::Arc};
use wire::{Context, Fault, Page, sigv4::sha256_hex};

/// <https://docs.aws.amazon.com/codecommit/latest/userguide/limits.html>
const MOST_TEMPLATES: usize = 1000;
const MOST_OF_REPOSITORY: usize = 25;
const MOST_NAMES: usize = 100;
const LONGEST_DESCRIPTION: usize = 1000;
/// So many are on a page, at most and unless asked otherwise.
const PAGE: usize = 1000;

type Template = model::ApprovalRuleTemplate;

fn no_template(name: &str) -> Fault {
    let message = format!("Approval rule template {name} does not exist");
    Fault::new("ApprovalRuleTemplateDoesNotExistException", message)
}

fn name_exists(name: &str) -> Fault {
    let message = format!("Approval rule template {name} exists already.");
    Fault::new("ApprovalRuleTemplateNameAlreadyExistsException", message)
}

fn name(name: &str) -> Result<(), Fault> {
    approval::name(name, "InvalidApprovalRuleTemplateNameException")
}

fn content(content: &str) -> Result<(), Fault> {
    let code = "InvalidApprovalRuleTemplateContentException";
    let read = Rule::read(content);
    read.map(|_| ()).map_err(|why| Fault::new(code, format!("The rule is not valid: {why}")))
}

fn description(text: Option<String>) -> Result<Option<String>, Fault> {
    match text.as_ref().is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
        false => Ok(text.filter(|text| !text.is_empty())),
        true => Err(Fault::new(
            "InvalidApprovalRuleTemplateDescriptionException",
            format!("A description has at most {LONGEST_DESCRIPTION} characters."),
        )),
    }
}

fn described(template: &Template) -> ApprovalRuleTemplate {
    let rule = &template.rule;
    ApprovalRuleTemplate {
        approval_rule_template_id: Some(rule.id.clone()),
        approval_rule_template_name: Some(rule.name.clone()),
        approval_rule_template_description: template.description.clone(),
        approval_rule_template_content: Some(rule.content.clone()),
        rule_content_sha256: Some(sha256_hex(rule.content.as_bytes())),
        last_modified_date: Some(rule.modified),
        creation_date: Some(rule.created),
        last_modified_user: Some(rule.modified_by.clone()),
    }
}

fn get(codecommit: &CodeCommit, ctx: &Context, name: &str) -> Result<Arc<Template>, Fault> {
    let found = codecommit.store.read().get::<Template>(&Template::key_of(&ctx.realm(), name));
    found.ok_or_else(|| no_template(name))
}

pub(crate) async fn create_approval_rule_template(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: CreateApprovalRuleTemplateInput,
) -> Result<CreateApprovalRuleTemplateOutput, Fault> {
    ctx.authorise("codecommit:CreateApprovalRuleTemplate", "*")?;
    name(&input.approval_rule_template_name)?;
    content(&input.approval_rule_template_content)?;
    let template = Template {
        realm: ctx.realm(),
        rule: model::ApprovalRule {
            id: codecommit.world.uuid(),
            name: input.approval_rule_template_name,
            content: input.approval_rule_template_content,
            created: ctx.now,
            modified: ctx.now,
            modified_by: ctx.principal.arn.clone(),
            template: None,
        },
        description: description(input.approval_rule_template_description)?,
        repositories: BTreeSet::new(),
    };
    let approval_rule_template = Some(described(&template));
    codecommit
        .store
        .write(move |tx| {
            if tx.get::<Template>(&Template::key_of(&template.realm, &template.rule.name)).is_some()
            {
                return Err(name_exists(&template.rule.name));
            }
            let prefix = format!("{}/", template.realm);
            if tx.scan_prefix::<Template>(&prefix).count() >= MOST_TEMPLATES {
                return Err(Fault::new(
                    "NumberOfRuleTemplatesExceededException",
                    format!("An account can have at most {MOST_TEMPLATES} templates in a region."),
                ));
            }
            tx.put(template);
            Ok(())
        })
        .await?;
    Ok(CreateApprovalRuleTemplateOutput { approval_rule_template })
}

pub(crate) async fn get_approval_rule_template(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: GetApprovalRuleTemplateInput,
) -> Result<GetApprovalRuleTemplateOutput, Fault> {
    ctx.authorise("codecommit:GetApprovalRuleTemplate", "*")?;
    let found = get(codecommit, ctx, &input.approval_rule_template_name)?;
    Ok(GetApprovalRuleTemplateOutput { approval_rule_template: Some(described(&found)) })
}

pub(crate) async fn delete_approval_rule_template(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DeleteApprovalRuleTemplateInput,
) -> Result<DeleteApprovalRuleTemplateOutput, Fault> {
    ctx.authorise("codecommit:DeleteApprovalRuleTemplate", "*")?;
    let name = input.approval_rule_template_name;
    let key = Template::key_of(&ctx.realm(), &name);
    let id = codecommit.store.write(move |tx| {
        let found = tx.get::<Template>(&key).ok_or_else(|| no_template(&name))?;
        if !found.repositories.is_empty() {
            return Err(Fault::new(
                "ApprovalRuleTemplateInUseException",
                "The template is associated with repositories. Disassociate it from all of them first.",
            ));
        }
        tx.delete::<Template>(&key);
        Ok(found.rule.id.clone())
    });
    Ok(DeleteApprovalRuleTemplateOutput { approval_rule_template_id: Some(id.await?) })
}

/// Changes a template as it is now.
async fn change(
    codecommit: &CodeCommit,
    ctx: &Context,
    name: &str,
    change: impl FnOnce(&mut Template) -> Result<(), Fault> + Send + 'static,
) -> Result<Option<ApprovalRuleTemplate>, Fault> {
    let key = Template::key_of(&ctx.realm(), name);
    let (name, actor, at) = (name.to_owned(), ctx.principal.arn.clone(), ctx.now);
    let changed = codecommit.store.write(move |tx| {
        let found = tx.get::<Template>(&key).ok_or_else(|| no_template(&name))?;
        let mut template = Template::clone(&found);
        change(&mut template)?;
        if template.rule.name != name {
            if tx.get::<Template>(&Template::key_of(&template.realm, &template.rule.name)).is_some()
            {
                return Err(name_exists(&template.rule.name));
            }
            tx.delete::<Template>(&key);
        }
        template.rule.modified = at;
        template.rule.modified_by = actor;
        let described = described(&template);
        tx.put(template);
        Ok(described)
    });
    changed.await.map(Some)
}

pub(crate) async fn update_approval_rule_template_content(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdateApprovalRuleTemplateContentInput,
) -> Result<UpdateApprovalRuleTemplateContentOutput, Fault> {
    ctx.authorise("codecommit:UpdateApprovalRuleTemplateContent", "*")?;
    content(&input.new_rule_content)?;
    let name = input.approval_rule_template_name.clone();
    let changed = change(codecommit, ctx, &name, move |template| {
        let known = input.existing_rule_content_sha256.as_deref();
        approval::unchanged(&template.rule.content, known)?;
        template.rule.content = input.new_rule_content;
        Ok(())
    });
    let approval_rule_template = changed.await?;
    Ok(UpdateApprovalRuleTemplateContentOutput { approval_rule_template })
}

pub(crate) async fn update_approval_rule_template_description(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdateApprovalRuleTemplateDescriptionInput,
) -> Result<UpdateApprovalRuleTemplateDescriptionOutput, Fault> {
    ctx.authorise("codecommit:UpdateApprovalRuleTemplateDescription", "*")?;
    let description = description(Some(input.approval_rule_template_description))?;
    let changed = change(codecommit, ctx, &input.approval_rule_template_name, |template| {
        template.description = description;
        Ok(())
    });
    let approval_rule_template = changed.await?;
    Ok(UpdateApprovalRuleTemplateDescriptionOutput { approval_rule_template })
}

pub(crate) async fn update_approval_rule_template_name(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: UpdateApprovalRuleTemplateNameInput,
) -> Result<UpdateApprovalRuleTemplateNameOutput, Fault> {
    ctx.authorise("codecommit:UpdateApprovalRuleTemplateName", "*")?;
    let new = input.new_approval_rule_template_name;
    name(&new)?;
    let changed = change(codecommit, ctx, &input.old_approval_rule_template_name, |template| {
        template.rule.name = new;
        Ok(())
    });
    let approval_rule_template = changed.await?;
    Ok(UpdateApprovalRuleTemplateNameOutput { approval_rule_template })
}

/// Associates a template with a repository, or takes it from it.
async fn associate(
    codecommit: &CodeCommit,
    ctx: &Context,
    (template, repository, action): (&str, &str, &str),
    associated: bool,
) -> Result<(), Fault> {
    let repository = find(codecommit, ctx, repository, action)?;
    let (key, name) = (Template::key_of(&ctx.realm(), template), template.to_owned());
    let id = repository.id.clone();
    let prefix = format!("{}/", ctx.realm());
    codecommit
        .store
        .write(move |tx| {
            let found = tx.get::<Template>(&key).ok_or_else(|| no_template(&name))?;
            let of = tx.scan_prefix::<Template>(&prefix);
            let of = of.filter(|template| template.repositories.contains(&id)).count();
            if associated && of >= MOST_OF_REPOSITORY && !found.repositories.contains(&id) {
                return Err(Fault::new(
                    "MaximumRuleTemplatesAssociatedWithRepositoryException",
                    format!("A repository can have at most {MOST_OF_REPOSITORY} templates."),
                ));
            }
            tx.update::<Template>(&key, |template| {
                match associated {
                    true => template.repositories.insert(id),
                    false => template.repositories.remove(&id),
                };
            });
            Ok(())
        })
        .await
}

pub(crate) async fn associate_approval_rule_template_with_repository(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: AssociateApprovalRuleTemplateWithRepositoryInput,
) -> Result<(), Fault> {
    let action = "codecommit:AssociateApprovalRuleTemplateWithRepository";
    let which = (&*input.approval_rule_template_name, &*input.repository_name, action);
    associate(codecommit, ctx, which, true).await
}

pub(crate) async fn disassociate_approval_rule_template_from_repository(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: DisassociateApprovalRuleTemplateFromRepositoryInput,
) -> Result<(), Fault> {
    let action = "codecommit:DisassociateApprovalRuleTemplateFromRepository";
    let which = (&*input.approval_rule_template_name, &*input.repository_name, action);
    associate(codecommit, ctx, which, false).await
}

/// [`associate`] for many repositories: the names of those that it was done for, and what was wrong with the others
/// (name, code and message).
async fn associate_all(
    codecommit: &CodeCommit,
    ctx: &Context,
    (template, repositories, action): (&str, Vec<String>, &str),
    associated: bool,
) -> Result<(Vec<String>, Vec<(String, Fault)>), Fault> {
    if repositories.is_empty() {
        return Err(Fault::new(
            "RepositoryNamesRequiredException",
            "A repository name is required.",
        ));
    }
    if repositories.len() > MOST_NAMES {
        return Err(Fault::new(
            "MaximumRepositoryNamesExceededException",
            format!("The maximum number of allowed repository names is {MOST_NAMES}."),
        ));
    }
    get(codecommit, ctx, template)?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for repository in repositories {
        match associate(codecommit, ctx, (template, &repository, action), associated).await {
            Ok(()) => done.push(repository),
            Err(fault) => failed.push((repository, fault)),
        }
    }
    Ok((done, failed))
}

pub(crate) async fn batch_associate_approval_rule_template_with_repositories(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: BatchAssociateApprovalRuleTemplateWithRepositoriesInput,
) -> Result<BatchAssociateApprovalRuleTemplateWithRepositoriesOutput, Fault> {
    let action = "codecommit:BatchAssociateApprovalRuleTemplateWithRepositories";
    let which = (&*input.approval_rule_template_name, input.repository_names, action);
    let (done, failed) = associate_all(codecommit, ctx, which, true).await?;
    let error =
        |(name, fault): (String, Fault)| BatchAssociateApprovalRuleTemplateWithRepositoriesError {
            repository_name: Some(name),
            error_code: Some(fault.code.to_string()),
            error_message: Some(fault.message),
        };
    Ok(BatchAssociateApprovalRuleTemplateWithRepositoriesOutput {
        associated_repository_names: Some(done),
        errors: Some(failed.into_iter().map(error).collect()),
    })
}

pub(crate) async fn batch_disassociate_approval_rule_template_from_repositories(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: BatchDisassociateApprovalRuleTemplateFromRepositoriesInput,
) -> Result<BatchDisassociateApprovalRuleTemplateFromRepositoriesOutput, Fault> {
    let action = "codecommit:BatchDisassociateApprovalRuleTemplateFromRepositories";
    let which = (&*input.approval_rule_template_name, input.repository_names, action);
    let (done, failed) = associate_all(codecommit, ctx, which, false).await?;
    let error = |(name, fault): (String, Fault)| {
        BatchDisassociateApprovalRuleTemplateFromRepositoriesError {
            repository_name: Some(name),
            error_code: Some(fault.code.to_string()),
            error_message: Some(fault.message),
        }
    };
    Ok(BatchDisassociateApprovalRuleTemplateFromRepositoriesOutput {
        disassociated_repository_names: Some(done),
        errors: Some(failed.into_iter().map(error).collect()),
    })
}

pub(crate) async fn list_approval_rule_templates(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListApprovalRuleTemplatesInput,
) -> Result<ListApprovalRuleTemplatesOutput, Fault> {
    ctx.authorise("codecommit:ListApprovalRuleTemplates", "*")?;
    let size = page_size(input.max_results, PAGE)?;
    let snapshot = codecommit.store.read();
    let all = snapshot.scan_prefix::<Template>(&format!("{}/", ctx.realm()));
    let names = all.map(|template| (template.rule.name.clone(), template.rule.name.clone()));
    let page = Page::take("ListApprovalRuleTemplates", input.next_token.as_deref(), size, names);
    let page = page.map_err(|_| faults::token())?;
    let (approval_rule_template_names, next_token) = (Some(page.items), page.next_token);
    Ok(ListApprovalRuleTemplatesOutput { approval_rule_template_names, next_token })
}

pub(crate) async fn list_associated_approval_rule_templates_for_repository(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListAssociatedApprovalRuleTemplatesForRepositoryInput,
) -> Result<ListAssociatedApprovalRuleTemplatesForRepositoryOutput, Fault> {
    let action = "codecommit:ListAssociatedApprovalRuleTemplatesForRepository";
    let repository = find(codecommit, ctx, &input.repository_name, action)?;
    let size = page_size(input.max_results, PAGE)?;
    let snapshot = codecommit.store.read();
    let all = snapshot.scan_prefix::<Template>(&format!("{}/", ctx.realm()));
    let of = all.filter(|template| template.repositories.contains(&repository.id));
    let names = of.map(|template| (template.rule.name.clone(), template.rule.name.clone()));
    let listing = format!("ListAssociatedApprovalRuleTemplatesForRepository {}", repository.name);
    let page = Page::take(&listing, input.next_token.as_deref(), size, names);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListAssociatedApprovalRuleTemplatesForRepositoryOutput {
        approval_rule_template_names: Some(page.items),
        next_token: page.next_token,
    })
}

pub(crate) async fn list_repositories_for_approval_rule_template(
    codecommit: &CodeCommit,
    ctx: &Context,
    input: ListRepositoriesForApprovalRuleTemplateInput,
) -> Result<ListRepositoriesForApprovalRuleTemplateOutput, Fault> {
    ctx.authorise("codecommit:ListRepositoriesForApprovalRuleTemplate", "*")?;
    let size = page_size(input.max_results, PAGE)?;
    let template = get(codecommit, ctx, &input.approval_rule_template_name)?;
    let snapshot = codecommit.store.read();
    let all = snapshot.scan_prefix::<Repository>(&format!("{}/", ctx.realm()));
    let of = all.filter(|repository| template.repositories.contains(&repository.id));
    let names = of.map(|repository| (repository.name.clone(), repository.name.clone()));
    let listing = format!("ListRepositoriesForApprovalRuleTemplate {}", template.rule.name);
    let page = Page::take(&listing, input.next_token.as_deref(), size, names);
    let page = page.map_err(|_| faults::token())?;
    Ok(ListRepositoriesForApprovalRuleTemplateOutput {
        repository_names: Some(page.items),
        next_token: page.next_token,
    })
}

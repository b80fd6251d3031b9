//! Templates.

use super::{find, given::template_text};
use crate::{
    CloudFormation,
    api::*,
    faults,
    model::{ChangeSet, Template as Kept},
    template::{self, Template},
};
use std::{collections::BTreeSet, sync::Arc};
use wire::{Context, Fault};

/// The capabilities that a template needs, and why, as AWS says it.
fn needed(template: &Template) -> (Vec<Capability>, Option<String>) {
    match template::capabilities(template) {
        None => (Vec::new(), None),
        Some((capability, types)) => {
            let reason =
                format!("The following resource(s) require capabilities: [{}]", types.join(", "));
            (Capability::parse(capability).into_iter().collect(), Some(reason))
        }
    }
}

pub(crate) async fn validate_template(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: ValidateTemplateInput,
) -> Result<ValidateTemplateOutput, Fault> {
    ctx.authorise("cloudformation:ValidateTemplate", "*")?;
    let text = template_text(house, ctx, input.template_body, input.template_url).await?;
    let (template, whole) = Template::look(&text)?;
    if whole {
        template::check(&template, &house.surroundings().catalog)?;
    }
    let (capabilities, capabilities_reason) = needed(&template);
    let parameters = template.parameters.iter().map(|(name, parameter)| TemplateParameter {
        parameter_key: Some(name.clone()),
        default_value: parameter.default.clone(),
        no_echo: Some(parameter.no_echo),
        description: parameter.description.clone(),
    });
    Ok(ValidateTemplateOutput {
        parameters: Some(parameters.collect()),
        description: template.description.clone(),
        capabilities: Some(capabilities),
        capabilities_reason,
        declared_transforms: Some(template.declared_transforms.clone()),
    })
}

pub(crate) async fn get_template_summary(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: GetTemplateSummaryInput,
) -> Result<GetTemplateSummaryOutput, Fault> {
    let text = match &input.stack_name {
        Some(name) => {
            let stack = find(house, ctx, "GetTemplateSummary", name)?;
            kept(house, &stack.settings.template)?.given().to_owned()
        }
        None => {
            ctx.authorise("cloudformation:GetTemplateSummary", "*")?;
            template_text(house, ctx, input.template_body, input.template_url).await?
        }
    };
    let (template, whole) = Template::look(&text)?;
    if whole {
        template::check(&template, &house.surroundings().catalog)?;
    }
    let (capabilities, capabilities_reason) = needed(&template);
    let parameters = template.parameters.iter().map(|(name, parameter)| ParameterDeclaration {
        parameter_key: Some(name.clone()),
        default_value: parameter.default.clone(),
        parameter_type: Some(parameter.kind.clone()),
        no_echo: Some(parameter.no_echo),
        description: parameter.description.clone(),
        parameter_constraints: Some(ParameterConstraints {
            allowed_values: parameter.allowed_values.clone(),
        }),
    });
    let types: BTreeSet<String> =
        template.resources.values().map(|resource| resource.kind.clone()).collect();
    Ok(GetTemplateSummaryOutput {
        parameters: Some(parameters.collect()),
        description: template.description.clone(),
        capabilities: Some(capabilities),
        capabilities_reason,
        resource_types: Some(types.into_iter().collect()),
        version: template.version.clone(),
        metadata: template.metadata.as_ref().map(ToString::to_string),
        declared_transforms: Some(template.declared_transforms.clone()),
        ..GetTemplateSummaryOutput::default()
    })
}

/// A template. A stack that is only reviewed has an empty one.
fn kept(house: &CloudFormation, id: &str) -> Result<Arc<Kept>, Fault> {
    if id.is_empty() {
        let (id, body, original) = (String::new(), "{}".to_owned(), None);
        return Ok(Arc::new(Kept { id, body, original }));
    }
    let kept = house.store.read().get::<Kept>(id);
    kept.ok_or_else(|| faults::validation("The stack's template is gone"))
}

pub(crate) async fn get_template(
    house: &Arc<CloudFormation>,
    ctx: &Context,
    input: GetTemplateInput,
) -> Result<GetTemplateOutput, Fault> {
    let id = match (&input.stack_name, &input.change_set_name) {
        (stack, Some(change_set)) => {
            let found: Arc<ChangeSet> =
                super::change_set::find(house, ctx, "GetTemplate", change_set, stack.as_deref())?;
            found.settings.template.clone()
        }
        (Some(name), None) => find(house, ctx, "GetTemplate", name)?.settings.template.clone(),
        (None, None) => {
            return Err(faults::validation(
                "StackName is required if ChangeSetName is not specified.",
            ));
        }
    };
    let kept = kept(house, &id)?;
    let body = match input.template_stage {
        Some(TemplateStage::Processed) => &kept.body,
        _ => kept.given(),
    };
    Ok(GetTemplateOutput {
        template_body: Some(body.to_owned()),
        stages_available: Some(vec![TemplateStage::Original, TemplateStage::Processed]),
    })
}

//! Reading values.

use super::{Named, arn, latest, open, page, shown, versions};
use crate::{
    Ssm,
    api::{
        GetParameterHistoryRequest, GetParameterHistoryResult, GetParameterRequest,
        GetParameterResult, GetParametersByPathRequest, GetParametersByPathResult,
        GetParametersRequest, GetParametersResult, Parameter, ParameterHistory, ParameterTier,
        ParameterType,
    },
    faults, filter,
    model::{Parameter as Record, Version},
};
use std::sync::Arc;
use store::Snapshot;
use wire::{Context, Fault};

/// The ARN that policies are asked about for a name that may be anything.
pub(crate) fn arn_of(ctx: &Context, text: &str) -> String {
    match Named::read(ctx, text) {
        Ok(named) => named.arn(ctx),
        // An ARN of elsewhere stands for itself.
        Err(_) => text.to_owned(),
    }
}

/// What a name stands for: the parameter, one version of it, and the selector (`:3`, `:prod`) that chose it.
type Selected = (Arc<Record>, Arc<Version>, Option<String>);

/// The parameter and the version of it that `text` names.
fn select(snapshot: &Snapshot, ctx: &Context, text: &str) -> Result<Selected, Fault> {
    let named = Named::read(ctx, text)?;
    let parameter = named.find(snapshot, ctx).ok_or_else(|| faults::not_found(text))?;
    let Some(selector) = named.selector else {
        let version = latest(snapshot, &parameter);
        return Ok((parameter, version, None));
    };
    let version = match selector.parse::<i64>() {
        Ok(number) => snapshot
            .get::<Version>(&Version::key_of(&parameter.realm, &parameter.name, number.max(0)))
            .ok_or_else(|| faults::no_version(&parameter.name, &selector)),
        Err(_) => versions(snapshot, &parameter)
            .into_iter()
            .find(|version| version.labels.contains(&selector))
            .ok_or_else(|| faults::no_label(&parameter.name, &selector)),
    };
    Ok((parameter, version?, Some(format!(":{selector}"))))
}

fn answer(
    ssm: &Ssm,
    parameter: &Record,
    version: &Version,
    selector: Option<String>,
    decrypt: bool,
) -> Result<Parameter, Fault> {
    Ok(Parameter {
        name: Some(parameter.name.clone()),
        r#type: ParameterType::parse(&parameter.kind),
        value: Some(shown(ssm, version, decrypt)?),
        version: Some(version.version),
        selector,
        source_result: None,
        last_modified_date: Some(version.modified),
        arn: Some(parameter.arn()),
        data_type: Some(version.data_type.clone()),
    })
}

/// What [`Ssm::value_for_task`] gives.
pub(crate) fn plain_value(ssm: &Ssm, ctx: &Context, text: &str) -> Result<String, Fault> {
    ctx.authorise("ssm:GetParameters", &arn_of(ctx, text))?;
    let (_, version, _) = select(&ssm.store.read(), ctx, text)?;
    open(ssm, &version)
}

pub(crate) async fn get_parameter(
    ssm: &Ssm,
    ctx: &Context,
    input: GetParameterRequest,
) -> Result<GetParameterResult, Fault> {
    ctx.authorise("ssm:GetParameter", &arn_of(ctx, &input.name))?;
    let (parameter, version, selector) = select(&ssm.store.read(), ctx, &input.name)?;
    let decrypt = input.with_decryption.unwrap_or(false);
    let answer = answer(ssm, &parameter, &version, selector, decrypt)?;
    Ok(GetParameterResult { parameter: Some(answer) })
}

pub(crate) async fn get_parameters(
    ssm: &Ssm,
    ctx: &Context,
    input: GetParametersRequest,
) -> Result<GetParametersResult, Fault> {
    for name in &input.names {
        ctx.authorise("ssm:GetParameters", &arn_of(ctx, name))?;
    }
    let decrypt = input.with_decryption.unwrap_or(false);
    let snapshot = ssm.store.read();
    let (mut parameters, mut invalid) = (Vec::new(), Vec::new());
    for name in input.names {
        match select(&snapshot, ctx, &name) {
            Ok((parameter, version, selector)) => {
                parameters.push(answer(ssm, &parameter, &version, selector, decrypt)?);
            }
            Err(_) => invalid.push(name),
        }
    }
    Ok(GetParametersResult { parameters: Some(parameters), invalid_parameters: Some(invalid) })
}

pub(crate) async fn get_parameters_by_path(
    ssm: &Ssm,
    ctx: &Context,
    input: GetParametersByPathRequest,
) -> Result<GetParametersByPathResult, Fault> {
    ctx.authorise("ssm:GetParametersByPath", &arn(ctx, &input.path))?;
    if !input.path.starts_with('/') {
        return Err(faults::invalid(
            "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a \
             forward slash \"/\".",
        ));
    }
    let filters = filter::for_path(input.parameter_filters)?;
    let recursive = input.recursive.unwrap_or(false);
    let decrypt = input.with_decryption.unwrap_or(false);
    let below = format!("{}/", input.path.trim_end_matches('/'));
    let snapshot = ssm.store.read();
    let prefix = Record::key_of(&ctx.realm(), &below);
    let mut found = Vec::new();
    for parameter in snapshot.scan_prefix::<Record>(&prefix) {
        if parameter.is_over(ctx.now) || (!recursive && parameter.name[below.len()..].contains('/'))
        {
            continue;
        }
        if let Some((version, label)) = filter::version(&snapshot, &parameter, &filters) {
            found.push((parameter.name.clone(), (parameter, version, label)));
        }
    }
    let token = input.next_token.as_deref();
    let listing = format!("GetParametersByPath {below}");
    let page = page(&listing, token, input.max_results, 10, found.into_iter())?;
    let parameters = page.items.into_iter().map(|(parameter, version, label)| {
        answer(ssm, &parameter, &version, label.map(|label| format!(":{label}")), decrypt)
    });
    Ok(GetParametersByPathResult {
        parameters: Some(parameters.collect::<Result<_, _>>()?),
        next_token: page.next_token,
    })
}

pub(crate) async fn get_parameter_history(
    ssm: &Ssm,
    ctx: &Context,
    input: GetParameterHistoryRequest,
) -> Result<GetParameterHistoryResult, Fault> {
    let named = Named::read(ctx, &input.name)?;
    ctx.authorise("ssm:GetParameterHistory", &named.arn(ctx))?;
    let snapshot = ssm.store.read();
    let parameter = named.find(&snapshot, ctx).ok_or_else(|| faults::not_found(&input.name))?;
    let ordered = versions(&snapshot, &parameter)
        .into_iter()
        .map(|version| (format!("{:019}", version.version), version));
    let token = input.next_token.as_deref();
    let listing = format!("GetParameterHistory {}", parameter.name);
    let page = page(&listing, token, input.max_results, 50, ordered)?;
    let decrypt = input.with_decryption.unwrap_or(false);
    let parameters = page.items.iter().map(|version| history(ssm, &parameter, version, decrypt));
    Ok(GetParameterHistoryResult {
        parameters: Some(parameters.collect::<Result<_, _>>()?),
        next_token: page.next_token,
    })
}

fn history(
    ssm: &Ssm,
    parameter: &Record,
    version: &Version,
    decrypt: bool,
) -> Result<ParameterHistory, Fault> {
    Ok(ParameterHistory {
        name: Some(parameter.name.clone()),
        r#type: ParameterType::parse(&parameter.kind),
        key_id: version.key_id.clone(),
        last_modified_date: Some(version.modified),
        last_modified_user: Some(version.modified_by.clone()),
        description: version.description.clone(),
        value: Some(shown(ssm, version, decrypt)?),
        allowed_pattern: version.allowed_pattern.clone(),
        version: Some(version.version),
        labels: Some(version.labels.iter().cloned().collect()),
        tier: ParameterTier::parse(&version.tier),
        policies: Some(super::parameter::policies(version)),
        data_type: Some(version.data_type.clone()),
    })
}

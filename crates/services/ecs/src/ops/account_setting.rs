//! Account settings. Those that this engine cannot have both ways are fixed at the value that describes it.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-account-settings.html>

use super::listing::page;
use crate::{Ecs, api::*, faults, model::AccountSetting};
use std::collections::BTreeMap;
use wire::{Context, Fault};

/// Each setting's default, and the values that it can be set to here.
fn rule(name: SettingName) -> (&'static str, &'static [&'static str]) {
    match name {
        // The long formats and awsvpc trunking are how this engine works; there is no other way to have them.
        SettingName::ServiceLongArnFormat
        | SettingName::TaskLongArnFormat
        | SettingName::ContainerInstanceLongArnFormat => ("enabled", &["enabled"]),
        SettingName::ContainerInsights => ("disabled", &["enabled", "disabled", "enhanced"]),
        SettingName::DefaultLogDriverMode => ("non-blocking", &["blocking", "non-blocking"]),
        SettingName::FargateTaskRetirementWaitPeriod => ("7", &["0", "7", "14"]),
        SettingName::TagResourceAuthorization => ("on", &["on"]),
        SettingName::AwsvpcTrunking
        | SettingName::FargateFIPSMode
        | SettingName::FargateEventWindows
        | SettingName::GuardDutyActivate => ("disabled", &["disabled"]),
    }
}

const ALL: [SettingName; 11] = [
    SettingName::ServiceLongArnFormat,
    SettingName::TaskLongArnFormat,
    SettingName::ContainerInstanceLongArnFormat,
    SettingName::AwsvpcTrunking,
    SettingName::ContainerInsights,
    SettingName::FargateFIPSMode,
    SettingName::TagResourceAuthorization,
    SettingName::FargateTaskRetirementWaitPeriod,
    SettingName::GuardDutyActivate,
    SettingName::DefaultLogDriverMode,
    SettingName::FargateEventWindows,
];

fn root(ctx: &Context) -> String {
    format!("arn:aws:iam::{}:root", ctx.account())
}

fn answer(name: SettingName, value: &str, principal: &str) -> Setting {
    Setting {
        name: Some(name),
        value: Some(value.to_owned()),
        principal_arn: Some(principal.to_owned()),
        r#type: Some(SettingType::User),
    }
}

/// The value that counts for the caller.
pub(crate) fn effective(ecs: &Ecs, ctx: &Context, name: SettingName, principal: &str) -> String {
    let snapshot = ecs.store.read();
    let stored = |principal: &str| {
        let key = AccountSetting::key_of(&ctx.realm(), principal, name.as_str());
        snapshot.get::<AccountSetting>(&key).map(|setting| setting.value.clone())
    };
    stored(principal).or_else(|| stored(&root(ctx))).unwrap_or_else(|| rule(name).0.to_owned())
}

async fn put(
    ecs: &Ecs,
    ctx: &Context,
    name: SettingName,
    value: String,
    principal: String,
) -> Result<Option<Setting>, Fault> {
    let (_, values) = rule(name);
    if !values.contains(&value.as_str()) {
        return Err(faults::invalid(format!(
            "Neargate supports these values of {}: {}.",
            name.as_str(),
            values.join(", ")
        )));
    }
    let made = answer(name, &value, &principal);
    let setting =
        AccountSetting { realm: ctx.realm(), principal, name: name.as_str().to_owned(), value };
    ecs.store
        .write(move |tx| {
            tx.put(setting);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(Some(made))
}

pub(crate) async fn put_account_setting(
    ecs: &Ecs,
    ctx: &Context,
    input: PutAccountSettingRequest,
) -> Result<PutAccountSettingResponse, Fault> {
    ctx.authorise("ecs:PutAccountSetting", "*")?;
    let principal = input.principal_arn.unwrap_or_else(|| ctx.principal.arn.clone());
    let setting = put(ecs, ctx, input.name, input.value, principal).await?;
    Ok(PutAccountSettingResponse { setting })
}

pub(crate) async fn put_account_setting_default(
    ecs: &Ecs,
    ctx: &Context,
    input: PutAccountSettingDefaultRequest,
) -> Result<PutAccountSettingDefaultResponse, Fault> {
    ctx.authorise("ecs:PutAccountSettingDefault", "*")?;
    let setting = put(ecs, ctx, input.name, input.value, root(ctx)).await?;
    Ok(PutAccountSettingDefaultResponse { setting })
}

pub(crate) async fn delete_account_setting(
    ecs: &Ecs,
    ctx: &Context,
    input: DeleteAccountSettingRequest,
) -> Result<DeleteAccountSettingResponse, Fault> {
    ctx.authorise("ecs:DeleteAccountSetting", "*")?;
    let principal = input.principal_arn.unwrap_or_else(|| ctx.principal.arn.clone());
    let key = AccountSetting::key_of(&ctx.realm(), &principal, input.name.as_str());
    ecs.store
        .write(move |tx| {
            tx.delete::<AccountSetting>(&key);
            Ok::<_, Fault>(())
        })
        .await?;
    let value = effective(ecs, ctx, input.name, &principal);
    Ok(DeleteAccountSettingResponse { setting: Some(answer(input.name, &value, &principal)) })
}

pub(crate) async fn list_account_settings(
    ecs: &Ecs,
    ctx: &Context,
    input: ListAccountSettingsRequest,
) -> Result<ListAccountSettingsResponse, Fault> {
    ctx.authorise("ecs:ListAccountSettings", "*")?;
    let principal = input.principal_arn.unwrap_or_else(|| ctx.principal.arn.clone());
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    for name in ALL {
        let key = AccountSetting::key_of(&ctx.realm(), &principal, name.as_str());
        let own = ecs.store.read().get::<AccountSetting>(&key);
        let value = match (own, input.effective_settings.unwrap_or(false)) {
            (Some(own), _) => own.value.clone(),
            (None, true) => effective(ecs, ctx, name, &principal),
            (None, false) => continue,
        };
        if input.name.is_none_or(|wanted| wanted == name)
            && input.value.as_ref().is_none_or(|wanted| *wanted == value)
        {
            settings.insert(name.as_str().to_owned(), answer(name, &value, &principal));
        }
    }
    let (settings, next_token) = page(
        "ListAccountSettings",
        input.next_token.as_deref(),
        input.max_results,
        settings.into_iter(),
    )?;
    Ok(ListAccountSettingsResponse { settings: Some(settings), next_token })
}

//! Labels on versions.

use super::Named;
use crate::{
    Ssm,
    api::*,
    faults,
    model::{Parameter as Record, Version},
    rules,
};
use std::sync::Arc;
use store::Tx;
use wire::{Context, Fault};

fn all(tx: &Tx, parameter: &Record) -> Vec<Arc<Version>> {
    tx.scan_prefix::<Version>(&Version::prefix_of(&parameter.realm, &parameter.name)).collect()
}

fn put(tx: &mut Tx, version: &Version, change: impl FnOnce(&mut Version)) {
    let mut changed = version.clone();
    change(&mut changed);
    tx.put(changed);
}

pub(crate) async fn label_parameter_version(
    ssm: &Ssm,
    ctx: &Context,
    input: LabelParameterVersionRequest,
) -> Result<LabelParameterVersionResult, Fault> {
    let named = Named::read(ctx, &input.name)?;
    ctx.authorise("ssm:LabelParameterVersion", &named.arn(ctx))?;
    let found = named.find(&ssm.store.read(), ctx);
    let parameter = found.ok_or_else(|| faults::not_found(&input.name))?;
    let (labels, invalid): (Vec<String>, Vec<String>) =
        input.labels.into_iter().partition(|label| rules::is_label(label));
    let written = ssm.store.write(move |tx| {
        let versions = all(tx, &parameter);
        let number = input.parameter_version;
        let target = match number {
            Some(number) => versions.iter().find(|version| version.version == number),
            None => versions.last(),
        };
        let target = target.ok_or_else(|| {
            faults::no_version(&parameter.name, &number.unwrap_or_default().to_string())
        })?;
        let mut after = target.labels.clone();
        after.extend(labels.iter().cloned());
        if after.len() > rules::MOST_LABELS {
            return Err(Fault::new(
                "ParameterVersionLabelLimitExceeded",
                "A parameter version can have a maximum of 10 labels. Move one or more labels to another version \
                 and try again.",
            ));
        }
        for version in &versions {
            // A label is on one version at a time.
            if version.version != target.version
                && labels.iter().any(|label| version.labels.contains(label))
            {
                put(tx, version, |version| version.labels.retain(|label| !labels.contains(label)));
            }
        }
        put(tx, target, |version| version.labels = after);
        Ok(target.version)
    });
    let version = written.await?;
    Ok(LabelParameterVersionResult {
        invalid_labels: Some(invalid),
        parameter_version: Some(version),
    })
}

pub(crate) async fn unlabel_parameter_version(
    ssm: &Ssm,
    ctx: &Context,
    input: UnlabelParameterVersionRequest,
) -> Result<UnlabelParameterVersionResult, Fault> {
    let named = Named::read(ctx, &input.name)?;
    ctx.authorise("ssm:UnlabelParameterVersion", &named.arn(ctx))?;
    let found = named.find(&ssm.store.read(), ctx);
    let parameter = found.ok_or_else(|| faults::not_found(&input.name))?;
    let number = input.parameter_version;
    let written = ssm.store.write(move |tx| {
        let versions = all(tx, &parameter);
        let target = versions.iter().find(|version| version.version == number);
        let target =
            target.ok_or_else(|| faults::no_version(&parameter.name, &number.to_string()))?;
        let (removed, invalid): (Vec<String>, Vec<String>) =
            input.labels.into_iter().partition(|label| target.labels.contains(label));
        put(tx, target, |version| version.labels.retain(|label| !removed.contains(label)));
        Ok::<_, Fault>((removed, invalid))
    });
    let (removed, invalid) = written.await?;
    Ok(UnlabelParameterVersionResult {
        removed_labels: Some(removed),
        invalid_labels: Some(invalid),
    })
}

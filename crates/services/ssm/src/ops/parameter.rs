//! Parameters: put, delete, describe.

use super::{Named, arn, latest, page, remove};
use crate::{
    Ssm,
    api::*,
    faults, filter,
    model::{Parameter as Record, Policy, Value, Version},
    policy, rules,
};
use regex::RegexBuilder;
use std::collections::{BTreeMap, BTreeSet};
use store::Tx;
use wire::{Context, Fault};
use world::Timestamp;

/// The key that AWS seals SecureStrings with unless told otherwise.
pub(crate) const DEFAULT_KEY: &str = "alias/aws/ssm";
/// A compiled pattern may take so much memory.
const PATTERN_BYTES: usize = 1 << 20;

/// A put that keeps all rules that can be checked without the parameter.
struct Put {
    realm: String,
    name: String,
    value: String,
    kind: Option<ParameterType>,
    overwrite: bool,
    description: Option<String>,
    allowed_pattern: Option<String>,
    tier: Option<ParameterTier>,
    policies: Option<(Vec<Policy>, Option<Timestamp>)>,
    tags: BTreeMap<String, String>,
    key_id: Option<String>,
    now: Timestamp,
    by: String,
}

pub(crate) async fn put_parameter(
    ssm: &Ssm,
    ctx: &Context,
    input: PutParameterRequest,
) -> Result<PutParameterResult, Fault> {
    let named = Named::read(ctx, &input.name)?;
    let name = match named.find(&ssm.store.read(), ctx) {
        Some(parameter) => parameter.name.clone(),
        None => named.name.clone(),
    };
    let arn = arn(ctx, &name);
    ctx.authorise("ssm:PutParameter", &arn)?;
    if input.tags.as_ref().is_some_and(|tags| !tags.is_empty()) {
        ctx.authorise("ssm:AddTagsToResource", &arn)?;
    }
    rules::name(&name, &arn)?;
    if named.selector.is_some() {
        return Err(faults::invalid("Parameter name: a version or label can't be put."));
    }
    let put = checked(ctx, name, input)?;
    let sealer = ssm.sealer.clone();
    ssm.store
        .write(move |tx| {
            put.run(tx, |version, text| {
                Value::Sealed(sealer.seal(&version.seal_context(), text.as_bytes()))
            })
        })
        .await
}

fn checked(ctx: &Context, name: String, input: PutParameterRequest) -> Result<Put, Fault> {
    let overwrite = input.overwrite.unwrap_or(false);
    let tags = super::tag::collect(input.tags.unwrap_or_default())?;
    if overwrite && !tags.is_empty() {
        return Err(faults::invalid(
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please \
             remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or \
             RemoveTagsFromResource.",
        ));
    }
    if input.value.is_empty() {
        return Err(faults::invalid(
            "1 validation error detected: Value at 'value' failed to satisfy constraint: Member must have length \
             greater than or equal to 1",
        ));
    }
    if input.value.contains("{{") {
        return Err(faults::invalid(
            "Parameter value can't nest another parameter. Do not use \"{{}}\" in the value.",
        ));
    }
    match input.data_type.as_deref() {
        None | Some("" | "text") => {}
        Some("aws:ec2:image" | "aws:ssm:integration") => {
            return Err(faults::invalid("Neargate supports the data type text only."));
        }
        Some(_) => {
            return Err(faults::invalid(
                "The following data type is not supported: it must be text or aws:ec2:image.",
            ));
        }
    }
    if let Some(key) = &input.key_id
        && key != DEFAULT_KEY
        && *key != ctx.arn("kms", DEFAULT_KEY)
    {
        return Err(faults::no_kms());
    }
    let policies = input.policies.as_deref().map(policy::read).transpose()?;
    let allowed_pattern = input.allowed_pattern.filter(|pattern| !pattern.is_empty());
    Ok(Put {
        realm: ctx.realm(),
        name,
        value: input.value,
        kind: input.r#type,
        overwrite,
        description: input.description,
        allowed_pattern,
        tier: input.tier,
        policies,
        tags,
        key_id: input.key_id,
        now: ctx.now,
        by: ctx.principal.arn.clone(),
    })
}

fn check_pattern(pattern: &str, value: &str) -> Result<(), Fault> {
    let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build().map_err(|_| {
        Fault::new(
            "InvalidAllowedPatternException",
            "The request does not meet the regular expression requirement: the allowed pattern can't be read. \
             Neargate reads no look-around and no back-references.",
        )
    })?;
    if compiled.is_match(value) {
        return Ok(());
    }
    let message = format!("Parameter value, cannot be validated against allowedPattern: {pattern}");
    Err(Fault::new("ParameterPatternMismatchException", message))
}

impl Put {
    fn run(
        self,
        tx: &mut Tx,
        seal: impl FnOnce(&Version, &str) -> Value,
    ) -> Result<PutParameterResult, Fault> {
        let key = Record::key_of(&self.realm, &self.name);
        let before = match tx.get::<Record>(&key) {
            Some(parameter) if parameter.is_over(self.now) => {
                remove(tx, &self.realm, &self.name);
                None
            }
            before => before,
        };
        if before.is_some() && !self.overwrite {
            return Err(faults::exists());
        }
        let previous = before.as_ref().and_then(|parameter| {
            tx.get::<Version>(&Version::key_of(&self.realm, &self.name, parameter.latest))
        });
        let kind = self.kind(before.as_deref())?;
        let allowed_pattern = self
            .allowed_pattern
            .clone()
            .or_else(|| previous.as_ref().and_then(|version| version.allowed_pattern.clone()));
        if let Some(pattern) = &allowed_pattern {
            check_pattern(pattern, &self.value)?;
        }
        let kept = || {
            let policies = previous.as_ref().map(|version| version.policies.clone());
            (policies.unwrap_or_default(), before.as_ref().and_then(|parameter| parameter.expires))
        };
        let (policies, expires) = self.policies.clone().unwrap_or_else(kept);
        let tier = rules::tier(
            self.tier.map(ParameterTier::as_str),
            previous.as_ref().map(|version| version.tier.as_str()),
            self.value.len(),
            !policies.is_empty(),
        )?;
        let number = before.as_ref().map_or(1, |parameter| parameter.latest + 1);
        make_room(tx, &self.realm, &self.name)?;
        let mut version = Version {
            realm: self.realm.clone(),
            name: self.name.clone(),
            version: number,
            value: Value::Plain(String::new()),
            key_id: (kind == "SecureString").then(|| DEFAULT_KEY.to_owned()),
            modified: self.now,
            modified_by: self.by,
            description: self
                .description
                .or_else(|| previous.as_ref().and_then(|version| version.description.clone())),
            allowed_pattern,
            tier: tier.to_owned(),
            policies,
            data_type: "text".to_owned(),
            labels: BTreeSet::new(),
        };
        version.value = match kind {
            "SecureString" => seal(&version, &self.value),
            _ => Value::Plain(self.value),
        };
        let tags = before.as_ref().map_or(self.tags, |parameter| parameter.tags.clone());
        tx.put(version);
        tx.put(Record {
            realm: self.realm,
            name: self.name,
            kind: kind.to_owned(),
            latest: number,
            expires,
            tags,
        });
        Ok(PutParameterResult { version: Some(number), tier: ParameterTier::parse(tier) })
    }

    fn kind(&self, before: Option<&Record>) -> Result<&'static str, Fault> {
        let before = before.and_then(|parameter| ParameterType::parse(&parameter.kind));
        let kind = self.kind.or(before).ok_or_else(|| {
            faults::invalid("A parameter type is required when you create a parameter.")
        })?;
        if before.is_some_and(|before| before != kind) {
            return Err(Fault::new(
                "HierarchyTypeMismatchException",
                "Parameter Store does not support changing a parameter type in a hierarchy. For example, you can't \
                 change a parameter from a String type to a SecureString type. You must create a new, unique \
                 parameter.",
            ));
        }
        if self.key_id.is_some() && kind != ParameterType::SecureString {
            return Err(faults::invalid("KeyId is required for SecureString type parameter only."));
        }
        Ok(kind.as_str())
    }
}

/// Before the hundred and first version the oldest goes, unless a label holds it.
fn make_room(tx: &mut Tx, realm: &str, name: &str) -> Result<(), Fault> {
    let (count, oldest) = {
        let prefix = Version::prefix_of(realm, name);
        let mut versions = tx.scan_prefix::<Version>(&prefix);
        let oldest = versions.next();
        (versions.count() + usize::from(oldest.is_some()), oldest)
    };
    let Some(oldest) = oldest.filter(|_| count >= rules::MOST_VERSIONS) else { return Ok(()) };
    if !oldest.labels.is_empty() {
        return Err(Fault::new(
            "ParameterMaxVersionLimitExceeded",
            format!(
                "You attempted to create a new version of {name} by calling the PutParameter API with the \
                 overwrite flag. Version {}, the oldest version, can't be deleted because it has a label \
                 associated with it. Move the label to another version of the parameter, and try again.",
                oldest.version
            ),
        ));
    }
    tx.delete::<Version>(&Version::key_of(realm, name, oldest.version));
    Ok(())
}

pub(crate) async fn delete_parameter(
    ssm: &Ssm,
    ctx: &Context,
    input: DeleteParameterRequest,
) -> Result<DeleteParameterResult, Fault> {
    let named = Named::read(ctx, &input.name)?;
    ctx.authorise("ssm:DeleteParameter", &named.arn(ctx))?;
    let gone = || faults::not_found(&input.name);
    let parameter = named.find(&ssm.store.read(), ctx).ok_or_else(gone)?;
    let deleted = ssm.store.write(|tx| match remove(tx, &parameter.realm, &parameter.name) {
        true => Ok(()),
        false => Err(gone()),
    });
    deleted.await?;
    Ok(DeleteParameterResult::default())
}

pub(crate) async fn delete_parameters(
    ssm: &Ssm,
    ctx: &Context,
    input: DeleteParametersRequest,
) -> Result<DeleteParametersResult, Fault> {
    for name in &input.names {
        ctx.authorise("ssm:DeleteParameters", &super::value::arn_of(ctx, name))?;
    }
    let snapshot = ssm.store.read();
    let mut found = Vec::new();
    let mut invalid = Vec::new();
    for name in input.names {
        let named = Named::read(ctx, &name).ok().filter(|named| named.selector.is_none());
        match named.and_then(|named| named.find(&snapshot, ctx)) {
            Some(parameter) => found.push((name, parameter)),
            None => invalid.push(name),
        }
    }
    let deleted = ssm.store.write(move |tx| {
        let mut deleted = Vec::new();
        for (name, parameter) in found {
            match remove(tx, &parameter.realm, &parameter.name) {
                true => deleted.push(name),
                false => invalid.push(name),
            }
        }
        Ok::<_, Fault>((deleted, invalid))
    });
    let (deleted, invalid) = deleted.await?;
    Ok(DeleteParametersResult {
        deleted_parameters: Some(deleted),
        invalid_parameters: Some(invalid),
    })
}

pub(crate) async fn describe_parameters(
    ssm: &Ssm,
    ctx: &Context,
    input: DescribeParametersRequest,
) -> Result<DescribeParametersResult, Fault> {
    ctx.authorise("ssm:DescribeParameters", &ctx.arn("ssm", "*"))?;
    let filters = filter::for_describe(input.filters, input.parameter_filters)?;
    let snapshot = ssm.store.read();
    let prefix = format!("{}/", ctx.realm());
    let parameters = snapshot
        .scan_prefix::<Record>(&prefix)
        .filter(|parameter| !parameter.is_over(ctx.now))
        .map(|parameter| (latest(&snapshot, &parameter), parameter))
        .filter(|(version, parameter)| filters.iter().all(|f| f.matches(parameter, version)))
        .map(|(version, parameter)| (parameter.name.clone(), metadata(&parameter, &version)));
    let token = input.next_token.as_deref();
    let page = page("DescribeParameters", token, input.max_results, 50, parameters)?;
    Ok(DescribeParametersResult { parameters: Some(page.items), next_token: page.next_token })
}

fn metadata(parameter: &Record, version: &Version) -> ParameterMetadata {
    ParameterMetadata {
        name: Some(parameter.name.clone()),
        arn: Some(parameter.arn()),
        r#type: ParameterType::parse(&parameter.kind),
        key_id: version.key_id.clone(),
        last_modified_date: Some(version.modified),
        last_modified_user: Some(version.modified_by.clone()),
        description: version.description.clone(),
        allowed_pattern: version.allowed_pattern.clone(),
        version: Some(version.version),
        tier: ParameterTier::parse(&version.tier),
        policies: Some(policies(version)),
        data_type: Some(version.data_type.clone()),
    }
}

pub(crate) fn policies(version: &Version) -> Vec<ParameterInlinePolicy> {
    let policies = version.policies.iter().map(|policy| ParameterInlinePolicy {
        policy_text: Some(policy.text.clone()),
        policy_type: Some(policy.kind.clone()),
        policy_status: Some("Pending".to_owned()),
    });
    policies.collect()
}

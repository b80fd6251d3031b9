//! What requests that make or change a stack give: a template, parameters, tags, a role.

use crate::{
    CloudFormation,
    api::{Capability, Parameter, Tag},
    engine::Plan,
    faults,
    model::{Principal, Settings, Stack, Template as Kept},
    template::{self, Given, Pseudo, Scope, Template, Value},
};
use resource::text;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use wire::{Context, Fault};

/// How long a template is at most that is given itself, in bytes; and one that lies in S3.
const LONGEST_BODY: usize = 51_200;
const LONGEST_OBJECT: usize = 1 << 20;

/// The most tags of a stack.
const MOST_TAGS: usize = 50;

/// The members that CreateStack, UpdateStack and CreateChangeSet share.
pub(super) struct Request {
    pub(super) body: Option<String>,
    pub(super) url: Option<String>,
    pub(super) use_previous: bool,
    pub(super) parameters: Option<Vec<Parameter>>,
    pub(super) capabilities: Option<Vec<Capability>>,
    pub(super) tags: Option<Vec<Tag>>,
    pub(super) role: Option<String>,
}

/// A template's text, from the request or from S3.
pub(super) async fn template_text(
    house: &CloudFormation,
    ctx: &Context,
    body: Option<String>,
    url: Option<String>,
) -> Result<String, Fault> {
    match (body, url) {
        (Some(body), None) if body.len() > LONGEST_BODY => {
            let message = format!(
                "1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must \
                 have length less than or equal to {LONGEST_BODY}"
            );
            Err(faults::validation(message))
        }
        (Some(body), None) => Ok(body),
        (None, Some(url)) => {
            let text = text_of(house, ctx, &url, "TemplateURL").await?;
            match text.len() > LONGEST_OBJECT {
                true => Err(faults::validation(format!(
                    "Template may not exceed {LONGEST_OBJECT} bytes in size."
                ))),
                false => Ok(text),
            }
        }
        (None, None) => {
            Err(faults::validation("Either Template URL or Template Body must be specified."))
        }
        (Some(_), Some(_)) => {
            Err(faults::validation("Only one of Template URL or Template Body may be specified."))
        }
    }
}

/// The text that lies at an S3 URL, which the request calls `name`.
pub(super) async fn text_of(
    house: &CloudFormation,
    ctx: &Context,
    url: &str,
    name: &str,
) -> Result<String, Fault> {
    let place = object(url);
    let (bucket, key) =
        place.ok_or_else(|| faults::validation(format!("{name} must be a supported URL.")))?;
    let arn = format!("arn:aws:s3:::{bucket}/{key}");
    let text = house.surroundings().bucket.text(ctx, &arn).await;
    text.map_err(|error| faults::validation(format!("S3 error: {error}")))
}

/// The bucket and the key of an S3 URL: `https://bucket.s3.region.amazonaws.com/key`, `https://s3…/bucket/key`, or one
/// of this machine's own endpoint, `http://localhost:4566/bucket/key`.
fn object(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (host, path) = rest.split_once('/')?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?.into_owned();
    let before_s3 = host.find(".s3.").or_else(|| host.find(".s3-"));
    let (bucket, key) = match before_s3 {
        Some(end) => (host[..end].to_owned(), path),
        None => path.split_once('/').map(|(bucket, key)| (bucket.to_owned(), key.to_owned()))?,
    };
    (!bucket.is_empty() && !key.is_empty()).then_some((bucket, key))
}

/// A request read against the stack that there is, or will be.
pub(super) struct Read {
    pub(super) settings: Settings,
    /// The template's text, to be stored; none when the stack has it.
    pub(super) kept: Option<Kept>,
    pub(super) plan: Plan,
}

/// No resource is known: what can be checked before any is made.
struct Unmade<'a>(&'a Template);

impl template::Resources for Unmade<'_> {
    fn physical(&self, logical: &str) -> Option<Json> {
        self.0.resources.contains_key(logical).then(|| json!(template::KNOWN_AFTER_APPLY))
    }
    fn attribute(&self, _: &str, _: &str) -> Option<Json> {
        Some(json!(template::KNOWN_AFTER_APPLY))
    }
}

impl Request {
    /// Reads the request for `stack`, of which `before` is what it is made of now.
    pub(super) async fn read(
        self,
        house: &CloudFormation,
        ctx: &Context,
        stack: &Stack,
        before: Option<&Settings>,
    ) -> Result<Read, Fault> {
        let (kept, text) = match (self.use_previous, before) {
            (true, Some(_)) if self.body.is_some() || self.url.is_some() => {
                return Err(faults::validation(
                    "Only one of Template URL, Template Body or UsePreviousTemplate may be specified.",
                ));
            }
            (true, Some(before)) => {
                let found = house.store.read().get::<Kept>(&before.template);
                let found =
                    found.ok_or_else(|| faults::validation("The stack's template is gone"))?;
                (None, found.body.clone())
            }
            (true, None) => {
                return Err(faults::validation(
                    "No previous template: the stack does not exist yet.",
                ));
            }
            (false, _) => {
                let text = template_text(house, ctx, self.body, self.url).await?;
                (Some(Kept { id: house.world.uuid(), body: text.clone() }), text)
            }
        };
        let previous = match before {
            Some(before) => house.unseal(&stack.id, &before.values)?,
            None => BTreeMap::new(),
        };
        let catalog = &house.surroundings().catalog;
        let declared_only = Template::load(&text, None)?;
        if declared_only.declared_transforms.is_empty() {
            // A template that is no good is told before what is given to it.
            template::check(&declared_only, catalog)?;
        }
        let declared = Template::parameters(&template::read(&text)?)?;
        let values = values(house, ctx, &declared, self.parameters, &previous).await?;
        let template = Template::load(&text, Some(&values))?;
        template::check(&template, catalog)?;
        let capabilities: Vec<String> = self
            .capabilities
            .unwrap_or_default()
            .iter()
            .map(|one| one.as_str().to_owned())
            .collect();
        acknowledged(&template, &capabilities)?;
        let tags = match (self.tags, before) {
            (None, Some(before)) => before.tags.clone(),
            (tags, _) => tag_map(tags)?,
        };
        if let Some(role) = &self.role {
            ctx.authorise_with(
                "iam:PassRole",
                role,
                &[("iam:PassedToService", "cloudformation.amazonaws.com")],
            )?;
        }
        let principal = Principal::new(&ctx.principal)
            .ok_or_else(|| faults::validation("Services own no stacks."))?;
        let settings = Settings {
            template: match (&kept, before) {
                (Some(kept), _) => kept.id.clone(),
                (None, Some(before)) => before.template.clone(),
                (None, None) => String::new(),
            },
            description: template.description.clone(),
            values: house.seal(&stack.id, &values),
            tags: tags.clone(),
            capabilities,
            role: self.role.or_else(|| before.and_then(|before| before.role.clone())),
            principal,
        };
        let plan = whole(house, stack, template, values, tags)?;
        Ok(Read { settings, kept, plan })
    }
}

/// The plan, of which all is checked that needs no resource.
fn whole(
    house: &CloudFormation,
    stack: &Stack,
    template: Template,
    values: BTreeMap<String, Value>,
    tags: BTreeMap<String, String>,
) -> Result<Plan, Fault> {
    let (account, region) = stack.realm.split_once('/').expect("realms are account/region");
    let pseudo = Pseudo {
        account: account.to_owned(),
        region: region.to_owned(),
        stack_id: stack.arn(),
        stack_name: stack.name.clone(),
    };
    let outside = house.exports(&stack.realm);
    let plan = Plan::make(template, values, pseudo, tags, &outside)?;
    let made = plan.resources().map(|(_, resource)| resource);
    template::known_types(made, &house.surroundings().catalog)?;
    let unmade = Unmade(&plan.template);
    let scope = plan.scope(&unmade, &outside);
    template::assert_rules(&scope)?;
    plan.order(&scope)?;
    conditional_references(&plan, &scope)?;
    Ok(plan)
}

/// What refers to a resource of which the condition does not hold refers to nothing.
fn conditional_references(plan: &Plan, scope: &Scope) -> Result<(), Fault> {
    let (mut found, mut outputs) = (BTreeSet::new(), BTreeSet::new());
    for (_, resource) in plan.resources() {
        scope.references(&Json::Object(resource.properties.clone()), &mut found);
    }
    for output in plan.template.outputs.values() {
        if scope.holds(output.condition.as_deref())? {
            scope.references(&output.value, &mut outputs);
        }
    }
    for (block, names) in [("Resources", found), ("Outputs", outputs)] {
        let missing: Vec<String> = names.into_iter().filter(|name| !plan.has(name)).collect();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(template::malformed(format!(
                "Unresolved resource dependencies [{missing}] in the {block} block of the template"
            )));
        }
    }
    Ok(())
}

/// Whether the caller has acknowledged what the template may do.
fn acknowledged(template: &Template, given: &[String]) -> Result<(), Fault> {
    let Some((needed, _)) = template::capabilities(template) else { return Ok(()) };
    let enough = given.iter().any(|one| one == "CAPABILITY_NAMED_IAM" || one == needed);
    if enough {
        return Ok(());
    }
    Err(faults::insufficient_capabilities(format!("Requires capabilities : [{needed}]")))
}

pub(super) fn tag_map(tags: Option<Vec<Tag>>) -> Result<BTreeMap<String, String>, Fault> {
    let mut all = BTreeMap::new();
    for tag in tags.unwrap_or_default() {
        if tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(faults::validation(
                "aws: prefixed tag key names are not allowed for external use.",
            ));
        }
        if let Some(twice) = all.insert(tag.key.clone(), tag.value).map(|_| tag.key) {
            return Err(faults::validation(format!("Duplicate tag keys found: {twice}")));
        }
    }
    match all.len() > MOST_TAGS {
        true => Err(faults::validation(format!("Tags: at most {MOST_TAGS} are allowed."))),
        false => Ok(all),
    }
}

/// The parameters' values; those that name parameters of Parameter Store are looked up there, as the caller.
async fn values(
    house: &CloudFormation,
    ctx: &Context,
    declared: &BTreeMap<String, template::Parameter>,
    given: Option<Vec<Parameter>>,
    previous: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, Fault> {
    let mut all = BTreeMap::new();
    for parameter in given.unwrap_or_default() {
        let name = parameter.parameter_key.unwrap_or_default();
        let value = match (parameter.parameter_value, parameter.use_previous_value) {
            (Some(_), Some(true)) => {
                let message = format!(
                    "Invalid input for parameter key {name}. Cannot specify usePreviousValue as true and value \
                     at the same time"
                );
                return Err(faults::validation(message));
            }
            (_, Some(true)) => Given::Previous,
            (text, _) => Given::Text(text.unwrap_or_default()),
        };
        all.insert(name, value);
    }
    let (mut values, stored) = template::values(declared, &all, previous)?;
    for name in stored {
        let Some(value) = values.get_mut(&name) else { continue };
        let ask = json!({"Name": value.text, "WithDecryption": false});
        let answer = house.surroundings().front.call(ctx.clone(), "ssm", "GetParameter", ask).await;
        let answer = answer.map_err(|fault| match fault.code.as_ref() {
            "ParameterNotFound" => faults::validation(format!(
                "Unable to fetch parameters [{}] from parameter store for this account.",
                value.text
            )),
            _ => faults::validation(fault.message),
        })?;
        value.resolved = answer["Parameter"].get("Value").map(text);
    }
    Ok(values)
}

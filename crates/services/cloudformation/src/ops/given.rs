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
    pub(super) notify: Option<Vec<String>>,
    /// There is no change set in which what transforms make could be looked at.
    pub(super) direct: bool,
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

/// What the transforms make of a template's text; none when it has none.
async fn transformed(
    house: &CloudFormation,
    ctx: &Context,
    text: &str,
    values: &BTreeMap<String, Value>,
    stack: &Stack,
) -> Result<Option<String>, Fault> {
    let mut tree = template::read(text)?;
    if !template::is_needed(&tree)? {
        return Ok(None);
    }
    let mut snippets = Vec::new();
    for location in template::locations(&tree)? {
        let place = located(house, &tree, values, stack, &location)?;
        let place = place.as_str().map(str::to_owned).ok_or_else(|| {
            faults::validation(
                "Transform AWS::Include failed with: The location is not a valid S3 URI.",
            )
        })?;
        let arn = match place.strip_prefix("s3://") {
            Some(rest) => Some(format!("arn:aws:s3:::{rest}")),
            None => object(&place).map(|(bucket, key)| format!("arn:aws:s3:::{bucket}/{key}")),
        };
        let failed =
            |why: String| faults::validation(format!("Transform AWS::Include failed with: {why}"));
        let arn = arn.ok_or_else(|| failed("The location is not a valid S3 URI.".to_owned()))?;
        let found = house.surroundings().bucket.text(ctx, &arn).await;
        let found = found.map_err(|error| failed(format!("S3 error: {error}")))?;
        if found.len() > LONGEST_OBJECT {
            return Err(failed(format!(
                "A snippet may not exceed {LONGEST_OBJECT} bytes in size."
            )));
        }
        snippets.push(template::read(&found)?);
    }
    template::include(&mut tree, snippets)?;
    let body = template::finish(tree)?.to_string();
    match body.len() > LONGEST_OBJECT {
        true => Err(faults::validation(format!(
            "Template may not exceed {LONGEST_OBJECT} bytes in size after its transforms."
        ))),
        false => Ok(Some(body)),
    }
}

/// What a snippet's location comes to; it may refer to parameters.
fn located(
    house: &CloudFormation,
    tree: &Json,
    values: &BTreeMap<String, Value>,
    stack: &Stack,
    location: &Json,
) -> Result<Json, Fault> {
    let outside = house.exports(&stack.realm);
    let (bare, values) = (Template::bare(tree)?, values.clone());
    let plan = Plan::make(
        bare,
        values,
        Pseudo::of(stack, &stack.settings.notify),
        BTreeMap::new(),
        &outside,
    )?;
    let nothing = Unmade(&plan.template);
    plan.scope(&nothing, &outside).value(location)
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
        let text = match (self.use_previous, before) {
            (true, Some(_)) if self.body.is_some() || self.url.is_some() => {
                return Err(faults::validation(
                    "Only one of Template URL, Template Body or UsePreviousTemplate may be specified.",
                ));
            }
            (true, Some(before)) => {
                let found = house.store.read().get::<Kept>(&before.template);
                let found =
                    found.ok_or_else(|| faults::validation("The stack's template is gone"))?;
                found.given().to_owned()
            }
            (true, None) => {
                return Err(faults::validation(
                    "No previous template: the stack does not exist yet.",
                ));
            }
            (false, _) => template_text(house, ctx, self.body, self.url).await?,
        };
        let previous = match before {
            Some(before) => house.unseal(&stack.id, &before.values)?,
            None => BTreeMap::new(),
        };
        let catalog = &house.surroundings().catalog;
        let (seen, whole_seen) = Template::look(&text)?;
        if whole_seen && seen.declared_transforms.is_empty() {
            // A template that is no good is told before what is given to it.
            template::check(&seen, catalog)?;
        }
        let declared = Template::parameters(&template::read(&text)?)?;
        let values = values(house, ctx, &declared, self.parameters, &previous).await?;
        // Transforms are carried out each time, also of a template that the stack has.
        let processed = transformed(house, ctx, &text, &values, stack).await?;
        let template = Template::load(processed.as_ref().unwrap_or(&text), Some(&values))?;
        template::check(&template, catalog)?;
        let kept = match (self.use_previous, processed) {
            (true, None) => None,
            (_, Some(body)) => Some(Kept { id: house.world.uuid(), body, original: Some(text) }),
            (false, None) => Some(Kept { id: house.world.uuid(), body: text, original: None }),
        };
        let capabilities: Vec<String> = self
            .capabilities
            .unwrap_or_default()
            .iter()
            .map(|one| one.as_str().to_owned())
            .collect();
        let expands = !seen.declared_transforms.is_empty() || !whole_seen;
        acknowledged(&template, expands && self.direct, &capabilities)?;
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
        let notify = match (self.notify, before) {
            (None, Some(before)) => before.notify.clone(),
            (notify, _) => notify.unwrap_or_default(),
        };
        crate::notices::check(&notify)?;
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
            notify,
            principal,
        };
        let pseudo = Pseudo::of(stack, &settings.notify);
        let plan = whole(house, stack, template, values, pseudo, tags)?;
        Ok(Read { settings, kept, plan })
    }
}

/// The plan, of which all is checked that needs no resource.
fn whole(
    house: &CloudFormation,
    stack: &Stack,
    template: Template,
    values: BTreeMap<String, Value>,
    pseudo: Pseudo,
    tags: BTreeMap<String, String>,
) -> Result<Plan, Fault> {
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
fn acknowledged(template: &Template, expands: bool, given: &[String]) -> Result<(), Fault> {
    let has = |name: &str| given.iter().any(|one| one == name);
    let identities = template::capabilities(template).map(|(needed, _)| needed);
    let identities = identities.filter(|needed| !has("CAPABILITY_NAMED_IAM") && !has(needed));
    let expansion = Some("CAPABILITY_AUTO_EXPAND").filter(|needed| expands && !has(needed));
    let missing: Vec<&str> = identities.into_iter().chain(expansion).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(faults::insufficient_capabilities(format!(
            "Requires capabilities : [{}]",
            missing.join(", ")
        ))),
    }
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

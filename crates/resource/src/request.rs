//! What a resource type has at hand when it works on one resource.

use crate::properties::Properties;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use wire::{Context, Fault, Front};

/// Why a resource could not be made, read, changed or deleted.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The code of the fault that an operation answered; empty for others.
    pub fault: String,
    /// CloudFormation's kind of error, `InvalidRequest`.
    /// <https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-test-contract-errors.html>
    pub code: &'static str,
    /// What went wrong.
    pub message: String,
}

impl Failure {
    /// A failure that no operation answered.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { fault: String::new(), code, message: message.into() }
    }

    /// What the properties ask for cannot be.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidRequest", message)
    }

    /// A property that is not carried out.
    pub fn unsupported(property: &str) -> Self {
        Self::invalid(format!("Neargate does not support the property {property}"))
    }

    /// A property that cannot be changed in this way.
    pub fn not_updatable(property: &str) -> Self {
        Self::new("NotUpdatable", format!("Neargate cannot change the property {property}"))
    }

    /// Whether it says that something is not there.
    pub fn is_missing(&self) -> bool {
        self.code == "NotFound"
    }

    /// Whether it says that something is there already.
    pub fn is_duplicate(&self) -> bool {
        self.code == "AlreadyExists"
    }

    fn of(service: &str, fault: &Fault, request_id: &str) -> Self {
        let name: String = service[..1].to_uppercase() + &service[1..];
        let message = format!(
            "{} (Service: {name}, Status Code: {}, Request ID: {request_id})",
            fault.message, fault.status
        );
        Self { fault: fault.code.to_string(), code: kind(&fault.code, fault.status), message }
    }
}

/// CloudFormation's kind of error for a service's.
fn kind(code: &str, status: u16) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| code.contains(word));
    match () {
        () if status >= 500 => "ServiceInternalError",
        () if says(&["NotFound", "NoSuch", "DoesNotExist"]) => "NotFound",
        () if says(&[
            "AlreadyExist",
            "Duplicate",
            "AlreadyOwnedByYou",
            "NameExists",
            "NameInUse",
        ]) =>
        {
            "AlreadyExists"
        }
        () if says(&["AccessDenied", "Unauthorized"]) => "AccessDenied",
        () if says(&["LimitExceeded", "TooMany"]) => "ServiceLimitExceeded",
        () => "InvalidRequest",
    }
}

/// The resource that is worked on, whose it is, and the door to the services.
#[derive(Clone)]
pub struct Request {
    /// All services' operations.
    pub front: Arc<Front>,
    /// The principal that the stack acts as.
    pub context: Context,
    /// The stack's name.
    pub stack_name: String,
    /// The stack's ARN.
    pub stack_id: String,
    /// The resource's name in the template.
    pub logical_id: String,
    /// Twelve characters that names of this resource end with; kept before the resource is made, so that what was made
    /// before a crash is found again.
    pub suffix: String,
    /// A UUID, kept like the suffix, for operations that take a client's token.
    pub token: String,
    /// It may have been made already: the machine stopped before that could be written down.
    pub repeated: bool,
}

impl Request {
    /// Calls an operation as the stack's principal. Names of members may be in any case, as in templates.
    pub async fn call(
        &self,
        service: &str,
        operation: &str,
        request: Json,
    ) -> Result<Json, Failure> {
        let mut context = self.context.clone();
        context.request_id = self.front.world().uuid();
        context.now = self.front.world().now();
        let id = context.request_id.clone();
        let answer = self.front.call(context, service, operation, request).await;
        answer.map_err(|fault| Failure::of(service, &fault, &id))
    }

    /// [`Request::call`], where what is not there gives none.
    pub async fn find(
        &self,
        service: &str,
        operation: &str,
        request: Json,
    ) -> Result<Option<Json>, Failure> {
        match self.call(service, operation, request).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// [`Request::call`] for making something by a name: none when it is there already from before a crash.
    pub async fn make(
        &self,
        service: &str,
        operation: &str,
        request: Json,
    ) -> Result<Option<Json>, Failure> {
        match self.call(service, operation, request).await {
            Ok(answer) => Ok(Some(answer)),
            Err(failure) if failure.is_duplicate() && self.repeated => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// [`Request::call`] for deleting: what is gone already is well.
    pub async fn remove(
        &self,
        service: &str,
        operation: &str,
        request: Json,
    ) -> Result<(), Failure> {
        self.find(service, operation, request).await.map(|_| ())
    }

    /// Gives a resource the tags of `new` in place of those of `old`, by TagResource and UntagResource, which name it
    /// by `member`.
    pub async fn retag(
        &self,
        service: &str,
        (member, id): (&str, &str),
        old: &Properties,
        new: &Properties,
    ) -> Result<(), Failure> {
        let (set, gone) = new.tag_changes(old);
        if !gone.is_empty() {
            self.call(service, "UntagResource", json!({member: id, "TagKeys": gone})).await?;
        }
        if !set.is_empty() {
            let tag = |(key, value)| json!({"Key": key, "Value": value});
            let tags: Vec<Json> = set.into_iter().map(tag).collect();
            self.call(service, "TagResource", json!({member: id, "Tags": tags})).await?;
        }
        Ok(())
    }

    /// A name for the resource where the template gives none: `stack-Logical-SUFFIX`, its parts cut as on AWS when it
    /// is longer than `longest` characters.
    pub fn name(&self, longest: usize) -> String {
        let room = longest.saturating_sub(self.suffix.len() + 2);
        let (mut stack, mut logical) = (self.stack_name.as_str(), self.logical_id.as_str());
        if stack.len() + logical.len() > room {
            stack = &stack[..stack.len().min(room - (room / 2).min(logical.len()))];
            logical = &logical[..logical.len().min(room - stack.len())];
        }
        format!("{stack}-{logical}-{}", self.suffix)
    }

    /// The account that the stack is in.
    pub fn account(&self) -> &str {
        &self.context.principal.account
    }

    /// The region that the stack is in.
    pub fn region(&self) -> &str {
        &self.context.region
    }
}

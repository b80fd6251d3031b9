//! Events.

use crate::{
    model::{Event, Resource, Stack},
    notices,
};
use resource::Properties;
use store::Tx;
use world::Timestamp;

/// Writes down that a stack has the status that it has. The caller puts the stack.
pub(crate) fn stack_event(tx: &mut Tx, stack: &mut Stack, at: Timestamp, reason: Option<String>) {
    stack.events += 1;
    let event = Event {
        stack: stack.id.clone(),
        number: stack.events,
        id: format!("{}-{}-{}", stack.name, stack.events, at.millis()),
        logical: stack.name.clone(),
        physical: Some(stack.arn()),
        kind: "AWS::CloudFormation::Stack".to_owned(),
        at,
        status: stack.status.as_str().to_owned(),
        reason,
        properties: None,
        token: stack.operation.token.clone(),
    };
    notices::note(tx, stack, &event);
    tx.put(event);
}

/// Gives a resource a status and writes the event down. `key` is the stack's.
pub(crate) fn tell(
    tx: &mut Tx,
    key: &str,
    resource: &mut Resource,
    at: Timestamp,
    status: &str,
    reason: Option<String>,
    properties: Option<String>,
) {
    status.clone_into(&mut resource.status);
    resource.reason.clone_from(&reason);
    resource.changed = at;
    let Some(stack) = tx.get::<Stack>(key) else { return };
    let mut stack = stack.as_ref().clone();
    stack.events += 1;
    let event = Event {
        stack: stack.id.clone(),
        number: stack.events,
        id: format!("{}-{}-{}", resource.logical, status, at.rfc3339()),
        logical: resource.logical.clone(),
        physical: resource.now.id.clone(),
        kind: resource.kind.clone(),
        at,
        status: status.to_owned(),
        reason,
        properties,
        token: stack.operation.token.clone(),
    };
    notices::note(tx, &stack, &event);
    tx.put(event);
    tx.put(stack);
}

/// What is told of a resource that has become the stack's.
pub(super) fn imported<'a>() -> Told<'a> {
    ("IMPORT_COMPLETE", Some("Resource import completed.".to_owned()), None)
}

/// A status, why, and the properties that the event tells.
pub(super) type Told<'a> = (&'static str, Option<String>, Option<&'a Properties>);

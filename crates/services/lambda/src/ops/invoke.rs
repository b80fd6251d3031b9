//! Invoke.

use crate::{
    Lambda, NOWHERE,
    api::{InvocationRequest, InvocationResponse, InvocationType, LogType},
    elsewhere::{Answer, Asked, LONGEST},
    model::{Function, Invocation},
};
use bytes::Bytes;
use serde::de::IgnoredAny;
use store::DiskFault;
use wire::{Context, Fault};

/// The longest event of an asynchronous invocation, in bytes.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const LONGEST_EVENT: usize = 1_048_576;
/// So many asynchronous invocations wait at most, of everybody.
const MOST_WAITING: usize = 10_000;

pub(crate) async fn invoke(
    service: &Lambda,
    ctx: &Context,
    input: InvocationRequest,
) -> Result<InvocationResponse, Fault> {
    let function = function(&ctx.realm(), &input.function_name, input.qualifier)?;
    ctx.authorise("lambda:InvokeFunction", &function.arn())?;
    let payload = payload(input.payload.unwrap_or_default())?;
    let Some(endpoint) = &service.endpoint else {
        let message = format!("Function not found: {}. {NOWHERE}", function.arn());
        return Err(Fault::new("ResourceNotFoundException", message).status(404));
    };
    let answered = |status| InvocationResponse { status_code: Some(status), ..Default::default() };
    let kind = input.invocation_type.unwrap_or(InvocationType::RequestResponse);
    let longest = match kind {
        InvocationType::Event => LONGEST_EVENT,
        _ => LONGEST,
    };
    if payload.len() > longest {
        let message = format!(
            "{} byte payload is too large for the {} invocation type (limit {longest} bytes)",
            payload.len(),
            kind.as_str()
        );
        return Err(Fault::new("RequestTooLargeException", message).status(413));
    }
    match kind {
        InvocationType::DryRun => return Ok(answered(204)),
        InvocationType::Event => {
            remember(service, function, payload).await?;
            return Ok(answered(202));
        }
        InvocationType::RequestResponse => {}
    }
    let _turn = service
        .turns
        .try_acquire()
        .map_err(|_| Fault::new("TooManyRequestsException", "Rate Exceeded.").status(429))?;
    let asked = Asked {
        function: &function,
        payload: Bytes::from(payload),
        context: input.client_context.as_deref(),
        tail: input.log_type == Some(LogType::Tail),
    };
    match endpoint.invoke(&service.world, &asked).await {
        Answer::Ran { payload, error, log, version } => Ok(InvocationResponse {
            payload: Some(payload),
            function_error: error,
            log_result: log,
            executed_version: Some(version.unwrap_or_else(|| "$LATEST".to_owned())),
            ..answered(200)
        }),
        Answer::Refused(404, _) => {
            let message = format!("Function not found: {}", function.arn());
            Err(Fault::new("ResourceNotFoundException", message).status(404))
        }
        Answer::Refused(429, said) => Err(Fault::new("TooManyRequestsException", said).status(429)),
        Answer::Refused(status, said) => Err(unavailable(format!("HTTP {status}: {said}"))),
        Answer::Missed(why) => Err(unavailable(why)),
    }
}

fn unavailable(why: String) -> Fault {
    let message = format!("The place where functions run cannot run this one: {why}");
    Fault::new("ServiceException", message).status(500)
}

/// The payload's text. Nothing is an empty object, as on AWS.
fn payload(given: Bytes) -> Result<String, Fault> {
    if given.is_empty() {
        return Ok("{}".to_owned());
    }
    let invalid = |why: String| {
        let message = format!("Could not parse request body into json: {why}");
        Fault::new("InvalidRequestContentException", message)
    };
    let text = String::from_utf8(given.to_vec()).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_str::<IgnoredAny>(&text).map_err(|error| invalid(error.to_string()))?;
    Ok(text)
}

/// Reads a name, an ARN or a part of one; each may end in a version or an alias.
pub(crate) fn function(
    realm: &str,
    named: &str,
    qualifier: Option<String>,
) -> Result<Function, Fault> {
    let (account, region) = realm.split_once('/').unwrap_or_default();
    let not_here = || {
        let message = format!("Function not found: {named}");
        Fault::new("ResourceNotFoundException", message).status(404)
    };
    let parts: Vec<&str> = named.split(':').collect();
    let (place, name, own) = match parts[..] {
        ["arn", _, "lambda", region, account, "function", name] => {
            (Some((region, account)), name, None)
        }
        ["arn", _, "lambda", region, account, "function", name, own] => {
            (Some((region, account)), name, Some(own))
        }
        [account, "function", name] => (Some((region, account)), name, None),
        [account, "function", name, own] => (Some((region, account)), name, Some(own)),
        ["function", name] => (None, name, None),
        [name] => (None, name, None),
        [name, own] => (None, name, Some(own)),
        _ => return Err(not_here()),
    };
    if place.is_some_and(|place| place != (region, account)) {
        return Err(not_here());
    }
    let differs = || {
        Fault::new(
            "InvalidParameterValueException",
            "The derived qualifier from the function name does not match the specified qualifier.",
        )
    };
    let qualifier = match (own.map(str::to_owned), qualifier) {
        (Some(own), Some(other)) if own != other => return Err(differs()),
        (own, other) => own.or(other),
    };
    Ok(Function { realm: realm.to_owned(), name: name.to_owned(), qualifier })
}

async fn remember(service: &Lambda, function: Function, payload: String) -> Result<(), Fault> {
    if service.store.read().scan::<Invocation>().count() >= MOST_WAITING {
        let message = "Too many asynchronous invocations wait.";
        return Err(Fault::new("TooManyRequestsException", message).status(429));
    }
    service
        .store
        .write(move |tx| {
            service.ask(tx, function, &payload);
            Ok::<_, DiskFault>(())
        })
        .await
        .map_err(Fault::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_many_names() {
        let realm = "123456789012/us-east-1";
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
        for (named, qualifier, expected) in [
            ("f", None, Some(arn.to_owned())),
            ("f", Some("live"), Some(format!("{arn}:live"))),
            ("f:live", None, Some(format!("{arn}:live"))),
            ("f:live", Some("live"), Some(format!("{arn}:live"))),
            ("f:live", Some("other"), None),
            (arn, None, Some(arn.to_owned())),
            ("123456789012:function:f", None, Some(arn.to_owned())),
            ("123456789012:function:f:1", None, Some(format!("{arn}:1"))),
            ("210987654321:function:f", None, None),
            ("arn:aws:lambda:eu-west-1:123456789012:function:f", None, None),
        ] {
            let found = function(realm, named, qualifier.map(str::to_owned));
            assert_eq!(found.ok().map(|found| found.arn()), expected, "{named} {qualifier:?}");
        }
    }

    #[test]
    fn payloads_are_json() {
        assert_eq!(payload(Bytes::new()).unwrap(), "{}");
        assert!(payload(Bytes::from("[1]")).is_ok());
        for bad in [&b"{"[..], b"\xff", b"{} {}"] {
            assert_eq!(payload(bad.into()).unwrap_err().code, "InvalidRequestContentException");
        }
    }
}

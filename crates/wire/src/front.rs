//! From a request's head and body to its answer: which service and operation, who signed, what it says, run
//! it, say what came of it.

use crate::{
    compressed::unpacked,
    context::{Context, Identity, Principal},
    fault::Fault,
    protocol::{Incoming, Protocol, action, json, match_path},
    server::{Body, Limits, Peer, full_body, read_body},
    shape::{Family, Operation, ServiceSpec},
    sigv4::{self, SignatureFault},
    validate::validate,
    value::Value,
};
use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response, Uri,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
};
use tokio::sync::oneshot;
use world::World;

/// The future that a handler gives.
type Answer = Pin<Box<dyn Future<Output = Result<Value, Fault>> + Send>>;

/// Runs one operation. Codegen makes these: they turn the value into the request, and the answer into a value.
pub type Handler = Arc<dyn Fn(Context, Value) -> Answer + Send + Sync>;

/// A service as the front door sees it: what it is on the wire, and its operations.
pub struct Service {
    spec: &'static ServiceSpec,
    operations: BTreeMap<&'static str, (&'static Operation, Handler)>,
}

impl Service {
    /// A service without operations yet.
    pub fn new(spec: &'static ServiceSpec) -> Self {
        Self { spec, operations: BTreeMap::new() }
    }

    /// Adds an operation.
    pub fn operation(mut self, operation: &'static Operation, handler: Handler) -> Self {
        let before = self.operations.insert(operation.name, (operation, handler));
        assert!(before.is_none(), "{} is listed twice", operation.name);
        self
    }

    /// The service's name, as in credential scopes.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }
}

/// Answers requests that speak no AWS protocol (the image registry's) under a path of their own.
pub trait RawHandler: Send + Sync + 'static {
    /// Whether the request with this head is one for this handler.
    fn accepts(&self, head: &hyper::http::request::Parts) -> bool;
    /// Answers it.
    fn handle(
        self: Arc<Self>,
        request: Request<hyper::body::Incoming>,
        peer: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
}

/// The front door: all services, and who may come in.
pub struct Front {
    services: HashMap<&'static str, Service>,
    raw: Vec<Arc<dyn RawHandler>>,
    identity: Arc<dyn Identity>,
    world: World,
    limits: Limits,
    /// Unknown operations that were logged already: each is told once.
    told: Mutex<Vec<String>>,
}

/// How many different unknown operations are remembered as told.
const MOST_TOLD: usize = 1000;

/// A request whose service, operation and protocol are known.
struct Call<'a> {
    spec: &'static ServiceSpec,
    operation: &'a Operation,
    handler: &'a Handler,
}

/// What the headers say of the protocol, before the service is known.
struct Spoken {
    protocol: Protocol,
    /// The service (by target prefix or CBOR name) and operation, when the headers name them.
    target: Option<(String, String)>,
}

impl Front {
    /// The front door of these services.
    pub fn new(
        services: Vec<Service>,
        raw: Vec<Arc<dyn RawHandler>>,
        identity: Arc<dyn Identity>,
        world: World,
        limits: Limits,
    ) -> Self {
        let services = services.into_iter().map(|service| (service.spec.name, service)).collect();
        Self { services, raw, identity, world, limits, told: Mutex::default() }
    }

    /// Time, timers and tasks.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The limits that connections are held to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Answers one request. There is an answer to every request, and each carries a request id.
    pub async fn handle(
        &self,
        request: Request<hyper::body::Incoming>,
        peer: Peer,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        if let Some(raw) = self.raw.iter().find(|raw| raw.accepts(&head)) {
            return raw.clone().handle(Request::from_parts(head, body), peer).await;
        }
        let request_id = self.world.uuid();
        let spoken = spoken(&head.headers, &head.uri);
        let read = read_body(body, &self.limits, &self.world).await;
        let result = match read {
            Ok(body) => self.answer(&head, &body, &spoken, peer, &request_id).await,
            Err(error) => Err((spoken.protocol, None, error.fault(spoken.protocol.family()))),
        };
        let outgoing = result.unwrap_or_else(|(protocol, spec, fault)| {
            protocol.encode_fault(spec, &fault, &request_id)
        });
        let mut response = Response::new(full_body(outgoing.body));
        *response.status_mut() =
            outgoing.status.try_into().expect("faults carry HTTP status codes");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(outgoing.content_type));
        for (name, value) in outgoing.headers {
            headers.insert(HeaderName::from_static(name), value);
        }
        let id = HeaderValue::from_str(&request_id).expect("a UUID is a header value");
        headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
        response
    }

    /// The context in which another part of the house calls operations as `principal`.
    pub fn context(&self, principal: Principal, region: &str) -> Context {
        let (now, identity) = (self.world.now(), self.identity.clone());
        let mut context = Context::internal(principal, region, now, identity);
        context.request_id = self.world.uuid();
        context
    }

    /// Runs an operation for another part of the house, in `context`: the same door as for a client, without a
    /// protocol. `properties` are read as those of templates are; the answer has AWS's names. The context's request id
    /// is the caller's to choose.
    pub async fn call(
        &self,
        mut context: Context,
        service: &str,
        operation: &str,
        properties: Json,
    ) -> Result<Json, Fault> {
        let found = self.services.get(service);
        let service = found.ok_or_else(|| unknown_service(Family::Json, service))?;
        let spec = service.spec;
        let Some((operation, handler)) = service.operations.get(operation) else {
            return Err(Fault::unknown_operation(spec, operation));
        };
        context.family = spec.family;
        context.authorised = Arc::default();
        let value = json::properties(operation.input, properties)?;
        validate(spec, operation.input, &value)?;
        let answer = self.run(&Call { spec, operation, handler }, context, value).await?;
        let text = json::encode(operation.output, &answer);
        Ok(serde_json::from_slice(&text).expect("what json::encode writes is JSON"))
    }

    async fn answer(
        &self,
        head: &hyper::http::request::Parts,
        body: &Bytes,
        spoken: &Spoken,
        peer: Peer,
        request_id: &str,
    ) -> Result<crate::protocol::Outgoing, Refused> {
        let incoming = Incoming { uri: &head.uri, headers: &head.headers, body };
        let signed = sigv4::Head { method: &head.method, uri: &head.uri, headers: &head.headers };
        let authorization = sigv4::read(signed);
        let scope = authorization.as_ref().ok().map(|authorization| authorization.service.as_str());
        let service = self.service(spoken, scope);
        let protocol = protocol(spoken, service);
        let spec = service.map(|service| service.spec);
        let family = spec.map_or(protocol.family(), |spec| spec.family);
        let refuse = |fault: Fault| (protocol, spec, fault);

        let authorization = authorization.map_err(|fault| refuse(fault.fault(family)))?;
        let Some(service) = service else {
            return Err(refuse(unknown_service(family, &authorization.service)));
        };
        let context = self
            .verify(&authorization, signed, body, service.spec, peer)
            .map_err(|fault| refuse(fault.fault(family)))?;
        let context = Context { request_id: request_id.to_owned(), ..context };
        // What is signed is what was sent.
        let plain =
            unpacked(&head.headers, body, self.limits.body_bytes, family).map_err(refuse)?;
        let incoming = Incoming { body: &plain, ..incoming };
        let call = self.named(service, spoken, &incoming, head).map_err(refuse)?;
        let value = protocol.decode(call.operation, &incoming).map_err(refuse)?;
        validate(call.spec, call.operation.input, &value).map_err(refuse)?;
        let answer = self.run(&call, context, value).await.map_err(refuse)?;
        Ok(protocol.encode(call.spec, call.operation, &answer, request_id))
    }

    /// The service that a request is for: by what its protocol names, else by what it was signed for.
    fn service(&self, spoken: &Spoken, scope: Option<&str>) -> Option<&Service> {
        match (&spoken.target, spoken.protocol) {
            (Some((prefix, _)), Protocol::Json { .. }) => {
                self.services.values().find(|service| service.spec.target_prefix == prefix)
            }
            (Some((name, _)), Protocol::Cbor) => {
                self.services.values().find(|service| service.spec.cbor_name == name)
            }
            _ => self.services.get(scope?),
        }
    }

    fn verify(
        &self,
        authorization: &sigv4::Authorization,
        head: sigv4::Head,
        body: &Bytes,
        spec: &'static ServiceSpec,
        peer: Peer,
    ) -> Result<Context, SignatureFault> {
        if authorization.service != spec.name {
            return Err(SignatureFault::WrongService(spec.name));
        }
        let now = self.world.now();
        let token = authorization.session_token.as_deref();
        let credential = self.identity.credential(&authorization.access_key_id, token, now);
        let credential = credential.map_err(|denial| match denial {
            crate::Denial::Unknown => SignatureFault::UnknownKey,
            crate::Denial::Expired => SignatureFault::ExpiredToken,
        })?;
        // Only S3 takes bodies that are not signed; for every other service the body's own hash counts.
        let payload_hash = sigv4::sha256_hex(body);
        authorization.verify(head, &payload_hash, &credential.secret, now)?;
        let user_agent = head.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let mut context = Context::internal(
            credential.principal,
            &authorization.region,
            now,
            self.identity.clone(),
        );
        (context.source_ip, context.secure) = (peer.ip, peer.ip.is_loopback());
        context.user_agent = user_agent.unwrap_or_default().chars().take(512).collect();
        context.family = spec.family;
        Ok(context)
    }

    fn named<'a>(
        &self,
        service: &'a Service,
        spoken: &Spoken,
        incoming: &Incoming,
        head: &hyper::http::request::Parts,
    ) -> Result<Call<'a>, Fault> {
        let spec = service.spec;
        let named = match &spoken.target {
            Some((_, operation)) => Some(operation.clone()),
            None => match protocol(spoken, Some(service)) {
                Protocol::RestJson => service
                    .operations
                    .values()
                    .map(|(operation, _)| operation)
                    .find(|operation| {
                        operation.http.0 == head.method.as_str()
                            && match_path(operation.http.1, head.uri.path()).is_some()
                    })
                    .map(|operation| operation.name.to_owned()),
                _ => action(incoming),
            },
        };
        let Some(name) = named else {
            return Err(no_operation_named(spec.family));
        };
        match service.operations.get(name.as_str()) {
            Some((operation, handler)) => Ok(Call { spec, operation, handler }),
            None => {
                self.tell_once(spec, &name);
                Err(Fault::unknown_operation(spec, &name))
            }
        }
    }

    fn tell_once(&self, spec: &ServiceSpec, operation: &str) {
        let operation: String = operation.chars().take(128).collect();
        let name = format!("{}:{operation}", spec.name);
        let mut told = self.told.lock().expect("no holder of this lock can panic");
        if told.len() < MOST_TOLD && !told.contains(&name) {
            tracing::warn!(operation = name, "a client asked for an operation that is not built");
            told.push(name);
        }
    }

    /// Runs the handler in a task of its own: it ends what it began even when the client hangs up, and a panic in it
    /// is a logged bug and a 500, not a dead connection.
    async fn run(&self, call: &Call<'_>, context: Context, value: Value) -> Result<Value, Fault> {
        let (spec, name) = (call.spec, call.operation.name);
        let (authorised, request_id) = (context.authorised.clone(), context.request_id.clone());
        let (send, receive) = oneshot::channel();
        let work = (call.handler)(context, value);
        self.world.spawn("handler", async move {
            // Nobody waits any more when the client has hung up; the work itself is done.
            let _ = send.send(work.await);
        });
        let result = receive.await.unwrap_or_else(|_| {
            tracing::error!(
                service = spec.name,
                operation = name,
                request_id,
                "a handler panicked"
            );
            Err(Fault::internal(spec.family))
        });
        if result.is_ok() && !authorised.load(Ordering::Relaxed) {
            tracing::error!(service = spec.name, operation = name, "a handler asked no permission");
            return Err(Fault::internal(spec.family));
        }
        if result.is_ok() {
            // The end-to-end tests read from these lines which operations they have proven.
            tracing::trace!(target: "served", "{}:{name}", spec.name);
        }
        if let Err(fault) = &result {
            tracing::debug!(service = spec.name, operation = name, code = %fault.code, "refused");
        }
        result
    }
}

/// A refusal, and all that its encoding needs.
type Refused = (Protocol, Option<&'static ServiceSpec>, Fault);

fn unknown_service(family: Family, name: &str) -> Fault {
    let code = match family {
        Family::Json => "UnknownOperationException",
        Family::Query | Family::Ec2 => "InvalidAction",
    };
    Fault::new(code, format!("Neargate does not implement the service '{name}'."))
}

fn no_operation_named(family: Family) -> Fault {
    match family {
        Family::Json => Fault::new("UnknownOperationException", "The request names no operation."),
        Family::Query | Family::Ec2 => {
            Fault::new("MissingAction", "The request is missing an action or a required parameter.")
        }
    }
}

/// Reads from the headers alone which protocol the client speaks.
fn spoken(headers: &HeaderMap, uri: &Uri) -> Spoken {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text("content-type").unwrap_or("");
    if let Some(target) = text("x-amz-target") {
        let (prefix, operation) = target.rsplit_once('.').unwrap_or(("", target));
        let minor = if content_type.starts_with("application/x-amz-json-1.0") { 0 } else { 1 };
        let target = Some((prefix.to_owned(), operation.to_owned()));
        return Spoken { protocol: Protocol::Json { minor }, target };
    }
    if text("smithy-protocol") == Some("rpc-v2-cbor") {
        let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
        let target = match parts[..] {
            [.., "service", service, "operation", operation] => {
                Some((service.to_owned(), operation.to_owned()))
            }
            _ => None,
        };
        return Spoken { protocol: Protocol::Cbor, target };
    }
    let form = content_type.starts_with("application/x-www-form-urlencoded");
    let query = uri.query().unwrap_or("");
    let action = query.split('&').any(|pair| pair.starts_with("Action="));
    let protocol = if form || action { Protocol::Query } else { Protocol::RestJson };
    Spoken { protocol, target: None }
}

/// The headers' protocol, made precise by what the service speaks: EC2 has its own kind of Query.
fn protocol(spoken: &Spoken, service: Option<&Service>) -> Protocol {
    match (spoken.protocol, service.map(|service| service.spec.family)) {
        (Protocol::Query | Protocol::RestJson, Some(Family::Ec2)) => Protocol::Ec2,
        (Protocol::RestJson, Some(Family::Query)) => Protocol::Query,
        (protocol, _) => protocol,
    }
}

/// Decodes and validates bytes as a request of `shape`, for fuzzing: every protocol, no signature.
pub fn decode_for_fuzzing(
    spec: &ServiceSpec,
    operation: &Operation,
    protocol: Protocol,
    uri: &Uri,
    body: &Bytes,
) -> Result<Value, Fault> {
    let headers = HeaderMap::new();
    let value = protocol.decode(operation, &Incoming { uri, headers: &headers, body })?;
    validate(spec, operation.input, &value)?;
    Ok(value)
}

//! The link-local services of a VPC: task metadata v4 and credentials on 169.254.170.2, the API beside them,
//! and the name service on 169.254.169.253. A task is known by its address, which its VPC lets nobody forge, so
//! each reads only its own.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html>

mod faults;
mod metadata;
mod names;

use crate::{
    Ecs,
    model::{LastStatus, Task, TaskDefinition},
    reconcile::connect,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use network::{NAME_SERVICE, NetworkError, REGISTRY_SERVICE, TASK_SERVICE};
use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use wire::Peer;

/// Where tasks find the API, beside the metadata.
const API_PORT: u16 = 4566;
/// Where SDKs look for DiscoverInstances beside an endpoint that is this address: AWS's model says so.
const DATA_NAME: &str = "data-169.254.170.2";
/// How long a task may take to ask.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long accepting rests after it failed.
const REST: Duration = Duration::from_millis(100);
/// How long task credentials hold, as on Fargate.
const CREDENTIALS: Duration = Duration::from_secs(6 * 3600);

/// Where a container's metadata is.
pub(crate) fn metadata_uri(container_id: &str) -> String {
    format!("http://{TASK_SERVICE}/v4/{container_id}")
}

/// What every container's environment holds: how SDKs find region, API and credentials without any change.
pub(crate) fn environment(task: &Task, definition: &TaskDefinition) -> Vec<(String, String)> {
    let region = task.realm.split_once('/').map_or("", |(_, region)| region);
    let mut environment = vec![
        ("AWS_EXECUTION_ENV".to_owned(), "AWS_ECS_FARGATE".to_owned()),
        ("AWS_REGION".to_owned(), region.to_owned()),
        ("AWS_DEFAULT_REGION".to_owned(), region.to_owned()),
        ("AWS_ENDPOINT_URL".to_owned(), format!("http://{TASK_SERVICE}:{API_PORT}")),
    ];
    if role(task, definition).is_some() {
        let uri = format!("/v2/credentials/{}", task.credentials_id);
        environment.push(("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI".to_owned(), uri));
    }
    environment
}

/// The task's role, if it has one.
pub(crate) fn role<'a>(task: &'a Task, definition: &'a TaskDefinition) -> Option<&'a String> {
    task.overrides.task_role_arn.as_ref().or(definition.document.task_role_arn.as_ref())
}

/// Opens the services of a VPC that has none yet.
pub(crate) async fn serve(ecs: &Arc<Ecs>, realm: &str, vpc: &str) -> Result<(), NetworkError> {
    let mut served = ecs.served.lock().await;
    if served.contains_key(vpc) {
        return Ok(());
    }
    let network = ecs.ec2.network();
    let tasks = network.listen(vpc, (TASK_SERVICE, 80).into()).await?;
    let api = network.listen(vpc, (TASK_SERVICE, API_PORT).into()).await?;
    let registry = network.listen(vpc, (REGISTRY_SERVICE, 80).into()).await?;
    let names = network.bind(vpc, (NAME_SERVICE, 53).into()).await?;
    let place: Arc<(String, String)> = Arc::new((realm.to_owned(), vpc.to_owned()));

    let (of_tasks, at) = (ecs.clone(), place.clone());
    accept(ecs, tasks, move |stream, ip| {
        let (ecs, at) = (of_tasks.clone(), at.clone());
        async move { serve_task(ecs, at, stream, ip).await }
    })?;
    let serve_api = ecs.surroundings().api.clone();
    let name: Arc<str> = vpc.into();
    let (api_of_registry, here) = (serve_api.clone(), name.clone());
    accept(ecs, api, move |stream, ip| serve_api(stream, Peer { ip, vpc: Some(name.clone()) }))?;
    accept(ecs, registry, move |stream, ip| {
        api_of_registry(stream, Peer { ip, vpc: Some(here.clone()) })
    })?;
    let (of_names, at) = (ecs.clone(), place.clone());
    names::serve(&ecs.world, names, move |name, from| {
        if name == DATA_NAME {
            return names::addresses(&[TASK_SERVICE]);
        }
        if is_registry(&of_names, name) {
            return names::addresses(&[REGISTRY_SERVICE]);
        }
        let asks = || task_at(&of_names, &at, from);
        if let Some(address) = connect::resolve(&of_names, name, asks) {
            return names::addresses(&[address]);
        }
        let balancer = of_names.elb.addresses(&at.1, name);
        match balancer.is_empty() {
            true => of_names.discovery.resolve(&at.1, name),
            false => names::addresses(&balancer),
        }
    })?;
    served.insert(vpc.to_owned(), ());
    Ok(())
}

/// Whether it is the name that a registry of ours has on AWS.
fn is_registry(ecs: &Ecs, name: &str) -> bool {
    // Few names are looked at closely: whatever a task looks up comes this way.
    let of_aws = name.contains(".dkr.ecr.").then(|| format!("{name}/any").parse().ok()).flatten();
    of_aws.is_some_and(|reference| ecs.surroundings().images.is_ecr(&reference))
}

/// Answers the API on a sandbox's own loopback address: what is named by the host's address there (a repository's URI)
/// is found from inside, too. The listener is closed when what is answered is aborted.
pub(crate) async fn serve_loopback(
    ecs: &Arc<Ecs>,
    task: &Task,
    vpc: &str,
    netns: &std::path::Path,
) -> Result<Option<tokio::task::JoinHandle<()>>, NetworkError> {
    let ip = task.interface.private_ip.as_ref().and_then(|ip| ip.parse::<IpAddr>().ok());
    let (Some(sandbox), Some(ip)) = (&task.sandbox, ip) else { return Ok(None) };
    let address = (std::net::Ipv4Addr::LOCALHOST, sandbox.api_port).into();
    let listener = ecs.ec2.network().listen_in(netns, address).await?;
    let (api, vpc): (_, Arc<str>) = (ecs.surroundings().api.clone(), vpc.into());
    let serve = move |stream, _| api(stream, Peer { ip, vpc: Some(vpc.clone()) });
    accept(ecs, listener, serve).map(Some)
}

/// Serves every connection to a listener in a task of its own.
fn accept<F>(
    ecs: &Arc<Ecs>,
    listener: std::net::TcpListener,
    serve: impl Fn(TcpStream, IpAddr) -> F + Send + 'static,
) -> Result<tokio::task::JoinHandle<()>, NetworkError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let told = |source| NetworkError::Socket { address: (TASK_SERVICE, 0).into(), source };
    let listener = TcpListener::from_std(listener).map_err(told)?;
    let world = ecs.world.clone();
    Ok(ecs.world.spawn("link-local listener", async move {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    world.spawn("link-local connection", serve(stream, from.ip()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a task's connection could not be accepted");
                    world.sleep(REST).await;
                }
            }
        }
    }))
}

async fn serve_task(ecs: Arc<Ecs>, place: Arc<(String, String)>, stream: TcpStream, ip: IpAddr) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (ecs, place) = (ecs.clone(), place.clone());
        async move { Ok::<_, Infallible>(answer(&ecs, &place, request, ip).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a task's connection ended early");
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(
    ecs: &Ecs,
    place: &(String, String),
    request: Request<Incoming>,
    ip: IpAddr,
) -> Answer {
    let Some(task) = task_at(ecs, place, ip) else {
        return text(StatusCode::NOT_FOUND, "no task has this address");
    };
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["v2", "credentials", id] => credentials(ecs, &task, id),
        ["api", container, "fault", "v1", kind, action] => {
            match task.containers.iter().any(|own| own.id == container) {
                true => faults::answer(ecs, &task, [kind, action], request).await,
                false => text(StatusCode::NOT_FOUND, "404 page not found"),
            }
        }
        ["v3" | "v4", container, ref rest @ ..] => {
            metadata::answer(ecs, &task, container, rest).await
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

/// The task that has the address in this VPC.
fn task_at(ecs: &Ecs, (realm, vpc): &(String, String), ip: IpAddr) -> Option<Arc<Task>> {
    let ip = ip.to_string();
    let snapshot = ecs.store.read();
    let mut tasks = snapshot.scan_prefix::<Task>(&format!("{realm}/"));
    tasks.find(|task| {
        let here = || {
            let eni = task.interface.eni.as_ref().and_then(|id| ecs.ec2.interface(realm, id));
            eni.is_some_and(|eni| eni.vpc == *vpc)
        };
        task.interface.private_ip.as_ref() == Some(&ip)
            && task.last_status != LastStatus::Stopped
            && here()
    })
}

#[derive(serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    role_arn: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: String,
}

fn credentials(ecs: &Ecs, task: &Task, id: &str) -> Answer {
    let definition = ecs.definition_of(task);
    let role = definition.as_ref().and_then(|definition| role(task, definition));
    let Some(role) = role.filter(|_| id == task.credentials_id) else {
        return text(StatusCode::BAD_REQUEST, "credentials are not available for this id");
    };
    match ecs.iam.assume_for_service(role, task.principal(), &task.id, CREDENTIALS) {
        Ok(session) => json(&Credentials {
            role_arn: role.clone(),
            access_key_id: session.access_key_id,
            secret_access_key: session.secret,
            token: session.token,
            expiration: session.expires.rfc3339(),
        }),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn json<T: serde::Serialize>(value: &T) -> Answer {
    let body = serde_json::to_vec(value).expect("answers are plain data");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, message: &str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(message.to_owned())));
    *response.status_mut() = status;
    response
}

//! Answers to the command line.

mod exec;

use super::ControlPlane;
use crate::control::{
    BeginReply, DoctorReply, DownReply, EnvReply, InterruptReply, LoadBalancerStatus, LogLine,
    MOST_LINE, Pulling, Reply, Request, ServiceStatus, StatusReply, TaskStatus,
};
use runtime::Check;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
};

/// How often `down` looks whether the tasks are over.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn answer(plane: Arc<ControlPlane>, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = String::new();
    let result = (&mut reader).take(MOST_LINE).read_line(&mut line).await;
    if let Err(error) = result {
        tracing::debug!(%error, "a command broke off");
        return;
    }
    let reply = match serde_json::from_str(&line) {
        Err(error) => encode(&Reply::<()>::Failed(format!("the command cannot be read: {error}"))),
        Ok(Request::Env { account }) => encode(&env(&plane, account).await),
        Ok(Request::Status) => encode(&Reply::Done(status(&plane))),
        Ok(Request::Doctor { mend }) => encode(&doctor(&plane, mend).await),
        Ok(Request::Logs { group, region, last, follow }) => {
            return logs(&plane, write, group, region, last, follow).await;
        }
        Ok(Request::Exec { task, container, args, terminal, force }) => {
            match plane.ecs.exec(&task, container, args, terminal, force).await {
                Ok(session) => return exec::serve(session, reader, write).await,
                Err(error) => encode(&Reply::<()>::Failed(chain(&error))),
            }
        }
        Ok(Request::Interrupt { task }) => encode(&match plane.ecs.interrupt(&task).await {
            Ok(arn) => Reply::Done(InterruptReply { arn }),
            Err(error) => Reply::Failed(chain(&error)),
        }),
        Ok(Request::Down { keep_tasks }) => encode(&down(&plane, keep_tasks).await),
    };
    if let Err(error) = write.write_all(&reply).await {
        tracing::debug!(%error, "whoever gave a command is gone");
    }
}

fn encode<T: Serialize>(reply: &Reply<T>) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).expect("replies are plain data");
    line.push(b'\n');
    line
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn env(plane: &ControlPlane, account: Option<String>) -> Reply<EnvReply> {
    let account = account.unwrap_or_else(|| plane.settings.account.clone());
    match plane.iam.administrator_key(&account, None).await {
        Ok((access_key_id, secret_access_key)) => Reply::Done(EnvReply {
            endpoint: format!("http://{}", plane.settings.listen),
            access_key_id,
            secret_access_key,
            region: plane.settings.region.clone(),
            account,
        }),
        Err(error) => {
            tracing::error!(error = chain(&error), "no administrator's key");
            Reply::Failed("the administrator's key could not be stored; see serve's log".to_owned())
        }
    }
}

fn status(plane: &ControlPlane) -> StatusReply {
    let tasks = plane.ecs.tasks().into_iter().map(|task| TaskStatus {
        realm: task.realm,
        arn: task.arn,
        definition: task.definition,
        status: task.status.to_owned(),
        private_ip: task.private_ip,
        public_ip: task.public_ip,
        pulling: task.pulling.map(|pulling| Pulling {
            image: pulling.image,
            done_bytes: pulling.done_bytes,
            total_bytes: pulling.total_bytes,
        }),
    });
    let services = plane.ecs.services().into_iter().map(|service| ServiceStatus {
        realm: service.realm,
        arn: service.arn,
        definition: service.definition,
        desired: service.desired,
        running: service.running,
        pending: service.pending,
        event: service.event,
    });
    let balancers = plane.elb.overview().into_iter().map(|balancer| LoadBalancerStatus {
        arn: balancer.arn,
        dns_name: balancer.dns_name,
        state: format!("{:?}", balancer.state).to_lowercase(),
        ports: balancer.ports,
        troubles: balancer.troubles,
        figures: balancer.figures,
        groups: balancer.groups,
    });
    StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        endpoint: format!("http://{}", plane.settings.listen),
        region: plane.settings.region.clone(),
        account: plane.settings.account.clone(),
        time_scale: plane.settings.time_scale,
        tasks: tasks.collect(),
        services: services.collect(),
        load_balancers: balancers.collect(),
    }
}

async fn doctor(plane: &ControlPlane, mend: bool) -> Reply<DoctorReply> {
    let examined = async {
        let (mut capabilities, leaks) = plane.ecs.examine().await.map_err(|error| chain(&error))?;
        if mend {
            plane.network.let_through().await.map_err(|error| chain(&error))?;
        }
        let dropped = plane.network.is_dropped().await.map_err(|error| chain(&error))?;
        capabilities.checks.push(forwarding(dropped));
        let network = plane.network.leaks().await.map_err(|error| chain(&error))?;
        let words = leaks.iter().map(|leak| format!("{leak:?}"));
        let words = words.chain(network.iter().map(|leak| format!("{leak:?}"))).collect();
        if mend {
            plane.ecs.mend(&leaks).await.map_err(|error| chain(&error))?;
            for leak in network {
                plane.network.mend(leak).await.map_err(|error| chain(&error))?;
            }
        }
        Ok(DoctorReply { checks: capabilities.checks, leaks: words, mended: mend })
    };
    examined.await.map_or_else(Reply::Failed, Reply::Done)
}

fn forwarding(dropped: bool) -> Check {
    let detail = match dropped {
        false => "this host's firewall lets tasks reach the outside",
        true => {
            "this host's firewall drops what it forwards, so tasks reach the host but not the outside; where \
             Docker did that, neargate doctor --mend lets them through"
        }
    };
    Check {
        name: "forwarding".to_owned(),
        ok: !dropped,
        required: false,
        detail: detail.to_owned(),
    }
}

async fn logs(
    plane: &ControlPlane,
    mut write: OwnedWriteHalf,
    group: String,
    region: Option<String>,
    last: usize,
    follow: bool,
) {
    let region = region.unwrap_or_else(|| plane.settings.region.clone());
    let realm = format!("{}/{region}", plane.settings.account);
    if !plane.logs.has_group(&realm, &group) {
        let refusal = Reply::<()>::Failed(format!("there is no log group {group} in {region}"));
        let _ = write.write_all(&encode(&refusal)).await; // whoever asked may be gone
        return;
    }
    if write.write_all(&encode(&Reply::Done(BeginReply {}))).await.is_err() {
        return;
    }
    let write = Mutex::new(write);
    let each = |line: logs::Line| {
        let line =
            LogLine { stream: line.stream, timestamp_ms: line.timestamp_ms, message: line.message };
        let mut bytes = serde_json::to_vec(&line).expect("lines are plain data");
        bytes.push(b'\n');
        let write = &write;
        async move { write.lock().await.write_all(&bytes).await.is_ok() }
    };
    if let Err(error) = plane.logs.follow(&realm, &group, last, follow, each).await {
        tracing::warn!(group, error = chain(&error), "a log group could not be followed");
    }
}

async fn down(plane: &ControlPlane, keep_tasks: bool) -> Reply<DownReply> {
    if !keep_tasks {
        if let Err(error) = plane.ecs.stop_all("neargate down").await {
            return Reply::Failed(chain(&error));
        }
        // Every container has its stop timeout, so this ends.
        while !plane.ecs.tasks().is_empty() {
            plane.world.sleep(LOOK).await;
        }
        plane.elb.close().await;
        if let Err(error) = plane.network.close().await {
            return Reply::Failed(chain(&error));
        }
    }
    plane.stop.notify_one();
    Reply::Done(DownReply {})
}

/// The half of a connection that commands are read from.
type Reader = BufReader<OwnedReadHalf>;

//! Answers to the command line.

use super::ControlPlane;
use crate::control::{DownReply, EnvReply, MOST_LINE, Reply, Request};
use serde::Serialize;
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

pub(super) async fn answer(plane: Arc<ControlPlane>, mut stream: UnixStream) {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let result = BufReader::new(read.take(MOST_LINE)).read_line(&mut line).await;
    if let Err(error) = result {
        tracing::debug!(%error, "a command broke off");
        return;
    }
    let reply = match serde_json::from_str(&line) {
        Err(error) => encode(&Reply::<()>::Failed(format!("the command cannot be read: {error}"))),
        Ok(Request::Env { account }) => encode(&env(&plane, account).await),
        Ok(Request::Down) => {
            plane.stop.notify_one();
            encode(&Reply::Done(DownReply {}))
        }
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
            tracing::error!(error = &error as &dyn std::error::Error, "no administrator's key");
            Reply::Failed("the administrator's key could not be stored; see serve's log".to_owned())
        }
    }
}

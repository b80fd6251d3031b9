//! Access logs: what the data plane wrote, delivered to the bucket that the load balancer's owner named. A file is
//! removed when it is there, and has the same name if it is delivered again: nothing is lost or there twice.
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-access-logs.html>

use super::Setting;
use crate::{ElbV2, model::LoadBalancer};
use balancer::{
    access_log::{self, Closed},
    config::AccessLog,
};
use flate2::{Compression, read::GzEncoder};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    future::Future,
    io::{self, BufRead, BufReader, Read},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use world::Timestamp;

/// How often the data plane closes a file, as on AWS.
pub(super) const PERIOD: Duration = Duration::from_secs(300);
/// How often is looked for closed ones.
const LOOK: Duration = Duration::from_secs(10);

/// Where access logs go: buckets of S3, whose policies must let Elastic Load Balancing in.
pub trait LogBuckets: Send + Sync + 'static {
    /// Puts an object, in place of what has its key. The error is for people.
    fn put<'a>(
        &'a self,
        region: &'a str,
        bucket: &'a str,
        key: &'a str,
        content: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}

/// What the first line of a file says.
#[derive(Serialize, Deserialize)]
struct Head {
    realm: String,
    bucket: String,
    prefix: String,
    /// `app.NAME.ID`.
    balancer: String,
    ip: String,
}

#[derive(Debug, Error)]
enum DeliveryError {
    #[error("the file cannot be read")]
    File(#[from] io::Error),
    #[error("the file's first line is not understood")]
    Head(#[from] serde_json::Error),
    #[error("the bucket does not take it: {0}")]
    Bucket(String),
}

fn head(balancer: &LoadBalancer) -> Option<Head> {
    let set = |key: &str| balancer.attributes.get(key).cloned().unwrap_or_default();
    let node = balancer.nodes.first();
    let ip = node.and_then(|node| node.public_ip.or(node.ip));
    (set("access_logs.s3.enabled") == "true").then(|| Head {
        realm: balancer.realm.clone(),
        bucket: set("access_logs.s3.bucket"),
        prefix: set("access_logs.s3.prefix"),
        balancer: balancer.path().replace('/', "."),
        ip: ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string()),
    })
}

/// How a load balancer's requests are to be logged, when they are.
pub(super) fn wanted(balancer: &LoadBalancer) -> Option<AccessLog> {
    let head = serde_json::to_string(&head(balancer)?).ok()?;
    Some(AccessLog { name: balancer.path(), head })
}

impl Head {
    fn account_and_region(&self) -> (&str, &str) {
        self.realm.split_once('/').unwrap_or((&self.realm, ""))
    }

    /// What the keys of a load balancer's files begin with.
    fn place(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}{slash}AWSLogs/{}", self.prefix, self.account_and_region().0)
    }

    fn key(&self, closed: &Closed) -> String {
        let (account, region) = self.account_and_region();
        let end = Timestamp::from_millis(i64::try_from(closed.end_ms).unwrap_or(0)).rfc3339();
        let day = end[..10].replace('-', "/");
        let minute = end[..16].replace(['-', ':'], "");
        let (place, balancer, ip, random) =
            (self.place(), &self.balancer, &self.ip, &closed.random);
        format!(
            "{place}/elasticloadbalancing/{region}/{day}/\
             {account}_elasticloadbalancing_{region}_{balancer}_{minute}Z_{ip}_{random}.log.gz"
        )
    }
}

/// Puts AWS's test file where a load balancer's logs are to go, when they are. The error is for people.
pub(crate) async fn try_bucket(elb: &ElbV2, balancer: &LoadBalancer) -> Result<(), String> {
    let Some(head) = head(balancer) else { return Ok(()) };
    if head.bucket.is_empty() {
        return Err("The attribute 'access_logs.s3.bucket' must be specified".to_owned());
    }
    if head.prefix.contains("AWSLogs") || head.prefix.starts_with('/') || head.prefix.ends_with('/')
    {
        return Err(format!("The access log prefix '{}' is not valid", head.prefix));
    }
    let setting = elb.setting.get().ok_or("load balancers are not driven here")?;
    let key = format!("{}/ELBAccessLogTestFile", head.place());
    let (_, region) = head.account_and_region();
    let put = setting.buckets.put(region, &head.bucket, &key, b"Enable AccessLog".to_vec()).await;
    put.map_err(|reason| {
        let bucket = &head.bucket;
        format!("Access Denied for bucket: {bucket}. Please check S3bucket permission ({reason})")
    })
}

/// Begins to deliver.
pub(super) fn start(elb: &Arc<ElbV2>, setting: &Arc<Setting>) {
    let (world, setting) = (elb.world.clone(), setting.clone());
    let of_task = world.clone();
    world.spawn("access logs", async move {
        loop {
            of_task.sleep(of_task.scaled(LOOK)).await;
            deliver_all(&setting).await;
        }
    });
}

async fn deliver_all(setting: &Setting) {
    let found = match access_log::closed(&setting.directory) {
        Ok(found) => found,
        Err(error) => return tracing::warn!(%error, "access logs cannot be looked for"),
    };
    for closed in found {
        let path = closed.path.display().to_string();
        if let Err(error) = deliver(setting, closed).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, path, "an access log is not delivered; it is tried again");
        }
    }
}

async fn deliver(setting: &Setting, closed: Closed) -> Result<(), DeliveryError> {
    let path = closed.path.clone();
    let read = tokio::task::spawn_blocking(move || -> Result<_, DeliveryError> {
        let mut file = BufReader::new(fs::File::open(path)?);
        let mut first = String::new();
        file.read_line(&mut first)?;
        let mut content = Vec::new();
        GzEncoder::new(file, Compression::default()).read_to_end(&mut content)?;
        Ok((serde_json::from_str::<Head>(&first)?, content))
    });
    let (head, content) = read.await.map_err(io::Error::other)??;
    let (_, region) = head.account_and_region();
    let put = setting.buckets.put(region, &head.bucket, &head.key(&closed), content).await;
    put.map_err(DeliveryError::Bucket)?;
    Ok(fs::remove_file(closed.path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_on_aws() {
        let head = Head {
            realm: "123456789012/eu-west-1".to_owned(),
            bucket: "logs".to_owned(),
            prefix: "web".to_owned(),
            balancer: "app.mine.0123456789abcdef".to_owned(),
            ip: "10.0.0.5".to_owned(),
        };
        let closed =
            Closed { path: "x".into(), end_ms: 1_700_000_000_000, random: "00ab12cd".to_owned() };
        assert_eq!(
            head.key(&closed),
            "web/AWSLogs/123456789012/elasticloadbalancing/eu-west-1/2023/11/14/123456789012_\
             elasticloadbalancing_eu-west-1_app.mine.0123456789abcdef_20231114T2213Z_10.0.0.5_00ab12cd.log.gz"
        );
    }
}

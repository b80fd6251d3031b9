//! Whether targets are well.

use crate::{
    config::{Cause, Check, Health},
    socket::{self, Namespace},
    table::Target,
};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};
use tokio::{net::TcpStream, sync::Notify};

/// A target's checks.
pub(crate) struct Checker {
    target: Arc<Target>,
    check: Check,
    namespace: Option<Arc<Namespace>>,
    cause: Rc<RefCell<Option<Cause>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Checker {
    /// Looks after a target, from now on and until this is dropped. Must be called inside a local set;
    /// `changed` is told when there is something new.
    pub(crate) fn start(
        target: &Arc<Target>,
        check: &Check,
        namespace: &Option<Arc<Namespace>>,
        changed: &Arc<Notify>,
    ) -> Self {
        let cause: Rc<RefCell<Option<Cause>>> = Rc::default();
        let looking = look_after(
            target.clone(),
            check.clone(),
            namespace.clone(),
            cause.clone(),
            changed.clone(),
        );
        Self {
            target: target.clone(),
            check: check.clone(),
            namespace: namespace.clone(),
            cause,
            task: tokio::task::spawn_local(looking),
        }
    }

    /// Whether this is what looks after the target as it should be.
    pub(crate) fn fits(
        &self,
        target: &Arc<Target>,
        check: &Check,
        namespace: &Option<Arc<Namespace>>,
    ) -> bool {
        let same_place = match (&self.namespace, namespace) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        Arc::ptr_eq(&self.target, target) && self.check == *check && same_place
    }

    /// What the last check that was not well found.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.cause.borrow().clone()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look_after(
    target: Arc<Target>,
    check: Check,
    namespace: Option<Arc<Namespace>>,
    cause: Rc<RefCell<Option<Cause>>>,
    changed: Arc<Notify>,
) {
    let (mut good, mut bad) = (0_u32, 0_u32);
    loop {
        let began = Instant::now();
        let found = once(&target, &check, namespace.as_deref()).await.err();
        match &found {
            None => (good, bad) = (good.saturating_add(1), 0),
            Some(_) => (good, bad) = (0, bad.saturating_add(1)),
        }
        let before = target.health();
        let after = next(before, good, bad, &check);
        target.set_health(after);
        if cause.replace(found.clone()) != found || after != before {
            changed.notify_one();
        }
        tokio::time::sleep_until((began + check.interval).into()).await;
    }
}

/// A target's health after another check, of which so many were well or not in a row. A new target needs one that is
/// well, as on AWS.
fn next(before: Health, good: u32, bad: u32, check: &Check) -> Health {
    match before {
        Health::Initial if good >= 1 => Health::Healthy,
        Health::Unhealthy if good >= check.healthy => Health::Healthy,
        Health::Initial | Health::Healthy if bad >= check.unhealthy => Health::Unhealthy,
        same => same,
    }
}

async fn once(target: &Target, check: &Check, namespace: Option<&Namespace>) -> Result<(), Cause> {
    let asking = ask(target, check, namespace);
    tokio::time::timeout(check.timeout, asking).await.unwrap_or(Err(Cause::Timeout))
}

async fn ask(target: &Target, check: &Check, namespace: Option<&Namespace>) -> Result<(), Cause> {
    let port = check.port.unwrap_or(target.address.port());
    let address = SocketAddr::new((*target.address.ip()).into(), port);
    let socket = socket::connecting(namespace).map_err(|_| Cause::Failed)?;
    let stream = socket.connect(address).await.map_err(|_| Cause::Failed)?;
    let Some(path) = &check.path else { return Ok(()) };
    let status = status(stream, path, address).await.ok_or(Cause::Failed)?;
    let good = check.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status));
    if good { Ok(()) } else { Err(Cause::Status(status)) }
}

async fn status(stream: TcpStream, path: &str, address: SocketAddr) -> Option<u16> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, "ELB-HealthChecker/2.0")
        .header(header::ACCEPT_ENCODING, "gzip, compressed")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let mut asking = std::pin::pin!(sender.send_request(request));
    // The answer's head is all that counts; with it the connection is dropped.
    let answer = tokio::select! {
        answer = &mut asking => answer,
        _ = connection => asking.await,
    };
    answer.ok().map(|answer| answer.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn thresholds_are_as_on_aws() {
        let check = Check {
            path: None,
            port: None,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            healthy: 5,
            unhealthy: 2,
            statuses: vec![(200, 200)],
        };
        let next = |before, good, bad| next(before, good, bad, &check);
        assert_eq!(next(Health::Initial, 1, 0), Health::Healthy);
        assert_eq!(next(Health::Initial, 0, 1), Health::Initial);
        assert_eq!(next(Health::Initial, 0, 2), Health::Unhealthy);
        assert_eq!(next(Health::Unhealthy, 4, 0), Health::Unhealthy);
        assert_eq!(next(Health::Unhealthy, 5, 0), Health::Healthy);
        assert_eq!(next(Health::Healthy, 0, 1), Health::Healthy);
        assert_eq!(next(Health::Healthy, 0, 2), Health::Unhealthy);
    }
}

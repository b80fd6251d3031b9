//! Where those answer whom stacks wait for: functions of custom resources, and whoever signals a wait condition. Each
//! gets an address that nobody else knows, and puts its answer there, as at the presigned URLs of AWS.
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html>

use crate::{CloudFormation, model::Mailbox};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, http::request::Parts};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use store::DiskFault;
use wire::{Body, Peer, RawHandler, full_body};

/// Where addresses begin.
const PATH: &str = "/cloudformation/answers/";
/// The longest answer, in bytes, as on AWS; and how long it may take.
const LONGEST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(10);
/// The most answers at one address.
const MOST: usize = 1000;

impl CloudFormation {
    /// An address for a mailbox that is to be made, by its secret.
    pub(crate) fn address(&self, secret: &str) -> String {
        format!("http://{}{PATH}{secret}", self.door)
    }

    /// The secret of an address.
    pub(crate) fn secret(address: &str) -> Option<&str> {
        Some(address.split_once(PATH)?.1).filter(|secret| !secret.is_empty())
    }
}

/// Takes the answers.
pub struct Answers(pub Arc<CloudFormation>);

impl Answers {
    async fn take(&self, secret: &str, request: Request<Incoming>) -> Result<(), StatusCode> {
        if self.0.store.read().get::<Mailbox>(secret).is_none() {
            return Err(StatusCode::FORBIDDEN);
        }
        let body = Limited::new(request.into_body(), LONGEST).collect();
        let body = self.0.world.timeout(PATIENCE, body).await.ok_or(StatusCode::REQUEST_TIMEOUT)?;
        let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
        let text = String::from_utf8(body.to_vec()).map_err(|_| StatusCode::BAD_REQUEST)?;
        let key = secret.to_owned();
        let house = self.0.clone();
        let write = self.0.store.write(move |tx| {
            tx.update::<Mailbox>(&key, |mailbox| {
                if mailbox.letters.len() < MOST {
                    mailbox.letters.push(house.seal(&mailbox.stack, &text));
                }
            });
            Ok::<_, DiskFault>(())
        });
        write.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
    }
}

impl RawHandler for Answers {
    fn accepts(&self, head: &Parts) -> bool {
        head.method == Method::PUT && head.uri.path().starts_with(PATH)
    }

    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        _: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            let secret = request.uri().path().strip_prefix(PATH).unwrap_or_default().to_owned();
            let status = match self.take(&secret, request).await {
                Ok(()) => StatusCode::OK,
                Err(status) => status,
            };
            let mut response = Response::new(full_body(""));
            *response.status_mut() = status;
            response
        })
    }
}

//! Where the links of letters lead, which nobody signs: to confirm a subscription, to end one, and to the certificate
//! that letters are signed with.
//! <https://docs.aws.amazon.com/sns/latest/dg/SendMessageToHttp.prepare.html>

use crate::{Sns, ops::subscription};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE,
    http::request::Parts,
};
use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc};
use wire::{Body, Fault, Peer, RawHandler, full_body};

/// Where the certificate is.
pub(crate) const CERTIFICATE: &str = "/SimpleNotificationService.pem";

fn link(sns: &Sns, parameters: &[(&str, &str)]) -> String {
    let url = reqwest::Url::parse_with_params(&format!("http://{}/", sns.door), parameters);
    url.expect("an address makes a URL").into()
}

/// The link that confirms a subscription.
pub(crate) fn confirm(sns: &Sns, topic: &str, token: &str) -> String {
    link(sns, &[("Action", "ConfirmSubscription"), ("TopicArn", topic), ("Token", token)])
}

/// The link that ends a subscription.
pub(crate) fn unsubscribe(sns: &Sns, subscription: &str) -> String {
    link(sns, &[("Action", "Unsubscribe"), ("SubscriptionArn", subscription)])
}

/// Does what the links say.
pub struct Links(pub Arc<Sns>);

fn parameters(head: &Parts) -> HashMap<String, String> {
    let query = head.uri.query().unwrap_or_default();
    let url = reqwest::Url::parse(&format!("http://localhost/?{query}"));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

fn xml(operation: &str, result: &str) -> String {
    format!(
        "<{operation}Response xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\">{result}<ResponseMetadata>\
         <RequestId>00000000-0000-0000-0000-000000000000</RequestId></ResponseMetadata></{operation}Response>"
    )
}

impl Links {
    async fn follow(&self, given: &HashMap<String, String>) -> Result<String, Fault> {
        let text = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
        match text("Action") {
            "ConfirmSubscription" => {
                let (topic, token) = (text("TopicArn"), text("Token"));
                let arn = subscription::confirm(&self.0, topic, token, None).await?;
                let result = format!("<SubscriptionArn>{arn}</SubscriptionArn>");
                let result =
                    format!("<ConfirmSubscriptionResult>{result}</ConfirmSubscriptionResult>");
                Ok(xml("ConfirmSubscription", &result))
            }
            _ => {
                subscription::leave(&self.0, text("SubscriptionArn")).await?;
                Ok(xml("Unsubscribe", ""))
            }
        }
    }
}

impl RawHandler for Links {
    fn accepts(&self, head: &Parts) -> bool {
        if head.method != Method::GET || head.headers.contains_key("authorization") {
            return false;
        }
        if head.uri.path() == CERTIFICATE {
            return true;
        }
        let given = parameters(head);
        let action = given.get("Action").map(String::as_str);
        head.uri.path() == "/"
            && !given.contains_key("X-Amz-Signature")
            && matches!(action, Some("ConfirmSubscription" | "Unsubscribe"))
    }

    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        _: Peer,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        Box::pin(async move {
            let (head, _) = request.into_parts();
            let (status, kind, text) = if head.uri.path() == CERTIFICATE {
                match self.0.signer().await {
                    Ok(signer) => {
                        (StatusCode::OK, "application/x-pem-file", signer.certificate.clone())
                    }
                    Err(error) => {
                        tracing::error!(error, "there is nothing to sign messages with");
                        (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", String::new())
                    }
                }
            } else {
                match self.follow(&parameters(&head)).await {
                    Ok(text) => (StatusCode::OK, "text/xml", text),
                    Err(fault) => {
                        let status = StatusCode::from_u16(fault.status);
                        let status = status.unwrap_or(StatusCode::BAD_REQUEST);
                        // What is said of the request is not told back to a browser.
                        (status, "text/plain", format!("{}\n", fault.code))
                    }
                }
            };
            let mut response = Response::new(full_body(text));
            *response.status_mut() = status;
            let kind = kind.parse().expect("a constant type of contents");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        })
    }
}

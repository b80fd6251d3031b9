//! What a letter says, as who gets it reads it.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>

use crate::{
    Sns,
    links::{self, CERTIFICATE},
    model::{Kind, Letter, Subscription, arn},
    sign::Signer,
};
use serde_json::{Map, Value as Json, json};

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation { .. } => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation { .. } => "UnsubscribeConfirmation",
        }
    }

    fn token(&self) -> Option<&str> {
        match self {
            Self::Notification => None,
            Self::SubscriptionConfirmation { token } | Self::UnsubscribeConfirmation { token } => {
                Some(token)
            }
        }
    }
}

/// The document that an endpoint is sent.
pub(crate) fn document(
    sns: &Sns,
    signer: &Signer,
    letter: &Letter,
    subscription: &Subscription,
) -> Result<Map<String, Json>, String> {
    let topic = arn(&subscription.topic);
    let timestamp = letter.since.rfc3339();
    let mut said = Map::new();
    // What is signed, in the order in which it is: by name.
    said.insert("Message".to_owned(), json!(letter.message));
    said.insert("MessageId".to_owned(), json!(letter.message_id));
    if let Some(subject) = &letter.subject {
        said.insert("Subject".to_owned(), json!(subject));
    }
    if let Some(token) = letter.kind.token() {
        said.insert("SubscribeURL".to_owned(), json!(links::confirm(sns, &topic, token)));
    }
    said.insert("Timestamp".to_owned(), json!(timestamp));
    if let Some(token) = letter.kind.token() {
        said.insert("Token".to_owned(), json!(token));
    }
    said.insert("TopicArn".to_owned(), json!(topic));
    said.insert("Type".to_owned(), json!(letter.kind.name()));
    let signed = said.iter().map(|(name, value)| {
        format!("{name}\n{}\n", value.as_str().expect("all of these are texts"))
    });
    let signature = signer.sign(&signed.collect::<String>())?;
    said.insert("SignatureVersion".to_owned(), json!("2"));
    said.insert("Signature".to_owned(), json!(signature));
    said.insert("SigningCertURL".to_owned(), json!(format!("http://{}{CERTIFICATE}", sns.door)));
    if letter.kind == Kind::Notification {
        let link = links::unsubscribe(sns, &subscription.arn());
        said.insert("UnsubscribeURL".to_owned(), json!(link));
        if !letter.attributes.is_empty() {
            let attributes = letter.attributes.iter().map(|(name, attribute)| {
                (name.clone(), json!({"Type": attribute.kind, "Value": attribute.value}))
            });
            said.insert("MessageAttributes".to_owned(), attributes.collect::<Map<_, _>>().into());
        }
    }
    Ok(said)
}

/// The event that a function is invoked with.
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html>
pub(crate) fn event(
    sns: &Sns,
    signer: &Signer,
    letter: &Letter,
    subscription: &Subscription,
) -> Result<String, String> {
    let mut said = document(sns, signer, letter, subscription)?;
    // Functions know these by other names, and all of them.
    for (from, to) in [("SigningCertURL", "SigningCertUrl"), ("UnsubscribeURL", "UnsubscribeUrl")] {
        if let Some(value) = said.remove(from) {
            said.insert(to.to_owned(), value);
        }
    }
    said.entry("Subject").or_insert(Json::Null);
    said.entry("MessageAttributes").or_insert_with(|| json!({}));
    let record = json!({
        "EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": subscription.arn(), "Sns": said,
    });
    Ok(json!({"Records": [record]}).to_string())
}

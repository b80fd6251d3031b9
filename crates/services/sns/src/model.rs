//! What SNS remembers.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::{Due, Record, Sealed};
use world::Timestamp;

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

/// A topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Topic {
    /// `account/region`.
    pub realm: String,
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub display_name: String,
    /// Who may do what with it, besides its account: JSON.
    pub policy: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl Topic {
    /// The record's key, and in it the realm and the name, of an ARN.
    pub fn key_of(arn: &str) -> Option<String> {
        let parts: Vec<&str> = arn.split(':').collect();
        match parts[..] {
            ["arn", "aws", "sns", region, account, name] => {
                Some(format!("{account}/{region}/{name}"))
            }
            _ => None,
        }
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.key())
    }
}

/// The ARN of the topic with this key.
pub fn arn(key: &str) -> String {
    let mut parts = key.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let (account, region, name) = (part(), part(), part());
    format!("arn:aws:sns:{region}:{account}:{name}")
}

impl Record for Topic {
    const TABLE: &'static str = "sns.topic";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.name)
    }
}

/// How a subscriber is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// A request over HTTP.
    Http,
    /// A request over TLS.
    Https,
    /// A function.
    Lambda,
}

impl Protocol {
    /// AWS's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Lambda => "lambda",
        }
    }
}

/// Somebody who is told of what is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscription {
    /// The topic's key.
    pub topic: String,
    /// A UUID.
    pub id: String,
    /// Whose it is: an account.
    pub owner: String,
    /// How they are reached.
    pub protocol: Protocol,
    /// Where.
    pub endpoint: String,
    /// What confirms it, until it is confirmed.
    pub token: Option<String>,
    /// It was confirmed by somebody who signed.
    pub authenticated: bool,
    /// Only who signs can end it.
    pub guarded: bool,
    /// Which messages they are told of: JSON.
    pub filter: Option<String>,
    /// The filter is for what the message says, not for its attributes.
    pub filter_body: bool,
    /// They get the message alone.
    pub raw: bool,
    /// Subscribe.
    pub created: Timestamp,
}

impl Subscription {
    /// The record's key, of an ARN.
    pub fn key_of(arn: &str) -> Option<String> {
        let (topic, id) = arn.rsplit_once(':')?;
        Some(format!("{}/{id}", Topic::key_of(topic)?))
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        format!("{}:{}", arn(&self.topic), self.id)
    }
}

impl Record for Subscription {
    const TABLE: &'static str = "sns.subscription";
    fn key(&self) -> String {
        format!("{}/{}", self.topic, self.id)
    }
}

/// An attribute of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// `String`, `String.Array`, `Number` or `Binary`, perhaps with more behind a dot.
    pub kind: String,
    /// The text; base64 of what is binary.
    pub value: String,
}

/// What a letter is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Something was published.
    Notification,
    /// The subscriber is asked whether they want to be one.
    SubscriptionConfirmation {
        /// What confirms it.
        token: String,
    },
    /// The subscription was ended by a link.
    UnsubscribeConfirmation {
        /// What takes that back.
        token: String,
    },
}

/// A message on its way to one subscriber.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Letter {
    /// A UUID.
    pub id: String,
    /// The subscription's key.
    pub subscription: String,
    /// What it is.
    pub kind: Kind,
    /// The message's id, a UUID.
    pub message_id: String,
    /// What it is about.
    pub subject: Option<String>,
    /// What it says.
    pub message: String,
    /// More about it.
    pub attributes: BTreeMap<String, Attribute>,
    /// When it was published.
    pub since: Timestamp,
    /// So often was it sent in vain.
    pub attempts: u32,
    /// When it is sent again.
    pub due: Timestamp,
}

impl Record for Letter {
    const TABLE: &'static str = "sns.letter";
    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Due for Letter {
    fn due(&self) -> Timestamp {
        self.due
    }
}

/// What letters are signed with.
#[derive(Clone, Serialize, Deserialize)]
pub struct SigningKey {
    /// The private key, PKCS #8.
    pub key: Sealed,
    /// The certificate, PEM.
    pub certificate: String,
}

impl SigningKey {
    /// The one record's key, and the context that its key is sealed with.
    pub const KEY: &'static str = "signing";
}

impl Record for SigningKey {
    const TABLE: &'static str = "sns.signing_key";
    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

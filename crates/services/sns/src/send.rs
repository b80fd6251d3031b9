//! Letters on their way.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-delivery-retries.html>

use crate::{
    Sns, letter,
    model::{Kind, Letter, Protocol, Subscription, arn},
};
use std::{sync::Arc, time::Duration};
use store::DiskFault;

/// So many are under way at once.
const MOST_UNDER_WAY: usize = 32;
/// How long an endpoint may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// What is tried again, and how often, for endpoints over HTTP: AWS's default.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(20);

/// Why a letter did not arrive.
struct Failed {
    /// It may arrive another time.
    again: bool,
    why: String,
}

pub(crate) async fn drive(sns: Arc<Sns>) {
    let carry = |letter: Arc<Letter>| {
        let sns = sns.clone();
        async move { carry(&sns, &letter).await }
    };
    store::carry_due(&sns.store, &sns.world, "a letter", MOST_UNDER_WAY, carry).await;
}

/// Tries once and writes down what came of it.
async fn carry(sns: &Arc<Sns>, letter: &Letter) {
    let subscription = sns.store.read().get::<Subscription>(&letter.subscription);
    // Whoever is no subscriber any more is told nothing of what was published.
    let subscription =
        subscription.filter(|known| known.token.is_none() || letter.kind != Kind::Notification);
    let failed = match &subscription {
        None => None,
        Some(subscription) => attempt(sns, letter, subscription).await.err(),
    };
    let again = failed.as_ref().is_some_and(|failed| failed.again) && letter.attempts < RETRIES;
    if let Some(failed) = &failed {
        let (subscription, why) = (&letter.subscription, &failed.why);
        match again {
            true => tracing::info!(subscription, why, "a message did not arrive; it is sent again"),
            false => tracing::warn!(subscription, why, "a message did not arrive and is given up"),
        }
    }
    let due = sns.world.now() + sns.world.scaled(PAUSE);
    let id = letter.id.clone();
    let written = sns.store.write(move |tx| {
        match again {
            true => drop(tx.update::<Letter>(&id, |letter| {
                letter.attempts += 1;
                letter.due = due;
            })),
            false => drop(tx.delete::<Letter>(&id)),
        }
        Ok::<_, DiskFault>(())
    });
    if let Err(error) = written.await {
        // It stays due, and is sent again: twice is better than never.
        tracing::warn!(%error, "a message's delivery could not be written down");
        sns.world.sleep(Duration::from_secs(1)).await;
    }
}

async fn attempt(sns: &Sns, letter: &Letter, subscription: &Subscription) -> Result<(), Failed> {
    let later = |why: String| Failed { again: true, why };
    let signer = sns.signer().await.map_err(later)?;
    if subscription.protocol == Protocol::Lambda {
        let event = letter::event(sns, signer, letter, subscription).map_err(later)?;
        let realm = subscription.topic.rsplit_once('/').map_or("", |(realm, _)| realm);
        let function = sns.lambda.function(realm, &subscription.endpoint);
        let function = function.map_err(|why| Failed { again: false, why })?;
        // From here on Lambda sees to it, as on AWS.
        let lambda = sns.lambda.clone();
        let asked = sns.store.write(move |tx| {
            lambda.ask(tx, function, &event);
            Ok::<_, DiskFault>(())
        });
        return asked.await.map_err(|error| later(error.to_string()));
    }
    let raw = subscription.raw && letter.kind == Kind::Notification;
    let body = match raw {
        true => letter.message.clone(),
        false => {
            let said = letter::document(sns, signer, letter, subscription).map_err(later)?;
            serde_json::Value::Object(said).to_string()
        }
    };
    let client = sns.client.get_or_init(|| images::registry::outside(true));
    let mut request = client.post(&subscription.endpoint);
    request = request
        .header("content-type", "text/plain; charset=UTF-8")
        .header("user-agent", "Amazon Simple Notification Service Agent")
        .header("x-amz-sns-message-type", letter.kind.name())
        .header("x-amz-sns-message-id", &letter.message_id)
        .header("x-amz-sns-topic-arn", arn(&subscription.topic));
    if letter.kind == Kind::Notification {
        request = request.header("x-amz-sns-subscription-arn", subscription.arn());
    }
    if raw {
        request = request.header("x-amz-sns-rawdelivery", "true");
    }
    let answer = sns.world.timeout(ANSWER, request.body(body).send()).await;
    let answer = answer.ok_or_else(|| later("it did not answer in time".to_owned()))?;
    let answer = answer.map_err(|error| later(error.to_string()))?;
    let status = answer.status();
    match status.is_success() {
        true => Ok(()),
        false => Err(Failed {
            again: status.is_server_error() || status.as_u16() == 429,
            why: format!("it answered {status}"),
        }),
    }
}

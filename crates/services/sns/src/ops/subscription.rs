//! Subscriptions. Who is to be told over HTTP is asked first whether they want to be: nobody can be made to listen.

use super::{page, still, topic};
use crate::{
    Sns,
    api::*,
    faults, filter,
    model::{self, Kind, Letter, Protocol, Topic},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use store::{Record, Tx};
use wire::{Context, Fault};
use world::{Timestamp, World};

/// Subscriptions of a topic.
const MOST: usize = 10_000;
/// How long a subscription can be confirmed, as on AWS.
const CONFIRMED_IN: Duration = Duration::from_secs(3 * 86_400);
/// What is told instead of the ARN of one that is not confirmed yet.
const PENDING: &str = "pending confirmation";

fn expired(one: &model::Subscription, now: Timestamp) -> bool {
    one.token.is_some() && now.since(one.created) > CONFIRMED_IN
}

/// Sets one of a subscription's attributes.
fn set(one: &mut model::Subscription, name: &str, value: &str) -> Result<(), Fault> {
    let truth = |value: &str| match value {
        "true" | "false" => Ok(value == "true"),
        _ => Err(faults::invalid(format!("Attributes Reason: {name}: Invalid value [{value}]."))),
    };
    match name {
        "RawMessageDelivery" if one.protocol == Protocol::Lambda && truth(value)? => {
            return Err(faults::invalid(
                "Attributes Reason: Delivery protocol [lambda] does not support raw message delivery.",
            ));
        }
        "RawMessageDelivery" => one.raw = truth(value)?,
        "FilterPolicy" if value.is_empty() || value == "{}" => one.filter = None,
        "FilterPolicy" => {
            filter::check(value)
                .map_err(|reason| faults::invalid(format!("FilterPolicy: {reason}")))?;
            one.filter = Some(value.to_owned());
        }
        "FilterPolicyScope" => match value {
            "MessageAttributes" | "MessageBody" => one.filter_body = value == "MessageBody",
            _ => {
                return Err(faults::invalid(format!("FilterPolicyScope: Invalid value [{value}]")));
            }
        },
        "DeliveryPolicy" | "RedrivePolicy" | "SubscriptionRoleArn" | "ReplayPolicy" => {
            return Err(faults::invalid(format!("{name} Reason: Neargate does not do this yet")));
        }
        _ => return Err(faults::invalid("AttributeName")),
    }
    Ok(())
}

fn protocol(name: &str) -> Result<Protocol, Fault> {
    match name {
        "http" => Ok(Protocol::Http),
        "https" => Ok(Protocol::Https),
        "lambda" => Ok(Protocol::Lambda),
        "email" | "email-json" | "sms" | "sqs" | "application" | "firehose" => {
            Err(faults::invalid(format!(
                "Protocol Reason: Neargate has no {name} yet: http, https and lambda only"
            )))
        }
        _ => Err(faults::invalid(format!(
            "Amazon SNS does not support this protocol string: {name}"
        ))),
    }
}

fn check_endpoint(sns: &Sns, realm: &str, protocol: Protocol, endpoint: &str) -> Result<(), Fault> {
    if protocol == Protocol::Lambda {
        let function = sns.lambda.function(realm, endpoint);
        return function
            .map(drop)
            .map_err(|why| faults::invalid(format!("Lambda endpoint ARN: {why}")));
    }
    let fits = reqwest::Url::parse(endpoint)
        .is_ok_and(|url| url.scheme() == protocol.name() && url.host_str().is_some());
    match fits && endpoint.len() <= 2048 {
        true => Ok(()),
        false => {
            Err(faults::invalid("Endpoint Reason: Endpoint must match the specified protocol"))
        }
    }
}

/// A letter that asks whoever is to be told.
fn ask(tx: &mut Tx, world: &World, one: &model::Subscription, kind: Kind, message: String) {
    let now = world.now();
    tx.put(Letter {
        id: world.uuid(),
        subscription: one.key(),
        kind,
        message_id: world.uuid(),
        subject: None,
        message,
        attributes: BTreeMap::new(),
        since: now,
        attempts: 0,
        due: now,
    });
}

pub(crate) async fn subscribe(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: SubscribeInput,
) -> Result<SubscribeResponse, Fault> {
    let found = topic(sns, ctx, "Subscribe", &input.topic_arn)?;
    let protocol = protocol(&input.protocol)?;
    let endpoint = input.endpoint.unwrap_or_default();
    check_endpoint(sns, &found.realm, protocol, &endpoint)?;
    let mut new = model::Subscription {
        topic: found.key(),
        id: sns.world.uuid(),
        owner: ctx.account().to_owned(),
        protocol,
        endpoint,
        token: (protocol != Protocol::Lambda).then(|| sns.world.hex(96)),
        authenticated: protocol == Protocol::Lambda,
        guarded: false,
        filter: None,
        filter_body: false,
        raw: false,
        created: sns.world.now(),
    };
    let given = input.attributes.unwrap_or_default();
    for (name, value) in &given {
        set(&mut new, name, value)?;
    }
    let world = sns.world.clone();
    let made = sns.store.write(move |tx| {
        still(tx, &new.topic)?;
        let now = world.now();
        let all: Vec<_> =
            tx.scan_prefix::<model::Subscription>(&format!("{}/", new.topic)).collect();
        for one in all.iter().filter(|one| expired(one, now)) {
            tx.delete::<model::Subscription>(&one.key());
        }
        let same = |one: &&Arc<model::Subscription>| {
            !expired(one, now) && one.protocol == new.protocol && one.endpoint == new.endpoint
        };
        if let Some(known) = all.iter().find(same) {
            let asked = |one: &model::Subscription| (one.filter.clone(), one.filter_body, one.raw);
            if !given.is_empty() && asked(known) != asked(&new) {
                return Err(faults::invalid(
                    "Attributes Reason: Subscription already exists with different attributes",
                ));
            }
            new = model::Subscription::clone(known);
        } else if all.len() >= MOST {
            return Err(faults::limit("SubscriptionLimitExceeded", "Subscription"));
        } else {
            tx.put(new.clone());
        }
        if let Some(token) = new.token.clone() {
            let message = format!(
                "You have chosen to subscribe to the topic {}.\nTo confirm the subscription, visit the SubscribeURL \
                 included in this message.",
                model::arn(&new.topic)
            );
            ask(tx, &world, &new, Kind::SubscriptionConfirmation { token }, message);
        }
        Ok(new)
    });
    let made = made.await?;
    let told = made.token.is_none() || input.return_subscription_arn == Some(true);
    let arn = if told { made.arn() } else { PENDING.to_owned() };
    Ok(SubscribeResponse { subscription_arn: Some(arn) })
}

/// Confirms the subscription that a token is of; answers its ARN. `guarded`: whoever confirms it signed, and only who
/// signs may end it, or not.
pub(crate) async fn confirm(
    sns: &Sns,
    topic_arn: &str,
    token: &str,
    guarded: Option<bool>,
) -> Result<String, Fault> {
    let key = Topic::key_of(topic_arn).ok_or_else(|| faults::invalid("TopicArn"))?;
    let (token, now) = (token.to_owned(), sns.world.now());
    let confirmed = sns.store.write(move |tx| {
        still(tx, &key)?;
        let mut all = tx.scan_prefix::<model::Subscription>(&format!("{key}/"));
        let of_token =
            |one: &Arc<model::Subscription>| one.token.as_deref() == Some(token.as_str());
        let found = all.find(|one| of_token(one) && !expired(one, now));
        drop(all);
        let mut changed =
            model::Subscription::clone(&*found.ok_or_else(|| faults::invalid("Token"))?);
        changed.token = None;
        changed.authenticated = guarded.is_some();
        changed.guarded = guarded == Some(true);
        tx.put(changed.clone());
        Ok::<_, Fault>(changed.arn())
    });
    confirmed.await
}

pub(crate) async fn confirm_subscription(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: ConfirmSubscriptionInput,
) -> Result<ConfirmSubscriptionResponse, Fault> {
    topic(sns, ctx, "ConfirmSubscription", &input.topic_arn)?;
    let guarded = input.authenticate_on_unsubscribe.as_deref() == Some("true");
    let arn = confirm(sns, &input.topic_arn, &input.token, Some(guarded)).await?;
    Ok(ConfirmSubscriptionResponse { subscription_arn: Some(arn) })
}

/// Ends a subscription for whoever has the link; who was told so far can take that back.
pub(crate) async fn leave(sns: &Sns, arn: &str) -> Result<(), Fault> {
    let key = model::Subscription::key_of(arn).ok_or_else(|| faults::invalid("SubscriptionArn"))?;
    let world = sns.world.clone();
    let written = sns.store.write(move |tx| {
        let Some(found) = tx.get::<model::Subscription>(&key) else {
            return Err(faults::no_subscription());
        };
        if found.token.is_some() {
            return Ok(());
        }
        if found.guarded || found.protocol == Protocol::Lambda {
            let message = "Only who signs the request may end this subscription";
            return Err(Fault::new("AuthorizationError", message).status(403));
        }
        let mut changed = model::Subscription::clone(&found);
        let token = world.hex(96);
        (changed.token, changed.created) = (Some(token.clone()), world.now());
        tx.put(changed.clone());
        let message = format!(
            "You have chosen to deactivate subscription {}.\nTo cancel this operation and restore the subscription, \
             visit the SubscribeURL included in this message.",
            changed.arn()
        );
        ask(tx, &world, &changed, Kind::UnsubscribeConfirmation { token }, message);
        Ok(())
    });
    written.await
}

/// A subscription, for who may do `action` with it, or with its topic.
fn found(
    sns: &Sns,
    ctx: &Context,
    action: &str,
    arn: &str,
) -> Result<Arc<model::Subscription>, Fault> {
    let key = model::Subscription::key_of(arn);
    let topic = arn.rsplit_once(':').map_or(arn, |(topic, _)| topic);
    ctx.authorise(&format!("sns:{action}"), topic)?;
    let key = key.ok_or_else(|| {
        faults::invalid("SubscriptionArn Reason: An ARN must have at least 6 elements")
    })?;
    let found = sns.store.read().get::<model::Subscription>(&key);
    let found = found.filter(|one| !expired(one, sns.world.now()));
    let found = found.ok_or_else(faults::no_subscription)?;
    let of_topic = found.topic.split('/').next() == Some(ctx.account());
    match of_topic || found.owner == ctx.account() {
        true => Ok(found),
        false => Err(faults::no_subscription()),
    }
}

pub(crate) async fn unsubscribe(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: UnsubscribeInput,
) -> Result<(), Fault> {
    let found = match found(sns, ctx, "Unsubscribe", &input.subscription_arn) {
        // To end what is not there is no fault.
        Err(fault) if fault.code == "NotFound" => return Ok(()),
        found => found?,
    };
    let write = sns.store.write(move |tx| {
        tx.delete::<model::Subscription>(&found.key());
        Ok::<_, Fault>(())
    });
    write.await
}

fn described(one: &model::Subscription) -> Subscription {
    let arn = if one.token.is_none() { one.arn() } else { "PendingConfirmation".to_owned() };
    Subscription {
        subscription_arn: Some(arn),
        owner: Some(one.owner.clone()),
        protocol: Some(one.protocol.name().to_owned()),
        endpoint: Some(one.endpoint.clone()),
        topic_arn: Some(model::arn(&one.topic)),
    }
}

pub(crate) async fn list_subscriptions(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: ListSubscriptionsInput,
) -> Result<ListSubscriptionsResponse, Fault> {
    ctx.authorise("sns:ListSubscriptions", &ctx.arn("sns", "*"))?;
    let (snapshot, now) = (sns.store.read(), sns.world.now());
    let all = snapshot.scan_prefix::<model::Subscription>(&format!("{}/", ctx.realm()));
    let all = all.filter(|one| !expired(one, now)).map(|one| (one.key(), described(&one)));
    let page = page("subscriptions", input.next_token.as_deref(), all)?;
    Ok(ListSubscriptionsResponse { subscriptions: Some(page.items), next_token: page.next_token })
}

pub(crate) async fn list_subscriptions_by_topic(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: ListSubscriptionsByTopicInput,
) -> Result<ListSubscriptionsByTopicResponse, Fault> {
    let found = topic(sns, ctx, "ListSubscriptionsByTopic", &input.topic_arn)?;
    let (snapshot, now) = (sns.store.read(), sns.world.now());
    let all = snapshot.scan_prefix::<model::Subscription>(&format!("{}/", found.key()));
    let all = all.filter(|one| !expired(one, now)).map(|one| (one.key(), described(&one)));
    let page = page("subscriptions of a topic", input.next_token.as_deref(), all)?;
    Ok(ListSubscriptionsByTopicResponse {
        subscriptions: Some(page.items),
        next_token: page.next_token,
    })
}

pub(crate) async fn get_subscription_attributes(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: GetSubscriptionAttributesInput,
) -> Result<GetSubscriptionAttributesResponse, Fault> {
    let found = found(sns, ctx, "GetSubscriptionAttributes", &input.subscription_arn)?;
    let truth = |value: bool| value.to_string();
    let scope = if found.filter_body { "MessageBody" } else { "MessageAttributes" };
    let mut told = HashMap::from([
        ("SubscriptionArn", found.arn()),
        ("TopicArn", model::arn(&found.topic)),
        ("Owner", found.owner.clone()),
        ("Protocol", found.protocol.name().to_owned()),
        ("Endpoint", found.endpoint.clone()),
        ("PendingConfirmation", truth(found.token.is_some())),
        ("ConfirmationWasAuthenticated", truth(found.authenticated)),
        ("RawMessageDelivery", truth(found.raw)),
    ]);
    if let Some(policy) = &found.filter {
        told.extend([("FilterPolicy", policy.clone()), ("FilterPolicyScope", scope.to_owned())]);
    }
    let attributes = told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(GetSubscriptionAttributesResponse { attributes: Some(attributes) })
}

pub(crate) async fn set_subscription_attributes(
    sns: &Arc<Sns>,
    ctx: &Context,
    input: SetSubscriptionAttributesInput,
) -> Result<(), Fault> {
    let found = found(sns, ctx, "SetSubscriptionAttributes", &input.subscription_arn)?;
    let key = found.key();
    let write = sns.store.write(move |tx| {
        let known = tx.get::<model::Subscription>(&key).ok_or_else(faults::no_subscription)?;
        let mut changed = model::Subscription::clone(&known);
        let value = input.attribute_value.unwrap_or_default();
        set(&mut changed, &input.attribute_name, &value)?;
        tx.put(changed);
        Ok::<_, Fault>(())
    });
    write.await
}

//! Listeners.

use super::{
    action::{check_groups, normalise},
    find::{balancer_of, find, listeners_of},
    listener_certificate::secure,
    listing::{check_one, page},
    load_balancer::delete_with_rules,
    tag::{authorise_create, tags_in},
};
use crate::{
    ElbV2,
    api::*,
    faults,
    model::{Listener as Record, LoadBalancer as Balancer},
};
use std::{collections::BTreeMap, sync::Arc};
use store::View;
use wire::{Context, Fault};

/// AWS's names for what may be spoken inside of TLS.
const ALPN_POLICIES: [&str; 5] =
    ["HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred", "None"];
/// Listeners of one load balancer.
const MOST_LISTENERS: usize = 50;

fn answer(view: &impl View, listener: &Record) -> Result<Listener, Fault> {
    Ok(Listener {
        listener_arn: Some(listener.arn()),
        load_balancer_arn: Some(balancer_of(view, listener)?.arn()),
        port: Some(i32::from(listener.port)),
        protocol: Some(listener.protocol),
        certificates: listener
            .certificates
            .first()
            .map(|arn| vec![Certificate { certificate_arn: Some(arn.clone()), is_default: None }]),
        ssl_policy: listener.ssl_policy.clone(),
        alpn_policy: listener.alpn_policy.clone().map(|policy| vec![policy]),
        default_actions: Some(listener.default_actions.clone()),
        ..Listener::default()
    })
}

/// Whether a load balancer of `kind` can listen so.
fn check_protocol(kind: LoadBalancerTypeEnum, protocol: ProtocolEnum) -> Result<(), Fault> {
    let (built, all, known): (&[_], _, &[ProtocolEnum]) = match kind {
        LoadBalancerTypeEnum::Network => {
            use ProtocolEnum::{Quic, Tcp, TcpQuic, TcpUdp, Tls, Udp};
            let all = "TLS, TCP, TCP_UDP, UDP, QUIC, TCP_QUIC";
            (&[Tcp, Tls, Udp, TcpUdp], all, &[Quic, TcpQuic])
        }
        _ => (&[ProtocolEnum::Http, ProtocolEnum::Https], "HTTPS, HTTP", &[]),
    };
    if built.contains(&protocol) {
        return Ok(());
    }
    let name = protocol.as_str();
    if !known.contains(&protocol) {
        let message = format!("Listener protocol '{name}' must be one of '{all}'");
        return Err(faults::invalid(message));
    }
    Err(faults::not_built(&format!("listener protocol {name}"), "QUIC is not built"))
}

/// What may be spoken inside of a listener's TLS; what is not given stays.
fn negotiate(listener: &mut Record, given: Option<Vec<String>>) -> Result<(), Fault> {
    if listener.protocol != ProtocolEnum::Tls {
        if given.is_some_and(|given| !given.is_empty()) {
            return Err(faults::invalid("An ALPN policy can be specified for TLS listeners only"));
        }
        listener.alpn_policy = None;
        return Ok(());
    }
    match given.as_deref() {
        None | Some([]) => Ok(()),
        Some([one]) if ALPN_POLICIES.contains(&one.as_str()) => {
            listener.alpn_policy = Some(one.clone());
            Ok(())
        }
        Some(_) => {
            let known = ALPN_POLICIES.join(", ");
            Err(faults::invalid(format!("An ALPN policy must be one of '{known}'")))
        }
    }
}

fn port_in(port: Option<i32>) -> Result<u16, Fault> {
    let port = port.and_then(|port| u16::try_from(port).ok());
    port.ok_or_else(|| faults::invalid("A listener port must be specified"))
}

pub(crate) async fn create_listener(
    elb: &ElbV2,
    ctx: &Context,
    input: CreateListenerInput,
) -> Result<CreateListenerOutput, Fault> {
    let arn = input.load_balancer_arn;
    authorise_create(ctx, "CreateListener", &arn, input.tags.as_ref())?;
    let port = port_in(input.port)?;
    let protocol = input.protocol;
    let protocol =
        protocol.ok_or_else(|| faults::invalid("A listener protocol must be specified"))?;
    let tags = tags_in(input.tags)?;
    let (realm, id, created) = (ctx.realm(), elb.id(), ctx.now);
    let made = elb.store.write(move |tx| {
        let balancer = find::<Balancer>(tx, &realm, &arn)?;
        check_protocol(balancer.kind, protocol)?;
        let default_actions = normalise(balancer.kind, port, input.default_actions)?;
        check_groups(tx, &balancer, protocol, &default_actions)?;
        let mut listener = Record {
            realm,
            id,
            balancer: balancer.id.clone(),
            balancer_path: balancer.path(),
            port,
            protocol,
            certificates: Vec::new(),
            ssl_policy: None,
            alpn_policy: None,
            default_actions: default_actions.clone(),
            attributes: BTreeMap::new(),
            tags: tags.clone(),
            created,
        };
        secure(tx, &mut listener, input.certificates, input.ssl_policy)?;
        negotiate(&mut listener, input.alpn_policy)?;
        let listeners = listeners_of(tx, &balancer);
        if let Some(there) = listeners.iter().find(|there| there.port == port) {
            let same = there.protocol == protocol
                && there.certificates.first() == listener.certificates.first()
                && there.ssl_policy == listener.ssl_policy
                && there.alpn_policy == listener.alpn_policy
                && there.default_actions == default_actions
                && there.tags == tags;
            return match same {
                true => answer(tx, there),
                false => Err(faults::listener_exists(&arn)),
            };
        }
        if listeners.len() >= MOST_LISTENERS {
            return Err(faults::too_many("TooManyListeners", "listeners", MOST_LISTENERS));
        }
        tx.put(listener.clone());
        answer(tx, &listener)
    });
    Ok(CreateListenerOutput { listeners: Some(vec![made.await?]) })
}

pub(crate) async fn describe_listeners(
    elb: &ElbV2,
    ctx: &Context,
    input: DescribeListenersInput,
) -> Result<DescribeListenersOutput, Fault> {
    ctx.authorise("elasticloadbalancing:DescribeListeners", "*")?;
    let arns = input.listener_arns.unwrap_or_default();
    check_one(&[!arns.is_empty(), input.load_balancer_arn.is_some()])?;
    let snapshot = elb.store.read();
    let realm = ctx.realm();
    let listeners: Vec<Arc<Record>> = match &input.load_balancer_arn {
        Some(arn) => listeners_of(&snapshot, &*find::<Balancer>(&snapshot, &realm, arn)?),
        None if arns.is_empty() => {
            let message = "You must specify either listener ARNs or a load balancer ARN";
            return Err(faults::invalid(message));
        }
        None => {
            let found = arns.iter().map(|arn| find::<Record>(&snapshot, &realm, arn));
            found.collect::<Result<_, _>>()?
        }
    };
    let mut answers = Vec::new();
    for listener in listeners {
        let key = format!("{}/{:05}", listener.balancer, listener.port);
        answers.push((key, answer(&snapshot, &listener)?));
    }
    let (listeners, next_marker) =
        page("DescribeListeners", input.marker.as_deref(), input.page_size, answers)?;
    Ok(DescribeListenersOutput { listeners, next_marker })
}

pub(crate) async fn modify_listener(
    elb: &ElbV2,
    ctx: &Context,
    input: ModifyListenerInput,
) -> Result<ModifyListenerOutput, Fault> {
    let arn = input.listener_arn;
    ctx.authorise("elasticloadbalancing:ModifyListener", &arn)?;
    let port = input.port.map(|port| port_in(Some(port))).transpose()?;
    let realm = ctx.realm();
    let changed = elb.store.write(move |tx| {
        let mut listener = Arc::unwrap_or_clone(find::<Record>(tx, &realm, &arn)?);
        let balancer = balancer_of(tx, &listener)?;
        listener.port = port.unwrap_or(listener.port);
        listener.protocol = input.protocol.unwrap_or(listener.protocol);
        check_protocol(balancer.kind, listener.protocol)?;
        secure(tx, &mut listener, input.certificates, input.ssl_policy)?;
        negotiate(&mut listener, input.alpn_policy)?;
        let siblings = listeners_of(tx, &balancer);
        let taken = |other: &Arc<Record>| other.id != listener.id && other.port == listener.port;
        if siblings.iter().any(taken) {
            return Err(faults::listener_exists(&balancer.arn()));
        }
        // Also those that stay: a redirect to the port that is new would lead nowhere else.
        let actions = input.default_actions.unwrap_or(listener.default_actions);
        listener.default_actions = normalise(balancer.kind, listener.port, actions)?;
        check_groups(tx, &balancer, listener.protocol, &listener.default_actions)?;
        tx.put(listener.clone());
        answer(tx, &listener)
    });
    Ok(ModifyListenerOutput { listeners: Some(vec![changed.await?]) })
}

pub(crate) async fn delete_listener(
    elb: &ElbV2,
    ctx: &Context,
    input: DeleteListenerInput,
) -> Result<DeleteListenerOutput, Fault> {
    let arn = input.listener_arn;
    ctx.authorise("elasticloadbalancing:DeleteListener", &arn)?;
    let realm = ctx.realm();
    elb.store
        .write(move |tx| {
            let listener = find::<Record>(tx, &realm, &arn)?;
            delete_with_rules(tx, &listener);
            Ok::<_, Fault>(())
        })
        .await?;
    Ok(DeleteListenerOutput {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols() {
        use LoadBalancerTypeEnum::{Application, Network};
        check_protocol(Application, ProtocolEnum::Http).unwrap();
        check_protocol(Application, ProtocolEnum::Https).unwrap();
        check_protocol(Network, ProtocolEnum::Tcp).unwrap();
        check_protocol(Network, ProtocolEnum::Tls).unwrap();
        check_protocol(Network, ProtocolEnum::TcpUdp).unwrap();
        for (kind, protocol, says) in [
            (Application, ProtocolEnum::Tcp, "must be one of 'HTTPS, HTTP'"),
            (Network, ProtocolEnum::Quic, "QUIC is not built"),
            (Network, ProtocolEnum::Http, "must be one of 'TLS, TCP"),
        ] {
            let fault = check_protocol(kind, protocol).unwrap_err();
            assert!(fault.message.contains(says), "{}", fault.message);
        }
    }
}

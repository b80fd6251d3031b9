//! What the data plane is told, from the records. Pure.

use super::access_logs;
use crate::{
    Mesh,
    api::{Action, ActionTypeEnum, ForwardActionConfig, ProtocolEnum, RuleCondition},
    model::{Listener, LoadBalancer, Node, Rule, Target, TargetGroup},
    ops::ssl_policy::is_only_13,
};
use balancer::config::{
    self as plane, Algorithm, Check, Condition, Config, Does, Forward, ForwardedFor, HttpSettings,
    Speaks, Version,
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::Snapshot;

/// A TCP connection on which nothing passes for so long is forgotten, as on AWS.
const TCP_IDLE: Duration = Duration::from_secs(350);
/// And so is a client of which no datagram passes.
const UDP_IDLE: Duration = Duration::from_secs(120);

/// The configuration that the records, and the mesh, ask for. `place` answers where an interface's network namespace
/// is, once there is one, and `served` gives a certificate by realm and ARN. Version, secret and shared address are the
/// caller's.
pub(super) fn config(
    snapshot: &Snapshot,
    place: impl Fn(&str) -> Option<PathBuf>,
    served: impl Fn(&str, &str) -> Option<acm::Served>,
    mesh: Option<&dyn Mesh>,
) -> Config {
    let mut config = Config::default();
    if let Some(mesh) = mesh {
        (config.balancers, config.groups) = mesh.connections(snapshot);
    }
    for balancer in snapshot.scan::<LoadBalancer>() {
        let nodes = balancer.nodes.iter().filter_map(|node| of_node(node, &place)).collect();
        let own = snapshot.scan_prefix::<Listener>(&format!("{}/", balancer.realm));
        let mut listeners: Vec<_> = own.filter(|l| l.balancer == balancer.id).collect();
        listeners.sort_by_key(|listener| listener.port);
        config.balancers.push(plane::Balancer {
            access_log: access_logs::wanted(&balancer),
            id: balancer.id.clone(),
            names: vec![balancer.dns_name()],
            nodes,
            on_shared: !balancer.internal,
            listeners: listeners
                .iter()
                .flat_map(|l| of_listener(snapshot, l, &served, http2(&balancer)))
                .collect(),
            http: http(&balancer),
        });
    }
    for group in snapshot.scan::<TargetGroup>() {
        let prefix = format!("{}/{}/", group.realm, group.id);
        let targets: Vec<_> = snapshot.scan_prefix::<Target>(&prefix).collect();
        config.groups.insert(group.id.clone(), of_group(&group, &targets));
    }
    config
}

fn of_node(node: &Node, place: impl Fn(&str) -> Option<PathBuf>) -> Option<plane::Node> {
    let netns = place(node.interface.as_ref()?)?;
    Some(plane::Node { netns: Some(netns), ip: node.ip?, diverted: None })
}

fn seconds(text: &str, otherwise: u64) -> Duration {
    Duration::from_secs(text.parse().unwrap_or(otherwise))
}

fn http2(balancer: &LoadBalancer) -> bool {
    balancer.attributes.get("routing.http2.enabled").is_none_or(|enabled| enabled == "true")
}

fn http(balancer: &LoadBalancer) -> HttpSettings {
    let set = |key: &str, default: &'static str| {
        balancer.attributes.get(key).map_or(default, String::as_str).to_owned()
    };
    HttpSettings {
        idle_timeout: seconds(&set("idle_timeout.timeout_seconds", "60"), 60),
        keep_alive: seconds(&set("client_keep_alive.seconds", "3600"), 3600),
        forwarded_for: match &*set("routing.http.xff_header_processing.mode", "append") {
            "preserve" => ForwardedFor::Preserve,
            "remove" => ForwardedFor::Remove,
            _ => ForwardedFor::Append,
        },
        client_port: set("routing.http.xff_client_port.enabled", "false") == "true",
        drop_invalid_headers: set("routing.http.drop_invalid_header_fields.enabled", "false")
            == "true",
    }
}

fn of_listener(
    snapshot: &Snapshot,
    listener: &Listener,
    served: impl Fn(&str, &str) -> Option<acm::Served>,
    http2: bool,
) -> Vec<plane::Listener> {
    let passed = || {
        let found = listener.default_actions.iter().find_map(forward);
        found.unwrap_or(Forward { groups: Vec::new(), sticky: None })
    };
    let tcp = || Does::Tcp { forward: passed(), idle: TCP_IDLE };
    let udp = || Does::Udp { forward: passed(), idle: UDP_IDLE };
    let does = match listener.protocol {
        ProtocolEnum::Tcp | ProtocolEnum::Tls => vec![tcp()],
        ProtocolEnum::Udp => vec![udp()],
        ProtocolEnum::TcpUdp => vec![tcp(), udp()],
        _ => {
            let own = snapshot.scan_prefix::<Rule>(&format!("{}/", listener.realm));
            let mut rules: Vec<_> = own.filter(|rule| rule.listener == listener.id).collect();
            rules.sort_by_key(|rule| rule.priority);
            let rule = |rule: &Arc<Rule>| plane::Rule {
                priority: rule.priority.unsigned_abs(),
                conditions: rule.conditions.iter().map(condition).collect(),
                action: action(&rule.actions),
            };
            let default = action(&listener.default_actions);
            vec![Does::Http { rules: rules.iter().map(rule).collect(), default }]
        }
    };
    let certificate = |arn: &String| {
        let served = served(&listener.realm, arn)?;
        Some(plane::Certificate {
            label: arn.clone(),
            names: served.names,
            chain: served.chain_pem,
            key: served.key_pem,
        })
    };
    let tls = listener.is_secured().then(|| plane::Tls {
        certificates: listener.certificates.iter().filter_map(certificate).collect(),
        protocols: protocols(listener, http2),
        only_13: listener.ssl_policy.as_deref().is_some_and(is_only_13),
    });
    let listener = |does| plane::Listener {
        id: listener.id.clone(),
        port: listener.port,
        tls: tls.clone(),
        prior_knowledge: false,
        does,
    };
    does.into_iter().map(listener).collect()
}

/// What may be spoken inside of TLS.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/create-tls-listener.html>
fn protocols(listener: &Listener, http2: bool) -> Vec<String> {
    let names: &[&str] = match (listener.protocol, listener.alpn_policy.as_deref()) {
        (ProtocolEnum::Https, _) if http2 => &["h2", "http/1.1"],
        (ProtocolEnum::Https, _) => &["http/1.1"],
        (_, Some("HTTP1Only")) => &["http/1.1", "http/1.0"],
        (_, Some("HTTP2Only")) => &["h2"],
        (_, Some("HTTP2Optional")) => &["http/1.1", "http/1.0", "h2"],
        (_, Some("HTTP2Preferred")) => &["h2", "http/1.1", "http/1.0"],
        _ => &[],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The last action decides; those before it would authenticate.
fn action(actions: &[Action]) -> plane::Action {
    let nothing = || plane::Action::Fixed {
        status: 503,
        content_type: "text/plain".to_owned(),
        body: String::new(),
    };
    let Some(action) = actions.last() else { return nothing() };
    let made = match action.r#type {
        ActionTypeEnum::Forward => forward(action).map(plane::Action::Forward),
        ActionTypeEnum::Redirect => action.redirect_config.as_ref().map(|to| {
            let or = |given: &Option<String>, otherwise: &str| {
                given.clone().unwrap_or_else(|| otherwise.to_owned())
            };
            plane::Action::Redirect {
                status: if to.status_code.as_str() == "HTTP_301" { 301 } else { 302 },
                protocol: or(&to.protocol, "#{protocol}"),
                host: or(&to.host, "#{host}"),
                port: or(&to.port, "#{port}"),
                path: or(&to.path, "/#{path}"),
                query: or(&to.query, "#{query}"),
            }
        }),
        ActionTypeEnum::FixedResponse => {
            action.fixed_response_config.as_ref().map(|fixed| plane::Action::Fixed {
                status: fixed.status_code.parse().unwrap_or(503),
                content_type: fixed.content_type.clone().unwrap_or_else(|| "text/plain".to_owned()),
                body: fixed.message_body.clone().unwrap_or_default(),
            })
        }
        _ => None,
    };
    made.unwrap_or_else(nothing)
}

/// The id in a target group's ARN.
pub(crate) fn group_id(arn: &str) -> String {
    arn.rsplit('/').next().unwrap_or_default().to_owned()
}

fn forward(action: &Action) -> Option<Forward> {
    let config: &ForwardActionConfig = action.forward_config.as_ref()?;
    let groups = config.target_groups.iter().flatten().filter_map(|group| {
        let weight = group.weight.unwrap_or(1);
        Some((group_id(group.target_group_arn.as_ref()?), u32::try_from(weight).unwrap_or(0)))
    });
    let sticky = config.target_group_stickiness_config.as_ref();
    let sticky = sticky.filter(|sticky| sticky.enabled == Some(true));
    let lasts = |seconds: i32| Duration::from_secs(u64::from(seconds.unsigned_abs()));
    Some(Forward {
        groups: groups.collect(),
        sticky: sticky.and_then(|sticky| sticky.duration_seconds).map(lasts),
    })
}

/// The values of a condition, of whichever form it has.
fn condition(given: &RuleCondition) -> Condition {
    let legacy = || given.values.clone().unwrap_or_default();
    match given.field.as_deref().unwrap_or_default() {
        "host-header" => {
            let config = given.host_header_config.as_ref().and_then(|c| c.values.clone());
            Condition::Host(config.unwrap_or_else(legacy))
        }
        "http-header" => {
            let config = given.http_header_config.clone().unwrap_or_default();
            Condition::Header {
                name: config.http_header_name.unwrap_or_default().to_lowercase(),
                values: config.values.unwrap_or_default(),
            }
        }
        "http-request-method" => {
            let config = given.http_request_method_config.as_ref();
            Condition::Method(config.and_then(|c| c.values.clone()).unwrap_or_default())
        }
        "query-string" => {
            let config = given.query_string_config.as_ref().and_then(|c| c.values.clone());
            let pair = |pair: crate::api::QueryStringKeyValuePair| {
                (pair.key, pair.value.unwrap_or_default())
            };
            Condition::Query(config.unwrap_or_default().into_iter().map(pair).collect())
        }
        "source-ip" => {
            let config = given.source_ip_config.as_ref().and_then(|c| c.values.clone());
            let block = |text: &String| {
                let (base, prefix) = text.split_once('/')?;
                Some((base.parse::<IpAddr>().ok()?, prefix.parse().ok()?))
            };
            Condition::Source(config.unwrap_or_default().iter().filter_map(block).collect())
        }
        _ => {
            let config = given.path_pattern_config.as_ref().and_then(|c| c.values.clone());
            Condition::Path(config.unwrap_or_else(legacy))
        }
    }
}

fn of_group(group: &TargetGroup, targets: &[Arc<Target>]) -> plane::Group {
    let check = &group.health_check;
    let sticky = group.attribute("stickiness.enabled", "false") == "true";
    let lasts = group.attribute("stickiness.lb_cookie.duration_seconds", "86400");
    let length = |seconds: i32| Duration::from_secs(u64::from(seconds.unsigned_abs()));
    let version = match group.protocol_version.as_deref() {
        Some("HTTP2") => Version::Http2,
        Some("GRPC") => Version::Grpc,
        _ => Version::Http1,
    };
    let tls = matches!(group.protocol, ProtocolEnum::Https | ProtocolEnum::Tls);
    plane::Group {
        label: group.arn(),
        speaks: Speaks { version, tls },
        algorithm: match group.attribute("load_balancing.algorithm.type", "round_robin") {
            "least_outstanding_requests" => Algorithm::LeastOutstanding,
            _ => Algorithm::RoundRobin,
        },
        slow_start: match group.attribute("slow_start.duration_seconds", "0").parse() {
            Ok(0) | Err(_) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
        },
        sticky: sticky.then(|| seconds(lasts, 86_400)),
        proxy_protocol: group.attribute("proxy_protocol_v2.enabled", "false") == "true",
        check: Some(Check {
            speaks: Speaks { version, tls: check.protocol == ProtocolEnum::Https },
            path: (check.protocol != ProtocolEnum::Tcp).then(|| check.path.clone()),
            port: check.port.parse().ok(),
            interval: length(check.interval_seconds),
            timeout: length(check.timeout_seconds),
            healthy: check.healthy.unsigned_abs(),
            unhealthy: check.unhealthy.unsigned_abs(),
            statuses: statuses(&check.matcher),
        }),
        targets: targets
            .iter()
            .map(|target| plane::Target {
                address: std::net::SocketAddrV4::new(target.ip, target.port),
                draining: target.draining_since.is_some(),
            })
            .collect(),
    }
}

/// `200,202` or `200-299`, as first and last.
fn statuses(matcher: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    matcher.split(',').filter_map(range).collect()
}

/// Where each interface's namespace is, once it is there.
pub(super) type Places = BTreeMap<String, PathBuf>;

/// Looks one up.
pub(super) fn place(places: &Places) -> impl Fn(&str) -> Option<PathBuf> {
    |eni| places.get(eni).map(|path: &PathBuf| Path::to_owned(path))
}

#[cfg(test)]
mod tests {
    use super::statuses;

    #[test]
    fn matchers_are_ranges() {
        assert_eq!(statuses("200"), [(200, 200)]);
        assert_eq!(statuses("200,301-302"), [(200, 200), (301, 302)]);
    }
}

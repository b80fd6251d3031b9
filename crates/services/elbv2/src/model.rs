//! The durable records of Elastic Load Balancing.

use crate::api::{Action, LoadBalancerTypeEnum, ProtocolEnum, RuleCondition, TargetTypeEnum};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::Ipv4Addr};
use store::Record;
use world::Timestamp;

/// Tags, by key.
pub type Tags = BTreeMap<String, String>;

fn arn(realm: &str, rest: std::fmt::Arguments) -> String {
    let (account, region) = realm.split_once('/').expect("realms are account/region");
    format!("arn:aws:elasticloadbalancing:{region}:{account}:{rest}")
}

/// Where a load balancer is in its life. A deleted one has no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadBalancerState {
    /// Its interfaces are made.
    Provisioning,
    /// It takes connections.
    Active,
    /// Its interfaces cannot be made; `reason` tells why.
    Failed,
}

/// A load balancer's part in one subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its Availability Zone.
    pub zone: String,
    /// Its subnet.
    pub subnet: String,
    /// Its interface's id, once it is made.
    pub interface: Option<String>,
    /// Its address, once it is made.
    pub ip: Option<Ipv4Addr>,
    /// The address that the host reaches, for an internet-facing one, once it is made.
    pub public_ip: Option<Ipv4Addr>,
}

/// A load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// `account/region`.
    pub realm: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Unique in its realm.
    pub name: String,
    /// Application or network.
    pub kind: LoadBalancerTypeEnum,
    /// Reached from its VPC only.
    pub internal: bool,
    /// Its VPC.
    pub vpc: String,
    /// One per subnet.
    pub nodes: Vec<Node>,
    /// Its security groups.
    pub groups: Vec<String>,
    /// The number in its DNS name.
    pub number: u32,
    /// What its DNS name ends in.
    #[serde(default = "localhost")]
    pub domain: String,
    /// What was set, by key; the defaults are not in it.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
    /// Where it is in its life.
    pub state: LoadBalancerState,
    /// Why it is so.
    pub reason: Option<String>,
    /// CreateLoadBalancer.
    pub created: Timestamp,
}

fn localhost() -> String {
    "localhost".to_owned()
}

impl LoadBalancer {
    /// `app/NAME/ID`: how ARNs, metrics and interfaces name it.
    pub fn path(&self) -> String {
        let kind = match self.kind {
            LoadBalancerTypeEnum::Network => "net",
            LoadBalancerTypeEnum::Gateway => "gwy",
            LoadBalancerTypeEnum::Application => "app",
        };
        format!("{kind}/{}/{}", self.name, self.id)
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.realm, format_args!("loadbalancer/{}", self.path()))
    }

    /// Its DNS name. AWS's ends in `elb.amazonaws.com`; ours in `elb.` and the domain that was set when it was made.
    pub fn dns_name(&self) -> String {
        let (_, region) = self.realm.split_once('/').expect("realms are account/region");
        let internal = if self.internal { "internal-" } else { "" };
        let domain = &self.domain;
        format!("{internal}{}-{}.{region}.elb.{domain}", self.name, self.number).to_lowercase()
    }
}

impl Record for LoadBalancer {
    const TABLE: &'static str = "elbv2.load_balancer";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// `account/region`.
    pub realm: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Its load balancer's id.
    pub balancer: String,
    /// Its load balancer's [`LoadBalancer::path`].
    pub balancer_path: String,
    /// Its port.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: ProtocolEnum,
    /// ARNs of its certificates; the first is the default one.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// Its SSL policy, when it is secured.
    #[serde(default)]
    pub ssl_policy: Option<String>,
    /// What may be spoken inside of TLS, where it is passed on: AWS's name for it.
    #[serde(default)]
    pub alpn_policy: Option<String>,
    /// What happens to a request that no rule matches.
    pub default_actions: Vec<Action>,
    /// What was set, by key; the defaults are not in it.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
    /// CreateListener.
    pub created: Timestamp,
}

impl Listener {
    /// Whether clients speak TLS with it.
    pub fn is_secured(&self) -> bool {
        matches!(self.protocol, ProtocolEnum::Https | ProtocolEnum::Tls)
    }

    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.realm, format_args!("listener/{}/{}", self.balancer_path, self.id))
    }
}

impl Record for Listener {
    const TABLE: &'static str = "elbv2.listener";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A rule of a listener, other than its default one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// `account/region`.
    pub realm: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Its listener's id.
    pub listener: String,
    /// `PATH/LISTENER`: its load balancer's [`LoadBalancer::path`], and its listener's id.
    pub listener_path: String,
    /// The lowest that matches decides. Unique in the listener.
    pub priority: i32,
    /// All must match.
    pub conditions: Vec<RuleCondition>,
    /// What then happens.
    pub actions: Vec<Action>,
    /// Its tags.
    pub tags: Tags,
}

impl Rule {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.realm, format_args!("listener-rule/{}/{}", self.listener_path, self.id))
    }
}

impl Record for Rule {
    const TABLE: &'static str = "elbv2.rule";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// How a target group finds out whether its targets are well. The defaults are filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// HTTP, HTTPS or TCP.
    pub protocol: ProtocolEnum,
    /// A port, or `traffic-port`.
    pub port: String,
    /// What is asked for; not for TCP.
    pub path: String,
    /// From one check to the next.
    pub interval_seconds: i32,
    /// What takes longer has failed.
    pub timeout_seconds: i32,
    /// So many good ones in a row make an unhealthy target healthy.
    pub healthy: i32,
    /// So many bad ones in a row make a target unhealthy.
    pub unhealthy: i32,
    /// The good statuses, of HTTP or of gRPC, like `200,202` or `200-299`; not for TCP.
    pub matcher: String,
}

/// A target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetGroup {
    /// `account/region`.
    pub realm: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Unique in its realm.
    pub name: String,
    /// What its targets speak.
    pub protocol: ProtocolEnum,
    /// `HTTP1`, `HTTP2` or `GRPC`, for the protocols that have versions.
    pub protocol_version: Option<String>,
    /// The port of targets that are registered without one.
    pub port: u16,
    /// Where its targets are.
    pub vpc: String,
    /// Only ip.
    pub target_type: TargetTypeEnum,
    /// How its targets are looked after.
    pub health_check: HealthCheck,
    /// What was set, by key; the defaults are not in it.
    pub attributes: BTreeMap<String, String>,
    /// Its tags.
    pub tags: Tags,
    /// CreateTargetGroup.
    pub created: Timestamp,
}

impl TargetGroup {
    /// Its ARN.
    pub fn arn(&self) -> String {
        arn(&self.realm, format_args!("targetgroup/{}/{}", self.name, self.id))
    }

    /// An attribute, or AWS's default for it.
    pub fn attribute<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.attributes.get(key).map_or(default, String::as_str)
    }
}

impl Record for TargetGroup {
    const TABLE: &'static str = "elbv2.target_group";
    fn key(&self) -> String {
        format!("{}/{}", self.realm, self.id)
    }
}

/// A target of a target group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `account/region`.
    pub realm: String,
    /// Its target group's id.
    pub group: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// When DeregisterTargets was called: since then it gets no new request.
    pub draining_since: Option<Timestamp>,
    /// RegisterTargets.
    pub registered: Timestamp,
}

impl Target {
    /// The record's key.
    pub fn key_of(realm: &str, group: &str, ip: Ipv4Addr, port: u16) -> String {
        format!("{realm}/{group}/{ip}:{port}")
    }
}

impl Record for Target {
    const TABLE: &'static str = "elbv2.target";
    fn key(&self) -> String {
        Self::key_of(&self.realm, &self.group, self.ip, self.port)
    }
}

/// What cookies are made with, so that they hold when the control plane or the data plane starts again.
#[derive(Clone, Serialize, Deserialize)]
pub struct CookieSecret {
    /// Hexadecimal digits.
    pub secret: String,
}

impl Record for CookieSecret {
    const TABLE: &'static str = "elbv2.cookie_secret";
    fn key(&self) -> String {
        "one".to_owned()
    }
}

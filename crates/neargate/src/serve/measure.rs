//! What services and load balancers have done, as CloudWatch's metrics: every minute, of that minute.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/available-metrics.html>,
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-cloudwatch-metrics.html>,
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html>

use cloudwatch::{CloudWatch, Measured, Summary, metric::Metric};
use ecs::{Ecs, TaskUsage};
use elbv2::{
    ElbV2, MeasuredGroup,
    plane::{BalancerFigures, GroupFigures},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use world::{Timestamp, World};

const MINUTE_MS: i64 = 60_000;

/// What is measured, and where to.
pub(super) struct Gauge {
    pub(super) world: World,
    pub(super) ecs: Arc<Ecs>,
    pub(super) elb: Arc<ElbV2>,
    pub(super) cloudwatch: Arc<CloudWatch>,
}

/// What was seen a minute ago, for the difference.
#[derive(Default)]
struct Seen {
    at: Option<Timestamp>,
    cpu_ns: HashMap<String, u64>,
    balancers: HashMap<String, BalancerFigures>,
    groups: HashMap<String, GroupFigures>,
}

/// What was measured, by realm.
type Found = BTreeMap<String, Vec<Measured>>;

/// Measures on and on.
pub(super) async fn drive(gauge: Gauge) {
    let mut seen = Seen::default();
    loop {
        let now = gauge.world.now().millis();
        let rest = MINUTE_MS - now.rem_euclid(MINUTE_MS);
        gauge.world.sleep(Duration::from_millis(rest.unsigned_abs())).await;
        let found = gauge.minute(&mut seen).await;
        for (realm, measured) in found {
            if let Err(error) = gauge.cloudwatch.keep(&realm, measured).await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "what was measured could not be kept");
            }
        }
    }
}

impl Gauge {
    async fn minute(&self, seen: &mut Seen) -> Found {
        let now = self.world.now();
        // What is measured at its end is of the minute that has ended.
        let begin = (now.millis() - MINUTE_MS / 2).div_euclid(MINUTE_MS) * MINUTE_MS;
        let mut minute = Minute { at: Timestamp::from_millis(begin), found: Found::new() };
        let passed = seen.at.map(|at| now.since(at));
        let mut cpu_ns = HashMap::new();
        for (realm, cluster, name) in self.ecs.service_names() {
            let usage = self.ecs.task_usage(&realm, &cluster, &name).await;
            let cpu = passed.and_then(|passed| cpu(&seen.cpu_ns, &usage, passed));
            let memory = Summary::of_values(usage.iter().filter_map(memory));
            let service = vec![("ClusterName", cluster.as_str()), ("ServiceName", name.as_str())];
            for dimensions in [service, vec![("ClusterName", cluster.as_str())]] {
                let place = Place { realm: &realm, namespace: "AWS/ECS", dimensions };
                minute.put(&place, ("CPUUtilization", "Percent"), cpu.clone());
                minute.put(&place, ("MemoryUtilization", "Percent"), memory.clone());
            }
            cpu_ns.extend(usage.into_iter().map(|used| (used.id, used.cpu_ns)));
        }
        let (mut balancers, mut groups) = (HashMap::new(), HashMap::new());
        // The data plane may have counted for longer than this process lives: the first look is for the next.
        let first = seen.at.is_none();
        for balancer in self.elb.measured() {
            let then = seen.balancers.get(&balancer.path).copied();
            let began = if first { balancer.figures } else { BalancerFigures::default() };
            minute.balancer(&balancer, then.unwrap_or(began));
            for group in &balancer.groups {
                let then = seen.groups.get(&group.path).cloned();
                let began = || if first { group.figures.clone() } else { GroupFigures::default() };
                minute.group(&balancer, group, &then.unwrap_or_else(began));
                groups.insert(group.path.clone(), group.figures.clone());
            }
            balancers.insert(balancer.path, balancer.figures);
        }
        *seen = Seen { at: Some(now), cpu_ns, balancers, groups };
        minute.found
    }
}

/// The shares of tasks' CPU that they used, in percent, of those that ran all the time.
fn cpu(before: &HashMap<String, u64>, usage: &[TaskUsage], passed: Duration) -> Option<Summary> {
    let share = |used: &TaskUsage| {
        let ns = used.cpu_ns.checked_sub(*before.get(&used.id)?)? as f64;
        let most = f64::from(used.cpu_units) / 1024.0 * passed.as_nanos() as f64;
        (most > 0.0).then(|| (ns / most * 100.0, 1.0))
    };
    Summary::of_values(usage.iter().filter_map(share))
}

fn memory(used: &TaskUsage) -> Option<(f64, f64)> {
    let limit = used.memory_limit_bytes as f64;
    (limit > 0.0).then(|| (used.memory_bytes as f64 / limit * 100.0, 1.0))
}

/// Where something was measured.
struct Place<'a> {
    realm: &'a str,
    namespace: &'a str,
    dimensions: Vec<(&'a str, &'a str)>,
}

struct Minute {
    at: Timestamp,
    found: Found,
}

/// How much more there is of what only grows, unless it began anew.
fn more(now: u64, then: u64) -> u64 {
    if now >= then { now - then } else { now }
}

impl Minute {
    fn put(&mut self, place: &Place, (name, unit): (&str, &'static str), summary: Option<Summary>) {
        let Some(summary) = summary else { return };
        let dimensions = place.dimensions.iter();
        let dimensions = dimensions.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let metric = Metric::new(place.namespace, name, dimensions);
        let measured = Measured { metric, unit, at: self.at, summary };
        self.found.entry(place.realm.to_owned()).or_default().push(measured);
    }

    /// What was counted. Nothing is not told, as on AWS.
    fn count(&mut self, place: &Place, name: &str, count: u64) {
        let value = count as f64;
        let counted = (count > 0).then(|| Summary::of_set(1.0, value, value, value));
        self.put(place, (name, "Count"), counted);
    }

    fn state(&mut self, place: &Place, (name, unit): (&str, &'static str), value: f64) {
        self.put(place, (name, unit), Some(Summary::of_set(1.0, value, value, value)));
    }

    fn balancer(&mut self, balancer: &elbv2::Measured, then: BalancerFigures) {
        let now = balancer.figures;
        let namespace = namespace(balancer);
        let dimensions = vec![("LoadBalancer", balancer.path.as_str())];
        let place = Place { realm: &balancer.realm, namespace, dimensions };
        let bytes = more(now.bytes, then.bytes) as f64;
        if bytes > 0.0 {
            self.state(&place, ("ProcessedBytes", "Bytes"), bytes);
        }
        let connections = more(now.connections, then.connections);
        let tls_errors = more(now.tls_errors, then.tls_errors);
        if !balancer.application {
            self.count(&place, "NewFlowCount", connections);
            self.state(&place, ("ActiveFlowCount", "Count"), now.active as f64);
            self.count(&place, "ClientTLSNegotiationErrorCount", tls_errors);
            return;
        }
        for (name, count) in [
            ("RequestCount", more(now.requests, then.requests)),
            ("NewConnectionCount", connections),
            ("ActiveConnectionCount", now.active),
            ("HTTPCode_ELB_3XX_Count", more(now.own_3xx, then.own_3xx)),
            ("HTTPCode_ELB_4XX_Count", more(now.own_4xx, then.own_4xx)),
            ("HTTPCode_ELB_5XX_Count", more(now.own_5xx, then.own_5xx)),
            ("ClientTLSNegotiationErrorCount", tls_errors),
        ] {
            self.count(&place, name, count);
        }
    }

    fn group(&mut self, balancer: &elbv2::Measured, group: &MeasuredGroup, then: &GroupFigures) {
        let (realm, namespace, now) = (&balancer.realm, namespace(balancer), &group.figures);
        let of_group = ("TargetGroup", group.path.as_str());
        let of_balancer = ("LoadBalancer", balancer.path.as_str());
        let both = Place { realm, namespace, dimensions: vec![of_group, of_balancer] };
        self.state(&both, ("HealthyHostCount", "Count"), group.healthy as f64);
        self.state(&both, ("UnHealthyHostCount", "Count"), group.unhealthy as f64);
        if !balancer.application {
            return;
        }
        let requests = more(now.requests, then.requests);
        self.count(&both, "RequestCount", requests);
        let each = Place { realm, namespace, dimensions: vec![of_group] };
        if requests > 0 && group.healthy > 0 {
            let per_target = requests as f64 / group.healthy as f64;
            self.state(&each, ("RequestCountPerTarget", "Count"), per_target);
        }
        // Of all groups of the balancer together, too: what is put for the same time becomes one.
        let all = Place { realm, namespace, dimensions: vec![of_balancer] };
        for place in [&both, &all] {
            for (name, now, then) in [
                ("HTTPCode_Target_2XX_Count", now.answers_2xx, then.answers_2xx),
                ("HTTPCode_Target_3XX_Count", now.answers_3xx, then.answers_3xx),
                ("HTTPCode_Target_4XX_Count", now.answers_4xx, then.answers_4xx),
                ("HTTPCode_Target_5XX_Count", now.answers_5xx, then.answers_5xx),
                ("TargetConnectionErrorCount", now.connection_errors, then.connection_errors),
            ] {
                self.count(place, name, more(now, then));
            }
            self.put(place, ("TargetResponseTime", "Seconds"), times(now, then));
        }
    }
}

fn namespace(balancer: &elbv2::Measured) -> &'static str {
    if balancer.application { "AWS/ApplicationELB" } else { "AWS/NetworkELB" }
}

/// How long answers took, in seconds, as exactly as the data plane tells times apart.
fn times(now: &GroupFigures, then: &GroupFigures) -> Option<Summary> {
    let new = |(least, count): (&u64, &u64)| {
        let before = then.times.get(least).copied().unwrap_or(0);
        (*least as f64 / 1e6, more(*count, before) as f64)
    };
    Summary::of_values(now.times.iter().map(new))
}

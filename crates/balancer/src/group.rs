//! Target groups: their targets, what is known of them, and which is next.

use crate::{
    config::{Algorithm, Group as GroupConfig, Health, Speaks},
    meter::GroupMeter,
};
use std::{
    net::SocketAddrV4,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A target, from its first configuration to the one that no longer has it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddrV4,
    pub(crate) health: AtomicU8,
    /// Requests and connections that are not over.
    pub(crate) in_flight: AtomicUsize,
    /// What a cookie calls it.
    pub(crate) token: String,
    /// When it became well, in ms since this process's first such moment.
    well_since: AtomicU64,
}

/// Milliseconds since the first call.
fn uptime_ms() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGAN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A number that steps of one carry evenly over the whole range, also in the short run: the golden ratio.
pub(crate) fn spread(turn: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Target {
    pub(crate) fn new(address: SocketAddrV4, health: Health, token: String) -> Self {
        let target = Self {
            address,
            health: AtomicU8::new(0),
            in_flight: AtomicUsize::new(0),
            token,
            well_since: AtomicU64::new(uptime_ms()),
        };
        target.set_health(health);
        target
    }

    pub(crate) fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Initial,
            1 => Health::Healthy,
            _ => Health::Unhealthy,
        }
    }

    pub(crate) fn set_health(&self, health: Health) {
        let code = match health {
            Health::Initial => 0,
            Health::Healthy => 1,
            Health::Unhealthy => 2,
        };
        let before = self.health.swap(code, Relaxed);
        if code == 1 && before != 1 {
            self.well_since.store(uptime_ms(), Relaxed);
        }
    }

    /// Whether it has been well for so long, at a time.
    fn is_warm(&self, slow_start: Duration, now_ms: u64) -> bool {
        let since = self.well_since.load(Relaxed);
        u128::from(now_ms.saturating_sub(since)) >= slow_start.as_millis()
    }

    /// Whether it takes this turn while it starts slowly: its share grows evenly with the time that it is well.
    fn takes(&self, turn: u64, slow_start: Duration, now_ms: u64) -> bool {
        let warm_ms = now_ms.saturating_sub(self.well_since.load(Relaxed));
        let point = (u128::from(spread(turn)) * slow_start.as_millis()) >> 64;
        point < u128::from(warm_ms)
    }
}

/// What a target is busy with, as long as this lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Target>);

impl Busy {
    fn new(target: &Arc<Target>) -> Self {
        target.in_flight.fetch_add(1, Relaxed);
        Self(target.clone())
    }

    pub(crate) fn target(&self) -> &Target {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A target group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) token: String,
    /// What logs call it.
    pub(crate) label: String,
    pub(crate) meter: Arc<GroupMeter>,
    pub(crate) speaks: Speaks,
    pub(crate) algorithm: Algorithm,
    pub(crate) slow_start: Option<Duration>,
    pub(crate) sticky: Option<Duration>,
    pub(crate) proxy_protocol: bool,
    /// Those that get requests when they are well.
    pub(crate) serving: Vec<Arc<Target>>,
    pub(crate) draining: Vec<Arc<Target>>,
    /// Counts choices; also whose turn it is.
    chosen: Arc<AtomicU64>,
}

impl Group {
    /// How often a target was chosen.
    pub(crate) fn chosen(&self) -> u64 {
        self.chosen.load(Relaxed)
    }

    /// The target of the next request; `cookie` names one that the client was given. None without targets.
    ///
    /// When none is healthy, all are tried: a broken health check must not take a service down that works.
    pub(crate) fn choose(&self, cookie: Option<&str>) -> Option<Busy> {
        let healthy = |target: &&Arc<Target>| target.health() == Health::Healthy;
        if self.serving.is_empty() {
            return None;
        }
        let round = self.chosen.fetch_add(1, Relaxed);
        if let Some(token) = cookie
            && let Some(known) = self.serving.iter().filter(healthy).find(|t| t.token == token)
        {
            return Some(Busy::new(known));
        }
        let count = self.serving.iter().filter(healthy).count();
        let open = count == 0;
        let among = if open { self.serving.len() } else { count };
        let usable = || self.serving.iter().filter(|target| open || healthy(target));
        let turn = usize::try_from(round % among as u64).expect("less than the number of targets");
        let chosen = match self.algorithm {
            Algorithm::RoundRobin => self.in_turn(usable(), turn, round, uptime_ms()),
            // Those that come after the turn first, so that equals take turns.
            Algorithm::LeastOutstanding => usable()
                .skip(turn)
                .chain(usable().take(turn))
                .min_by_key(|target| target.in_flight.load(Relaxed)),
        };
        chosen.map(Busy::new)
    }
}

impl Group {
    /// The target whose turn it is, or, when that one starts slowly and lets the turn pass, another that does not.
    /// Those that are all new start at once, for nobody else could answer.
    fn in_turn<'a>(
        &self,
        usable: impl Iterator<Item = &'a Arc<Target>> + Clone,
        turn: usize,
        round: u64,
        now_ms: u64,
    ) -> Option<&'a Arc<Target>> {
        let mut all = usable.clone();
        let chosen = all.nth(turn)?;
        let Some(slow_start) = self.slow_start else { return Some(chosen) };
        if chosen.takes(round, slow_start, now_ms) {
            return Some(chosen);
        }
        let warm = || usable.clone().filter(|target| target.is_warm(slow_start, now_ms));
        let count = warm().count();
        match count {
            0 => Some(chosen),
            // Not by the turn itself: the same one would always stand in.
            _ => warm().nth((spread(round) % count as u64) as usize),
        }
    }
}

fn token(secret: &str, what: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, what.as_bytes());
    tag.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn group(
    secret: &str,
    id: &str,
    config: &GroupConfig,
    before: Option<&Group>,
    workers: usize,
) -> Group {
    let known = |address: SocketAddrV4| {
        let mut all = before.into_iter().flat_map(|g| g.serving.iter().chain(&g.draining));
        all.find(|target| target.address == address).cloned()
    };
    let target = |target: &crate::config::Target| {
        let new = || {
            let health = if config.check.is_none() { Health::Healthy } else { Health::Initial };
            let token = token(secret, &format!("{id} {}", target.address));
            Arc::new(Target::new(target.address, health, token))
        };
        known(target.address).unwrap_or_else(new)
    };
    let (draining, serving): (Vec<_>, Vec<_>) = config.targets.iter().partition(|t| t.draining);
    Group {
        token: token(secret, id),
        label: config.label.clone(),
        meter: match before {
            Some(before) => before.meter.clone(),
            None => Arc::new(GroupMeter::new(workers)),
        },
        speaks: config.speaks,
        algorithm: config.algorithm,
        slow_start: config.slow_start,
        sticky: config.sticky,
        proxy_protocol: config.proxy_protocol,
        serving: serving.into_iter().map(target).collect(),
        draining: draining.into_iter().map(target).collect(),
        chosen: before.map_or_else(Arc::default, |before| before.chosen.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(last: u8, well_since: u64) -> Arc<Target> {
        let address = SocketAddrV4::new([10, 0, 0, last].into(), 80);
        let target = Target::new(address, Health::Healthy, String::new());
        target.well_since.store(well_since, Relaxed);
        Arc::new(target)
    }

    /// How many of 3000 requests each target gets at a time.
    fn shares(since: &[u64], now_ms: u64) -> Vec<usize> {
        let serving: Vec<_> = since.iter().zip(1..).map(|(s, last)| target(last, *s)).collect();
        let group = Group {
            token: String::new(),
            label: String::new(),
            meter: Arc::new(GroupMeter::new(1)),
            speaks: Speaks::default(),
            algorithm: Algorithm::RoundRobin,
            slow_start: Some(Duration::from_secs(40)),
            sticky: None,
            proxy_protocol: false,
            serving,
            draining: Vec::new(),
            chosen: Arc::default(),
        };
        let count = since.len() as u64;
        let mut shares = vec![0; since.len()];
        for round in 0..3000_u64 {
            let turn = (round % count) as usize;
            let chosen = group.in_turn(group.serving.iter(), turn, round, now_ms).expect("one");
            shares[usize::from(chosen.address.ip().octets()[3]) - 1] += 1;
        }
        shares
    }

    #[test]
    fn a_new_target_starts_slowly() {
        let shares_of_third = |now_ms| {
            let shares = shares(&[0, 0, 100_000], now_ms);
            assert!(shares[0].abs_diff(shares[1]) < 60, "{shares:?}");
            shares[2]
        };
        assert_eq!(shares_of_third(100_000), 0);
        assert!(shares_of_third(110_000).abs_diff(250) < 25);
        assert!(shares_of_third(120_000).abs_diff(500) < 25);
        assert_eq!(shares_of_third(140_000), 1000);
        assert_eq!(shares(&[100_000; 3], 100_000), [1000; 3], "all are new");
    }
}

//! Figures of what passes: each worker counts in a part of its own, so that none waits for another; they are added up
//! when they are told.

use crate::config::{BalancerFigures, GroupFigures};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What of a load balancer is counted.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Requests,
    Connections,
    ConnectionsEnded,
    Bytes,
    OwnAnswers3xx,
    OwnAnswers4xx,
    OwnAnswers5xx,
    TlsErrors,
}

/// What of a target group is counted.
#[derive(Clone, Copy)]
pub(crate) enum GroupCount {
    Answers2xx,
    Answers3xx,
    Answers4xx,
    Answers5xx,
    ConnectionErrors,
    /// Microseconds until the head of an answer came, all of them together.
    Time,
}

const COUNTS: usize = 8;
const GROUP_COUNTS: usize = 6;
/// Response times are told apart by a fifth or so: four steps for each doubling, from a microsecond to over an hour.
const STEPS_OF_DOUBLING: u32 = 4;
const STEPS: usize = 128;

/// A worker's part, in cache lines that no other worker writes.
#[repr(align(128))]
#[derive(Debug)]
struct Part<const N: usize>([AtomicU64; N]);

#[derive(Debug)]
struct Parts<const N: usize>(Box<[Part<N>]>);

impl<const N: usize> Parts<N> {
    fn new(workers: usize) -> Self {
        let part = |_| Part(std::array::from_fn(|_| AtomicU64::new(0)));
        Self((0..workers).map(part).collect())
    }

    fn add(&self, worker: usize, which: usize, number: u64) {
        self.0[worker].0[which].fetch_add(number, Relaxed);
    }

    fn sum(&self, which: usize) -> u64 {
        self.0.iter().map(|part| part.0[which].load(Relaxed)).sum()
    }
}

/// A load balancer's figures.
#[derive(Debug)]
pub(crate) struct Meter(Parts<COUNTS>);

impl Meter {
    pub(crate) fn new(workers: usize) -> Self {
        Self(Parts::new(workers))
    }

    pub(crate) fn add(&self, worker: usize, what: Count, number: u64) {
        self.0.add(worker, what as usize, number);
    }

    /// An answer that no target gave.
    pub(crate) fn own_answer(&self, worker: usize, status: u16) {
        let what = match status {
            300..=399 => Count::OwnAnswers3xx,
            400..=499 => Count::OwnAnswers4xx,
            500.. => Count::OwnAnswers5xx,
            _ => return,
        };
        self.add(worker, what, 1);
    }

    pub(crate) fn figures(&self) -> BalancerFigures {
        let sum = |what: Count| self.0.sum(what as usize);
        // The ends first: what ends in between was seen to begin.
        let ended = sum(Count::ConnectionsEnded);
        let connections = sum(Count::Connections);
        BalancerFigures {
            requests: sum(Count::Requests),
            connections,
            active: connections.saturating_sub(ended),
            bytes: sum(Count::Bytes),
            own_3xx: sum(Count::OwnAnswers3xx),
            own_4xx: sum(Count::OwnAnswers4xx),
            own_5xx: sum(Count::OwnAnswers5xx),
            tls_errors: sum(Count::TlsErrors),
        }
    }
}

/// A target group's figures.
#[derive(Debug)]
pub(crate) struct GroupMeter {
    counts: Parts<GROUP_COUNTS>,
    times: Parts<STEPS>,
}

impl GroupMeter {
    pub(crate) fn new(workers: usize) -> Self {
        Self { counts: Parts::new(workers), times: Parts::new(workers) }
    }

    pub(crate) fn add(&self, worker: usize, what: GroupCount, number: u64) {
        self.counts.add(worker, what as usize, number);
    }

    /// The head of a target's answer, and how long it took.
    pub(crate) fn answer(&self, worker: usize, status: u16, took: Duration) {
        let what = match status {
            ..=299 => GroupCount::Answers2xx,
            300..=399 => GroupCount::Answers3xx,
            400..=499 => GroupCount::Answers4xx,
            500.. => GroupCount::Answers5xx,
        };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.add(worker, what, 1);
        self.add(worker, GroupCount::Time, us);
        self.times.add(worker, step(us), 1);
    }

    pub(crate) fn figures(&self, requests: u64) -> GroupFigures {
        let sum = |what: GroupCount| self.counts.sum(what as usize);
        let times = (0..STEPS).map(|step| (least(step), self.times.sum(step)));
        GroupFigures {
            requests,
            answers_2xx: sum(GroupCount::Answers2xx),
            answers_3xx: sum(GroupCount::Answers3xx),
            answers_4xx: sum(GroupCount::Answers4xx),
            answers_5xx: sum(GroupCount::Answers5xx),
            connection_errors: sum(GroupCount::ConnectionErrors),
            time_us: sum(GroupCount::Time),
            times: times.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>(),
        }
    }
}

/// The step that a time belongs to.
fn step(us: u64) -> usize {
    if us < u64::from(STEPS_OF_DOUBLING) {
        return us as usize;
    }
    let doublings = us.ilog2();
    let rest = (us >> (doublings - 2)) & 3;
    let step = (doublings - 1) * STEPS_OF_DOUBLING + rest as u32;
    (step as usize).min(STEPS - 1)
}

/// The least time of a step, in microseconds.
fn least(step: usize) -> u64 {
    let (doublings, rest) = (step / 4, step as u64 % 4);
    match doublings {
        0 => rest,
        _ => (4 + rest) << (doublings - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_times_agree() {
        for us in (0..5000).chain([1 << 20, (1 << 20) + 1, 3_600_000_000]) {
            let step = step(us);
            assert!(least(step) <= us && us < least(step + 1), "{us} {step}");
        }
        assert_eq!(step(u64::MAX), STEPS - 1);
    }

    #[test]
    fn workers_are_added_up() {
        let meter = GroupMeter::new(2);
        for (worker, status, ms) in [(0, 200, 1), (1, 200, 1), (1, 503, 20)] {
            meter.answer(worker, status, Duration::from_millis(ms));
        }
        let figures = meter.figures(4);
        assert_eq!((figures.answers_2xx, figures.answers_5xx, figures.time_us), (2, 1, 22_000));
        assert_eq!(figures.times.values().sum::<u64>(), 3);
        assert_eq!(figures.quantile_us(0.5), Some(896));
    }
}

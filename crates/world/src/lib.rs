//! Everything that differs from one run to the next comes from here: the time, timers, random bytes, ids
//! and spawned tasks. Production code gets [`World::system`]; a simulation gets [`World::simulated`], where
//! time is tokio's paused clock and one seed gives one history. `clippy.toml` forbids the other ways.

mod random;
mod timestamp;

pub use timestamp::Timestamp;

use random::Random;
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The injected surroundings of a control plane. Cheap to clone; clones share one clock, one source of
/// randomness and one set of spawned tasks.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    /// What AWS's waiting times are multiplied with.
    scale: f64,
    random: Random,
    tasks: TaskTracker,
    stop: CancellationToken,
}

enum Clock {
    System,
    /// The wall clock at the moment the simulation began, moved on by tokio's (paused) clock.
    Simulated {
        start: Timestamp,
        began: tokio::time::Instant,
    },
}

impl World {
    /// The real world: the machine's clock and the kernel's randomness.
    pub fn system() -> Self {
        Self::system_scaled(1.0)
    }

    /// The real world, with AWS's waiting times ([`World::scaled`]) multiplied with `scale`.
    pub fn system_scaled(scale: f64) -> Self {
        assert!(scale.is_finite() && scale > 0.0, "a scale of time is positive");
        Self::new(Clock::System, Random::kernel(), scale)
    }

    /// A repeatable world. Time starts at `start` and is tokio's, so a runtime started with paused time
    /// moves it by hand; every random byte follows from `seed`. Must be called inside a tokio runtime.
    #[allow(clippy::disallowed_methods)] // the one place that anchors simulated time
    pub fn simulated(seed: u64, start: Timestamp) -> Self {
        let began = tokio::time::Instant::now();
        Self::new(Clock::Simulated { start, began }, Random::seeded(seed), 1.0)
    }

    fn new(clock: Clock, random: Random, scale: f64) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { inner: Arc::new(Inner { clock, scale, random, tasks, stop }) }
    }

    /// One of AWS's waiting times, as this machine's setting has it: as on AWS, unless a test asked for less.
    pub fn scaled(&self, wait: Duration) -> Duration {
        wait.mul_f64(self.inner.scale)
    }

    /// The wall-clock time, in milliseconds since the Unix epoch.
    #[allow(clippy::disallowed_methods)] // the one place that reads the wall clock
    pub fn now(&self) -> Timestamp {
        match &self.inner.clock {
            Clock::System => Timestamp::from_system_time(std::time::SystemTime::now()),
            Clock::Simulated { start, began } => *start + began.elapsed(),
        }
    }

    /// A clock that never goes back, for measuring how long something took.
    #[allow(clippy::disallowed_methods)] // the one place that reads the monotonic clock
    pub fn monotonic(&self) -> tokio::time::Instant {
        tokio::time::Instant::now()
    }

    /// Waits for `duration`.
    #[allow(clippy::disallowed_methods)] // the one place that sets timers
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Runs `future`, giving up with `None` after `limit`.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// Fills `bytes` with random bytes fit for keys and tokens.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.inner.random.fill(bytes);
    }

    /// `digits` lower-case hexadecimal digits.
    pub fn hex(&self, digits: usize) -> String {
        self.text(digits, b"0123456789abcdef")
    }

    /// `length` characters drawn evenly from `alphabet`, which must hold 1 to 256 ASCII characters.
    pub fn text(&self, length: usize, alphabet: &[u8]) -> String {
        assert!((1..=256).contains(&alphabet.len()), "an alphabet of 1 to 256 characters");
        // Bytes at or above the largest multiple of the alphabet's size would favour its first letters.
        let fair = 256 - 256 % alphabet.len();
        let mut text = String::with_capacity(length);
        let mut bytes = [0u8; 64];
        while text.len() < length {
            self.fill(&mut bytes);
            let missing = length - text.len();
            let drawn = bytes.iter().filter(|b| (**b as usize) < fair).take(missing);
            text.extend(drawn.map(|b| alphabet[*b as usize % alphabet.len()] as char));
        }
        text
    }

    /// A random (version 4) UUID in its usual text form.
    pub fn uuid(&self) -> String {
        let mut b = [0u8; 16];
        self.fill(&mut b);
        b[6] = b[6] & 0x0f | 0x40;
        b[8] = b[8] & 0x3f | 0x80;
        let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Starts a background task that is dropped at its next await when the world ends ([`World::end`]).
    /// `name` is what traces call it.
    #[allow(clippy::disallowed_methods)] // the one place that spawns
    pub fn spawn<F>(&self, name: &'static str, future: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.inner.stop.clone();
        self.inner.tasks.spawn(async move {
            if stop.run_until_cancelled(future).await.is_none() {
                tracing::trace!(task = name, "ended with the world");
            }
        })
    }

    /// Resolves when the world is ending.
    pub async fn ending(&self) {
        self.inner.stop.cancelled().await;
    }

    /// Ends every spawned task and waits until they are gone.
    pub async fn end(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_seed_is_one_history() {
        let start = Timestamp::from_millis(1_700_000_000_000);
        let a = World::simulated(7, start);
        let b = World::simulated(7, start);
        let c = World::simulated(8, start);
        assert_eq!((a.uuid(), a.hex(9)), (b.uuid(), b.hex(9)));
        assert_ne!(a.uuid(), c.uuid());
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_time_moves_with_tokio() {
        let world = World::simulated(1, Timestamp::from_millis(1_000));
        world.sleep(Duration::from_secs(90)).await;
        assert_eq!(world.now().millis(), 91_000);
    }

    #[tokio::test]
    async fn ids_have_their_alphabet_and_length() {
        let world = World::system();
        assert_eq!(world.hex(17).len(), 17);
        let text = world.text(1000, b"abc");
        assert!(text.bytes().all(|b| b"abc".contains(&b)));
        assert!(["a", "b", "c"].iter().all(|letter| text.contains(letter)));
        let uuid = world.uuid();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
    }

    #[tokio::test]
    async fn the_end_stops_what_was_spawned() {
        let world = World::system();
        let task = world.spawn("forever", std::future::pending());
        world.end().await;
        assert!(task.is_finished());
    }
}

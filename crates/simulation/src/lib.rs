//! What tests in simulated worlds share: dice, seeds, who calls, a process that crashes and begins again, and services
//! that outlive it and are out of order now and then.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};
use store::{Fate, MemoryDisk, Sealer};
use tempfile::TempDir;
use wire::{Context, Fault, FromValue, Handler, Identity, IntoValue, Principal, PrincipalKind};
use world::{Timestamp, World};

/// The account of all tests.
pub const ACCOUNT: &str = "123456789012";
/// Their region.
pub const REGION: &str = "us-east-1";
/// A service answers one call in so many with its own failure, and so many more after it did what it was asked for.
const ODDS: u32 = 40;
/// The longest a call takes.
const LONGEST_CALL_MS: u32 = 50;

/// A number below `bound`.
pub fn below(world: &World, bound: u32) -> u32 {
    let mut bytes = [0; 4];
    world.fill(&mut bytes);
    u32::from_le_bytes(bytes) % bound
}

/// The histories to try: the one that `SEED` names, or as many as `SEEDS` says, or `usual`.
pub fn seeds(usual: u64) -> Range<u64> {
    let given = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match given("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("SEEDS").unwrap_or(usual),
    }
}

/// Calls of the account's root user, now.
pub fn root(world: &World, identity: Arc<dyn Identity>) -> Context {
    let principal = Principal {
        account: ACCOUNT.to_owned(),
        kind: PrincipalKind::Root,
        arn: format!("arn:aws:iam::{ACCOUNT}:root"),
        user_id: ACCOUNT.to_owned(),
        session_policies: Vec::new(),
    };
    Context::internal(principal, REGION, world.now(), identity)
}

/// When histories begin.
const START: i64 = 1_700_000_000_000;
/// Of so many commits one crashes before it, and another after it.
const CRASH_ODDS: u32 = 50;

/// What a process leaves behind when it crashes.
pub struct Kept {
    /// Dice and a clock that go on.
    pub random: World,
    /// Its records.
    pub disk: MemoryDisk,
    /// Its key.
    pub sealer: Arc<Sealer>,
    /// Its files.
    pub directory: TempDir,
}

/// What runs between two crashes.
pub trait Life {
    /// Its world, which ends with it.
    fn world(&self) -> &World;
}

/// What makes a life of what the one before left.
type Begin<L> = Box<dyn Fn(&Kept, World) -> L>;

/// The process under test: after each crash another life begins where the last one was.
pub struct Process<L> {
    /// What there is of it at any time.
    pub kept: Kept,
    /// The life that it has now.
    pub life: L,
    seed: u64,
    lives: u64,
    begin: Begin<L>,
}

impl<L: Life> Process<L> {
    /// One whose lives `begin` makes. Nothing crashes yet.
    pub fn new(seed: u64, begin: impl Fn(&Kept, World) -> L + 'static) -> Self {
        let random = World::simulated(seed, Timestamp::from_millis(START));
        let sealer = Arc::new(Sealer::in_memory(random.clone()));
        let directory = tempfile::tempdir().expect("a directory for files");
        let kept = Kept { disk: MemoryDisk::new(), sealer, directory, random };
        let life = begin(&kept, World::simulated(seed, kept.random.now()));
        Self { kept, life, seed, lives: 0, begin: Box::new(begin) }
    }

    /// From now on it crashes at random.
    pub fn unsettle(&self) {
        let dice = self.kept.random.clone();
        self.kept.disk.decide(move |_| match below(&dice, CRASH_ODDS) {
            0 => Fate::CrashBefore,
            1 => Fate::CrashAfter,
            _ => Fate::Commit,
        });
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u32) -> u32 {
        below(&self.kept.random, bound)
    }

    async fn crash(&mut self) {
        self.lives += 1;
        self.life.world().end().await;
        let seed = self.seed * 1000 + self.lives;
        let world = World::simulated(seed, self.kept.random.now());
        self.life = (self.begin)(&self.kept, world);
    }

    /// Does something with the life that it has; nothing is heard of it when it crashed meanwhile.
    pub async fn call<T>(&mut self, call: impl AsyncFnOnce(&L) -> T) -> Option<T> {
        let disk = self.kept.disk.clone();
        let done = tokio::select! {
            done = call(&self.life) => Some(done),
            () = disk.crashed() => None,
        };
        if done.is_none() {
            self.crash().await;
        }
        done
    }

    /// Waits, through a crash if there is one.
    pub async fn wait(&mut self, wait: Duration) {
        self.call(async |life| life.world().sleep(wait).await).await;
    }
}

/// What outlives the process under test.
pub trait Outside: Send + 'static {
    /// Panics unless what must hold at any time does.
    fn check(&self);
}

/// The handler of an operation of such a service: it takes a while, and fails now and then, before or after it did what
/// it is for.
pub fn handler<I: FromValue, O: IntoValue, T: Outside>(
    action: &'static str,
    world: &World,
    outside: &Arc<Mutex<T>>,
    work: impl Fn(&mut T, &World, I) -> Result<O, Fault> + Send + Sync + 'static,
) -> Handler {
    let (world, outside, work) = (world.clone(), outside.clone(), Arc::new(work));
    Arc::new(move |context, value| {
        let (world, outside, work) = (world.clone(), outside.clone(), work.clone());
        Box::pin(async move {
            context.authorise(action, "*")?;
            let broken = || match below(&world, ODDS) {
                0 => Err(Fault::new("ServerException", "It is out of order.").status(500)),
                _ => Ok(()),
            };
            world.sleep(Duration::from_millis(below(&world, LONGEST_CALL_MS).into())).await;
            broken()?;
            let done = {
                let mut outside = outside.lock().expect("what must hold does");
                let done = work(&mut outside, &world, I::from_value(value));
                outside.check();
                done.map(IntoValue::into_value)
            };
            broken()?;
            done
        })
    })
}

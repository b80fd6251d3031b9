//! What tests in simulated worlds share: dice, seeds, who calls, and services that outlive the process under test and
//! are out of order now and then.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};
use wire::{Context, Fault, FromValue, Handler, Identity, IntoValue, Principal, PrincipalKind};
use world::World;

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

//! Asynchronous invocations are tried until the function succeeds, has failed three times, or six hours have gone by.
//! <https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html>

use crate::{
    Lambda, NOWHERE,
    elsewhere::{Answer, Asked},
    model::{Function, Invocation},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};
use store::{DiskFault, Record};
use world::Timestamp;

/// The waits after the first and the second failure; there is no attempt after the third.
const PAUSES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];
/// An event that found nobody is given up when it is this old.
const OLDEST: Duration = Duration::from_secs(6 * 3600);
/// The wait before a function that was not reached is asked again, doubled after each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// So many at once: the rest of the turns is for those who wait for an answer.
const MOST_UNDER_WAY: usize = 50;

pub(crate) async fn drive(service: Arc<Lambda>) {
    let carry = |one: Arc<Invocation>| {
        let service = service.clone();
        async move { carry(&service, &one).await }
    };
    store::carry_due(&service.store, &service.world, "an invocation", MOST_UNDER_WAY, carry).await;
}

/// Tries once and writes down what came of it.
async fn carry(service: &Lambda, invocation: &Invocation) {
    let why = attempt(service, invocation).await;
    let now = service.world.now();
    let mut changed = invocation.clone();
    let due = match &why {
        Ok(()) => None,
        Err(Failed { ran: true, .. }) => {
            changed.failures += 1;
            let pause = PAUSES.get(invocation.failures as usize);
            pause.map(|pause| now + service.world.scaled(*pause))
        }
        Err(Failed { ran: false, .. }) => {
            changed.misses += 1;
            let doubled = FIRST_PAUSE.saturating_mul(1 << invocation.misses.min(16));
            Some(now + doubled.min(LONGEST_PAUSE))
        }
    };
    let due = due.filter(|due: &Timestamp| due.since(invocation.since) <= OLDEST);
    if let Err(Failed { why, .. }) = &why {
        let (function, again) = (invocation.function.arn(), due.is_some());
        tracing::warn!(function, why, again, "an asynchronous invocation failed");
    }
    let key = invocation.key();
    let written = service.store.write(move |tx| {
        match due {
            Some(due) => tx.put(Invocation { due, ..changed }),
            None => {
                tx.delete::<Invocation>(&key);
            }
        }
        Ok::<_, DiskFault>(())
    });
    if let Err(error) = written.await {
        // It stays due, and is tried again: an asynchronous invocation may come more than once.
        tracing::warn!(%error, "an invocation's end could not be written down");
        service.world.sleep(FIRST_PAUSE).await;
    }
}

/// Why a function did not do what it was asked for.
pub(crate) struct Failed {
    /// It was there and failed.
    ran: bool,
    pub why: String,
}

async fn attempt(service: &Lambda, invocation: &Invocation) -> Result<(), Failed> {
    let payload = service.sealer.open(&invocation.id, &invocation.payload);
    // What cannot be opened never will be.
    let payload = payload.map_err(|error| Failed { ran: true, why: error.to_string() })?;
    reach(service, &invocation.function, payload.into()).await
}

/// Runs a function once, when it is its turn.
pub(crate) async fn reach(
    service: &Lambda,
    function: &Function,
    payload: Bytes,
) -> Result<(), Failed> {
    let missed = |why: String| Failed { ran: false, why };
    let endpoint = service.endpoint.as_ref().ok_or_else(|| missed(NOWHERE.to_owned()))?;
    let _turn = service.turns.acquire().await.expect("the semaphore is never closed");
    let asked = Asked { function, payload, context: None, tail: false };
    match endpoint.invoke(&service.world, &asked).await {
        Answer::Ran { error: None, .. } => Ok(()),
        Answer::Ran { error: Some(error), payload, .. } => {
            let said: String = String::from_utf8_lossy(&payload).chars().take(256).collect();
            Err(Failed { ran: true, why: format!("{error}: {said}") })
        }
        // It is not there, or cannot be invoked like this: that counts as a failure of its own.
        Answer::Refused(status, said) if status < 500 && status != 429 => {
            Err(Failed { ran: true, why: format!("HTTP {status}: {said}") })
        }
        Answer::Refused(status, said) => Err(missed(format!("HTTP {status}: {said}"))),
        Answer::Missed(why) => Err(missed(why)),
    }
}

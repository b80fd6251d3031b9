//! Single flight: who asks for work that is under way waits for it instead of doing it again.

use crate::pull::{Event, Progress};
use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex},
};
use tokio::sync::watch;
use world::World;

/// Everybody who wants to hear how a piece of work goes on.
#[derive(Clone, Default)]
pub(crate) struct Audience(Arc<Mutex<Vec<Progress>>>);

impl Audience {
    pub(crate) fn tell(&self, event: &Event) {
        // Called without the lock, as a listener may take its time or join something itself.
        let listeners = self.0.lock().expect("no panic while held").clone();
        listeners.iter().for_each(|listener| listener(event));
    }

    fn add(&self, listener: Progress) {
        self.0.lock().expect("no panic while held").push(listener);
    }
}

/// Work under way, by key.
pub(crate) struct Flights<K, V> {
    flights: Mutex<HashMap<K, Flight<V>>>,
}

struct Flight<V> {
    result: watch::Receiver<Option<V>>,
    audience: Audience,
}

/// Who got a result: the one that began the work, or one that joined it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Joiner,
}

impl<K, V> Flights<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Flights { flights: Mutex::default() })
    }

    /// The result of the work for `key`, which is begun with `work` if nobody has. It goes on even
    /// if everybody who waits for it gives up. `None` if the world ended first.
    pub(crate) async fn join<F>(
        self: &Arc<Self>,
        world: &World,
        key: K,
        listener: Progress,
        work: impl FnOnce(Audience) -> F,
    ) -> Option<(Role, V)>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (role, mut result) = {
            let mut flights = self.flights.lock().expect("no panic while held");
            match flights.get(&key) {
                Some(flight) => {
                    flight.audience.add(listener);
                    (Role::Joiner, flight.result.clone())
                }
                None => {
                    let (sender, result) = watch::channel(None);
                    let audience = Audience::default();
                    audience.add(listener);
                    let flight = Flight { result: result.clone(), audience: audience.clone() };
                    flights.insert(key.clone(), flight);
                    let landing = Landing { flights: self.clone(), key };
                    let work = work(audience);
                    world.spawn("image work", async move {
                        let value = work.await;
                        drop(landing); // from here on, whoever asks begins anew
                        sender.send_replace(Some(value));
                    });
                    (Role::Leader, result)
                }
            }
        };
        let value = result.wait_for(Option::is_some).await.ok()?.clone();
        value.map(|value| (role, value))
    }
}

/// Takes a flight off the board, also when its task is dropped in the middle.
struct Landing<K: Hash + Eq, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.flights.lock().expect("no panic while held").remove(&self.key);
    }
}

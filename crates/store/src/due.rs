//! Records that are worked off: each is carried out when it is due, by one at a time.

use crate::{Record, Store};
use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;
use world::{Timestamp, World};

/// The longest wait between two looks.
const ROUND: Duration = Duration::from_secs(60);

/// A record that is carried out at a time.
pub trait Due: Record {
    /// When.
    fn due(&self) -> Timestamp;
}

/// Carries out all records of a table, on and on: each when it is due, by one at a time, and `most` at once. `carry`
/// does it once and writes down what came of it: that the record is gone, or due later. One that is due still is
/// carried out again.
pub async fn carry_due<R: Due, F>(
    store: &Store,
    world: &World,
    name: &'static str,
    most: usize,
    carry: impl Fn(Arc<R>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut watch = store.watch::<R>();
    let under_way = Arc::new(Mutex::new(HashSet::<String>::new()));
    let done = Arc::new(Notify::new());
    loop {
        let now = world.now();
        let mut next = None;
        for record in store.read().scan::<R>() {
            if record.due() > now {
                next = Some(next.map_or(record.due(), |next| record.due().min(next)));
                continue;
            }
            let key = record.key();
            let mut busy = under_way.lock().expect("nothing panics with the lock held");
            if busy.len() >= most {
                break;
            }
            if !busy.insert(key.clone()) {
                continue;
            }
            drop(busy);
            let (work, under_way, done) = (carry(record), under_way.clone(), done.clone());
            world.spawn(name, async move {
                work.await;
                under_way.lock().expect("nothing panics with the lock held").remove(&key);
                done.notify_one();
            });
        }
        let wait = next.map_or(ROUND, |next| next.since(now).min(ROUND));
        tokio::select! {
            () = world.sleep(wait) => {}
            () = watch.changed() => {}
            () = done.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiskFault, MemoryDisk};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Job {
        name: String,
        due: Timestamp,
    }

    impl Record for Job {
        const TABLE: &'static str = "test.job";
        fn key(&self) -> String {
            self.name.clone()
        }
    }

    impl Due for Job {
        fn due(&self) -> Timestamp {
            self.due
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_carried_when_it_is_due_and_so_many_at_once() {
        let start = Timestamp::from_millis(1_000_000);
        let world = World::simulated(1, start);
        let store = Store::on(&MemoryDisk::new(), world.clone());
        store.declare::<Job>().unwrap();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let put = store.write(|tx| {
            for (name, seconds) in [("a", 0), ("b", 0), ("c", 0), ("late", 100)] {
                tx.put(Job { name: name.to_owned(), due: at(seconds) });
            }
            Ok::<_, DiskFault>(())
        });
        put.await.unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (carried, kept, clock) = (told.clone(), store.clone(), world.clone());
        // Each takes ten seconds, and "a" is due once more, later.
        let carry = move |job: Arc<Job>| {
            let (told, store, world) = (carried.clone(), kept.clone(), clock.clone());
            async move {
                let since = |now: Timestamp| now.since(Timestamp::from_millis(1_000_000)).as_secs();
                told.lock().unwrap().push((job.name.clone(), since(world.now())));
                world.sleep(Duration::from_secs(10)).await;
                let again = job.name == "a" && job.due == Timestamp::from_millis(1_000_000);
                let written = store.write(move |tx| {
                    match again {
                        true => {
                            tx.put(Job { due: job.due + Duration::from_secs(50), ..(*job).clone() })
                        }
                        false => drop(tx.delete::<Job>(&job.name)),
                    }
                    Ok::<_, DiskFault>(())
                });
                written.await.unwrap();
            }
        };
        let (of, within) = (store.clone(), world.clone());
        world.spawn("jobs", async move { carry_due(&of, &within, "a job", 2, carry).await });
        world.sleep(Duration::from_secs(200)).await;
        let told = told.lock().unwrap().clone();
        let told: Vec<_> = told.iter().map(|(name, at)| (name.as_str(), *at)).collect();
        assert_eq!(told, [("a", 0), ("b", 0), ("c", 10), ("a", 50), ("late", 100)]);
        assert_eq!(store.read().scan::<Job>().count(), 0);
    }
}

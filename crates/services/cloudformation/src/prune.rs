//! Forgets what is told of for ninety days, as on AWS: events, and stacks that were deleted.

use crate::{
    CloudFormation,
    model::{ChangeSet, Custom, Event, Mailbox, Resource, Stack, Template},
};
use std::{collections::BTreeSet, time::Duration};
use store::{DiskFault, Record};
use world::Timestamp;

const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);

/// So many records go in one transaction, which must be short.
const AT_ONCE: usize = 1000;

impl CloudFormation {
    /// Deletes what is old enough, and templates that no stack and no change set has any more.
    pub(crate) async fn prune(&self) -> Result<(), DiskFault> {
        let now = self.world.now();
        let old = |at: Timestamp| now.since(at) > REMEMBERED;
        let snapshot = self.store.read();
        let stacks: Vec<_> = snapshot.scan::<Stack>().collect();
        let gone = |stack: &Stack| stack.deleted.is_some_and(old);
        let gone: Vec<_> = stacks.iter().filter(|stack| gone(stack)).collect();
        let ids: BTreeSet<&str> = gone.iter().map(|stack| stack.id.as_str()).collect();
        let events = snapshot
            .scan::<Event>()
            .filter(|event| old(event.at) || ids.contains(event.stack.as_str()));
        let events: Vec<String> = events.map(|event| event.key()).collect();
        let resources = snapshot.scan::<Resource>().filter(|one| ids.contains(one.stack.as_str()));
        let resources: Vec<String> = resources.map(|resource| resource.key()).collect();
        let boxes = snapshot.scan::<Mailbox>().filter(|one| ids.contains(one.stack.as_str()));
        let boxes: Vec<String> = boxes.map(|mailbox| mailbox.key()).collect();
        let custom = snapshot.scan::<Custom>().filter(|one| ids.contains(one.stack.as_str()));
        let custom: Vec<String> = custom.map(|custom| custom.key()).collect();
        let keys: Vec<String> = gone.iter().map(|stack| stack.key()).collect();
        drop(snapshot);
        self.forget::<Event>(events).await?;
        self.forget::<Resource>(resources).await?;
        self.forget::<Mailbox>(boxes).await?;
        self.forget::<Custom>(custom).await?;
        self.forget::<Stack>(keys).await?;
        // Only now, and in one look: a template is put together with what refers to it.
        let write = self.store.write(|tx| {
            let stacks: Vec<_> = tx.scan::<Stack>().collect();
            let sets: Vec<_> = tx.scan::<ChangeSet>().collect();
            let of_stacks =
                stacks.iter().flat_map(|stack| [Some(&stack.settings), stack.previous.as_ref()]);
            let used: BTreeSet<&String> = of_stacks
                .flatten()
                .chain(sets.iter().map(|set| &set.settings))
                .map(|settings| &settings.template)
                .collect();
            let templates = tx.scan::<Template>().filter(|template| !used.contains(&template.id));
            let unused: Vec<String> =
                templates.take(AT_ONCE).map(|template| template.key()).collect();
            unused.iter().for_each(|key| {
                tx.delete::<Template>(key);
            });
            Ok(())
        });
        write.await
    }

    async fn forget<T: Record>(&self, keys: Vec<String>) -> Result<(), DiskFault> {
        for keys in keys.chunks(AT_ONCE) {
            let write = self.store.write(|tx| {
                keys.iter().for_each(|key| {
                    tx.delete::<T>(key);
                });
                Ok::<_, DiskFault>(())
            });
            write.await?;
        }
        Ok(())
    }
}

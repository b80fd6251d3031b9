//! Records by id or ARN, in a transaction or out of one; and the work that is noted as done.

use crate::{
    ServiceDiscovery,
    api::{OperationTargetType, OperationType},
    faults,
    model::{Instance, Namespace, Operation, Service},
};
use std::{collections::BTreeMap, sync::Arc};
use store::{Record, Tx, View};
use wire::{Context, Fault};
use world::{Timestamp, World};

/// The id in what may be an id or an ARN of `kind` (`namespace`, `service`) in the caller's account and region.
fn id_in<'a>(ctx: &Context, kind: &str, given: &'a str) -> &'a str {
    given.strip_prefix(&ctx.arn("servicediscovery", format!("{kind}/"))).unwrap_or(given)
}

/// The ARN to authorise with for what may be an id or an ARN.
pub(super) fn arn_of(ctx: &Context, kind: &str, given: &str) -> String {
    ctx.arn("servicediscovery", format!("{kind}/{}", id_in(ctx, kind, given)))
}

/// The namespace that an id or ARN names.
pub(super) fn namespace(
    view: &impl View,
    ctx: &Context,
    given: &str,
) -> Result<Arc<Namespace>, Fault> {
    let key = format!("{}/{}", ctx.realm(), id_in(ctx, "namespace", given));
    view.record(&key).ok_or_else(|| faults::no_namespace(given))
}

/// The service that an id or ARN names.
pub(super) fn service(view: &impl View, ctx: &Context, given: &str) -> Result<Arc<Service>, Fault> {
    let key = format!("{}/{}", ctx.realm(), id_in(ctx, "service", given));
    view.record(&key).ok_or_else(|| faults::no_service(given))
}

/// An instance of a service.
pub(super) fn instance(
    view: &impl View,
    service: &Service,
    id: &str,
) -> Result<Arc<Instance>, Fault> {
    let key = Instance::key_of(&service.realm, &service.id, id);
    view.record(&key).ok_or_else(|| faults::no_instance(id))
}

/// Everything of a realm.
pub(super) fn all<T: Record>(view: &impl View, realm: &str) -> Vec<Arc<T>> {
    view.records(&format!("{realm}/"))
}

/// How many instances a service has.
pub(super) fn instance_count(view: &impl View, service: &Service) -> i32 {
    let count = view.records::<Instance>(&service.instances_prefix()).len();
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Notes work that is done in this transaction; answers its id.
pub(super) fn done(
    tx: &mut Tx,
    world: &World,
    realm: &str,
    kind: OperationType,
    targets: &[(OperationTargetType, &str)],
) -> String {
    let text = |length| world.text(length, b"0123456789abcdefghijklmnopqrstuvwxyz");
    let id = format!("{}-{}", text(32), text(8));
    let target =
        |(of, id): &(OperationTargetType, &str)| (of.as_str().to_owned(), (*id).to_owned());
    let at = world.now();
    forget_old(tx, realm, at);
    let targets: BTreeMap<String, String> = targets.iter().map(target).collect();
    tx.put(Operation { realm: realm.to_owned(), id: id.clone(), kind, targets, at });
    id
}

/// Operations are kept for a day, and so many at most.
const KEEP: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
const MOST_KEPT: usize = 1000;

fn forget_old(tx: &mut Tx, realm: &str, now: Timestamp) {
    let mut kept = all::<Operation>(tx, realm);
    kept.sort_by_key(|operation| std::cmp::Reverse(operation.at));
    let old = |(i, operation): &(usize, Arc<Operation>)| {
        *i >= MOST_KEPT - 1 || now.since(operation.at) > KEEP
    };
    for (_, operation) in kept.into_iter().enumerate().filter(old) {
        tx.delete::<Operation>(&operation.key());
    }
}

impl ServiceDiscovery {
    /// The ARN of a service.
    pub fn service_arn(realm: &str, id: &str) -> String {
        crate::model::service_arn(realm, id)
    }

    /// Makes a service that instances are only found in through the API, inside any transaction over the same store;
    /// answers its id. Fails when the namespace is gone, or has a service of that name.
    pub fn connect_service(
        &self,
        tx: &mut Tx,
        realm: &str,
        namespace: &str,
        name: &str,
    ) -> Result<String, Fault> {
        tx.get::<Namespace>(&format!("{realm}/{namespace}"))
            .ok_or_else(|| faults::no_namespace(namespace))?;
        let same = |other: &Arc<Service>| {
            other.namespace == namespace && other.name.eq_ignore_ascii_case(name)
        };
        if let Some(other) = all::<Service>(tx, realm).iter().find(|other| same(other)) {
            return Err(faults::service_exists(&other.id));
        }
        let id = self.id("srv");
        tx.put(Service {
            realm: realm.to_owned(),
            id: id.clone(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            description: Some("Managed by ECS Service Connect".to_owned()),
            dns: None,
            has_health: true,
            attributes: BTreeMap::new(),
            creator_request_id: None,
            revision: 1,
            tags: BTreeMap::new(),
            created: self.world.now(),
        });
        Ok(id)
    }

    /// Takes a service and its instances away, inside any transaction over the same store.
    pub fn remove_service(tx: &mut Tx, realm: &str, id: &str) {
        for instance in tx.records::<Instance>(&format!("{realm}/{id}/")) {
            tx.delete::<Instance>(&instance.key());
        }
        tx.delete::<Service>(&format!("{realm}/{id}"));
    }

    /// The ARN of the namespace that a name or ARN means; a name that is none's becomes an HTTP namespace.
    pub async fn http_namespace(&self, realm: &str, given: &str) -> Result<String, Fault> {
        if let Some(known) = self.namespace_of(realm, given) {
            return Ok(known.arn());
        }
        if given.starts_with("arn:") || given.is_empty() {
            return Err(faults::no_namespace(given));
        }
        let new = Namespace {
            realm: realm.to_owned(),
            id: self.id("ns"),
            name: given.to_owned(),
            http_name: given.to_owned(),
            zone: None,
            description: None,
            creator_request_id: None,
            tags: BTreeMap::new(),
            created: self.world.now(),
        };
        let arn = new.arn();
        let write = self.store.write(move |tx| {
            tx.put(new);
            Ok::<_, Fault>(())
        });
        write.await.map(|()| arn)
    }

    /// The namespace that a name or ARN means, for those who name it so: ECS does.
    pub fn namespace_of(&self, realm: &str, given: &str) -> Option<Arc<Namespace>> {
        let named = |namespace: &Arc<Namespace>| {
            namespace.http_name == given || namespace.name == given || namespace.arn() == given
        };
        all::<Namespace>(&self.store.read(), realm).into_iter().find(named)
    }
}

//! The interfaces of load balancers: one per subnet, in a network namespace of its own.

use super::{Driver, RoundError};
use crate::model::{LoadBalancer, LoadBalancerState, Node};
use ec2::{InterfaceError, InterfaceRequest, model::NetworkInterface};
use std::{collections::BTreeSet, sync::Arc};
use store::{DiskFault, Record};

/// How descriptions of their interfaces begin, as on AWS.
const DESCRIPTION: &str = "ELB ";

impl Driver {
    /// Gives every load balancer its interfaces, and takes those away whose load balancer is gone.
    pub(super) async fn keep_interfaces(&mut self) -> Result<(), RoundError> {
        let snapshot = self.elb.store.read();
        let mut wanted = BTreeSet::new();
        for balancer in snapshot.scan::<LoadBalancer>() {
            if balancer.state == LoadBalancerState::Failed {
                continue;
            }
            let balancer = match self.complete(&balancer).await {
                Ok(balancer) => balancer,
                Err(error) => {
                    self.fail(&balancer, error).await?;
                    continue;
                }
            };
            wanted.extend(balancer.nodes.iter().filter_map(|node| node.interface.clone()));
            for node in &balancer.nodes {
                self.plug(&balancer, node).await?;
            }
            if balancer.state == LoadBalancerState::Provisioning {
                self.change(&balancer, |balancer| balancer.state = LoadBalancerState::Active)
                    .await?;
            }
        }
        for interface in self.elb.ec2.interfaces_described(DESCRIPTION) {
            if !wanted.contains(&interface.id) && self.is_orphan(&interface) {
                self.places.remove(&interface.id);
                self.elb.ec2.delete_interface(&interface.realm, &interface.id).await?;
            }
        }
        Ok(())
    }

    /// Whether no load balancer has it, also not one that was made since this round began.
    fn is_orphan(&self, interface: &NetworkInterface) -> bool {
        let snapshot = self.elb.store.read();
        let mut nodes = snapshot.scan::<LoadBalancer>().flat_map(|b| b.nodes.clone());
        !nodes.any(|node| node.interface.as_ref() == Some(&interface.id))
    }

    /// The load balancer with an interface for each of its nodes.
    async fn complete(
        &self,
        balancer: &Arc<LoadBalancer>,
    ) -> Result<Arc<LoadBalancer>, InterfaceError> {
        let mut whole = balancer.clone();
        for (number, node) in balancer.nodes.iter().enumerate() {
            if node.interface.is_some() {
                continue;
            }
            let request = InterfaceRequest {
                realm: balancer.realm.clone(),
                subnets: vec![node.subnet.clone()],
                groups: balancer.groups.clone(),
                public: !balancer.internal,
                description: format!("{DESCRIPTION}{}", balancer.path()),
            };
            let made = self.elb.ec2.create_interface(request).await?;
            let note = move |balancer: &mut LoadBalancer| {
                let Some(node) = balancer.nodes.get_mut(number) else { return };
                node.interface = Some(made.id);
                node.ip = Some(made.ip);
                node.public_ip = made.public_ip;
            };
            self.change(&whole, note.clone()).await?;
            note(Arc::make_mut(&mut whole));
        }
        Ok(whole)
    }

    /// What cannot be had stays so, and is told; what merely failed is tried again.
    async fn fail(&self, balancer: &LoadBalancer, error: InterfaceError) -> Result<(), RoundError> {
        match error {
            InterfaceError::Disk(_) | InterfaceError::Network(_) => Err(error.into()),
            lasting => {
                let reason = lasting.to_string();
                let note = |balancer: &mut LoadBalancer| {
                    balancer.state = LoadBalancerState::Failed;
                    balancer.reason = Some(reason);
                };
                Ok(self.change(balancer, note).await?)
            }
        }
    }

    async fn change(
        &self,
        balancer: &LoadBalancer,
        change: impl FnOnce(&mut LoadBalancer) + Send + 'static,
    ) -> Result<(), DiskFault> {
        let key = balancer.key();
        let write = self.elb.store.write(move |tx| {
            tx.update::<LoadBalancer>(&key, change);
            Ok::<_, DiskFault>(())
        });
        write.await
    }

    /// Plugs a node's interface in, once per run of this process, and again when its groups changed.
    async fn plug(&mut self, balancer: &LoadBalancer, node: &Node) -> Result<(), RoundError> {
        let ec2 = self.elb.ec2.clone();
        let known = node.interface.as_ref().and_then(|id| ec2.interface(&balancer.realm, id));
        let Some(mut interface) = known else { return Ok(()) };
        let others = !balancer.groups.is_empty() && interface.groups != balancer.groups;
        if self.places.contains_key(&interface.id) && !others {
            return Ok(());
        }
        if others {
            interface = ec2.set_interface_groups(&interface, &balancer.groups).await?;
        }
        let place = ec2.host_interface(&interface).await?;
        self.places.insert(interface.id.clone(), place);
        Ok(())
    }
}

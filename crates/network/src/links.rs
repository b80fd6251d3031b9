//! Links, addresses, routes and neighbours, each idempotent.

use crate::{cidr::Cidr, error::NetworkError, namespace::Inside};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressFlags},
        link::{InfoData, InfoVeth, LinkAttribute},
        neighbour::NeighbourState,
        route::{RouteScope, RouteType},
    },
};
use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

/// The far end of a veth pair.
pub(crate) struct Far<'a> {
    pub name: &'a str,
    pub mac: Mac,
    pub namespace: BorrowedFd<'a>,
}

/// A MAC address.
pub(crate) type Mac = [u8; 6];

/// The kernel says EEXIST when what we ask for is there already: that is what we wanted.
fn or_there(
    result: Result<(), rtnetlink::Error>,
    step: &'static str,
    name: &str,
) -> Result<(), NetworkError> {
    match result {
        Err(error) if errno(&error) == Some(nix::errno::Errno::EEXIST) => Ok(()),
        Err(source) => Err(NetworkError::Netlink { step, name: name.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// The kernel says ENODEV or ESRCH when what should go is gone already.
fn or_gone(
    result: Result<(), rtnetlink::Error>,
    step: &'static str,
    name: &str,
) -> Result<(), NetworkError> {
    use nix::errno::Errno::{ENODEV, ENOENT, ESRCH};
    match result {
        Err(error) if matches!(errno(&error), Some(ENODEV | ESRCH | ENOENT)) => Ok(()),
        Err(source) => Err(NetworkError::Netlink { step, name: name.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<nix::errno::Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            message.code.map(|code| nix::errno::Errno::from_raw(-code.get()))
        }
        _ => None,
    }
}

impl Inside {
    /// The index of the link `name`.
    pub(crate) fn index(&self, name: &str) -> Result<u32, NetworkError> {
        if_nametoindex(name).map_err(|_| NetworkError::NoLink { name: name.to_owned() })
    }

    /// Whether there is a link of that name.
    pub(crate) fn has_link(&self, name: &str) -> bool {
        if_nametoindex(name).is_ok()
    }

    /// A veth pair, the near end here and up.
    pub(crate) fn add_veth(&self, near: &str, mac: Mac, far: &Far) -> Result<u32, NetworkError> {
        let mut peer = LinkMessageBuilder::<LinkUnspec>::new().name(far.name.to_owned()).build();
        peer.attributes.push(LinkAttribute::Address(far.mac.to_vec()));
        peer.attributes.push(LinkAttribute::NetNsFd(far.namespace.as_raw_fd()));
        let message = LinkVeth::new(near, far.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(mac.to_vec())
            .up()
            .build();
        or_there(self.wait(self.handle.link().add(message).execute()), "make", near)?;
        self.index(near)
    }

    /// Brings a link up.
    pub(crate) fn up(&self, name: &str) -> Result<u32, NetworkError> {
        let index = self.index(name)?;
        let message = LinkUnspec::new_with_index(index).up().build();
        or_there(self.wait(self.handle.link().set(message).execute()), "bring up", name)?;
        Ok(index)
    }

    /// Removes a link.
    pub(crate) fn remove_link(&self, name: &str) -> Result<(), NetworkError> {
        match self.index(name) {
            Err(_) => Ok(()),
            Ok(index) => {
                or_gone(self.wait(self.handle.link().del(index).execute()), "remove", name)
            }
        }
    }

    /// Gives a link an address, without a route to its block: every route is set by hand.
    pub(crate) fn add_address(
        &self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let mut request = self.handle.address().add(index, IpAddr::V4(address), prefix);
        let flags = AddressFlags::Noprefixroute;
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        or_there(self.wait(request.execute()), "give an address to", &format!("link {index}"))
    }

    /// A route to `block` by the link, directly or by a gateway on it. Replaces one that is there.
    pub(crate) fn add_route(
        &self,
        block: Cidr,
        index: u32,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(block.base(), block.prefix())
            .output_interface(index);
        let route = match gateway {
            Some(gateway) => route.gateway(gateway).onlink(),
            None => route.scope(RouteScope::Link),
        };
        let request = self.handle.route().add(route.build()).replace();
        or_there(self.wait(request.execute()), "add the route to", &block.to_string())
    }

    /// Answers "unreachable" for what has no better route.
    pub(crate) fn add_unreachable(&self, block: Cidr) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(block.base(), block.prefix())
            .kind(RouteType::Unreachable)
            .build();
        let request = self.handle.route().add(route).replace();
        or_there(self.wait(request.execute()), "close off", &block.to_string())
    }

    /// Takes [`Inside::add_unreachable`] back.
    pub(crate) fn remove_unreachable(&self, block: Cidr) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(block.base(), block.prefix())
            .kind(RouteType::Unreachable)
            .build();
        let request = self.handle.route().del(route);
        or_gone(self.wait(request.execute()), "open", &block.to_string())
    }

    /// Removes the route to `block` by the link.
    pub(crate) fn remove_route(&self, block: Cidr, index: u32) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(block.base(), block.prefix())
            .output_interface(index)
            .build();
        let request = self.handle.route().del(route);
        or_gone(self.wait(request.execute()), "remove the route to", &block.to_string())
    }

    /// Says for good which MAC address an address on a link has.
    pub(crate) fn add_neighbour(
        &self,
        index: u32,
        address: Ipv4Addr,
        mac: Mac,
    ) -> Result<(), NetworkError> {
        let request = self
            .handle
            .neighbours()
            .add(index, IpAddr::V4(address))
            .state(NeighbourState::Permanent)
            .link_layer_address(&mac)
            .replace();
        or_there(self.wait(request.execute()), "fix the neighbour", &address.to_string())
    }
}

//! How the routing mesh's network is reached from the host: an interface of its namespace in the bridge that is the containers' way
//! out. What comes in for a published port, and is for no task of this node, is led there; answers come back the same way.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use super::space::DOOR;
use crate::error::{Error, Kind, Result};
use crate::network::device::Pair;
use crate::network::ipam::Prefix;
use crate::network::link::{Links, mac_of};
use crate::network::options::BridgeOptions;
use crate::network::record::{DAEMON, Network};
use crate::network::{Networks, bridge_of, namespace, refused, set};
use crate::random;

/// Of the daemon's own: which address it has.
const KEY: &str = "ingress-door";

/// The door as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Door {
    pub(super) address: Prefix,
    gateway: IpAddr,
    bridge: String,
    mtu: u32,
}

impl Networks {
    /// Where the door is in the bridge, for ever: its address is given to nobody else.
    ///
    /// # Errors
    /// The bridge has no address left, or the store's.
    pub(super) fn door(&self, bridge: &Network) -> Result<Door> {
        let options = bridge_of(bridge).ok_or_else(|| no_room(bridge))?;
        let mut state = self.state();
        let known = self.0.store.all::<String>(DAEMON)?.into_iter().find(|(key, _)| key == KEY);
        let known = known.and_then(|(_, text)| text.parse::<IpAddr>().ok());
        let reserved = known.and_then(|address| {
            let mut subnets = bridge.subnets.iter();
            let subnet = subnets.find(|subnet| subnet.reserved.contains(&address))?;
            Prefix::new(address, subnet.subnet.length())
        });
        if let Some(address) = reserved {
            return door(bridge, &options, address).ok_or_else(|| no_room(bridge));
        }
        let taken = state.taken.entry(bridge.id.clone()).or_default();
        let mut bridge = bridge.clone();
        let mut subnets = bridge.subnets.iter_mut().filter(|subnet| subnet.subnet.is_ipv4());
        let found = subnets.find_map(|subnet| {
            let address = taken.free(subnet)?;
            let _new = subnet.reserved.insert(address);
            Prefix::new(address, subnet.subnet.length())
        });
        let address = found.ok_or_else(|| no_room(&bridge))?;
        self.0.store.put(DAEMON, KEY, &address.address().to_string())?;
        self.remember_network(&mut state, bridge.clone())?;
        door(&bridge, &options, address).ok_or_else(|| no_room(&bridge))
    }
}

fn no_room(bridge: &Network) -> Error {
    let message = format!("the bridge {} has no IPv4 address for the routing mesh", bridge.name);
    Error::new(Kind::Internal, message)
}

fn door(network: &Network, options: &BridgeOptions, address: Prefix) -> Option<Door> {
    Some(Door {
        address,
        gateway: network.gateway(true)?,
        bridge: options.name.clone(),
        mtu: options.mtu.unwrap_or(1500),
    })
}

impl Door {
    /// Makes it in the namespace at a path, if it is not there.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn make(&self, space: &Path) -> Result<()> {
        let mut host = Links::open().map_err(|error| refused(&error))?;
        namespace::enter(space, || {
            let mut links = Links::open().map_err(|error| refused(&error))?;
            if self.is_there(&mut links)? {
                return Ok(());
            }
            links.remove(DOOR).map_err(|error| refused(&error))?;
            self.make_pair(&mut host)?;
            set(&format!("/proc/sys/net/ipv6/conf/{DOOR}/disable_ipv6"), "1")?;
            let made = links.index(DOOR).and_then(|index| {
                let Some(index) = index else { return Ok(()) };
                links.address(index, self.address)?;
                links.up(index)?;
                links.default_route(index, (true, Some(self.gateway)))
            });
            made.map_err(|error| refused(&error))
        })
    }

    fn is_there(&self, links: &mut Links) -> Result<bool> {
        let has = links.index(DOOR).and_then(|index| index.map(|index| links.addresses(index)).transpose());
        Ok(has.map_err(|error| refused(&error))?.is_some_and(|has| has.contains(&self.address)))
    }

    /// One end in the host's bridge, the other here.
    fn make_pair(&self, host: &mut Links) -> Result<()> {
        let own = File::open("/proc/thread-self/ns/net")
            .map_err(|error| Error::internal("opening the thread's own network namespace", &error))?;
        let master = host.index(&self.bridge).map_err(|error| refused(&error))?.ok_or_else(|| {
            Error::new(Kind::Internal, format!("the bridge {} of the routing mesh is gone", self.bridge))
        })?;
        let mac = match self.address.address() {
            IpAddr::V4(address) => mac_of(address),
            IpAddr::V6(_) => return Err(Error::new(Kind::Internal, "the routing mesh is of IPv4")),
        };
        let pair = Pair {
            name: &format!("veth{}", &random::digits(4)?[..7]),
            master,
            mtu: self.mtu,
            peer: DOOR,
            peer_mac: mac,
            peer_namespace: own.as_fd(),
            isolated: false,
            hairpin: false,
        };
        host.pair(&pair).map_err(|error| refused(&error))
    }
}

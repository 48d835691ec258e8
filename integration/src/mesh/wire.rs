//! The bridge between the nodes, in a namespace of its own that has the registry, too.
//!
//! Called by [`super::Mesh`]. It all goes with the namespaces.

use crate::case::Case;
use crate::site::Site;

/// Where the registry is, as the first part of an image's name.
pub const REGISTRY: &str = "10.99.0.254:5000";

/// A bridge with 10.99.0.254.
#[derive(Debug)]
pub struct Wire<'a> {
    site: Site<'a>,
    running: Running,
}

/// Where a node keeps what is in /run on any machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    /// Where all of its site is.
    Disk,
    /// As any machine does.
    Tmpfs,
}

impl<'a> Wire<'a> {
    /// Makes it.
    ///
    /// # Panics
    /// When it can't be.
    #[must_use]
    pub fn new(case: &'a Case) -> Self {
        let site = Site::in_folder(case, "wire");
        // With an address of its own: a bridge without one takes that of its lowest port, so that a node that comes later would have
        // the others send to where nobody is any more.
        let script = "set -e; ip link add wire address 02:4b:00:00:00:fe type bridge
            ip addr add 10.99.0.254/24 dev wire; ip link set wire up";
        let _ = site.run("sh", ["-c", script]).ok();
        Self { site, running: Running::Disk }
    }

    /// The same for nodes that are measured: what is in /run on any machine is on a tmpfs.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn of_fast_nodes(case: &'a Case) -> Self {
        Self { running: Running::Tmpfs, ..Self::new(case) }
    }

    /// Its namespaces.
    #[must_use]
    pub fn site(&self) -> &Site<'a> {
        &self.site
    }

    /// A new site on it: `mesh0` with the node's address, and a host name.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn connected(&self, number: usize) -> Site<'a> {
        let name = format!("node{number}");
        let site = Site::in_folder(self.site.case, &name);
        let network = site.network();
        let cable = format!(
            "set -e; ip link add {name} type veth peer name mesh0 netns {}; ip link set {name} master wire; ip link set {name} up",
            network.display()
        );
        let _ = self.site.run("sh", ["-c", &cable]).ok();
        // A default route, which engines and containers look for, and a name server's address: nobody is there, and refuses at once.
        let resolver = site.path("resolv.conf");
        std::fs::write(&resolver, "nameserver 10.99.0.254\n").expect("write a resolv.conf");
        let plug = format!(
            "set -e; hostname {name}; ip addr add 10.99.0.{number}/24 dev mesh0; ip link set mesh0 up; ip route add default via 10.99.0.254
             mount --bind {} /etc/resolv.conf",
            resolver.display()
        );
        let _ = site.run("sh", ["-c", &plug]).ok();
        if self.running == Running::Tmpfs {
            for folder in ["exec", "containerd-state"] {
                std::fs::create_dir_all(site.path(folder)).expect("make a folder");
                let _ = site.command("mount").args(["-t", "tmpfs", "run"]).arg(site.path(folder)).run().ok();
            }
        }
        site
    }
}

//! The bridge between the nodes, in a namespace of its own that has the registry, too.
//!
//! Called by [`super::Mesh`]. It all goes with the namespaces.

use crate::case::Case;
use crate::ketchd::full_disk;
use crate::site::Site;

/// Where the registry is, as the first part of an image's name.
pub const REGISTRY: &str = "10.99.0.254:5000";
/// The busybox that each mesh's registry has.
pub const IMAGE: &str = "10.99.0.254:5000/busybox:1";

/// A bridge with 10.99.0.254.
#[derive(Debug)]
pub struct Wire<'a> {
    site: Site<'a>,
    disks: Disks,
}

/// Which of a node's folders are not where all of its site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disks {
    None,
    /// What is in /run on any machine, on a tmpfs as there.
    Running,
    /// Its state, on a small disk of its own.
    Data,
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
        Self { site, disks: Disks::None }
    }

    /// The same for nodes that are measured: what is in /run on any machine is on a tmpfs.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn of_fast_nodes(case: &'a Case) -> Self {
        Self { disks: Disks::Running, ..Self::new(case) }
    }

    /// The same for nodes whose disk is to be full: `data` is on one of its own ([`full_disk`]).
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn of_small_disks(case: &'a Case) -> Self {
        Self { disks: Disks::Data, ..Self::new(case) }
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
        match self.disks {
            Disks::None => {}
            Disks::Running => {
                for folder in ["exec", "containerd-state"] {
                    std::fs::create_dir_all(site.path(folder)).expect("make a folder");
                    let _ =
                        site.command("mount").args(["-t", "tmpfs", "run"]).arg(site.path(folder)).run().ok();
                }
            }
            Disks::Data => full_disk::mount(&site, "data"),
        }
        site
    }
}

//! Another machine beside the engine's: a network namespace at the other end of a cable. Made and ended by tests of what others
//! on the network reach.

use super::Engine;
use crate::runtime::Output;

/// The other machine: `192.0.2.2` (or what `subnet` says) where the engine's is `192.0.2.1`, its router.
#[derive(Debug)]
pub struct Lan<'a, 'b> {
    engine: &'a Engine<'b>,
    name: String,
}

impl<'a, 'b> Lan<'a, 'b> {
    /// Lays the cable.
    ///
    /// # Panics
    /// When it can't be.
    #[must_use]
    pub fn new(engine: &'a Engine<'b>, name: &str, subnet: &str) -> Self {
        let script = format!(
            "set -e; ip netns add {name}; ip link add {name}0 type veth peer name {name}1 netns {name}
             ip addr add {subnet}.1/24 dev {name}0; ip link set {name}0 up
             ip -n {name} addr add {subnet}.2/24 dev {name}1; ip -n {name} link set {name}1 up
             ip -n {name} link set lo up; ip -n {name} route add default via {subnet}.1"
        );
        let _ = engine.sh(&script).ok();
        Self { engine, name: name.to_owned() }
    }

    /// Runs a program there, its words split as a shell would.
    #[must_use]
    pub fn sh(&self, line: &str) -> Output {
        self.engine.program("ip").args(["netns", "exec", &self.name, "sh", "-c", line]).run()
    }

    /// Whether a page can be fetched there.
    #[must_use]
    pub fn fetches(&self, url: &str) -> bool {
        self.sh(&format!("busybox timeout 3 busybox wget -qO- {url}/group")).code == 0
    }

    /// Takes it away.
    ///
    /// # Panics
    /// When it can't be.
    pub fn end(self) {
        let _ = self.engine.sh(&format!("ip link del {0}0; ip netns del {0}", self.name)).ok();
    }
}

//! The host forwards between its bridges and its other interfaces. A host that did not before is no router for everybody from
//! then on: what neither comes from a bridge nor goes to one is dropped, as dockerd's policy does, which also drops for others'
//! bridges. It is remembered until the machine starts anew.

use serde::{Deserialize, Serialize};

use super::firewall::Families;
use super::record::HOST;
use super::{Networks, refused, set};
use crate::error::Result;

const KEY: &str = "forwarding";
const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: [&str; 2] =
    ["/proc/sys/net/ipv6/conf/default/forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"];

/// What this daemon has switched on since the machine's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Switched {
    boot: String,
    ipv4: bool,
    ipv6: bool,
}

impl Networks {
    /// Has the host forward, IPv6 only where a network has it; gives for which families it would not otherwise.
    ///
    /// # Errors
    /// The kernel's, or the store's.
    pub(super) fn have_forwarded(&self, ipv6: bool) -> Result<Families> {
        let settings = &self.0.settings;
        if !settings.forwarding {
            return Ok(Families::default());
        }
        let boot = read("/proc/sys/kernel/random/boot_id");
        let known = self.0.store.all::<Switched>(HOST).unwrap_or_default();
        let known = known.into_iter().find(|(key, known)| key == KEY && known.boot == boot);
        let before = known.map(|(_, known)| known).unwrap_or(Switched { boot, ..Switched::default() });
        let mut now = before.clone();
        now.ipv4 |= read(IPV4) == "0";
        now.ipv6 |= ipv6 && read(IPV6[1]) == "0";
        if now != before {
            self.0.store.put(HOST, KEY, &now)?;
        }
        set(IPV4, "1")?;
        for path in IPV6.iter().filter(|_| ipv6) {
            set(path, "1")?;
        }
        let closed = Families { ipv4: now.ipv4, ipv6: now.ipv6 };
        Ok(if settings.forwarding_for_all { Families::default() } else { closed })
    }

    /// The same for a new network.
    pub(super) fn prepare_forwarding(&self, ipv6: bool) -> Result<()> {
        let closed = self.have_forwarded(ipv6)?;
        self.0.firewall.close(closed).map_err(|error| refused(&error))
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

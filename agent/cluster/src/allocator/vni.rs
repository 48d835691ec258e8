//! VXLAN identifiers: one for each overlay network, and no other network's.

use std::collections::BTreeSet;

use super::refusal::{Refusal, VniFault};
use crate::objects::Network;
use crate::view::View;

/// libnetwork's option by which a user names the identifier; of several, the first is ours.
const OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// Those below are left to users, as in Docker.
const FIRST: u32 = 4096;
const LAST: u32 = (1 << 24) - 1;

pub(super) struct Vnis {
    taken: BTreeSet<u32>,
}

impl Vnis {
    pub(super) fn of(view: &View<'_>) -> Self {
        let vnis = view.networks().filter_map(|network| network.allocation.as_ref()?.vni);
        Self { taken: vnis.collect() }
    }

    pub(super) fn take(&mut self, vni: u32) {
        self.taken.insert(vni);
    }

    /// The user's, or the first free one from where the network's id points: a node that still has an old network's
    /// interface must not find a new network behind the same identifier.
    pub(super) fn choose(&self, network: &Network) -> Result<u32, Refusal> {
        let vni = match network.spec.driver.options.get(OPTION) {
            Some(text) => self.asked_for(text),
            None => self.next_free(network),
        };
        vni.map_err(|fault| Refusal::BadVni { network: network.spec.name.clone(), fault })
    }

    fn asked_for(&self, text: &str) -> Result<u32, VniFault> {
        let first = text.split(',').next().unwrap_or_default().trim();
        match first.parse() {
            Ok(vni) if self.taken.contains(&vni) => Err(VniFault::InUse(vni)),
            Ok(vni) if (1..=LAST).contains(&vni) => Ok(vni),
            _ => Err(VniFault::Malformed(text.to_owned())),
        }
    }

    fn next_free(&self, network: &Network) -> Result<u32, VniFault> {
        let offset = network.id.bits() % u128::from(LAST - FIRST + 1);
        let start = FIRST + u32::try_from(offset).unwrap_or(0);
        let mut around = (start..=LAST).chain(FIRST..start);
        around.find(|vni| !self.taken.contains(vni)).ok_or(VniFault::NoneLeft)
    }
}

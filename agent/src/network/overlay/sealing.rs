//! What of the cluster's networks travels encrypted: which associations and policies a node has, and how they are exchanged.
//!
//! A VXLAN device of an encrypted network sends from ports of a block of its own ([`SEALED`]), and policies take what comes from it
//! to each peer: an attribute of the device tells it apart, not a rule that somebody might flush. The packet filter
//! (`firewall/underlay`) drops of an encrypted network what leaves without an association, and what arrives without one: nothing falls
//! back to plain text.
//!
//! Of each key that the managers give, a node accepts what its peers send with it; it sends with the last but one
//! ([`ketch_cluster::data_keys`]). An exchange is: new associations, then policies, then the old associations go. So at each moment
//! whatever a peer sends is understood.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ketch_cluster::data_keys;
use ketch_cluster::objects::cluster::DataKey;
use sha2::{Digest, Sha512};

use super::plan::Underlay;
use crate::error::Result;
use crate::network::link::octets;
use crate::network::refused;
use crate::network::xfrm::{Association, KEY, Known, Policy, PortBlock, Xfrm};

/// From where devices of encrypted networks send...
pub(super) const SEALED: PortBlock = PortBlock { first: 0xc000, mask: 0xf000 };
/// ...and those of others.
pub(super) const PLAIN: PortBlock = PortBlock { first: 0x8000, mask: 0xc000 };

/// An association counts in 32 bits, and its number is part of the vector: the kernel sends nothing by it after the last.
const LAST: u64 = u32::MAX as u64;
const HALF: u64 = 1 << 31;

/// What a node has to seal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::network) struct Sealing {
    /// The encrypted networks' identifiers.
    pub(in crate::network) networks: BTreeSet<u32>,
    /// The nodes that serve one of them.
    pub(in crate::network) peers: BTreeSet<IpAddr>,
    /// The oldest first. None is known after a restart without managers: what the kernel has goes on.
    pub(in crate::network) keys: Vec<DataKey>,
}

/// What the kernel is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) associations: Vec<Association>,
    pub(super) policies: Vec<Policy>,
}

/// Of all peers; pure.
pub(super) fn wanted(underlay: &Underlay, sealing: &Sealing) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(sending) = data_keys::sending(&sealing.keys) else { return wanted };
    for peer in &sealing.peers {
        let (own, peer) = (underlay.address, *peer);
        wanted.associations.extend(sealing.keys.iter().map(|key| association(key, (peer, own))));
        let out = association(sending, (own, peer));
        wanted.policies.push(Policy {
            from: own,
            to: peer,
            port: underlay.port,
            source: SEALED,
            spi: out.spi,
        });
        wanted.associations.push(out);
    }
    wanted
}

/// Has the calling thread's namespace be so; nothing that is right is touched.
///
/// # Errors
/// The kernel's; what is missing goes with the next call.
pub(super) fn seal(wanted: &Wanted) -> Result<()> {
    let mut xfrm = Xfrm::open().map_err(|error| refused(&error))?;
    let sealed = xfrm.associations().and_then(|has| {
        let is_there =
            |one: &&Association| has.iter().any(|known| (known.to, known.spi) == (one.to, one.spi));
        let new: Vec<Association> =
            wanted.associations.iter().filter(|one| !is_there(one)).cloned().collect();
        xfrm.change(&new, &[])?;
        let had = xfrm.policies()?;
        let led: Vec<Policy> = wanted.policies.iter().filter(|one| !had.contains(one)).copied().collect();
        xfrm.lead(&led)?;
        let is_for = |one: &Policy, other: &Policy| Policy { spi: one.spi, ..*other } == *one;
        let gone = had.into_iter().filter(|one| !wanted.policies.iter().any(|other| is_for(one, other)));
        xfrm.forget(&gone.collect::<Vec<_>>())?;
        let is_wanted = |(to, spi): &(IpAddr, u32)| {
            wanted.associations.iter().any(|one| (one.to, one.spi) == (*to, *spi))
        };
        let has = has.into_iter().map(|known| (known.to, known.spi));
        xfrm.change(&[], &has.filter(|one| !is_wanted(one)).collect::<Vec<_>>())
    });
    sealed.map_err(|error| refused(&error))
}

/// How far the key that the node sends with is used up: by the association by which most has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wear {
    pub(super) generation: u64,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Half of what the kernel sends by one association has gone: the managers are asked for the next key.
    Worn,
    /// The kernel sends nothing more to somebody, until there is another key.
    Spent,
}

/// Looks how many packets have gone by the calling thread's namespace's associations.
///
/// # Errors
/// The kernel's.
pub(super) fn look(underlay: &Underlay, sealing: &Sealing) -> Result<Option<Wear>> {
    let known = Xfrm::open().and_then(|mut xfrm| xfrm.associations()).map_err(|error| refused(&error))?;
    Ok(wear(underlay, sealing, &known))
}

fn wear(underlay: &Underlay, sealing: &Sealing, known: &[Known]) -> Option<Wear> {
    let generation = data_keys::sending(&sealing.keys)?.generation;
    let out: BTreeSet<_> =
        wanted(underlay, sealing).policies.into_iter().map(|policy| (policy.to, policy.spi)).collect();
    let ours = known.iter().filter(|one| out.contains(&(one.to, one.spi)));
    let stage = match ours.map(|one| one.packets).max()? {
        LAST.. => Stage::Spent,
        HALF.. => Stage::Worn,
        _ => return None,
    };
    Some(Wear { generation, stage })
}

/// A key for one direction between two nodes, and its number. The secret is as long as the hash is strong, and all that is behind it
/// has a fixed length: no two inputs are the same bytes.
fn association(key: &DataKey, (from, to): (IpAddr, IpAddr)) -> Association {
    let derived = |purpose: u8| {
        let mut hash = Sha512::new();
        hash.update(&key.secret.0);
        hash.update([purpose]);
        hash.update(key.generation.to_be_bytes());
        for address in [from, to] {
            hash.update([u8::from(address.is_ipv4())]);
            hash.update(octets(address));
        }
        hash.finalize()
    };
    let mut own = [0; KEY];
    own.copy_from_slice(&derived(1)[..KEY]);
    let [a, b, c, d] = <[u8; 4]>::try_from(&derived(2)[..4]).unwrap_or_default();
    // The first 256 are reserved (RFC 4303).
    Association { from, to, spi: u32::from_be_bytes([a, b, c, d]) | 0x100, key: own }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{data_address, data_key, underlay};
    use super::*;

    fn sealing(node: u8, generations: &[u64]) -> Wanted {
        let other = if node == 1 { 2 } else { 1 };
        let sealing = Sealing {
            networks: BTreeSet::from([4097]),
            peers: BTreeSet::from([data_address(other).into()]),
            keys: generations.iter().copied().map(data_key).collect(),
        };
        wanted(&underlay(node), &sealing)
    }

    #[test]
    fn what_one_sends_the_other_understands_at_each_step_of_a_rotation() {
        let steps: [&[u64]; 3] = [&[1, 2], &[1, 2, 3], &[2, 3, 4]];
        // A rotation may reach either of them first.
        for (one, two) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)] {
            let (one, two) = (sealing(1, steps[one]), sealing(2, steps[two]));
            for (sender, receiver) in [(&one, &two), (&two, &one)] {
                let sent = sender.associations.iter().find(|it| it.spi == sender.policies[0].spi).unwrap();
                assert!(receiver.associations.contains(sent), "{sender:?} {receiver:?}");
            }
        }
    }

    #[test]
    fn no_two_directions_and_no_two_keys_share_anything() {
        let all = [sealing(1, &[1, 2, 3]), sealing(2, &[1, 2, 3])].map(|wanted| wanted.associations).concat();
        let distinct: BTreeSet<_> = all.iter().map(|it| it.key).collect();
        let numbers: BTreeSet<_> = all.iter().map(|it| it.spi).collect();
        // Three generations of two directions.
        assert_eq!((distinct.len(), numbers.len()), (6, 6));
        assert!(numbers.iter().all(|number| *number > 255));
    }

    #[test]
    fn a_key_is_worn_by_what_has_gone_by_its_own_association() {
        let sealing = Sealing {
            networks: BTreeSet::from([4097]),
            peers: [2, 3].map(|node| data_address(node).into()).into(),
            keys: [1, 2, 3].map(data_key).into(),
        };
        let seen = |of: &dyn Fn(&Association) -> u64| {
            let all = wanted(&underlay(1), &sealing).associations;
            let known: Vec<_> =
                all.iter().map(|one| Known { to: one.to, spi: one.spi, packets: of(one) }).collect();
            wear(&underlay(1), &sealing, &known)
        };
        let to_three = |packets: u64| {
            move |one: &Association| if one.to == IpAddr::from(data_address(3)) { packets } else { 9 }
        };
        let worn = |stage| Some(Wear { generation: 2, stage });
        assert_eq!(seen(&|_| 0), None);
        assert_eq!(seen(&to_three(HALF - 1)), None);
        assert_eq!(seen(&to_three(HALF)), worn(Stage::Worn));
        assert_eq!(seen(&to_three(LAST)), worn(Stage::Spent));
        let received = |one: &Association| if one.to == IpAddr::from(data_address(1)) { LAST } else { 0 };
        assert_eq!(seen(&received), None, "what others send is their matter");
        assert_eq!(wear(&underlay(1), &Sealing::default(), &[]), None);
    }

    #[test]
    fn without_keys_nothing_is_known() {
        assert_eq!(sealing(1, &[]), Wanted::default());
    }
}

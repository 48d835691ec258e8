//! Security associations of ESP and the policies that lead to them (xfrm in ip-xfrm(8), linux/xfrm.h), of the network namespace in
//! which the socket was made. Knows no networks and no cluster: whose keys they are is `overlay`'s.
//!
//! Ours are told from others' by [`REQUEST`]: `IPsec` of an administrator's is neither read nor touched.

use std::net::IpAddr;
use std::sync::OnceLock;

use rustix::io::Errno;

use super::link::{AF_INET, AF_INET6, address_of, octets};
use super::namespace;
use super::netlink::{Attributes, Batch, NLM_F_ACK, NLM_F_CREATE, NetlinkError, Socket, number32};

const NEW_ASSOCIATION: u16 = 0x10;
const DELETE_ASSOCIATION: u16 = 0x11;
const LIST_ASSOCIATIONS: u16 = 0x12;
const DELETE_POLICY: u16 = 0x14;
const LIST_POLICIES: u16 = 0x15;
/// A policy that is there is exchanged in one step.
const UPDATE_POLICY: u16 = 0x19;
const TEMPLATE: u16 = 5;
const ALGORITHM: u16 = 18;

const ESP: u8 = 50;
const UDP: u8 = 17;
const OUT: u8 = 1;
/// AES-GCM: encrypts and authenticates (RFC 4106); its key ends in four bytes of salt.
const CIPHER: &str = "rfc4106(gcm(aes))";
pub(super) const KEY: usize = 36;
/// Bits of what authenticates.
const CHECKED: u32 = 128;
/// `ket` and a number: which associations are ours, and which a policy leads to.
pub(super) const REQUEST: u32 = 0x6b65_7401;

/// One direction between two addresses.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    /// By it and `to` the receiver finds the key.
    pub(super) spi: u32,
    pub(super) key: [u8; KEY],
}

impl std::fmt::Debug for Association {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, spi, .. } = self;
        write!(formatter, "Association({from} -> {to}, {spi:#x})")
    }
}

/// What goes out by an association, or not at all: UDP between two addresses to a port, from ports of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) port: u16,
    pub(super) source: PortBlock,
    pub(super) spi: u32,
}

/// Ports that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortBlock {
    pub(super) first: u16,
    pub(super) mask: u16,
}

/// A namespace's associations and policies.
#[derive(Debug)]
pub(super) struct Xfrm(Socket);

/// One that the kernel has, as its users are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) to: IpAddr,
    pub(super) spi: u32,
    /// How many have gone by it.
    pub(super) packets: u64,
}

/// Whether the kernel has ESP with this cipher. What it has or has not is looked for once; a try that failed for want of anything else
/// says nothing of that.
pub(super) fn is_supported() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return *found;
    }
    let one = Association {
        from: IpAddr::from([192, 0, 2, 1]),
        to: IpAddr::from([192, 0, 2, 2]),
        spi: 0x100,
        key: [0; KEY],
    };
    // Where nobody sends, and which ends with it.
    let tried = namespace::alone(|| Ok(Xfrm::open().and_then(|mut xfrm| xfrm.change(&[one], &[]))));
    match tried {
        Ok(Ok(())) => *FOUND.get_or_init(|| true),
        Ok(Err(error)) if is_missing(error.errno) => *FOUND.get_or_init(|| false),
        Ok(Err(error)) => {
            tracing::warn!("looking for ESP: {error}: {}", error.errno);
            false
        }
        Err(error) => {
            tracing::warn!("looking for ESP: {error}");
            false
        }
    }
}

/// The kernel has no XFRM, no ESP, or not the cipher.
fn is_missing(errno: Errno) -> bool {
    let those = [
        Errno::PROTONOSUPPORT,
        Errno::AFNOSUPPORT,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::NOENT,
        Errno::CONNREFUSED,
    ];
    those.contains(&errno)
}

impl Xfrm {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Socket::open(Some(rustix::net::netlink::XFRM), 0).map(Self)
    }

    /// Ours; their keys stay with the kernel.
    pub(super) fn associations(&mut self) -> Result<Vec<Known>, NetlinkError> {
        let found = self.0.dump("listing security associations", LIST_ASSOCIATIONS, &[])?;
        Ok(found.iter().filter_map(|message| known(&message.body)).collect())
    }

    /// Ours.
    pub(super) fn policies(&mut self) -> Result<Vec<Policy>, NetlinkError> {
        let found = self.0.dump("listing policies", LIST_POLICIES, &[])?;
        Ok(found.iter().filter_map(|message| policy(&message.body)).collect())
    }

    /// Adds associations and takes others away.
    pub(super) fn change(&mut self, new: &[Association], gone: &[(IpAddr, u32)]) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        for one in new {
            let mut list = Attributes::default();
            list.bytes(ALGORITHM, &algorithm(&one.key));
            let action = format!("the security association from {} to {}", one.from, one.to);
            batch.push(action, (NEW_ASSOCIATION, NLM_F_CREATE | NLM_F_ACK), &association(one), &list);
        }
        for (to, spi) in gone {
            let mut id = wide(*to).to_vec();
            id.extend_from_slice(&spi.to_be_bytes());
            id.extend_from_slice(&u16::from(family(*to)).to_ne_bytes());
            id.extend_from_slice(&[ESP, 0]);
            let action = format!("removing the security association to {to}");
            batch.push(action, (DELETE_ASSOCIATION, NLM_F_ACK), &id, &Attributes::default());
        }
        self.0.run(&batch)
    }

    /// Has these policies lead to their associations from now on.
    pub(super) fn lead(&mut self, policies: &[Policy]) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        for one in policies {
            let mut list = Attributes::default();
            list.bytes(TEMPLATE, &template(one));
            let action = format!("the policy for what goes to {}", one.to);
            batch.push(action, (UPDATE_POLICY, NLM_F_ACK), &policy_header(one), &list);
        }
        self.0.run(&batch)
    }

    /// Takes policies away.
    pub(super) fn forget(&mut self, policies: &[Policy]) -> Result<(), NetlinkError> {
        let mut batch = Batch::default();
        for one in policies {
            let mut id = selector(one).to_vec();
            id.extend_from_slice(&[0, 0, 0, 0, OUT, 0, 0, 0]);
            let action = format!("removing the policy for what goes to {}", one.to);
            batch.push(action, (DELETE_POLICY, NLM_F_ACK), &id, &Attributes::default());
        }
        self.0.run(&batch)
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// An address in the room of the longest.
fn wide(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    let octets = octets(address);
    bytes[..octets.len()].copy_from_slice(&octets);
    bytes
}

fn address(wide: &[u8], family: u8) -> Option<IpAddr> {
    address_of(wide.get(..if family == AF_INET { 4 } else { 16 })?)
}

/// `xfrm_selector`: what a policy is for.
fn selector(policy: &Policy) -> [u8; 56] {
    let mut bytes = [0; 56];
    let whole = if policy.to.is_ipv4() { 32 } else { 128 };
    bytes[..16].copy_from_slice(&wide(policy.to));
    bytes[16..32].copy_from_slice(&wide(policy.from));
    for (at, number) in
        [(32, policy.port), (34, u16::MAX), (36, policy.source.first), (38, policy.source.mask)]
    {
        bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
    }
    bytes[40..42].copy_from_slice(&u16::from(family(policy.to)).to_ne_bytes());
    bytes[42..45].copy_from_slice(&[whole, whole, UDP]);
    bytes
}

/// `xfrm_lifetime_cfg`: no end by bytes, packets or time.
fn endless() -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].fill(u8::MAX);
    bytes
}

/// `xfrm_usersa_info`. Without a window against replays: whoever sends may have lost his count at a restart, and a frame that comes
/// twice is what Ethernet may do as well.
fn association(one: &Association) -> Vec<u8> {
    let mut bytes = vec![0; 56];
    bytes[40..42].copy_from_slice(&u16::from(family(one.to)).to_ne_bytes());
    bytes.extend_from_slice(&wide(one.to));
    bytes.extend_from_slice(&one.spi.to_be_bytes());
    bytes.extend_from_slice(&[ESP, 0, 0, 0]);
    bytes.extend_from_slice(&wide(one.from));
    bytes.extend_from_slice(&endless());
    // What was used, statistics, and the kernel's own number.
    bytes.resize(208, 0);
    bytes.extend_from_slice(&REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&u16::from(family(one.to)).to_ne_bytes());
    // The mode of transport (0), no window, no flags.
    bytes.resize(224, 0);
    bytes
}

/// One of ours.
fn known(body: &[u8]) -> Option<Known> {
    if number32(body, 208)? != REQUEST {
        return None;
    }
    Some(Known {
        to: address(body.get(56..72)?, *body.get(212)?)?,
        spi: u32::from_be_bytes(body.get(72..76)?.try_into().ok()?),
        packets: u64::from_ne_bytes(body.get(168..176)?.try_into().ok()?),
    })
}

/// `xfrm_algo_aead`.
fn algorithm(key: &[u8; KEY]) -> Vec<u8> {
    let mut bytes = CIPHER.as_bytes().to_vec();
    bytes.resize(64, 0);
    bytes.extend_from_slice(&288_u32.to_ne_bytes());
    bytes.extend_from_slice(&CHECKED.to_ne_bytes());
    bytes.extend_from_slice(key);
    bytes
}

/// `xfrm_userpolicy_info`.
fn policy_header(policy: &Policy) -> Vec<u8> {
    let mut bytes = selector(policy).to_vec();
    bytes.extend_from_slice(&endless());
    // What was used, the priority, the index.
    bytes.resize(160, 0);
    bytes.push(OUT);
    bytes.resize(168, 0);
    bytes
}

/// `xfrm_user_tmpl`: this very association.
fn template(policy: &Policy) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..16].copy_from_slice(&wide(policy.to));
    bytes[16..20].copy_from_slice(&policy.spi.to_be_bytes());
    bytes[20] = ESP;
    bytes[24..26].copy_from_slice(&u16::from(family(policy.to)).to_ne_bytes());
    bytes[28..44].copy_from_slice(&wide(policy.from));
    bytes[44..48].copy_from_slice(&REQUEST.to_ne_bytes());
    // Any algorithm: the association has one.
    bytes[52..].fill(u8::MAX);
    bytes
}

/// One of ours.
fn policy(body: &[u8]) -> Option<Policy> {
    let number = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let family = *body.get(40)?;
    let mut parts = super::netlink::attributes(body.get(168..)?);
    let (_, template) = parts.find(|(kind, _)| *kind == TEMPLATE)?;
    if *body.get(160)? != OUT || number32(template, 44)? != REQUEST {
        return None;
    }
    Some(Policy {
        from: address(body.get(16..32)?, family)?,
        to: address(body.get(..16)?, family)?,
        port: number(32)?,
        source: PortBlock { first: number(36)?, mask: number(38)? },
        spi: u32::from_be_bytes(template.get(16..20)?.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        let (from, to) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let one = Association { from, to, spi: 7, key: [1; KEY] };
        assert_eq!((association(&one).len(), algorithm(&one.key).len()), (224, 108));
        assert!(!format!("{one:?}").contains("1, 1"), "no log line has the key");
        let policy =
            Policy { from, to, port: 4789, source: PortBlock { first: 0xc000, mask: 0xf000 }, spi: 7 };
        assert_eq!(policy_header(&policy).len(), 168);
    }

    #[test]
    fn an_association_is_read_with_how_many_packets_went_by_it() {
        for to in ["10.0.0.2", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap()) {
            let mut body = association(&Association { from: to, to, spi: 7, key: [1; KEY] });
            assert_eq!(known(&body), Some(Known { to, spi: 7, packets: 0 }));
            body[168..176].copy_from_slice(&(5_u64 << 31).to_ne_bytes());
            assert_eq!(known(&body).map(|it| it.packets), Some(5 << 31));
            body[208..212].fill(0);
            assert_eq!(known(&body), None, "another's");
        }
    }

    #[test]
    fn what_says_nothing_of_the_kernel_is_not_kept() {
        for (errno, said) in [
            (Errno::PROTONOSUPPORT, true),
            (Errno::NOSYS, true),
            (Errno::NOENT, true),
            (Errno::NOMEM, false),
            (Errno::AGAIN, false),
            (Errno::PERM, false),
            (Errno::NOSPC, false),
        ] {
            assert_eq!(is_missing(errno), said, "{errno}");
        }
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let source = PortBlock { first: 0xc000, mask: 0xf000 };
            let written =
                Policy { from: from.parse().unwrap(), to: to.parse().unwrap(), port: 4789, source, spi: 9 };
            let mut list = Attributes::default();
            list.bytes(TEMPLATE, &template(&written));
            let body = [policy_header(&written).as_slice(), list.as_slice()].concat();
            assert_eq!(policy(&body), Some(written));
            let others = [policy_header(&written).as_slice(), &[0; 8]].concat();
            assert_eq!(policy(&others), None);
        }
    }
}

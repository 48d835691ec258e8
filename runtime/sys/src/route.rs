//! Network devices and their addresses: rtnetlink(7), a request and its answer at a time.
//!
//! Only what moving a device into a container takes. Messages are built and read as bytes, so that nothing here trusts
//! a length that the kernel did not give.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::call::{check, retry};
use crate::error::{Errno, SyscallError};

const HEADER: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const IFF_UP: u32 = 1;

/// A connection to the network stack of the namespace that it was opened in.
#[derive(Debug)]
pub struct RouteSocket(OwnedFd);

/// An address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    index: u32,
    address: Vec<u8>,
    local: Option<Vec<u8>>,
}

impl LinkAddress {
    /// Whether it was set by somebody, for good, and means something beyond its link: those follow a device.
    #[must_use]
    pub fn is_permanent_and_global(&self) -> bool {
        self.flags & IFA_F_PERMANENT != 0 && self.scope == 0
    }
}

impl RouteSocket {
    /// socket(2) of NETLINK_ROUTE.
    pub fn open() -> Result<Self, SyscallError> {
        // SAFETY: integers only; the result is checked before it is owned.
        let made = unsafe {
            libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
        };
        check("socket", "NETLINK_ROUTE", made.into())?;
        // SAFETY: a fresh descriptor of ours.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(made) }))
    }

    /// The index of the device of this name.
    pub fn index_of(&self, name: &str) -> Result<u32, SyscallError> {
        let mut body = link_message(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &terminated(name));
        let mut index = None;
        self.request("RTM_GETLINK", name, RTM_GETLINK, 0, &body, |kind, body| {
            if kind == RTM_NEWLINK {
                index = index.or_else(|| word(body, 4));
            }
        })?;
        index.ok_or_else(|| SyscallError::new("RTM_GETLINK", name.to_owned(), Errno::ENODEV))
    }

    /// Sets the device up or down.
    pub fn set_up(&self, index: u32, up: bool) -> Result<(), SyscallError> {
        let body = link_message(index, if up { IFF_UP } else { 0 }, IFF_UP);
        self.request("RTM_NEWLINK", "", RTM_NEWLINK, NLM_F_ACK, &body, |_, _| {})
    }

    /// Moves the device to another network namespace under a new name, in one step.
    pub fn move_to(&self, index: u32, name: &str, namespace: impl AsFd) -> Result<(), SyscallError> {
        let mut body = link_message(index, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &terminated(name));
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_fd().as_raw_fd().to_ne_bytes());
        self.request("RTM_NEWLINK", name, RTM_NEWLINK, NLM_F_ACK, &body, |_, _| {})
    }

    /// The addresses of the device.
    pub fn addresses(&self, index: u32) -> Result<Vec<LinkAddress>, SyscallError> {
        let mut found = Vec::new();
        self.request("RTM_GETADDR", "", RTM_GETADDR, NLM_F_DUMP, &[0; 8], |kind, body| {
            if kind == RTM_NEWADDR {
                found.extend(parse_address(body).filter(|address| address.index == index));
            }
        })?;
        Ok(found)
    }

    /// Adds an address to the device.
    pub fn add_address(&self, index: u32, address: &LinkAddress) -> Result<(), SyscallError> {
        let mut body = vec![address.family, address.prefix, 0, address.scope];
        body.extend_from_slice(&index.to_ne_bytes());
        attribute(&mut body, IFA_ADDRESS, &address.address);
        if let Some(local) = &address.local {
            attribute(&mut body, IFA_LOCAL, local);
        }
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request("RTM_NEWADDR", "", RTM_NEWADDR, flags, &body, |_, _| {})
    }

    /// Sends one request and hands each message of the answer to `take`, until it is acknowledged, done, or (for a
    /// single answer) there.
    fn request(
        &self,
        call: &'static str,
        detail: &str,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut take: impl FnMut(u16, &[u8]),
    ) -> Result<(), SyscallError> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&u32::try_from(HEADER + body.len()).unwrap_or(0).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        let fd = self.0.as_raw_fd();
        // SAFETY: pointer and length describe the live buffer.
        retry(call, detail, || unsafe { libc::send(fd, message.as_ptr().cast(), message.len(), 0) as i64 })?;
        let single = flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
        let mut buffer = vec![0_u8; 32 * 1024];
        loop {
            // SAFETY: pointer and length describe the live buffer.
            let length = retry(call, detail, || unsafe {
                libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) as i64
            })?;
            let mut rest = buffer.get(..usize::try_from(length).unwrap_or(0)).unwrap_or(&[]);
            while let Some((kind, body, next)) = split_message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = word(body, 0).unwrap_or(0).cast_signed();
                        if code == 0 {
                            return Ok(());
                        }
                        return Err(SyscallError::new(call, detail.to_owned(), Errno::from_raw(-code)));
                    }
                    kind => take(kind, body),
                }
                rest = next;
            }
            if single || length == 0 {
                return Ok(());
            }
        }
    }
}

/// `struct ifinfomsg` of rtnetlink(7).
fn link_message(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for field in [index, flags, change] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    body
}

/// Appends a `struct rtattr`, padded to four bytes.
fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The first message's kind and body, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok().filter(|length| *length >= HEADER)?;
    let body = bytes.get(HEADER..length)?;
    Some((half(bytes, 4)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// `struct ifaddrmsg` and its attributes.
fn parse_address(body: &[u8]) -> Option<LinkAddress> {
    let mut found = LinkAddress {
        family: *body.first()?,
        prefix: *body.get(1)?,
        flags: u32::from(*body.get(2)?),
        scope: *body.get(3)?,
        index: word(body, 4)?,
        address: Vec::new(),
        local: None,
    };
    let mut rest = body.get(8..)?;
    while let (Some(length), Some(kind)) = (half(rest, 0).map(usize::from), half(rest, 2)) {
        let Some(value) = rest.get(4..length) else { break };
        match kind {
            IFA_ADDRESS => found.address = value.to_vec(),
            IFA_LOCAL => found.local = Some(value.to_vec()),
            IFA_FLAGS => found.flags = word(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_with_its_address() {
        let socket = RouteSocket::open().unwrap();
        let index = socket.index_of("lo").unwrap();
        assert_eq!(index, 1);
        for address in socket.addresses(index).unwrap() {
            assert_eq!(address.index, 1);
        }
        assert_eq!(socket.index_of("nope0").unwrap_err().errno, Errno::ENODEV);
    }

    #[test]
    fn short_messages_are_not_read_past_their_end() {
        assert!(split_message(&[1, 0, 0, 0]).is_none());
        assert!(split_message(&[255; 20]).is_none());
        assert!(parse_address(&[2, 8, 0]).is_none());
        assert!(parse_address(&[2, 8, 0, 0, 1, 0, 0, 0, 255, 255, 1, 0]).is_some());
    }
}

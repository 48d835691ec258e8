//! netlink: messages with attributes, sent as one batch and answered one by one (netlink(7)). A few hundred lines in place
//! of rtnetlink's tree of crates, and shared by links ([`super::link`]) and packet filter rules (`super::firewall`).
//!
//! A socket belongs to the network namespace in which it was made, whichever thread uses it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// Of a request; every one is.
const NLM_F_REQUEST: u16 = 1;
/// The kernel answers when it is done.
pub(super) const NLM_F_ACK: u16 = 4;
/// All objects of a kind.
const NLM_F_DUMP: u16 = 0x300;
/// It must not be there yet.
pub(super) const NLM_F_EXCL: u16 = 0x200;
/// It is made when it is not there.
pub(super) const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Length, type, flags, sequence number, port.
const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
/// The kernel cuts what it sends to what was offered; its dumps come in pieces of at most 32 KiB.
const RECEIVED_AT_ONCE: usize = 64 << 10;
/// A batch is one buffer of the socket: thousands of published ports want some MiB.
const SENT_AT_ONCE: usize = 16 << 20;

/// A request that the kernel refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}")]
pub struct NetlinkError {
    /// What was asked for, with its operands.
    pub action: String,
    /// Why not.
    #[source]
    pub errno: Errno,
}

impl NetlinkError {
    /// Why, as Go's programs say it.
    pub(super) fn words(&self) -> String {
        let text = std::io::Error::from(self.errno).to_string().to_ascii_lowercase();
        text.split(" (os error").next().unwrap_or_default().to_owned()
    }
}

/// A list of attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        self
    }

    /// With the zero that ends it.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In network order, as nf_tables has all its numbers.
    pub(super) fn ordered(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// A fixed header in front of a nest's attributes.
    pub(super) fn header(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The attributes of a message or of a nest; ends at the first that is cut.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (number16(bytes, 0)?, number16(bytes, 2)?);
        let value = bytes.get(4..usize::from(length))?;
        bytes = bytes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Requests that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What each request is for; its number is its place.
    actions: Vec<String>,
}

impl Batch {
    /// Adds a request with its fixed header.
    pub(super) fn push(
        &mut self,
        action: impl Into<String>,
        (kind, flags): (u16, u16),
        header: &[u8],
        attributes: &Attributes,
    ) {
        let length = u32::try_from(HEADER + header.len() + attributes.len()).unwrap_or(u32::MAX);
        let sequence = u32::try_from(self.actions.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(attributes.as_slice());
        pad(&mut self.bytes);
        self.actions.push(action.into());
    }

    #[cfg(test)]
    fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// One message of the kernel.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    sequence: u32,
    /// Who asked for what is told.
    pub(super) port: u32,
    pub(super) body: Vec<u8>,
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    received: VecDeque<Message>,
}

impl Socket {
    /// Opens one in the calling thread's network namespace; `groups`: what it is told of, a bit for each.
    pub(super) fn open(protocol: Option<Protocol>, groups: u32) -> Result<Self, NetlinkError> {
        let failed = |errno| NetlinkError { action: "opening a netlink socket".to_owned(), errno };
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
                .map_err(failed)?;
        // Not more than what is used is allocated. Without CAP_NET_ADMIN large batches fail, and so does the rest.
        let _smaller = sockopt::set_socket_send_buffer_size_force(&fd, SENT_AT_ONCE);
        let _smaller = sockopt::set_socket_recv_buffer_size_force(&fd, SENT_AT_ONCE);
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups)).map_err(failed)?;
        Ok(Self { fd, received: VecDeque::new() })
    }

    /// The number by which the kernel knows this socket.
    pub(super) fn port(&self) -> u32 {
        rustix::net::getsockname(&self.fd)
            .ok()
            .and_then(|address| SocketAddrNetlink::try_from(address).ok())
            .map_or(0, |address| address.pid())
    }

    /// Sends the batch, whose last acknowledged request is number `last`, and waits for the answers.
    ///
    /// # Errors
    /// The first request that was refused.
    pub(super) fn run(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        self.run_until(batch, batch.actions.len().saturating_sub(1))
    }

    pub(super) fn run_until(&mut self, batch: &Batch, last: usize) -> Result<(), NetlinkError> {
        if batch.actions.is_empty() {
            return Ok(());
        }
        self.send(batch)?;
        let action = |sequence: u32| {
            batch.actions.get(usize::try_from(sequence).unwrap_or(usize::MAX)).cloned().unwrap_or_default()
        };
        let mut first = None;
        loop {
            let message = self.receive().map_err(|errno| NetlinkError { action: action(0), errno })?;
            if message.kind != NLMSG_ERROR {
                continue;
            }
            let code = number32(&message.body, 0).unwrap_or_default().cast_signed();
            if code != 0 && first.is_none() {
                let errno = Errno::from_raw_os_error(-code);
                first = Some(NetlinkError { action: action(message.sequence), errno });
            }
            let sequence = usize::try_from(message.sequence).unwrap_or(usize::MAX);
            // The beginning of a transaction is answered only when nothing of it is done.
            if sequence == last || (sequence == 0 && code != 0 && last != 0) {
                break;
            }
        }
        self.received.clear();
        first.map_or(Ok(()), Err)
    }

    /// All objects that a request names.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn dump(
        &mut self,
        action: &str,
        kind: u16,
        header: &[u8],
    ) -> Result<Vec<Message>, NetlinkError> {
        let mut batch = Batch::default();
        batch.push(action, (kind, NLM_F_DUMP), header, &Attributes::default());
        self.send(&batch)?;
        let failed = |errno| NetlinkError { action: action.to_owned(), errno };
        let mut found = Vec::new();
        loop {
            let message = self.receive().map_err(failed)?;
            match message.kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    let code = number32(&message.body, 0).unwrap_or_default().cast_signed();
                    return Err(failed(Errno::from_raw_os_error(-code)));
                }
                _ => found.push(message),
            }
        }
    }

    /// The one object that a request names.
    ///
    /// # Errors
    /// The kernel's; `ENODEV`: there is none.
    pub(super) fn one(
        &mut self,
        action: &str,
        kind: u16,
        header: &[u8],
        list: &Attributes,
    ) -> Result<Message, NetlinkError> {
        let mut batch = Batch::default();
        batch.push(action, (kind, 0), header, list);
        self.send(&batch)?;
        let failed = |errno| NetlinkError { action: action.to_owned(), errno };
        let message = self.receive().map_err(failed)?;
        if message.kind == NLMSG_ERROR {
            let code = number32(&message.body, 0).unwrap_or_default().cast_signed();
            return Err(failed(Errno::from_raw_os_error(-code)));
        }
        Ok(message)
    }

    fn send(&mut self, batch: &Batch) -> Result<(), NetlinkError> {
        self.received.clear();
        rustix::net::send(&self.fd, &batch.bytes, SendFlags::empty()).map(drop).map_err(|errno| {
            NetlinkError { action: batch.actions.first().cloned().unwrap_or_default(), errno }
        })
    }

    /// The next message; waits for it.
    pub(super) fn receive(&mut self) -> rustix::io::Result<Message> {
        loop {
            if let Some(message) = self.received.pop_front() {
                return Ok(message);
            }
            let mut buffer = vec![0; RECEIVED_AT_ONCE];
            let length = rustix::io::retry_on_intr(|| {
                rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())
            })?
            .0;
            self.received.extend(messages(&buffer[..length]));
        }
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(sequence), Some(port)) =
        (number32(bytes, 0), number16(bytes, 4), number32(bytes, 8), number32(bytes, 12))
    {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push(Message { kind, sequence, port, body: body.to_vec() });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut list = Attributes::default();
        list.text(3, "eth0").number(4, 1500).nest(18, |inner| {
            inner.text(1, "veth").bytes(2, &[1, 2, 3]);
        });
        let read: Vec<_> = attributes(list.as_slice()).collect();
        assert_eq!(read[0], (3, b"eth0\0".as_slice()));
        assert_eq!(read[1], (4, 1500_u32.to_ne_bytes().as_slice()));
        let inner: Vec<_> = attributes(read[2].1).collect();
        assert_eq!((read[2].0, inner), (18, vec![(1, b"veth\0".as_slice()), (2, [1, 2, 3].as_slice())]));
        assert_eq!(list.len() % 4, 0);
    }

    #[test]
    fn messages_are_told_apart_and_a_cut_one_ends_them() {
        let mut batch = Batch::default();
        batch.push("one", (16, NLM_F_ACK), &[7; 4], &Attributes::default());
        batch.push("two", (17, 0), &[], &Attributes::default());
        let read = messages(batch.as_slice());
        assert_eq!(read.iter().map(|message| message.kind).collect::<Vec<_>>(), [16, 17]);
        assert_eq!(read[0].body, [7; 4]);
        assert_eq!(messages(&batch.as_slice()[..batch.as_slice().len() - 1]).len(), 1);
    }

    #[test]
    fn hostile_lengths_end_the_list() {
        for bytes in [[0_u8, 0, 1, 0], [3, 0, 1, 0], [255, 255, 1, 0]] {
            assert_eq!(attributes(&bytes).count(), 0, "{bytes:?}");
        }
    }
}

//! What the runtime (parent) and the container's first process (child) say to each other.
//!
//! One `SOCK_SEQPACKET` pair, one message a packet: a tag byte, then text. Silence means that all is well: the child
//! goes on by itself, and says `Error` once if it can't.
//!
//! ```text
//!   parent                                    child
//!     | clone3 -------------------------------> |
//!     |                    (stage) MapIds ----- |   only where a stage makes the user namespace
//!     | IdsMapped ----------------------------> |
//!     |                       (stage) Pid ----- |   only with a stage (`stage`): the first child made the final one, as
//!     |                                         |   the parent's child
//!     |                   (stage) GoesOn ------ |   in the place of Pid, where a second birth is to come
//!     | id maps, network devices, state.json,   |
//!     | the unit, where systemd makes the cgroup |
//!     | Go -----------------------------------> |   the child touches nothing before this; where it needs nothing
//!     |                                         |   of the above, it is there from the start
//!     | the network namespace        joins, mounts
//!     | Network (fd) -------------------------> |   on a channel of its own, where the parent makes that namespace
//!     | resources, oom_score_adj
//!     | <------------------------ SourceWanted |   a bind that the child may not open or map by itself
//!     | Source (fd) or SourceRefused --------> |
//!     | <------------------------------ RunHooks |   only with prestart or createRuntime hooks
//!     | HooksDone ----------------------------> |
//!     | <-------------------------- LimitsWanted |   only for a scheduler or a memory policy, and where no hooks have
//!     | LimitsSet ----------------------------> |   waited for the limits
//!     |               createContainer hooks, pivot, masks, sysctls
//!     | <----------------------------------- Pid |   in the place of Ready, from a process that was only to come this far
//!     |                                         |   (`second_birth`): who goes on from here is its sibling
//!     | <--------------------------------- Ready |
//!     | rlimits of a user namespace, pidfd to
//!     | whoever takes it, state.json            |   meanwhile, but for a user namespace: rlimits, SELinux label,
//!     | Run ----------------------------------> |   identity; waited for before the filter, or at the latest here
//!     | <------------------ SeccompListener (fd) |   only with SCMP_ACT_NOTIFY
//!     | ListenerTaken ------------------------> |
//!     | <------------------------------- Created |   not by exec: nothing is left but start and execve
//!     | <------------------- end of the stream   |   exec: execve is done
//! ```
//! At any point the child may send `Error` and end. The parent answers an error of its own by killing the child.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ketch_sys::{Errno, SyscallError, socket};
use thiserror::Error;

/// The longest message: an error with all its causes. Longer ones are cut by the sender.
const MESSAGE_LIMIT: usize = 16 * 1024;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Stage to parent: the process that goes on, as a number in the parent's pid namespace.
    Pid(i32),
    /// Stage to parent: it is where it was to go, and goes on itself.
    GoesOn,
    /// Stage to parent: in a new user namespace, whose ids are to be mapped.
    MapIds,
    /// Parent to stage: they are.
    IdsMapped,
    /// Parent to child: your ids are mapped, your cgroup is there.
    Go,
    /// Child to parent: the mount with this index in the plan needs a source from outside.
    SourceWanted(usize),
    /// Parent to child, with the detached mount.
    Source,
    /// Parent to child: there is none, and why.
    SourceRefused(String),
    /// Parent to child, with the network namespace that it has made, on a channel of its own: nobody asks for it.
    Network,
    /// Child to parent: the namespaces and mounts exist, the root is not yet changed.
    RunHooks,
    /// Parent to child: the hooks ran.
    HooksDone,
    /// Child to parent: what it does next depends on the limits of its cgroup.
    LimitsWanted,
    /// Parent to child: they are set.
    LimitsSet,
    /// Child to parent: ready to become the program.
    Ready,
    /// Parent to child: become it.
    Run,
    /// Child to parent, with the listener's descriptor.
    SeccompListener,
    /// Parent to child: the listener is in good hands.
    ListenerTaken,
    /// Child to parent: it waits for `start`, or becomes its program where it is not to wait.
    Created,
    /// Child to parent: it failed, and why.
    Error(String),
}

/// Why the two can't go on.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// The socket failed.
    #[error("talking to the container's init")]
    Socket(#[from] SyscallError),
    /// The other side is gone.
    #[error("the other side ended before it was ready")]
    Ended,
    /// The other side sent something else than was its turn.
    #[error("unexpected message {found:?} while waiting for {expected}")]
    Unexpected {
        /// What came.
        found: Message,
        /// What should have come.
        expected: &'static str,
    },
    /// Bytes that are no message.
    #[error("malformed message of {length} bytes")]
    Malformed {
        /// The packet's length.
        length: usize,
    },
    /// The other side reported an error.
    #[error("{0}")]
    Reported(String),
}

impl ProtocolError {
    fn of_sending(error: SyscallError) -> Self {
        match error.errno {
            Errno::EPIPE | Errno::ECONNRESET => Self::Ended,
            _ => error.into(),
        }
    }
}

impl Message {
    /// The packet of this message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let tagged = |tag: u8, text: &str| {
            let mut packet = vec![tag];
            let mut end = text.len().min(MESSAGE_LIMIT - 1);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            packet.extend_from_slice(&text.as_bytes()[..end]);
            packet
        };
        match self {
            Self::Pid(pid) => tagged(b'P', &pid.to_string()),
            Self::GoesOn => tagged(b'O', ""),
            Self::MapIds => tagged(b'U', ""),
            Self::IdsMapped => tagged(b'u', ""),
            Self::Go => tagged(b'G', ""),
            Self::SourceWanted(index) => tagged(b'M', &index.to_string()),
            Self::Source => tagged(b'm', ""),
            Self::SourceRefused(reason) => tagged(b'x', reason),
            Self::Network => tagged(b'N', ""),
            Self::RunHooks => tagged(b'H', ""),
            Self::HooksDone => tagged(b'h', ""),
            Self::LimitsWanted => tagged(b'L', ""),
            Self::LimitsSet => tagged(b'l', ""),
            Self::Ready => tagged(b'R', ""),
            Self::Run => tagged(b'r', ""),
            Self::SeccompListener => tagged(b'S', ""),
            Self::ListenerTaken => tagged(b's', ""),
            Self::Created => tagged(b'C', ""),
            Self::Error(text) => tagged(b'E', text),
        }
    }

    /// The message of a packet.
    ///
    /// # Errors
    /// [`ProtocolError::Malformed`] for anything that [`Message::encode`] does not make.
    pub fn decode(packet: &[u8]) -> Result<Self, ProtocolError> {
        let malformed = || ProtocolError::Malformed { length: packet.len() };
        let (tag, text) = packet.split_first().ok_or_else(malformed)?;
        let text = std::str::from_utf8(text).map_err(|_| malformed())?;
        let message = match tag {
            b'P' => Self::Pid(text.parse().map_err(|_| malformed())?),
            b'O' => Self::GoesOn,
            b'U' => Self::MapIds,
            b'u' => Self::IdsMapped,
            b'G' => Self::Go,
            b'M' => Self::SourceWanted(text.parse().map_err(|_| malformed())?),
            b'm' => Self::Source,
            b'x' => Self::SourceRefused(text.to_owned()),
            b'N' => Self::Network,
            b'H' => Self::RunHooks,
            b'h' => Self::HooksDone,
            b'L' => Self::LimitsWanted,
            b'l' => Self::LimitsSet,
            b'R' => Self::Ready,
            b'r' => Self::Run,
            b'S' => Self::SeccompListener,
            b's' => Self::ListenerTaken,
            b'C' => Self::Created,
            b'E' => Self::Error(text.to_owned()),
            _ => return Err(malformed()),
        };
        let has_text =
            matches!(message, Self::Pid(_) | Self::SourceWanted(_) | Self::SourceRefused(_) | Self::Error(_));
        if !has_text && !text.is_empty() {
            return Err(malformed());
        }
        Ok(message)
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    /// Whether `Run` has been received.
    run: Cell<bool>,
}

impl Channel {
    /// The two ends.
    ///
    /// # Errors
    /// The socket pair could not be made.
    pub fn pair() -> Result<(Self, Self), SyscallError> {
        let (parent, child) = socket::pair(socket::SocketKind::SeqPacket)?;
        Ok((Self::over(parent), Self::over(child)))
    }

    fn over(socket: OwnedFd) -> Self {
        Self { socket, run: Cell::new(false) }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&self, message: &Message) -> Result<(), ProtocolError> {
        self.send_with(message, &[])
    }

    /// Sends one message with descriptors.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send_with(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        socket::send(&self.socket, &message.encode(), fds).map_err(ProtocolError::of_sending)
    }

    /// Says the last word, by write(2): a filter that lets a container run at all lets it write, and runc's init writes
    /// there too. Not so the calls of sockets.
    ///
    /// # Errors
    /// The other end is gone, or the filter refuses.
    pub fn write(&self, message: &Message) -> Result<(), ProtocolError> {
        socket::write(&self.socket, &message.encode()).map_err(ProtocolError::of_sending)
    }

    /// The next message and its descriptors; `None` at the end of the stream.
    ///
    /// Room is made for the packet that is there: for the longest one, four pages would be cleared each time, and be copied
    /// in both processes, when most packets are one byte.
    ///
    /// # Errors
    /// A packet that is no message, or a failing socket.
    pub fn receive(&self) -> Result<Option<(Message, Vec<OwnedFd>)>, ProtocolError> {
        let mut buffer = match heard(|| socket::next_length(&self.socket))? {
            0 => return Ok(None),
            length @ ..=MESSAGE_LIMIT => vec![0; length],
            length => return Err(ProtocolError::Malformed { length }),
        };
        let (length, fds) = heard(|| socket::receive(&self.socket, &mut buffer))?;
        Message::decode(&buffer[..length]).map(|message| Some((message, fds)))
    }

    /// Waits for exactly `wanted`.
    ///
    /// # Errors
    /// Anything else that comes, the end of the stream included.
    pub fn expect(&self, wanted: &Message, name: &'static str) -> Result<(), ProtocolError> {
        match self.receive()? {
            Some((message, _)) if message == *wanted => Ok(()),
            Some((Message::Error(text), _)) => Err(ProtocolError::Reported(text)),
            Some((found, _)) => Err(ProtocolError::Unexpected { found, expected: name }),
            None => Err(ProtocolError::Ended),
        }
    }

    /// Waits for `Run` by read(2): a filter that lets a container run at all lets it read.
    ///
    /// # Errors
    /// As [`Channel::await_run`].
    pub fn read_run(&self) -> Result<(), ProtocolError> {
        let mut buffer = [0; 1];
        let length = heard(|| socket::read(&self.socket, &mut buffer))?;
        if length == 0 {
            return Err(ProtocolError::Ended);
        }
        match Message::decode(&buffer)? {
            Message::Run => {
                self.run.set(true);
                Ok(())
            }
            found => Err(ProtocolError::Unexpected { found, expected: "Run" }),
        }
    }

    /// Waits for `Run`, unless it has come already.
    ///
    /// # Errors
    /// Anything else that comes, the end of the stream included.
    pub fn await_run(&self) -> Result<(), ProtocolError> {
        if !self.run.get() {
            self.expect(&Message::Run, "Run")?;
            self.run.set(true);
        }
        Ok(())
    }
}

/// What the peer has said. A SEQPACKET peer that dies with unread data resets the connection, which is told once, and before
/// that.
fn heard<T>(mut receive: impl FnMut() -> Result<T, SyscallError>) -> Result<T, SyscallError> {
    match receive() {
        Err(error) if error.errno == Errno::ECONNRESET => receive(),
        other => other,
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_round_trip() {
        let all = [
            Message::Pid(77),
            Message::GoesOn,
            Message::MapIds,
            Message::IdsMapped,
            Message::Go,
            Message::SourceWanted(3),
            Message::Source,
            Message::SourceRefused("no".into()),
            Message::Network,
            Message::RunHooks,
            Message::HooksDone,
            Message::LimitsWanted,
            Message::LimitsSet,
            Message::Ready,
            Message::Run,
            Message::SeccompListener,
            Message::ListenerTaken,
            Message::Created,
            Message::Error("mounting \"proc\"".into()),
        ];
        for message in all {
            assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let packet = Message::Error("é".repeat(MESSAGE_LIMIT)).encode();
        assert!(packet.len() <= MESSAGE_LIMIT);
        assert!(matches!(Message::decode(&packet), Ok(Message::Error(_))));
    }

    #[test]
    fn the_last_words_of_a_peer_with_unread_mail_are_heard() {
        let (parent, child) = Channel::pair().unwrap();
        child.send(&Message::Error("no such file".into())).unwrap();
        parent.send(&Message::Run).unwrap();
        drop(child);
        let heard = parent.receive().unwrap().map(|(message, _)| message);
        assert_eq!(heard, Some(Message::Error("no such file".into())));
        assert!(parent.receive().unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_packet_panics(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&packet) {
                prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
            }
        }
    }
}

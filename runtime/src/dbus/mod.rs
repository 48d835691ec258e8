//! A D-Bus client, as much of one as asking systemd for a unit takes: one connection, one call at a time, deadlines.
//!
//! Synchronous and without a thread: whoever waits for a reply or a signal reads the socket until it is there. Owns the
//! wire format and the text form of values; knows nothing of systemd. Called by `cgroup::systemd`; [`Value`] is plain
//! data, which `plan` makes as well. D-Bus specification 0.43; text form: GVariant's.

mod address;
mod connection;
mod message;
mod signature;
mod text;
mod value;
mod wire;

use std::io;

use ketch_sys::SyscallError;
use thiserror::Error;

pub use address::{Address, Transport};
pub use connection::Connection;
pub use message::{Answer, Call, Kind, Message};
pub use signature::{SignatureError, Type};
pub use text::TextError;
pub use value::Value;
pub use wire::WireError;

/// Why a bus did not do as asked.
#[derive(Debug, Error)]
pub enum DbusError {
    /// An address that leads nowhere: of another transport than a Unix socket, or malformed.
    #[error("no usable D-Bus address in {address:?}")]
    Address {
        /// As it was given.
        address: String,
    },
    /// Nobody listens there.
    #[error("cannot connect to D-Bus at {address}")]
    Connect {
        /// Where.
        address: String,
        /// The kernel's answer.
        source: SyscallError,
    },
    /// The bus does not believe who we are.
    #[error("D-Bus refuses to authenticate this user: {answer:?}")]
    Refused {
        /// Its last line.
        answer: String,
    },
    /// No answer came in time.
    #[error("no answer from D-Bus within {seconds} s to {question}")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
        /// For what.
        question: &'static str,
    },
    /// The other side has closed the connection.
    #[error("D-Bus has closed the connection")]
    Closed,
    /// The socket.
    #[error("D-Bus connection")]
    Io(#[source] io::Error),
    /// Not D-Bus, or beyond what this client takes.
    #[error("malformed D-Bus message")]
    Malformed(#[from] WireError),
    /// The answer to a call is an error.
    #[error("{text}")]
    Answer {
        /// Its name, as `org.freedesktop.systemd1.UnitExists`.
        name: String,
        /// For people.
        text: String,
    },
    /// The answer to a call has other contents than it should have.
    #[error("unexpected D-Bus answer to {question}")]
    Unexpected {
        /// The call.
        question: &'static str,
    },
}

impl DbusError {
    /// Whether it is the error of this name that a call was answered with.
    #[must_use]
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, DbusError::Answer { name, .. } if name == wanted)
    }
}

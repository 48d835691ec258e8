//! The embedded name server: containers of user-defined networks ask 127.0.0.11 in their own namespace, and the daemon
//! answers from what it knows ([`names`], [`server`]), or asks others ([`forward`]). [`message`] is the wire format; of it a
//! server that changes nothing but what it answers itself needs the header, the question and a few kinds of records.

mod forward;
mod message;
pub(super) mod names;
mod server;

pub(super) use self::names::{Names, Told, View};
pub(super) use self::server::{Listening, Sockets};

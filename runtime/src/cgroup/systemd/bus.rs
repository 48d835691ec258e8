//! Where systemd can be spoken to: which socket, for the system's instance and for a user's.

use std::env;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::dbus::{Address, Call, Connection, DbusError, Transport, Value};
use crate::plan::cgroup::systemd::Instance;

/// How long an answer may take, of the socket, of a call, and of a job. As runc waits for a job: a system that starts
/// very many containers at once lets everyone wait for ten seconds and more.
const PATIENCE: Duration = Duration::from_secs(30);

/// The system's instance, itself: no bus in between that may be down, or that others keep busy.
const SYSTEM_PEER: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// What a bus calls itself.
const BUS: &str = "org.freedesktop.DBus";

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum BusError {
    #[error(
        "no D-Bus of this user: DBUS_SESSION_BUS_ADDRESS is not set, and there is neither \"bus\" nor \"systemd/private\" \
         in XDG_RUNTIME_DIR (a login session with dbus-user-session has them)"
    )]
    NoUserBus,
    #[error(transparent)]
    Dbus(#[from] DbusError),
}

/// A connection to an instance.
pub(super) fn connect(instance: Instance) -> Result<Connection, BusError> {
    match instance {
        Instance::System => connect_system(),
        Instance::User => {
            let (address, transport) = user_address()?;
            Ok(Connection::open(&address, transport, PATIENCE)?)
        }
    }
}

fn connect_system() -> Result<Connection, BusError> {
    let open = |address: &Address, transport| Connection::open(address, transport, PATIENCE);
    if let Some(address) = variable("DBUS_SYSTEM_BUS_ADDRESS") {
        return Ok(open(&Address::parse(&address)?, Transport::Bus)?);
    }
    match open(&Address::Path(SYSTEM_PEER.into()), Transport::Peer) {
        // Not there, or not for us: a container that was given the bus alone.
        Err(DbusError::Connect { .. } | DbusError::Refused { .. } | DbusError::Closed) => {
            Ok(open(&Address::Path(SYSTEM_BUS.into()), Transport::Bus)?)
        }
        other => Ok(other?),
    }
}

/// The user whose session's bus this is, by the word of the bus: in a user namespace its numbers are other ones than ours.
/// Nothing where there is none.
#[must_use]
pub fn user_bus_owner() -> Option<u32> {
    let (address, transport) = user_address().ok().filter(|(_, transport)| *transport == Transport::Bus)?;
    let mut bus = Connection::open(&address, transport, PATIENCE).ok()?;
    let name = [Value::text(BUS)];
    let (path, member) = ("/org/freedesktop/DBus", "GetConnectionUnixUser");
    let call = Call { destination: BUS, path, interface: BUS, member, body: &name };
    match bus.call(member, &call).ok()?[..] {
        [Value::U32(user)] => Some(user),
        _ => None,
    }
}

fn user_address() -> Result<(Address, Transport), BusError> {
    if let Some(address) = variable("DBUS_SESSION_BUS_ADDRESS") {
        return Ok((Address::parse(&address)?, Transport::Bus));
    }
    let runtime_dir =
        env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).ok_or(BusError::NoUserBus)?;
    let in_runtime_dir = |name: &str| Some(Path::new(&runtime_dir).join(name)).filter(|path| path.exists());
    let address = |path: PathBuf| Address::Path(path);
    let bus = in_runtime_dir("bus").map(|path| (address(path), Transport::Bus));
    let peer = || in_runtime_dir("systemd/private").map(|path| (address(path), Transport::Peer));
    bus.or_else(peer).ok_or(BusError::NoUserBus)
}

fn variable(name: &str) -> Option<String> {
    let value = env::var_os(name).filter(|value| !value.is_empty())?;
    Some(String::from_utf8_lossy(&value.into_vec()).into_owned())
}

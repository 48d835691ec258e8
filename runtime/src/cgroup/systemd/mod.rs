//! systemd, asked over D-Bus for the unit whose cgroup is the container's: the executor of
//! [`crate::plan::cgroup::systemd`].
//!
//! [`Manager`] is the connection and its calls; [`unit`] is what [`super::Cgroup`] does by them. The connection is made
//! when it is first needed: of a container that runs, only `update` and `delete` need it.

use ketch_sys::process::Pid;
use thiserror::Error;

mod bus;
mod manager;
pub(super) mod unit;

pub use bus::{BusError, user_bus_owner};
pub use manager::Manager;

use crate::dbus::DbusError;

/// Why systemd did not do as asked.
#[derive(Debug, Error)]
pub enum SystemdError {
    #[error("systemd not running on this host, cannot use systemd cgroups manager")]
    NotRunning,
    #[error("failed to connect to systemd")]
    Connect(#[source] BusError),
    #[error("systemd did not answer before, and is not asked again")]
    Silent,
    #[error("cannot ask systemd for its {property}")]
    Fact { property: &'static str, source: DbusError },
    #[error("unable to start unit {unit:?}")]
    Start { unit: String, source: DbusError },
    #[error("error creating systemd unit `{unit}`: got `{result}`")]
    NotStarted { unit: String, result: String },
    #[error("unable to set unit properties of {unit:?}")]
    Set { unit: String, source: DbusError },
    #[error("unable to stop unit {unit:?}")]
    Stop { unit: String, source: DbusError },
    #[error("error adding pid {pid} to cgroups: unit {unit:?}")]
    Attach { unit: String, pid: Pid, source: DbusError },
}

impl SystemdError {
    /// Whether an answer was waited for in vain.
    fn is_silence(&self) -> bool {
        let source = match self {
            Self::Connect(BusError::Dbus(source))
            | Self::Fact { source, .. }
            | Self::Start { source, .. }
            | Self::Set { source, .. }
            | Self::Stop { source, .. }
            | Self::Attach { source, .. } => source,
            Self::Connect(BusError::NoUserBus)
            | Self::NotRunning
            | Self::NotStarted { .. }
            | Self::Silent => {
                return false;
            }
        };
        matches!(source, DbusError::TimedOut { .. })
    }
}

//! Network devices of the host that move into the container (runtime-spec 1.3, `linux.netDevices`).
//!
//! The parent moves them once the container's network namespace exists; the kernel gives physical ones back when the
//! namespace ends, so nothing undoes a move here.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::Path;

use ketch_sys::route::RouteSocket;
use ketch_sys::{SyscallError, namespace, path};
use thiserror::Error;

use crate::spec::NetDevice;

/// A device that could not be moved.
#[derive(Debug, Error)]
#[error("move netDevice {name} to the container's network namespace: {step}")]
pub struct NetDeviceError {
    name: String,
    step: &'static str,
    source: SyscallError,
}

/// Moves `devices` into the network namespace that `container` (a namespace file or a pidfd) refers to, with their permanent global addresses.
///
/// # Errors
/// The first device that can't be moved.
pub fn move_all(
    devices: &BTreeMap<String, NetDevice>,
    container: BorrowedFd<'_>,
) -> Result<(), NetDeviceError> {
    if devices.is_empty() {
        return Ok(());
    }
    let first = devices.keys().next().cloned().unwrap_or_default();
    let sockets = open_both(container);
    let (host, container, namespace) =
        sockets.map_err(|source| NetDeviceError { name: first, step: "opening the namespaces", source })?;
    for (name, device) in devices {
        let failed = |step| move |source| NetDeviceError { name: name.clone(), step, source };
        let new_name = if device.name.is_empty() { name } else { &device.name };
        let index = host.index_of(name).map_err(failed("link not found on runtime namespace"))?;
        // Before it goes down, which takes its IPv6 addresses.
        let addresses = host.addresses(index).map_err(failed("fail to get ip addresses"))?;
        // What else uses the device on the host sees it go down, and not vanish while it is up.
        host.set_up(index, false).map_err(failed("fail to set link down"))?;
        host.move_to(index, new_name, &namespace).map_err(failed("fail to move network device"))?;
        let index = container.index_of(new_name).map_err(failed("link not found in the container"))?;
        // The kernel drops a device's addresses when it moves.
        for address in addresses.iter().filter(|address| address.is_permanent_and_global()) {
            container.add_address(index, address).map_err(failed("fail to set up address"))?;
        }
        container.set_up(index, true).map_err(failed("fail to set up interface"))?;
    }
    Ok(())
}

/// Connections to this network namespace and to the container's, and a handle on the latter.
fn open_both(
    namespace: BorrowedFd<'_>,
) -> Result<(RouteSocket, RouteSocket, std::os::fd::OwnedFd), SyscallError> {
    const SELF: &str = "/proc/self/ns/net";
    let own = path::open_host(Path::new(SELF), path::READ)?;
    let host = RouteSocket::open()?;
    namespace::join(namespace, namespace::NEW_NET)?;
    let inside = path::open_host(Path::new(SELF), path::READ).and_then(|fd| Ok((RouteSocket::open()?, fd)));
    namespace::join(&own, namespace::NEW_NET)?;
    let (container, namespace) = inside?;
    Ok((host, container, namespace))
}

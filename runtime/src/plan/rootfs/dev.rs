//! `/dev`: the device nodes of a container, those of every container and those of the bundle.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{RootfsPlanError, clean};
use crate::spec::Device;

/// What `/dev` is filled with, besides the links that every container gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevPlan {
    /// Device nodes, the default ones first.
    pub nodes: Vec<DeviceNode>,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where in the container.
    pub path: PathBuf,
    /// What it is.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The kinds of device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
}

impl DeviceKind {
    /// The letter that the runtime-spec has for it.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Character => 'c',
            Self::Block => 'b',
            Self::Fifo => 'p',
        }
    }
}

/// The nodes that every container has, as path and number, in runc's order.
const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

pub(super) fn device_nodes(devices: &[Device]) -> Result<Vec<DeviceNode>, RootfsPlanError> {
    let mut nodes = Vec::with_capacity(DEFAULT_NODES.len() + devices.len());
    for (path, major, minor) in DEFAULT_NODES {
        if devices.iter().any(|device| device.path == path) {
            continue;
        }
        nodes.push(DeviceNode {
            path: PathBuf::from(path),
            kind: DeviceKind::Character,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        });
    }
    for device in devices {
        let kind = match device.kind.as_str() {
            "c" | "u" => DeviceKind::Character,
            "b" => DeviceKind::Block,
            "p" => DeviceKind::Fifo,
            other => return Err(RootfsPlanError::DeviceType(other.to_owned())),
        };
        // Without a path it is there for the cgroup's sake only; /dev/ptmx is always the link into the container's
        // own devpts.
        if device.path.is_empty() || clean(&Path::new("/").join(&device.path)) == Path::new("/dev/ptmx") {
            continue;
        }
        let number = |value: i64| {
            u32::try_from(value).map_err(|_| RootfsPlanError::DeviceNumber {
                path: device.path.clone(),
                major: device.major,
                minor: device.minor,
            })
        };
        let (major, minor) =
            if kind == DeviceKind::Fifo { (0, 0) } else { (number(device.major)?, number(device.minor)?) };
        nodes.push(DeviceNode {
            path: PathBuf::from(&device.path),
            kind,
            major,
            minor,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
        });
    }
    Ok(nodes)
}

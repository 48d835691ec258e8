//! Parts of a spec that say nothing by being there: [`Given`].

use serde::{Deserialize, Serialize};

/// A part of a spec that a client gave although there is nothing in it, or although it is the default. It changes no task;
/// clients are shown their spec as they gave it, and send back what they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Given {
    // Of a task.
    Resources,
    Limits,
    Reservations,
    Placement,
    RestartDelay,
    RestartWindow,
    // Of a container.
    Privileges,
    Seccomp,
    AppArmor,
    Dns,
    // Of a mount.
    VolumeOptions,
    TmpfsOptions,
}

//! containerd's shim protocol as data: the messages of its services, and the frames of ttrpc that carry them. It does no
//! I/O; the shim serves it and ketchd calls it.

pub mod bootstrap;
pub mod cgroup1;
pub mod cgroup2;
pub mod cri;
pub mod events;
pub mod options;
pub mod process;
pub mod sandbox;
pub mod task;
pub mod ttrpc;
pub mod types;
pub mod wire;

/// The Task service's name in version 2 of the protocol.
pub const TASK_V2: &str = "containerd.task.v2.Task";
/// The Task service's name in version 3 of the protocol: the same messages.
pub const TASK_V3: &str = "containerd.task.v3.Task";
/// The Sandbox service's name.
pub const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// The service of containerd that takes events.
pub const EVENTS: &str = "containerd.services.events.ttrpc.v1.Events";

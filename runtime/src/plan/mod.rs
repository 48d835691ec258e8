//! What will be done, as plain data: no file descriptors, no I/O.

pub mod cgroup;
pub mod mount_flags;
pub mod rootfs;

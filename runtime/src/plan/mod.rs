//! What will be done, as plain data: no file descriptors, no I/O.

pub mod cgroup;

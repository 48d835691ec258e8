//! What a process of a container does to itself between the namespaces and execve: identity, rights, limits,
//! scheduling. Each file is one concern; `init` calls them in their order. Runs in the child only.

pub mod environment;
pub mod identity;
pub mod keyring;
pub mod landlock;
pub mod scheduling;

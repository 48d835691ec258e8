//! `config.json`, parsed and checked.
//!
//! Owns the data model of the OCI runtime-spec 1.3 (its Linux part), its parser and the checks that stand between a
//! parsed file and a plan. It makes no system call that changes anything and decides nothing about how a field is
//! carried out. Called by `bundle` (which reads the file), `container` and `plan`.
//!
//! Fields keep the words of the specification. Values that runc only warns about never fail the parse, so its
//! enumerations stay strings here, with typed accessors where the plan needs them.

mod checks;
mod container_id;
mod error;
mod example;
pub mod facts;
mod hooks;
pub mod id_list;
mod json;
mod linux;
mod model;
mod mount;
pub mod mount_options;
mod namespace;
mod process;
pub mod resources;
pub mod seccomp;
pub mod user_namespace;
mod validate;

pub use container_id::{ContainerId, ContainerIdError};
pub use error::{IdListError, MountFault, SpecError};
pub use example::{OCI_VERSION, example, to_rootless};
pub use facts::SpecFacts;
pub use hooks::{Hook, Hooks};
pub use linux::{Device, IntelRdt, Linux, MemoryPolicy, NetDevice, Personality, TimeOffset};
pub use model::{ParseError, Root, Spec};
pub use mount::Mount;
pub use mount_options::MountOptions;
pub use namespace::{IdMapping, Namespace, NamespaceType};
pub use process::{Capabilities, ConsoleSize, CpuAffinity, IoPriority, Process, Rlimit, Scheduler, User};
pub use resources::Resources;
pub use seccomp::{Seccomp, SeccompArg, SeccompRule};
pub use validate::{ValidSpec, ValidationContext, validate, validate_process, validate_with};

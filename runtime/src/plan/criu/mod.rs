//! What criu is asked for: to save a container's processes to a folder of images, and to bring them back from it.
//!
//! Pure: options as plain data, without a descriptor; which mounts are the host's and under which names the images know
//! them ([`external`]); what can't be brought back ([`Obstacle`]); and whether what criu has made of the images is what the configuration allows, its mounts ([`verdict`]) and its processes ([`bounds`]).
//! Carried out by `checkpoint`.

pub mod bounds;
pub mod external;
pub mod mount_table;
mod obstacle;
mod options;
pub mod verdict;

pub use obstacle::Obstacle;
pub use options::{
    CONFIG_ANNOTATION, CgroupsMode, CriuFlagError, CriuOptions, Final, Inherited, JoinedNamespace,
    NetworkContents, PageServer, SharedFlags, empty_namespaces, external_namespace, namespace_key,
};

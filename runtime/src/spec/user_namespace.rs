//! The id mappings of a user namespace that exists already.
//!
//! A namespace file says nothing of its mappings: they are read through a process inside of it. Called by
//! [`super::facts`].

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ketch_sys::error::SyscallError;
use ketch_sys::{namespace, process};
use thiserror::Error;

use super::IdMapping;

/// The mappings of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMappings {
    /// User ids.
    pub uid: Vec<IdMapping>,
    /// Group ids.
    pub gid: Vec<IdMapping>,
}

/// Why the mappings of a user namespace can't be had.
#[derive(Debug, Error)]
pub enum MappingsError {
    /// The namespace's file can't be opened, or a map can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The process that enters the namespace can't be made.
    #[error(transparent)]
    Process(#[from] SyscallError),
    /// The process could not enter the namespace.
    #[error("setns: the namespace can't be joined")]
    Join,
    /// A line of a map is not three numbers.
    #[error("invalid line {line:?} in an id map")]
    Line {
        /// The line.
        line: String,
    },
}

/// Reads the mappings of the user namespace at `path`, as seen from the runtime's own.
///
/// # Errors
/// [`MappingsError`]: the file is no user namespace, or can't be joined.
pub fn mappings(path: &Path) -> Result<IdMappings, MappingsError> {
    match pid_in(path) {
        // Most callers name the namespace by a process, whose maps can be read as they are.
        Some(pid) => read_maps(&pid),
        None => mappings_by_joining(path),
    }
}

fn pid_in(path: &Path) -> Option<String> {
    let pid = path.to_str()?.strip_prefix("/proc/")?.strip_suffix("/ns/user")?;
    (pid == "self" || pid.parse::<u32>().is_ok()).then(|| pid.to_owned())
}

fn mappings_by_joining(path: &Path) -> Result<IdMappings, MappingsError> {
    let at = |path: &Path, error| MappingsError::Read { path: path.to_owned(), error };
    let target = File::open(path).map_err(|error| at(path, error))?;
    let (mut ready, told) = io::pipe().map_err(|error| at(path, error))?;
    let (held, hold) = io::pipe().map_err(|error| at(path, error))?;
    let options =
        process::CloneOptions { namespaces: 0, into_cgroup: None, parent: process::CloneParent::Caller };
    match process::clone3(&options)? {
        process::Cloned::Child => {
            drop((ready, hold));
            if namespace::join(&target, namespace::NEW_USER).is_err() {
                process::exit_now(1);
            }
            drop(target);
            // The byte says that the namespace is entered; the end of the other pipe, that the maps have been read.
            let joined = io::Write::write_all(&mut &told, b"j").is_ok();
            drop(told);
            let mut byte = [0];
            let _ = (&held).read(&mut byte);
            process::exit_now(i32::from(!joined));
        }
        process::Cloned::Parent(child) => {
            drop((told, held));
            let mut byte = [0];
            let joined = ready.read(&mut byte).map_err(|error| at(path, error))? == 1;
            let maps = if joined { read_maps(&child.pid.to_string()) } else { Err(MappingsError::Join) };
            drop(hold);
            process::wait(&child.pidfd)?;
            maps
        }
    }
}

fn read_maps(pid: &str) -> Result<IdMappings, MappingsError> {
    let read = |name: &str| {
        let path = Path::new("/proc").join(pid).join(name);
        let text = fs::read_to_string(&path).map_err(|error| MappingsError::Read { path, error })?;
        parse_map(&text)
    };
    Ok(IdMappings { uid: read("uid_map")?, gid: read("gid_map")? })
}

/// The text of a `uid_map` or `gid_map`.
pub(crate) fn parse_map(text: &str) -> Result<Vec<IdMapping>, MappingsError> {
    text.lines()
        .map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(container_id)), Some(Ok(host_id)), Some(Ok(size)), None) => {
                    Ok(IdMapping { container_id, host_id, size })
                }
                _ => Err(MappingsError::Line { line: line.to_owned() }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_as_the_kernel_prints_them() {
        let text = "         0     100000      65536\n     65536          0          1\n";
        let expected = [
            IdMapping { container_id: 0, host_id: 100_000, size: 65536 },
            IdMapping { container_id: 65536, host_id: 0, size: 1 },
        ];
        assert_eq!(parse_map(text).unwrap(), expected);
        assert_eq!(parse_map("").unwrap(), []);
        assert!(parse_map("0 1\n").is_err());
        assert!(parse_map("0 1 2 3\n").is_err());
        assert!(parse_map("0 x 2\n").is_err());
    }

    #[test]
    fn a_namespace_named_by_a_process_is_read_there() {
        assert_eq!(pid_in(Path::new("/proc/12/ns/user")).as_deref(), Some("12"));
        assert_eq!(pid_in(Path::new("/proc/12/ns/net")), None);
        assert_eq!(pid_in(Path::new("/run/userns/a")), None);
        let own = mappings(Path::new("/proc/self/ns/user")).unwrap();
        assert!(!own.uid.is_empty());
        assert!(mappings(Path::new("/proc/4294967295/ns/user")).is_err());
    }
}

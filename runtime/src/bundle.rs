//! Bundles: the directory that holds `config.json`, and the files that describe a container or a process.
//!
//! Owns reading and writing them, with a bound on their size; what is in them is [`crate::spec`]'s. Called by
//! `container` and by the `spec` command.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ketch_sys::error::{Errno, errno_text};
use ketch_sys::{credential, stat};
use thiserror::Error;

use crate::spec::{self, Process, Spec};

/// The file in a bundle that describes its container.
pub const CONFIG: &str = "config.json";

/// The largest file that is read, in bytes. A big configuration (Docker's, with its seccomp profile) has 40 KiB.
pub const MAX_LEN: u64 = 16 << 20;

/// Why a bundle can't be used. The texts are runc's.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The bundle's directory can't be entered.
    #[error("chdir {}: {}", path.display(), text_of(error))]
    Enter {
        /// The path as it was given.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// There is no `config.json`.
    #[error("JSON specification file {CONFIG} not found")]
    NoConfig,
    /// A file can't be read.
    #[error("open {}: {}", path.display(), text_of(error))]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        error: io::Error,
    },
    /// A file is too big to be a configuration.
    #[error("{} is larger than {MAX_LEN} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error(transparent)]
    Parse(#[from] spec::ParseError),
    /// There is a `config.json` already.
    #[error("File {CONFIG} exists. Remove it first")]
    ConfigExists,
    /// `config.json` can't be written.
    #[error("open {CONFIG}: {}", text_of(error))]
    Write {
        /// The kernel's answer.
        error: io::Error,
    },
    /// The example can't be put into JSON.
    #[error(transparent)]
    Serialize(#[from] serde_json::Error),
}

/// A directory that describes a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    path: PathBuf,
}

/// Whom the example is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExampleFor {
    /// Root.
    Root,
    /// The caller, without privileges.
    Caller,
}

impl Bundle {
    /// The bundle at `path`, or in the working directory when no path is given.
    ///
    /// # Errors
    /// The directory does not exist or can't be looked at.
    pub fn open(path: Option<&Path>) -> Result<Self, BundleError> {
        let given = path.unwrap_or(Path::new("."));
        let enter = |error| BundleError::Enter { path: given.to_owned(), error };
        let path = fs::canonicalize(given).map_err(enter)?;
        if !fs::metadata(&path).map_err(enter)?.is_dir() {
            return Err(enter(io::Error::from_raw_os_error(Errno::ENOTDIR as i32)));
        }
        Ok(Self { path })
    }

    /// Makes it this process's working directory.
    ///
    /// # Errors
    /// [`BundleError::Enter`].
    pub fn enter(&self) -> Result<(), BundleError> {
        std::env::set_current_dir(&self.path)
            .map_err(|error| BundleError::Enter { path: self.path.clone(), error })
    }

    /// Its absolute path, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and parses `config.json`.
    ///
    /// # Errors
    /// The file is missing, unreadable, too big, or no configuration.
    pub fn load(&self) -> Result<Spec, BundleError> {
        let path = self.path.join(CONFIG);
        match read(&path) {
            Err(BundleError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Err(BundleError::NoConfig)
            }
            read => Ok(Spec::from_slice(&read?)?),
        }
    }

    /// Writes the example configuration into a bundle that has none yet.
    ///
    /// # Errors
    /// There is a `config.json` already, or it can't be written.
    pub fn write_example(&self, whom: ExampleFor) -> Result<(), BundleError> {
        let mut example = spec::example(unified_cgroup());
        if whom == ExampleFor::Caller {
            example = spec::to_rootless(example, credential::effective_uid(), credential::effective_gid());
        }
        let json = example.to_json()?;
        let mut file = match File::create_new(self.path.join(CONFIG)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BundleError::ConfigExists);
            }
            created => created.map_err(|error| BundleError::Write { error })?,
        };
        file.write_all(&json).map_err(|error| BundleError::Write { error })
    }
}

/// Reads the file that `exec --process` names.
///
/// # Errors
/// The file is missing, unreadable, too big, or no process.
pub fn load_process(path: &Path) -> Result<Process, BundleError> {
    Ok(Process::from_slice(&read(path)?)?)
}

fn read(path: &Path) -> Result<Vec<u8>, BundleError> {
    let failed = |error| BundleError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::with_capacity(16 * 1024);
    // The file may be a pipe: its size is known only once it has been read.
    file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(BundleError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Whether all of the host's cgroups are of version 2.
fn unified_cgroup() -> bool {
    File::open("/sys/fs/cgroup").is_ok_and(|root| stat::file_system(&root) == Ok(stat::CGROUP2))
}

/// The kernel's words for an I/O error, as runc prints them.
fn text_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => errno_text(Errno::from_raw(number)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ketch-bundle-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_pieces_are_named_in_runcs_words() {
        let error = Bundle::open(Some(Path::new("/nonexistent"))).unwrap_err();
        assert_eq!(error.to_string(), "chdir /nonexistent: no such file or directory");
        let error = Bundle::open(Some(Path::new("/proc/self/status"))).unwrap_err();
        assert!(error.to_string().ends_with(": not a directory"));
        let dir = Dir::new("missing");
        let error = Bundle::open(Some(&dir.0)).unwrap().load().unwrap_err();
        assert_eq!(error.to_string(), "JSON specification file config.json not found");
        let error = load_process(Path::new("/nonexistent/p.json")).unwrap_err();
        assert_eq!(error.to_string(), "open /nonexistent/p.json: no such file or directory");
    }

    #[test]
    fn an_example_is_written_once_and_can_be_loaded() {
        let dir = Dir::new("example");
        let bundle = Bundle::open(Some(&dir.0)).unwrap();
        bundle.write_example(ExampleFor::Caller).unwrap();
        let spec = bundle.load().unwrap();
        assert_eq!(spec.hostname, "runc");
        let error = bundle.write_example(ExampleFor::Root).unwrap_err();
        assert_eq!(error.to_string(), "File config.json exists. Remove it first");
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let error = load_process(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "/dev/zero is larger than 16777216 bytes");
    }

    #[test]
    fn a_refused_field_is_named() {
        let dir = Dir::new("field");
        fs::write(dir.0.join(CONFIG), r#"{"linux": {"namespaces": {}}}"#).unwrap();
        let error = Bundle::open(Some(&dir.0)).unwrap().load().unwrap_err().to_string();
        assert!(error.starts_with("invalid value of linux.namespaces at line 1"), "{error}");
        assert!(error.ends_with("invalid type: map, expected an array of objects"), "{error}");
    }
}

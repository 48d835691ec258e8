//! The flags in front of the command: where state is kept, where the log goes, which cgroup driver.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

use super::{CliError, FlagError, first_line, help, usage_error};
use crate::log::{self, Format, Verbosity};

/// Where containers are kept when `--root` does not say otherwise: runc's folder, so that tools which look there find it.
const DEFAULT_ROOT: &str = "/run/runc";

#[derive(Debug, Args)]
struct GlobalFlags {
    /// enable debug logging
    #[arg(long)]
    debug: bool,
    /// file to append log lines to (default: stderr)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// form of the log lines: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// directory in which the containers' state is kept (it should be on a tmpfs) [default: /run/runc]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// let systemd make the cgroups; cgroupsPath is then "slice:prefix:name" (not supported yet)
    #[arg(long)]
    systemd_cgroup: bool,
    /// whether to go without cgroups that may not be written: true, false or auto (true is not supported yet)
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    rootless: String,
    /// print the version
    #[arg(long, short)]
    version: bool,
}

/// What the global flags mean to a command.
#[derive(Debug)]
pub(crate) struct Global {
    /// Absolute, without `.` and `..`.
    pub(crate) root: PathBuf,
    /// `--root` was given, so a missing folder is an error.
    pub(crate) root_is_explicit: bool,
    /// `--systemd-cgroup`.
    pub(crate) systemd_cgroup: bool,
    pub(super) version: bool,
    rootless: String,
    log: Option<PathBuf>,
    log_format: String,
    debug: bool,
}

impl Global {
    pub(super) fn command() -> Command {
        GlobalFlags::augment_args(
            Command::new("ketch").disable_help_flag(true).disable_version_flag(true).args_override_self(true),
        )
    }

    /// Reads flags in clap's form.
    pub(super) fn parse(mut command: Command, flags: &[OsString]) -> Result<Self, CliError> {
        let args = std::iter::once(OsString::from("ketch")).chain(flags.iter().cloned());
        let flags = command
            .try_get_matches_from_mut(args)
            .and_then(|matches| GlobalFlags::from_arg_matches(&matches))
            .map_err(|error| usage_error(&first_line(&error), &help::root()))?;
        Ok(Self {
            root_is_explicit: flags.root.is_some(),
            root: flags.root.unwrap_or_else(|| PathBuf::from(DEFAULT_ROOT)),
            systemd_cgroup: flags.systemd_cgroup,
            version: flags.version,
            rootless: flags.rootless,
            log: flags.log,
            log_format: flags.log_format,
            debug: flags.debug,
        })
    }

    /// Adds global flags that were typed behind the command's name.
    pub(super) fn merge(&mut self, flags: &[OsString]) -> Result<(), CliError> {
        if flags.is_empty() {
            return Ok(());
        }
        let typed = |name: &str| flags.iter().any(|flag| flag.to_string_lossy().starts_with(name));
        let later = Self::parse(Self::command(), flags)?;
        if later.root_is_explicit {
            self.root = later.root;
            self.root_is_explicit = true;
        }
        self.log = later.log.or(self.log.take());
        if typed("--log-format=") {
            self.log_format = later.log_format;
        }
        if typed("--rootless=") {
            self.rootless = later.rootless;
        }
        self.debug |= later.debug;
        self.systemd_cgroup |= later.systemd_cgroup;
        Ok(())
    }

    /// Sets the log up and makes the root absolute, before the command looks at its operands.
    pub(super) fn apply(&mut self) -> Result<(), CliError> {
        if self.root_is_explicit {
            self.root = absolute(&self.root)?;
            if self.root == Path::new("/") {
                return Err(CliError::text("Option --root argument should not be set to /"));
            }
        }
        let verbosity = if self.debug { Verbosity::Debug } else { Verbosity::Quiet };
        let format = match self.log_format.as_str() {
            "" | "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(CliError::text(format!("invalid log-format: {other}"))),
        };
        let file = self.log.as_deref().filter(|file| !file.as_os_str().is_empty());
        log::init(file, format, verbosity)?;
        Ok(())
    }

    /// Refuses the drivers that this version lacks; called by the commands that would make a cgroup.
    pub(crate) fn check_cgroup_driver(&self) -> Result<(), CliError> {
        if self.systemd_cgroup {
            return Err(CliError::text("--systemd-cgroup: the systemd cgroup driver is not supported yet"));
        }
        match self.rootless.to_ascii_lowercase().as_str() {
            "" | "auto" | "false" | "0" | "f" => Ok(()),
            "true" | "1" | "t" => {
                Err(CliError::text("--rootless=true: rootless containers are not supported yet"))
            }
            other => {
                let error = FlagError::NotBoolean { value: other.to_owned(), name: "rootless".to_owned() };
                Err(CliError::from(error))
            }
        }
    }
}

/// `path` from the root, cleaned as Go's `filepath.Abs` does: by its text, not by what its links point to.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let mut cleaned = PathBuf::from("/");
    let joined = if path.is_absolute() { path.to_owned() } else { std::env::current_dir()?.join(path) };
    for component in joined.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Global {
        let flags: Vec<OsString> = flags.iter().map(OsString::from).collect();
        Global::parse(Global::command(), &flags).unwrap()
    }

    #[test]
    fn a_root_is_made_absolute_by_its_text() {
        assert_eq!(absolute(Path::new("/a/./b/../c/")).unwrap(), Path::new("/a/c"));
        assert_eq!(absolute(Path::new("/../..")).unwrap(), Path::new("/"));
        assert_eq!(absolute(Path::new("x")).unwrap(), std::env::current_dir().unwrap().join("x"));
    }

    #[test]
    fn root_slash_is_refused() {
        let error = parse(&["--root=/.."]).apply().unwrap_err();
        assert_eq!(error.to_string(), "Option --root argument should not be set to /");
    }

    #[test]
    fn later_flags_win() {
        let mut global = parse(&["--root=/a", "--log-format=json"]);
        global.merge(&["--root=/b".into()]).unwrap();
        assert_eq!((global.root.as_path(), global.log_format.as_str()), (Path::new("/b"), "json"));
    }

    #[test]
    fn what_is_not_supported_yet_says_so() {
        let error = parse(&["--systemd-cgroup"]).check_cgroup_driver().unwrap_err();
        assert!(error.to_string().contains("not supported yet"));
        let error = parse(&["--rootless=true"]).check_cgroup_driver().unwrap_err();
        assert!(error.to_string().contains("not supported yet"));
        assert!(parse(&["--rootless=false"]).check_cgroup_driver().is_ok());
    }
}

//! The flags in front of the command: where state is kept, where the log goes, which cgroup driver.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

use super::{CliError, FlagError, first_line, help, usage_error};
use crate::cgroup::CgroupDriver;
use crate::error::io_text;
use crate::host;
use crate::log::{self, Format, Verbosity};
use crate::plan::cgroup::UserNamespace;
use crate::plan::{Caller, RootlessChoice};

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
    /// directory in which the containers' state is kept (it should be on a tmpfs) [default: /run/runc; without root
    /// $XDG_RUNTIME_DIR/runc]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// let systemd make the cgroups; cgroupsPath is then "slice:prefix:name"
    #[arg(long)]
    systemd_cgroup: bool,
    /// whether to go without cgroups that may not be written: true, false or auto (whoever is not the host's root)
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
    systemd_cgroup: bool,
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
        } else if let Some(root) = users_root() {
            make_users_root(&root)?;
            self.root = root;
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

    /// Who makes the cgroups.
    pub(crate) fn cgroup_driver(&self) -> CgroupDriver {
        if self.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs }
    }

    /// `--rootless`, in Go's forms of a boolean.
    pub(crate) fn rootless(&self) -> Result<RootlessChoice, CliError> {
        match self.rootless.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(RootlessChoice::Yes),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(RootlessChoice::No),
            auto if auto.is_empty() || auto.eq_ignore_ascii_case("auto") => Ok(RootlessChoice::Auto),
            other => {
                let error = FlagError::NotBoolean { value: other.to_owned(), name: "rootless".to_owned() };
                Err(CliError::from(error))
            }
        }
    }
}

/// Where a user keeps containers: below `$XDG_RUNTIME_DIR`. Root of the host goes on with its own folder, as its session
/// may have such a variable, too; and so does who became root in a user namespace by login.
fn users_root() -> Option<PathBuf> {
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty())?;
    let honoured = match (host::caller(), host::user_namespace()) {
        (Caller::User, _) => true,
        (Caller::Root, UserNamespace::Initial) => false,
        (Caller::Root, UserNamespace::Nested) => std::env::var_os("USER").is_none_or(|user| user != "root"),
    };
    honoured.then(|| Path::new(&runtime_dir).join("runc"))
}

/// The sticky bit keeps it: what is not touched for long may be removed from `$XDG_RUNTIME_DIR` (XDG Base Directory
/// Specification).
fn make_users_root(root: &Path) -> Result<(), CliError> {
    let failed = |advice: &str, call: &str, error: &std::io::Error| {
        CliError::text(format!("{advice}: {call} {}: {}", root.display(), io_text(error)))
    };
    DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|error| {
        failed("the path in $XDG_RUNTIME_DIR must be writable by the user", "mkdir", &error)
    })?;
    fs::set_permissions(root, Permissions::from_mode(0o1700)).map_err(|error| {
        failed("you should check permission of the path in $XDG_RUNTIME_DIR", "chmod", &error)
    })
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
    fn rootless_is_a_boolean_or_auto() {
        for (flags, choice) in [
            (&["--rootless=true"][..], RootlessChoice::Yes),
            (&["--rootless=F"], RootlessChoice::No),
            (&["--rootless=AUTO"], RootlessChoice::Auto),
            (&[], RootlessChoice::Auto),
        ] {
            assert_eq!(parse(flags).rootless().unwrap(), choice);
        }
        assert!(parse(&["--rootless=perhaps"]).rootless().is_err());
    }
}

//! What `--security-opt` says, what the daemon's settings say where it says nothing, and what comes of both: seccomp,
//! AppArmor, privileges. Pure.

use ketch_engine_api::host_config::HostConfig;
use serde_json::Value;

use super::container::Record;
use super::host::Host;
use super::{apparmor, seccomp};
use crate::error::{Error, Result};

/// What is not confined at all; of seccomp and of AppArmor.
const UNCONFINED: &str = "unconfined";
/// The profile that the engine brings along.
const BUILTIN: &str = "builtin";

/// What `--security-opt` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `unconfined`, `builtin`, or a profile's JSON; none: the daemon's.
    pub seccomp: Option<String>,
    /// A profile's name; none: the default.
    pub apparmor: Option<String>,
    /// Whether processes gain no privileges.
    pub no_new_privileges: bool,
    /// The cgroup file systems can be written to; none: where the container is privileged.
    pub writable_cgroups: Option<bool>,
}

/// What containers get that say nothing: the daemon's `seccomp-profile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DefaultSeccomp {
    /// The engine's own.
    #[default]
    Builtin,
    /// None.
    Unconfined,
    /// Of a file, as it was when the daemon started.
    Profile(String),
}

impl DefaultSeccomp {
    /// Of the setting, which is `builtin`, `unconfined` or a file.
    ///
    /// # Errors
    /// The file can't be read: dockerd's text.
    pub fn read(setting: &str) -> Result<Self> {
        match setting {
            "" | BUILTIN => Ok(Self::Builtin),
            UNCONFINED => Ok(Self::Unconfined),
            path => std::fs::read_to_string(path).map(Self::Profile).map_err(|error| {
                let words = crate::archive::words(&error);
                Error::invalid(format!("opening seccomp profile ({path}) failed: open {path}: {words}"))
            }),
        }
    }
}

impl Security {
    /// Reads `--security-opt`.
    ///
    /// # Errors
    /// Another option: dockerd's text.
    pub fn read(options: &[String], no_new_privileges: bool) -> Result<Self> {
        let mut security = Self { no_new_privileges, ..Self::default() };
        for option in options {
            let invalid = |number: u8| Error::invalid(format!("invalid --security-opt {number}: {option:?}"));
            let (key, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((key, value)) => (key, Some(value)),
                None => (option.as_str(), None),
            };
            match (key, value) {
                ("no-new-privileges", None) => security.no_new_privileges = true,
                ("writable-cgroups", None) => security.writable_cgroups = Some(true),
                ("disable", None) => {}
                (_, None) => return Err(invalid(1)),
                ("no-new-privileges", Some(value)) => {
                    security.no_new_privileges = flag(value).ok_or_else(|| invalid(2))?;
                }
                ("writable-cgroups", Some(value)) => {
                    security.writable_cgroups = Some(flag(value).ok_or_else(|| invalid(2))?);
                }
                ("seccomp", Some(value)) => security.seccomp = Some(value.to_owned()),
                ("apparmor", Some(value)) => security.apparmor = Some(value.to_owned()),
                // SELinux labels: without SELinux Docker takes them, and nothing comes of it.
                ("label", Some(_)) => {}
                _ => return Err(invalid(2)),
            }
        }
        Ok(security)
    }

    /// Of a container. What the daemon's setting was when it was made counts for good.
    ///
    /// # Errors
    /// As [`Security::read`].
    pub fn of(record: &Record) -> Result<Self> {
        let options = record.host_config.security_opt.as_deref().unwrap_or_default();
        Self::read(options, record.no_new_privileges)
    }

    /// The seccomp profile; none where the container is not confined.
    ///
    /// # Errors
    /// A profile that is none.
    pub fn seccomp_profile(
        &self,
        host_config: &HostConfig,
        default: &DefaultSeccomp,
        capabilities: &[&str],
    ) -> Result<Option<Value>> {
        let own = match self.seccomp.as_deref() {
            Some(UNCONFINED) => return Ok(None),
            Some("") | None => None,
            own => own,
        };
        match (own, default) {
            (Some(BUILTIN), _) if !host_config.privileged => seccomp::default(capabilities).map(Some),
            (Some(text), _) => seccomp::custom(text, capabilities).map(Some),
            (None, _) if host_config.privileged => Ok(None),
            (None, DefaultSeccomp::Builtin) => seccomp::default(capabilities).map(Some),
            (None, DefaultSeccomp::Unconfined) => Ok(None),
            (None, DefaultSeccomp::Profile(text)) => seccomp::custom(text, capabilities).map(Some),
        }
    }

    /// The AppArmor profile; none on a machine without AppArmor, where whatever is asked for is taken and nothing comes of it.
    #[must_use]
    pub fn apparmor_profile(&self, host_config: &HostConfig, host: &Host) -> Option<&str> {
        let own = self.apparmor.as_deref().filter(|name| !name.is_empty());
        host.apparmor.then_some(match own {
            _ if host_config.privileged => UNCONFINED,
            Some(name) => name,
            None => apparmor::DEFAULT,
        })
    }
}

/// As Go reads one.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Docker's masked paths, for this machine.
#[must_use]
pub fn masked_paths(host: &Host) -> Vec<String> {
    let fixed = [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ];
    fixed.into_iter().map(str::to_owned).chain(host.thermal.iter().cloned()).collect()
}

/// Docker's read-only paths.
#[must_use]
pub fn readonly_paths() -> Vec<String> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::caps;

    #[test]
    fn options() {
        let read = |text: &str| Security::read(&[text.to_owned()], true);
        assert!(read("no-new-privileges").unwrap().no_new_privileges);
        assert!(!read("no-new-privileges:false").unwrap().no_new_privileges);
        assert!(read("seccomp=unconfined").unwrap().no_new_privileges, "the daemon's");
        assert_eq!(read("seccomp=unconfined").unwrap().seccomp.as_deref(), Some("unconfined"));
        assert_eq!(read("writable-cgroups=F").unwrap().writable_cgroups, Some(false));
        assert_eq!(read("nope").unwrap_err().message, "invalid --security-opt 1: \"nope\"");
        assert_eq!(read("x=y").unwrap_err().message, "invalid --security-opt 2: \"x=y\"");
        let text = read("no-new-privileges=yes").unwrap_err().message;
        assert_eq!(text, "invalid --security-opt 2: \"no-new-privileges=yes\"");
    }

    #[test]
    fn seccomp_is_the_containers_or_the_daemons() {
        let errno = |option: Option<&str>, privileged: bool, default: &DefaultSeccomp| {
            let security = Security { seccomp: option.map(str::to_owned), ..Security::default() };
            let host_config = HostConfig { privileged, ..HostConfig::default() };
            let made = security.seccomp_profile(&host_config, default, &caps::DEFAULT);
            made.map(|made| made.map(|made| made["defaultErrnoRet"].clone())).map_err(|error| error.message)
        };
        let file =
            DefaultSeccomp::Profile(r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":7}"#.into());
        let other = Some(r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":8}"#);
        let builtin = DefaultSeccomp::Builtin;
        assert_eq!(errno(None, false, &builtin), Ok(Some(json!(1))));
        assert_eq!(errno(None, false, &file), Ok(Some(json!(7))));
        assert_eq!(errno(other, false, &file), Ok(Some(json!(8))));
        assert_eq!(errno(Some("builtin"), false, &file), Ok(Some(json!(1))));
        assert_eq!(errno(None, false, &DefaultSeccomp::Unconfined), Ok(None));
        assert_eq!(errno(Some("unconfined"), false, &file), Ok(None));
        assert_eq!(errno(None, true, &file), Ok(None), "privileged");
        assert_eq!(errno(other, true, &builtin), Ok(Some(json!(8))));
        let text = DefaultSeccomp::read("/no/where").unwrap_err().message;
        assert_eq!(
            text,
            "opening seccomp profile (/no/where) failed: open /no/where: no such file or directory"
        );
    }
}

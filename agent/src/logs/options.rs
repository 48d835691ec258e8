//! What `--log-driver` and `--log-opt` may say, and what they mean.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::syslog;
use crate::error::{Error, Result};
use crate::size;

/// The driver of a container and its options, as `HostConfig.LogConfig` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// `json-file`, `local`, `journald`, `syslog`, `none`.
    #[serde(rename = "Type", default)]
    pub driver: String,
    /// By name.
    #[serde(rename = "Config", default)]
    pub options: BTreeMap<String, String>,
}

/// Every driver, in the order of `/info`.
pub const DRIVERS: [&str; 5] = ["journald", "json-file", "local", "none", "syslog"];
/// The ring of a non-blocking log, in bytes, where the options name none.
const RING: usize = 1_000_000;

/// Options that every driver takes.
const OF_ALL: [&str; 6] =
    ["mode", "max-buffer-size", "cache-disabled", "cache-max-file", "cache-max-size", "cache-compress"];

/// What a write does when the disk, or the log's server, does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It waits, and so does the container once its pipe is full.
    Blocking,
    /// What does not fit into so many bytes is dropped.
    NonBlocking(usize),
}

/// How log files are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    /// From this size on, in bytes; `None`: never.
    pub(super) size: Option<u64>,
    /// How many there are, with the one that is written.
    pub(super) files: usize,
    /// Whether all but that one are gzip.
    pub(super) compress: bool,
}

impl LogConfig {
    /// The container's options over the daemon's, which count where the driver is the daemon's; the cache's count always.
    #[must_use]
    pub fn over(mut self, defaults: &Self) -> Self {
        if self.driver.is_empty() {
            self.driver.clone_from(&defaults.driver);
        }
        for (key, value) in &defaults.options {
            if self.driver == defaults.driver || key.starts_with("cache-") {
                let _kept = self.options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }

    /// Refuses what no log can be opened with.
    ///
    /// # Errors
    /// dockerd's texts.
    pub fn check(&self) -> Result<()> {
        self.check_words()?;
        if self.driver == "syslog" { syslog::Target::of(self)?.is_there() } else { Ok(()) }
    }

    /// The same by the words alone: whether there is a server is not asked.
    ///
    /// # Errors
    /// dockerd's texts.
    pub(super) fn check_words(&self) -> Result<()> {
        let driver = self.driver.as_str();
        if driver == "none" {
            return Ok(());
        }
        let _mode = self.mode()?;
        if let Some(value) = self.option("cache-disabled").filter(|value| !value.is_empty()) {
            let _flag = flag(value)
                .ok_or_else(|| Error::invalid(format!("invalid value for option cache-disabled: {value}")))?;
        }
        let known: &[&str] = match driver {
            "json-file" => {
                &["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"]
            }
            "local" => &["max-file", "max-size", "compress"],
            "journald" => &["labels", "labels-regex", "env", "env-regex", "tag"],
            "syslog" => syslog::OPTIONS,
            _ => {
                return Err(Error::invalid(format!(
                    "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
                )));
            }
        };
        let mut keys = self.options.keys().map(String::as_str);
        if let Some(key) = keys.find(|key| !OF_ALL.contains(key) && !known.contains(key)) {
            let whose = match driver {
                "local" => "log driver local".to_owned(),
                _ => format!("{driver} log driver"),
            };
            return Err(Error::invalid(format!("unknown log opt '{key}' for {whose}")));
        }
        if driver == "syslog" {
            let _target = syslog::Target::of(self)?;
        }
        Ok(())
    }

    pub(super) fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(String::as_str)
    }

    /// # Errors
    /// Another mode, a buffer without the mode, or one that is no size.
    pub(super) fn mode(&self) -> Result<Mode> {
        let buffer = self.option("max-buffer-size");
        match self.option("mode").unwrap_or_default() {
            "" | "blocking" if buffer.is_some() => Err(Error::invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            )),
            "" | "blocking" => Ok(Mode::Blocking),
            "non-blocking" => {
                let Some(text) = buffer else { return Ok(Mode::NonBlocking(RING)) };
                let bytes = size::binary(text).map_err(|error| {
                    Error::invalid(format!("error parsing option max-buffer-size: {error}"))
                })?;
                Ok(Mode::NonBlocking(usize::try_from(bytes).unwrap_or(usize::MAX)))
            }
            other => Err(Error::invalid(format!("logger: logging mode not supported: {other}"))),
        }
    }

    /// Of the `json-file` driver: one file, however large, where the options say nothing.
    ///
    /// # Errors
    /// A value that is none, or compression of files that are never made.
    pub(super) fn json_file_rotation(&self) -> Result<Rotation> {
        let size = self.option("max-size").map(size::decimal).transpose()?;
        if size == Some(0) {
            return Err(Error::invalid("max-size must be a positive number"));
        }
        let files = self.option("max-file").map(number).transpose()?.unwrap_or(1);
        if files < 1 {
            return Err(Error::invalid("max-file cannot be less than 1"));
        }
        let compress = self.option("compress").map(boolean).transpose()?.unwrap_or(false);
        if compress && (files == 1 || size.is_none()) {
            return Err(Error::invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(Rotation { size, files: usize::try_from(files).unwrap_or(1), compress })
    }

    /// Of the `local` driver, and of the cache of drivers that can't be read (`prefix` is `cache-`): five compressed files
    /// of 20 MiB.
    ///
    /// # Errors
    /// A value that is none, or compression of files that are never made.
    pub(super) fn local_rotation(&self, prefix: &str) -> Result<Rotation> {
        let named = |key: &str| self.option(&format!("{prefix}{key}"));
        let invalid = |key: &str, value: &str, error: Error| {
            Error::invalid(format!("invalid value for {key}: {value}: {error}"))
        };
        let size = match named("max-size") {
            Some(value) => size::decimal(value).map_err(|error| invalid("max-size", value, error))?,
            None => 20 << 20,
        };
        let files = match named("max-file") {
            Some(value) => number(value).map_err(|error| invalid("max-file", value, error))?,
            None => 5,
        };
        if files < 0 {
            return Err(Error::invalid("max file count cannot be less than 0"));
        }
        let compress = named("compress")
            .map(boolean)
            .transpose()
            .map_err(|error| Error::invalid(format!("error reading compress log option: {error}")))?
            .unwrap_or(true);
        if compress && files <= 1 {
            return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
        }
        Ok(Rotation { size: Some(size), files: usize::try_from(files.max(1)).unwrap_or(1), compress })
    }

    /// Whether a driver that can't be read keeps a copy for `docker logs`.
    pub(super) fn cached(&self) -> bool {
        !self.option("cache-disabled").and_then(flag).unwrap_or(false)
    }
}

/// Go's `ParseBool`.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn boolean(text: &str) -> Result<bool> {
    flag(text).ok_or_else(|| Error::invalid(format!("strconv.ParseBool: parsing \"{text}\": invalid syntax")))
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig { driver: driver.to_owned(), options }
    }

    #[test]
    fn refusals_have_dockerds_words() {
        for (driver, options, text) in [
            ("fluentd", &[][..], "error looking up logging plugin fluentd: plugin \"fluentd\" not found"),
            ("json-file", &[("x", "1")], "unknown log opt 'x' for json-file log driver"),
            ("local", &[("tag", "1")], "unknown log opt 'tag' for log driver local"),
            ("local", &[("mode", "slow")], "logger: logging mode not supported: slow"),
            (
                "local",
                &[("max-buffer-size", "1m")],
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
            ("syslog", &[("syslog-facility", "x")], "invalid syslog facility"),
        ] {
            assert_eq!(config(driver, options).check().unwrap_err().message, text);
        }
        assert!(config("none", &[("x", "y")]).check().is_ok());
        assert!(config("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "4m")]).check().is_ok());
    }

    #[test]
    fn rotations() {
        let json = |options: &[(&str, &str)]| config("json-file", options).json_file_rotation();
        assert_eq!(json(&[]).unwrap(), Rotation { size: None, files: 1, compress: false });
        assert_eq!(
            json(&[("max-size", "10m"), ("max-file", "3"), ("compress", "true")]).unwrap(),
            Rotation { size: Some(10_000_000), files: 3, compress: true }
        );
        for bad in
            [&[("max-file", "0")][..], &[("max-size", "0")], &[("compress", "1")], &[("max-file", "x")]]
        {
            assert!(json(bad).is_err(), "{bad:?}");
        }
        let local = |options: &[(&str, &str)]| config("local", options).local_rotation("");
        assert_eq!(local(&[]).unwrap(), Rotation { size: Some(20 << 20), files: 5, compress: true });
        assert_eq!(
            local(&[("max-file", "1")]).unwrap_err().message,
            "compression cannot be enabled when max file count is 1"
        );
    }

    #[test]
    fn the_daemons_options_count_for_its_driver() {
        let defaults = config("json-file", &[("max-size", "1m"), ("cache-max-file", "2")]);
        let own = config("json-file", &[("max-size", "2m")]).over(&defaults);
        assert_eq!((own.option("max-size"), own.option("cache-max-file")), (Some("2m"), Some("2")));
        assert_eq!(config("", &[]).over(&defaults), defaults);
        let other = config("syslog", &[]).over(&defaults);
        assert_eq!(other, config("syslog", &[("cache-max-file", "2")]));
    }
}

//! The options of a task, in every form that containerd has for them: runc's message, or `runtimeoptions.v1.Options` with
//! TOML of the same keys, which is what any other runtime type is sent. Pure but for the file that `config_path` names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ketch_shim_api::options::{Options, RuntimeOptions};
use ketch_shim_api::wire::Any;
use serde::{Deserialize, Serialize};

/// How a container's runtime is called. As JSON it is what containerd's own shim keeps as `options.json`, so that either
/// shim can clean up after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// Owner of the pipes of a process.
    #[serde(skip_serializing_if = "is_default")]
    pub io_uid: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// The runtime's binary; the shim's own when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// Where the runtime keeps its state, a folder for each namespace below it.
    #[serde(skip_serializing_if = "is_default")]
    pub root: String,
    #[serde(skip_serializing_if = "is_default")]
    pub systemd_cgroup: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub criu_image_path: String,
    #[serde(skip_serializing_if = "is_default")]
    pub criu_work_path: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Options that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("options of type {0:?} are not known")]
    Type(String),
    #[error("decode options")]
    Decode(#[from] prost::DecodeError),
    #[error("read options from {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("options are not TOML")]
    Toml(#[from] basic_toml::Error),
    #[error("option {0:?} is not known")]
    Key(String),
    #[error("option {0:?} has a value of the wrong type")]
    Value(String),
}

impl RuntimeConfig {
    /// Reads a task's options; absent and empty ones are the defaults.
    ///
    /// # Errors
    /// An unknown type, bytes that are no message, TOML with an unknown key or a wrong value, a file that can't be read.
    pub fn decode(options: Option<&Any>) -> Result<Self, OptionsError> {
        let Some(any) = options.filter(|any| !(any.type_url.is_empty() && any.value.is_empty())) else {
            return Ok(Self::default());
        };
        if let Some(options) = any.unpack::<Options>()? {
            return Ok(options.into());
        }
        let Some(options) = any.unpack::<RuntimeOptions>()? else {
            return Err(OptionsError::Type(any.type_url.clone()));
        };
        if options.config_path.is_empty() {
            return Self::from_toml(&options.config_body);
        }
        let path = Path::new(&options.config_path);
        let text =
            std::fs::read(path).map_err(|source| OptionsError::File { path: path.to_owned(), source })?;
        Self::from_toml(&text)
    }

    /// Reads TOML with runc's keys, in containerd's spelling (`SystemdCgroup`) or the message's (`systemd_cgroup`).
    ///
    /// # Errors
    /// As in [`RuntimeConfig::decode`].
    pub fn from_toml(text: &[u8]) -> Result<Self, OptionsError> {
        let table: BTreeMap<String, Value> = basic_toml::from_slice(text)?;
        let mut config = Self::default();
        for (key, value) in table {
            let plain: String = key.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect();
            let set = match plain.as_str() {
                "nopivotroot" => value.bool().map(|value| config.no_pivot_root = value),
                "nonewkeyring" => value.bool().map(|value| config.no_new_keyring = value),
                "systemdcgroup" => value.bool().map(|value| config.systemd_cgroup = value),
                "iouid" => value.id().map(|value| config.io_uid = value),
                "iogid" => value.id().map(|value| config.io_gid = value),
                "shimcgroup" => value.text().map(|value| config.shim_cgroup = value),
                "binaryname" => value.text().map(|value| config.binary_name = value),
                "root" => value.text().map(|value| config.root = value),
                "criuimagepath" => value.text().map(|value| config.criu_image_path = value),
                "criuworkpath" => value.text().map(|value| config.criu_work_path = value),
                // Keys that containerd has and runc no longer heeds.
                "criupath" | "typeurl" | "configpath" | "configbody" | "taskapiaddress"
                | "taskapiversion" => Some(()),
                _ => return Err(OptionsError::Key(key)),
            };
            set.ok_or(OptionsError::Value(key))?;
        }
        Ok(config)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Number(i64),
    Text(String),
    Other(serde::de::IgnoredAny),
}

impl Value {
    fn bool(self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(value) } else { None }
    }

    fn id(self) -> Option<u32> {
        if let Self::Number(value) = self { value.try_into().ok() } else { None }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::Text(value) => Some(value),
            Self::Bool(_) | Self::Number(_) | Self::Other(_) => None,
        }
    }
}

impl From<Options> for RuntimeConfig {
    fn from(options: Options) -> Self {
        Self {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<RuntimeConfig, OptionsError> {
        let options = RuntimeOptions { config_body: text.into(), ..RuntimeOptions::default() };
        RuntimeConfig::decode(Some(&Any::pack(&options)))
    }

    #[test]
    fn no_options_are_the_defaults() {
        assert_eq!(RuntimeConfig::decode(None).unwrap(), RuntimeConfig::default());
        assert_eq!(RuntimeConfig::decode(Some(&Any::default())).unwrap(), RuntimeConfig::default());
        assert_eq!(toml("").unwrap(), RuntimeConfig::default());
    }

    #[test]
    fn the_message_of_runc() {
        let options =
            Options { binary_name: "/x".into(), io_uid: 7, systemd_cgroup: true, ..Options::default() };
        let config = RuntimeConfig::decode(Some(&Any::pack(&options))).unwrap();
        assert_eq!((config.binary_name.as_str(), config.io_uid, config.systemd_cgroup), ("/x", 7, true));
    }

    #[test]
    fn toml_in_both_spellings() {
        let config = toml("BinaryName = \"/x\"\nSystemdCgroup = true\nIoUid = 7\nCriuPath = \"\"\n").unwrap();
        assert_eq!(config, toml("binary_name = \"/x\"\nsystemd_cgroup = true\nio_uid = 7\n").unwrap());
        assert_eq!((config.binary_name.as_str(), config.io_uid, config.systemd_cgroup), ("/x", 7, true));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(
            matches!(toml("SystemdCgroups = true"), Err(OptionsError::Key(key)) if key == "SystemdCgroups")
        );
        assert!(matches!(toml("SystemdCgroup = \"yes\""), Err(OptionsError::Value(_))));
        assert!(matches!(toml("IoUid = -1"), Err(OptionsError::Value(_))));
        assert!(matches!(toml("Root = [1]"), Err(OptionsError::Value(_))));
        assert!(matches!(toml("= ="), Err(OptionsError::Toml(_))));
        let other = Any { type_url: "a.B".into(), value: vec![1] };
        assert!(matches!(RuntimeConfig::decode(Some(&other)), Err(OptionsError::Type(_))));
    }

    #[test]
    fn options_json_is_that_of_containerds_shim() {
        let config =
            RuntimeConfig { binary_name: "crun".into(), systemd_cgroup: true, ..RuntimeConfig::default() };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(text, r#"{"binary_name":"crun","systemd_cgroup":true}"#);
        let with_more = r#"{"binary_name":"crun","systemd_cgroup":true,"task_api_version":3}"#;
        assert_eq!(serde_json::from_str::<RuntimeConfig>(with_more).unwrap(), config);
    }
}

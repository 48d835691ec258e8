//! `linux.seccomp`: the system call filter as the profile's author wrote it.
//!
//! Actions, operators, architectures and flags stay strings: `seccomp::compile` is the one place that knows them, and
//! refuses or skips the unknown ones as runc does.

use serde::{Deserialize, Serialize};

use super::json::{is_default, null_is_default, objects};

/// The system call filter
/// ([config-linux.md](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp)).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// What happens to a call that no rule matches (`SCMP_ACT_*`).
    #[serde(deserialize_with = "null_is_default")]
    pub default_action: String,
    /// The error number (or trace message) of the default action; EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures besides the native one (`SCMP_ARCH_*`).
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub architectures: Vec<String>,
    /// Flags of seccomp(2) (`SECCOMP_FILTER_FLAG_*`). Absent is not the same as empty: only absent takes the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// UNIX socket that receives the listener's descriptor when a rule notifies.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub listener_path: String,
    /// Opaque text for whoever listens there.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub syscalls: Vec<SeccompRule>,
}

impl Seccomp {
    /// Whether the object says nothing at all, which runc takes for no filter.
    pub fn is_disabled(&self) -> bool {
        self.default_action.is_empty() && self.syscalls.is_empty()
    }
}

/// One rule: what happens to these calls when all of these conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeccompRule {
    /// Names of system calls; unknown ones are skipped.
    #[serde(deserialize_with = "null_is_default")]
    pub names: Vec<String>,
    /// What happens (`SCMP_ACT_*`).
    #[serde(deserialize_with = "null_is_default")]
    pub action: String,
    /// The error number (or trace message) of the action; EPERM when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions on the arguments.
    #[serde(deserialize_with = "objects", skip_serializing_if = "is_default")]
    pub args: Vec<SeccompArg>,
}

/// One condition on an argument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeccompArg {
    /// Which argument, from 0 to 5.
    #[serde(deserialize_with = "null_is_default")]
    pub index: u32,
    /// What the argument is compared with; the mask for `SCMP_CMP_MASKED_EQ`.
    #[serde(deserialize_with = "null_is_default")]
    pub value: u64,
    /// What the masked argument is compared with for `SCMP_CMP_MASKED_EQ`; unused otherwise.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
    pub value_two: u64,
    /// How (`SCMP_CMP_*`).
    #[serde(deserialize_with = "null_is_default")]
    pub op: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_flags_are_not_empty_flags() {
        let absent: Seccomp = serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        let null: Seccomp =
            serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":null}"#).unwrap();
        let empty: Seccomp =
            serde_json::from_str(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#).unwrap();
        assert_eq!(absent.flags, None);
        assert_eq!(null.flags, None);
        assert_eq!(empty.flags, Some(Vec::new()));
    }

    #[test]
    fn only_an_empty_object_is_disabled() {
        assert!(serde_json::from_str::<Seccomp>("{}").unwrap().is_disabled());
        assert!(
            !serde_json::from_str::<Seccomp>(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap().is_disabled()
        );
        assert!(!serde_json::from_str::<Seccomp>(r#"{"syscalls":[{}]}"#).unwrap().is_disabled());
    }

    #[test]
    fn dockers_profile_is_read_whole() {
        let text = include_str!("../../../oci-bundles/docker-default/seccomp.json");
        let profile: Seccomp = serde_json::from_str(text).unwrap();
        assert_eq!(profile.architectures.len(), 3);
        let clone = profile.syscalls.iter().find(|rule| rule.names == ["clone"]).unwrap();
        assert_eq!(clone.args[0].value, 2_114_060_288);
        assert_eq!(clone.args[0].value_two, 0);
        let written = serde_json::to_value(&profile).unwrap();
        assert_eq!(
            written["syscalls"][0]["names"],
            serde_json::from_str::<serde_json::Value>(text).unwrap()["syscalls"][0]["names"]
        );
    }
}

//! The device controller's rules, reduced to a policy: a default and its exceptions.
//!
//! Pure. Owns what a list of rules means, which is what cgroup v1's device controller makes of the same rules written
//! to `devices.allow` and `devices.deny` one by one (kernel: Documentation/admin-guide/cgroup-v1/devices.rst), with
//! one difference that runc has too: a rule that v1 would silently ignore, because it cuts a hole into a wildcard, is
//! an error. [`super`] makes the policy; `cgroup::devices` writes it (v1) or loads it as a program (v2, see
//! [`super::device_program`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::resources::DeviceCgroup;

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    Block,
    Char,
}

/// What may be done to a device: any of read, write and mknod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Access(u8);

impl Access {
    /// The values are those of the kernel's `BPF_DEVCG_ACC_*`.
    pub const MKNOD: Access = Access(1);
    pub const READ: Access = Access(2);
    pub const WRITE: Access = Access(4);
    pub const ALL: Access = Access(7);

    /// Letters other than `r`, `w` and `m` are ignored, as runc does.
    #[must_use]
    pub fn parse(letters: &str) -> Access {
        Access(letters.chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => Self::READ.0,
                'w' => Self::WRITE.0,
                'm' => Self::MKNOD.0,
                _ => 0,
            }
        }))
    }

    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn union(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Access) -> Access {
        Access(self.0 & !other.0)
    }

    #[must_use]
    pub fn intersects(self, other: Access) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.intersects(bit) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl From<String> for Access {
    fn from(letters: String) -> Self {
        Access::parse(&letters)
    }
}

impl From<Access> for String {
    fn from(access: Access) -> Self {
        access.to_string()
    }
}

/// Which devices a rule is about. An absent number is a wildcard; the order puts wildcards first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceMatch {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minor: Option<u32>,
    pub kind: DeviceKind,
}

impl fmt::Display for DeviceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What is done to devices that no exception is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    #[default]
    Deny,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    pub verdict: Verdict,
    /// Absent means every device, and then `access` doesn't count: the rule replaces the whole policy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<DeviceMatch>,
    pub access: Access,
}

impl DeviceRule {
    fn allow_char(major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        let device = Some(DeviceMatch { major, minor, kind: DeviceKind::Char });
        DeviceRule { verdict: Verdict::Allow, device, access }
    }
}

impl fmt::Display for DeviceRule {
    /// As `devices.allow` and `devices.deny` take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(device) => write!(f, "{device} {}", self.access),
            None => f.write_str("a"),
        }
    }
}

/// A rule that can't be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRuleError {
    #[error("device access at {index} field cannot be empty")]
    EmptyAccess { index: usize },
    #[error("invalid cgroup device type {kind:?}")]
    UnknownType { kind: String },
    #[error("device rule at {index}: {number} is not a device number")]
    NumberOutOfRange { index: usize, number: i64 },
    #[error(
        "unable to {action} exception: requested rule [{rule} {access}] not supported by devices cgroupv1 \
         (cannot punch hole in existing wildcard rule [{wildcard} {wildcard_access}])"
    )]
    HoleInWildcard {
        action: &'static str,
        rule: DeviceMatch,
        access: Access,
        wildcard: DeviceMatch,
        wildcard_access: Access,
    },
    #[error("malformed devices.list rule {line}")]
    MalformedList { line: String },
}

/// The rules of `linux.resources.devices`.
pub fn rules(devices: &[DeviceCgroup]) -> Result<Vec<DeviceRule>, DeviceRuleError> {
    devices.iter().enumerate().map(|(index, device)| rule(index, device)).collect()
}

fn rule(index: usize, device: &DeviceCgroup) -> Result<DeviceRule, DeviceRuleError> {
    if device.access.is_empty() {
        return Err(DeviceRuleError::EmptyAccess { index });
    }
    let verdict = if device.allow { Verdict::Allow } else { Verdict::Deny };
    let access = Access::parse(&device.access);
    let kind = match device.kind.as_deref() {
        None | Some("" | "a") => return Ok(DeviceRule { verdict, device: None, access }),
        Some("b") => DeviceKind::Block,
        Some("c") => DeviceKind::Char,
        Some(other) => return Err(DeviceRuleError::UnknownType { kind: other.to_owned() }),
    };
    // Below zero is runc's wildcard.
    let number = |number: Option<i64>| match number {
        Some(number) if number >= 0 => {
            u32::try_from(number).map(Some).map_err(|_| DeviceRuleError::NumberOutOfRange { index, number })
        }
        _ => Ok(None),
    };
    let device = DeviceMatch { major: number(device.major)?, minor: number(device.minor)?, kind };
    Ok(DeviceRule { verdict, device: Some(device), access })
}

/// The devices that every container may use, which runc adds after the spec's own rules: mknod of anything, the
/// default `/dev` nodes, the terminals and `/dev/net/tun`. A node at a path that the spec redefines
/// (`linux.devices[].path`) is left out.
#[must_use]
pub fn default_rules(spec_device_paths: &[&str]) -> Vec<DeviceRule> {
    const NODES: [(&str, u32, u32); 6] = [
        ("/dev/null", 1, 3),
        ("/dev/random", 1, 8),
        ("/dev/full", 1, 7),
        ("/dev/tty", 5, 0),
        ("/dev/zero", 1, 5),
        ("/dev/urandom", 1, 9),
    ];
    let every_block = DeviceMatch { major: None, minor: None, kind: DeviceKind::Block };
    let mut rules = vec![
        DeviceRule::allow_char(None, None, Access::MKNOD),
        DeviceRule { verdict: Verdict::Allow, device: Some(every_block), access: Access::MKNOD },
    ];
    for (path, major, minor) in NODES {
        if !spec_device_paths.contains(&path) {
            rules.push(DeviceRule::allow_char(Some(major), Some(minor), Access::ALL));
        }
    }
    rules.push(DeviceRule::allow_char(Some(136), None, Access::ALL));
    rules.push(DeviceRule::allow_char(Some(5), Some(2), Access::ALL));
    rules.push(DeviceRule::allow_char(Some(10), Some(200), Access::ALL));
    rules
}

/// What a list of rules comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePolicy {
    pub default: Verdict,
    /// Sorted, each device once: access for which the opposite of the default holds.
    pub exceptions: Vec<Exception>,
}

/// An exception to a policy's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    #[serde(flatten)]
    pub device: DeviceMatch,
    pub access: Access,
}

impl DevicePolicy {
    /// Applies the rules in order to a policy that denies everything.
    pub fn from_rules<'a>(
        rules: impl IntoIterator<Item = &'a DeviceRule>,
    ) -> Result<DevicePolicy, DeviceRuleError> {
        let mut state = State::default();
        for rule in rules {
            state.apply(rule)?;
        }
        Ok(state.into_policy())
    }

    /// Applies the rules of a transition to this policy, as the kernel does when they are written.
    #[cfg(test)]
    pub(super) fn after(&self, rules: &[DeviceRule]) -> DevicePolicy {
        let exceptions =
            self.exceptions.iter().map(|exception| (exception.device, exception.access)).collect();
        let mut state = State { default: self.default, exceptions };
        rules.iter().for_each(|rule| state.apply_as_kernel(rule));
        state.into_policy()
    }

    /// Reads `devices.list`. A policy that allows by default shows no exceptions there, so none are known of it.
    pub fn parse_list(list: &str) -> Result<DevicePolicy, DeviceRuleError> {
        let mut state = State::default();
        for line in list.lines() {
            let malformed = || DeviceRuleError::MalformedList { line: line.to_owned() };
            let mut fields = line.split([' ', ':']);
            let mut field = || fields.next().ok_or_else(malformed);
            let (kind, major, minor, access) = (field()?, field()?, field()?, field()?);
            let number = |text: &str| match text {
                "*" => Ok(None),
                _ => text.parse().map(Some).map_err(|_| malformed()),
            };
            let kind = match kind {
                "a" => None,
                "b" => Some(DeviceKind::Block),
                "c" => Some(DeviceKind::Char),
                _ => return Err(malformed()),
            };
            let device = match kind {
                Some(kind) => Some(DeviceMatch { major: number(major)?, minor: number(minor)?, kind }),
                None => None,
            };
            state.apply(&DeviceRule { verdict: Verdict::Allow, device, access: Access::parse(access) })?;
        }
        Ok(state.into_policy())
    }

    /// Whether nothing at all is denied.
    #[must_use]
    pub fn allows_everything(&self) -> bool {
        self.default == Verdict::Allow && self.exceptions.is_empty()
    }

    /// The rules that turn this policy into `target` with the least disturbance: everything is reset only where the
    /// default changes, or where this policy's own exceptions are not known (see [`DevicePolicy::parse_list`]).
    #[must_use]
    pub fn transition(&self, target: &DevicePolicy) -> Vec<DeviceRule> {
        let mut rules = Vec::new();
        let mut old: &[Exception] = &self.exceptions;
        if self.default == Verdict::Allow || self.default != target.default {
            rules.push(DeviceRule { verdict: target.default, device: None, access: Access::ALL });
            old = &[];
        }
        let opposite = match target.default {
            Verdict::Allow => Verdict::Deny,
            Verdict::Deny => Verdict::Allow,
        };
        push_differences(&mut rules, target.default, old, &target.exceptions);
        push_differences(&mut rules, opposite, &target.exceptions, old);
        rules
    }
}

/// A rule of `verdict` for whatever `from` has and `other` lacks.
fn push_differences(rules: &mut Vec<DeviceRule>, verdict: Verdict, from: &[Exception], other: &[Exception]) {
    for Exception { device, access } in from {
        let kept =
            other.iter().find(|exception| exception.device == *device).map(|exception| exception.access);
        let access = access.without(kept.unwrap_or_default());
        if !access.is_empty() {
            rules.push(DeviceRule { verdict, device: Some(*device), access });
        }
    }
}

/// The controller's state while rules are applied.
#[derive(Default)]
struct State {
    default: Verdict,
    exceptions: BTreeMap<DeviceMatch, Access>,
}

impl State {
    fn apply(&mut self, rule: &DeviceRule) -> Result<(), DeviceRuleError> {
        if let Some(device) = rule.device
            && rule.verdict == self.default
        {
            self.refuse_hole(rule, device)?;
        }
        self.apply_as_kernel(rule);
        Ok(())
    }

    fn apply_as_kernel(&mut self, rule: &DeviceRule) {
        let Some(device) = rule.device else {
            *self = State { default: rule.verdict, exceptions: BTreeMap::new() };
            return;
        };
        let access = self.exceptions.entry(device).or_default();
        *access = if rule.verdict == self.default {
            access.without(rule.access)
        } else {
            access.union(rule.access)
        };
    }

    /// Taking a part out of a wildcard is what the kernel ignores, which would leave the part in force.
    fn refuse_hole(&self, rule: &DeviceRule, device: DeviceMatch) -> Result<(), DeviceRuleError> {
        let wildcards = [
            DeviceMatch { major: None, ..device },
            DeviceMatch { minor: None, ..device },
            DeviceMatch { major: None, minor: None, ..device },
        ];
        for wildcard in wildcards {
            let wildcard_access = self.exceptions.get(&wildcard).copied().unwrap_or_default();
            if wildcard != device && wildcard_access.intersects(rule.access) {
                let action = match rule.verdict {
                    Verdict::Allow => "remove 'deny'",
                    Verdict::Deny => "remove 'allow'",
                };
                let access = rule.access;
                return Err(DeviceRuleError::HoleInWildcard {
                    action,
                    rule: device,
                    access,
                    wildcard,
                    wildcard_access,
                });
            }
        }
        Ok(())
    }

    fn into_policy(self) -> DevicePolicy {
        let exceptions = self.exceptions.into_iter().filter(|(_, access)| !access.is_empty());
        let exceptions = exceptions.map(|(device, access)| Exception { device, access }).collect();
        DevicePolicy { default: self.default, exceptions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<DevicePolicy, DeviceRuleError> {
        let devices: Vec<DeviceCgroup> = serde_json::from_str(json).unwrap();
        DevicePolicy::from_rules(&rules(&devices)?)
    }

    fn texts(rules: &[DeviceRule]) -> Vec<String> {
        rules.iter().map(|rule| format!("{:?} {rule}", rule.verdict)).collect()
    }

    #[test]
    fn default_rules_are_those_of_runc() {
        let mut rules = vec![DeviceRule { verdict: Verdict::Deny, device: None, access: Access::ALL }];
        rules.extend(default_rules(&[]));
        let target = DevicePolicy::from_rules(&rules).unwrap();
        let allow_all = DevicePolicy { default: Verdict::Allow, exceptions: vec![] };
        assert_eq!(
            texts(&allow_all.transition(&target)),
            [
                "Deny a",
                "Allow b *:* m",
                "Allow c *:* m",
                "Allow c 1:3 rwm",
                "Allow c 1:5 rwm",
                "Allow c 1:7 rwm",
                "Allow c 1:8 rwm",
                "Allow c 1:9 rwm",
                "Allow c 5:0 rwm",
                "Allow c 5:2 rwm",
                "Allow c 10:200 rwm",
                "Allow c 136:* rwm",
            ]
        );
        assert_eq!(target.transition(&target), []);
        assert!(!default_rules(&["/dev/tty"]).iter().any(|rule| rule.to_string().starts_with("c 5:0")));
    }

    #[test]
    fn later_rules_win() {
        let denied = policy(
            r#"[{"allow":true,"type":"c","major":1,"minor":2,"access":"rwm"},
                {"allow":false,"type":"c","major":1,"minor":2,"access":"w"}]"#,
        );
        assert_eq!(denied.unwrap().exceptions[0].access, Access::parse("rm"));
        assert!(
            policy(r#"[{"allow":false,"access":"rwm"},{"allow":true,"access":"r"}]"#)
                .unwrap()
                .allows_everything()
        );
    }

    #[test]
    fn a_transition_changes_only_what_differs() {
        let old = policy(
            r#"[{"allow":true,"type":"c","major":1,"minor":2,"access":"rw"},
                {"allow":true,"type":"b","major":8,"access":"r"}]"#,
        );
        let new = policy(
            r#"[{"allow":true,"type":"c","major":1,"minor":2,"access":"rm"},
                {"allow":true,"type":"b","minor":8,"access":"r"}]"#,
        );
        assert_eq!(
            texts(&old.unwrap().transition(&new.unwrap())),
            ["Deny c 1:2 w", "Deny b 8:* r", "Allow b *:8 r", "Allow c 1:2 m"]
        );
    }

    #[test]
    fn a_list_is_read_back() {
        let target = DevicePolicy::from_rules(&default_rules(&[])).unwrap();
        let list =
            target.exceptions.iter().map(|e| format!("{} {}\n", e.device, e.access)).collect::<String>();
        assert_eq!(DevicePolicy::parse_list(&list).unwrap(), target);
        assert!(DevicePolicy::parse_list("a *:* rwm\n").unwrap().allows_everything());
        assert!(DevicePolicy::parse_list("c 1\n").is_err());
        assert!(DevicePolicy::parse_list("x 1:2 r\n").is_err());
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let error = policy(
            r#"[{"allow":true,"type":"c","major":5,"access":"rw"},
                {"allow":false,"type":"c","major":5,"minor":1,"access":"w"}]"#,
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "unable to remove 'allow' exception: requested rule [c 5:1 w] not supported by devices cgroupv1 \
             (cannot punch hole in existing wildcard rule [c 5:* rw])"
        );
    }

    #[test]
    fn malformed_rules_are_named() {
        let text = |json| policy(json).unwrap_err().to_string();
        assert_eq!(text(r#"[{"allow":true}]"#), "device access at 0 field cannot be empty");
        assert_eq!(text(r#"[{"allow":true,"type":"p","access":"r"}]"#), "invalid cgroup device type \"p\"");
        assert_eq!(
            text(r#"[{"allow":true,"type":"c","major":4294967296,"access":"r"}]"#),
            "device rule at 0: 4294967296 is not a device number"
        );
    }
}

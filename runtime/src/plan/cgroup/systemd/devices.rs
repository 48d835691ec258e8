//! The device policy as `DevicePolicy=` and `DeviceAllow=`.
//!
//! systemd can list what is allowed and nothing else. What it can't say is left to the policy that the cgroup gets after
//! it; what it can say stays in force when systemd puts its own policy into the cgroup again, as at a daemon-reload.

use super::super::DevicePolicy;
use super::super::devices::{DeviceKind, DeviceMatch, Exception, Verdict};
use super::{Property, SystemdFacts};
use crate::dbus::{Type, Value};

pub(super) fn properties(
    policy: &DevicePolicy,
    facts: &SystemdFacts,
    warnings: &mut Vec<String>,
) -> Vec<Property> {
    // First an empty list: what comes after it is added to what the unit has.
    let mut properties = vec![allow(Vec::new())];
    let strictness = if policy.allows_everything() { "auto" } else { "strict" };
    properties.push(Property::new("DevicePolicy", Value::text(strictness)));
    if policy.default == Verdict::Allow {
        if !policy.allows_everything() {
            warnings.push(
                "systemd has no device rules that allow all but some: it denies all until ours are in force"
                    .to_owned(),
            );
        }
        return properties;
    }
    let entries: Vec<Value> =
        policy.exceptions.iter().filter_map(|exception| entry(exception, facts, warnings)).collect();
    if !entries.is_empty() {
        properties.push(allow(entries));
    }
    properties
}

fn allow(entries: Vec<Value>) -> Property {
    let kind = Type::Struct(vec![Type::Text, Type::Text]);
    Property::new("DeviceAllow", Value::Array(kind, entries))
}

fn entry(exception: &Exception, facts: &SystemdFacts, warnings: &mut Vec<String>) -> Option<Value> {
    let DeviceMatch { kind, major, minor } = exception.device;
    let kind_name = match kind {
        DeviceKind::Block => "block",
        DeviceKind::Char => "char",
    };
    let path = match (major, minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind_name}/{major}:{minor}")),
        (None, None) => Some(format!("{kind_name}-*")),
        (Some(major), None) if SystemdFacts::needs_device_names(facts.version) => {
            group(&facts.devices, kind, major).map(|group| format!("{kind_name}-{group}"))
        }
        (Some(major), None) => Some(format!("{kind_name}-{major}")),
        (None, Some(_)) => None,
    };
    let Some(path) = path else {
        warnings.push(format!(
            "systemd has no device rule like {}: it denies it until ours is in force",
            exception.device
        ));
        return None;
    };
    Some(Value::Struct(vec![Value::text(path), Value::text(exception.access.to_string())]))
}

/// What `/proc/devices` calls the devices of a major number.
fn group(devices: &str, kind: DeviceKind, major: u32) -> Option<&str> {
    let title = match kind {
        DeviceKind::Block => "Block devices:",
        DeviceKind::Char => "Character devices:",
    };
    let section = devices.lines().skip_while(|line| *line != title).skip(1);
    section.take_while(|line| !line.is_empty()).find_map(|line| {
        let (number, name) = line.trim_start().split_once(' ')?;
        (number.parse() == Ok(major)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::devices::{DeviceRule, default_rules, rules};
    use super::*;

    fn made(json: &str, defaults: &[DeviceRule], version: u32) -> (Vec<String>, Vec<String>) {
        let rules = rules(&serde_json::from_str::<Vec<_>>(json).unwrap()).unwrap();
        let policy = DevicePolicy::from_rules(rules.iter().chain(defaults)).unwrap();
        let devices = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  1 ramdisk\n".to_owned();
        let facts = SystemdFacts { version, devices, ..SystemdFacts::default() };
        let mut warnings = Vec::new();
        let properties = properties(&policy, &facts, &mut warnings);
        (properties.iter().map(|it| format!("{}={}", it.name, it.value)).collect(), warnings)
    }

    #[test]
    fn the_defaults_are_all_sayable() {
        let (properties, warnings) = made("[]", &default_rules(&[]), 252);
        assert_eq!(properties[..2], ["DeviceAllow=@a(ss) []", "DevicePolicy='strict'"]);
        for rule in ["('char-*', 'm')", "('block-*', 'm')", "('/dev/char/1:3', 'rwm')", "('char-136', 'rwm')"]
        {
            assert!(properties[2].contains(rule), "{}", properties[2]);
        }
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn old_versions_know_groups_by_name() {
        let json = r#"[{"allow":true,"type":"c","major":136,"access":"rw"},{"allow":true,"type":"b","major":1,"access":"r"}]"#;
        let (properties, warnings) = made(json, &[], 239);
        assert_eq!(properties[2], "DeviceAllow=[('block-ramdisk', 'r'), ('char-pts', 'rw')]");
        assert!(warnings.is_empty(), "{warnings:?}");
        let (properties, warnings) = made(r#"[{"allow":true,"type":"c","major":7,"access":"rw"}]"#, &[], 239);
        assert_eq!((properties.len(), warnings.len()), (2, 1));
    }

    #[test]
    fn what_systemd_can_not_say() {
        let (properties, warnings) = made(r#"[{"allow":true,"access":"rwm"}]"#, &[], 252);
        assert_eq!(properties, ["DeviceAllow=@a(ss) []", "DevicePolicy='auto'"]);
        assert!(warnings.is_empty());
        let all_but_one =
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#;
        let (properties, warnings) = made(all_but_one, &[], 252);
        assert_eq!(properties, ["DeviceAllow=@a(ss) []", "DevicePolicy='strict'"]);
        assert_eq!(warnings.len(), 1);
        let any_major = r#"[{"allow":true,"type":"c","minor":3,"access":"w"}]"#;
        assert_eq!(made(any_major, &[], 252).1.len(), 1);
    }
}

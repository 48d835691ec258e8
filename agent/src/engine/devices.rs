//! Devices of the host that a container is given: `--device`, `--device-cgroup-rule`, all of them for a privileged one.

use std::path::Path;

use ketch_engine_api::host_config::HostConfig;
use rustix::fs::FileType;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::paths::clean;

/// `linux.devices` and the rules that go with them.
#[derive(Debug, Default)]
pub struct Devices {
    /// To be made.
    pub devices: Vec<Value>,
    /// To be allowed.
    pub rules: Vec<Value>,
}

/// What the runtime makes itself, and what belongs to one terminal or container.
const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts"];

/// Looks the devices up.
///
/// # Errors
/// A path that is no device, a rule that is none: dockerd's texts.
pub fn of(host_config: &HostConfig) -> Result<Devices> {
    let mut found = Devices::default();
    if host_config.privileged {
        walk(Path::new("/dev"), "/dev", &mut |path, place| {
            if let Some((device, _)) = device(path, place, "rwm") {
                found.devices.push(device);
            }
        });
    }
    for mapping in host_config.resources.devices.iter().flatten() {
        let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
        let source = clean(&mapping.path_on_host);
        let place = if mapping.path_in_container.is_empty() { &source } else { &mapping.path_in_container };
        add(&mut found, Path::new(&source), place, access)?;
    }
    for rule in host_config.resources.device_cgroup_rules.iter().flatten() {
        found.rules.push(parse_rule(rule)?);
    }
    Ok(found)
}

fn add(found: &mut Devices, source: &Path, place: &str, access: &str) -> Result<()> {
    let missing = |why: &str| {
        Error::new(
            crate::error::Kind::Internal,
            format!(
                "error gathering device information while adding custom device {:?}: {why}",
                source.display().to_string()
            ),
        )
    };
    let stat = rustix::fs::stat(source).map_err(|_| missing("no such file or directory"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let before = found.devices.len();
        walk(source, place, &mut |path, place| {
            if let Some((device, rule)) = device(path, place, access) {
                found.devices.push(device);
                found.rules.push(rule);
            }
        });
        return if found.devices.len() > before { Ok(()) } else { Err(missing("not a device node")) };
    }
    let (device, rule) = device(source, place, access).ok_or_else(|| missing("not a device node"))?;
    found.devices.retain(|one| one["path"] != device["path"]);
    found.devices.push(device);
    found.rules.push(rule);
    Ok(())
}

fn device(path: &Path, place: &str, access: &str) -> Option<(Value, Value)> {
    let stat = rustix::fs::stat(path).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let device = json!({
        "path": place, "type": kind, "major": major, "minor": minor,
        "fileMode": stat.st_mode & 0o7777, "uid": stat.st_uid, "gid": stat.st_gid,
    });
    let rule = json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access });
    Some((device, rule))
}

fn walk(folder: &Path, place: &str, each: &mut impl FnMut(&Path, &str)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let place = format!("{}/{name}", place.trim_end_matches('/'));
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if !OWN.contains(&name.as_str()) {
                walk(&entry.path(), &place, each);
            }
        } else if !kind.is_symlink() && name != "console" {
            each(&entry.path(), &place);
        }
    }
}

/// `c 1:3 rwm`, with `*` for a number.
///
/// # Errors
/// It is none: dockerd's text.
pub fn parse_rule(text: &str) -> Result<Value> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let words: Vec<_> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else { return Err(invalid()) };
    let is_access = (1..=3).contains(&access.len()) && access.bytes().all(|byte| b"rwm".contains(&byte));
    let (major, minor) = numbers.split_once(':').filter(|_| is_access).ok_or_else(invalid)?;
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    for (key, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[key] = number.parse::<u32>().map_err(|_| invalid())?.into();
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_engine_api::host_config::DeviceMapping;

    #[test]
    fn rules() {
        let rule = parse_rule("c 1:* rw").unwrap();
        assert_eq!(rule, json!({"allow": true, "type": "c", "access": "rw", "major": 1}));
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rwmr"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_is_looked_up() {
        let mut host_config = HostConfig::default();
        let mapping = DeviceMapping {
            path_on_host: "/dev/null".into(),
            path_in_container: "/dev/x".into(),
            ..DeviceMapping::default()
        };
        host_config.resources.devices = Some(vec![mapping]);
        let found = of(&host_config).unwrap();
        assert_eq!((&found.devices[0]["path"], &found.rules[0]["minor"]), (&json!("/dev/x"), &json!(3)));
        host_config.resources.devices.as_mut().unwrap()[0].path_on_host = "/nowhere".into();
        assert!(of(&host_config).unwrap_err().message.contains("no such file or directory"));
    }
}

//! The configuration that the `spec` command writes: the same as runc's, so that what people build on it works here.
//! Called by `bundle`.

use super::resources::{DeviceCgroup, Resources};
use super::{Capabilities, IdMapping, Linux, Mount, Namespace, NamespaceType, Process, Rlimit, Root, Spec};

/// The runtime-spec version that this runtime carries out.
pub const OCI_VERSION: &str = "1.3.0";

/// runc's starting configuration. A cgroup namespace is asked for only where the host's cgroups are all version 2.
#[must_use]
pub fn example(unified_cgroup: bool) -> Spec {
    let mut kinds = vec![
        NamespaceType::Pid,
        NamespaceType::Network,
        NamespaceType::Ipc,
        NamespaceType::Uts,
        NamespaceType::Mount,
    ];
    if unified_cgroup {
        kinds.push(NamespaceType::Cgroup);
    }
    Spec {
        oci_version: OCI_VERSION.to_owned(),
        process: Some(process()),
        root: Some(Root { path: "rootfs".to_owned(), readonly: true }),
        hostname: "runc".to_owned(),
        mounts: mounts(),
        linux: Some(Linux {
            resources: Some(Resources {
                devices: vec![DeviceCgroup { access: "rwm".to_owned(), ..DeviceCgroup::default() }],
                ..Resources::default()
            }),
            namespaces: kinds.into_iter().map(new_namespace).collect(),
            masked_paths: texts(&[
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ]),
            readonly_paths: texts(&[
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

/// Turns a configuration into one that a user without privileges can run: a user namespace that maps the caller, the
/// host's network and /sys, no limits.
#[must_use]
pub fn to_rootless(mut spec: Spec, uid: u32, gid: u32) -> Spec {
    let mut linux = spec.linux.take().unwrap_or_default();
    linux.namespaces.retain(|namespace| {
        !matches!(namespace.namespace_type(), Some(NamespaceType::Network | NamespaceType::User))
    });
    linux.namespaces.push(new_namespace(NamespaceType::User));
    linux.uid_mappings = vec![IdMapping { container_id: 0, host_id: uid, size: 1 }];
    linux.gid_mappings = vec![IdMapping { container_id: 0, host_id: gid, size: 1 }];
    linux.resources = None;
    spec.linux = Some(linux);
    for entry in &mut spec.mounts {
        if entry.destination == "/sys" {
            // A new sysfs needs a network namespace of one's own.
            *entry = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        } else {
            entry.options.retain(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
        }
    }
    spec
}

impl Spec {
    /// The configuration as the `spec` command writes it: indented by tabs, without a newline at the end.
    ///
    /// # Errors
    /// None that a [`Spec`] can cause; serde_json's are passed on.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        use serde::Serialize;
        let mut json = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        self.serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))?;
        Ok(json)
    }
}

fn process() -> Process {
    let capabilities = texts(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Process {
        terminal: true,
        args: texts(&["sh"]),
        env: texts(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
        cwd: "/".to_owned(),
        capabilities: Some(Capabilities {
            bounding: capabilities.clone(),
            effective: capabilities.clone(),
            permitted: capabilities,
            ..Capabilities::default()
        }),
        rlimits: vec![Rlimit { kind: "RLIMIT_NOFILE".to_owned(), hard: 1024, soft: 1024 }],
        no_new_privileges: true,
        ..Process::default()
    }
}

fn mounts() -> Vec<Mount> {
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: texts(options),
        ..Mount::default()
    }
}

fn new_namespace(kind: NamespaceType) -> Namespace {
    Namespace { kind: kind.name().to_owned(), path: String::new() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_runcs_form() {
        let json = String::from_utf8(example(true).to_json().unwrap()).unwrap();
        let head = "{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,\n\t\t\"user\": {\n\t\t\t\"uid\": 0,\n\t\t\t\"gid\": 0\n\t\t},";
        assert!(json.starts_with(head), "{json}");
        assert!(json.ends_with("\t\t]\n\t}\n}"));
        let rule = "\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]";
        assert!(json.contains(rule), "{json}");
        assert_eq!(Spec::from_slice(json.as_bytes()).unwrap(), example(true));
    }

    #[test]
    fn a_rootless_one_asks_for_nothing_that_needs_root() {
        let spec = to_rootless(example(false), 1000, 100);
        let linux = spec.linux.unwrap();
        assert!(linux.namespace(NamespaceType::Network).is_none());
        assert!(linux.namespace(NamespaceType::User).is_some());
        assert_eq!(linux.uid_mappings, [IdMapping { container_id: 0, host_id: 1000, size: 1 }]);
        assert_eq!(linux.gid_mappings, [IdMapping { container_id: 0, host_id: 100, size: 1 }]);
        assert_eq!(linux.resources, None);
        assert!(spec.mounts.iter().all(|mount| mount.options.iter().all(|option| option != "gid=5")));
        assert_eq!(spec.mounts[5].source, "/sys");
    }
}

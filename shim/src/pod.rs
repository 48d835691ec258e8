//! What a pod is to have of its own, as CRI says it, and how its containers get it: their config.json is sent to the namespaces
//! that are kept for the pod ([`crate::namespaces`]).

use std::collections::BTreeMap;
use std::path::Path;

use ketch_shim_api::cri::{IdMapping, NamespaceMode, NamespaceOption, PodSandboxConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ShimError;
use crate::namespaces::Namespaces;
use crate::sandbox::Record;
use crate::users::{Mappings, Range};

/// What a pod is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    hostname: String,
    pub(crate) cgroup_parent: String,
    sysctls: BTreeMap<String, String>,
    /// A network namespace that containerd has made and keeps.
    pub(crate) netns_path: String,
    pub(crate) own_network: bool,
    pub(crate) own_ipc: bool,
    /// Of a user namespace of its own.
    pub(crate) users: Option<Mappings>,
}

impl Pod {
    /// Reads CRI's configuration of a pod. `netns_path` is the network that containerd has set up for it.
    ///
    /// # Errors
    /// Its user namespace is neither the host's nor its own, or has ids that none can have.
    pub(crate) fn new(config: &PodSandboxConfig, netns_path: &str) -> Result<Self, ShimError> {
        let linux = config.linux.clone().unwrap_or_default();
        let options = linux.security_context.and_then(|context| context.namespace_options);
        let host = |mode: fn(&NamespaceOption) -> i32| {
            options.as_ref().is_some_and(|options| mode(options) == NamespaceMode::Node as i32)
        };
        let users = options.as_ref().and_then(|options| options.userns_options.as_ref());
        let users = match users.map(|users| (users.mode, users)) {
            Some((mode, users)) if mode == NamespaceMode::Pod as i32 => {
                let mappings = Mappings::new(ranges(&users.uids), ranges(&users.gids));
                Some(
                    mappings
                        .map_err(|words| ShimError::Invalid(format!("the pod's user namespace: {words}")))?,
                )
            }
            Some((mode, _)) if mode != NamespaceMode::Node as i32 => {
                return Err(ShimError::Unimplemented(format!("a user namespace of mode {mode}")));
            }
            _ => None,
        };
        Ok(Self {
            hostname: config.hostname.clone(),
            cgroup_parent: linux.cgroup_parent,
            sysctls: linux.sysctls,
            netns_path: netns_path.to_owned(),
            own_network: !netns_path.is_empty() || !host(|options| options.network),
            own_ipc: !host(|options| options.ipc),
            users,
        })
    }

    /// The configuration of the container that makes the namespaces, in the user namespace at `users`: no program, no
    /// capabilities, and no mount but the one that runc 1.1 can't do without.
    pub(crate) fn maker(&self, id: &str, root: &Path, users: Option<&str>) -> Value {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "pid"})];
        if let Some(path) = users {
            namespaces.push(json!({"type": "user", "path": path}));
        }
        if self.own_network {
            namespaces.push(match self.netns_path.as_str() {
                "" => json!({"type": "network"}),
                path => json!({"type": "network", "path": path}),
            });
            // A pod on the host's network has the host's name, too.
            namespaces.push(json!({"type": "uts"}));
        }
        if self.own_ipc {
            namespaces.push(json!({"type": "ipc"}));
        }
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/none"], "cwd": "/", "noNewPrivileges": true},
            "root": {"path": root, "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": namespaces,
                "sysctl": self.sysctls,
                "cgroupsPath": format!("/ketch-sandbox-{id}"),
            },
        });
        if let Some(mappings) = &self.users {
            // The namespace has them; runc 1.1 wants to hear them, and others that they are the same.
            (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = mappings.in_spec();
        }
        if self.own_network && !self.hostname.is_empty() {
            config["hostname"] = self.hostname.clone().into();
        }
        config
    }
}

fn ranges(mappings: &[IdMapping]) -> Vec<Range> {
    let range =
        |one: &IdMapping| Range { inside: one.container_id, outside: one.host_id, length: one.length };
    mappings.iter().map(range).collect()
}

/// Sends a container of the pod, which names the namespaces of the shim's process or asks for new ones, to the kept ones:
/// rewrites its config.json. A kind that is not kept is the host's, and the shim's own.
///
/// # Errors
/// The file can't be read or written, or asks for the pod's process ids, of which there are none, or for a user
/// namespace that it has not.
pub(crate) fn redirect(bundle: &Path, sandbox: &Record) -> Result<(), ShimError> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(ShimError::file("read", &path))?;
    let no_json = |source| ShimError::Json { path: path.clone(), source };
    let mut config: Value = serde_json::from_slice(&text).map_err(no_json)?;
    if redirect_in(&mut config, &sandbox.pids, &sandbox.namespaces)? {
        let text = serde_json::to_vec(&config).map_err(no_json)?;
        std::fs::write(&path, text).map_err(ShimError::file("write", &path))?;
    }
    Ok(())
}

fn redirect_in(config: &mut Value, shims: &[u32], kept: &Namespaces) -> Result<bool, ShimError> {
    let (mut changed, mut named) = (false, false);
    let namespaces = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten() {
        let kind = namespace["type"].as_str().unwrap_or_default().to_owned();
        let path = namespace["path"].as_str().unwrap_or_default();
        if path.is_empty() {
            // A pod is what shares these.
            if let Some(kept) = kept.path(&kind) {
                namespace["path"] = kept.into();
                named |= kind == "uts";
                changed = true;
            }
            continue;
        }
        let of_shim = path.strip_prefix("/proc/").and_then(|rest| rest.split_once("/ns/"));
        let Some((pid, _)) = of_shim else { continue };
        if !pid.parse().is_ok_and(|pid| shims.contains(&pid)) {
            continue;
        }
        namespace["path"] = match kept.path(&kind) {
            Some(path) => path.into(),
            None if kind == "pid" || kind == "user" => {
                return Err(ShimError::Precondition(format!(
                    "the sandbox has no {kind} namespace to share: use a sandboxer with a pause process"
                )));
            }
            // An older shim's number may be another's by now: the host's namespace is also this one's.
            None => path.replacen(pid, &std::process::id().to_string(), 1).into(),
        };
        changed = true;
    }
    if named && let Some(config) = config.as_object_mut() {
        // The pod has its name already.
        config.remove("hostname");
        config.remove("domainname");
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ketch_shim_api::cri::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext, UserNamespace};

    fn pod(options: NamespaceOption, netns_path: &str) -> Result<Pod, ShimError> {
        let context = LinuxSandboxSecurityContext { namespace_options: Some(options) };
        let linux =
            LinuxPodSandboxConfig { security_context: Some(context), ..LinuxPodSandboxConfig::default() };
        let config = PodSandboxConfig { hostname: "h".into(), linux: Some(linux) };
        Pod::new(&config, netns_path)
    }

    fn kinds(pod: &Pod) -> Vec<String> {
        let config = pod.maker("s", Path::new("/r"), None);
        let all = config["linux"]["namespaces"].as_array().unwrap();
        all.iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_pod_has_its_own_namespaces() {
        let pod = pod(NamespaceOption::default(), "/run/netns/x").unwrap();
        assert_eq!(kinds(&pod), ["mount", "pid", "network", "uts", "ipc"]);
        assert_eq!(pod.maker("s", Path::new("/r"), None)["linux"]["namespaces"][2]["path"], "/run/netns/x");
        assert_eq!(pod.maker("s", Path::new("/r"), None)["hostname"], "h");
    }

    #[test]
    fn a_pod_of_the_host_has_the_hosts() {
        let node = NamespaceMode::Node as i32;
        let pod =
            pod(NamespaceOption { network: node, ipc: node, ..NamespaceOption::default() }, "").unwrap();
        assert_eq!(kinds(&pod), ["mount", "pid"]);
        assert_eq!(pod.maker("s", Path::new("/r"), None).get("hostname"), None);
    }

    fn mapped(mode: NamespaceMode, length: u32) -> Result<Pod, ShimError> {
        let ids = vec![IdMapping { container_id: 0, host_id: 100_000, length }];
        let users = UserNamespace { mode: mode as i32, uids: ids.clone(), gids: ids };
        pod(NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() }, "")
    }

    #[test]
    fn a_user_namespace_comes_first() {
        let pod = mapped(NamespaceMode::Pod, 65536).unwrap();
        assert_eq!(pod.users, Some(Mappings::parse("0:100000:65536", "0:100000:65536").unwrap()));
        let config = pod.maker("s", Path::new("/r"), Some("/kept/user"));
        assert_eq!(config["linux"]["namespaces"][2], json!({"type": "user", "path": "/kept/user"}));
        let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        assert_eq!((&config["linux"]["uidMappings"], &config["linux"]["gidMappings"]), (&ids, &ids));
        assert_eq!(mapped(NamespaceMode::Node, 0).unwrap().users, None);
    }

    #[test]
    fn a_user_namespace_that_none_can_have_is_refused() {
        assert!(matches!(mapped(NamespaceMode::Pod, 0), Err(ShimError::Invalid(_))));
        assert!(matches!(mapped(NamespaceMode::Container, 1), Err(ShimError::Unimplemented(_))));
    }

    #[test]
    fn containers_are_sent_to_the_kept_namespaces() {
        let kept = Namespaces::of("ipc", "/b/ipc");
        let mut config = json!({"linux": {"namespaces": [
            {"type": "mount"},
            {"type": "ipc", "path": "/proc/7/ns/ipc"},
            {"type": "network", "path": "/proc/7/ns/net"},
            {"type": "uts", "path": "/proc/8/ns/uts"},
        ]}});
        assert!(redirect_in(&mut config, &[7], &kept).unwrap());
        let all = &config["linux"]["namespaces"];
        assert_eq!(all[1]["path"], "/b/ipc");
        assert_eq!(all[2]["path"], format!("/proc/{}/ns/net", std::process::id()));
        assert_eq!(all[3]["path"], "/proc/8/ns/uts", "another's");
        assert!(!redirect_in(&mut json!({}), &[7], &kept).unwrap());
    }

    #[test]
    fn a_new_namespace_of_a_kept_kind_is_the_pods() {
        let kept = Namespaces::of("uts", "/b/uts");
        let mut config =
            json!({"hostname": "x", "linux": {"namespaces": [{"type": "uts"}, {"type": "network"}]}});
        assert!(redirect_in(&mut config, &[7], &kept).unwrap());
        assert_eq!(
            config,
            json!({"linux": {"namespaces": [{"type": "uts", "path": "/b/uts"}, {"type": "network"}]}})
        );
    }

    #[test]
    fn there_are_no_process_ids_to_share() {
        let mut config = json!({"linux": {"namespaces": [{"type": "pid", "path": "/proc/7/ns/pid"}]}});
        assert!(redirect_in(&mut config, &[7], &Namespaces::default()).is_err());
    }
}

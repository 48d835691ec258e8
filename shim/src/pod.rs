//! A pod's namespaces without a process in them: the runtime creates a container that is never started, its namespaces are
//! bound to files of the bundle, and it is deleted. The files keep them until they are unmounted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ketch_runtime_client::{Create, Runtime, Stdio, read_pid_file};
use ketch_shim_api::cri::{NamespaceMode, NamespaceOption, PodSandboxConfig};
use rustix::fs::Mode;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::container::CLEANUP;
use crate::error::ShimError;
use crate::log;
use crate::sandbox::Record;
use crate::server::Limits;
use crate::service::Shim;

/// The folder of the kept namespaces in the bundle.
const FOLDER: &str = "namespaces";
/// The bundle of the container that makes them.
const MAKER: &str = "namespaces-maker";

/// What a pod is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    hostname: String,
    pub(crate) cgroup_parent: String,
    sysctls: BTreeMap<String, String>,
    /// A network namespace that containerd has made and keeps.
    netns_path: String,
    own_network: bool,
    own_ipc: bool,
}

/// Where a pod's namespaces are kept; absent ones are the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces(BTreeMap<String, String>);

impl Namespaces {
    /// Kinds, in the words of the runtime-spec, and their files.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(kind, path)| (kind.as_str(), path.as_str()))
    }
}

impl Pod {
    /// Reads CRI's configuration of a pod. `netns_path` is the network that containerd has set up for it.
    ///
    /// # Errors
    /// It asks for a user namespace of its own, which nobody would hold.
    pub(crate) fn new(config: &PodSandboxConfig, netns_path: &str) -> Result<Self, ShimError> {
        let linux = config.linux.clone().unwrap_or_default();
        let options = linux.security_context.and_then(|context| context.namespace_options);
        let host = |mode: fn(&NamespaceOption) -> i32| {
            options.as_ref().is_some_and(|options| mode(options) == NamespaceMode::Node as i32)
        };
        let users = options.as_ref().and_then(|options| options.userns_options.as_ref());
        if users.is_some_and(|users| users.mode != NamespaceMode::Node as i32) {
            return Err(ShimError::Unimplemented("a user namespace of a sandbox".into()));
        }
        Ok(Self {
            hostname: config.hostname.clone(),
            cgroup_parent: linux.cgroup_parent,
            sysctls: linux.sysctls,
            netns_path: netns_path.to_owned(),
            own_network: !netns_path.is_empty() || !host(|options| options.network),
            own_ipc: !host(|options| options.ipc),
        })
    }

    /// The configuration of the container that makes the namespaces: no program, no capabilities, and
    /// no mount but the one that runc 1.1 can't do without.
    fn maker(&self, id: &str) -> Value {
        let mut namespaces = vec![json!({"type": "mount"}), json!({"type": "pid"})];
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
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": namespaces,
                "sysctl": self.sysctls,
                "cgroupsPath": format!("/ketch-sandbox-{id}"),
            },
        });
        if self.own_network && !self.hostname.is_empty() {
            config["hostname"] = self.hostname.clone().into();
        }
        config
    }
}

/// Makes a pod's namespaces, and keeps them.
///
/// # Errors
/// The runtime fails, or a namespace can't be bound. Nothing is left then.
pub(crate) async fn make(
    shim: &Shim,
    runtime: &Runtime,
    bundle: &Path,
    id: &str,
    pod: &Pod,
    limits: Limits,
) -> Result<Namespaces, ShimError> {
    let maker = bundle.join(MAKER);
    let root = maker.join("rootfs");
    std::fs::DirBuilder::new().recursive(true).create(&root).map_err(ShimError::file("make", &root))?;
    // Runtimes look for the program when they create, and this one is never started.
    let program = root.join("none");
    std::fs::write(&program, "").map_err(ShimError::file("make", &program))?;
    rustix::fs::chmod(&program, Mode::from_raw_mode(0o755))
        .map_err(|error| ShimError::file("make", &program)(error.into()))?;
    let config = maker.join("config.json");
    std::fs::write(&config, pod.maker(id).to_string()).map_err(ShimError::file("write", &config))?;
    let pid_file = maker.join("pid");
    let name = format!("{id}-namespaces");
    // Whatever systemd would name is not worth a unit for these few milliseconds.
    let runtime = Runtime { systemd_cgroup: false, ..runtime.clone() };
    let create = Create {
        bundle: &maker,
        pid_file: &pid_file,
        console_socket: None,
        no_pivot: false,
        no_new_keyring: true,
        stdio: Stdio::default(),
    };
    let created = runtime.create(shim.reaper.as_ref(), &name, create, limits.runtime()).await;
    let kept = match created {
        Ok(()) => keep(bundle, &pid_file, pod),
        Err(error) => Err(ShimError::runtime("make the sandbox's namespaces")(error)),
    };
    let deleted = runtime.delete(shim.reaper.as_ref(), &name, true, CLEANUP).await;
    if let Err(error) = deleted
        && !error.is_no_container()
    {
        log::warn(&format!("delete {name}: {}", error.words()));
    }
    let _gone = std::fs::remove_dir_all(&maker);
    kept.inspect_err(|_| unmake(bundle))
}

fn keep(bundle: &Path, pid_file: &Path, pod: &Pod) -> Result<Namespaces, ShimError> {
    let pid = read_pid_file(pid_file).map_err(ShimError::runtime("make the sandbox's namespaces"))?;
    let folder = bundle.join(FOLDER);
    std::fs::DirBuilder::new().recursive(true).create(&folder).map_err(ShimError::file("make", &folder))?;
    let mut kept = Namespaces::default();
    for (kind, name, wanted) in
        [("network", "net", pod.own_network), ("uts", "uts", pod.own_network), ("ipc", "ipc", pod.own_ipc)]
    {
        if !wanted {
            continue;
        }
        let path = if kind == "network" && !pod.netns_path.is_empty() {
            PathBuf::from(&pod.netns_path)
        } else {
            let path = folder.join(kind);
            std::fs::write(&path, "").map_err(ShimError::file("make", &path))?;
            mount_bind(format!("/proc/{pid}/ns/{name}"), &path)
                .map_err(|error| ShimError::file("keep the namespace at", &path)(error.into()))?;
            path
        };
        kept.0.insert(kind.to_owned(), path.to_string_lossy().into_owned());
    }
    Ok(kept)
}

/// Lets a pod's namespaces go. Those that a container still has live as long as it does.
pub(crate) fn unmake(bundle: &Path) {
    let folder = bundle.join(FOLDER);
    for file in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let _not_mounted = unmount(file.path(), UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        let _gone = std::fs::remove_file(file.path());
    }
    let _gone = std::fs::remove_dir(&folder);
}

/// Sends a container of the pod, which names the namespaces of the shim's process or asks for new ones, to the kept ones:
/// rewrites its config.json. A kind that is not kept is the host's, and the shim's own.
///
/// # Errors
/// The file can't be read or written, or asks for the pod's process ids, of which there are none.
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
            if let Some(kept) = kept.0.get(&kind) {
                namespace["path"] = kept.clone().into();
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
        if kind == "pid" || kind == "user" {
            return Err(ShimError::Precondition(format!(
                "the sandbox has no process: its {kind} namespace can't be shared; use a sandboxer with a pause process"
            )));
        }
        namespace["path"] = match kept.0.get(&kind) {
            Some(path) => path.clone().into(),
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
    use ketch_shim_api::cri::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext};

    fn pod(options: NamespaceOption, netns_path: &str) -> Result<Pod, ShimError> {
        let context = LinuxSandboxSecurityContext { namespace_options: Some(options) };
        let linux =
            LinuxPodSandboxConfig { security_context: Some(context), ..LinuxPodSandboxConfig::default() };
        let config = PodSandboxConfig { hostname: "h".into(), linux: Some(linux) };
        Pod::new(&config, netns_path)
    }

    fn kinds(pod: &Pod) -> Vec<String> {
        let config = pod.maker("s");
        let all = config["linux"]["namespaces"].as_array().unwrap();
        all.iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_pod_has_its_own_namespaces() {
        let pod = pod(NamespaceOption::default(), "/run/netns/x").unwrap();
        assert_eq!(kinds(&pod), ["mount", "pid", "network", "uts", "ipc"]);
        assert_eq!(pod.maker("s")["linux"]["namespaces"][2]["path"], "/run/netns/x");
        assert_eq!(pod.maker("s")["hostname"], "h");
    }

    #[test]
    fn a_pod_of_the_host_has_the_hosts() {
        let node = NamespaceMode::Node as i32;
        let pod =
            pod(NamespaceOption { network: node, ipc: node, ..NamespaceOption::default() }, "").unwrap();
        assert_eq!(kinds(&pod), ["mount", "pid"]);
        assert_eq!(pod.maker("s").get("hostname"), None);
    }

    #[test]
    fn a_user_namespace_has_nobody_to_hold_it() {
        let users = ketch_shim_api::cri::UserNamespace { mode: NamespaceMode::Pod as i32 };
        let options = NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() };
        assert!(matches!(pod(options, ""), Err(ShimError::Unimplemented(_))));
    }

    #[test]
    fn containers_are_sent_to_the_kept_namespaces() {
        let kept = Namespaces([("ipc".to_owned(), "/b/ipc".to_owned())].into());
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
        let kept = Namespaces([("uts".to_owned(), "/b/uts".to_owned())].into());
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

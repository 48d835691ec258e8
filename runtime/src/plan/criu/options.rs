//! The options of one request, as plain data. Field names are those of criu's own command line where it has one.

use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::spec::NamespaceType;

/// A flag that can't be understood. Texts are runc's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CriuFlagError {
    /// `--manage-cgroups-mode`.
    #[error("invalid manage-cgroups-mode value {0:?}: it is soft, full, strict or ignore")]
    CgroupsMode(String),
    /// `--page-server`, in its form.
    #[error("Use --page-server ADDRESS:PORT to specify page server")]
    PageServer,
    /// `--page-server`, in its port.
    #[error("Invalid port number {0:?}")]
    Port(String),
    /// `--empty-ns`.
    #[error("namespace {0:?} is not supported")]
    EmptyNamespace(String),
}

/// What becomes of cgroups and their settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    /// criu's own choice: as `soft`.
    #[default]
    Default,
    /// Cgroups that the restore makes get their settings; those that are there are left alone.
    Soft,
    /// Every cgroup gets its settings.
    Full,
    /// A restore makes all cgroups, and fails where one exists.
    Strict,
    /// They are the caller's, that is, this runtime's.
    Ignore,
}

impl CgroupsMode {
    /// The mode of `--manage-cgroups-mode`; none without a value.
    ///
    /// # Errors
    /// [`CriuFlagError::CgroupsMode`].
    pub fn parse(value: Option<&str>) -> Result<Self, CriuFlagError> {
        match value.unwrap_or_default() {
            "" => Ok(Self::Default),
            "soft" => Ok(Self::Soft),
            "full" => Ok(Self::Full),
            "strict" => Ok(Self::Strict),
            "ignore" => Ok(Self::Ignore),
            other => Err(CriuFlagError::CgroupsMode(other.to_owned())),
        }
    }
}

/// Where memory pages go instead of to the folder of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServer {
    /// An address; criu looks no name up.
    pub address: String,
    /// A TCP port.
    pub port: u16,
}

impl PageServer {
    /// The server of `--page-server ADDRESS:PORT`, an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`CriuFlagError::PageServer`] and [`CriuFlagError::Port`].
    pub fn parse(value: &str) -> Result<Self, CriuFlagError> {
        let (address, port) = value.rsplit_once(':').ok_or(CriuFlagError::PageServer)?;
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
        let is_ipv6 = |address: &str| matches!(address.parse(), Ok(IpAddr::V6(_)));
        if address.is_empty() || port.is_empty() || (bare.is_none() && address.contains(':')) {
            return Err(CriuFlagError::PageServer);
        }
        if bare.is_some_and(|address| !is_ipv6(address)) {
            return Err(CriuFlagError::PageServer);
        }
        let number = port.parse().ok().filter(|port| *port != 0);
        let port = number.ok_or_else(|| CriuFlagError::Port(port.to_owned()))?;
        Ok(Self { address: bare.unwrap_or(address).to_owned(), port })
    }
}

/// Checks the values of `--empty-ns`. The network is the only one, and is always left out: its devices and addresses are
/// those of whoever set them up, and will set them up again.
///
/// # Errors
/// [`CriuFlagError::EmptyNamespace`].
pub fn empty_namespaces(names: &[String]) -> Result<(), CriuFlagError> {
    match names.iter().find(|name| *name != "network") {
        Some(name) => Err(CriuFlagError::EmptyNamespace(name.clone())),
        None => Ok(()),
    }
}

/// What a checkpoint and its restore have to agree on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedFlags {
    /// Open TCP connections are taken along.
    pub tcp_established: bool,
    /// Unix sockets may have their other end outside.
    pub ext_unix_sk: bool,
    /// The processes may belong to a session of outside.
    pub shell_job: bool,
    /// File locks are taken along.
    pub file_locks: bool,
    /// Pages that a later image has as well are punched out of the earlier one.
    pub auto_dedup: bool,
    /// Pages stay where they are until they are touched.
    pub lazy_pages: bool,
    /// Cgroups.
    pub cgroups_mode: CgroupsMode,
}

/// What becomes of the processes after they were saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Final {
    /// They end.
    Killed,
    /// They run on.
    Running,
}

/// A descriptor that criu is started with and puts in the place of one that the images know as `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// `pipe:[4711]`, or the name of a namespace.
    pub key: String,
    /// Its number in criu.
    pub fd: i32,
}

/// A namespace that the restored processes join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedNamespace {
    /// The kernel's name of its kind: `ipc`.
    pub kind: &'static str,
    /// Its file.
    pub path: PathBuf,
}

/// What criu does with the devices, addresses and rules of the network: they are never its own to save or to make, but those
/// of whoever set them up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkContents {
    /// It leaves them out, and locks the network on its own.
    #[default]
    Empty,
    /// It finds the network as it left it, locked.
    AsItIs,
}

/// Everything that criu is told but for the folders, which go by descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CriuOptions {
    /// In both directions.
    pub shared: SharedFlags,
    /// Of the network.
    pub network: NetworkContents,
    /// The log in the work folder.
    pub log_file: &'static str,
    /// The root of the container; for a restore a mount point.
    pub root: PathBuf,
    /// Of mounts: what the image calls them, and what that stands for. At a checkpoint the mount point comes first and
    /// its name in the image second; at a restore that name first, and then the path to bind.
    pub mounts: Vec<(String, String)>,
    /// Other things of the host: `net[4711]:name`.
    pub external: Vec<String>,
    /// A file whose settings go over these.
    pub config_file: Option<String>,
    /// The process to save.
    pub pid: Option<i32>,
    /// Whether it runs on.
    pub leave_running: bool,
    /// Connections that are being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Files that were deleted while open get a name for as long.
    pub link_remap: bool,
    /// The freezer that stops the processes.
    pub freeze_cgroup: Option<String>,
    /// Where pages go.
    pub page_server: Option<PageServer>,
    /// Earlier images, relative to the folder of these.
    pub parent_image: Option<String>,
    /// For a restore: devices may be opened by another path than before.
    pub evasive_devices: bool,
    /// For a restore: the first process becomes a child of this one.
    pub sibling: bool,
    /// The container's cgroup in each hierarchy, by controllers.
    pub cgroup_roots: Vec<(String, String)>,
    /// Descriptors for what the images only name.
    pub inherited: Vec<Inherited>,
    /// Namespaces to join.
    pub joined: Vec<JoinedNamespace>,
    /// `apparmor:NAME` or `selinux:LABEL`.
    pub lsm_profile: Option<String>,
    /// SELinux context of the mounts.
    pub lsm_mount_context: Option<String>,
}

/// What criu is told of a namespace that is not the container's own, but was there before it: by its inode.
#[must_use]
pub fn external_namespace(kind: NamespaceType, inode: u64) -> String {
    format!("{}[{inode}]:{}", kind.proc_name(), namespace_key(kind))
}

/// The name of such a namespace in the images: runc's.
#[must_use]
pub fn namespace_key(kind: NamespaceType) -> &'static str {
    match kind {
        NamespaceType::Cgroup => "extRootCgroupNS",
        NamespaceType::Ipc => "extRootIpcNS",
        NamespaceType::Mount => "extRootMntNS",
        NamespaceType::Network => "extRootNetNS",
        NamespaceType::Pid => "extRootPidNS",
        NamespaceType::Time => "extRootTimeNS",
        NamespaceType::User => "extRootUserNS",
        NamespaceType::Uts => "extRootUtsNS",
    }
}

/// The annotation that names criu's configuration file for a container.
pub const CONFIG_ANNOTATION: &str = "org.criu.config";
/// The file without that annotation: runc's, so that what an administrator has set there stays in force.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";

impl CriuOptions {
    /// criu's configuration file by the container's annotations: one that is empty stands for none.
    #[must_use]
    pub fn config_file<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<String> {
        let named = annotations.into_iter().find(|(key, _)| *key == CONFIG_ANNOTATION);
        let file = named.map_or(CONFIG_FILE, |(_, file)| file);
        (!file.is_empty()).then(|| file.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_criu() {
        assert_eq!(CgroupsMode::parse(None), Ok(CgroupsMode::Default));
        assert_eq!(CgroupsMode::parse(Some("")), Ok(CgroupsMode::Default));
        assert_eq!(CgroupsMode::parse(Some("ignore")), Ok(CgroupsMode::Ignore));
        let error = CgroupsMode::parse(Some("Soft")).unwrap_err().to_string();
        assert!(error.starts_with("invalid manage-cgroups-mode value"), "{error}");
    }

    #[test]
    fn page_servers_have_an_address_and_a_port() {
        let server = |address: &str, port| Ok(PageServer { address: address.to_owned(), port });
        assert_eq!(PageServer::parse("0.0.0.0:27277"), server("0.0.0.0", 27277));
        assert_eq!(PageServer::parse("[::1]:1"), server("::1", 1));
        for bad in ["", "1234", ":1", "host:", "::1:80", "[host]:1", "[::1]"] {
            assert_eq!(PageServer::parse(bad), Err(CriuFlagError::PageServer), "{bad}");
        }
        for port in ["0", "65536", "x", "-1"] {
            assert!(matches!(PageServer::parse(&format!("h:{port}")), Err(CriuFlagError::Port(_))), "{port}");
        }
    }

    #[test]
    fn the_network_alone_can_be_empty() {
        assert_eq!(empty_namespaces(&["network".to_owned()]), Ok(()));
        let error = empty_namespaces(&["network".to_owned(), "pid".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "namespace \"pid\" is not supported");
    }

    #[test]
    fn an_annotation_names_the_configuration() {
        assert_eq!(CriuOptions::config_file([]), Some("/etc/criu/runc.conf".to_owned()));
        assert_eq!(CriuOptions::config_file([("org.criu.config", "/x")]), Some("/x".to_owned()));
        assert_eq!(CriuOptions::config_file([("org.criu.config", ""), ("a", "b")]), None);
    }
}

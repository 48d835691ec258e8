//! What the checks must know of the host about one configuration: does the rootfs exist, is the network namespace to
//! join our own, which ids does the user namespace to join have.
//!
//! All looking happens here, and only looking; the checks themselves are pure. Called by [`super::validate`].

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use ketch_sys::error::{Errno, errno_text};

use crate::mountinfo::unescape;

use super::user_namespace::{self, IdMappings};
use super::{NamespaceType, Spec};

/// What was seen. The default is a host on which nothing is missing.
#[derive(Clone, Debug)]
pub struct SpecFacts {
    /// The root filesystem.
    pub rootfs: RootfsFact,
    /// Kinds of namespaces that the configuration asks for and this kernel lacks.
    pub missing_namespaces: Vec<NamespaceType>,
    /// Whether the network namespace to join is the runtime's own; the kernel's words when it can't be looked at.
    pub joins_own_network: Result<bool, String>,
    /// The ids of the user namespace to join, or why they can't be had; `None` when none is joined.
    pub joined_mappings: Option<Result<IdMappings, String>>,
    /// Whether SELinux is enabled; looked up only for configurations with a label.
    pub selinux: bool,
    /// Intel RDT; looked up only for configurations that ask for it.
    pub intel_rdt: IntelRdtFact,
}

/// What the path of the root filesystem leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootfsFact {
    /// Something that exists, without a symbolic link on the way.
    Exists,
    /// Nothing; the kernel's words.
    Missing(String),
    /// Something behind a symbolic link.
    Symlink,
}

/// What resctrl offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelRdtFact {
    /// Where resctrl is mounted.
    pub mountpoint: Option<PathBuf>,
    /// Cache allocation.
    pub cache_allocation: bool,
    /// Memory bandwidth allocation.
    pub memory_bandwidth_allocation: bool,
}

impl Default for SpecFacts {
    fn default() -> Self {
        Self {
            rootfs: RootfsFact::Exists,
            missing_namespaces: Vec::new(),
            joins_own_network: Ok(false),
            joined_mappings: None,
            selinux: true,
            intel_rdt: IntelRdtFact {
                mountpoint: Some(PathBuf::from("/sys/fs/resctrl")),
                cache_allocation: true,
                memory_bandwidth_allocation: true,
            },
        }
    }
}

impl SpecFacts {
    /// Looks at the host for what `spec` needs.
    #[must_use]
    pub fn gather(spec: &Spec, bundle: &Path) -> Self {
        let rootfs = match &spec.root {
            Some(root) => look_at_rootfs(&rootfs_path(bundle, &root.path)),
            None => RootfsFact::Exists,
        };
        let mut facts = Self { rootfs, ..Self::default() };
        let process_label = spec.process.as_ref().is_some_and(|process| !process.selinux_label.is_empty());
        facts.selinux = process_label && selinux_enabled();
        let Some(linux) = &spec.linux else { return facts };
        for (kind, file) in [
            (NamespaceType::User, "/proc/self/ns/user"),
            (NamespaceType::Cgroup, "/proc/self/ns/cgroup"),
            (NamespaceType::Time, "/proc/self/timens_offsets"),
        ] {
            if linux.namespace(kind).is_some() && matches!(Path::new(file).try_exists(), Ok(false)) {
                facts.missing_namespaces.push(kind);
            }
        }
        let join_path = |kind| linux.namespace(kind).and_then(|namespace| namespace.join_path());
        if let Some(path) = join_path(NamespaceType::Network) {
            facts.joins_own_network = same_file(Path::new(path), Path::new("/proc/self/ns/net"));
        }
        if let Some(path) = join_path(NamespaceType::User) {
            facts.joined_mappings =
                Some(user_namespace::mappings(Path::new(path)).map_err(|error| error.to_string()));
        }
        if linux.intel_rdt.is_some() {
            facts.intel_rdt = IntelRdtFact::look();
        }
        facts
    }
}

/// The absolute path of the root filesystem, without `.`, `..` and doubled slashes; by text alone, as runc does it.
#[must_use]
pub fn rootfs_path(bundle: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in bundle.join(path).components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

fn look_at_rootfs(path: &Path) -> RootfsFact {
    match fs::canonicalize(path) {
        Err(error) => RootfsFact::Missing(text_of(&error)),
        Ok(real) if real == path => RootfsFact::Exists,
        Ok(_) => RootfsFact::Symlink,
    }
}

fn same_file(a: &Path, b: &Path) -> Result<bool, String> {
    let identity =
        |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).map_err(|error| text_of(&error));
    Ok(identity(a)? == identity(b)?)
}

/// As libselinux: the filesystem is there where everybody mounts it. Also used for `exec`.
pub(super) fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

impl IntelRdtFact {
    /// Looks for resctrl among this process's mounts.
    #[must_use]
    pub fn look() -> Self {
        let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let Some(mountpoint) = resctrl_mount(&String::from_utf8_lossy(&mounts)) else {
            return Self::default();
        };
        let info = mountpoint.join("info");
        let has = |name: &str| info.join(name).exists();
        Self {
            cache_allocation: has("L3") || has("L3CODE"),
            memory_bandwidth_allocation: has("MB"),
            mountpoint: Some(mountpoint),
        }
    }
}

/// mountinfo: the file system's type follows the lone dash, the mount point is the fifth field.
fn resctrl_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let is_resctrl = after.split(' ').next() == Some("resctrl");
        is_resctrl.then(|| before.split(' ').nth(4)).flatten().map(|field| PathBuf::from(unescape(field)))
    })
}

/// The kernel's words for an I/O error, as runc prints them.
fn text_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => errno_text(Errno::from_raw(number)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Linux, Namespace, Root};

    #[test]
    fn rootfs_paths_are_cleaned_by_text() {
        let path = |path| rootfs_path(Path::new("/b/c"), path).display().to_string();
        assert_eq!(path("rootfs"), "/b/c/rootfs");
        assert_eq!(path("./rootfs/../x//y/"), "/b/c/x/y");
        assert_eq!(path("/../a/./b"), "/a/b");
        assert_eq!(path("../../../.."), "/");
        assert_eq!(path(""), "/b/c");
    }

    #[test]
    fn the_rootfs_is_looked_at() {
        let dir =
            std::env::temp_dir().canonicalize().unwrap().join(format!("ketch-facts-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("rootfs")).unwrap();
        std::os::unix::fs::symlink("rootfs", dir.join("link")).unwrap();
        let look = |path: &str| {
            let root = Root { path: path.into(), ..Root::default() };
            SpecFacts::gather(&Spec { root: Some(root), ..Spec::default() }, &dir).rootfs
        };
        let seen = (look("rootfs"), look("link"), look("nothing"));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(seen.0, RootfsFact::Exists);
        assert_eq!(seen.1, RootfsFact::Symlink);
        assert_eq!(seen.2, RootfsFact::Missing("no such file or directory".into()));
    }

    #[test]
    fn resctrl_is_found_among_the_mounts() {
        let mounts = "25 1 0:23 / /sys rw - sysfs sysfs rw\n31 25 0:30 / /sys/fs/res\\040ctrl rw shared:7 - resctrl resctrl rw\n";
        assert_eq!(resctrl_mount(mounts), Some(PathBuf::from("/sys/fs/res ctrl")));
        assert_eq!(resctrl_mount("25 1 0:23 / /resctrl rw - sysfs resctrl rw\n"), None);
    }

    #[test]
    fn a_network_namespace_to_join_is_compared_with_our_own() {
        let gather = |path: &str| {
            let namespaces = vec![Namespace { kind: "network".into(), path: path.into() }];
            let linux = Some(Linux { namespaces, ..Linux::default() });
            SpecFacts::gather(&Spec { linux, ..Spec::default() }, Path::new("/")).joins_own_network
        };
        assert_eq!(gather(""), Ok(false));
        assert_eq!(gather("/proc/self/ns/net"), Ok(true));
        assert_eq!(gather("/proc/self/ns/mnt"), Ok(false));
        assert_eq!(gather("/nonexistent"), Err("no such file or directory".into()));
    }
}

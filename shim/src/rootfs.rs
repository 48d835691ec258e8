//! The mounts that make a container's root file system, as containerd's snapshotters ask for them.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use ketch_shim_api::types::Mount;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, fchdir};

use crate::error::ShimError;
use crate::idmap::{self, LOWER, Layers};
use crate::log;
use crate::reaper::Reaper;
use crate::users::{self, Mappings};

/// What the kernel reads of a mount's data: a page, with its end.
const PAGE: usize = 4095;

/// A mount's options: flags, propagation, whose its files are, and what is left for the file system.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    propagation: MountPropagationFlags,
    uidmap: Option<String>,
    gidmap: Option<String>,
    data: Vec<String>,
}

impl Options {
    /// How the owners of its files are to be shown, if otherwise than they are.
    fn mappings(&self) -> Result<Option<Mappings>, String> {
        match (&self.uidmap, &self.gidmap) {
            (None, None) => Ok(None),
            (Some(users), Some(groups)) => Mappings::parse(users, groups).map(Some),
            _ => Err("uidmap= and gidmap= go together".into()),
        }
    }
}

fn parse(options: &[String]) -> Options {
    let mut parsed = Options {
        flags: MountFlags::empty(),
        propagation: MountPropagationFlags::empty(),
        uidmap: None,
        gidmap: None,
        data: Vec::new(),
    };
    for option in options {
        let (on, flag) = match option.as_str() {
            "ro" => (true, MountFlags::RDONLY),
            "rw" => (false, MountFlags::RDONLY),
            "bind" => (true, MountFlags::BIND),
            "rbind" => (true, MountFlags::BIND | MountFlags::REC),
            "nosuid" => (true, MountFlags::NOSUID),
            "suid" => (false, MountFlags::NOSUID),
            "nodev" => (true, MountFlags::NODEV),
            "dev" => (false, MountFlags::NODEV),
            "noexec" => (true, MountFlags::NOEXEC),
            "exec" => (false, MountFlags::NOEXEC),
            "noatime" => (true, MountFlags::NOATIME),
            "atime" => (false, MountFlags::NOATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "diratime" => (false, MountFlags::NODIRATIME),
            "relatime" => (true, MountFlags::RELATIME),
            "norelatime" => (false, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            "nostrictatime" => (false, MountFlags::STRICTATIME),
            "sync" => (true, MountFlags::SYNCHRONOUS),
            "async" => (false, MountFlags::SYNCHRONOUS),
            "dirsync" => (true, MountFlags::DIRSYNC),
            "defaults" => continue,
            other => {
                if let Some(propagation) = propagation(other) {
                    parsed.propagation |= propagation;
                } else if let Some(users) = other.strip_prefix("uidmap=") {
                    parsed.uidmap = Some(users.to_owned());
                } else if let Some(groups) = other.strip_prefix("gidmap=") {
                    parsed.gidmap = Some(groups.to_owned());
                } else {
                    parsed.data.push(other.to_owned());
                }
                continue;
            }
        };
        parsed.flags.set(flag, on);
    }
    parsed
}

fn propagation(option: &str) -> Option<MountPropagationFlags> {
    let (kind, recursive) = match option.strip_prefix('r') {
        Some(kind) if matches!(kind, "private" | "shared" | "slave" | "unbindable") => (kind, true),
        _ => (option, false),
    };
    let flags = match kind {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(if recursive { flags | MountPropagationFlags::REC } else { flags })
}

/// Mounts all in order below `root`; what is mounted when one fails is taken away again.
///
/// # Errors
/// A mount that the kernel refuses, or whose options make no sense or need what the shim does not do (loop devices).
pub(crate) async fn mount_all(mounts: &[Mount], root: &Path, reaper: &Reaper) -> Result<(), ShimError> {
    for one in mounts {
        if let Err(error) = mount_one(one, root, reaper).await {
            unmount_all(root);
            return Err(error);
        }
    }
    Ok(())
}

async fn mount_one(one: &Mount, root: &Path, reaper: &Reaper) -> Result<(), ShimError> {
    if one.options.iter().any(|option| option == "loop") {
        return Err(ShimError::Invalid("the option loop of a root's mount is not supported".into()));
    }
    let target = inside(root, &one.target)?;
    let options = parse(&one.options);
    let of_this = |source: ShimError| ShimError::Mount {
        kind: one.r#type.clone(),
        target: target.clone(),
        source: Box::new(source),
    };
    let users = match options.mappings().map_err(|words| of_this(ShimError::Invalid(words)))? {
        Some(mappings) => Some(users::make(&mappings, reaper).await.map_err(of_this)?),
        None => None,
    };
    let failed = |error: Errno| ShimError::File {
        action: "mount the root file system at",
        path: target.clone(),
        source: error.into(),
    };
    let is_overlay = one.r#type == "overlay" && !options.flags.contains(MountFlags::BIND);
    if options.flags.contains(MountFlags::BIND) {
        mount(one.source.as_str(), &target, one.r#type.as_str(), options.flags, None).map_err(failed)?;
        // The first call of a bind heeds nothing but that.
        if !(options.flags - (MountFlags::BIND | MountFlags::REC)).is_empty() {
            mount_remount(&target, options.flags - MountFlags::REC, c"").map_err(failed)?;
        }
    } else {
        // An overlay has no owners but those of its layers. The upper one has been made for the mapped ids.
        let layers = match &users {
            Some(users) if is_overlay => Some(map_layers(&options, root, users).map_err(of_this)?),
            _ => None,
        };
        mount_with_data(one, &target, &options, layers.as_ref()).map_err(failed)?;
    }
    if let Some(users) = users.filter(|_| !is_overlay) {
        let mapped = idmap::map_mount(&target, users.as_fd(), options.flags.contains(MountFlags::REC));
        mapped.map_err(|error| {
            of_this(ShimError::System { action: "map the owners of its files", source: error.into() })
        })?;
    }
    if !options.propagation.is_empty() {
        mount_change(&target, options.propagation).map_err(failed)?;
    }
    Ok(())
}

fn map_layers(options: &Options, root: &Path, users: &OwnedFd) -> Result<Layers, ShimError> {
    let lower = options.data.iter().find_map(|option| option.strip_prefix(LOWER));
    let lower = lower.ok_or_else(|| ShimError::Invalid("it has no lowerdir= to map".into()))?;
    Layers::map(lower, root, users.as_fd())
}

/// Mounts. Layers that are mapped have names in a folder; and many layers of an overlay do not fit into a page: then their
/// paths are made relative to a folder that they share.
fn mount_with_data(
    one: &Mount,
    target: &Path,
    options: &Options,
    layers: Option<&Layers>,
) -> Result<(), Errno> {
    let plain = options.data.join(",");
    let (folder, data) = match layers {
        Some(layers) => (Some(layers.folder.clone()), with_lower(&options.data, &layers.names)),
        None if plain.len() <= PAGE => (None, plain),
        None => {
            let (folder, shorter) = shorten(&options.data).ok_or(Errno::TOOBIG)?;
            (Some(folder), shorter)
        }
    };
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let (source, kind) = (one.source.as_str(), one.r#type.as_str());
    let mount = || mount(source, target, kind, options.flags, Some(data.as_c_str()));
    let Some(folder) = folder else { return mount() };
    let before = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    chdir(&folder)?;
    let mounted = mount();
    fchdir(&before)?;
    mounted
}

/// The options' text with other lower layers.
fn with_lower(options: &[String], lower: &str) -> String {
    let options: Vec<_> = options
        .iter()
        .map(|option| match option.strip_prefix(LOWER) {
            Some(_) => format!("{LOWER}{lower}"),
            None => option.clone(),
        })
        .collect();
    options.join(",")
}

/// The folder that all lower layers share, and the options with paths relative to it.
fn shorten(options: &[String]) -> Option<(PathBuf, String)> {
    let layers = options.iter().find_map(|option| option.strip_prefix(LOWER))?;
    let mut shared: PathBuf = Path::new(layers.split(':').next()?).into();
    while !layers
        .split(':')
        .all(|layer| Path::new(layer).strip_prefix(&shared).is_ok_and(|rest| rest != Path::new("")))
    {
        if !shared.pop() {
            return None;
        }
    }
    let relative: Vec<_> = layers
        .split(':')
        .map(|layer| Path::new(layer).strip_prefix(&shared).map(|rest| rest.to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .ok()?;
    Some((shared, with_lower(options, &relative.join(":"))))
}

/// Where a mount below the root goes. The root's content is an image's: nothing there may lead out again.
fn inside(root: &Path, target: &str) -> Result<PathBuf, ShimError> {
    let mut path = root.to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(ShimError::Invalid(format!("the mount target {target} leads out of the root")));
            }
        }
        if path.is_symlink() {
            return Err(ShimError::Invalid(format!("the mount target {} is a symlink", path.display())));
        }
    }
    Ok(path)
}

/// Takes every mount at and below `root` away, the last first; true if none is left. What is busy goes when it no longer is.
pub(crate) fn unmount_all(root: &Path) -> bool {
    let layers = idmap::folder_beside(root);
    if let Err(error) = idmap::clear(&layers) {
        log::warn(&format!("take the layers at {} away: {error}", layers.display()));
    }
    let Ok(root) = root.canonicalize() else { return true };
    if unmount_one(&root) {
        return true;
    }
    let Ok(table) = std::fs::read_to_string("/proc/self/mountinfo") else { return false };
    let mut done = true;
    for point in points_below(&table, &root) {
        let flags = UnmountFlags::NOFOLLOW;
        done &= unmount(&point, flags).or_else(|_| unmount(&point, flags | UnmountFlags::DETACH)).is_ok();
    }
    done
}

/// Takes away what is mounted at `root`, with what is mounted below: the table of all mounts, which has those of all other
/// containers, need not be read. False where nothing is mounted at `root` itself, and below has yet to be looked at.
fn unmount_one(root: &Path) -> bool {
    let mut was_mounted = false;
    let flags = UnmountFlags::NOFOLLOW;
    let unmount = || match unmount(root, flags) {
        Err(Errno::BUSY) => unmount(root, flags | UnmountFlags::DETACH),
        other => other,
    };
    loop {
        match unmount() {
            Ok(()) => was_mounted = true,
            // No mount, or no more.
            Err(error) => return was_mounted && error == Errno::INVAL,
        }
    }
}

fn points_below(table: &str, root: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(root)).collect();
    points.reverse();
    points
}

/// The kernel writes spaces and the like as octal numbers.
fn unescape(text: &str) -> PathBuf {
    let mut out = text.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escaped, plain);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_flags_propagation_and_data() {
        let parsed = options("ro,rbind,rprivate,lowerdir=/a:/b,index=off");
        assert_eq!(parsed.flags, MountFlags::RDONLY | MountFlags::BIND | MountFlags::REC);
        assert_eq!(parsed.propagation, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
        assert_eq!(parsed.data, ["lowerdir=/a:/b", "index=off"]);
        assert_eq!(options("ro,rw").flags, MountFlags::empty());
        assert_eq!(parsed.mappings(), Ok(None));
        assert_eq!(options("relatime").propagation, MountPropagationFlags::empty());
    }

    #[test]
    fn owners_are_mapped_by_two_options() {
        // One option, commas and all: that is how they come.
        let all = ["ro", "uidmap=0:5:1,1:9:2", "gidmap=0:5:1"].map(str::to_owned);
        let parsed = parse(&all);
        assert!(parsed.data.is_empty() && parsed.mappings().unwrap().is_some());
        assert!(parse(&all[..2]).mappings().unwrap_err().contains("together"));
        assert!(parse(&["uidmap=".to_owned(), "gidmap=0:1:2".to_owned()]).mappings().is_err());
    }

    #[test]
    fn layers_are_shortened_to_what_they_do_not_share() {
        let all = ["lowerdir=/var/lib/s/1/fs:/var/lib/s/12/fs".to_owned(), "index=off".to_owned()];
        let (folder, data) = shorten(&all).unwrap();
        assert_eq!(folder, Path::new("/var/lib/s"));
        assert_eq!(data, "lowerdir=1/fs:12/fs,index=off");
        assert_eq!(shorten(&["index=off".to_owned()]), None);
    }

    #[test]
    fn no_target_leads_out() {
        assert_eq!(inside(Path::new("/r"), "/a/b").unwrap(), Path::new("/r/a/b"));
        assert_eq!(inside(Path::new("/r"), "").unwrap(), Path::new("/r"));
        assert!(inside(Path::new("/r"), "../x").is_err());
    }

    #[test]
    fn mount_points_come_last_first() {
        let table = "1 0 0:1 / / rw - x x rw\n2 1 0:2 / /b/rootfs rw - x x rw\n3 2 0:3 / /b/rootfs/a\\040b rw - x x rw\n4 1 0:4 / /b/rootfs2 rw - x x rw\n";
        let points = points_below(table, Path::new("/b/rootfs"));
        assert_eq!(points, [Path::new("/b/rootfs/a b"), Path::new("/b/rootfs")]);
    }
}

//! A local volume's options: what is to be mounted at its folder.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

/// Refuses options that mean nothing, or not enough.
///
/// # Errors
/// dockerd's texts.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(other) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device" | "size"))
    {
        return Err(format!("invalid option: {other:?}"));
    }
    if let Some(size) = options.get("size")
        && crate::size::binary(size).map_err(|error| error.message)? > 0
    {
        return Err("quota size requested but no quota support".to_owned());
    }
    for (given, wanted) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if options.contains_key(given) && !options.contains_key(wanted) {
            return Err(format!("missing required option: {wanted:?}"));
        }
    }
    Ok(())
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    kind: String,
    device: String,
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    /// The file system's own options.
    data: String,
}

impl Mounted {
    /// `None`: the volume is a folder like any.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Option<Self> {
        let option = |key: &str| options.get(key).cloned().unwrap_or_default();
        let (kind, device) = (option("type"), option("device"));
        if kind.is_empty() && device.is_empty() {
            return None;
        }
        let mut mounted =
            Self { kind, device, flags: MountFlags::empty(), propagation: None, data: String::new() };
        let mut data = Vec::new();
        let given = option("o");
        for word in given.split(',').filter(|word| !word.is_empty()) {
            if let Some((on, flag)) = flag(word) {
                mounted.flags.set(flag, on);
            } else if let Some(propagation) = propagation(word) {
                mounted.propagation = Some(propagation);
            } else {
                data.push(word);
            }
        }
        mounted.data = data.join(",");
        Some(mounted)
    }

    /// Mounts it.
    ///
    /// # Errors
    /// dockerd's text: what was asked of the kernel, and what it says.
    pub(super) fn mount(&self, target: &Path) -> Result<(), String> {
        let data =
            if self.kind == "nfs" || self.kind == "cifs" { resolved(&self.data)? } else { self.data.clone() };
        let failed = |error| self.failed(target, &data, error);
        let text = (!data.is_empty()).then(|| CString::new(data.as_str()));
        let text = text.transpose().map_err(|_| failed(rustix::io::Errno::INVAL))?;
        mount(self.device.as_str(), target, self.kind.as_str(), self.flags, text.as_deref())
            .map_err(failed)?;
        // What is left mounted would count as mounted for the next container, without what the volume's maker asked for.
        self.finish(target).map_err(|error| {
            let _taken = unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
            failed(error)
        })
    }

    /// What is mounted already gets what it lacks, if a daemon was killed within [`Mounted::mount`].
    ///
    /// # Errors
    /// As there; it stays mounted.
    pub(super) fn mount_whole(&self, target: &Path) -> Result<(), String> {
        self.finish(target).map_err(|error| self.failed(target, &self.data, error))
    }

    fn finish(&self, target: &Path) -> rustix::io::Result<()> {
        // A bind takes no other flag than its own at first.
        if self.flags.contains(MountFlags::BIND)
            && self.flags.intersects(!(MountFlags::BIND | MountFlags::REC))
        {
            mount_remount(target, self.flags, c"")?;
        }
        self.propagation.map_or(Ok(()), |propagation| mount_change(target, propagation))
    }

    fn failed(&self, target: &Path, data: &str, error: rustix::io::Errno) -> String {
        let mut text = format!("mount {}:{}", self.device, target.display());
        if !self.flags.is_empty() {
            text.push_str(&format!(", flags: 0x{:x}", self.flags.bits()));
        }
        if !data.is_empty() {
            text.push_str(&format!(", data: {}", without_password(data)));
        }
        format!("{text}: {}", without_number(error))
    }
}

/// As `strerror` says it, in Go's small letters.
fn without_number(error: rustix::io::Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

fn flag(word: &str) -> Option<(bool, MountFlags)> {
    Some(match word {
        "ro" => (true, MountFlags::RDONLY),
        "rw" => (false, MountFlags::RDONLY),
        "nosuid" => (true, MountFlags::NOSUID),
        "suid" => (false, MountFlags::NOSUID),
        "nodev" => (true, MountFlags::NODEV),
        "dev" => (false, MountFlags::NODEV),
        "noexec" => (true, MountFlags::NOEXEC),
        "exec" => (false, MountFlags::NOEXEC),
        "sync" => (true, MountFlags::SYNCHRONOUS),
        "async" => (false, MountFlags::SYNCHRONOUS),
        "dirsync" => (true, MountFlags::DIRSYNC),
        "noatime" => (true, MountFlags::NOATIME),
        "atime" => (false, MountFlags::NOATIME),
        "nodiratime" => (true, MountFlags::NODIRATIME),
        "diratime" => (false, MountFlags::NODIRATIME),
        "relatime" => (true, MountFlags::RELATIME),
        "norelatime" => (false, MountFlags::RELATIME),
        "strictatime" => (true, MountFlags::STRICTATIME),
        "bind" => (true, MountFlags::BIND),
        "rbind" => (true, MountFlags::BIND.union(MountFlags::REC)),
        "defaults" => (true, MountFlags::empty()),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (recursive, word) = match word.strip_prefix('r') {
        Some(rest) => (MountPropagationFlags::REC, rest),
        None => (MountPropagationFlags::empty(), word),
    };
    let kind = match word {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// The kernel wants the address of a server of files, and no name.
fn resolved(data: &str) -> Result<String, String> {
    let words = data.split(',').map(|word| match word.strip_prefix("addr=") {
        Some(name) if name.parse::<IpAddr>().is_err() => {
            let failed = |error: &dyn std::fmt::Display| {
                format!("error resolving passed in network volume address: lookup {name}: {error}")
            };
            let mut addresses = (name, 0).to_socket_addrs().map_err(|error| failed(&error))?;
            let address = addresses.next().ok_or_else(|| failed(&"no such host"))?;
            Ok(format!("addr={}", address.ip()))
        }
        _ => Ok(word.to_owned()),
    });
    Ok(words.collect::<Result<Vec<_>, String>>()?.join(","))
}

fn without_password(data: &str) -> String {
    let words =
        data.split(',').map(|word| if word.starts_with("password=") { "password=********" } else { word });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn refusals_are_dockerds() {
        for (pairs, text) in [
            (&[("nonsense", "1")][..], "invalid option: \"nonsense\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("o", "ro")], "missing required option: \"device\""),
            (&[("size", "1g")], "quota size requested but no quota support"),
        ] {
            assert_eq!(check(&options(pairs)), Err(text.to_owned()));
        }
        assert!(check(&options(&[("type", "none"), ("device", "/x"), ("o", "bind")])).is_ok());
    }

    #[test]
    fn words_are_flags_or_the_file_systems() {
        let mounted = |pairs: &[(&str, &str)]| Mounted::of(&options(pairs));
        let tmpfs =
            mounted(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,nosuid,rw,uid=1000")]).unwrap();
        assert_eq!((tmpfs.flags, tmpfs.data.as_str()), (MountFlags::NOSUID, "size=1m,uid=1000"));
        let bind = mounted(&[("type", "none"), ("device", "/x"), ("o", "rbind,ro,rslave")]).unwrap();
        assert_eq!(bind.flags, MountFlags::BIND | MountFlags::REC | MountFlags::RDONLY);
        assert_eq!(bind.propagation, Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC));
        assert_eq!(mounted(&[]), None);
    }

    #[test]
    fn addresses_stay_and_passwords_are_hidden() {
        assert_eq!(resolved("addr=10.0.0.1,rw"), Ok("addr=10.0.0.1,rw".to_owned()));
        assert_eq!(without_password("user=a,password=b"), "user=a,password=********");
        let missing =
            Mounted::of(&options(&[("type", "none"), ("device", "/nonexistent"), ("o", "bind")])).unwrap();
        let error = missing.mount(Path::new("/nonexistent-target")).unwrap_err();
        assert!(error.starts_with("mount /nonexistent:/nonexistent-target, flags: 0x1000: "), "{error}");
    }

    #[test]
    fn a_mount_that_cannot_be_made_whole_is_none() {
        if !scratch::is_root("mounts need") {
            return;
        }
        // A namespace is a thread's: nobody else sees what is mounted.
        let tested = std::thread::Builder::new().spawn(|| {
            let folder = scratch::Folder::new("mounted");
            #[expect(deprecated, reason = "unsafe for CLONE_FILES only")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let (device, target) = (folder.path().join("device"), folder.path().join("target"));
            std::fs::create_dir(&device).unwrap();
            std::fs::create_dir(&target).unwrap();
            let read_only = Mounted {
                kind: "none".to_owned(),
                device: device.to_str().unwrap().to_owned(),
                flags: MountFlags::BIND | MountFlags::RDONLY,
                propagation: None,
                data: String::new(),
            };
            // The kernel takes one of them alone.
            let both = MountPropagationFlags::SHARED | MountPropagationFlags::PRIVATE;
            let broken = Mounted { propagation: Some(both), ..read_only.clone() };
            assert!(broken.mount(&target).unwrap_err().ends_with(": invalid argument"));
            assert!(!crate::mounted::is_mounted(&target).unwrap());
            // As a daemon leaves it that is killed half way.
            mount(&device, &target, "none", MountFlags::BIND, None).unwrap();
            std::fs::write(target.join("written"), "").unwrap();
            read_only.mount_whole(&target).unwrap();
            let refused = std::fs::write(target.join("written"), "").unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            unmount(&target, UnmountFlags::DETACH).unwrap();
        });
        tested.unwrap().join().unwrap();
    }
}

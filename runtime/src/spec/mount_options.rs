//! The options of a mount, sorted into what the kernel calls them by.
//!
//! Owns the table of option names (config.md "Linux mount options"), which `features` lists, too. Pure: it says what
//! was asked for; the plan decides by which calls that is done. Any name outside the table is data for the filesystem.

use super::Mount;

/// `MS_*` of mount(2) and linux/mount.h.
pub mod flag {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id programs.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No programs.
    pub const NOEXEC: u64 = 0x8;
    /// Synchronous writes.
    pub const SYNCHRONOUS: u64 = 0x10;
    /// Change the flags of an existing mount.
    pub const REMOUNT: u64 = 0x20;
    /// Mandatory locks.
    pub const MANDLOCK: u64 = 0x40;
    /// Synchronous directory changes.
    pub const DIRSYNC: u64 = 0x80;
    /// No following of symbolic links.
    pub const NOSYMFOLLOW: u64 = 0x100;
    /// No access times.
    pub const NOATIME: u64 = 0x400;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x800;
    /// Bind mount.
    pub const BIND: u64 = 0x1000;
    /// Recursive.
    pub const REC: u64 = 0x4000;
    /// No kernel messages.
    pub const SILENT: u64 = 0x8000;
    /// Propagation: unbindable.
    pub const UNBINDABLE: u64 = 0x2_0000;
    /// Propagation: private.
    pub const PRIVATE: u64 = 0x4_0000;
    /// Propagation: slave.
    pub const SLAVE: u64 = 0x8_0000;
    /// Propagation: shared.
    pub const SHARED: u64 = 0x10_0000;
    /// Access times relative to changes.
    pub const RELATIME: u64 = 0x20_0000;
    /// Inode version counters.
    pub const I_VERSION: u64 = 0x80_0000;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x100_0000;
    /// Times are written lazily.
    pub const LAZYTIME: u64 = 0x200_0000;
}

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id programs.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No programs.
    pub const NOEXEC: u64 = 0x8;
    /// Mask of the access time setting, which is a number and not a set of flags.
    pub const ATIME: u64 = 0x70;
    /// Access times relative to changes: the zero of the setting.
    pub const RELATIME: u64 = 0x0;
    /// No access times.
    pub const NOATIME: u64 = 0x10;
    /// Access times always.
    pub const STRICTATIME: u64 = 0x20;
    /// No access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// No following of symbolic links.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

#[derive(Clone, Copy)]
enum Effect {
    Set(u64),
    Clear(u64),
    Propagation(u64),
    SetAttr(u64),
    ClearAttr(u64),
    CopyUp,
    IdMap(Recursion),
}

/// Whether something holds for one mount, or for all mounts below it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recursion {
    /// This mount.
    Single,
    /// This mount and those below it.
    Recursive,
}

/// Sorted by name, for the binary search and for `features`.
const OPTIONS: &[(&str, Effect)] = &[
    ("async", Effect::Clear(flag::SYNCHRONOUS)),
    ("atime", Effect::Clear(flag::NOATIME)),
    ("bind", Effect::Set(flag::BIND)),
    // runc hands this one to the filesystem as data, where it fails; the specification says that it changes nothing.
    ("defaults", Effect::Set(0)),
    ("dev", Effect::Clear(flag::NODEV)),
    ("diratime", Effect::Clear(flag::NODIRATIME)),
    ("dirsync", Effect::Set(flag::DIRSYNC)),
    ("exec", Effect::Clear(flag::NOEXEC)),
    ("idmap", Effect::IdMap(Recursion::Single)),
    ("iversion", Effect::Set(flag::I_VERSION)),
    ("lazytime", Effect::Set(flag::LAZYTIME)),
    ("loud", Effect::Clear(flag::SILENT)),
    ("mand", Effect::Set(flag::MANDLOCK)),
    ("noatime", Effect::Set(flag::NOATIME)),
    ("nodev", Effect::Set(flag::NODEV)),
    ("nodiratime", Effect::Set(flag::NODIRATIME)),
    ("noexec", Effect::Set(flag::NOEXEC)),
    ("noiversion", Effect::Clear(flag::I_VERSION)),
    ("nolazytime", Effect::Clear(flag::LAZYTIME)),
    ("nomand", Effect::Clear(flag::MANDLOCK)),
    ("norelatime", Effect::Clear(flag::RELATIME)),
    ("nostrictatime", Effect::Clear(flag::STRICTATIME)),
    ("nosuid", Effect::Set(flag::NOSUID)),
    ("nosymfollow", Effect::Set(flag::NOSYMFOLLOW)),
    ("private", Effect::Propagation(flag::PRIVATE)),
    ("ratime", Effect::ClearAttr(attr::NOATIME)),
    ("rbind", Effect::Set(flag::BIND | flag::REC)),
    ("rdev", Effect::ClearAttr(attr::NODEV)),
    ("rdiratime", Effect::ClearAttr(attr::NODIRATIME)),
    ("relatime", Effect::Set(flag::RELATIME)),
    ("remount", Effect::Set(flag::REMOUNT)),
    ("rexec", Effect::ClearAttr(attr::NOEXEC)),
    ("ridmap", Effect::IdMap(Recursion::Recursive)),
    ("rnoatime", Effect::SetAttr(attr::NOATIME)),
    ("rnodev", Effect::SetAttr(attr::NODEV)),
    ("rnodiratime", Effect::SetAttr(attr::NODIRATIME)),
    ("rnoexec", Effect::SetAttr(attr::NOEXEC)),
    ("rnorelatime", Effect::ClearAttr(attr::RELATIME)),
    ("rnostrictatime", Effect::ClearAttr(attr::STRICTATIME)),
    ("rnosuid", Effect::SetAttr(attr::NOSUID)),
    ("rnosymfollow", Effect::SetAttr(attr::NOSYMFOLLOW)),
    ("ro", Effect::Set(flag::RDONLY)),
    ("rprivate", Effect::Propagation(flag::PRIVATE | flag::REC)),
    ("rrelatime", Effect::SetAttr(attr::RELATIME)),
    ("rro", Effect::SetAttr(attr::RDONLY)),
    ("rrw", Effect::ClearAttr(attr::RDONLY)),
    ("rshared", Effect::Propagation(flag::SHARED | flag::REC)),
    ("rslave", Effect::Propagation(flag::SLAVE | flag::REC)),
    ("rstrictatime", Effect::SetAttr(attr::STRICTATIME)),
    ("rsuid", Effect::ClearAttr(attr::NOSUID)),
    ("rsymfollow", Effect::ClearAttr(attr::NOSYMFOLLOW)),
    ("runbindable", Effect::Propagation(flag::UNBINDABLE | flag::REC)),
    ("rw", Effect::Clear(flag::RDONLY)),
    ("shared", Effect::Propagation(flag::SHARED)),
    ("silent", Effect::Set(flag::SILENT)),
    ("slave", Effect::Propagation(flag::SLAVE)),
    ("strictatime", Effect::Set(flag::STRICTATIME)),
    ("suid", Effect::Clear(flag::NOSUID)),
    ("symfollow", Effect::Clear(flag::NOSYMFOLLOW)),
    ("sync", Effect::Set(flag::SYNCHRONOUS)),
    ("tmpcopyup", Effect::CopyUp),
    ("unbindable", Effect::Propagation(flag::UNBINDABLE)),
];

/// What the options of one mount ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MS_*` flags that are asked for.
    pub set: u64,
    /// `MS_*` flags that are asked not to be there.
    pub cleared: u64,
    /// Propagation changes, in order.
    pub propagation: Vec<u64>,
    /// `MOUNT_ATTR_*` to set on the mount and everything below it.
    pub recursive_set: u64,
    /// `MOUNT_ATTR_*` to clear there. Holds [`attr::ATIME`] whenever an access time setting is in
    /// [`MountOptions::recursive_set`], as mount_setattr(2) wants it.
    pub recursive_cleared: u64,
    /// Whether a new tmpfs starts with the contents of the directory below it (`tmpcopyup`).
    pub copy_up: bool,
    /// Whether the mount is id-mapped by option.
    pub id_mapped: Option<Recursion>,
    /// What is left: options of the filesystem, joined by commas.
    pub data: String,
}

impl MountOptions {
    /// Sorts options. Later ones win over earlier ones.
    #[must_use]
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Self {
        let mut parsed = Self::default();
        for option in options {
            let option = option.as_ref();
            match effect(option) {
                None => parsed.add_data(option),
                Some(effect) => parsed.apply(effect),
            }
        }
        parsed
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Set(flags) => {
                self.set |= flags;
                self.cleared &= !flags;
            }
            Effect::Clear(flags) => {
                self.set &= !flags;
                self.cleared |= flags;
            }
            Effect::Propagation(flags) => self.propagation.push(flags),
            Effect::SetAttr(flags) => {
                self.recursive_set |= flags;
                self.recursive_cleared &= !flags;
                self.clear_atime(flags);
            }
            Effect::ClearAttr(flags) => {
                self.recursive_set &= !flags;
                self.recursive_cleared |= flags;
                self.clear_atime(flags);
            }
            Effect::CopyUp => self.copy_up = true,
            Effect::IdMap(recursion) => self.id_mapped = Some(recursion),
        }
    }

    /// The access time setting is a number inside of the attributes: whoever touches it must clear all of it.
    fn clear_atime(&mut self, flags: u64) {
        if flags & attr::ATIME == flags {
            self.recursive_cleared |= attr::ATIME;
        }
    }

    fn add_data(&mut self, option: &str) {
        if !self.data.is_empty() {
            self.data.push(',');
        }
        self.data.push_str(option);
    }

    /// Whether this is a bind mount.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.set & flag::BIND != 0
    }
}

impl Mount {
    /// The mount's options, sorted.
    #[must_use]
    pub fn parse_options(&self) -> MountOptions {
        MountOptions::parse(&self.options)
    }
}

/// The `MS_*` propagation flags of `linux.rootfsPropagation`.
#[must_use]
pub fn propagation(name: &str) -> Option<u64> {
    match effect(name) {
        Some(Effect::Propagation(flags)) => Some(flags),
        _ => None,
    }
}

/// The names of all options, sorted, as `features` lists them (runc leaves the two id mapping ones out).
pub fn known_mount_options() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().filter(|(_, effect)| !matches!(effect, Effect::IdMap(_))).map(|(name, _)| *name)
}

fn effect(option: &str) -> Option<Effect> {
    OPTIONS.binary_search_by_key(&option, |(name, _)| name).ok().map(|index| OPTIONS[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPTIONS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn later_options_win() {
        let options = MountOptions::parse(&["ro", "rw", "nosuid", "noatime", "size=64k", "mode=755"]);
        assert_eq!(options.set, flag::NOSUID | flag::NOATIME);
        assert_eq!(options.cleared, flag::RDONLY);
        assert_eq!(options.data, "size=64k,mode=755");
        assert_eq!(MountOptions::parse(&["rw", "ro"]).set, flag::RDONLY);
    }

    #[test]
    fn an_access_time_setting_clears_the_old_one() {
        let options = MountOptions::parse(&["rbind", "rro", "rnoatime"]);
        assert!(options.is_bind());
        assert_eq!(options.recursive_set, attr::RDONLY | attr::NOATIME);
        assert_eq!(options.recursive_cleared, attr::ATIME);
        let relative = MountOptions::parse(&["rrelatime"]);
        assert_eq!((relative.recursive_set, relative.recursive_cleared), (0, attr::ATIME));
        let kept = MountOptions::parse(&["rnodiratime", "rexec"]);
        assert_eq!((kept.recursive_set, kept.recursive_cleared), (attr::NODIRATIME, attr::NOEXEC));
    }

    #[test]
    fn propagation_copy_up_and_id_mapping_are_told_apart() {
        let options = MountOptions::parse(&["rslave", "shared", "tmpcopyup", "ridmap", "defaults"]);
        assert_eq!(options.propagation, [flag::SLAVE | flag::REC, flag::SHARED]);
        assert!(options.copy_up);
        assert_eq!(options.id_mapped, Some(Recursion::Recursive));
        assert_eq!(options.data, "");
        assert_eq!(propagation("rprivate"), Some(flag::PRIVATE | flag::REC));
        assert_eq!(propagation("ro"), None);
    }
}

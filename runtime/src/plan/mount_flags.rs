//! The flags of a mount as they stand in a plan: sets of named bits instead of numbers.
//!
//! Owns how they are written, in `plan.json` and in messages. What an option means is `spec::mount_options`' to know.
//! Used by the rootfs plan and its executor.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::spec::mount_options::flag;

/// A set of `MS_*` flags. Written as their names joined by `|`, as in runc's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags(pub u64);

/// Names of flags, in the order in which they are printed.
const NAMES: [(&str, MountFlags); 23] = [
    ("MS_RDONLY", MountFlags::READ_ONLY),
    ("MS_NOSUID", MountFlags::NO_SUID),
    ("MS_NODEV", MountFlags::NO_DEV),
    ("MS_NOEXEC", MountFlags::NO_EXEC),
    ("MS_SYNCHRONOUS", MountFlags::SYNCHRONOUS),
    ("MS_REMOUNT", MountFlags::REMOUNT),
    ("MS_MANDLOCK", MountFlags::MANDATORY_LOCKS),
    ("MS_DIRSYNC", MountFlags::DIR_SYNC),
    ("MS_NOSYMFOLLOW", MountFlags::NO_SYMLINK_FOLLOW),
    ("MS_NOATIME", MountFlags::NO_ATIME),
    ("MS_NODIRATIME", MountFlags::NO_DIR_ATIME),
    ("MS_BIND", MountFlags::BIND),
    ("MS_MOVE", MountFlags(1 << 13)),
    ("MS_REC", MountFlags::RECURSIVE),
    ("MS_SILENT", MountFlags::SILENT),
    ("MS_POSIXACL", MountFlags(1 << 16)),
    ("MS_UNBINDABLE", MountFlags(1 << 17)),
    ("MS_PRIVATE", MountFlags(1 << 18)),
    ("MS_SLAVE", MountFlags(1 << 19)),
    ("MS_SHARED", MountFlags(1 << 20)),
    ("MS_RELATIME", MountFlags::REL_ATIME),
    ("MS_STRICTATIME", MountFlags::STRICT_ATIME),
    ("MS_LAZYTIME", MountFlags::LAZY_TIME),
];

impl MountFlags {
    /// `MS_RDONLY`.
    pub const READ_ONLY: Self = Self(flag::RDONLY);
    /// `MS_NOSUID`.
    pub const NO_SUID: Self = Self(flag::NOSUID);
    /// `MS_NODEV`.
    pub const NO_DEV: Self = Self(flag::NODEV);
    /// `MS_NOEXEC`.
    pub const NO_EXEC: Self = Self(flag::NOEXEC);
    /// `MS_SYNCHRONOUS`.
    pub const SYNCHRONOUS: Self = Self(flag::SYNCHRONOUS);
    /// `MS_REMOUNT`.
    pub const REMOUNT: Self = Self(flag::REMOUNT);
    /// `MS_MANDLOCK`.
    pub const MANDATORY_LOCKS: Self = Self(flag::MANDLOCK);
    /// `MS_DIRSYNC`.
    pub const DIR_SYNC: Self = Self(flag::DIRSYNC);
    /// `MS_NOSYMFOLLOW`.
    pub const NO_SYMLINK_FOLLOW: Self = Self(flag::NOSYMFOLLOW);
    /// `MS_NOATIME`.
    pub const NO_ATIME: Self = Self(flag::NOATIME);
    /// `MS_NODIRATIME`.
    pub const NO_DIR_ATIME: Self = Self(flag::NODIRATIME);
    /// `MS_BIND`.
    pub const BIND: Self = Self(flag::BIND);
    /// `MS_REC`.
    pub const RECURSIVE: Self = Self(flag::REC);
    /// `MS_SILENT`.
    pub const SILENT: Self = Self(flag::SILENT);
    /// `MS_RELATIME`.
    pub const REL_ATIME: Self = Self(flag::RELATIME);
    /// `MS_I_VERSION`.
    pub const INODE_VERSION: Self = Self(flag::I_VERSION);
    /// `MS_STRICTATIME`.
    pub const STRICT_ATIME: Self = Self(flag::STRICTATIME);
    /// `MS_LAZYTIME`.
    pub const LAZY_TIME: Self = Self(flag::LAZYTIME);

    /// No flag.
    pub const NONE: Self = Self(0);
    /// The flags that choose one way of keeping access times.
    pub const ATIME_CHOICE: Self = Self(Self::NO_ATIME.0 | Self::REL_ATIME.0 | Self::STRICT_ATIME.0);
    /// Everything on access times.
    pub const ATIME: Self = Self(Self::ATIME_CHOICE.0 | Self::NO_DIR_ATIME.0);

    /// Whether any flag of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags that are in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Without the flags of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no flag is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for MountFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (name, flag) in NAMES.into_iter().chain([("MS_I_VERSION", Self::INODE_VERSION)]) {
            if rest & flag.0 != 0 {
                rest &= !flag.0;
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

impl Serialize for MountFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MountFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut flags = 0;
        for word in text.split('|').filter(|word| !word.is_empty()) {
            flags |= NAMES
                .into_iter()
                .chain([("MS_I_VERSION", Self::INODE_VERSION)])
                .find(|(name, _)| *name == word)
                .map(|(_, flag)| flag.0)
                .or_else(|| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
                .ok_or_else(|| D::Error::custom(format_args!("unknown mount flag {word:?}")))?;
        }
        Ok(Self(flags))
    }
}

/// Attributes of mount_setattr(2) for a whole tree of mounts (the `r…` options). Numbers are `MOUNT_ATTR_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeAttributes {
    /// Bits to set, after those of `clear` were cleared.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

/// How mounts and unmounts spread to and from peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PropagationKind {
    /// Both ways.
    Shared,
    /// From the master only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and it can't be bound elsewhere.
    Unbindable,
}

/// A propagation option of a mount or of the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// The kind.
    pub kind: PropagationKind,
    /// Whether submounts are changed as well.
    pub recursive: bool,
}

impl Propagation {
    /// The propagation of the `MS_*` flags that the option table gives.
    #[must_use]
    pub fn from_flags(flags: u64) -> Option<Self> {
        let kind = match flags & !flag::REC {
            flag::SHARED => PropagationKind::Shared,
            flag::SLAVE => PropagationKind::Slave,
            flag::PRIVATE => PropagationKind::Private,
            flag::UNBINDABLE => PropagationKind::Unbindable,
            _ => return None,
        };
        Some(Self { kind, recursive: flags & flag::REC != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_and_parse_as_their_names() {
        let flags = MountFlags(0x1 | 0x2 | 0x1000 | 0x4000 | 1 << 23 | 1 << 40);
        let text = flags.to_string();
        assert_eq!(text, "MS_RDONLY|MS_NOSUID|MS_BIND|MS_REC|MS_I_VERSION|0x10000000000");
        let json = serde_json::to_string(&flags).unwrap();
        assert_eq!(serde_json::from_str::<MountFlags>(&json).unwrap(), flags);
        assert_eq!(serde_json::from_str::<MountFlags>("\"\"").unwrap(), MountFlags::NONE);
        assert!(serde_json::from_str::<MountFlags>("\"MS_NOPE\"").is_err());
    }

    #[test]
    fn propagation_is_one_kind_and_perhaps_recursive() {
        let private = Propagation { kind: PropagationKind::Private, recursive: true };
        assert_eq!(Propagation::from_flags(flag::PRIVATE | flag::REC), Some(private));
        let shared = Propagation { kind: PropagationKind::Shared, recursive: false };
        assert_eq!(Propagation::from_flags(flag::SHARED), Some(shared));
        assert_eq!(Propagation::from_flags(flag::RDONLY), None);
    }
}

//! From the flags and options of a plan to what the mount API takes: attributes of mounts, parameters of file systems.

use ketch_sys::mount::Parameter;

use crate::plan::mount_flags::MountFlags;
use crate::spec::mount_options::attr;

/// Flags that are attributes of a mount under the same meaning, beside access times.
const PLAIN: [(MountFlags, u64); 5] = [
    (MountFlags::READ_ONLY, attr::RDONLY),
    (MountFlags::NO_SUID, attr::NOSUID),
    (MountFlags::NO_DEV, attr::NODEV),
    (MountFlags::NO_EXEC, attr::NOEXEC),
    (MountFlags::NO_SYMLINK_FOLLOW, attr::NOSYMFOLLOW),
];

/// The attributes that mount(2) would give a new mount with `flags`.
pub(super) fn attributes(flags: MountFlags) -> u64 {
    let mut attributes = 0;
    for (flag, attribute) in PLAIN {
        if flags.intersects(flag) {
            attributes |= attribute;
        }
    }
    if flags.intersects(MountFlags::NO_DIR_ATIME) {
        attributes |= attr::NODIRATIME;
    }
    // mount(2): strictatime wins over noatime, and relatime is what there is without either.
    attributes
        | if flags.intersects(MountFlags::STRICT_ATIME) {
            attr::STRICTATIME
        } else if flags.intersects(MountFlags::NO_ATIME) {
            attr::NOATIME
        } else {
            attr::RELATIME
        }
}

/// What to set and what to clear so that a bind has exactly `flags`, as `mount --bind -o remount` would: access times
/// stay as they are unless `flags` names them.
pub(super) fn exact_attributes(flags: MountFlags) -> (u64, u64) {
    let all = PLAIN.iter().fold(0, |all, (_, attribute)| all | attribute);
    if flags.intersects(MountFlags::ATIME) {
        (attributes(flags), all | attr::ATIME | attr::NODIRATIME)
    } else {
        (attributes(flags) & !attr::ATIME, all)
    }
}

/// Flags that belong to the file system and not to the mount, by the names that fsconfig(2) has for them.
/// `MS_I_VERSION` and `MS_SILENT` have none: the first is each file system's own option now, the second is about the
/// kernel's log.
pub(super) fn file_system_flags(flags: MountFlags) -> impl Iterator<Item = &'static str> {
    [
        (MountFlags::READ_ONLY, "ro"),
        (MountFlags::SYNCHRONOUS, "sync"),
        (MountFlags::MANDATORY_LOCKS, "mand"),
        (MountFlags::DIR_SYNC, "dirsync"),
        (MountFlags::LAZY_TIME, "lazytime"),
    ]
    .into_iter()
    .filter(move |(flag, _)| flags.intersects(*flag))
    .map(|(_, name)| name)
}

/// The flags that a mount has, from the `ST_*` flags of statvfs(3).
pub(super) fn flags_of_mount(status: u64) -> MountFlags {
    let mut flags = MountFlags::NONE;
    for (bit, flag) in [
        (1, MountFlags::READ_ONLY),
        (2, MountFlags::NO_SUID),
        (4, MountFlags::NO_DEV),
        (8, MountFlags::NO_EXEC),
        (16, MountFlags::SYNCHRONOUS),
        (64, MountFlags::MANDATORY_LOCKS),
        (1024, MountFlags::NO_ATIME),
        (2048, MountFlags::NO_DIR_ATIME),
        (4096, MountFlags::REL_ATIME),
        (8192, MountFlags::NO_SYMLINK_FOLLOW),
    ] {
        if status & bit != 0 {
            flags = flags.union(flag);
        }
    }
    if !flags.intersects(MountFlags::ATIME_CHOICE) {
        flags = flags.union(MountFlags::STRICT_ATIME);
    }
    flags
}

/// The options of a file system, as mount(2) would split `data`: at commas, but for those in the quotes of an SELinux
/// context and, for overlayfs, those after a backslash.
pub(super) fn parameters<'a>(kind: &str, data: &'a str) -> Vec<Parameter<'a>> {
    let mut parameters = Vec::new();
    let (mut start, mut quoted, mut escaped) = (0, false, false);
    let mut add = |option: &'a str| {
        if option.is_empty() {
            return;
        }
        parameters.push(match option.split_once('=') {
            None => Parameter::Flag(option),
            Some((key, value)) => Parameter::Text(key, unquoted(key, value)),
        });
    };
    for (index, byte) in data.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if kind == "overlay" => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                add(&data[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    add(&data[start..]);
    parameters
}

/// The options that hold SELinux contexts, whose values may be in quotes.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

fn unquoted<'a>(key: &str, value: &'a str) -> &'a str {
    if !CONTEXTS.contains(&key) {
        return value;
    }
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_times_follow_mount_2() {
        assert_eq!(attributes(MountFlags::NONE), 0);
        assert_eq!(attributes(MountFlags::NO_ATIME), 0x10);
        assert_eq!(attributes(MountFlags::NO_ATIME.union(MountFlags::STRICT_ATIME)), 0x20);
        let (set, clear) = exact_attributes(MountFlags::READ_ONLY);
        assert_eq!((set, clear), (1, 0x20_000f));
        let (set, clear) = exact_attributes(MountFlags::REL_ATIME.union(MountFlags::NO_SUID));
        assert_eq!((set, clear), (2, 0x20_00ff));
    }

    #[test]
    fn a_mount_without_access_time_flags_is_strict() {
        assert_eq!(flags_of_mount(1 | 4096).to_string(), "MS_RDONLY|MS_RELATIME");
        assert_eq!(flags_of_mount(2).to_string(), "MS_NOSUID|MS_STRICTATIME");
    }

    #[test]
    fn options_are_split_as_the_kernel_splits_them() {
        let parsed = parameters("tmpfs", r#"mode=755,,newinstance,context="u:r:t:s0:c1,c2",size=1k"#);
        assert_eq!(
            parsed,
            [
                Parameter::Text("mode", "755"),
                Parameter::Flag("newinstance"),
                Parameter::Text("context", "u:r:t:s0:c1,c2"),
                Parameter::Text("size", "1k"),
            ]
        );
        assert_eq!(
            parameters("overlay", r"lowerdir=/a\,b:/c,index=off"),
            [Parameter::Text("lowerdir", r"/a\,b:/c"), Parameter::Text("index", "off")]
        );
        assert_eq!(parameters("tmpfs", ""), []);
    }

    #[test]
    fn file_system_flags_have_names() {
        let flags = MountFlags::READ_ONLY.union(MountFlags::NO_DEV).union(MountFlags::LAZY_TIME);
        assert_eq!(file_system_flags(flags).collect::<Vec<_>>(), ["ro", "lazytime"]);
    }
}

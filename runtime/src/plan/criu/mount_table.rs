//! The lines of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::plan::mount_flags::MountFlags;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// Its id, as statx(2) tells it.
    pub id: u64,
    /// `major:minor` of its file system.
    pub device: String,
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    /// Where, seen from the root of the process whose table it is.
    pub point: PathBuf,
    /// `ro`, `nosuid`, `nodev` and `noexec`, as far as they are set on the mount itself.
    pub flags: MountFlags,
    /// The file system's name.
    pub kind: String,
}

/// Options of a mount that keep something from a container.
const RESTRICTIONS: [(&str, MountFlags); 4] = [
    ("ro", MountFlags::READ_ONLY),
    ("nosuid", MountFlags::NO_SUID),
    ("nodev", MountFlags::NO_DEV),
    ("noexec", MountFlags::NO_EXEC),
];

/// Those of `flags` that keep something from a container.
#[must_use]
pub fn restrictions(flags: MountFlags) -> MountFlags {
    RESTRICTIONS.iter().fold(MountFlags::NONE, |kept, (_, flag)| kept.union(flags.intersection(*flag)))
}

/// All mounts of a table, in its order. A line that makes no sense is no mount.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<MountLine> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| Some(std::str::from_utf8(field).ok()?.to_owned());
    let id = text(fields.next()?)?.parse().ok()?;
    let device = text(fields.nth(1)?)?;
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let options = text(fields.next()?)?;
    let set = |name: &str| options.split(',').any(|option| option == name);
    let flags = RESTRICTIONS
        .iter()
        .filter(|(name, _)| set(name))
        .fold(MountFlags::NONE, |flags, (_, flag)| flags.union(*flag));
    let kind = text(fields.skip_while(|field| *field != b"-").nth(1)?)?;
    Some(MountLine { id, device, root, point, flags, kind })
}

/// mountinfo writes blanks, newlines and backslashes as three octal digits.
#[must_use]
pub fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(&byte) = field.get(at) {
        let code = field
            .get(at + 1..at + 4)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// A place of the host by its file system: the same whatever path leads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `major:minor` of the file system.
    pub device: String,
    /// The path in the file system.
    pub path: PathBuf,
}

impl Place {
    /// The place of `path`, absolute and without symlinks, which is on the mount `line`.
    #[must_use]
    pub fn on(line: &MountLine, path: &Path) -> Option<Self> {
        let below = path.strip_prefix(&line.point).ok()?;
        Some(Self { device: line.device.clone(), path: line.root.join(below) })
    }

    /// Whether `line` shows this place or something below it.
    #[must_use]
    pub fn contains(&self, line: &MountLine) -> bool {
        self.device == line.device && line.root.starts_with(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let table =
            b"36 35 98:0 /mnt1/a\\040b /mnt2 ro,noexec,noatime master:1 shared:7 - ext4 /dev/root rw\n\
            nonsense\n40 36 0:5 /null /proc/kcore rw,nosuid - devtmpfs dev rw\n";
        let lines = parse(table);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].id, 36);
        assert_eq!(lines[0].device, "98:0");
        assert_eq!(lines[0].root, Path::new("/mnt1/a b"));
        assert_eq!(lines[0].point, Path::new("/mnt2"));
        assert_eq!(lines[0].flags, MountFlags::READ_ONLY.union(MountFlags::NO_EXEC));
        assert_eq!(lines[0].kind, "ext4");
        assert_eq!((lines[1].flags, lines[1].kind.as_str()), (MountFlags::NO_SUID, "devtmpfs"));
        assert_eq!(unescape(b"a\\134b\\0"), Path::new("a\\b\\0"));
    }

    #[test]
    fn places_are_compared_by_whole_names() {
        let line = |root: &str| MountLine {
            id: 1,
            device: "8:1".into(),
            root: root.into(),
            point: "/x".into(),
            flags: MountFlags::NONE,
            kind: "ext4".into(),
        };
        let place = Place::on(&line("/vol"), Path::new("/x/data")).unwrap();
        assert_eq!(place.path, Path::new("/vol/data"));
        assert!(place.contains(&line("/vol/data")) && place.contains(&line("/vol/data/a")));
        assert!(!place.contains(&line("/vol/data2")) && !place.contains(&line("/vol")));
        assert_eq!(Place::on(&line("/"), Path::new("/y")), None);
    }
}

//! What is at a path of a container's: [`PathStat`], as clients get it beside an archive.

use std::collections::VecDeque;
use std::io;

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use rustix::io::Errno;
use serde::Serialize;

use super::View;
use crate::paths::clean;
use crate::timestamp::Timestamp;

/// A path, with its NUL (limits.h `PATH_MAX`).
const LONGEST: usize = 4096;
/// As many links as are followed in one path.
const LINKS: usize = 255;

/// A file as Go's `os.FileInfo` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStat {
    /// The path's last component.
    pub name: String,
    /// In bytes.
    pub size: i64,
    /// Go's `os.FileMode`.
    pub mode: u32,
    /// When it was changed.
    pub mtime: Timestamp,
    /// Of a link: where it leads in the end, as far as that is there.
    #[serde(rename = "linkTarget")]
    pub link_target: String,
}

impl PathStat {
    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.mode & 1 << 31 != 0
    }
}

/// An absolute path, cleaned, which keeps a `/` or `/.` at its end: that says that it is meant to be a folder.
#[must_use]
pub fn absolute(path: &str) -> String {
    let mut cleaned = clean(path);
    if base(path) == "." {
        cleaned.push_str(if cleaned.ends_with('/') { "." } else { "/." });
    }
    if path.ends_with('/') && !cleaned.ends_with('/') {
        cleaned.push('/');
    }
    cleaned
}

/// A path's last component, as Go's `filepath.Base` has it.
pub(super) fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}

impl View {
    /// What is at a path; its last component is not followed, but where a slash is behind it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stat(&self, path: &str) -> io::Result<PathStat> {
        let about = fstat(self.look_up(path, OFlags::PATH | OFlags::NOFOLLOW)?)?;
        let is_link = FileType::from_raw_mode(about.st_mode) == FileType::Symlink;
        Ok(PathStat {
            name: base(path).to_owned(),
            size: about.st_size,
            mode: go_mode(about.st_mode),
            mtime: Timestamp::new(about.st_mtime, u32::try_from(about.st_mtime_nsec).unwrap_or_default()),
            link_target: if is_link { self.followed(path)? } else { String::new() },
        })
    }

    /// The path with all links followed, whether what they lead to is there or not. For clients to read; never used here.
    fn followed(&self, path: &str) -> io::Result<String> {
        let mut left: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let (mut done, mut links) = (String::new(), 0);
        while let Some(part) = left.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.truncate(done.rfind('/').unwrap_or_default());
                    continue;
                }
                _ => {}
            }
            let whole = format!("{done}/{part}");
            // The kernel's bound of a path: links that name long ones would have the work grow with their square.
            if whole.len() >= LONGEST {
                return Err(Errno::NAMETOOLONG.into());
            }
            let target = self
                .look_up(&whole, OFlags::PATH | OFlags::NOFOLLOW)
                .ok()
                .filter(|file| {
                    fstat(file).is_ok_and(|about| FileType::from_raw_mode(about.st_mode) == FileType::Symlink)
                })
                .map(|file| readlinkat(file, c"", Vec::new()))
                .transpose()?;
            let Some(target) = target else {
                done = whole;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(io::Error::other(format!("evalSymlinksInScope: too many links in {path}")));
            }
            let target = target.to_string_lossy().into_owned();
            if target.starts_with('/') {
                done.clear();
            }
            for part in target.rsplit('/') {
                left.push_front(part.to_owned());
            }
        }
        Ok(if done.is_empty() { "/".to_owned() } else { done })
    }
}

/// Go keeps what a file is in the upper bits, one for each.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let marks = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let marks = marks.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, mark)| mark);
    marks.fold(mode & 0o777 | kind, |all, mark| all | mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_say_that_they_are_folders() {
        for (given, wanted) in [
            ("a", "/a"),
            ("/a/../b", "/b"),
            ("/a/", "/a/"),
            ("/a/.", "/a/."),
            ("/a/./", "/a/./"),
            ("/", "/"),
            (".", "/."),
            ("/.", "/."),
            ("../..", "/"),
        ] {
            assert_eq!(absolute(given), wanted, "{given}");
        }
        for (given, wanted) in [("/a/b", "b"), ("/a/b/", "b"), ("/", "/"), ("/a/.", "."), ("", ".")] {
            assert_eq!(base(given), wanted, "{given}");
        }
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 0x8000_01ed);
        assert_eq!(go_mode(0o041_777), 0x8010_01ff);
        assert_eq!(go_mode(0o120_777), 0x0800_01ff);
        assert_eq!(go_mode(0o104_755), 0x0080_01ed);
        assert_eq!(go_mode(0o020_666), 0x0420_01b6);
    }
}

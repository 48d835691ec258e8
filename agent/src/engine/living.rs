//! Whether a container's processes live, by the kernel's word alone: for when no shim can be asked, as none can be started or
//! reached. Called by `takeover` and `ending`, which kill nothing that lives for want of a shim.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::blocking::blocking;

/// Whether a process is in the container's cgroup. What can't be looked at, for want of descriptors or memory, counts as one.
pub(super) async fn lives(id: &str) -> bool {
    let id = id.to_owned();
    blocking(move || Ok(any(Path::new("/proc"), &id))).await.unwrap_or(true)
}

fn any(processes: &Path, id: &str) -> bool {
    let Ok(mut entries) = fs::read_dir(processes) else { return true };
    entries.any(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit) && is_of(&entry.path(), id)
        })
    })
}

/// The id is in the name of the cgroup, and in no other's; a dead one that nobody has waited for yet is there, too.
fn is_of(process: &Path, id: &str) -> bool {
    let says = |name: &str, so: &dyn Fn(&str) -> bool| match fs::read(process.join(name)) {
        Ok(text) => so(&String::from_utf8_lossy(&text)),
        Err(error) => !has_gone(&error),
    };
    says("cgroup", &|text| text.contains(id)) && says("stat", &|text| !is_dead(text))
}

fn has_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The state is behind the name, which may have any letters.
fn is_dead(stat: &str) -> bool {
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Folder;

    #[test]
    fn processes_are_known_by_their_cgroup() {
        let folder = Folder::new("living");
        let process = |pid: &str, cgroup: &str, stat: &str| {
            let process = folder.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("cgroup"), cgroup).unwrap();
            fs::write(process.join("stat"), stat).unwrap();
        };
        process("1", "4:pids:/\n0::/init.scope\n", "1 (systemd) S 0");
        process("20", "0::/docker/dead\n", "20 (Z) S) Z 1");
        process("300", "4:pids:/docker/alive/inner\n0::/\n", "300 (a) Z b) S 1");
        process("self", "0::/docker/other\n", "300 (x) S 1");
        for (id, wanted) in [("alive", true), ("dead", false), ("other", false), ("nobody", false)] {
            assert_eq!(any(folder.path(), id), wanted, "{id}");
        }
        assert!(any(&folder.path().join("nothing"), "x"), "what can't be looked at is not dead");
        assert!(!any(Path::new("/proc"), "an-id-of-no-cgroup"));
    }

    #[test]
    fn what_can_not_be_read_is_not_dead() {
        let folder = Folder::new("living");
        let process = folder.path().join("1");
        fs::create_dir(&process).unwrap();
        fs::create_dir(process.join("cgroup")).unwrap();
        fs::write(process.join("stat"), "1 (x) S 0").unwrap();
        assert!(any(folder.path(), "x"));
        fs::remove_dir(process.join("cgroup")).unwrap();
        assert!(!any(folder.path(), "x"), "it has gone");
    }
}

//! The processes of a bundle that nobody can call any more: a shim that hangs, one whose address was never written, and what they
//! run. They are known by their folder and their program: an administrator's shell may stand in a bundle, too.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::warn;

/// How often a death is looked for.
const BEAT: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Strays {
    /// Where they work.
    pub bundle: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// Those that it may run.
    pub runtimes: Vec<PathBuf>,
}

impl Strays {
    /// Kills them, and waits that long at most until they are dead. Blocks.
    pub fn end(&self, patience: Duration) {
        let Ok(entries) = std::fs::read_dir("/proc") else { return };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut killed = Vec::new();
        for pid in pids.filter_map(Pid::from_raw).filter(|pid| self.has(*pid)) {
            // Asked again once the number can't be another's.
            if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
                && self.has(pid)
            {
                warn!("process {} is killed: {} is its folder", pid.as_raw_nonzero(), self.bundle.display());
                let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
                killed.push(pid);
            }
        }
        let deadline = Instant::now() + patience;
        // A dead one has no folder, even while nobody has waited for it.
        while killed.iter().any(|pid| self.has(*pid)) && Instant::now() < deadline {
            std::thread::sleep(BEAT);
        }
    }

    fn has(&self, pid: Pid) -> bool {
        let folder = format!("/proc/{}", pid.as_raw_nonzero());
        let at = std::fs::read_link(format!("{folder}/cwd"));
        at.is_ok_and(|at| at == self.bundle) && self.runs(Path::new(&folder))
    }

    /// Whether a process's program is one of ours: the same file, one that was there before an upgrade, or the copy that a runtime
    /// makes of itself.
    fn runs(&self, process: &Path) -> bool {
        let exe = process.join("exe");
        let Ok(link) = std::fs::read_link(&exe) else { return false };
        let link = link.to_string_lossy().into_owned();
        let file = std::fs::metadata(&exe).ok().map(|file| (file.dev(), file.ino()));
        std::iter::once(&self.shim).chain(&self.runtimes).any(|program| {
            is_program(&link, program) || {
                let ours = std::fs::metadata(program).ok().map(|file| (file.dev(), file.ino()));
                ours.is_some() && ours == file
            }
        })
    }
}

/// Whether what the kernel calls a process's program is this one, by its name.
fn is_program(link: &str, program: &Path) -> bool {
    let Some(name) = program.file_name().map(|name| name.to_string_lossy()) else { return false };
    let link = link.strip_suffix(" (deleted)").unwrap_or(link);
    match link.strip_prefix("/memfd:") {
        Some(copy) => copy.starts_with(&*name),
        None => link.rsplit('/').next() == Some(&*name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    #[test]
    fn names_of_programs() {
        let is = |link| is_program(link, Path::new("/usr/bin/ketch"));
        for link in ["/usr/bin/ketch", "/opt/ketch (deleted)", "/memfd:ketch (deleted)", "/ketch"] {
            assert!(is(link), "{link}");
        }
        for link in ["/usr/bin/ketchd", "/usr/bin/bash", "/memfd:bash (deleted)", "/"] {
            assert!(!is(link), "{link}");
        }
    }

    #[test]
    fn who_only_stands_there_lives_on() {
        let bundle = std::env::temp_dir().join(format!("ketchd-strays-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let sleep = |program: &Path| -> Child {
            Command::new(program).arg("1000").current_dir(&bundle).spawn().unwrap()
        };
        let shim = bundle.join("shim");
        let _size = std::fs::copy("/bin/sleep", &shim).unwrap();
        let (mut its, mut others) = (sleep(&shim), sleep(Path::new("/bin/sleep")));
        let strays = Strays { bundle: bundle.clone(), shim, runtimes: Vec::new() };
        let pid = |child: &Child| Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(strays.has(pid(&its)) && !strays.has(pid(&others)));
        strays.end(Duration::from_secs(30));
        assert!(!strays.has(pid(&its)));
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        for child in [&mut its, &mut others] {
            let _status = child.wait().unwrap();
        }
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}

//! User namespaces that the shim makes itself, for roots whose owners are mapped and for pods. Such a namespace needs a process
//! that is born into it: this program, executed once more, enters a new one and waits until the shim has written the
//! mappings and holds a descriptor. The shim's own process never leaves its namespace.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ketch_shim_sys::WatchedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bootstrap;
use crate::error::ShimError;
use crate::reaper::{self, Reaper};

/// The word that makes this program hold a user namespace.
const HOLD: &str = "-hold-user-namespace";
/// How long it may take to be in there.
const READY: Duration = Duration::from_secs(10);
/// How many ranges the kernel takes (user_namespaces(7)).
const MOST: usize = 340;

/// A range of ids, and what they are outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) length: u32,
}

/// Which users and groups of a namespace are which outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mappings {
    users: Vec<Range>,
    groups: Vec<Range>,
}

impl Mappings {
    /// Checks what the kernel would refuse without a reason.
    ///
    /// # Errors
    /// What is wrong, in words: none or too many ranges, an empty one, or one beyond the last id.
    pub(crate) fn new(users: Vec<Range>, groups: Vec<Range>) -> Result<Self, String> {
        for (kind, ranges) in [("user", &users), ("group", &groups)] {
            match ranges.len() {
                0 => return Err(format!("no {kind} ids are mapped")),
                1..=MOST => {}
                count => return Err(format!("{count} ranges of {kind} ids; the kernel takes {MOST}")),
            }
            for Range { inside, outside, length } in ranges {
                let fits = |first: &u32| first.checked_add(*length).is_some();
                if *length == 0 || !fits(inside) || !fits(outside) {
                    return Err(format!("{inside}:{outside}:{length} is no range of {kind} ids"));
                }
            }
        }
        Ok(Self { users, groups })
    }

    /// Reads `<inside>:<outside>:<length>[,...]`, as the options of mounts have it.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(crate) fn parse(users: &str, groups: &str) -> Result<Self, String> {
        Self::new(ranges(users)?, ranges(groups)?)
    }

    /// As config.json has them: those of users, and those of groups.
    pub(crate) fn in_spec(&self) -> (Value, Value) {
        let all = |ranges: &[Range]| {
            let one = |range: &Range| json!({"containerID": range.inside, "hostID": range.outside, "size": range.length});
            ranges.iter().map(one).collect()
        };
        (all(&self.users), all(&self.groups))
    }

    /// The user and the group that are 0 inside, as they are outside.
    pub(crate) fn root(&self) -> Option<(u32, u32)> {
        let root =
            |ranges: &[Range]| ranges.iter().find(|range| range.inside == 0).map(|range| range.outside);
        Some((root(&self.users)?, root(&self.groups)?))
    }
}

fn ranges(text: &str) -> Result<Vec<Range>, String> {
    text.split(',')
        .map(|one| range(one).ok_or_else(|| format!("{one:?} is not <id>:<id>:<length>")))
        .collect()
}

fn range(text: &str) -> Option<Range> {
    let mut numbers = text.split(':').map(|number| {
        // A sign is no digit to us, and is to `parse`.
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()
    });
    let (inside, outside, length) = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(Range { inside, outside, length })
}

/// As the kernel's files have it.
fn lines(ranges: &[Range]) -> String {
    let mut text = String::new();
    for Range { inside, outside, length } in ranges {
        let _infallible = writeln!(text, "{inside} {outside} {length}");
    }
    text
}

/// Makes a user namespace; it lives as long as the descriptor, or what is made from it.
///
/// # Errors
/// There may be no more of them, the kernel refuses the mappings (ranges that overlap), or the process does not answer.
pub(crate) async fn make(mappings: &Mappings, reaper: &Reaper) -> Result<OwnedFd, ShimError> {
    let no_holder = "start the holder of a user namespace";
    let (said, their_out) = pipe_with(PipeFlags::CLOEXEC).map_err(ShimError::system(no_holder))?;
    let their_err = their_out.try_clone().map_err(ShimError::system(no_holder))?;
    let mut command = Command::new(bootstrap::THIS_PROGRAM);
    command
        .arg0(bootstrap::program_name())
        .arg(HOLD)
        .stdin(Stdio::piped())
        .stdout(their_out)
        .stderr(their_err);
    let mut child = command.spawn().map_err(ShimError::system(no_holder))?;
    // Our copies of its descriptors: what it says would never end.
    drop(command);
    let pid = i32::try_from(child.id()).unwrap_or(0);
    let ending = reaper.watch(pid);
    // It ends with this.
    let held = child.stdin.take();
    let answer = match tokio::time::timeout(READY, first_words(said)).await {
        Ok(answer) => answer.map_err(ShimError::system(no_holder)),
        Err(_) => Err(ShimError::Deadline("the holder of a user namespace is not ready".into())),
    };
    let made = match answer {
        Ok(words) if words == IN_THERE => map(pid, mappings),
        Ok(words) => Err(ShimError::Precondition(format!(
            "hold a user namespace: {}",
            String::from_utf8_lossy(&words).trim()
        ))),
        Err(error) => Err(error),
    };
    drop(held);
    if made.is_err() {
        reaper::kill(pid, &ending, "a user namespace").await;
    }
    made
}

/// What the process says when it is in there; anything else is an error's text.
const IN_THERE: &[u8] = b"\n";

async fn first_words(said: OwnedFd) -> std::io::Result<Vec<u8>> {
    rustix::io::ioctl_fionbio(&said, true)?;
    let said = WatchedFd::new(said)?;
    let mut words = vec![0; 512];
    loop {
        match rustix::io::read(said.get_ref(), &mut words) {
            Ok(count) => {
                words.truncate(count);
                return Ok(words);
            }
            Err(Errno::AGAIN) => said.readable().await?.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Nothing is reaped in between, so that the number is the child's.
fn map(pid: i32, mappings: &Mappings) -> Result<OwnedFd, ShimError> {
    for (file, ranges) in [("uid_map", &mappings.users), ("gid_map", &mappings.groups)] {
        let path = format!("/proc/{pid}/{file}");
        let path = Path::new(&path);
        std::fs::write(path, lines(ranges)).map_err(ShimError::file("write the mappings to", path))?;
    }
    let path = format!("/proc/{pid}/ns/user");
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| ShimError::file("open the namespace", path.as_ref())(error.into()))
}

/// The user namespace that the namespace at `path` belongs to; none if that is this process's own.
///
/// # Errors
/// There is no namespace, or it belongs to one above.
pub(crate) fn owner_of(path: &Path) -> std::io::Result<Option<OwnedFd>> {
    let owner = File::from(ketch_shim_sys::owner_of_namespace(File::open(path)?)?);
    let is_ours = owner.metadata()?.ino() == std::fs::metadata("/proc/self/ns/user")?.ino();
    Ok((!is_ours).then(|| owner.into()))
}

/// Whether this process is to hold a user namespace.
pub(crate) fn asked(words: &[OsString]) -> bool {
    words.get(1).map(OsString::as_os_str) == Some(OsStr::new(HOLD))
}

/// Enters a new user namespace, says so on standard output, and stays until standard input ends.
///
/// # Errors
/// There may be no more of them.
pub(crate) fn hold() -> Result<(), ShimError> {
    ketch_shim_sys::enter_new_user_namespace().map_err(ShimError::system("make a user namespace"))?;
    let told = ShimError::system("tell the shim");
    std::io::stdout().write_all(IN_THERE).and_then(|()| std::io::stdout().flush()).map_err(told)?;
    let _ended = std::io::stdin().read(&mut [0]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, length: u32) -> Range {
        Range { inside, outside, length }
    }

    #[test]
    fn ranges_are_read_and_written() {
        let mappings = Mappings::parse("0:100000:65536,65536:7:1", "0:5:1").unwrap();
        assert_eq!(mappings.users, [range(0, 100_000, 65536), range(65536, 7, 1)]);
        assert_eq!(lines(&mappings.users), "0 100000 65536\n65536 7 1\n");
        assert_eq!(mappings.root(), Some((100_000, 5)));
    }

    #[test]
    fn what_is_no_range_is_said() {
        let wrong =
            ["", "0", "0:1", "0:1:2:3", "a:1:2", "0:1:-2", "+0:1:2", "0:1:2,", " 0:1:2", "4294967296:0:1"];
        for text in wrong {
            let error = Mappings::parse(text, "0:1:2").unwrap_err();
            assert!(error.contains("is not"), "{text:?}: {error}");
        }
        assert!(Mappings::parse("0:1:2", "0:1:x").unwrap_err().contains("0:1:x"));
    }

    #[test]
    fn what_this_process_owns_is_its_own() {
        // In a container the network may belong to a namespace above.
        if let Ok(owner) = owner_of("/proc/self/ns/net".as_ref()) {
            assert!(owner.is_none());
        }
        assert!(owner_of("/dev/null".as_ref()).is_err());
    }

    #[test]
    fn ranges_are_within_the_kernels_bounds() {
        for text in ["0:1:0", "4294967295:0:1", "0:4294967000:1000"] {
            let error = Mappings::parse("0:1:2", text).unwrap_err();
            assert!(error.contains("group") && error.contains(text), "{error}");
        }
        let many = |count: u32| (0..count).map(|id| range(id, id, 1)).collect::<Vec<_>>();
        assert!(Mappings::new(many(340), many(1)).is_ok());
        assert!(Mappings::new(many(341), many(1)).unwrap_err().contains("340"));
        assert!(Mappings::new(Vec::new(), many(1)).unwrap_err().contains("user"));
    }
}

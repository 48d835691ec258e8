//! A user namespace of a container, with a network namespace that it owns. A process with threads can't enter one, so this
//! very program is executed once more, under another name: [`hold`] enters both and stays, in them, until the daemon lets go
//! of its end, which is when the container's own processes are in them; or until the daemon dies.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::{Error, Kind, Result};
use crate::remap::{Ids, Range};

/// The name under which this program is the holder.
pub const NAME: &str = "ketchd-user-namespace";
/// The line that the holder says when it is in there; any other is why it is not.
const IN_THERE: &str = "in there\n";
/// As long as its words may be.
const LONGEST: u64 = 512;

/// Which user namespace.
#[derive(Debug)]
pub(crate) enum Which<'a> {
    /// A new one.
    New(&'a Ids),
    /// The one of this file.
    At(&'a Path),
}

/// The process; it ends with this.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Holder {
    /// Starts one. Blocks, for the few milliseconds that it takes.
    ///
    /// # Errors
    /// There may be no more user namespaces; the kernel refuses.
    pub(crate) fn start(which: &Which<'_>) -> Result<Self> {
        let failed = |error: io::Error| Error::internal("making a user namespace", &error);
        // By its open file: an update takes what is at the path away.
        let mut command = Command::new("/proc/self/exe");
        let _command =
            command.arg0(NAME).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        if let Which::At(path) = which {
            let _command = command.arg(path);
        }
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, said) = (child.stdin.take(), child.stdout.take());
        let holder = Self { child, stdin };
        let mut words = String::new();
        if let Some(said) = said {
            let _length = BufReader::new(said.take(LONGEST)).read_line(&mut words).map_err(failed)?;
        }
        if words != IN_THERE {
            return Err(Error::new(Kind::Internal, format!("making a user namespace: {}", words.trim())));
        }
        if let Which::New(ids) = which {
            let (users, groups) = ids.ranges();
            for (file, ranges) in [("uid_map", users), ("gid_map", groups)] {
                let path = holder.file(file);
                std::fs::write(&path, lines(ranges))
                    .map_err(|error| Error::internal(format_args!("writing {}", path.display()), &error))?;
            }
        }
        Ok(holder)
    }

    /// The user namespace's file.
    pub(crate) fn users(&self) -> PathBuf {
        self.file("ns/user")
    }

    /// The network namespace's.
    pub(crate) fn network(&self) -> PathBuf {
        self.file("ns/net")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ended = self.child.wait();
    }
}

/// As the kernel's files have it.
fn lines(ranges: &[Range]) -> String {
    let line = |range: &Range| format!("{} {} {}\n", range.inside, range.outside, range.length);
    ranges.iter().map(line).collect()
}

/// What the holder does; its one argument is the file of a user namespace, or there is none for a new one.
pub fn hold(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let entered = enter(arguments.next().as_deref().map(Path::new));
    let mut output = io::stdout();
    let told = match &entered {
        Ok(()) => output.write_all(IN_THERE.as_bytes()),
        Err(error) => writeln!(output, "{error}"),
    };
    let told = told.and_then(|()| output.flush());
    if entered.is_err() || told.is_err() {
        return ExitCode::FAILURE;
    }
    let _ended = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn enter(there: Option<&Path>) -> io::Result<()> {
    let mut made = UnshareFlags::NEWNET;
    match there {
        Some(path) => {
            let users = File::open(path)?;
            rustix::thread::move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        None => made |= UnshareFlags::NEWUSER,
    }
    #[expect(deprecated, reason = "unsafe for CLONE_FILES and the like only; this process has one thread")]
    Ok(rustix::thread::unshare(made)?)
}

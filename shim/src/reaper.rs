//! The one who reaps: every child of the shim, the runtimes it has started and, as it is their subreaper, the processes of
//! its containers. A status goes to whom it belongs in the moment of the reaping, so that nobody ever signals a number that
//! may be another's by then.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ketch_runtime_client::{Children, Outcome};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, kill_process, wait, waitid,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::log;
use crate::waiting::Changes;

/// How long a killed process may take to be gone.
const GRACE: Duration = Duration::from_secs(5);

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) pid: i32,
    /// The exit code, or 128 and the signal.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

/// Where a process's end will be known.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    exit: Cell<Option<Exit>>,
    known: Changes,
}

impl Ending {
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.exit.get()
    }

    pub(crate) fn set(&self, exit: Exit) {
        self.exit.set(Some(exit));
        self.known.tell();
    }

    pub(crate) async fn wait(&self) -> Exit {
        self.known.until(|| self.exit.get()).await
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    awaited: RefCell<BTreeMap<i32, Rc<Ending>>>,
    /// Ends of processes that nobody has asked for yet, kept while a runtime is starting one.
    unclaimed: RefCell<BTreeMap<i32, Exit>>,
    holds: Cell<usize>,
}

/// While there is one, no end is forgotten; see [`Reaper::hold`].
#[derive(Debug)]
pub(crate) struct Hold<'a>(&'a Reaper);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let left = self.0.holds.get() - 1;
        self.0.holds.set(left);
        if left == 0 {
            self.0.unclaimed.borrow_mut().clear();
        }
    }
}

impl Reaper {
    /// From before a runtime is started until its process has been asked for: it may end at once.
    pub(crate) fn hold(&self) -> Hold<'_> {
        self.holds.set(self.holds.get() + 1);
        Hold(self)
    }

    /// Where the end of `pid` will be known, a child of this process's or of its containers.
    pub(crate) fn watch(&self, pid: i32) -> Rc<Ending> {
        let ending = Rc::new(Ending::default());
        // That of an earlier process of this number, as long as this one has not been reaped.
        let unclaimed = self.unclaimed.borrow_mut().remove(&pid).filter(|_| !is_child(pid));
        match unclaimed {
            Some(exit) => ending.set(exit),
            None => drop(self.awaited.borrow_mut().insert(pid, Rc::clone(&ending))),
        }
        ending
    }

    /// Reaps for ever.
    ///
    /// # Errors
    /// SIGCHLD can't be waited for.
    pub(crate) async fn run(&self) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(status) = status_of(status) {
                self.ended(Exit { pid: pid.as_raw_nonzero().get(), status, at: SystemTime::now() });
            }
        }
    }

    fn ended(&self, exit: Exit) {
        if let Some(ending) = self.awaited.borrow_mut().remove(&exit.pid) {
            ending.set(exit);
        } else if self.holds.get() > 0 {
            self.unclaimed.borrow_mut().insert(exit.pid, exit);
        }
    }
}

/// Ends a process of `whose` that is watched: as long as it has not been reaped the number is its own.
pub(crate) async fn kill(pid: i32, ending: &Ending, whose: &str) {
    if let (None, Some(number)) = (ending.exit(), Pid::from_raw(pid)) {
        let _ended = kill_process(number, Signal::KILL);
    }
    if tokio::time::timeout(GRACE, ending.wait()).await.is_err() {
        log::error(&format!("process {pid} of {whose} does not end"));
    }
}

/// Whether there is a child of this number that was not reaped, ended or not.
fn is_child(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Pid::from_raw(pid).is_some_and(|pid| waitid(WaitId::Pid(pid), options).is_ok())
}

/// As shells and containerd have it; none for a process that has not ended.
fn status_of(status: WaitStatus) -> Option<u32> {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))?;
    u32::try_from(code).ok()
}

/// The same for a status as the kernel has it.
pub(crate) fn status_of_raw(status: i32) -> u32 {
    let (code, signal) = (status >> 8 & 0xff, status & 0x7f);
    let status = if signal == 0 { code } else { 128 + signal };
    status.unsigned_abs()
}

impl Children for Reaper {
    async fn run(&self, command: &mut Command, deadline: Duration) -> io::Result<Outcome> {
        // Nothing is reaped between these two lines: there is one thread, and no await.
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        let ending = self.watch(pid);
        if let Ok(exit) = tokio::time::timeout(deadline, ending.wait()).await {
            return Ok(Outcome::Ended(exit.status));
        }
        kill(pid, &ending, "the runtime").await;
        Ok(Outcome::TimedOut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(pid: i32, status: u32) -> Exit {
        Exit { pid, status, at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn an_end_goes_to_who_waits() {
        let reaper = Reaper::default();
        let ending = reaper.watch(7);
        reaper.ended(exit(8, 1));
        assert_eq!(ending.exit(), None);
        reaper.ended(exit(7, 2));
        assert_eq!(ending.exit().unwrap().status, 2);
    }

    #[test]
    fn an_end_before_the_question_is_kept_while_somebody_starts() {
        let reaper = Reaper::default();
        let hold = reaper.hold();
        reaper.ended(exit(7, 2));
        let second = reaper.hold();
        drop(hold);
        assert_eq!(reaper.watch(7).exit().unwrap().status, 2);
        reaper.ended(exit(9, 3));
        drop(second);
        assert_eq!(reaper.watch(9).exit(), None, "nobody was starting any more");
    }

    #[test]
    fn a_number_that_comes_again_is_another_process() {
        let reaper = Reaper::default();
        let first = reaper.watch(7);
        reaper.ended(exit(7, 1));
        let second = reaper.watch(7);
        reaper.ended(exit(7, 2));
        assert_eq!((first.exit().unwrap().status, second.exit().unwrap().status), (1, 2));
    }

    #[test]
    fn an_end_that_is_kept_is_not_that_of_a_later_process() {
        let reaper = Reaper::default();
        let _hold = reaper.hold();
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        reaper.ended(exit(pid, 1));
        let ending = reaper.watch(pid);
        assert_eq!(ending.exit(), None);
        let _status = child.wait().unwrap();
        reaper.ended(exit(pid, 2));
        assert_eq!(ending.exit().unwrap().status, 2);
    }

    #[test]
    fn statuses_of_the_kernel() {
        assert_eq!(status_of_raw(7 << 8), 7);
        assert_eq!(status_of_raw(9), 137);
        assert_eq!(status_of_raw(0x80 | 11), 139);
    }
}

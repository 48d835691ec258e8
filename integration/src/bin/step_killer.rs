//! Runs a command and kills one of the processes around it (SIGKILL) as that one enters its n-th system call.
//!
//! `step_killer REPORT child:N STEP COMMAND...` follows the command's descendants, counted in the order of their birth;
//! `step_killer REPORT pid:N STEP COMMAND...` a process that is there already; `threads:N` one of several threads, whose
//! calls are counted together, and only those that change something. Step 0 kills nothing. The steps end at the
//! victim's execve: what follows is the container's program. REPORT gets a line for each step, the kernel's own from
//! `/proc/<pid>/syscall`. The exit code is the command's (128 and the signal when it was killed).
//!
//! strace can do this for one process only: with `-f` it counts for each, and kills whichever comes to that count first.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's program: a failure is its message")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// `PTRACE_EVENT_STOP` and `PTRACE_SYSCALL_INFO_ENTRY` of linux/ptrace.h.
const EVENT_STOP: i32 = 128;
const ENTRY: u8 = 1;

enum Who {
    /// The n-th process to be born.
    Child(usize),
    Pid(Pid),
    /// Every thread of a process, those to come, too.
    Threads(Pid),
}

/// Calls after which the machine is another than before, by number: write, sendto, sendmsg, clone, fork, vfork, fdatasync, rename,
/// mkdir, rmdir, link, unlink, symlink, chmod, chown, mknod, pivot_root, mount, umount2, setxattr and its like, openat, mkdirat,
/// mknodat, fchownat, unlinkat, renameat, linkat, symlinkat, fchmodat, unshare, pwrite64, fsync, setns, renameat2, execveat,
/// move_mount, fsconfig, fsmount, clone3, connect, bind, flock, ftruncate.
const CHANGES: &[u64] = &[
    1, 18, 42, 44, 46, 49, 56, 57, 58, 73, 74, 75, 77, 82, 83, 84, 86, 87, 88, 90, 92, 133, 155, 165, 166,
    188, 189, 190, 257, 258, 259, 260, 263, 264, 265, 266, 268, 272, 308, 316, 322, 429, 431, 432, 435,
];

struct Tracer {
    who: Who,
    /// At which of its steps the victim dies; 0 for none.
    step: usize,
    report: fs::File,
    command: Pid,
    victim: Option<Pid>,
    /// The victim lives, and has not become its program.
    watching: bool,
    steps: usize,
    born: BTreeMap<Pid, usize>,
    /// Stopped at their birth before their parent has told of it.
    early: BTreeSet<Pid>,
    /// Of the victim, all that are followed.
    threads: BTreeSet<Pid>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, report, who, step, command @ ..] = args.as_slice() else { panic!("REPORT WHO STEP COMMAND...") };
    let who = match who.split_once(':').expect("child:N or pid:N") {
        ("child", number) => Who::Child(number.parse().expect("a number")),
        ("pid", number) => Who::Pid(Pid::from_raw(number.parse().expect("a number"))),
        ("threads", number) => Who::Threads(Pid::from_raw(number.parse().expect("a number"))),
        (other, _) => panic!("{other}: neither child nor pid"),
    };
    // Stopped until it is followed: no process of its own can be born unseen.
    let mut shell = Command::new("/bin/sh");
    #[expect(clippy::zombie_processes, reason = "waited for with all the others that are followed")]
    let started =
        shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(command).spawn().expect("start");
    let command = Pid::from_raw(started.id().try_into().expect("a pid"));
    let stopped = waitpid(command, Some(WaitPidFlag::WUNTRACED)).expect("wait for the stop");
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    let mut tracer = Tracer {
        victim: if let Who::Pid(pid) | Who::Threads(pid) = who { Some(pid) } else { None },
        watching: matches!(who, Who::Pid(_) | Who::Threads(_)),
        who,
        step: step.parse().expect("a number"),
        report: fs::File::create(report).expect("the report"),
        command,
        steps: 0,
        born: BTreeMap::new(),
        early: BTreeSet::new(),
        threads: BTreeSet::new(),
    };
    tracer.run()
}

impl Tracer {
    fn run(&mut self) -> ExitCode {
        let births =
            Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
        let steps = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC;
        if let Who::Pid(victim) = self.who {
            ptrace::seize(victim, steps).expect("seize the victim");
            ptrace::interrupt(victim).expect("stop the victim");
        } else if let Who::Threads(victim) = self.who {
            let clones = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
            for entry in fs::read_dir(format!("/proc/{victim}/task")).expect("list the threads").flatten() {
                let thread = entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a thread");
                let thread = Pid::from_raw(thread);
                // One may end meanwhile.
                if ptrace::seize(thread, clones).is_ok() && ptrace::interrupt(thread).is_ok() {
                    self.threads.insert(thread);
                }
            }
        } else {
            ptrace::seize(self.command, births | steps).expect("seize the command");
        }
        kill(self.command, Signal::SIGCONT).expect("continue the command");
        let mut code = None;
        while code.is_none() || (self.watching && matches!(self.who, Who::Pid(_))) {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => code = self.seen(status).or(code),
                Err(Errno::EINTR) => {}
                Err(error) => panic!("wait: {error}"),
            }
        }
        ExitCode::from(code.unwrap_or(255))
    }

    /// Lets whoever has stopped go on. Gives the command's exit code once there is one.
    fn seen(&mut self, status: WaitStatus) -> Option<u8> {
        match status {
            WaitStatus::Exited(pid, code) => return self.ended(pid, u8::try_from(code).unwrap_or(255)),
            WaitStatus::Signaled(pid, signal, _) => return self.ended(pid, 128 + signal as u8),
            WaitStatus::PtraceSyscall(pid) => {
                if ptrace::syscall_info(pid).is_ok_and(|info| info.op == ENTRY) {
                    self.enters(pid);
                }
                self.go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, EVENT_STOP) => {
                if self.is_known(pid) {
                    self.go_on(pid, None);
                } else {
                    self.early.insert(pid);
                }
            }
            WaitStatus::PtraceEvent(pid, _, event) if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 => {
                if self.victim == Some(pid) {
                    self.watching = false;
                }
                self.go_on(pid, None);
            }
            WaitStatus::PtraceEvent(pid, ..) => {
                if let Ok(child) = ptrace::getevent(pid) {
                    self.is_born(Pid::from_raw(child.try_into().expect("a pid")));
                }
                self.go_on(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
            _ => {}
        }
        None
    }

    fn is_victim(&self, pid: Pid) -> bool {
        self.victim == Some(pid) || self.threads.contains(&pid)
    }

    fn is_known(&self, pid: Pid) -> bool {
        pid == self.command || self.is_victim(pid) || self.born.contains_key(&pid)
    }

    fn is_born(&mut self, child: Pid) {
        if matches!(self.who, Who::Threads(_)) {
            self.threads.insert(child);
            if self.early.remove(&child) {
                self.go_on(child, None);
            }
            return;
        }
        let number = self.born.len() + 1;
        self.born.insert(child, number);
        if matches!(self.who, Who::Child(wanted) if wanted == number) {
            self.victim = Some(child);
            self.watching = true;
        }
        if self.early.remove(&child) {
            self.go_on(child, None);
        }
    }

    fn enters(&mut self, pid: Pid) {
        if !self.watching || !self.is_victim(pid) {
            return;
        }
        if matches!(self.who, Who::Threads(_)) {
            let Ok(registers) = ptrace::getregs(pid) else { return };
            let opens_for_reading = registers.orig_rax == 257 && registers.rdx & 0o103 == 0;
            // Eight bytes to an eventfd: one thread wakes another.
            let wakes = registers.orig_rax == 1 && registers.rdx == 8;
            if !CHANGES.contains(&registers.orig_rax) || opens_for_reading || wakes {
                return;
            }
        }
        self.steps += 1;
        let line =
            fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_else(|error| format!("{error}\n"));
        self.report.write_all(line.as_bytes()).expect("write the report");
        if self.steps == self.step {
            kill(self.victim.unwrap_or(pid), Signal::SIGKILL).expect("kill the victim");
        }
    }

    /// It may have been killed in between, which the next wait tells.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let _gone = if self.watching && self.is_victim(pid) {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        };
    }

    fn ended(&mut self, pid: Pid, code: u8) -> Option<u8> {
        self.threads.remove(&pid);
        if self.victim == Some(pid) {
            self.watching = false;
        }
        (pid == self.command).then_some(code)
    }
}

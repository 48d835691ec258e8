//! Processes: clone3(2), pidfds, waitid(2), execve(2), and the prctl(2) switches that concern a process as a whole.
//!
//! Least kernel: 5.7 (`CLONE_INTO_CGROUP`). The callers are single-threaded by design (DESIGN.md section 3), which is
//! what makes [`clone3`] without `CLONE_VM` a plain fork: no lock of the C library can be held by another thread.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::call::{check, retry};
use crate::error::{Errno, SyscallError};

/// A process id as this process sees it.
pub type Pid = libc::pid_t;

/// Which process becomes the parent of a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneParent {
    /// The caller, which gets `SIGCHLD` at the end of the child.
    Caller,
    /// The caller's own parent (`CLONE_PARENT`).
    CallersParent,
}

/// What [`clone3`] is asked for.
#[derive(Debug)]
pub struct CloneOptions<'a> {
    /// `CLONE_NEW*` flags of the namespaces to create.
    pub namespaces: u64,
    /// A cgroup v2 directory in which the child is born (`CLONE_INTO_CGROUP`): it does not pay the RCU grace period
    /// that a write to `cgroup.procs` waits for.
    pub into_cgroup: Option<BorrowedFd<'a>>,
    /// Who waits for the child.
    pub parent: CloneParent,
}

/// The two returns of [`clone3`].
#[derive(Debug)]
pub enum Cloned {
    /// In the caller: the child, held by a pidfd so that its number can't be mistaken for another's.
    Parent(Child),
    /// In the new process.
    Child,
}

/// A child process.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace.
    pub pid: Pid,
    /// Refers to this very process, whatever happens to the number.
    pub pidfd: OwnedFd,
}

/// clone3(2) without shared memory: the child goes on with a copy of everything.
pub fn clone3(options: &CloneOptions<'_>) -> Result<Cloned, SyscallError> {
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero `clone_args` is valid: every field is an integer, and zero means "not asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = options.namespaces | libc::CLONE_PIDFD as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    if options.parent == CloneParent::CallersParent {
        args.flags |= libc::CLONE_PARENT as u64;
        // The kernel refuses an exit signal here: the child inherits the caller's.
        args.exit_signal = 0;
    }
    if let Some(cgroup) = options.into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        #[expect(clippy::cast_sign_loss, reason = "a borrowed fd is never negative")]
        {
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
    }
    // SAFETY: `args` lives across the call and its size is passed; `pidfd` is the only pointer in it and points at a
    // live RawFd. There is no CLONE_VM, so the child has its own copy of the stack and may return from here; the
    // process is single-threaded, so no allocator lock is left held in the child.
    let pid = check("clone3", "", unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has written a new fd of ours to `pidfd` (CLONE_PIDFD), O_CLOEXEC from birth; nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    #[expect(clippy::cast_possible_truncation, reason = "a pid fits pid_t")]
    Ok(Cloned::Parent(Child { pid: pid as Pid, pidfd }))
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The flags with which [`clone_beside`] calls clone(2), for whoever asks a seccomp filter of it: `CLONE_PARENT`.
pub const BESIDE: u64 = libc::CLONE_PARENT as u64;

/// clone(2) of a copy beside this process, whose parent is the caller's own: its number in the caller's pid namespace, or
/// `None` in the new process. Where [`clone3`] is refused, as by seccomp profiles that can't look at its flags, this is not.
pub fn clone_beside() -> Result<Option<Pid>, SyscallError> {
    // SAFETY: no pointers: without a stack of its own the child has a copy of this one, and may return from here; the
    // process is single-threaded, so no allocator lock is left held in the child.
    let pid = check("clone", "", unsafe { libc::syscall(libc::SYS_clone, BESIDE, 0, 0, 0, 0) })?;
    #[expect(clippy::cast_possible_truncation, reason = "a pid fits pid_t")]
    Ok((pid != 0).then_some(pid as Pid))
}

/// pidfd_open(2): a handle on the process that has this number now.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, SyscallError> {
    // SAFETY: no pointers; the result is checked.
    let fd = check("pidfd_open", pid, unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    #[expect(clippy::cast_possible_truncation, reason = "fds fit an int")]
    // SAFETY: a fresh fd of ours, O_CLOEXEC by the call's definition.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<(), SyscallError> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the fd is borrowed for the call; a null siginfo means "as kill(2) would".
    check("pidfd_send_signal", signal, unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0)
    })?;
    Ok(())
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called exit with this code.
    Exited(i32),
    /// A signal killed it.
    Signaled(i32),
}

impl ExitStatus {
    /// The shell's convention, which runc's exit code follows: the code, or 128 plus the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// waitid(2) on a pidfd, blocking until the child has ended; reaps it.
pub fn wait(pidfd: impl AsFd) -> Result<ExitStatus, SyscallError> {
    let id = libc::id_t::try_from(pidfd.as_fd().as_raw_fd()).unwrap_or(libc::id_t::MAX);
    wait_on(libc::P_PIDFD, id, libc::WEXITED).map(|(_, status)| status)
}

/// Reaps any child that has ended, without blocking.
pub fn reap_any() -> Result<Option<(Pid, ExitStatus)>, SyscallError> {
    match wait_on(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG) {
        Ok((0, _)) => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.errno == Errno::ECHILD => Ok(None),
        Err(error) => Err(error),
    }
}

fn wait_on(idtype: libc::idtype_t, id: libc::id_t, options: i32) -> Result<(Pid, ExitStatus), SyscallError> {
    // SAFETY: an all-zero siginfo_t is valid plain data.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    retry("waitid", "", || {
        // SAFETY: `info` is live and writable for the call.
        i64::from(unsafe { libc::waitid(idtype, id, std::ptr::from_mut(&mut info), options) })
    })?;
    // SAFETY: waitid filled `info` for a child event (or left it zeroed with WNOHANG), so the SIGCHLD members are
    // the valid ones of the union.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let status = if info.si_code == libc::CLD_EXITED {
        ExitStatus::Exited(status)
    } else {
        ExitStatus::Signaled(status)
    };
    Ok((pid, status))
}

/// Waits until one of the fds is readable or hung up, or the time is over. The answer has one entry for each fd.
pub fn poll_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Vec<bool>, SyscallError> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            // Rounded up, so that the last wait is not a busy loop of zero milliseconds.
            i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        // SAFETY: the pointer and the length describe the live vector; the fds are borrowed by the caller.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, left) };
        match check("poll", "", ready.into()) {
            Ok(_) => return Ok(polled.iter().map(|entry| entry.revents != 0).collect()),
            Err(error) if error.errno == Errno::EINTR => {}
            Err(error) => return Err(error),
        }
    }
}

/// getpid(2).
#[must_use]
pub fn own_pid() -> Pid {
    // SAFETY: no arguments, never fails. The raw call, as a C library may cache the number across clone3.
    #[expect(clippy::cast_possible_truncation, reason = "a pid fits pid_t")]
    unsafe {
        libc::syscall(libc::SYS_getpid) as Pid
    }
}

/// setsid(2).
pub fn new_session() -> Result<(), SyscallError> {
    // SAFETY: no pointers.
    check("setsid", "", unsafe { libc::setsid() }.into())?;
    Ok(())
}

/// Ends the process at once: no destructors, no atexit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns; nothing runs after it.
    unsafe { libc::_exit(code) }
}

/// A process's memory image, ready to be replaced: everything that execve(2) needs, allocated beforehand.
#[derive(Debug)]
pub struct Exec {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Exec {
    /// Copies the strings into the form that the kernel wants.
    #[must_use]
    pub fn new(path: CString, args: Vec<CString>, env: Vec<CString>) -> Self {
        Self { path, args, env }
    }

    /// execve(2). Returns only on failure.
    #[must_use]
    pub fn replace_process(&self) -> SyscallError {
        let args = pointers(&self.args);
        let env = pointers(&self.env);
        // SAFETY: `path` is NUL-terminated, and both arrays are null-terminated lists of NUL-terminated strings that
        // live in `self` across the call.
        unsafe { libc::execve(self.path.as_ptr(), args.as_ptr(), env.as_ptr()) };
        SyscallError::last("exec", self.path.to_string_lossy().into_owned())
    }

    /// execveat(2) of the file that `fd` refers to. Returns only on failure.
    #[must_use]
    pub fn replace_process_from(&self, fd: BorrowedFd<'_>) -> SyscallError {
        let args = pointers(&self.args);
        let env = pointers(&self.env);
        // SAFETY: as for execve; the empty path with AT_EMPTY_PATH names the borrowed fd itself.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd.as_raw_fd(),
                c"".as_ptr(),
                args.as_ptr(),
                env.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        SyscallError::last("execveat", self.path.to_string_lossy().into_owned())
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// prctl(2) PR_SET_DUMPABLE 0: nobody in a container may ptrace this process or read its /proc entries (CVE-2016-9962).
pub fn set_not_dumpable() -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_DUMPABLE)", libc::PR_SET_DUMPABLE, 0)
}

/// prctl(2) PR_SET_DUMPABLE 1: the process's /proc entries are its user's again.
pub fn set_dumpable() -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_DUMPABLE)", libc::PR_SET_DUMPABLE, 1)
}

/// prctl(2) PR_SET_NO_NEW_PRIVS.
pub fn set_no_new_privileges() -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_NO_NEW_PRIVS)", libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// prctl(2) PR_SET_CHILD_SUBREAPER.
pub fn set_child_subreaper() -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_CHILD_SUBREAPER)", libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// prctl(2) PR_SET_PDEATHSIG: the signal that the kernel sends when the parent dies; 0 for none.
pub fn set_parent_death_signal(signal: i32) -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_PDEATHSIG)", libc::PR_SET_PDEATHSIG, libc::c_ulong::try_from(signal).unwrap_or(0))
}

/// prctl(2) PR_SET_NAME: the process's comm, cut to 15 bytes by the kernel.
pub fn set_name(name: &CStr) -> Result<(), SyscallError> {
    prctl("prctl(PR_SET_NAME)", libc::PR_SET_NAME, name.as_ptr() as libc::c_ulong)
}

pub(crate) fn prctl(call: &'static str, option: i32, value: libc::c_ulong) -> Result<(), SyscallError> {
    // SAFETY: the options used with this take integers or, for PR_SET_NAME, a pointer to a live C string; the unused
    // arguments are zero as several options demand.
    check(call, "", unsafe { libc::prctl(option, value, 0, 0, 0) }.into())?;
    Ok(())
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC: every fd from `first` on is closed at the next execve (CVE-2024-21626).
pub fn close_on_exec_from(first: RawFd) -> Result<(), SyscallError> {
    // SAFETY: no pointers. It only sets a flag, so no owner's fd goes away under it.
    let returned =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if returned == 0 {
        return Ok(());
    }
    one_by_one("fcntl", first, LAST_POSSIBLE_FD, |fd| {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }
    })
}

/// The highest fd that is tried where close_range(2) is refused, by a kernel before 5.11 or by a filter. Descriptors are
/// given out from the lowest free number on.
const LAST_POSSIBLE_FD: RawFd = 1 << 16;

/// What close_range(2) would do, for a container's seccomp filter that refuses that call: profiles older than it are
/// many. A number that is no descriptor is passed over.
fn one_by_one(
    call: &'static str,
    first: RawFd,
    last: RawFd,
    act: impl Fn(RawFd) -> i32,
) -> Result<(), SyscallError> {
    for fd in first..=last.min(LAST_POSSIBLE_FD) {
        if act(fd) < 0 && Errno::last() != Errno::EBADF {
            return Err(SyscallError::last(call, fd.to_string()));
        }
    }
    Ok(())
}

/// Closes every descriptor from `first` on but those in `keep`, by close_range(2) of the gaps.
///
/// For a clone that never returns into the frames that own the closed descriptors (it ends in execve or `_exit`): what
/// the parent holds open must not be the child's.
pub fn close_other_fds(first: RawFd, keep: &[BorrowedFd<'_>]) -> Result<(), SyscallError> {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut start = first;
    for fd in kept {
        if fd > start {
            close_range(start, fd - 1)?;
        }
        start = fd + 1;
    }
    close_range(start, RawFd::MAX)
}

/// Gives the descriptors the numbers `first`, `first + 1`, ... in their order, open across execve(2), by way of copies
/// above all of those numbers.
///
/// For a clone that ends in execve or `_exit`, as [`close_other_fds`]: what else had these numbers is closed.
pub fn place_fds(fds: &[BorrowedFd<'_>], first: RawFd) -> Result<(), SyscallError> {
    let detail = || format!("{} descriptors from {first} on", fds.len());
    let count = RawFd::try_from(fds.len()).unwrap_or(RawFd::MAX);
    let above = first
        .checked_add(count)
        .ok_or_else(|| SyscallError::new("fcntl(F_DUPFD)", detail(), Errno::EINVAL))?;
    let mut copies = Vec::with_capacity(fds.len());
    for fd in fds {
        // SAFETY: the fd is borrowed; a new number is taken, and no other touched.
        let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
        check("fcntl(F_DUPFD)", detail(), copy.into())?;
        copies.push(copy);
    }
    for (copy, number) in copies.into_iter().zip(first..) {
        // SAFETY: `copy` was made above. The owner of what had `number` is in a frame that this process never returns to.
        check("dup2", number, unsafe { libc::dup2(copy, number) }.into())?;
    }
    Ok(())
}

fn close_range(first: RawFd, last: RawFd) -> Result<(), SyscallError> {
    // SAFETY: no pointers. The owners of these descriptors are in frames that this process never returns to, so none
    // of them is closed twice.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    one_by_one("close", first, last, |fd| {
        // SAFETY: as above.
        unsafe { libc::close(fd) }
    })
}

/// umask(2).
pub fn set_umask(mask: u32) {
    // SAFETY: no pointers, never fails.
    unsafe { libc::umask(mask) };
}

/// chdir(2).
pub fn change_dir(path: &CStr) -> Result<(), SyscallError> {
    // SAFETY: a live NUL-terminated string.
    check("chdir", path.to_string_lossy(), unsafe { libc::chdir(path.as_ptr()) }.into())?;
    Ok(())
}

/// getcwd(2), raw: the kernel puts "(unreachable)" before a directory that is outside of this process's root, which
/// C libraries hide (CVE-2024-21626).
pub fn current_dir() -> Result<Vec<u8>, SyscallError> {
    let mut buffer = vec![0_u8; 4096];
    // SAFETY: the pointer and length describe the live buffer.
    let length =
        check("getcwd", "", unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.truncate(usize::try_from(length).unwrap_or(0).saturating_sub(1));
    Ok(buffer)
}

/// Whether this process may execute the file, by the ids that count for execve (faccessat2(2) AT_EACCESS). Where a
/// seccomp filter refuses that call, by the real ids (faccessat(2)): those are the same once a process has become its
/// user.
pub fn may_execute(path: &CStr) -> Result<(), SyscallError> {
    // SAFETY: a live NUL-terminated string.
    let returned = unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    };
    if returned < 0 && matches!(Errno::last(), Errno::ENOSYS | Errno::EPERM) {
        // SAFETY: as above.
        let returned =
            unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path.as_ptr(), libc::X_OK) };
        check("faccessat", path.to_string_lossy(), returned)?;
        return Ok(());
    }
    check("faccessat2", path.to_string_lossy(), returned)?;
    Ok(())
}

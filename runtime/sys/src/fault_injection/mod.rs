//! A build that fails the n-th system call: only with the feature `fault-injection`, which no release has.
//!
//! Owns one door for every call, and decides nothing else. The linker (`--wrap`, `runtime/build.rs`) sends the uses of
//! the C library's system call functions here, this crate's, nix's and std's alike, and each goes on to the real one
//! unless it is the call that was asked for. What the kernel answers is never changed afterwards: a call that fails here
//! was not made, but for close(2), which closes whatever it answers.
//!
//! `KETCH_FAULT=<process>:<n>:<errno>` fails the n-th call (from 1) of a process with that error number.
//! `KETCH_FAULT_LOG=<file>` tells each call, one line `<process> <n> <call> <operand>`, with `!` before the number of the
//! one that failed; the operand is a path or a number where the call has one that says which call it is.
//! A process is a number: 1 is the runtime, and the k-th process that process p makes is `10 * p + k`. Each counts its
//! own calls, so that it does not matter who of them is faster. Called by `main` and by integration/tests/fault_sweep.rs.
//!
//! Past this door go the calls before `main`, memory allocation, what can't fail (getpid(2), umask(2)), and
//! getrandom(2), for which std's hash maps end the process: no kernel refuses it once it has started.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// How long the log may get, in bytes; what does not fit is lost.
const LOG_SIZE: usize = 1 << 20;

static ARMED: AtomicBool = AtomicBool::new(false);
static TARGET_PROCESS: AtomicU64 = AtomicU64::new(0);
static TARGET_NUMBER: AtomicU64 = AtomicU64::new(0);
static TARGET_ERRNO: AtomicI32 = AtomicI32::new(0);
/// This process, its calls and its children so far. A clone has a copy of its own, as no memory is shared.
static PROCESS: AtomicU64 = AtomicU64::new(1);
static CALLS: AtomicU64 = AtomicU64::new(0);
static CHILDREN: AtomicU64 = AtomicU64::new(0);
/// The log is memory that all processes share: a file would be out of reach after the pivot.
static LOG: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());

/// Reads the two variables and begins to count.
pub fn begin() {
    let log = std::env::var_os("KETCH_FAULT_LOG").and_then(|path| {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).ok()
    });
    if let Some(file) = log
        && file.set_len(LOG_SIZE as u64).is_ok()
    {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses, of a file that is as long; it is never unmapped.
        let log = unsafe { libc::mmap(std::ptr::null_mut(), LOG_SIZE, access, kind, file.as_raw_fd(), 0) };
        if log != libc::MAP_FAILED {
            LOG.store(log.cast(), Ordering::Relaxed);
        }
    }
    let wanted = std::env::var("KETCH_FAULT").unwrap_or_default();
    let mut numbers = wanted.split(':').map(|number| number.parse::<u64>().unwrap_or(0));
    TARGET_PROCESS.store(numbers.next().unwrap_or(0), Ordering::Relaxed);
    TARGET_NUMBER.store(numbers.next().unwrap_or(0), Ordering::Relaxed);
    TARGET_ERRNO.store(numbers.next().and_then(|n| i32::try_from(n).ok()).unwrap_or(0), Ordering::Relaxed);
    ARMED.store(true, Ordering::Relaxed);
}

/// Counts a call; the error number with which it is to fail.
fn pass(call: &str, operand: Operand) -> Option<i32> {
    if !ARMED.load(Ordering::Relaxed) {
        return None;
    }
    let number = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let process = PROCESS.load(Ordering::Relaxed);
    let fails =
        (process, number) == (TARGET_PROCESS.load(Ordering::Relaxed), TARGET_NUMBER.load(Ordering::Relaxed));
    note(process, number, call, operand, fails);
    fails.then(|| TARGET_ERRNO.load(Ordering::Relaxed))
}

/// Begins the count of a process that has just been born.
fn born(answer: isize) {
    let child = CHILDREN.fetch_add(1, Ordering::Relaxed) + 1;
    if answer == 0 {
        PROCESS.store(PROCESS.load(Ordering::Relaxed) * 10 + child, Ordering::Relaxed);
        CALLS.store(0, Ordering::Relaxed);
        CHILDREN.store(0, Ordering::Relaxed);
    }
}

/// Which call it is among those of its name.
#[derive(Clone, Copy)]
enum Operand {
    None,
    Number(usize),
    /// The address of a C string.
    Path(usize),
}

impl Operand {
    fn of(call: &str, arguments: [usize; 3]) -> Self {
        match call {
            "access" | "chdir" | "chmod" | "chroot" | "execve" | "lstat" | "lstat64" | "mkdir" | "mkfifo"
            | "open" | "open64" | "opendir" | "readlink" | "realpath" | "rename" | "rmdir" | "stat"
            | "stat64" | "sethostname" | "umount2" | "unlink" | "fsopen" => Self::Path(arguments[0]),
            "faccessat2" | "fchownat" | "fstatat" | "fstatat64" | "mkdirat" | "mknodat" | "mount"
            | "openat" | "openat2" | "openat64" | "open_tree" | "readlinkat" | "statx" | "unlinkat" => {
                Self::Path(arguments[1])
            }
            "symlinkat" | "fsconfig" => Self::Path(arguments[2]),
            "close" | "fcntl" | "prctl" | "rt_sigaction" | "read" | "write" => Self::Number(arguments[0]),
            "ioctl" | "seccomp" => Self::Number(arguments[1]),
            _ => Self::None,
        }
    }

    fn write(self, to: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Number(number) => write!(to, "{number}"),
            Self::Path(address) if address != 0 => {
                // SAFETY: the caller's C string, alive while the call is made.
                let path = unsafe { CStr::from_ptr(address as *const libc::c_char) };
                to.write_all(path.to_bytes())
            }
            Self::None | Self::Path(_) => Ok(()),
        }
    }
}

/// A line in the log, cut where it is longer than the buffer. The log's first eight bytes count how many are used.
fn note(process: u64, number: u64, call: &str, operand: Operand, fails: bool) {
    let log = LOG.load(Ordering::Relaxed);
    if log.is_null() {
        return;
    }
    let mut line = [0_u8; 256];
    let size = line.len() - 1;
    let mut rest = &mut line[..size];
    let mark = if fails { "!" } else { "" };
    let _cut = write!(rest, "{process} {mark}{number} {call} ").and_then(|()| operand.write(&mut rest));
    let length = size - rest.len() + 1;
    line[length - 1] = b'\n';
    // SAFETY: the mapping begins at a page, so it is aligned, and is never unmapped; all its users are atomic.
    let used = unsafe { AtomicUsize::from_ptr(log.cast()) };
    let at = size_of::<usize>() + used.fetch_add(length, Ordering::Relaxed);
    if at + length <= LOG_SIZE {
        // SAFETY: within the mapping, and these bytes were given to this line only.
        unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), log.add(at), length) };
    }
}

/// Lets a call fail.
fn fail(errno: i32) -> isize {
    // SAFETY: the calling thread's own errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// A function for each name. Integers and pointers come in registers, so that six of them are every call's arguments,
/// used or not, and what is not used reaches the real function as it came.
macro_rules! doors {
    ($($name:ident)*) => {
        mod real {
            unsafe extern "C" {
                $(
                    #[link_name = concat!("__real_", stringify!($name))]
                    pub(super) fn $name(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize;
                )*
            }
        }
        mod wrapped {
            $(
                #[unsafe(export_name = concat!("__wrap_", stringify!($name)))]
                unsafe extern "C" fn $name(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
                    if let Some(errno) = super::pass(stringify!($name), super::Operand::of(stringify!($name), [a, b, c])) {
                        return super::refusal(stringify!($name), errno);
                    }
                    // SAFETY: the caller keeps the real function's terms, and its arguments go on untouched.
                    let answer = unsafe { super::real::$name(a, b, c, d, e, f) };
                    if stringify!($name) == "fork" {
                        super::born(answer);
                    }
                    answer
                }
            )*
        }
    };
}

include!("calls.in");

/// What a refused call answers: a null pointer for those that give one.
fn refusal(call: &str, errno: i32) -> isize {
    let answer = fail(errno);
    if matches!(call, "fdopendir" | "getcwd" | "opendir" | "readdir" | "readdir64" | "realpath") {
        0
    } else {
        answer
    }
}

unsafe extern "C" {
    fn __real_close(fd: i32) -> i32;
    #[rustfmt::skip]
    fn __real_syscall(number: i64, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize;
}

#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_close(fd: i32) -> i32 {
    let errno = pass("close", Operand::Number(fd.cast_unsigned() as usize));
    // SAFETY: the caller's terms. The kernel lets go of the descriptor before it tells of an error.
    let answer = unsafe { __real_close(fd) };
    if let Some(errno) = errno {
        fail(errno);
        return -1;
    }
    answer
}

#[unsafe(no_mangle)]
#[rustfmt::skip]
unsafe extern "C" fn __wrap_syscall(number: i64, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let name = match number {
        libc::SYS_getpid | libc::SYS_gettid | libc::SYS_futex => None,
        number => Some(name_of(number)),
    };
    if let Some(errno) = name.and_then(|name| pass(name, Operand::of(name, [a, b, c]))) {
        return fail(errno);
    }
    // SAFETY: the caller keeps the call's terms, and its arguments go on untouched.
    let answer = unsafe { __real_syscall(number, a, b, c, d, e, f) };
    if matches!(number, libc::SYS_clone | libc::SYS_clone3) && answer >= 0 {
        born(answer);
    }
    answer
}

/// The raw calls of this crate.
fn name_of(number: i64) -> &'static str {
    match number {
        libc::SYS_bpf => "bpf",
        libc::SYS_capget => "capget",
        libc::SYS_capset => "capset",
        libc::SYS_clone => "clone",
        libc::SYS_clone3 => "clone3",
        libc::SYS_close_range => "close_range",
        libc::SYS_execveat => "execveat",
        libc::SYS_faccessat => "faccessat",
        libc::SYS_faccessat2 => "faccessat2",
        libc::SYS_fsconfig => "fsconfig",
        libc::SYS_fsmount => "fsmount",
        libc::SYS_fsopen => "fsopen",
        libc::SYS_getcwd => "getcwd",
        libc::SYS_ioprio_set => "ioprio_set",
        libc::SYS_keyctl => "keyctl",
        libc::SYS_mount_setattr => "mount_setattr",
        libc::SYS_move_mount => "move_mount",
        libc::SYS_open_tree => "open_tree",
        libc::SYS_openat => "openat",
        libc::SYS_openat2 => "openat2",
        libc::SYS_personality => "personality",
        libc::SYS_pidfd_open => "pidfd_open",
        libc::SYS_pidfd_send_signal => "pidfd_send_signal",
        libc::SYS_pivot_root => "pivot_root",
        libc::SYS_prlimit64 => "prlimit64",
        libc::SYS_rt_sigaction => "rt_sigaction",
        libc::SYS_sched_setaffinity => "sched_setaffinity",
        libc::SYS_sched_setattr => "sched_setattr",
        libc::SYS_seccomp => "seccomp",
        libc::SYS_set_mempolicy => "set_mempolicy",
        libc::SYS_setgroups => "setgroups",
        libc::SYS_setresgid => "setresgid",
        libc::SYS_setresuid => "setresuid",
        _ => "syscall",
    }
}

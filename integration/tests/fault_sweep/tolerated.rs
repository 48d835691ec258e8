//! What a failed call may do without: how messages name it, whose failure is no failure of the command and why, and which
//! calls never pass the door. Called by `fault_sweep`.

use super::Call;

/// errno(3) of Linux.
pub(super) mod errno {
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EIO: i32 = 5;
    pub(crate) const ENOMEM: i32 = 12;
    pub(crate) const EACCES: i32 = 13;
}

/// Whether a message names the call: by its name, or by what is done to which file.
pub(super) fn is_named(call: &Call, text: &str, said: &str) -> bool {
    let path = call.operand.to_lowercase();
    let words = IN_WORDS.iter().find(|(name, _)| *name == call.name).map_or(&[][..], |(_, words)| words);
    // The init that can't read its fifo is gone, or about to be, when `start` comes.
    let unread_fifo = call.process == "11" && call.name == "read" && said.contains("cannot start");
    let named = said.contains(call.name.trim_end_matches("64"))
        || (path.starts_with('/') && said.contains(&path))
        || words.iter().any(|word| said.contains(word));
    unread_fifo || (named && said.contains(text))
}

/// How messages call what std and others do for the runtime, where they do not name the path.
const IN_WORDS: &[(&str, &[&str])] = &[
    ("read", &["open /", "reading"]),
    ("write", &["writing"]),
    ("open64", &["writing"]),
    ("flock", &["locking"]),
    ("statx", &["locking", "reading", "standard stream"]),
    ("realpath", &["stat /"]),
    ("rename", &["writing"]),
    ("fcntl", &["standard stream", "fcntl"]),
    ("pipe2", &["streams"]),
    ("prlimit64", &["prlimit"]),
    ("setresgid", &["setgid"]),
    ("setresuid", &["setuid"]),
    ("execve", &["exec "]),
    ("fdopendir", &["removing"]),
    ("readdir64", &["removing"]),
    ("unlinkat", &["removing"]),
];

/// EINTR is answered by calling again; EPERM is what some fallbacks are there for.
const EINTR: i32 = errno::EINTR;

/// Why a command may succeed although this call has failed.
pub(super) fn tolerated(call: &Call, number: i32) -> Option<&'static str> {
    if number == EINTR {
        return Some("were interrupted, and called again");
    }
    let Call { process, name, operand, .. } = call;
    let refused = [errno::EPERM, errno::EACCES].contains(&number);
    TOLERATED
        .iter()
        .chain(TOLERATED_REFUSALS.iter().filter(|_| refused))
        .find(|(by, tolerated, path, _)| {
            process.starts_with(by) && name == tolerated && operand.contains(path)
        })
        .map(|(.., reason)| *reason)
}

/// The same where the failure is EPERM, or for chdir(2) EACCES.
const TOLERATED_REFUSALS: &[Tolerance] = &[
    ("11", "mount_setattr", "", "were refusals by EPERM of a remount, which is tried with the mount's own flags"),
    ("11", "mknodat", "", "were refusals by EPERM to make a device: the host's is bound"),
    ("11", "openat2", "", "were refusals by EPERM to make a device: the host's is bound"),
    ("11", "chdir", "", "were the first of two attempts, as the runtime's user and as the container's"),
    ("11", "fcntl", "", "were refusals by EPERM to look at a stream, as a filter may give them"),
    ("11", "faccessat2", "", "were refusals by EPERM, as a filter of before that call gives them: faccessat(2) is asked"),
];

/// By which process, the call, a part of its operand, and why its failure is no failure of the command.
type Tolerance = (&'static str, &'static str, &'static str, &'static str);

const TOLERATED: &[Tolerance] = &[
    ("1", "readlink", "/ns/user", "were looks for the initial user namespace: uid_map tells it as well"),
    ("11", "open_tree", "/sys/fs/cgroup", "were binds of the container's cgroup: cgroup2 is mounted in its namespace"),
    ("11", "fstatfs", "", "were looks at such a bind"),
    ("", "close", "", "were closes: the descriptor is gone whatever close(2) answers"),
    ("", "statx", "", "were guesses of a file's size by std, which reads to the end in any case"),
    ("", "close_range", "", "were close_range: descriptors are closed one by one then"),
    ("1", "seccomp", "", "were questions for a flag of seccomp(2), which is not used then"),
    ("1", "readlink", "/fd/", "were looks at the init's streams, which only checkpoint needs to know"),
    ("1", "pidfd_open", "", "were looks at a first process that has ended, for those that it may have left"),
    ("11", "open", "/proc", "were looks for a procfs of the host's, without which streams on its /dev/null stay so"),
    ("", "openat2", "/unified/", "were joins of the cgroup2 beside v1, which holds no limit"),
    ("", "mkdir", "/unified/", "were joins of the cgroup2 beside v1, which holds no limit"),
    ("", "mkdir", "/systemd/", "were joins of the hierarchy name=systemd, which holds no limit"),
    ("", "openat2", "/systemd/", "were joins of the hierarchy name=systemd, which holds no limit"),
    ("1", "fstatfs", "", "were joins of such a hierarchy"),
    ("1", "fstatvfs", "", "were looks for the seal: the binary is sealed again"),
    ("1", "prctl", "15", "were names of the process in ps(1)"),
    ("1", "clone3", "", "were births in the container's cgroup2, with a second attempt in init's own"),
    ("1", "sched_setaffinity", "", "were attempts to widen the runtime's own cpu mask, which stays otherwise"),
    ("1", "waitid", "", "were reaps of a stage that has ended"),
    ("1", "fstat", "", "were questions whether a stream is a pipe: it is copied without splice(2), or noted by its path, then"),
    ("1", "read", "", "were reads of a stream of the container's, which count as its end"),
    ("11", "write", "", "were joins of a v1 hierarchy that holds no limit"),
    ("11", "open64", "/etc/passwd", "were looks for HOME in the image, which is / then"),
    ("11", "read", "", "were looks for HOME in the image, which is / then"),
];

/// Calls of a first life and of the start of the C library and std, and what can't fail.
pub(super) const BEFORE_MAIN: &[(&str, usize)] = &[
    ("arch_prctl", 1),
    ("brk", ANY),
    ("close", 3),
    ("execve", 1),
    ("execveat", 1),
    ("exit_group", 1),
    ("fcntl", 1),
    ("ftruncate", 1), // the log's
    ("futex", ANY),
    ("geteuid", ANY),
    ("getpid", ANY),
    ("getrandom", ANY),
    ("gettid", ANY),
    ("ioctl", 1),
    ("mmap", ANY),
    ("mount_setattr", 1),
    ("mprotect", ANY),
    ("mremap", ANY),
    ("munmap", ANY),
    ("newfstatat", 2),
    ("open_tree", 1),
    ("openat", 3),
    ("poll", 1),
    ("prlimit64", 2),
    ("read", 1),
    ("readlink", ANY), // realpath(3) reads one for each component
    ("rseq", 1),
    ("rt_sigaction", ANY),
    ("rt_sigprocmask", ANY),
    ("sched_getaffinity", 1),
    ("set_robust_list", 1),
    ("set_tid_address", 1),
    ("sigaltstack", 3),
    ("umask", ANY),
    ("wait4", 1),
];
const ANY: usize = 1000;

/// The system call behind a function of the C library.
pub(super) fn kernels_name(function: &str) -> &str {
    match function {
        "open" | "open64" | "openat64" => "openat",
        "pread" => "pread64",
        "dup2" => "dup3",
        "fdopendir" => "fcntl",
        "readdir" | "readdir64" => "getdents64",
        "stat" | "fstat" => "newfstatat",
        "mkfifo" => "mknodat",
        "signalfd" => "signalfd4",
        "realpath" => "readlink",
        "fstatvfs" => "fstatfs",
        other => other,
    }
}


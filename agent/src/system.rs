//! The machine: what `/info`, `/version`, `/metrics` and `ketchd check` say of it. Read from /proc, /sys and /etc; nothing is
//! changed.

use std::fs;
use std::path::Path;

/// What does not change while the machine runs, and its memory.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub name: String,
    /// `VERSION_ID` of os-release.
    pub version: String,
    /// The node's.
    pub hostname: String,
    /// As `uname -m` says.
    pub architecture: String,
    /// Those that the daemon may use.
    pub cpus: usize,
    /// In bytes.
    pub memory: u64,
}

/// Which limits the kernel can hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cgroups {
    /// Whether version 2 has the controllers.
    pub unified: bool,
    /// memory
    pub memory: bool,
    /// memory.swap
    pub swap: bool,
    /// memory.kmem.tcp, of version 1
    pub kernel_memory_tcp: bool,
    /// memory.oom_control, of version 1
    pub oom_kill_disable: bool,
    /// cpu quotas
    pub cpu_quota: bool,
    /// cpu shares or weights
    pub cpu_shares: bool,
    /// cpuset
    pub cpuset: bool,
    /// pids
    pub pids: bool,
    /// io.weight
    pub io_weight: bool,
    /// blkio throttling, io.max
    pub io_limits: bool,
}

/// The machine now.
#[must_use]
pub fn machine() -> Machine {
    let uname = rustix::system::uname();
    let release = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let field = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let name =
        Some(field("PRETTY_NAME")).filter(|name| !name.is_empty()).unwrap_or_else(|| "Linux".to_owned());
    Machine {
        kernel: uname.release().to_string_lossy().into_owned(),
        name,
        version: field("VERSION_ID"),
        hostname: uname.nodename().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory: kibibytes("/proc/meminfo", "MemTotal:"),
    }
}

/// The daemon's open files.
#[must_use]
pub fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

/// The daemon's threads.
#[must_use]
pub fn threads() -> u64 {
    fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count() as u64)
}

/// The daemon's memory, in bytes.
#[must_use]
pub fn resident_memory() -> u64 {
    kibibytes("/proc/self/status", "VmRSS:")
}

fn kibibytes(file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Whether the kernel forwards.
#[must_use]
pub fn forwards() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1")
}

/// What the kernel's cgroups can do.
#[must_use]
pub fn cgroups() -> Cgroups {
    let root = Path::new("/sys/fs/cgroup");
    match fs::read_to_string(root.join("cgroup.controllers")) {
        Ok(controllers) => unified(&controllers),
        Err(_) => version1(root),
    }
}

fn unified(controllers: &str) -> Cgroups {
    let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
    Cgroups {
        unified: true,
        memory: has("memory"),
        swap: has("memory"),
        cpu_quota: has("cpu"),
        cpu_shares: has("cpu"),
        cpuset: has("cpuset"),
        pids: has("pids"),
        io_weight: has("io"),
        io_limits: has("io"),
        ..Cgroups::default()
    }
}

fn version1(root: &Path) -> Cgroups {
    let has = |controller: &str, file: &str| root.join(controller).join(file).exists();
    Cgroups {
        unified: false,
        memory: has("memory", "memory.limit_in_bytes"),
        swap: has("memory", "memory.memsw.limit_in_bytes"),
        kernel_memory_tcp: has("memory", "memory.kmem.tcp.limit_in_bytes"),
        oom_kill_disable: has("memory", "memory.oom_control"),
        cpu_quota: has("cpu", "cpu.cfs_quota_us"),
        cpu_shares: has("cpu", "cpu.shares"),
        cpuset: has("cpuset", "cpuset.cpus"),
        pids: has("pids", "cgroup.procs"),
        io_weight: has("blkio", "blkio.weight"),
        io_limits: has("blkio", "blkio.throttle.read_bps_device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_seen() {
        let machine = machine();
        assert!(machine.cpus > 0 && machine.memory > 1 << 20 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(open_files() > 2 && resident_memory() > 1 << 16);
    }

    #[test]
    fn controllers_of_version_2() {
        let some = unified("cpu memory");
        assert!(some.unified && some.memory && some.cpu_quota && !some.pids && !some.io_limits);
    }
}

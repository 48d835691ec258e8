//! What the host has, looked at once when the daemon starts: the pure modules decide by it.

use std::path::Path;

use super::caps;

/// See the module.
#[derive(Clone, Debug)]
pub struct Host {
    /// Only cgroup v2 is mounted.
    pub unified: bool,
    /// Processors that are online.
    pub processors: u32,
    /// Their numbers, as `0-3`.
    pub cpus: String,
    /// The memory nodes' numbers.
    pub memory_nodes: String,
    /// Bytes of memory.
    pub memory: u64,
    /// The capabilities that the daemon has itself, and can give.
    pub capabilities: Vec<&'static str>,
    /// AppArmor is on.
    pub apparmor: bool,
    /// Machine as the kernel names it.
    pub machine: String,
    /// The soft and the hard bound of open files for containers, where the daemon's own are others.
    pub open_files: Option<(u64, u64)>,
    /// Folders in /sys of which a container must not see anything, where they exist.
    pub thermal: Vec<String>,
    /// Whether it shows its message queues at /dev/mqueue; not every machine mounts them.
    pub message_queues: bool,
}

impl Host {
    /// Looks.
    #[must_use]
    pub fn look() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = text("/proc/meminfo")
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
            .unwrap_or(0);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let status = text("/proc/self/status");
        let mask = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
            .unwrap_or(u64::MAX);
        let thermal = (0..processors)
            .map(|number| format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle"))
            .filter(|path| Path::new(path).exists())
            .collect();
        Self {
            unified: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            processors: u32::try_from(processors).unwrap_or(1),
            cpus: text("/sys/devices/system/cpu/online").trim().to_owned(),
            memory_nodes: text("/sys/devices/system/node/online").trim().to_owned(),
            memory: memory * 1024,
            capabilities: caps::of_mask(mask),
            // Inside of a container that is not ours to load profiles into.
            apparmor: text("/sys/module/apparmor/parameters/enabled").starts_with('Y')
                && Path::new("/sys/kernel/security/apparmor").exists()
                && std::env::var_os("container").is_none(),
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            open_files: crate::open_files::before(),
            thermal,
            message_queues: Path::new("/dev/mqueue").is_dir(),
        }
    }
}

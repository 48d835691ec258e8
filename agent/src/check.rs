//! `ketchd check`: whether this machine can do what the settings ask for; each line that is not well says what to do.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Host};
use crate::network;
use crate::remap::{self, Ids};
use crate::system;

/// How a thing is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Well(String),
    /// It works with less.
    Less(String, String),
    /// The daemon won't start, or won't do its work.
    Ill(String, String),
}

/// Looks at the machine and prints what is seen; the exit code is 1 where something keeps the daemon from its work.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let mut ill = false;
    for (topic, verdict) in all(config) {
        match verdict {
            Verdict::Well(what) => println!("ok    {topic}: {what}"),
            Verdict::Less(what, advice) => println!("less  {topic}: {what}\n      {advice}"),
            Verdict::Ill(what, advice) => {
                ill = true;
                println!("fail  {topic}: {what}\n      {advice}");
            }
        }
    }
    if ill { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn all(config: &Config) -> Vec<(&'static str, Verdict)> {
    let release = system::machine().kernel;
    let ids = remap::ids_of(&config.containers.remapped);
    let data_root =
        ids.as_ref().map_or(config.data_root.clone(), |ids| remap::own_root(&config.data_root, ids));
    let config = &Config { data_root, ..config.clone() };
    let mut seen = vec![
        ("user", user()),
        ("kernel", kernel(&release)),
        ("cgroups", cgroups(&system::cgroups())),
        ("overlayfs", filesystem("overlay")),
        ("nf_tables", nftables(config)),
        ("forwarding", forwarding(config)),
        ("encrypted networks", encryption()),
        ("seccomp", seccomp()),
        ("data root", folder(&config.data_root)),
        ("exec root", folder(&config.exec_root)),
        ("other daemons", others(config)),
        ("default bridge", bridge(config)),
        ("firewall", firewall(config)),
        ("namespaces", namespaces()),
        ("runtime", binary(&config.runtime)),
        ("shim", binary(&config.shim)),
    ];
    if !config.containers.remapped.is_empty() {
        seen.push(("container users", container_users(ids)));
    }
    seen.extend(config.hosts.iter().map(|host| ("socket", socket(host))));
    seen
}

fn user() -> Verdict {
    if rustix::process::geteuid().is_root() {
        Verdict::Well("root".to_owned())
    } else {
        Verdict::Ill(
            "not root".to_owned(),
            "run ketchd as root: it mounts, and makes namespaces and cgroups".to_owned(),
        )
    }
}

fn container_users(ids: Result<Ids, String>) -> Verdict {
    match ids {
        Ok(ids) if ids.are_mapped() => {
            let (user, group) = ids.root();
            Verdict::Well(format!("root is the host's user {user}, of the group {group}"))
        }
        Ok(_) => Verdict::Well("the host's own".to_owned()),
        Err(why) => Verdict::Ill(
            why,
            "name another user with --userns-remap, or write its ranges (subuid(5))".to_owned(),
        ),
    }
}

fn kernel(release: &str) -> Verdict {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 10) {
        Verdict::Well(release.to_owned())
    } else {
        Verdict::Ill(
            release.to_owned(),
            "use Linux 5.10 or newer: openat2, clone3, pidfds and the new mount calls are needed".to_owned(),
        )
    }
}

fn cgroups(cgroups: &system::Cgroups) -> Verdict {
    let version = if cgroups.unified { "version 2" } else { "version 1" };
    let missing: Vec<_> = [
        ("memory", cgroups.memory),
        ("cpu", cgroups.cpu_quota),
        ("cpuset", cgroups.cpuset),
        ("pids", cgroups.pids),
        ("io", cgroups.io_limits),
    ]
    .into_iter()
    .filter(|(_, there)| !there)
    .map(|(name, _)| name)
    .collect();
    if missing.len() == 5 {
        return Verdict::Ill(
            format!("{version}, without controllers"),
            "mount the cgroup hierarchy at /sys/fs/cgroup: mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
        );
    }
    if missing.is_empty() {
        return Verdict::Well(version.to_owned());
    }
    Verdict::Less(
        format!("{version}, without {}", missing.join(", ")),
        "limits of these kinds are refused; boot with cgroup_enable= or enable them in the kernel".to_owned(),
    )
}

fn filesystem(name: &str) -> Verdict {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        Verdict::Well("in the kernel".to_owned())
    } else {
        Verdict::Ill("not in the kernel".to_owned(), format!("modprobe {name}, or build the kernel with it"))
    }
}

fn nftables(config: &Config) -> Verdict {
    use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType, socket};
    if !config.network.iptables {
        return Verdict::Well("not asked for (--iptables=false)".to_owned());
    }
    // NETLINK_NETFILTER is protocol 12.
    let protocol = RawProtocol::new(12).map(Protocol::from_raw);
    match socket(AddressFamily::NETLINK, SocketType::RAW, protocol) {
        Ok(_) => Verdict::Well("its netlink socket opens".to_owned()),
        Err(error) => Verdict::Ill(
            format!("its netlink socket does not open: {error}"),
            "modprobe nf_tables, or start ketchd with --iptables=false and do without published ports"
                .to_owned(),
        ),
    }
}

/// Only a cluster has them.
fn encryption() -> Verdict {
    if network::can_encrypt() {
        return Verdict::Well("the kernel has ESP with AES-GCM".to_owned());
    }
    Verdict::Less(
        "the kernel has no ESP with AES-GCM".to_owned(),
        "a cluster places tasks on networks with --opt encrypted elsewhere: modprobe esp4 esp6 gcm, or use a kernel with CONFIG_INET_ESP, CONFIG_INET6_ESP and CONFIG_CRYPTO_GCM"
            .to_owned(),
    )
}

fn forwarding(config: &Config) -> Verdict {
    match (system::forwards(), config.network.ip_forward) {
        (true, _) => Verdict::Well("on".to_owned()),
        (false, true) => Verdict::Well("off now; ketchd turns it on".to_owned()),
        (false, false) => Verdict::Less(
            "off, and --ip-forward=false".to_owned(),
            "containers reach nothing outside: sysctl net.ipv4.ip_forward=1".to_owned(),
        ),
    }
}

fn seccomp() -> Verdict {
    if Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        Verdict::Well("in the kernel".to_owned())
    } else {
        Verdict::Less(
            "not in the kernel".to_owned(),
            "containers run with --security-opt seccomp=unconfined only".to_owned(),
        )
    }
}

fn folder(path: &Path) -> Verdict {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = path.display();
    match rustix::fs::statvfs(existing) {
        Ok(status) if status.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) => {
            Verdict::Ill(format!("{shown} is on a read-only file system"), "name another folder".to_owned())
        }
        Ok(status) => {
            let free = status.f_bavail.saturating_mul(status.f_frsize) >> 20;
            if free < 64 {
                Verdict::Ill(
                    format!("{shown}: {free} MiB free"),
                    "make room, or name another folder".to_owned(),
                )
            } else {
                Verdict::Well(format!("{shown}: {free} MiB free"))
            }
        }
        Err(error) => Verdict::Ill(format!("{shown}: {error}"), "name another folder".to_owned()),
    }
}

/// Whether another daemon has the state, or the file of the process id.
fn others(config: &Config) -> Verdict {
    let store = config.data_root.join("ketchd.redb");
    let is_held = fs::File::open(&store).is_ok_and(|file| {
        let lock = rustix::fs::FlockOperation::NonBlockingLockShared;
        rustix::fs::flock(&file, lock) == Err(rustix::io::Errno::WOULDBLOCK)
    });
    if is_held {
        let what = format!("one has the state in {}", config.data_root.display());
        return Verdict::Ill(what, "end it, or name another --data-root and --exec-root".to_owned());
    }
    let pid = fs::read_to_string(&config.pidfile).ok().and_then(|text| text.trim().parse::<u32>().ok());
    match pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        Some(pid) => Verdict::Ill(
            format!("process {pid} is named by {}", config.pidfile.display()),
            "end it, or remove the file if it is no daemon, or name another --pidfile".to_owned(),
        ),
        None => Verdict::Well("none with the same folders".to_owned()),
    }
}

/// Whether something else has the default bridge.
fn bridge(config: &Config) -> Verdict {
    let name = match config.network.bridge.as_str() {
        "none" => return Verdict::Well("not asked for (--bridge none)".to_owned()),
        "" => "docker0",
        name => name,
    };
    let folder = Path::new("/sys/class/net").join(name);
    if !folder.exists() {
        return Verdict::Well(format!("{name} will be made"));
    }
    if !folder.join("bridge").exists() {
        return Verdict::Ill(
            format!("{name} is there, and is no bridge"),
            "name another with --bridge, or none with --bridge none".to_owned(),
        );
    }
    let ports = fs::read_dir(folder.join("brif")).into_iter().flatten().count();
    // What this very daemon has left running is its own.
    if ports > 0 && !config.data_root.join("ketchd.redb").exists() {
        return Verdict::Less(
            format!("{name} is there, with {ports} interfaces of others"),
            "if another engine gives addresses out on it, take a bridge of your own: ip link add NAME type bridge, and --bridge NAME"
                .to_owned(),
        );
    }
    Verdict::Well(format!("{name} is there, and is taken as it is"))
}

/// Whether somebody else drops what is forwarded. ketchd's own rules accept only for its own tables.
fn firewall(config: &Config) -> Verdict {
    if !config.network.iptables {
        return Verdict::Well("not asked for (--iptables=false)".to_owned());
    }
    if Path::new("/run/firewalld").exists() {
        return Verdict::Less(
            "firewalld runs".to_owned(),
            "where it drops what containers send: firewall-cmd --permanent --zone=trusted --add-interface=docker0, for each bridge"
                .to_owned(),
        );
    }
    let tables = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if tables.lines().any(|table| table == "filter") {
        return Verdict::Less(
            "there are rules of iptables-legacy".to_owned(),
            "where its chain FORWARD drops: iptables-legacy -I FORWARD -i docker0 -j ACCEPT, and the same with -o, for each bridge"
                .to_owned(),
        );
    }
    Verdict::Well("none known that is in the way".to_owned())
}

/// Whether the kernel gives namespaces at all.
fn namespaces() -> Verdict {
    for kind in ["net", "mnt", "pid", "ipc", "uts"] {
        if !Path::new("/proc/self/ns").join(kind).exists() {
            return Verdict::Ill(
                format!("no {kind} namespaces in the kernel"),
                "use a kernel that has them".to_owned(),
            );
        }
        let setting = format!("/proc/sys/user/max_{kind}_namespaces");
        if fs::read_to_string(&setting).is_ok_and(|text| text.trim() == "0") {
            let key = format!("user.max_{kind}_namespaces");
            return Verdict::Ill(format!("{key} is 0"), format!("sysctl {key}=10000"));
        }
    }
    Verdict::Well("all are there".to_owned())
}

fn binary(path: &Path) -> Verdict {
    let shown = path.display().to_string();
    match rustix::fs::access(path, rustix::fs::Access::EXEC_OK) {
        Ok(()) => Verdict::Well(shown),
        Err(error) => Verdict::Ill(format!("{shown}: {error}"), "install it beside ketchd".to_owned()),
    }
}

fn socket(host: &Host) -> Verdict {
    match host {
        Host::Unix(path) if std::os::unix::net::UnixStream::connect(path).is_ok() => Verdict::Ill(
            format!("{host} is in use"),
            "another daemon serves there: end it, or name another with --host".to_owned(),
        ),
        _ => Verdict::Well(host.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_come_with_advice() {
        assert_eq!(kernel("6.18.44-fc"), Verdict::Well("6.18.44-fc".to_owned()));
        assert!(matches!(kernel("4.19.0"), Verdict::Ill(_, advice) if advice.contains("5.10")));
        assert!(matches!(cgroups(&system::Cgroups::default()), Verdict::Ill(..)));
        let some = system::Cgroups { memory: true, ..system::Cgroups::default() };
        assert!(
            matches!(cgroups(&some), Verdict::Less(what, _) if what == "version 1, without cpu, cpuset, pids, io")
        );
        assert!(matches!(filesystem("no-such-fs"), Verdict::Ill(..)));
        assert!(matches!(binary(Path::new("/nonexistent")), Verdict::Ill(..)));
    }
}

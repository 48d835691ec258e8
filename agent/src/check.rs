//! `ketchd check`: whether this machine can do what the settings ask for; each line that is not well says what to do.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Host};
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
    let mut seen = vec![
        ("user", user()),
        ("kernel", kernel(&release)),
        ("cgroups", cgroups(&system::cgroups())),
        ("overlayfs", filesystem("overlay")),
        ("nf_tables", nftables(config)),
        ("forwarding", forwarding(config)),
        ("seccomp", seccomp()),
        ("data root", folder(&config.data_root)),
        ("exec root", folder(&config.exec_root)),
        ("runtime", binary(&config.runtime)),
        ("shim", binary(&config.shim)),
    ];
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

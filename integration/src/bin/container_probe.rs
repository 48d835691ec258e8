//! Runs inside a container, where busybox has no applet for it: `notify` sends readiness, `keyring` names the session
//! keyring, `fds` lists the open descriptors that it got, `status` shows its ids and what confines it; `intrude` attacks
//! whoever is born in its pid namespace.
//!
//! Static, like every program of the workspace, so that it needs nothing of the rootfs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's program: a failure is its message")]

use std::os::unix::net::UnixDatagram;

use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("notify") => {
            let path = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
            let socket = UnixDatagram::unbound().expect("socket");
            socket.send_to(b"READY=1\n", path).expect("send READY=1");
            println!("notified");
            loop {
                std::thread::park();
            }
        }
        Some("fds") => {
            let mut found: Vec<(u32, String)> = std::fs::read_dir("/proc/self/fd")
                .expect("read /proc/self/fd")
                .flatten()
                .filter_map(|entry| {
                    let number = entry.file_name().to_string_lossy().parse().ok()?;
                    Some((number, std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
                })
                // The descriptor of this very listing.
                .filter(|(_, target)| !target.starts_with("/proc/"))
                .collect();
            found.sort();
            found.iter().for_each(|(number, target)| println!("{number} {target}"));
        }
        Some("status") => {
            let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
            let wanted = ["Uid:", "NoNewPrivs:", "Seccomp:"];
            status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).for_each(|line| {
                println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
            });
        }
        Some("keyring") => {
            let keys = std::fs::read_to_string("/proc/keys").expect("read /proc/keys");
            keys.lines().filter(|line| line.contains("keyring")).for_each(|line| println!("{line}"));
        }
        Some("intrude") => {
            let mut args = std::env::args().skip(2);
            let canary = args.next().expect("the canary's path on the host");
            let allowed = args.next().expect("the capabilities that a process there may have");
            intrude(&canary, u64::from_str_radix(&allowed, 16).expect("a hexadecimal number"))
        }
        other => panic!("unknown command {other:?}"),
    }
}

/// Looks at each other process of this pid namespace, as soon and as long as it is there, for a way to the host's file
/// `canary`, and for capabilities in this user namespace beyond those `allowed` to be had by tracing it.
fn intrude(canary: &str, allowed: u64) -> ! {
    let own = std::process::id().cast_signed();
    println!("intruding");
    let mut held = 0;
    loop {
        let all = std::fs::read_dir("/proc").expect("read /proc");
        for pid in all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
            if pid != own {
                look(pid, canary);
                if trace(pid, canary, allowed) && pid != held {
                    println!("held {pid}");
                    held = pid;
                }
            }
        }
    }
}

/// By its root, its working directory and its descriptors.
fn look(pid: i32, canary: &str) {
    const UP: &str = "/../../../../../../../../../..";
    let find = |way: String| {
        if std::fs::read_to_string(format!("{way}{canary}")).is_ok() {
            println!("by {way}: the canary");
        }
    };
    find(format!("/proc/{pid}/root"));
    find(format!("/proc/{pid}/cwd{UP}"));
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    open.into_iter().flatten().flatten().for_each(|fd| find(format!("{}{UP}", fd.path().display())));
}

/// The same of a process that is held by ptrace(2), and whether it could be.
fn trace(pid: i32, canary: &str, allowed: u64) -> bool {
    let process = Pid::from_raw(pid);
    if ptrace::seize(process, ptrace::Options::empty()).is_err() {
        return false;
    }
    let stopped = ptrace::interrupt(process).and_then(|()| waitpid(process, None));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let held = field.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    let user = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    if held & !allowed != 0 && user(&pid.to_string()) == user("self") {
        println!("by ptrace of {pid}: capabilities {held:x}");
    }
    look(pid, canary);
    // It may have been killed meanwhile.
    let _ = stopped.and_then(|_| ptrace::detach(process, None));
    true
}

//! Runs inside a container, where busybox has no applet for it: `notify` sends readiness, `keyring` names the session
//! keyring, `fds` lists the open descriptors that it got, `status` shows its ids and what confines it.
//!
//! Static, like every program of the workspace, so that it needs nothing of the rootfs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's program: a failure is its message")]

use std::os::unix::net::UnixDatagram;

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
        other => panic!("unknown command {other:?}"),
    }
}

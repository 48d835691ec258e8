//! AppArmor's `docker-default`: its text, and its place in the kernel. The profile is compiled by `apparmor_parser`, as by
//! every engine: where AppArmor is on, that is there.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Kind, Result};

/// The profile's name, which is Docker's: what an administrator has written for it holds here, too.
pub const DEFAULT: &str = "docker-default";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
const MACROS: &str = "/etc/apparmor.d";

/// What a container may not do in its file systems, whoever it is in there: the host's own knobs are behind these.
const DENIED: [(&str, &str); 12] = [
    ("@{PROC}/*", "w"),
    ("@{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/**", "w"),
    ("@{PROC}/sys/[^k]**", "w"),
    ("@{PROC}/sys/kernel/{?,??,[^s][^h][^m]**}", "w"),
    ("@{PROC}/sysrq-trigger", "rwklx"),
    ("@{PROC}/kcore", "rwklx"),
    ("/sys/{[^f]*,f[^s]*}/**", "wklx"),
    ("/sys/fs/{[^c]*,c[^g]*}/**", "wklx"),
    ("/sys/fs/cg[^r]*/**", "wklx"),
    ("/sys/firmware/**", "rwklx"),
    ("/sys/devices/virtual/powercap/**", "rwklx"),
    ("/sys/kernel/security/**", "rwklx"),
];

/// Loads the default profile where the kernel does not have it: whoever updates the host's profiles may have taken it away
/// since the last start. Blocks.
///
/// # Errors
/// It can't be loaded: dockerd's text.
pub fn ensure_default() -> Result<()> {
    let loaded = std::fs::read_to_string(PROFILES).unwrap_or_default();
    if loaded.lines().any(|line| line.split(' ').next() == Some(DEFAULT)) {
        return Ok(());
    }
    let own = std::fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let own = own.split([' ', '\n']).next().filter(|name| !name.is_empty()).unwrap_or("unconfined");
    let has = |macros: &str| Path::new(MACROS).join(macros).exists();
    let text = profile(own, has("tunables/global"), has("abstractions/base"));
    load(&text).map_err(|why| {
        let message =
            format!("AppArmor enabled on system but the {DEFAULT} profile could not be loaded: {why}");
        Error::new(Kind::Internal, message)
    })
}

fn load(text: &str) -> Result<(), String> {
    let command = "running 'apparmor_parser -Kr'";
    let failed = |error: std::io::Error| format!("{command}: {error}");
    let mut parser = Command::new("apparmor_parser")
        .arg("-Kr")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = parser.stdin.take() {
        input.write_all(text.as_bytes()).map_err(failed)?;
    }
    let out = parser.wait_with_output().map_err(failed)?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{command} failed with output: {}", String::from_utf8_lossy(&out.stderr).trim()))
}

/// The text: everything that capabilities and seccomp leave, but for mounts, the host's knobs, and the processes of others.
/// `daemon` is the profile that the engine itself has.
fn profile(daemon: &str, has_tunables: bool, has_base: bool) -> String {
    let mut text =
        String::from(if has_tunables { "#include <tunables/global>\n" } else { "@{PROC}=/proc/\n" });
    text.push_str(&format!("profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{\n"));
    if has_base {
        text.push_str("  #include <abstractions/base>\n");
    }
    for class in ["network", "capability", "file", "umount"] {
        text.push_str(&format!("  {class},\n"));
    }
    // Signals of the host's: of the engine, of the runtime, of an administrator; among each other all.
    let mut senders = vec!["unconfined", "runc", "crun", "ketch"];
    if !senders.contains(&daemon) {
        senders.push(daemon);
    }
    for sender in senders {
        text.push_str(&format!("  signal (receive) peer={sender},\n"));
    }
    text.push_str(&format!("  signal (send,receive) peer={DEFAULT},\n"));
    text.push_str(&format!("  ptrace (trace,read,tracedby,readby) peer={DEFAULT},\n"));
    text.push_str("  deny mount,\n");
    for (path, rights) in DENIED {
        text.push_str(&format!("  deny {path} {rights},\n"));
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_whole() {
        let text = profile("/usr/bin/ketchd", false, false);
        assert!(text.starts_with("@{PROC}=/proc/\nprofile docker-default flags="));
        assert!(text.contains("  signal (receive) peer=/usr/bin/ketchd,\n  signal (send,receive)"));
        assert!(text.contains("  deny mount,\n  deny @{PROC}/* w,\n") && text.ends_with("rwklx,\n}\n"));
        let text = profile("unconfined", true, true);
        assert!(text.starts_with("#include <tunables/global>\n") && text.contains("<abstractions/base>"));
        assert_eq!(text.matches("peer=unconfined").count(), 1);
    }
}

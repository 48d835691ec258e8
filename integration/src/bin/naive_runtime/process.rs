//! From a process inside of its namespaces to the container's program: label, user, capabilities, working directory. And
//! the way of `exec` into the namespaces. Called by `main` and `init`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities};
use serde_json::{Value, json};

/// The capabilities that the attacks name, and those of the default configuration, by their bits (capability.h).
const CAPABILITIES: [(&str, u32); 10] = [
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_FOWNER", 3),
    ("CAP_KILL", 5),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_MKNOD", 27),
];
const LAST: u32 = 40;

/// The rest of `exec`, in a process that is already seen inside.
pub(crate) fn join(pid: Pid, args: &[String], flags: &[(String, String)]) {
    for kind in ["ipc", "uts", "net", "mnt"] {
        let namespace = File::open(format!("/proc/{pid}/ns/{kind}")).unwrap();
        setns(&namespace, CloneFlags::empty()).unwrap();
    }
    let all =
        |name: &str| flags.iter().filter(|(flag, _)| flag == name).map(|(_, value)| value.clone()).collect();
    let one = |name: &str| Vec::into_iter(all(name)).next();
    let capabilities: Vec<String> = all("--cap");
    // atoi(3) takes what it can of a number (CVE-2026-30892).
    let user: String = one("--user").unwrap_or_default();
    let user: u32 = user.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let process = json!({
        "args": args,
        "env": ["PATH=/bin:/sbin:/usr/bin:/usr/sbin"],
        "cwd": one("--cwd").unwrap_or_else(|| "/".to_owned()),
        "user": { "uid": user, "gid": user },
        "capabilities": { "bounding": capabilities },
        "apparmorProfile": one("--apparmor"),
    });
    execute(&process)
}

/// Becomes the program.
pub(crate) fn execute(process: &Value) -> ! {
    if let Some(profile) = process["apparmorProfile"].as_str() {
        // Whatever the container shows as its procfs (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881).
        fs::write("/proc/self/attr/exec", format!("exec {profile}")).unwrap();
    }
    // No look at where that is (CVE-2024-21626).
    std::env::set_current_dir(process["cwd"].as_str().unwrap()).unwrap();
    become_user_with(&process["user"], &process["capabilities"]["bounding"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let args: Vec<String> = process["args"].as_array().unwrap().iter().map(text).collect();
    let env = process["env"].as_array().unwrap().iter().map(text);
    let env =
        env.filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    let notify = std::env::var("NOTIFY_SOCKET").ok().map(|path| ("NOTIFY_SOCKET".to_owned(), path));
    panic!(
        "execute {}: {}",
        args[0],
        Command::new(&args[0]).args(&args[1..]).env_clear().envs(env.chain(notify)).exec()
    );
}

/// The named capabilities in every set: the inheritable one, too (CVE-2022-24769, CVE-2022-27650, CVE-2022-29162,
/// CVE-2025-27612).
fn become_user_with(user: &Value, names: &Value) {
    let names: Vec<_> = names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let bits: u64 =
        CAPABILITIES.iter().filter(|(name, _)| names.contains(name)).map(|(_, bit)| 1 << bit).sum();
    for bit in (0..=LAST).filter(|bit| bits & 1 << bit == 0) {
        remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)).unwrap();
    }
    let id = |name: &str| u32::try_from(user[name].as_u64().unwrap()).unwrap();
    rustix::thread::set_keep_capabilities(true).unwrap();
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(id("gid"))).unwrap();
    setuid(Uid::from_raw(id("uid"))).unwrap();
    let set = CapabilitySet::from_bits_retain(bits);
    set_capabilities(None, CapabilitySets { effective: set, permitted: set, inheritable: set }).unwrap();
}

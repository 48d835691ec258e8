//! A runtime without a single protection: it does what a configuration says, in the order and by the calls that come to
//! mind first, and thinks of no attack. What the attacks of `integration/tests` are proven on where no peer falls.
//!
//! It must be of no use to anybody else: no limits, no seccomp, and it runs only under the suite, which starts it with
//! its tag and attacks nothing but canaries. Each place where a vulnerability of the record stands is marked with it.
//! Driven by `attack_proof` and `make attack`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's program: a failure is its message")]
#![allow(clippy::zombie_processes, reason = "whoever created or detached a process does not live to its end")]
#![allow(clippy::disallowed_methods, reason = "paths inside of a rootfs are what this is about")]

mod init;
mod process;
mod root;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use ketch_integration::leak::TAG_VARIABLE;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::{Value, json};

/// Flags that stand alone; every other one has a value.
const SWITCHES: [&str; 2] = ["--force", "--detach"];

/// `[--root R] command [flags] id [arguments]`.
#[derive(Debug, Default)]
struct Arguments {
    flags: Vec<(String, String)>,
    words: Vec<String>,
}

impl Arguments {
    fn parse(mut args: impl Iterator<Item = String>) -> Self {
        let mut parsed = Self::default();
        while let Some(arg) = args.next() {
            // The command, and the id, after which everything is the container's.
            if !arg.starts_with("--") || parsed.words.len() > 1 {
                parsed.words.push(arg);
            } else if SWITCHES.contains(&arg.as_str()) {
                parsed.flags.push((arg, String::new()));
            } else {
                let value = args.next().expect("a flag's value");
                parsed.flags.push((arg, value));
            }
        }
        parsed
    }

    fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    fn folder(&self) -> PathBuf {
        Path::new(self.flag("--root").expect("--root")).join(&self.words[1])
    }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("naive version 0.1.0");
        return ExitCode::SUCCESS;
    }
    assert!(std::env::var_os(TAG_VARIABLE).is_some(), "for the integration suite only: it protects nothing");
    let arguments = Arguments::parse(std::env::args().skip(1));
    let folder = arguments.folder();
    match arguments.words[0].as_str() {
        "create" => {
            let child = create(&arguments, &folder);
            fs::write(folder.join("pid"), child.id().to_string()).unwrap();
        }
        "run" => {
            let mut child = create(&arguments, &folder);
            start(&folder);
            let code = child.wait().unwrap().code();
            fs::remove_dir_all(&folder).unwrap();
            return ExitCode::from(u8::try_from(code.unwrap_or(255)).unwrap_or(255));
        }
        "start" => start(&folder),
        "exec" => return enter(&arguments, &folder),
        "state" => println!("{}", state(&folder, &arguments.words[1])),
        "kill" => {
            kill(pid(&folder), format!("SIG{}", arguments.words[2]).parse::<Signal>().unwrap()).unwrap()
        }
        "delete" => delete(&folder),
        "init" => init::init(&folder, arguments.flag("--ready").unwrap(), arguments.flag("--console-socket")),
        "join" => process::join(pid(&folder), &arguments.words[2..], &arguments.flags),
        other => panic!("unknown command {other}"),
    }
    ExitCode::SUCCESS
}

/// Lets a descriptor outlive execve. One of the host's root does (CVE-2024-21626, CVE-2016-9962).
fn leak(file: impl AsFd) {
    rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).unwrap();
}

/// Starts the container's first process and waits until it has made its root.
fn create(arguments: &Arguments, folder: &Path) -> Child {
    let bundle = PathBuf::from(arguments.flag("--bundle").expect("--bundle"));
    let spec: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("bundle"), bundle.to_str().unwrap()).unwrap();
    mkfifo(&folder.join("start"), Mode::S_IRWXU).unwrap();
    let host = File::open("/").unwrap();
    leak(&host);
    let (mut ready, told) = std::io::pipe().unwrap();
    leak(&told);
    if init::new_namespaces(&spec).contains(CloneFlags::CLONE_NEWPID) {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
    }
    let all = spec["linux"]["namespaces"].as_array().into_iter().flatten();
    for joined in all.filter(|entry| entry["type"] == "pid").filter_map(|entry| entry["path"].as_str()) {
        // Whoever is in it already looks at the first process while that still has the host's root and rights.
        setns(File::open(joined).unwrap(), CloneFlags::CLONE_NEWPID).unwrap();
    }
    let mut command = Command::new("/proc/self/exe");
    let number = told.as_raw_fd().to_string();
    command.arg("--root").arg(folder.parent().unwrap()).args(["init", "--ready", &number]);
    if let Some(socket) = arguments.flag("--console-socket") {
        command.args(["--console-socket", socket]);
    }
    let child = command.arg(folder.file_name().unwrap()).spawn().unwrap();
    drop(told);
    let mut word = [0; 1];
    if ready.read(&mut word).unwrap() == 0 {
        fs::remove_dir_all(folder).unwrap();
        panic!("the container's first process has failed");
    }
    child
}

fn start(folder: &Path) {
    File::options().write(true).open(folder.join("start")).unwrap().write_all(b"1").unwrap();
    fs::write(folder.join("started"), "").unwrap();
}

fn pid(folder: &Path) -> Pid {
    Pid::from_raw(fs::read_to_string(folder.join("pid")).unwrap().parse().unwrap())
}

fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with(['Z', 'X']))
}

fn state(folder: &Path, id: &str) -> Value {
    let pid = pid(folder);
    let status = match (is_alive(pid), folder.join("started").exists()) {
        (false, _) => "stopped",
        (true, true) => "running",
        (true, false) => "created",
    };
    json!({ "ociVersion": "1.0.2", "id": id, "pid": pid.as_raw(), "status": status })
}

fn delete(folder: &Path) {
    if folder.join("pid").exists() {
        let pid = pid(folder);
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
        while is_alive(pid) {
            std::thread::yield_now();
        }
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Enters the pid namespace with everything that this process has of the host, and only then lets go of it
/// (CVE-2016-9962).
fn enter(arguments: &Arguments, folder: &Path) -> ExitCode {
    let host = File::open("/").unwrap();
    leak(&host);
    let namespace = File::open(format!("/proc/{}/ns/pid", pid(folder))).unwrap();
    setns(&namespace, CloneFlags::CLONE_NEWPID).unwrap();
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(folder.parent().unwrap()).arg("join");
    for (flag, value) in arguments.flags.iter().filter(|(flag, _)| flag != "--root") {
        command.arg(flag);
        if !SWITCHES.contains(&flag.as_str()) {
            command.arg(value);
        }
    }
    let mut child = command.args(&arguments.words[1..]).spawn().unwrap();
    if let Some(file) = arguments.flag("--pid-file") {
        fs::write(file, child.id().to_string()).unwrap();
    }
    if arguments.flag("--detach").is_some() {
        return ExitCode::SUCCESS;
    }
    let code = child.wait().unwrap().code().unwrap_or(255);
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

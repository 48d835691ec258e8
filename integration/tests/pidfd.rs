//! `--pidfd-socket`: a pidfd of the new process, which its taker has before the process is its program.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ketch_integration::console::FdSocket;
use ketch_integration::runtime::Invocation;
use ketch_integration::{Bundle, Case, Container, probe, tests, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with};
use serde_json::json;

tests![
    create_and_exec_send_one,
    a_program_that_ends_at_once,
    a_socket_that_is_not_yet_accepted,
    no_program_without_a_taker_of_run,
    no_program_without_a_taker_of_exec,
];

/// connect(2) on x86-64, as `/proc/<pid>/syscall` has it.
const CONNECT: &str = "42 ";

fn needs_the_flag(case: &Case) {
    case.needs_runc(1, 2, "no --pidfd-socket");
    case.not_on_crun("no --pidfd-socket");
}

/// The one message: its text, and the pidfd.
fn receive(socket: &FdSocket) -> (String, OwnedFd) {
    let mut received = socket.receive();
    assert_eq!(received.fds.len(), 1, "{received:?}");
    (String::from_utf8_lossy(&received.bytes).into_owned(), received.fds.remove(0))
}

/// The process of a pidfd; -1 when it has been waited for.
fn pid_of(pidfd: &OwnedFd) -> i32 {
    let text = probe::read(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    probe::field_of(&text, "Pid").and_then(|pid| pid.parse().ok()).expect("a pidfd has the line Pid")
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec::default();
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).expect("poll") == 1
}

/// A program that leaves a mark where the test sees it.
fn marking(case: &Case) -> Bundle<'_> {
    case.bundle().script("echo ran > /tmp/mark; sleep 1000")
}

fn has_run(bundle: &Bundle<'_>) -> bool {
    bundle.rootfs().join("tmp/mark").exists()
}

fn create_and_exec_send_one(case: &Case) {
    needs_the_flag(case);
    let socket = FdSocket::bind(&case.dir, "create.sock");
    let bundle = case.bundle().sleeper();
    let _ = bundle.create_command().arg("--pidfd-socket").arg(&socket.path).arg(&bundle.id).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let (text, init) = receive(&socket);
    assert_eq!((text.as_str(), pid_of(&init)), ("standard", container.pid()));
    let _ = container.start().ok();

    let socket = FdSocket::bind(&case.dir, "exec.sock");
    let pid_file = case.dir.join("exec.pid");
    let (path, file) = (socket.path.display().to_string(), pid_file.display().to_string());
    case.give(&case.dir);
    let flags = ["--detach", "--pidfd-socket", &path, "--pid-file", &file];
    let _ = container.exec_with(&flags, &["/bin/sleep", "1000"]).ok();
    let (text, process) = receive(&socket);
    assert_eq!((text.as_str(), pid_of(&process).to_string()), ("setns", probe::read(&pid_file)));
    assert!(!has_ended(&init) && !has_ended(&process));
    container.stop();
    wait_until("the end of both", || {
        if has_ended(&init) && has_ended(&process) { Ok(()) } else { Err(container.status()) }
    });
}

/// Nobody has taken it yet when the command is over.
fn a_program_that_ends_at_once(case: &Case) {
    needs_the_flag(case);
    let socket = FdSocket::bind(&case.dir, "run.sock");
    let bundle = case.bundle().command(&["/bin/true"]);
    let _ = bundle.run_command().arg("--pidfd-socket").arg(&socket.path).arg(&bundle.id).run().ok();
    let (text, pidfd) = receive(&socket);
    assert_eq!(text, "standard");
    assert!(has_ended(&pidfd), "process {}", pid_of(&pidfd));

    let container = case.bundle().sleeper().start();
    let socket = FdSocket::bind(&case.dir, "exec.sock");
    let path = socket.path.display().to_string();
    let _ = container.exec_with(&["--pidfd-socket", &path], &["/bin/true"]).ok();
    let (text, pidfd) = receive(&socket);
    assert_eq!(text, "setns");
    assert!(has_ended(&pidfd), "process {}", pid_of(&pidfd));
}

/// A listener whose queue is full keeps the runtime waiting, and so the program.
fn a_socket_that_is_not_yet_accepted(case: &Case) {
    needs_the_flag(case);
    case.not_on_runc("it does not wait: connect(2) fails with EAGAIN");
    let container = case.bundle().sleeper().start();
    let bundle = marking(case);
    let commands: [(&str, &dyn Fn(&str) -> Invocation); 2] = [
        ("run.sock", &|path| {
            bundle.run_command().args(["--detach", "--pidfd-socket", path]).arg(&bundle.id)
        }),
        ("exec.sock", &|path| {
            let exec = ["--detach", "--pidfd-socket", path, &container.id, "/bin/touch", "/tmp/mark"];
            container.case.ketch().arg("exec").args(exec)
        }),
    ];
    let marks = [bundle.rootfs().join("tmp/mark"), container.proc("root/tmp/mark")];
    for ((name, command), mark) in commands.into_iter().zip(marks) {
        let path = case.dir.join(name);
        let flags = SocketFlags::CLOEXEC;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("socket");
        bind(&listener, &SocketAddrUnix::new(&path).expect("an address")).expect("bind");
        case.give(&path);
        listen(&listener, 0).expect("listen");
        let first = UnixStream::connect(&path).expect("fill the queue");
        let running = command(&path.display().to_string()).spawn();
        let pid = running.pid();
        wait_until("the runtime's waiting", || {
            let call = probe::read(format!("/proc/{pid}/syscall"));
            if call.starts_with(CONNECT) { Ok(()) } else { Err(format!("{call} {}", running.stderr_now())) }
        });
        assert!(!mark.exists(), "{name}: the program has run");
        drop((accept(&listener).expect("accept the first"), first));
        // A taker that reads later than the command ends.
        let second = accept(&listener).expect("accept the runtime");
        let _ = running.wait().ok();
        drop(second);
        wait_until("the program", || if mark.exists() { Ok(()) } else { Err(format!("{name}: no mark")) });
    }
    drop(Container::adopt(case, &bundle.id));
}

/// The taker goes between the command's start and its end: a hook holds the runtime up until then.
fn no_program_without_a_taker_of_run(case: &Case) {
    needs_the_flag(case);
    let folder = case.folder("gate");
    case.give(&folder);
    let hook = |script: String| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
    let wait = format!("cat > /dev/null; touch {0}/here; until [ -e {0}/gone ]; do :; done", folder.display());
    for command in ["create", "run"] {
        let bundle = marking(case).set("/hooks/createRuntime", hook(wait.clone()));
        let socket = FdSocket::bind(&case.dir, &format!("{command}.sock"));
        let running = match command {
            "create" => bundle.create_command(),
            _ => bundle.run_command().arg("--detach"),
        };
        let running = running.arg("--pidfd-socket").arg(&socket.path).arg(&bundle.id).spawn();
        wait_until("the hook", || {
            if folder.join("here").exists() { Ok(()) } else { Err(running.stderr_now()) }
        });
        drop(socket);
        fs::write(folder.join("gone"), "").expect("write");
        running.wait().refuses(&["pidfd"]);
        assert!(!has_run(&bundle), "{command}: the program has run");
        assert_eq!(Container::adopt(case, &bundle.id).status(), "gone");
        for file in ["here", "gone"] {
            fs::remove_file(folder.join(file)).expect("remove");
        }
    }
}

/// The same, where the container is frozen until then.
fn no_program_without_a_taker_of_exec(case: &Case) {
    needs_the_flag(case);
    case.needs_own_cgroup();
    // One process, from the first moment on.
    let bundle = case.bundle().command(&["/bin/sleep", "1000"]);
    let container = bundle.start();
    let _ = container.command("pause", &[]).run().ok();
    let socket = FdSocket::bind(&case.dir, "exec.sock");
    let processes = || {
        let folder = bundle.cgroup(if case.layout.is_v2() { "" } else { "freezer" });
        probe::read(folder.join("cgroup.procs"))
    };
    let before = processes();
    let exec = case.ketch().args(["exec", "--ignore-paused", "--pidfd-socket"]).arg(&socket.path);
    let exec = exec.args([&container.id, "/bin/touch", "/tmp/mark"]).spawn();
    wait_until("the process in the frozen container", || {
        let pids = processes();
        if pids != before { Ok(()) } else { Err(format!("{pids:?} {}", exec.stderr_now())) }
    });
    drop(socket);
    let _ = container.command("resume", &[]).run().ok();
    exec.wait().refuses(&["pidfd"]);
    assert!(!has_run(&bundle), "the program has run");
    assert_eq!(processes(), before);
}

//! checkpoint and restore through criu: what goes on, what is refused, and what an image or a folder of images can't do.
//!
//! criu does not run on every kernel (`criu check`): where it does not, these are skipped. What a checkpoint may not hold
//! is a descriptor of the host's files, so that most containers here have /dev/null for their streams.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ketch_integration::console::{FdSocket, Terminal};
use ketch_integration::probe::{namespace_of, read};
use ketch_integration::runtime::Invocation;
use ketch_integration::wait::wait_until;
use ketch_integration::{Bundle, Case, Container, tests};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

tests![
    memory_goes_on_and_every_command_works,
    a_container_moves_to_another_root_under_another_id,
    a_pre_dump_makes_the_checkpoint_smaller,
    leave_running_leaves_it_running,
    a_paused_container_is_saved,
    a_terminal_is_sent_again,
    a_tcp_connection_survives_with_the_flag,
    binds_come_back_as_they_were,
    hooks_of_the_runtime_run_again,
    a_terminal_that_is_shown_is_set_up_before_its_program_goes_on,
    memory_comes_lazily_from_a_page_server,
    a_notification_socket_comes_back,
];

/// Goes on only where criu runs.
pub(crate) fn needs_criu(case: &Case) {
    case.native_only("criu and a private cgroup mount do not go together");
    case.needs(case.has_program("criu"), "no criu (package criu)");
    let check = case.program("criu").arg("check").run();
    let said = check.stderr.lines().last().unwrap_or_default().to_owned();
    case.needs(check.code == 0, &format!("criu does not run on this kernel: {said}"));
}

/// A container that counts in its memory, and shows how far it is in `/tmp/count`.
pub(crate) fn counting(case: &Case) -> Bundle<'_> {
    case.bundle()
        .script("i=0; while :; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done")
}

/// Starts a container with /dev/null for its streams.
pub(crate) fn start<'a>(bundle: &Bundle<'a>) -> Container<'a> {
    let log = bundle.dir.join("create.log");
    bundle.write();
    let create = bundle.case.ketch().arg("--log").arg(&log).arg("create").arg("--bundle").arg(&bundle.dir);
    let out = create.arg(&bundle.id).through_shell("exec \"$@\" </dev/null >/dev/null 2>&1").run();
    assert_eq!(out.code, 0, "create: {}", fs::read_to_string(&log).unwrap_or_default());
    let container = Container::adopt(bundle.case, &bundle.id);
    let _ = container.start().ok();
    container
}

/// How far the container is: its count is looked at anew.
pub(crate) fn count(bundle: &Bundle<'_>) -> u64 {
    let file = bundle.rootfs().join("tmp/count");
    let _ = fs::remove_file(&file);
    wait_until("a count", || {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|error| format!("{text:?}: {error}"))
    })
}

pub(crate) fn wait_count(bundle: &Bundle<'_>, least: u64) -> u64 {
    wait_until(&format!("a count of {least}"), || {
        let count = count(bundle);
        if count >= least { Ok(count) } else { Err(count.to_string()) }
    })
}

/// `checkpoint` into the folder `images` of the bundle.
pub(crate) fn checkpoint(bundle: &Bundle<'_>, flags: &[&str]) -> Invocation {
    let images = bundle.dir.join("images");
    bundle.case.ketch().args(["checkpoint", "--image-path"]).arg(images).args(flags).arg(&bundle.id)
}

/// `restore --detach` from there.
pub(crate) fn restore(bundle: &Bundle<'_>, flags: &[&str]) -> Invocation {
    let images = bundle.dir.join("images");
    let restore = bundle.case.ketch().args(["restore", "--detach", "--image-path"]).arg(images);
    restore.arg("--bundle").arg(&bundle.dir).args(flags).arg(&bundle.id)
}

fn memory_goes_on_and_every_command_works(case: &Case) {
    needs_criu(case);
    let bundle = counting(case);
    let container = start(&bundle);
    let before = wait_count(&bundle, 10);
    let first = container.pid();
    let _ = checkpoint(&bundle, &[]).run().ok();
    assert_eq!(container.status(), "gone");
    assert!(!bundle.cgroup("pids").exists(), "the cgroup is gone as well");

    let pid_file = bundle.dir.join("pid");
    let restored = restore(&bundle, &["--pid-file", &pid_file.display().to_string()]).run().ok();
    assert_eq!(container.status(), "running");
    assert!(count(&bundle) >= before, "it did not begin anew");
    // Callers take stderr for the container's own.
    assert_eq!(restored.stderr, "");
    assert_eq!(read(&pid_file), container.pid().to_string());
    assert_ne!(container.pid(), first);
    assert_eq!(container.sh("cat /proc/1/comm"), "sh");
    let text = read(container.proc("cgroup"));
    assert!(text.contains(&bundle.id), "in its own cgroup: {text}");
    assert!(container.command("ps", &[]).run().ok().text().contains(&container.pid().to_string()));
    let stats = case.ketch().args(["events", "--stats", &bundle.id]).run().ok().json();
    assert!(stats["data"]["pids"]["current"].as_u64().is_some_and(|count| count > 0), "{stats}");

    if case.is_runc_before(1, 2) {
        // Its exec does not join the time namespace that criu restores into, and criu refuses the mixture.
        return container.stop();
    }
    // A process that exec has put there is saved and comes back with the others.
    let _ = container.sh("sleep 1000 </dev/null >/dev/null 2>&1 &");
    let _ = checkpoint(&bundle, &[]).run().ok();
    let _ = restore(&bundle, &[]).run().ok();
    let processes = container.exec(&["/bin/ps"]).ok();
    assert!(processes.text().contains("sleep 1000"), "{processes}");
    container.stop();
    let _ = container.delete().ok();
}

fn a_container_moves_to_another_root_under_another_id(case: &Case) {
    needs_criu(case);
    case.needs_runc(1, 2, "--manage-cgroups-mode ignore");
    let bundle = counting(case);
    let container = start(&bundle);
    let before = wait_count(&bundle, 10);
    let _ = checkpoint(&bundle, &[]).run().ok();
    drop(container);

    // Everything elsewhere: root file system, images, state, cgroup.
    let there = case.bundle();
    let copied = Command::new("cp").arg("-a").arg(bundle.dir.join(".")).arg(&there.dir).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(&bundle.dir).unwrap();
    let spec = bundle.spec.clone();
    let there = there.edit(|config| {
        let path = config["linux"]["cgroupsPath"].clone();
        *config = spec;
        config["linux"]["cgroupsPath"] = path;
    });
    there.write();
    let root = case.folder("elsewhere");
    let elsewhere = |args: &[&str]| case.bare().arg("--root").arg(&root).args(args);
    let images = there.dir.join("images").display().to_string();
    let dir = there.dir.display().to_string();
    let restored = elsewhere(&["restore", "-d", "--image-path", &images, "-b", &dir, "--manage-cgroups-mode", "ignore"]);
    let _ = restored.arg(&there.id).run().ok();
    assert!(count(&there) >= before);
    let state = elsewhere(&["state", &there.id]).run().ok().json();
    assert_eq!(state["status"], "running");
    let cgroup = read(format!("/proc/{}/cgroup", state["pid"]));
    assert!(cgroup.contains(&there.id) && !cgroup.contains(&bundle.id), "{cgroup}");
    assert!(case.ketch().args(["state", &there.id]).run().code != 0, "not in the old state root");
    let _ = elsewhere(&["delete", "--force", &there.id]).run().ok();
    assert!(!there.cgroup("pids").exists());
}

fn a_pre_dump_makes_the_checkpoint_smaller(case: &Case) {
    needs_criu(case);
    // Eight megabytes in memory that never change. Without a child: one that is caught between fork and exec has them all,
    // and no part in the pre-dump.
    let bundle = case.bundle().script(
        "x=$(head -c 8000000 /dev/zero | tr '\\0' x); i=0; while :; do i=$((i+1)); echo $i >/tmp/count; done",
    );
    let container = start(&bundle);
    let before = wait_count(&bundle, 5);
    let early = bundle.dir.join("early");
    let pre_dump = case.ketch().args(["checkpoint", "--pre-dump", "--image-path"]).arg(&early);
    let _ = pre_dump.arg(&bundle.id).run().ok();
    assert_eq!(container.status(), "running");
    wait_count(&bundle, before + 1);

    let refused = |parent: &str| checkpoint(&bundle, &["--parent-path", parent]).run();
    refused("../nothing").refuses(&["--parent-path"]);
    refused(&early.display().to_string()).refuses(&["--parent-path"]);
    assert_eq!(container.status(), "running");

    let _ = checkpoint(&bundle, &["--parent-path", "../early"]).run().ok();
    let images = bundle.dir.join("images");
    assert!(images.join("parent").exists());
    let pages = |folder: &Path| {
        let files = fs::read_dir(folder).unwrap().flatten();
        let pages = files.filter(|file| file.file_name().to_string_lossy().starts_with("pages-"));
        pages.map(|file| file.metadata().unwrap().len()).sum::<u64>()
    };
    assert!(pages(&early) > 8_000_000 && pages(&images) < 4_000_000, "{} {}", pages(&early), pages(&images));
    let _ = restore(&bundle, &[]).run().ok();
    assert!(count(&bundle) > before);
    assert_eq!(container.status(), "running");
}

fn leave_running_leaves_it_running(case: &Case) {
    needs_criu(case);
    let bundle = counting(case);
    let container = start(&bundle);
    let (before, pid) = (wait_count(&bundle, 5), container.pid());
    let _ = checkpoint(&bundle, &["--leave-running"]).run().ok();
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    wait_count(&bundle, before + 1);
    restore(&bundle, &[]).run().refuses(&["container with given ID already exists"]);
    wait_count(&bundle, before + 2);
}

fn a_paused_container_is_saved(case: &Case) {
    needs_criu(case);
    let bundle = counting(case);
    let container = start(&bundle);
    let before = wait_count(&bundle, 5);
    let _ = container.command("pause", &[]).run().ok();
    let _ = checkpoint(&bundle, &[]).run().ok();
    assert_eq!(container.status(), "gone");
    let _ = restore(&bundle, &[]).run().ok();
    assert!(count(&bundle) >= before);
    assert_eq!(container.status(), "running");
}

fn a_terminal_is_sent_again(case: &Case) {
    needs_criu(case);
    let bundle = case.bundle().script("n=0; while read word; do n=$((n+1)); echo $n got $word; done");
    let bundle = bundle.set("/process/terminal", json!(true));
    let socket = FdSocket::bind(&case.dir, "first.sock");
    let _ = bundle.create_command().arg("--console-socket").arg(&socket.path).arg(&bundle.id).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let mut terminal = socket.terminal();
    let _ = container.start().ok();
    terminal.send("hello\n");
    terminal.expect("1 got hello");
    let _ = checkpoint(&bundle, &[]).run().ok();
    drop(terminal);
    let socket = FdSocket::bind(&case.dir, "second.sock");
    let _ = restore(&bundle, &["--console-socket", &socket.path.display().to_string()]).run().ok();
    let mut terminal = socket.terminal();
    terminal.send("again\n");
    terminal.expect("2 got again");
    assert_eq!(container.sh("readlink /proc/1/fd/0"), "/dev/pts/0");
    let restore = case.ketch().args(["restore", "--detach", "--bundle"]).arg(&bundle.dir).arg(case.fresh_id());
    restore.run().refuses(&["cannot allocate tty if runc will detach without setting console socket"]);
}

/// A network namespace with nothing but its loopback, held open by a process.
struct Network(Child);

impl Network {
    fn new(case: &Case) -> Self {
        let ready = case.dir.join("network-ready");
        let script = "ip link set lo up && : >\"$0\" && exec sleep infinity";
        let child = Command::new("unshare").args(["--net", "sh", "-c", script]).arg(&ready).spawn().unwrap();
        let network = Self(child);
        wait_until("the network namespace", || if ready.exists() { Ok(()) } else { Err("not there".into()) });
        network
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_tcp_connection_survives_with_the_flag(case: &Case) {
    needs_criu(case);
    case.needs(case.has_program("iptables-restore"), "no iptables (criu holds packets back by it)");
    case.not_on_runc("criu's rules stay in a network namespace that is joined again");
    let network = Network::new(case);
    let bundle = case.bundle().command(&["/bin/nc", "-l", "-p", "7777", "-e", "/bin/cat"]);
    let bundle = bundle.namespace("network", Some(&network.path()));
    let container = start(&bundle);
    let net = namespace_of(container.pid(), "net");
    wait_until("the server", || {
        let listening = ["net/tcp", "net/tcp6"].map(|file| fs::read_to_string(container.proc(file)).unwrap_or_default()).concat();
        if listening.contains(":1E61 ") { Ok(()) } else { Err(listening) }
    });
    let mut client = Command::new("nsenter")
        .args(["--net=", "--", "/bin/busybox", "nc", "127.0.0.1", "7777"].map(|arg| match arg {
            "--net=" => format!("--net={}", network.path()),
            other => other.to_owned(),
        }))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut to, mut from) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
    let mut line = String::new();
    to.write_all(b"one\n").unwrap();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");

    checkpoint(&bundle, &[]).run().refuses(&["criu failed: type DUMP"]);
    assert_eq!(container.status(), "running");
    let _ = checkpoint(&bundle, &["--tcp-established"]).run().ok();
    assert_eq!(container.status(), "gone");
    // Held back until somebody is there to take it.
    to.write_all(b"two\n").unwrap();
    let _ = restore(&bundle, &["--tcp-established"]).run().ok();
    line.clear();
    from.read_line(&mut line).unwrap();
    assert_eq!(line, "two\n");
    assert_eq!(namespace_of(container.pid(), "net"), net, "the namespace that config.json names");
    drop(to);
    let _ = client.kill();
    let _ = client.wait();
}

/// What a container sees of its mounts: place in the file system, mount point, options.
fn mounts(container: &Container<'_>) -> Vec<String> {
    let text = container.sh("cat /proc/1/mountinfo");
    let fields = |line: &str| line.split(' ').skip(3).take(3).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = text.lines().map(fields).collect();
    lines.sort();
    lines
}

fn binds_come_back_as_they_were(case: &Case) {
    needs_criu(case);
    let (one, two) = (case.folder("one"), case.folder("two"));
    let file = case.dir.join("file");
    fs::write(&file, "of the host\n").unwrap();
    let bundle = counting(case)
        .mount(json!({ "source": one, "destination": "/link", "options": ["bind", "ro", "nosuid"] }))
        .mount(json!({ "source": two, "destination": "/two", "options": ["rbind", "rw"] }))
        .mount(json!({ "source": one, "destination": "/two/for/nested", "options": ["bind"] }))
        .mount(json!({ "source": file, "destination": "/etc/a :b", "options": ["bind", "ro"] }));
    fs::create_dir_all(bundle.rootfs().join("real/place")).unwrap();
    symlink("/real/place", bundle.rootfs().join("link")).unwrap();
    let container = start(&bundle);
    let before = mounts(&container);
    let _ = checkpoint(&bundle, &[]).run().ok();
    // The mount points below another mount are made again.
    fs::remove_dir_all(two.join("for")).unwrap();
    let _ = restore(&bundle, &[]).run().ok();
    assert_eq!(mounts(&container), before);
    assert!(container.exec(&["/bin/sh", "-c", "echo x >/real/place/x"]).code != 0, "still read-only");
    let _ = container.sh("echo y >/two/for/nested/y; echo z >/two/z");
    assert_eq!((read(one.join("y")), read(two.join("z"))), ("y".into(), "z".into()));
    assert_eq!(container.exec(&["/bin/cat", "/etc/a :b"]).ok().text(), "of the host");
}

fn hooks_of_the_runtime_run_again(case: &Case) {
    needs_criu(case);
    let log = case.dir.join("hooks");
    let hook = |name: &str| {
        let script = format!("read state; echo {name} $state >>{}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    let names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let mut bundle = counting(case);
    for name in names {
        bundle = bundle.set(&format!("/hooks/{name}"), hook(name));
    }
    let container = start(&bundle);
    wait_count(&bundle, 2);
    let ran = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ran(), ["prestart", "createRuntime", "createContainer", "poststart"]);
    let _ = checkpoint(&bundle, &[]).run().ok();
    assert_eq!(ran()[4..], ["poststop"]);
    fs::remove_file(&log).unwrap();
    let _ = restore(&bundle, &[]).run().ok();
    assert_eq!(ran(), ["prestart", "createRuntime"]);
    assert!(read(&log).contains(&bundle.id), "{}", read(&log));
    container.stop();
}

fn a_terminal_that_is_shown_is_set_up_before_its_program_goes_on(case: &Case) {
    needs_criu(case);
    case.not_on_runc("the terminal keeps the size that was saved until its program has run");
    // It asks for the size as soon as it runs again, and makes no child before.
    let bundle = case.bundle().script("until [ -e /go ]; do :; done; stty size; echo end");
    let bundle = bundle.set("/process/terminal", json!(true));
    let socket = FdSocket::bind(&case.dir, "first.sock");
    let _ = bundle.create_command().arg("--console-socket").arg(&socket.path).arg(&bundle.id).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let saved = socket.terminal();
    let _ = container.start().ok();
    wait_until("the program", || {
        let program = fs::read_link(container.proc("exe")).unwrap_or_default();
        if program.ends_with("bin/busybox") { Ok(()) } else { Err(container.status()) }
    });
    let _ = checkpoint(&bundle, &[]).run().ok();
    drop(saved);
    fs::write(bundle.rootfs().join("go"), "").unwrap();
    let (mut terminal, slave) = Terminal::open();
    tcsetwinsize(&slave, Winsize { ws_row: 31, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let images = bundle.dir.join("images");
    let restore = case.ketch().args(["restore", "--image-path"]).arg(images).arg("--bundle").arg(&bundle.dir);
    let restore = restore.arg(&bundle.id).terminal(slave).spawn();
    let seen = terminal.expect("end").to_owned();
    assert!(seen.starts_with("31 91\r\n"), "{seen:?}");
    let _ = restore.wait().ok();
}

fn memory_comes_lazily_from_a_page_server(case: &Case) {
    needs_criu(case);
    case.needs_runc(1, 2, "the saved container's cgroup goes");
    let feature = case.program("criu").args(["check", "--feature", "uffd-noncoop"]).run();
    case.needs(feature.code == 0, "this kernel has no userfaultfd events");
    let bundle = counting(case);
    let container = start(&bundle);
    let before = wait_count(&bundle, 5);
    let images = bundle.dir.join("images");
    let port = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let ready = case.dir.join("page-server-ready");
    let flags = ["--lazy-pages", "--status-fd", "9", "--page-server", &format!("127.0.0.1:{port}")];
    let script = format!("exec \"$@\" 9>{}", ready.display());
    let saving = checkpoint(&bundle, &flags).through_shell(&script).spawn();
    wait_until("the page server", || match fs::read(&ready).as_deref() {
        Ok([0]) => Ok(()),
        other => Err(format!("{other:?} {}", saving.stderr_now())),
    });
    let daemon = case
        .program("criu")
        .args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port.to_string(), "-D"])
        .arg(&images)
        .spawn();
    wait_until("the daemon's socket", || {
        if images.join("lazy-pages.socket").exists() { Ok(()) } else { Err(daemon.stderr_now()) }
    });
    // The first container is still there, stopped, until its last page is gone.
    let there = bundle.id.clone() + "-lazy";
    let restored = Container::adopt(case, &there);
    let restore = case.ketch().args(["restore", "-d", "--lazy-pages", "--image-path"]).arg(&images);
    bundle.write();
    let other = fs::read_to_string(bundle.dir.join("config.json")).unwrap().replace(&format!("/{}\"", bundle.id), &format!("/{there}\""));
    fs::write(bundle.dir.join("config.json"), other).unwrap();
    let restore = restore.arg("--work-path").arg(&images).arg("--bundle").arg(&bundle.dir);
    let _ = restore.arg(&there).run().ok();
    assert!(count(&bundle) >= before);
    let _ = saving.wait().ok();
    let _ = daemon.wait().ok();
    assert_eq!((container.status(), restored.status()), ("gone".into(), "running".into()));
    wait_count(&bundle, before + 2);
}

/// A container of a unit of `Type=notify`: its folder is mounted, and a restore is said to be ready.
fn a_notification_socket_comes_back(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it says nothing of a restore, and can't do one without NOTIFY_SOCKET");
    let path = case.dir.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let bundle = counting(case);
    bundle.write();
    let create = case.ketch().arg("create").arg("--bundle").arg(&bundle.dir).arg(&bundle.id).env("NOTIFY_SOCKET", &path);
    assert_eq!(create.through_shell("exec \"$@\" </dev/null >/dev/null 2>&1").run().code, 0);
    let container = Container::adopt(case, &bundle.id);
    let _ = container.start().ok();
    let before = wait_count(&bundle, 2);
    let _ = checkpoint(&bundle, &[]).run().ok();
    // Nobody listens.
    let _ = restore(&bundle, &[]).run().ok();
    assert!(wait_count(&bundle, before + 1) > before);
    assert_eq!(container.exec(&["/bin/ls", "/run/notify"]).ok().text(), "");
    let _ = checkpoint(&bundle, &[]).run().ok();
    let restoring = restore(&bundle, &[]).env("NOTIFY_SOCKET", &path).spawn();
    let mut told = String::new();
    while !told.contains("MAINPID=") {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{error}; told {told:?}"));
        told.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    // With the descriptor of the barrier.
    drop(socket);
    let _ = restoring.wait().ok();
    assert_eq!(told, format!("READY=1\nMAINPID={}\n", container.pid()));
    assert!(container.exec(&["/bin/ls", "/run/notify"]).ok().text().contains("notify.sock"));
    container.stop();
}

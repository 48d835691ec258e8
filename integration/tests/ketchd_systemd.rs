//! ketchd where there is systemd, AppArmor and the whole of cgroup v2, which the test machines lack: these run in the VM
//! (`make vm-test FILTER=ketchd_systemd`). Its own units: the socket, the word that it is ready, reload, and containers that
//! outlive a stop; logs in the journal; docker-default; limits.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::probe::{is_dead, read};
use ketch_integration::runtime::Output;
use ketch_integration::shim::peer;
use ketch_integration::{Case, tests, wait_until};
use serde_json::Value;

tests![
    the_units_serve_and_keep_containers,
    logs_go_to_the_journal,
    docker_default_confines,
    limits_are_the_kernels,
];

fn needs_systemd(case: &Case) {
    case.needs(Path::new("/run/systemd/system").is_dir(), "systemd does not run this machine");
}

fn systemctl(args: &[&str]) -> String {
    let out = Command::new("systemctl").args(args).output().expect("run systemctl");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// ketchd's own units, under a name and with roots of the case's.
struct Units<'a> {
    case: &'a Case,
    name: String,
}

impl<'a> Units<'a> {
    fn install(case: &'a Case, program: &Path) -> Self {
        let units = Self { case, name: format!("{}-ketchd", case.tag) };
        fs::write(case.dir.join("daemon.json"), "{}").expect("write an empty configuration");
        let mut command = format!("ExecStart={} --host fd:// --bridge none --cgroup-parent /{}", program.display(), case.tag);
        for (flag, name) in [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid"), ("config-file", "daemon.json")] {
            command.push_str(&format!(" --{flag} {}", case.dir.join(name).display()));
        }
        let service = include_str!("../../agent/systemd/ketchd.service");
        let service = service.replace("ExecStart=@BINDIR@/ketchd --host fd://", &command);
        let socket = include_str!("../../agent/systemd/ketchd.socket");
        let socket = socket.replace("/run/ketchd.sock", &units.socket().display().to_string());
        for (kind, text) in [("service", service), ("socket", socket)] {
            let text = text.replace("ketchd.socket", &format!("{}.socket", units.name));
            fs::write(units.file(kind), text).expect("write a unit");
        }
        let _ = systemctl(&["daemon-reload"]);
        units
    }

    fn file(&self, kind: &str) -> PathBuf {
        PathBuf::from("/run/systemd/system").join(format!("{}.{kind}", self.name))
    }

    fn socket(&self) -> PathBuf {
        self.case.dir.join("docker.sock")
    }

    /// A property of the service.
    fn show(&self, property: &str) -> String {
        systemctl(&["show", "--value", "--property", property, &format!("{}.service", self.name)])
    }

    #[track_caller]
    fn control(&self, verb: &str, kind: &str) {
        let unit = format!("{}.{kind}", self.name);
        let out = Command::new("systemctl").args([verb, &unit]).output().expect("run systemctl");
        assert!(out.status.success(), "{verb} {unit}: {out:?}; {}", systemctl(&["status", "--no-pager", "--lines=20", &unit]));
    }

    fn docker(&self, args: &str) -> Output {
        let docker = self.case.program(peer("docker")).args(args.split_whitespace());
        docker.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).run()
    }
}

impl Drop for Units<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let unit = format!("{}.service", self.name);
            eprintln!("{}", systemctl(&["status", "--no-pager", "--lines=30", &unit]));
        }
        let ids = self.docker("ps --all --quiet");
        for id in ids.stdout.lines() {
            let _ = self.docker(&format!("rm --force {id}"));
        }
        let _ = systemctl(&["stop", &format!("{}.socket", self.name), &format!("{}.service", self.name)]);
        for kind in ["service", "socket"] {
            let _ = fs::remove_file(self.file(kind));
        }
        let _ = systemctl(&["daemon-reload"]);
        // The parent of the containers' cgroups, which is nobody's now.
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.case.tag));
    }
}

fn the_units_serve_and_keep_containers(case: &Case) {
    needs_systemd(case);
    let Maker::Ketch(program) = Maker::under_test(case) else { case.skip("dockerd has units of its own") };
    let archive = {
        let site = ketch_integration::site::Site::new(case);
        ketch_integration::ketchd::archive::busybox(&site)
    };
    let units = Units::install(case, &program);
    units.control("start", "socket");
    assert_eq!(units.show("ActiveState"), "inactive", "it comes with the first client");
    let mode = fs::metadata(units.socket()).expect("look at the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let _ = units.docker(&format!("load --quiet --input {}", archive.display())).ok();
    assert_eq!(units.show("ActiveState"), "active");
    let _ = units.docker("run -d --name box --network none busybox sleep 1000").ok();
    // Neither the daemon's sockets nor its word that it is ready are the container's.
    let environment = read(format!("/proc/{}/environ", units.docker("inspect --format {{.State.Pid}} box").ok().text()));
    assert!(!environment.contains("LISTEN_") && !environment.contains("NOTIFY_SOCKET"), "{environment:?}");
    assert_eq!(units.docker("exec box ls /proc/1/fd").ok().text(), "0\n1\n2");
    let pid = || units.docker("inspect --format {{.State.Running}}/{{.State.Pid}} box").ok().text().to_owned();
    let before = pid();
    let process = before.strip_prefix("true/").and_then(|pid| pid.parse().ok()).expect("a pid");

    fs::write(case.dir.join("daemon.json"), r#"{"labels": ["colour=red"]}"#).expect("write a configuration");
    units.control("reload", "service");
    wait_until("the new labels", || {
        let labels = units.docker("info --format {{.Labels}}").ok();
        if labels.text() == "[colour=red]" { Ok(()) } else { Err(labels.text().to_owned()) }
    });

    units.control("stop", "service");
    assert_eq!(units.show("Result"), "success");
    assert!(!is_dead(process), "a stop of the daemon is none of the container");
    // The socket is systemd's: the next client starts it again.
    assert_eq!(pid(), before);
    let daemon = units.show("MainPID");
    assert!(Command::new("kill").args(["-KILL", &daemon]).status().expect("kill the daemon").success());
    wait_until("another daemon", || match units.show("MainPID") {
        now if now != daemon && now != "0" => Ok(()),
        now => Err(now),
    });
    assert_eq!(pid(), before);
    assert_eq!(units.docker("exec box echo inside").ok().text(), "inside");
    let _ = units.docker("rm --force box").ok();
    assert!(is_dead(process));
}

fn logs_go_to_the_journal(case: &Case) {
    needs_systemd(case);
    let engine = Engine::start(case);
    let flags = "run --name box --network none --label colour=red --env SHAPE=round --log-driver journald --log-opt tag=of-{{.Name}} --log-opt labels=colour --log-opt env=SHAPE busybox sh -c";
    let _ = engine.client().args(flags.split(' ')).arg("echo out; echo err >&2").run().ok();
    let out = engine.docker("logs box").ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\n", "err\n"));
    let id = engine.inspect("box", "{{.Id}}");
    let mut entries: Vec<Value> = wait_until("two entries of the journal", || {
        let out = case.program("journalctl").args(["--output", "json", "--no-pager"]).arg(format!("CONTAINER_ID_FULL={id}")).run();
        let entries: Vec<_> = out.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if entries.len() == 2 { Ok(entries) } else { Err(out.to_string()) }
    });
    // The two streams are read beside each other: which one's line comes first is nobody's promise.
    entries.sort_by_key(|entry| entry["MESSAGE"] != "out");
    for (entry, message, priority) in [(&entries[0], "out", "6"), (&entries[1], "err", "3")] {
        for (field, value) in [
            ("MESSAGE", message),
            ("PRIORITY", priority),
            ("CONTAINER_NAME", "box"),
            ("CONTAINER_TAG", "of-box"),
            ("SYSLOG_IDENTIFIER", "of-box"),
            ("CONTAINER_ID", &id[..12]),
            ("IMAGE_NAME", "busybox"),
            ("COLOUR", "red"),
            ("SHAPE", "round"),
        ] {
            assert_eq!(entry[field], value, "{field} of {entry}");
        }
    }
    engine.end();
}

fn docker_default_confines(case: &Case) {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    case.needs(enabled.trim() == "Y", "the kernel runs without AppArmor");
    let engine = Engine::start(case);
    let mount = "busybox sh -c 'cat /proc/self/attr/current; mkdir /m && mount -t tmpfs none /m && echo mounted'";
    let confined = engine.docker(&format!("run --name box --network none --cap-add SYS_ADMIN {mount}"));
    assert!(confined.code != 0 && confined.text() == "docker-default (enforce)", "{confined}");
    assert_eq!(engine.inspect("box", "{{.AppArmorProfile}}"), "docker-default");
    let free = engine.docker(&format!("run --network none --cap-add SYS_ADMIN --security-opt apparmor=unconfined {mount}")).ok();
    assert_eq!(free.text(), "unconfined\nmounted");
    let loaded = read("/sys/kernel/security/apparmor/profiles");
    assert!(loaded.lines().any(|line| line == "docker-default (enforce)"), "{loaded}");
    assert!(engine.docker("info --format {{.SecurityOptions}}").ok().text().contains("name=apparmor"));
    engine.end();
}

fn limits_are_the_kernels(case: &Case) {
    case.needs(Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "this machine has cgroup v1");
    let engine = Engine::start(case);
    let limits = "-m 64m --memory-swap 64m --cpus 0.5 --pids-limit 20 --cpuset-cpus 0";
    let _ = engine.docker(&format!("run -d --name box --network none {limits} busybox sleep 1000")).ok();
    let group = read(format!("/proc/{}/cgroup", engine.inspect("box", "{{.State.Pid}}")));
    let group = PathBuf::from(format!("/sys/fs/cgroup{}", group.strip_prefix("0::").expect("a cgroup of v2")));
    let holds = |file: &str, wanted: &str| assert_eq!(read(group.join(file)), wanted, "{file}");
    holds("memory.max", "67108864");
    holds("memory.swap.max", "0");
    holds("cpu.max", "50000 100000");
    holds("pids.max", "20");
    holds("cpuset.cpus", "0");
    let shown = engine.docker("stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' box").ok();
    assert!(shown.text().ends_with("/ 64MiB 1"), "{shown}");
    let _ = engine.docker("update -m 128m --memory-swap 128m --cpus 1 --pids-limit 30 box").ok();
    holds("memory.max", "134217728");
    holds("cpu.max", "100000 100000");
    holds("pids.max", "30");
    let _ = engine.docker("pause box").ok();
    assert!(read(group.join("cgroup.events")).contains("frozen 1"));
    let _ = engine.docker("unpause box").ok();
    assert!(read(group.join("cgroup.events")).contains("frozen 0"));
    let _ = engine.docker("run --name big --network none -m 16m --memory-swap 16m busybox tail /dev/zero").exits(137);
    assert_eq!(engine.inspect("big", "{{.State.OOMKilled}}"), "true");
    engine.end();
}

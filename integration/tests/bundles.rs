//! The bundles of `oci-bundles/`: each does what its README says. Their root is made from busybox here, also where the
//! bundle itself asks for a Debian, which takes a minute to assemble.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use ketch_integration::console::Terminal;
use ketch_integration::{Case, Container, Output, probe, tests, wait_until};
use serde_json::{Value, json};

tests![hello, shell, web, limits, docker_default, userns, hooks, readonly, each_has_a_readme];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("integration/ is in the workspace").to_owned()
}

struct Example<'a> {
    case: &'a Case,
    dir: PathBuf,
    id: String,
}

/// A copy of the bundle, with a root and a cgroup of its own.
fn example<'a>(case: &'a Case, name: &str, change: impl FnOnce(&mut Value)) -> Example<'a> {
    let dir = case.dir.join(name);
    let source = root().join("oci-bundles").join(name);
    let exclude = ["--exclude=./rootfs", "--exclude=./rootfs-source", "--exclude=./hooks.log"];
    fs::create_dir(&dir).expect("make the bundle");
    let script = format!(
        "tar -C '{}' {} -c . | tar -C '{}' -x && '{}' '{}'",
        source.display(),
        exclude.join(" "),
        dir.display(),
        root().join("integration/setup/rootfs.sh").display(),
        dir.display()
    );
    let _ = case.program("/bin/sh").args(["-c", &script]).run().ok();
    let id = case.fresh_id();
    let file = dir.join("config.json");
    let mut spec: Value = serde_json::from_str(&probe::read(&file)).expect("config.json is JSON");
    spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
    change(&mut spec);
    fs::write(file, spec.to_string()).expect("write config.json");
    Example { case, dir, id }
}

impl Example<'_> {
    fn run(&self) -> Output {
        let out = self.case.ketch().arg("run").arg("--bundle").arg(&self.dir).arg(&self.id).run();
        drop(Container::adopt(self.case, &self.id));
        out
    }
}

fn hello(case: &Case) {
    assert_eq!(example(case, "hello", |_| {}).run().ok().stdout, "Hello from a container\n");
}

fn shell(case: &Case) {
    let shell = example(case, "shell", |_| {});
    let (mut terminal, slave) = Terminal::open();
    let run = case.ketch().arg("run").arg("--bundle").arg(&shell.dir).arg(&shell.id).terminal(slave).spawn();
    // The shell's prompt has the shell's name for the place where it stands.
    terminal.expect("#");
    terminal.send("tty; exit 3\n");
    terminal.expect("/dev/pts/0");
    let _ = run.wait().exits(3);
}

fn web(case: &Case) {
    let port = 20_000 + std::process::id() % 20_000;
    let address = format!("127.0.0.1:{port}");
    let web = example(case, "web", |spec| spec["process"]["args"][4] = json!(address));
    let run = case.ketch().args(["run", "--detach", "--bundle"]).arg(&web.dir).arg(&web.id).run().ok();
    let container = Container::adopt(case, &web.id);
    let mut stream = wait_until("the web server", || TcpStream::connect(&address).map_err(|e| e.to_string()));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("ask");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).expect("read the answer");
    assert!(answer.starts_with("HTTP/1.") && answer.contains("200 OK"), "{answer} {run}");
    container.stop();
}

fn limits(case: &Case) {
    for controller in ["memory", "cpu", "pids"] {
        case.needs_controller(controller);
    }
    let out = example(case, "limits", |_| {}).run();
    assert!(out.code != 0 && out.stderr.contains("can't fork"), "{out}");
}

fn docker_default(case: &Case) {
    let out = example(case, "docker-default", |_| {}).run();
    assert!(out.stdout.contains("CapEff:\t00000000a80425fb"), "{out}");
    assert!(out.stdout.contains("mount(2) was refused"), "{out}");
}

fn userns(case: &Case) {
    let out = example(case, "userns", |_| {}).run().ok();
    assert!(out.stdout.contains("uid=0(root)") && out.stdout.contains("100000"), "{out}");
}

fn hooks(case: &Case) {
    let hooks = example(case, "hooks", |_| {});
    let _ = hooks.run().ok();
    let log = probe::read(hooks.dir.join("hooks.log"));
    assert_eq!(log.lines().collect::<Vec<_>>(), ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
}

fn readonly(case: &Case) {
    case.needs_runc(1, 2, "takes the recursive read-only option as data");
    let out = example(case, "readonly", |_| {}).run().ok();
    assert!(out.stdout.contains("only /tmp is writable"), "{out}");
    assert_eq!(out.stderr.matches("Read-only file system").count(), 2, "{out}");
}

fn each_has_a_readme(case: &Case) {
    case.native_only("looks at files only");
    for entry in fs::read_dir(root().join("oci-bundles")).expect("list the bundles").flatten() {
        for file in ["config.json", "README.md"] {
            assert!(entry.path().join(file).is_file(), "{} in {}", file, entry.path().display());
        }
    }
}

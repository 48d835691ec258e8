//! Checkpoints of containers over the API, as far as no criu is needed: what is refused, what is listed, and what a criu that
//! fails or never answers leaves. What goes on where it was is in `ketchd_criu`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ketch_integration::ketchd::{Answer, Engine};
use ketch_integration::{Case, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

tests![
    only_an_experimental_daemon_serves_them,
    refusals_have_their_status,
    lists_are_of_folders,
    names_lead_nowhere_else,
    a_start_from_none,
    where_criu_fails_the_container_runs_on,
    a_killed_daemon_leaves_nothing_half_made,
    a_name_that_is_taken_meanwhile,
    what_was_whole_when_the_daemon_was_killed_is_kept,
];

pub(crate) const COUNTS: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";

pub(crate) fn experimental(case: &Case) -> Engine<'_> {
    let engine = Engine::bare(case, &["--experimental", "--live-restore"]);
    engine.load_busybox();
    engine
}

/// Runs `box`.
pub(crate) fn run(engine: &Engine<'_>, flags: &str, script: &str) {
    let line = format!("run -d --name box {flags} busybox sh -c");
    let _ = engine.client().args(line.split_whitespace()).arg(script).run().ok();
}

fn create(engine: &Engine<'_>, name: &str, body: &Value) -> Answer {
    engine.call("POST", &format!("/containers/{name}/checkpoints"), &body.to_string())
}

/// The folder of the container's checkpoints.
pub(crate) fn own(engine: &Engine<'_>) -> PathBuf {
    engine.site.path("data/containers").join(engine.inspect("box", "{{.Id}}")).join("checkpoints")
}

/// What the API lists, at `query`.
pub(crate) fn listed(engine: &Engine<'_>, query: &str) -> Value {
    engine.call("GET", &format!("/containers/box/checkpoints{query}"), "").is(200).json()
}

/// Puts a program in criu's place.
fn put_criu(engine: &Engine<'_>, script: &str) {
    let path = engine.site.path("bin/criu");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write a program");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("make it one");
}

fn only_an_experimental_daemon_serves_them(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box busybox").ok();
    let off = "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.";
    for (method, path) in [("GET", "box/checkpoints"), ("POST", "box/checkpoints"), ("DELETE", "none/checkpoints/x")] {
        assert_eq!(engine.call(method, &format!("/containers/{path}"), "").refuses(501), off);
    }
    let refused = engine.call("POST", "/containers/none/start?checkpoint=x", "").refuses(400);
    assert_eq!(refused, "checkpoint is only supported in experimental mode");
    let refused = engine.call("POST", "/containers/box/start?checkpoint-dir=/x", "").refuses(403);
    assert_eq!(refused, "custom checkpointdir is not supported");
    engine.docker("checkpoint ls box").refuses(&["only supported on a Docker daemon with experimental features enabled"]);
    engine.end();
}

fn refusals_have_their_status(case: &Case) {
    let engine = experimental(case);
    let _ = engine.docker("create --name box --network none busybox sleep 1000").ok();
    let id = engine.inspect("box", "{{.Id}}");
    let wanted = json!({"CheckpointID": "one"});
    assert_eq!(create(&engine, "none", &wanted).refuses(404), "No such container: none");
    assert_eq!(create(&engine, "box", &wanted).refuses(409), format!("container {id} is not running"));
    for (method, path) in [("GET", ""), ("DELETE", "/x")] {
        let answer = engine.call(method, &format!("/containers/none/checkpoints{path}"), "");
        assert_eq!(answer.refuses(404), "No such container: none");
    }
    assert_eq!(engine.call("POST", "/containers/box/checkpoints", "{").refuses(400), "invalid JSON: unexpected EOF");
    let _ = engine.docker("start box").ok();
    for bad in ["", "x", "../x", "-x", "x/y", "..", ".x", "x y", "ä1", "one\n"] {
        let refused = create(&engine, "box", &json!({"CheckpointID": bad, "Exit": true})).refuses(500);
        assert_eq!(refused, format!("Invalid checkpoint ID ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"));
    }
    let long = "x".repeat(300);
    let refused = create(&engine, "box", &json!({"CheckpointID": long})).refuses(500);
    assert!(refused.starts_with("cannot checkpoint container box: "), "{refused}");
    fs::create_dir_all(own(&engine).join("one")).expect("make a checkpoint's folder");
    fs::write(own(&engine).join("file"), "").expect("write a file");
    let refused = create(&engine, "box", &wanted).refuses(500);
    assert_eq!(refused, "cannot checkpoint container box: checkpoint with name one already exists for container box");
    let refused = create(&engine, "box", &json!({"CheckpointID": "file"})).refuses(500);
    let shown = format!("{} exists and is not a directory", own(&engine).join("file").display());
    assert_eq!(refused, format!("cannot checkpoint container box: {shown}"));
    let remove = |name: &str| engine.call("DELETE", &format!("/containers/box/checkpoints/{name}"), "");
    assert_eq!(remove("two").refuses(500), "checkpoint two does not exist for container box");
    assert_eq!(remove("file").refuses(500), shown);
    let _ = remove("one").is(204);
    assert_eq!(remove("one").refuses(500), "checkpoint one does not exist for container box");
    let _ = engine.call("POST", "/containers/box/start?checkpoint=one", "").is(304);
    let _ = engine.call("POST", "/containers/box/start?checkpoint=one&checkpoint-dir=/x", "").is(304);
    engine.end();
}

fn lists_are_of_folders(case: &Case) {
    let engine = experimental(case);
    let _ = engine.docker("create --name box busybox").ok();
    let answer = engine.call("GET", "/containers/box/checkpoints", "").is(200);
    assert_eq!(answer.body, "[]\n");
    for name in ["two", "one", "B"] {
        fs::create_dir_all(own(&engine).join(name)).expect("make a checkpoint's folder");
    }
    fs::write(own(&engine).join("file"), "").expect("write a file");
    symlink("one", own(&engine).join("link")).expect("link");
    assert_eq!(listed(&engine, ""), json!([{"Name": "B"}, {"Name": "one"}, {"Name": "two"}]));
    let shown = engine.docker("checkpoint ls box").ok();
    assert_eq!(shown.text().lines().map(str::trim).collect::<Vec<_>>(), ["CHECKPOINT NAME", "B", "one", "two"]);
    let other = engine.site.path("other");
    fs::create_dir_all(other.join("there")).expect("make a checkpoint's folder");
    assert_eq!(listed(&engine, &format!("?dir={}", other.display())), json!([{"Name": "there"}]));
    let none = engine.call("GET", &format!("/containers/box/checkpoints?dir={}/none", other.display()), "");
    assert_eq!(none.refuses(500), "checkpoint  does not exist for container box");
    fs::write(other.join("file"), "").expect("write a file");
    let file = other.join("file");
    let none = engine.call("GET", &format!("/containers/box/checkpoints?dir={}", file.display()), "");
    assert_eq!(none.refuses(500), format!("{} exists and is not a directory", file.display()));
    let _ = engine.docker("checkpoint rm box two").ok();
    assert_eq!(listed(&engine, ""), json!([{"Name": "B"}, {"Name": "one"}]));
    // They go with their container.
    let folder = own(&engine);
    let _ = engine.docker("rm box").ok();
    assert!(!folder.exists());
    engine.end();
}

fn names_lead_nowhere_else(case: &Case) {
    let engine = experimental(case);
    engine.only_ketch("it removes any folder that a client names, and starts from any");
    run(&engine, "--network none", "sleep 1000");
    let kept = engine.site.path("kept");
    fs::create_dir_all(kept.join("in")).expect("make a folder");
    let up = "../".repeat(20);
    let escape = format!("{}{}", up.replace('/', "%2f"), kept.display().to_string().trim_start_matches('/').replace('/', "%2f"));
    for name in [escape.as_str(), "%2e%2e", "%2e", ".unfinished-0", "%00a"] {
        let answer = engine.call("DELETE", &format!("/containers/box/checkpoints/{name}"), "");
        // A path with dots is told where it leads, as Go's server does.
        if answer.status != 301 {
            assert!(answer.refuses(500).ends_with("does not exist for container box"));
        }
        assert!(kept.join("in").is_dir(), "{name}");
    }
    // A folder that a client names is not removed as a checkpoint that is none.
    let query = format!("?dir={}", engine.site.dir.display());
    let refused = engine.call("DELETE", &format!("/containers/box/checkpoints/kept{query}"), "").refuses(500);
    assert_eq!(refused, format!("{} is no checkpoint: there is no inventory.img", kept.display()));
    fs::create_dir_all(own(&engine)).expect("make the folder of checkpoints");
    symlink(&kept, own(&engine).join("link")).expect("link");
    let _ = engine.call("DELETE", "/containers/box/checkpoints/link", "").is(500);
    let relative = create(&engine, "box", &json!({"CheckpointID": "one", "CheckpointDir": "here"}));
    assert_eq!(relative.refuses(400), "the checkpoint directory here is not absolute");
    let _ = engine.docker("stop -t 0 box").ok();
    for name in [escape.as_str(), "..", "link"] {
        let answer = engine.call("POST", &format!("/containers/box/start?checkpoint={name}"), "");
        assert!(answer.refuses(500).ends_with("does not exist for container /box"));
    }
    assert!(kept.join("in").exists());
    engine.end();
}

fn a_start_from_none(case: &Case) {
    let engine = experimental(case);
    let _ = engine.docker("create --name box busybox true").ok();
    engine.docker("start --checkpoint one box").refuses(&["Error response from daemon: checkpoint one does not exist for container /box"]);
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "created 128");
    assert_eq!(engine.inspect("box", "{{.State.Error}}"), "checkpoint one does not exist for container /box");
    engine.docker("start --checkpoint one --checkpoint-dir /x box").refuses(&["custom checkpointdir is not supported"]);
    let _ = engine.docker("start --attach box").ok();
    assert_eq!(engine.inspect("box", "{{.State.ExitCode}}{{.State.Error}}"), "0");
    engine.end();
}

fn where_criu_fails_the_container_runs_on(case: &Case) {
    let engine = experimental(case);
    put_criu(&engine, "echo no >&2; exit 1");
    run(&engine, "--network none --restart always", COUNTS);
    let before = engine.inspect("box", "{{.State.Pid}}");
    let refused = create(&engine, "box", &json!({"CheckpointID": "one", "Exit": true})).refuses(500);
    assert!(refused.starts_with("Cannot checkpoint container box: "), "{refused}");
    assert_eq!(listed(&engine, ""), json!([]));
    assert_eq!(fs::read_dir(own(&engine)).expect("list the folder").count(), 0);
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Pid}}"), format!("running {before}"));
    if engine.is_ketch() {
        assert!(refused.contains("criu"), "{refused}");
        fs::create_dir_all(own(&engine).join("empty")).expect("make a checkpoint's folder");
        let _ = engine.docker("stop -t 0 box").ok();
        let refused = engine.call("POST", "/containers/box/start?checkpoint=empty", "").json();
        let said = refused["message"].as_str().unwrap_or_default();
        assert!(said.starts_with("failed to create task for container: ") && said.contains("criu"), "{said}");
        assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Error}}"), format!("exited {said}"));
        // It is what it was.
        let _ = engine.docker("start box").ok();
    }
    engine.end();
}

fn a_killed_daemon_leaves_nothing_half_made(case: &Case) {
    let mut engine = experimental(case);
    engine.only_ketch("a kill leaves an empty folder that is listed");
    let pid_file = engine.site.path("criu.pid");
    put_criu(&engine, &format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", pid_file.display()));
    run(&engine, "--network none", COUNTS);
    let before = engine.inspect("box", "{{.State.Pid}}");
    let asking = engine.client().args(["checkpoint", "create", "box", "one"]).spawn();
    let criu = wait_until("criu", || fs::read_to_string(&pid_file).map_err(|error| error.to_string()));
    assert_eq!(listed(&engine, ""), json!([]));
    assert_eq!(fs::read_dir(own(&engine)).expect("list the folder").count(), 1);
    engine.kill();
    let _ = asking.wait().exits(1);
    engine.come_back();
    assert_eq!(listed(&engine, ""), json!([]));
    assert_eq!(fs::read_dir(own(&engine)).expect("list the folder").count(), 0);
    assert_eq!(engine.inspect("box", "{{.State.Status}} {{.State.Pid}}"), format!("running {before}"));
    let pid = criu.trim().parse().ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::KILL).expect("end what stands for criu");
    let lines = engine.docker("logs box").ok().text().lines().count();
    wait_until("more lines", || {
        let now = engine.docker("logs box").ok().text().lines().count();
        if now > lines { Ok(()) } else { Err(now.to_string()) }
    });
    engine.end();
}

/// Puts in criu's place what answers as criu 3.20 does, saves nothing but its last file, ends the container, and answers once there
/// is the file `go`; gives the file that it makes before.
fn put_obedient_criu(engine: &Engine<'_>) -> PathBuf {
    let python = Path::new("/usr/bin/python3");
    engine.site.case.needs(python.exists(), "no /usr/bin/python3");
    let program = r#"
import os, signal, socket, time
wire = socket.socket(fileno=3)
def number(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
def fields(data):
    at, found = 0, {}
    while at < len(data):
        key, at = number(data, at)
        value, at = number(data, at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        found[key >> 3] = value
    return found
while True:
    asked = wire.recv(65536)
    if not asked:
        break
    asked = fields(asked)
    answer = bytes([8, asked[1], 16, 1])
    if asked[1] == 10:
        answer += bytes([82, 4, 8, 3, 16, 20])
    elif asked[1] == 1:
        options = fields(asked[2])
        open(f"/proc/self/fd/{options[1]}/inventory.img", "w").write("whole")
        if not options.get(3):
            os.kill(options[2], signal.SIGKILL)
        open("FOLDER/written", "w").close()
        while not os.path.exists("FOLDER/go"):
            time.sleep(0.01)
    wire.send(answer)
"#;
    let folder = engine.site.path("criu");
    fs::create_dir(&folder).expect("make a folder");
    let program = program.replace("FOLDER", &folder.display().to_string());
    fs::write(folder.join("criu.py"), program).expect("write a program");
    put_criu(engine, &format!("exec {} {}/criu.py", python.display(), folder.display()));
    folder
}

fn wait_for(path: &Path) {
    wait_until(&path.display().to_string(), || if path.exists() { Ok(()) } else { Err("not there".into()) });
}

/// The container has ended by it: what was saved is all that there is of it.
fn a_name_that_is_taken_meanwhile(case: &Case) {
    let engine = experimental(case);
    engine.only_ketch("it makes the folder first");
    let criu = put_obedient_criu(&engine);
    run(&engine, "--network none", COUNTS);
    let asking = engine.client().args(["checkpoint", "create", "box", "one"]).spawn();
    wait_for(&criu.join("written"));
    fs::create_dir(own(&engine).join("one")).expect("take the name");
    fs::write(own(&engine).join("one/inventory.img"), "older").expect("write a file");
    fs::write(criu.join("go"), "").expect("let criu answer");
    asking.wait().refuses(&["Cannot checkpoint container box: it is saved as one-", "as the name one was taken meanwhile"]);
    let names = listed(&engine, "");
    assert_eq!((names.as_array().map(Vec::len), &names[0]), (Some(2), &json!({"Name": "one"})), "{names}");
    let other = names[1]["Name"].as_str().expect("a name");
    let text = |name: &str| fs::read_to_string(own(&engine).join(name).join("inventory.img")).expect("read a file");
    assert_eq!((text("one").as_str(), text(other).as_str()), ("older", "whole"));
    assert_eq!(fs::read_dir(own(&engine)).expect("list the folder").count(), 2);
    assert_eq!(engine.inspect("box", "{{.State.Status}}"), "exited");
    let _ = engine.docker(&format!("checkpoint rm box {other}")).ok();
    assert_eq!(listed(&engine, ""), json!([{"Name": "one"}]));
    engine.end();
}

fn what_was_whole_when_the_daemon_was_killed_is_kept(case: &Case) {
    let mut engine = experimental(case);
    engine.only_ketch("it has its name from the beginning, whole or not");
    let criu = put_obedient_criu(&engine);
    run(&engine, "--network none", COUNTS);
    let asking = engine.client().args(["checkpoint", "create", "box", "one"]).spawn();
    wait_for(&criu.join("written"));
    fs::create_dir(own(&engine).join(".removed-0")).expect("make what a killed removal leaves");
    engine.kill();
    let _ = asking.wait().exits(1);
    fs::write(criu.join("go"), "").expect("let criu answer");
    engine.come_back();
    engine.wait_inspect("box", "{{.State.Status}}", "exited");
    assert_eq!(listed(&engine, ""), json!([{"Name": "one"}]));
    assert_eq!(fs::read_to_string(own(&engine).join("one/inventory.img")).expect("read a file"), "whole");
    assert_eq!(fs::read_dir(own(&engine)).expect("list the folder").count(), 1);
    engine.end();
}

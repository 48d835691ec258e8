//! What goes wrong around a shim: the runtime missing, failing or odd, the bundle gone, containerd away while events come,
//! races, malformed frames; and what the shim must not hand down to its containers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ketch_integration::shim::{Create, Exec, Message, Stage, Status, any, runtime_root, ttrpc};
use ketch_integration::{Case, probe, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

tests![
    a_missing_runtime_is_named,
    a_failing_runtime_is_quoted,
    a_runtime_that_dies_of_a_signal_is_an_error,
    the_options_reach_the_runtime,
    options_as_a_text_reach_the_runtime,
    options_in_a_file_reach_the_runtime,
    a_bundle_that_went_away_does_not_hold_up_the_end,
    events_wait_for_containerd,
    a_container_is_confined_by_its_config_alone,
    exec_races_the_containers_end,
    kill_races_delete,
    a_kill_is_answered_before_the_delete_that_follows_its_end,
    frames_that_are_none_end_only_their_connection,
];

/// A program in place of the runtime.
fn program(case: &Case, name: &str, script: &str) -> PathBuf {
    let path = case.dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write a program");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
    path
}

/// Options with another runtime.
fn with_runtime(case: &Case, path: &std::path::Path) -> Message {
    let root = runtime_root(case);
    any(
        "containerd.runc.v1.Options",
        Message::new().text(6, path.to_string_lossy()).text(7, root.to_string_lossy()).encode(),
    )
}

fn refused(case: &Case, path: &std::path::Path, texts: &[&str]) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let served = stage.serve(&bundle);
    let create = Create { options: Some(with_runtime(case, path)), ..stage.create(&bundle) };
    let failure = served.tasks.create(&create).expect_err("a runtime that does not do it");
    for text in texts {
        assert!(failure.message.contains(text), "no {text:?} in {failure}");
    }
    assert_eq!(served.tasks.state(&bundle.id, "").expect_err("no task is left").code, ttrpc::NOT_FOUND);
    assert_eq!(stage.sink.of(&bundle.id), Vec::<String>::new(), "nothing was created, nothing is told");
    // The same shim goes on with a runtime that works.
    served.tasks.run(&stage.create(&bundle));
    served.tasks.end(&bundle.id);
    stage.end();
}

fn a_missing_runtime_is_named(case: &Case) {
    refused(case, &case.dir.join("no-such-runtime"), &["no-such-runtime"]);
}

fn a_failing_runtime_is_quoted(case: &Case) {
    // As runc logs in JSON, at the place that --log names.
    let script = r#"log=; while [ $# -gt 0 ]; do case $1 in --log) log=$2; shift;; --log=*) log=${1#--log=};; create) create=1;; esac; shift; done
[ -n "$create" ] && [ -n "$log" ] && echo '{"level":"error","msg":"the moon is in the wrong house","time":"2026-11-25T00:00:00Z"}' >>$log
exit 1"#;
    refused(case, &program(case, "failing", script), &["the moon is in the wrong house"]);
}

fn a_runtime_that_dies_of_a_signal_is_an_error(case: &Case) {
    refused(case, &program(case, "dying", "kill -9 $$"), &[]);
}

/// A runtime that writes down how it was called and hands over to the one under test.
fn recorder(case: &Case) -> PathBuf {
    let record = case.dir.join("record");
    program(
        case,
        "recorder",
        &format!("echo \"$@\" >>{}\nexec {} \"$@\"", record.display(), case.runtime.path.display()),
    )
}

/// What the recorder saw of `create`.
fn recorded_create(case: &Case) -> String {
    let record = probe::read(case.dir.join("record"));
    record.lines().find(|line| line.contains(" create ")).unwrap_or_else(|| panic!("no create: {record}")).to_owned()
}

fn the_options_reach_the_runtime(case: &Case) {
    let mut stage = Stage::new(case);
    let recorder = recorder(case);
    let root = runtime_root(case);
    let runc = Message::new()
        .flag(1, true)
        .flag(2, true)
        .text(6, recorder.to_string_lossy())
        .text(7, root.to_string_lossy());
    stage.options = any("containerd.runc.v1.Options", runc.encode());
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let call = recorded_create(case);
    for word in ["--no-pivot", "--no-new-keyring", &root.display().to_string(), &bundle.id] {
        assert!(call.contains(word), "no {word} in {call}");
    }
    assert!(!call.contains("--systemd-cgroup"), "{call}");
    served.tasks.end(&bundle.id);
    stage.end();
}

/// The keys of the text are those of runc's options.
fn text_of_options(case: &Case) -> String {
    format!(
        "BinaryName = {:?}\nRoot = {:?}\nNoPivotRoot = true\nIoUid = 0\nSystemdCgroup = false\n",
        recorder(case),
        runtime_root(case)
    )
}

fn runs_with(case: &Case, mut stage: Stage<'_>, options: &Message) {
    stage.options = any("runtimeoptions.v1.Options", options.encode());
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let call = recorded_create(case);
    assert!(call.contains("--no-pivot") && call.contains(&runtime_root(case).display().to_string()), "{call}");
    served.tasks.end(&bundle.id);
    stage.end();
}

fn options_as_a_text_reach_the_runtime(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "takes runc's own options alone");
    runs_with(case, stage, &Message::new().text(1, "io.containerd.ketch.v2.options").text(3, text_of_options(case)));
}

fn options_in_a_file_reach_the_runtime(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "takes runc's own options alone");
    let file = case.dir.join("options.toml");
    fs::write(&file, text_of_options(case)).expect("write the options");
    runs_with(case, stage, &Message::new().text(2, file.to_string_lossy()));
}

fn a_bundle_that_went_away_does_not_hold_up_the_end(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let pid = served.tasks.connect(&bundle.id).expect("Connect").1;
    fs::remove_dir_all(&bundle.dir).expect("remove the bundle");
    assert_eq!(served.tasks.status(&bundle.id, ""), Ok(Status::Running));
    if served.tasks.kill(&bundle.id, "", 9).is_err() {
        assert!(!stage.shim.is_ketch(), "Kill needs no bundle");
        kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL).expect("kill the container");
    }
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(137));
    stage.sink.wait_for(&bundle.id, "exit 137");
    // The Go shim can't: its runtime's `delete` fails likewise.
    let deleted = served.tasks.delete(&bundle.id, "");
    if stage.shim.is_ketch() {
        assert_eq!(deleted, Ok(137));
        served.tasks.leave(&bundle.id);
        stage.end();
    } else {
        let _ = case.bare().arg("--root").arg(runtime_root(case).join(&case.tag)).args(["delete", "--force", &bundle.id]).run();
    }
}

fn events_wait_for_containerd(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "drops an event after five tries within seconds");
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    stage.sink.wait_for(&bundle.id, "start");
    stage.sink.leave();
    for turn in 0..5 {
        assert_eq!(served.tasks.run_exec(&bundle.id, &Exec::script(&format!("e{turn}"), "exit 1")), 1);
    }
    served.tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(137));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(137));
    stage.sink.come_back();
    let events = stage.sink.wait_for(&bundle.id, "delete 137");
    let mut wanted = vec!["create".to_owned(), "start".to_owned()];
    for turn in 0..5 {
        wanted.extend([format!("exec-added e{turn}"), format!("exec-started e{turn}"), format!("exit e{turn} 1")]);
    }
    wanted.extend(["exit 137".to_owned(), "delete 137".to_owned()]);
    // Of an event under way when containerd went, nobody knows whether it arrived: once more is better than never.
    let mut seen = events;
    seen.dedup();
    assert_eq!(seen, wanted);
    served.tasks.leave(&bundle.id);
    stage.end();
}

/// The shim's own confinement would be inherited by all that it starts.
fn a_container_is_confined_by_its_config_alone(case: &Case) {
    let stage = Stage::new(case);
    let capabilities = ["CAP_SETUID", "CAP_SETGID"];
    let bundle = case
        .bundle()
        .command(&["/bin/probe", "status"])
        .capabilities(&capabilities)
        .set("/process/noNewPrivileges", json!(false))
        .set("/process/user", json!({ "uid": 33, "gid": 33 }));
    let probe_path = bundle.rootfs().join("bin/probe");
    let copied = std::process::Command::new("install")
        .args(["-m", "4755", env!("CARGO_BIN_EXE_container_probe")])
        .arg(&probe_path)
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "install the probe");
    let served = stage.serve(&bundle);
    let stdout = stage.stream("out");
    served.tasks.run(&stage.create(&bundle).stdout(&stdout));
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    let seen = stdout.finish();
    // Real id 33; effective, saved and file system id 0: the set-user-id bit worked.
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["Uid: 33 0 0 0", "NoNewPrivs: 0", "Seccomp: 0"]);
    let shim = stage.shims()[0];
    assert_eq!(probe::status_field(shim, "NoNewPrivs"), "0");
    assert_eq!(probe::status_field(shim, "Seccomp"), probe::status_field(1, "Seccomp"));
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn kill_races_delete(case: &Case) {
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    for turn in 0..10 {
        let bundle = case.bundle().script("exit 3");
        tasks.run(&stage.create(&bundle));
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(3));
        let id = || Message::new().text(1, &bundle.id);
        let kill = tasks.send("Kill", &id().number(3, 9));
        let delete = tasks.send("Delete", &id());
        if let Err(failure) = kill.wait() {
            assert_eq!(failure.code, ttrpc::NOT_FOUND, "turn {turn}: {failure}");
        }
        assert_eq!(delete.wait().expect("Delete").number(2), 3, "turn {turn}");
    }
    tasks.end(&keeper.id);
    stage.end();
}

/// containerd deletes a task when it hears of its end, and closes the connection then; CRI fails to stop a pod when its Kill
/// has no answer by that time.
fn a_kill_is_answered_before_the_delete_that_follows_its_end(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "leaves the order to chance");
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    for turn in 0..20 {
        let bundle = case.bundle().sleeper();
        tasks.run(&stage.create(&bundle));
        let waiting = tasks.waiting(&bundle.id, "");
        let mut kill = tasks.send("Kill", &Message::new().text(1, &bundle.id).number(3, 9));
        assert_eq!(waiting.wait().expect("Wait").number(1), 137);
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
        assert!(!kill.is_waiting(), "turn {turn}: Delete is answered, and Kill is not");
        kill.wait().expect("Kill");
    }
    tasks.end(&keeper.id);
    stage.end();
}

fn exec_races_the_containers_end(case: &Case) {
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    for turn in 0..10 {
        let bundle = case.bundle().sleeper();
        tasks.run(&stage.create(&bundle));
        tasks.exec(&bundle.id, &Exec::new("e", &["/bin/sleep", "1000"])).expect("Exec");
        let start = tasks.send("Start", &Message::new().text(1, &bundle.id).text(2, "e"));
        let kill = tasks.send("Kill", &Message::new().text(1, &bundle.id).number(3, 9));
        kill.wait().expect("Kill");
        let started = start.wait();
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(137), "turn {turn}");
        if started.is_ok() {
            assert_eq!(tasks.wait(&bundle.id, "e"), Ok(137), "turn {turn}");
        }
        let _ = tasks.delete(&bundle.id, "e");
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(137), "turn {turn}");
        let events = stage.sink.wait_for(&bundle.id, "delete 137");
        let ended = events.iter().position(|event| event == "exit 137").expect("its end");
        if stage.shim.is_ketch() {
            let late = events[ended..].iter().find(|event| event.starts_with("exec-started") || event.starts_with("exit e"));
            assert_eq!(late, None, "turn {turn}: {events:?}");
        }
    }
    let shim = stage.shims()[0];
    // Whatever nobody waits for by name is reaped a moment after its end.
    wait_until("no child that was not reaped", || {
        let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap_or_default();
        let is_zombie = |pid: &&str| pid.parse().is_ok_and(|pid| probe::state_letter(pid) == Some('Z'));
        match children.split_whitespace().find(is_zombie) {
            None => Ok(()),
            Some(pid) => Err(format!("{pid} of {children}")),
        }
    });
    tasks.end(&keeper.id);
    stage.end();
}

fn frames_that_are_none_end_only_their_connection(case: &Case) {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let socket = stage.bootstrap(&bundle).socket(&served.address);
    let request = |service: &str, method: &str, payload: &[u8]| {
        ttrpc::frame(1, ttrpc::REQUEST, Message::new().text(1, service).text(2, method).bytes(3, payload).encode())
    };
    let service = format!("containerd.task.v{}.Task", served.version);
    let mut too_long = ttrpc::frame(1, ttrpc::REQUEST, &[]);
    too_long[..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
    let frames = [
        ("garbage", vec![0xff; 64]),
        ("half a header", vec![0, 0, 0]),
        ("a length beyond all bounds", too_long),
        ("an even stream", ttrpc::frame(2, ttrpc::REQUEST, &[])),
        ("a kind that nobody knows", ttrpc::frame(1, 77, &[1, 2, 3])),
        ("a request that is no message", ttrpc::frame(1, ttrpc::REQUEST, &[0xff; 32])),
        ("an unknown service", request("no.such.Service", "State", &[])),
        ("an unknown call", request(&service, "NoSuchCall", &[])),
        ("a payload that is no message", request(&service, "State", &[0x0a, 0x7f, b'x'])),
    ];
    for (what, bytes) in frames {
        let mut stream = UnixStream::connect(&socket).expect("connect");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let refused = ended.is_err() || answer.is_empty() || !answer_is_a_success(&answer);
        assert!(refused, "{what}: {answer:?}");
        assert_eq!(served.tasks.status(&bundle.id, ""), Ok(Status::Running), "after {what}");
    }
    served.tasks.end(&bundle.id);
    stage.end();
}

/// Whether a frame holds a response without an error status.
fn answer_is_a_success(frame: &[u8]) -> bool {
    let payload = frame.get(10..).unwrap_or_default();
    ketch_integration::shim::Fields::decode(payload).is_ok_and(|fields| fields.message(1).number(1) == 0)
}

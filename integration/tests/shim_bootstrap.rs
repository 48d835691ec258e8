//! How a shim is started, found again, asked about itself and cleaned up after: each age's form of `start`, sockets,
//! grouping, `-info`, `delete`, and what is no proper call.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use ketch_integration::runtime::Output;
use ketch_integration::shim::{Bootstrap, Fields, Form, Message, Shim, Stage, Status, any, runtime_state, ttrpc};
use ketch_integration::{Case, probe, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

tests![
    the_plain_form_serves,
    the_json_form_serves,
    the_params_form_serves,
    the_socket_is_the_users_own,
    a_second_start_gives_the_same_address,
    a_dead_shims_socket_is_taken_over,
    a_group_shares_one_shim,
    info_names_the_runtime_and_its_features,
    the_version_is_told,
    delete_kills_and_says_so,
    delete_of_what_never_was_is_no_error,
    flags_with_two_dashes_and_an_equals_sign,
    what_is_no_call_is_refused,
    options_that_are_none_are_refused,
    the_oom_score_is_one_above_the_callers,
    the_shims_cgroup_is_the_options,
];

fn serves(case: &Case, form: Form) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let bootstrap = stage.bootstrap(&bundle).form(form);
    let served = bootstrap.start();
    let unknown = served.tasks.state(&bundle.id, "").expect_err("no task yet");
    assert_eq!(unknown.code, ttrpc::NOT_FOUND, "{unknown}");
    served.tasks.run(&stage.create(&bundle));
    let (shim, task) = served.tasks.connect(&bundle.id).expect("Connect");
    assert_eq!(stage.shims(), [shim]);
    assert_eq!(probe::status_field(task, "PPid"), shim.to_string(), "the shim is the container's parent");
    served.tasks.end(&bundle.id);
    stage.end();
}

fn the_plain_form_serves(case: &Case) {
    serves(case, Form::Plain);
}

fn the_json_form_serves(case: &Case) {
    Shim::under_test(case).not_on_go16(case, "answers an address alone");
    serves(case, Form::Json);
}

fn the_params_form_serves(case: &Case) {
    Shim::under_test(case).not_on_go(case, "BootstrapParams came with containerd 2.3");
    serves(case, Form::Params);
}

/// A shim without a task ends by its Shutdown.
fn leave(stage: Stage<'_>, served: &ketch_integration::shim::Served, id: &str) {
    served.tasks.leave(id);
    stage.end();
}

fn the_socket_is_the_users_own(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let served = bootstrap.start();
    assert!(served.address.starts_with("unix:///run/containerd/s/"), "{}", served.address);
    let data = fs::metadata(bootstrap.socket(&served.address)).expect("the socket");
    assert!(data.file_type().is_socket());
    assert_eq!(data.permissions().mode() & 0o077, 0, "nobody else may connect");
    leave(stage, &served, &bundle.id);
}

fn a_second_start_gives_the_same_address(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let served = bootstrap.start();
    let shims = stage.shims();
    let again = bootstrap.start();
    assert_eq!(again.address, served.address);
    assert_eq!(stage.shims(), shims, "no second shim");
    drop(again);
    leave(stage, &served, &bundle.id);
}

fn a_dead_shims_socket_is_taken_over(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let served = bootstrap.start();
    kill_all(&stage.shims());
    stage.site.wait_without("containerd-shim");
    assert!(bootstrap.socket(&served.address).exists(), "a killed shim leaves its socket");
    let again = bootstrap.start();
    assert_eq!(again.address, served.address);
    assert!(again.tasks.state(&bundle.id, "").is_err());
    leave(stage, &again, &bundle.id);
}

fn kill_all(pids: &[i32]) {
    assert!(!pids.is_empty(), "there is a shim to kill");
    for pid in pids {
        kill_process(Pid::from_raw(*pid).expect("a pid"), Signal::KILL).expect("kill a shim");
    }
}

fn a_group_shares_one_shim(case: &Case) {
    let stage = Stage::new(case);
    let pod = case.bundle().sleeper();
    let served = stage.serve(&pod);
    served.tasks.run(&stage.create(&pod));
    for annotation in ["io.kubernetes.cri.sandbox-id", "io.containerd.runc.v2.group"] {
        let member = case.bundle().sleeper().set("/annotations", json!({ annotation: pod.id }));
        let again = stage.serve(&member);
        assert_eq!(again.address, served.address, "{annotation}");
        assert_eq!(stage.shims().len(), 1, "{annotation}");
        again.tasks.run(&stage.create(&member));
        let answer = again.tasks.shutdown(&pod.id);
        assert!(answer.is_ok(), "Shutdown while containers are there does nothing: {answer:?}");
        assert_eq!(served.tasks.status(&pod.id, ""), Ok(Status::Running));
        let _ = again.tasks.kill(&member.id, "", 9).expect("Kill");
        assert_eq!(again.tasks.wait(&member.id, ""), Ok(137));
        assert_eq!(again.tasks.delete(&member.id, ""), Ok(137));
    }
    served.tasks.end(&pod.id);
    stage.end();
}

fn info_names_the_runtime_and_its_features(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go16(case, "has no -info");
    let out = stage.site.command(&stage.shim.path).arg("-info").stdin(stage.options.encode()).run().ok();
    let info = Fields::decode(&out.bytes()).unwrap_or_else(|e| panic!("RuntimeInfo: {e}: {out}"));
    assert_eq!(info.text(1), stage.shim.runtime_type());
    assert!(!info.message(2).text(1).is_empty(), "a version: {info:?}");
    let features: Value = serde_json::from_slice(info.message(4).bytes(2)).expect("the features' JSON");
    let own = case.bare().arg("features").run();
    if own.code == 0 {
        assert_eq!(features["ociVersionMax"], own.json()["ociVersionMax"]);
    }
    stage.end();
}

fn the_version_is_told(case: &Case) {
    let stage = Stage::new(case);
    let out = stage.site.command(&stage.shim.path).arg("-v").run().ok();
    assert!(out.text().contains("Version:"), "{out}");
    stage.end();
}

fn response_to_delete(output: Output) -> Fields {
    let output = output.ok();
    Fields::decode(&output.bytes()).unwrap_or_else(|e| panic!("DeleteResponse: {e}: {output}"))
}

fn delete_kills_and_says_so(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let bootstrap = stage.bootstrap(&bundle);
    let served = bootstrap.start();
    let pid = served.tasks.run(&stage.create(&bundle));
    kill_all(&stage.shims());
    stage.site.wait_without("containerd-shim");
    let response = response_to_delete(bootstrap.command("delete").run());
    assert_eq!(response.number(1), u64::try_from(pid).unwrap_or(0), "{response:?}");
    assert_eq!(response.number(2), 137, "{response:?}");
    assert!(response.message(3).number(1) > 0, "the time of its end: {response:?}");
    wait_until("the container's end", || if probe::is_dead(pid) { Ok(()) } else { Err("it runs".into()) });
    assert!(!runtime_state(case, &bundle.id).exists(), "the runtime has forgotten it");
    let _ = fs::remove_file(bootstrap.socket(&served.address));
    stage.end();
}

fn delete_of_what_never_was_is_no_error(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "wants what Create wrote into the bundle");
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let response = response_to_delete(bootstrap.command("delete").run());
    assert_eq!(response.number(2), 137, "{response:?}");
    stage.end();
}

fn flags_with_two_dashes_and_an_equals_sign(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let mut command = bootstrap.command("start");
    let flags = ["-namespace", "-address", "-publish-binary", "-id"];
    let at = command.args.iter().position(|arg| arg == "-namespace").expect("the flags");
    let pairs = command.args.split_off(at);
    for pair in pairs.chunks(2) {
        let words: Vec<_> = pair.iter().map(|word| word.to_string_lossy()).collect();
        command = match words.as_slice() {
            [flag, value] if flags.contains(&flag.as_ref()) => command.arg(format!("-{flag}={value}")),
            rest => command.args(rest.iter().map(AsRef::as_ref)),
        };
    }
    // The shim of 1.6 waits for a reader of its log.
    let fifo = bundle.dir.join("log");
    ketch_integration::shim::stream::make_fifo(&fifo);
    let _log = ketch_integration::shim::Stream::open_held(&fifo);
    let served = bootstrap.read(&command.run().ok());
    leave(stage, &served, &bundle.id);
}

/// A refusal: an exit code, something said, and no shim.
fn refused(stage: &Stage<'_>, what: &str, output: &Output) {
    assert!(output.code != 0 && output.code < 128, "{what}: expected a refusal: {output}");
    assert!(!output.stderr.trim().is_empty() || !output.text().is_empty(), "{what}: it says why: {output}");
    assert!(!output.stderr.contains("panicked"), "{what}: {output}");
    stage.site.wait_without("containerd-shim");
}

fn what_is_no_call_is_refused(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let shim = || stage.site.command_in(&bundle.dir, &stage.shim.path).env("TTRPC_ADDRESS", &stage.sink.path);
    refused(&stage, "an unknown flag", &shim().args(["-no-such-flag", "start"]).run());
    if stage.shim.is_ketch() {
        refused(&stage, "no id", &shim().args(["-namespace", "n", "start"]).run());
    }
    refused(&stage, "no namespace", &shim().args(["-id", "i", "start"]).run());
    refused(&stage, "a flag without its value", &shim().args(["-namespace", "n", "-id"]).run());
    fs::write(bundle.dir.join("config.json"), "{ no json").expect("break config.json");
    refused(&stage, "a broken bundle", &bootstrap.command("start").run());
    fs::remove_file(bundle.dir.join("config.json")).expect("remove config.json");
    stage.end();
}

fn options_that_are_none_are_refused(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "passes over what it cannot read");
    let bundle = case.bundle();
    let bootstrap = stage.bootstrap(&bundle);
    let garbage: [&[u8]; 4] = [b"\xff\xff\xff", b"\x0a\x7fxx", b"\x12\x02ab\x0b", &[0xff; 4096]];
    for bytes in garbage {
        let mut command = bootstrap.command("start");
        command.stdin = Some(bytes.to_vec());
        let output = command.run();
        refused(&stage, &format!("{:?}", &bytes[..2]), &output);
    }
    // Of the right type, and no message of it; and of a type that nobody knows.
    let served = stage.serve(&bundle);
    for options in [any("containerd.runc.v1.Options", b"\x32\x7f"), any("unknown.v9.Options", b"")] {
        let create = ketch_integration::shim::Create { options: Some(options), ..stage.create(&bundle) };
        let failure = served.tasks.create(&create).expect_err("options that are none");
        assert_ne!(failure.code, ttrpc::UNAVAILABLE, "the shim lives: {failure}");
    }
    let toml = any("runtimeoptions.v1.Options", Message::new().bytes(3, b"BinaryName = [").encode());
    let create = ketch_integration::shim::Create { options: Some(toml), ..stage.create(&bundle) };
    let failure = served.tasks.create(&create).expect_err("a text that is no TOML");
    assert_ne!(failure.code, ttrpc::UNAVAILABLE, "the shim lives: {failure}");
    leave(stage, &served, &bundle.id);
}

fn the_oom_score_is_one_above_the_callers(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle();
    let served = stage.serve(&bundle);
    let own: i32 = probe::read("/proc/self/oom_score_adj").parse().expect("a number");
    let shim = stage.shims()[0];
    wait_until("the shim's score", || {
        let seen = probe::read(format!("/proc/{shim}/oom_score_adj"));
        if seen == (own + 1).to_string() { Ok(()) } else { Err(seen) }
    });
    leave(stage, &served, &bundle.id);
}

/// The folder of a cgroup in each hierarchy of the machine.
fn cgroups(path: &str) -> Vec<std::path::PathBuf> {
    let trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let trees = trees.chain(["/sys/fs/cgroup".into()]).filter(|tree| tree.join("cgroup.procs").exists());
    trees.map(|tree| tree.join(path)).collect()
}

fn the_shims_cgroup_is_the_options(case: &Case) {
    case.needs_controller("cpuset");
    let mut stage = Stage::new(case);
    let cgroup = format!("{}-shims", case.tag);
    for folder in cgroups(&cgroup) {
        fs::create_dir(&folder).expect("make the cgroup");
        for file in ["cpuset.cpus", "cpuset.mems"].map(|file| folder.join(file)).iter().filter(|file| file.exists()) {
            let parent = folder.parent().expect("a parent").join(file.file_name().expect("a name"));
            fs::write(file, probe::read(parent)).expect("give the cgroup cpus and memory");
        }
    }
    let runc = ketch_integration::shim::runc_options(case).text(3, format!("/{cgroup}"));
    stage.options = any("containerd.runc.v1.Options", runc.encode());
    let bundle = case.bundle();
    let bootstrap = Bootstrap { options: Some(stage.options.clone()), ..stage.bootstrap(&bundle) };
    let served = bootstrap.start();
    let shim = stage.shims()[0];
    let seen = probe::read(format!("/proc/{shim}/cgroup"));
    let inside = seen.lines().filter(|line| line.ends_with(&cgroup)).count();
    assert!(inside >= 8, "{seen}");
    drop(bootstrap);
    leave(stage, &served, &bundle.id);
    for folder in cgroups(&cgroup) {
        wait_until("the cgroup's end", || fs::remove_dir(&folder).map_err(|e| e.to_string()));
    }
}

//! The streams of a task: fifos, terminals, `file://` and `binary://`, their ends, and readers that are slow or gone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use ketch_integration::shim::stream::{make_fifo, open_writer};
use ketch_integration::shim::{Create, Exec, Message, Shim, Stage, Status, Stream, any, runc_options};
use ketch_integration::{Case, probe, tests, wait_until};
use serde_json::json;

tests![
    both_streams_reach_their_fifos_and_end,
    standard_input_ends_by_close_io,
    standard_input_of_an_exec_ends_with_its_writer_and_close_io,
    output_is_drained_before_the_end_is_told,
    a_terminal_carries_both_ways_and_resizes,
    an_exec_has_a_terminal_of_its_own,
    a_file_takes_both_streams,
    a_program_takes_both_streams,
    a_program_takes_both_streams_of_a_shim_whose_file_is_gone,
    a_program_that_cannot_be_started_is_an_error,
    a_slow_reader_does_not_hold_up_the_end,
    a_reader_that_went_away_does_not_hold_up_the_end,
    a_reader_may_come_back,
    a_reader_that_comes_late_is_waited_for,
    the_owner_of_the_pipes_is_the_options,
    streams_that_are_not_wanted_are_none,
    a_fifo_that_is_not_there_is_an_error,
];

fn both_streams_reach_their_fifos_and_end(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("echo out; echo err >&2; exit 2");
    let served = stage.serve(&bundle);
    let (out, err) = (stage.stream("out"), stage.stream("err"));
    served.tasks.run(&stage.create(&bundle).stdout(&out).stderr(&err));
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(2));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(2));
    assert_eq!((out.finish().as_str(), err.finish().as_str()), ("out\n", "err\n"));
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn standard_input_ends_by_close_io(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("cat; echo the end");
    let served = stage.serve(&bundle);
    let (stdin, out) = (stage.path("in"), stage.stream("out"));
    make_fifo(&stdin);
    let create = Create { stdin: stdin.display().to_string(), ..stage.create(&bundle).stdout(&out) };
    served.tasks.run(&create);
    let mut writer = open_writer(&stdin);
    writer.write_all(b"one\n").expect("write to the task");
    out.wait_for("one\n");
    // A client that went away and came back has not ended the stream.
    drop(writer);
    let mut writer = open_writer(&stdin);
    writer.write_all(b"two\n").expect("write to the task");
    out.wait_for("two\n");
    drop(writer);
    assert_eq!(served.tasks.status(&bundle.id, ""), Ok(Status::Running));
    served.tasks.close_stdin(&bundle.id, "").expect("CloseIO");
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    assert_eq!(out.finish(), "one\ntwo\nthe end\n");
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn standard_input_of_an_exec_ends_with_its_writer_and_close_io(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let (stdin, out) = (stage.path("in"), stage.stream("out"));
    make_fifo(&stdin);
    let exec = Exec { stdin: stdin.display().to_string(), ..Exec::script("e", "wc -c").stdout(&out) };
    served.tasks.exec(&bundle.id, &exec).expect("Exec");
    served.tasks.start(&bundle.id, "e").expect("Start");
    let mut writer = open_writer(&stdin);
    // More than every buffer on the way holds.
    writer.write_all(&vec![b'x'; 1 << 20]).expect("write to the exec");
    served.tasks.close_stdin(&bundle.id, "e").expect("CloseIO");
    drop(writer);
    assert_eq!(served.tasks.wait(&bundle.id, "e"), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, "e"), Ok(0));
    assert_eq!(out.finish().trim(), (1 << 20).to_string());
    served.tasks.end(&bundle.id);
    stage.end();
}

fn output_is_drained_before_the_end_is_told(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    for turn in 0..5 {
        let out = stage.stream(&format!("out{turn}"));
        let exec = Exec::script(&format!("e{turn}"), "head -c 300000 /dev/zero; echo last").stdout(&out);
        assert_eq!(served.tasks.run_exec(&bundle.id, &exec), 0);
        let seen = out.finish();
        assert_eq!(seen.len(), 300_005, "turn {turn}");
        assert!(seen.ends_with("last\n"));
    }
    served.tasks.end(&bundle.id);
    stage.end();
}

fn a_terminal_carries_both_ways_and_resizes(case: &Case) {
    let stage = Stage::new(case);
    let script = "test -t 0 && test -t 2 && echo a terminal; read line; stty size; echo got $line; exit 3";
    let bundle = case.bundle().script(script).set("/process/terminal", json!(true));
    let served = stage.serve(&bundle);
    let (stdin, out) = (stage.path("in"), stage.stream("out"));
    make_fifo(&stdin);
    let create =
        Create { terminal: true, stdin: stdin.display().to_string(), ..stage.create(&bundle).stdout(&out) };
    served.tasks.run(&create);
    let state = served.tasks.state(&bundle.id, "").expect("State");
    assert_eq!(state.number(8), 1, "it says that it has a terminal: {state:?}");
    out.wait_for("a terminal");
    served.tasks.resize(&bundle.id, "", (99, 44)).expect("ResizePty");
    open_writer(&stdin).write_all(b"typed\n").expect("type");
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(3));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(3));
    let seen = out.finish().replace('\r', "");
    assert!(seen.contains("44 99\n") && seen.contains("got typed\n"), "{seen:?}");
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn an_exec_has_a_terminal_of_its_own(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let (stdin, out) = (stage.path("in"), stage.stream("exec"));
    make_fifo(&stdin);
    let exec = Exec::script("e", "echo ready; read line; stty size; tty; exit 8").stdout(&out).terminal();
    let exec = Exec { stdin: stdin.display().to_string(), ..exec };
    served.tasks.exec(&bundle.id, &exec).expect("Exec");
    served.tasks.start(&bundle.id, "e").expect("Start");
    out.wait_for("ready");
    served.tasks.resize(&bundle.id, "e", (70, 20)).expect("ResizePty");
    open_writer(&stdin).write_all(b"\n").expect("type");
    assert_eq!(served.tasks.wait(&bundle.id, "e"), Ok(8));
    assert_eq!(served.tasks.delete(&bundle.id, "e"), Ok(8));
    let seen = out.finish().replace('\r', "");
    assert!(seen.contains("20 70\n") && seen.contains("/dev/pts/"), "{seen:?}");
    let _ = served.tasks.resize(&bundle.id, "e", (1, 1)).expect_err("ResizePty of what is gone");
    served.tasks.end(&bundle.id);
    stage.end();
}

fn a_file_takes_both_streams(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "was seen to lose a line");
    let bundle = case.bundle().script("echo out; echo err >&2");
    let served = stage.serve(&bundle);
    let log = stage.path("folder/not/there/task.log");
    let uri = format!("file://{}", log.display());
    for round in 1..=2 {
        let create = Create { stdout: uri.clone(), stderr: uri.clone(), ..stage.create(&bundle) };
        served.tasks.run(&create);
        assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
        assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
        // What was there is kept.
        let text = probe::read(&log);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, [vec!["err"; round], vec!["out"; round]].concat());
    }
    served.tasks.leave(&bundle.id);
    stage.end();
}

/// A logger as a script: it takes both streams to files beside it.
fn logger(case: &Case, script: &str) -> String {
    let path = case.dir.join("logger");
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{script}\n", case.dir.display())).expect("write the logger");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
    path.display().to_string()
}

fn a_program_takes_both_streams(case: &Case) {
    program_takes_both_streams(case, Stage::new(case), |_| {});
}

/// As after an update of the package, which a pod's shim outlives.
fn a_program_takes_both_streams_of_a_shim_whose_file_is_gone(case: &Case) {
    let stage = Stage::with_shim(case, Shim::under_test(case).copied(case));
    program_takes_both_streams(case, stage, |shim| fs::remove_file(&shim.path).expect("remove the shim's file"));
}

fn program_takes_both_streams(case: &Case, stage: Stage<'_>, once_served: impl FnOnce(&Shim)) {
    // Shims ask a logger to end by SIGTERM as soon as its task is deleted. This one ends with its streams alone: on a busy machine it
    // may not have started to read by then.
    let path = logger(
        case,
        "trap '' TERM; echo $CONTAINER_ID $CONTAINER_NAMESPACE \"$@\" >logger.asked; exec 5>&-\ncat <&3 >logger.out &\ncat <&4 >logger.err & wait",
    );
    let bundle = case.bundle().script("echo out; echo err >&2");
    let served = stage.serve(&bundle);
    once_served(&stage.shim);
    let uri = format!("binary://{path}?first=1");
    let create = Create { stdout: uri.clone(), stderr: uri, ..stage.create(&bundle) };
    served.tasks.run(&create);
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    assert_eq!(probe::read(stage.path("logger.asked")), format!("{} {} first 1", bundle.id, case.tag));
    for (file, text) in [("logger.out", "out"), ("logger.err", "err")] {
        wait_until(file, || {
            // The logger says that it is ready before it makes them.
            let seen = fs::read_to_string(stage.path(file)).unwrap_or_default();
            if seen.trim() == text { Ok(()) } else { Err(seen) }
        });
    }
    stage.site.wait_without("logger");
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn a_program_that_cannot_be_started_is_an_error(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().command(&["/bin/true"]);
    let served = stage.serve(&bundle);
    for path in ["/no/such/logger".to_owned(), logger(case, "exit 1")] {
        let uri = format!("binary://{path}");
        let create = Create { stdout: uri.clone(), stderr: uri, ..stage.create(&bundle) };
        // One that ends without a word has closed its descriptor too: containerd's takes that for readiness.
        let answer = served.tasks.create(&create);
        if path.starts_with("/no") {
            let failure = answer.expect_err("a logger that cannot be started");
            assert!(failure.message.contains("no such file"), "{failure}");
        } else if answer.is_ok() {
            served.tasks.start(&bundle.id, "").expect("Start");
            served.tasks.wait(&bundle.id, "").expect("Wait");
            served.tasks.delete(&bundle.id, "").expect("Delete");
        }
    }
    served.tasks.leave(&bundle.id);
    stage.end();
}

/// A fifo whose reader does not read.
fn unread(stage: &Stage<'_>, name: &str) -> (std::path::PathBuf, fs::File) {
    let path = stage.path(name);
    make_fifo(&path);
    let reader = fs::OpenOptions::new().read(true).write(true).open(&path).expect("open a fifo");
    (path, reader)
}

fn a_slow_reader_does_not_hold_up_the_end(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("yes");
    let served = stage.serve(&bundle);
    let (path, reader) = unread(&stage, "full");
    let path = path.display().to_string();
    let create = Create { stdout: path.clone(), stderr: path, ..stage.create(&bundle) };
    let pid = served.tasks.run(&create);
    // It writes until every buffer is full, and then waits in its write.
    wait_until("a full pipe", || {
        let seen = probe::read(format!("/proc/{pid}/wchan"));
        if seen.contains("pipe_write") { Ok(()) } else { Err(seen) }
    });
    served.tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(137));
    stage.sink.wait_for(&bundle.id, "exit 137");
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(137));
    drop(reader);
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn a_reader_that_went_away_does_not_hold_up_the_end(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("trap '' PIPE; for i in 1 2 3; do echo line $i; done; exit 5");
    let served = stage.serve(&bundle);
    let (path, reader) = unread(&stage, "gone");
    let path = path.display().to_string();
    let create = Create { stdout: path.clone(), stderr: path, ..stage.create(&bundle) };
    served.tasks.create(&create).expect("Create");
    drop(reader);
    served.tasks.start(&bundle.id, "").expect("Start");
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(5));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(5));
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn a_reader_may_come_back(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("echo one; trap 'echo two; exit 0' TERM; while :; do sleep 1000 & wait $!; done");
    let (served, stdout) = stage.run(&bundle);
    stdout.wait_for("one");
    let path = stdout.path.clone();
    // As containerd's restart: the old reader is gone before the new one comes.
    drop(stdout);
    let again = Stream::open(&path);
    served.tasks.kill(&bundle.id, "", 15).expect("Kill");
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    assert_eq!(again.finish(), "two\n");
    served.tasks.leave(&bundle.id);
    stage.end();
}

/// containerd opens its end beside the call, and on a busy machine after a short process has ended.
fn a_reader_that_comes_late_is_waited_for(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go16(case, "waits for it in Delete");
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let path = stage.path("late");
    make_fifo(&path);
    let late = Exec { stdout: path.display().to_string(), ..Exec::script("late", "echo said") };
    let late = Exec { stderr: late.stdout.clone(), ..late };
    tasks.exec(&keeper.id, &late).expect("Exec");
    let mut starting = tasks.send("Start", &Message::new().text(1, &keeper.id).text(2, "late"));
    // Others come and go in the meantime, few enough for a busy machine: the reader is waited for 10 s.
    for turn in 0..2 {
        assert_eq!(tasks.run_exec(&keeper.id, &Exec::script(&format!("e{turn}"), "exit 0")), 0);
    }
    assert!(starting.is_waiting(), "a process is started whose output nobody reads yet");
    let stdout = Stream::open(&path);
    starting.wait().expect("Start");
    assert_eq!(tasks.wait(&keeper.id, "late"), Ok(0));
    assert_eq!(tasks.delete(&keeper.id, "late"), Ok(0));
    assert_eq!(stdout.finish(), "said\n");
    tasks.end(&keeper.id);
    stage.end();
}

fn the_owner_of_the_pipes_is_the_options(case: &Case) {
    let mut stage = Stage::new(case);
    let runc = runc_options(case).number(4, 33).number(5, 44);
    stage.options = any("containerd.runc.v1.Options", runc.encode());
    // The runtime gives them to the container's user, as runc does; the group stays.
    let bundle = case.bundle().script("stat -L -c 'group %g' /proc/self/fd/1; exec sleep 1000");
    let (served, stdout) = stage.run(&bundle);
    stdout.wait_for("group 44");
    served.tasks.end(&bundle.id);
    stage.end();
}

fn streams_that_are_not_wanted_are_none(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("cat; echo nobody reads this; echo nor this >&2; exit 0");
    let served = stage.serve(&bundle);
    served.tasks.run(&stage.create(&bundle));
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    served.tasks.leave(&bundle.id);
    stage.end();
}

fn a_fifo_that_is_not_there_is_an_error(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "makes a plain file of it");
    let bundle = case.bundle().command(&["/bin/true"]);
    let served = stage.serve(&bundle);
    let create = Create { stdout: stage.path("none/such").display().to_string(), ..stage.create(&bundle) };
    let failure = served.tasks.create(&create).expect_err("a fifo that is not there");
    assert!(failure.message.contains("none/such"), "{failure}");
    assert!(served.tasks.call("State", &Message::new().text(1, &bundle.id)).is_err(), "no task is left");
    served.tasks.leave(&bundle.id);
    stage.end();
}

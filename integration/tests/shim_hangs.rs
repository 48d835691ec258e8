//! A runtime that hangs, before or after it has done what it was asked for; a shim that is killed while it hangs; a process
//! that is there when its streams fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use ketch_integration::shim::{Exec, Message, Stage, Status, any, runtime_root, runtime_state, ttrpc};
use ketch_integration::{Bundle, Case, probe, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};

tests![
    a_create_that_hangs_leaves_nothing,
    a_call_that_hangs_ends_at_its_deadline,
    a_shim_killed_in_a_call_leaves_what_delete_removes,
    an_exec_without_its_streams_is_killed,
];

/// What a call is given that hangs at once.
const LIMIT: Duration = Duration::from_secs(2);
/// What one is given that works before it hangs.
const WORKING: Duration = Duration::from_secs(8);

/// The runtime under test, but for commands that are to hang: for those a file says so, `before` or `after` the work.
struct Hanging<'a> {
    stage: Stage<'a>,
    folder: PathBuf,
}

impl<'a> Hanging<'a> {
    fn new(case: &'a Case) -> Self {
        let mut stage = Stage::new(case);
        let folder = case.dir.join("hang");
        fs::create_dir_all(&folder).expect("make a folder");
        let program = folder.join("runtime");
        let text = format!(
            "#!/bin/sh\nfor word; do\n\
             if [ -e {0}/before-$word ]; then echo $$ >{0}/.pid; mv {0}/.pid {0}/pid; exec sleep 1000; fi\n\
             if [ -e {0}/after-$word ]; then {1} \"$@\"; echo $$ >{0}/.pid; mv {0}/.pid {0}/pid; exec sleep 1000; fi\n\
             done\nexec {1} \"$@\"\n",
            folder.display(),
            case.runtime.path.display()
        );
        fs::write(&program, text).expect("write a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
        let options = Message::new().text(6, program.to_string_lossy()).text(7, runtime_root(case).to_string_lossy());
        stage.options = any("containerd.runc.v1.Options", options.encode());
        Self { stage, folder }
    }

    /// Has a command hang, `before` or `after` its work, from now on.
    fn hang(&self, when: &str, command: &str) {
        fs::write(self.folder.join(format!("{when}-{command}")), "").expect("write a file");
    }

    /// No command hangs from now on.
    fn release(&self) {
        let entries = fs::read_dir(&self.folder).expect("read the folder").flatten();
        for entry in entries.filter(|entry| entry.file_name() != "runtime") {
            fs::remove_file(entry.path()).expect("remove a file");
        }
    }

    /// The process of the runtime that hangs, once it does.
    fn hanging(&self) -> i32 {
        let file = self.folder.join("pid");
        wait_until("the runtime to hang", || {
            if file.exists() { Ok(()) } else { Err(format!("no {}", file.display())) }
        });
        probe::read(file).trim().parse().expect("a pid")
    }
}

fn wait_dead(pid: i32, what: &str) {
    wait_until(what, || if probe::is_dead(pid) { Ok(()) } else { Err(format!("{pid} lives")) });
}

/// Neither the runtime nor the kernel has anything of the container.
fn is_gone(case: &Case, bundle: &Bundle<'_>) {
    assert!(!runtime_state(case, &bundle.id).exists(), "the runtime knows of {}", bundle.id);
    assert!(!bundle.cgroup("pids").exists(), "the cgroup of {} stays", bundle.id);
}

fn a_create_that_hangs_leaves_nothing(case: &Case) {
    let hanging = Hanging::new(case);
    let stage = &hanging.stage;
    stage.shim.not_on_go(case, "lets the runtime hang");
    let bundle = case.bundle().sleeper();
    let served = stage.serve(&bundle);
    for (when, limit) in [("before", LIMIT), ("after", WORKING)] {
        hanging.hang(when, "create");
        let failure = served.tasks.create_within(&stage.create(&bundle), limit).expect_err("a runtime that hangs");
        assert_eq!(failure.code, ttrpc::DEADLINE_EXCEEDED, "{when}: {failure}");
        assert!(failure.message.contains("create"), "{when}: {failure}");
        wait_dead(hanging.hanging(), "the end of the hanging runtime");
        assert_eq!(served.tasks.state(&bundle.id, "").expect_err("no task is left").code, ttrpc::NOT_FOUND);
        is_gone(case, &bundle);
        hanging.release();
    }
    assert_eq!(stage.sink.of(&bundle.id), Vec::<String>::new(), "nothing was created, nothing is told");
    // The same shim goes on.
    served.tasks.run(&stage.create(&bundle));
    served.tasks.end(&bundle.id);
    hanging.stage.end();
}

/// Each call of a task's life ends at its deadline, and does its work when the runtime does.
fn a_call_that_hangs_ends_at_its_deadline(case: &Case) {
    let hanging = Hanging::new(case);
    let stage = &hanging.stage;
    stage.shim.not_on_go(case, "lets the runtime hang");
    let bundle = case.bundle().command(&["/bin/sleep", "1000"]);
    let served = stage.serve(&bundle);
    let (tasks, id) = (&served.tasks, bundle.id.as_str());
    let ends = |method: &str, exec_id: &str, command: &str| {
        hanging.hang("before", command);
        let failure = tasks.call_within(method, id, exec_id, LIMIT).expect_err("a runtime that hangs");
        assert_eq!(failure.code, ttrpc::DEADLINE_EXCEEDED, "{method}: {failure}");
        wait_dead(hanging.hanging(), "the end of the hanging runtime");
        hanging.release();
    };
    tasks.create(&stage.create(&bundle)).expect("Create");
    ends("Start", "", "start");
    assert_eq!(tasks.status(id, ""), Ok(Status::Created));
    tasks.start(id, "").expect("Start");
    tasks.exec(id, &Exec::new("lost", &["/bin/true"])).expect("Exec");
    ends("Start", "lost", "exec");
    assert_eq!(tasks.wait(id, "lost"), Ok(255), "no program has said anything");
    assert_eq!(tasks.delete(id, "lost"), Ok(255));
    assert_eq!(tasks.run_exec(id, &Exec::script("next", "exit 3")), 3);
    // Made, and not told of: it does not run on.
    let before = tasks.pids(id).expect("Pids");
    tasks.exec(id, &Exec::new("made", &["/bin/sleep", "1000"])).expect("Exec");
    hanging.hang("after", "exec");
    let failure = tasks.call_within("Start", id, "made", WORKING).expect_err("a runtime that hangs");
    assert_eq!(failure.code, ttrpc::DEADLINE_EXCEEDED, "{failure}");
    hanging.release();
    assert_eq!(tasks.pids(id).expect("Pids"), before);
    assert_eq!(tasks.delete(id, "made"), Ok(255));
    ends("Pause", "", "pause");
    assert_eq!(tasks.status(id, ""), Ok(Status::Running));
    tasks.pause(id).expect("Pause");
    ends("Resume", "", "resume");
    assert_eq!(tasks.status(id, ""), Ok(Status::Paused));
    tasks.resume(id).expect("Resume");
    ends("Pids", "", "ps");
    assert!(!tasks.pids(id).expect("Pids").is_empty());
    ends("Kill", "", "kill");
    tasks.kill(id, "", 9).expect("Kill");
    assert_eq!(tasks.wait(id, ""), Ok(137));
    ends("Delete", "", "delete");
    assert_eq!(tasks.delete(id, ""), Ok(137));
    tasks.leave(id);
    hanging.stage.end();
}

/// containerd answers a dead shim with `delete`, whatever the shim was at.
fn a_shim_killed_in_a_call_leaves_what_delete_removes(case: &Case) {
    let hanging = Hanging::new(case);
    let stage = &hanging.stage;
    for when in ["before", "after"] {
        for command in ["create", "start", "exec", "pause", "resume", "kill", "delete"] {
            let bundle = case.bundle().sleeper();
            let bootstrap = stage.bootstrap(&bundle);
            let served = bootstrap.start();
            let (tasks, id) = (&served.tasks, bundle.id.as_str());
            let call = |method: &str, exec_id: &str| {
                tasks.send(method, &Message::new().text(1, id).text(2, exec_id).number(3, 9))
            };
            if command != "create" {
                tasks.create(&stage.create(&bundle)).expect("Create");
            }
            if !["create", "start"].contains(&command) {
                tasks.start(id, "").expect("Start");
            }
            match command {
                "exec" => drop(tasks.exec(id, &Exec::new("e", &["/bin/sleep", "1000"])).expect("Exec")),
                "resume" => drop(tasks.pause(id).expect("Pause")),
                "delete" => {
                    tasks.kill(id, "", 9).expect("Kill");
                    tasks.wait(id, "").expect("Wait");
                }
                _ => {}
            }
            hanging.hang(when, command);
            let pending = match command {
                "create" => tasks.creating(&stage.create(&bundle)),
                "start" => call("Start", ""),
                "exec" => call("Start", "e"),
                "pause" => call("Pause", ""),
                "resume" => call("Resume", ""),
                "kill" => call("Kill", ""),
                _ => call("Delete", ""),
            };
            let runtime = hanging.hanging();
            for shim in stage.shims() {
                kill_process(Pid::from_raw(shim).expect("a pid"), Signal::KILL).expect("kill the shim");
            }
            stage.site.wait_without("containerd-shim");
            assert_eq!(pending.wait().expect_err("the shim is dead").code, ttrpc::UNAVAILABLE);
            kill_process(Pid::from_raw(runtime).expect("a pid"), Signal::KILL).expect("end the hanging runtime");
            hanging.release();
            let _ = bootstrap.command("delete").run().ok();
            is_gone(case, &bundle);
            let _ = fs::remove_file(bootstrap.socket(&served.address));
        }
    }
    hanging.stage.end();
}

/// The terminal comes once the process is there, and where it is to go is looked at then.
fn an_exec_without_its_streams_is_killed(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "leaves such a process to itself");
    let bundle = case.bundle().command(&["/bin/sleep", "1000"]);
    let (served, _) = stage.run(&bundle);
    let (tasks, id) = (&served.tasks, bundle.id.as_str());
    // It does not die with its terminal.
    let mut exec = Exec::script("e", "trap '' HUP; while :; do sleep 1; done").terminal();
    exec.stdout = stage.path("no-such-folder/fifo").display().to_string();
    let before = tasks.pids(id).expect("Pids");
    tasks.exec(id, &exec).expect("Exec");
    let failure = tasks.start(id, "e").expect_err("a stream that leads nowhere");
    assert!(failure.message.contains("no-such-folder"), "{failure}");
    wait_until("the container's processes", || match tasks.pids(id).expect("Pids") {
        pids if pids == before => Ok(()),
        pids => Err(format!("{pids:?}")),
    });
    let _ = tasks.delete(id, "e");
    served.tasks.end(id);
    stage.end();
}

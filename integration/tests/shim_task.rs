//! The calls of the Task service, driven without containerd: what each gives, what it refuses, and the order of the events.

use ketch_integration::shim::{Create, Exec, Message, Stage, Status, Tasks, any, ttrpc};
use ketch_integration::{Case, probe, tests, wait_until};
use serde_json::json;

tests![
    a_life_is_told_in_order,
    an_end_before_starts_reply_is_told_after_it,
    every_exec_ends_before_its_container,
    wait_knows_an_end_of_long_ago,
    a_signal_is_in_the_exit_status,
    kill_all_reaches_every_process,
    a_shared_pid_namespace_is_killed_with_its_first_process,
    delete_wants_a_stopped_task_and_only_once,
    two_deletes_at_once_give_one_status,
    the_last_call_is_answered_before_the_end,
    nothing_is_made_once_the_shim_is_leaving,
    what_is_not_there_is_not_found,
    what_is_there_already_is_refused,
    pause_and_resume,
    pids_and_stats,
    update_reaches_the_cgroup,
    an_out_of_memory_kill_is_told,
    connect_and_shutdown,
    root_file_systems_are_mounted_and_unmounted,
];

fn a_life_is_told_in_order(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let served = stage.serve(&bundle);
    let tasks = &served.tasks;
    let created = tasks.create(&stage.create(&bundle)).expect("Create");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Created));
    let state = tasks.state(&bundle.id, "").expect("State");
    assert_eq!((state.text(1), state.text(2)), (bundle.id.clone(), bundle.dir.display().to_string()));
    assert_eq!(tasks.start(&bundle.id, ""), Ok(created));
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    tasks.exec(&bundle.id, &Exec::script("e", "exit 5")).expect("Exec");
    assert_eq!(tasks.status(&bundle.id, "e"), Ok(Status::Created));
    tasks.start(&bundle.id, "e").expect("Start of the exec");
    assert_eq!(tasks.wait(&bundle.id, "e"), Ok(5));
    tasks.wait_status(&bundle.id, "e", Status::Stopped);
    assert_eq!(tasks.state(&bundle.id, "e").expect("State").number(9), 5);
    assert_eq!(tasks.delete(&bundle.id, "e"), Ok(5));
    let waiting = tasks.waiting(&bundle.id, "");
    tasks.kill(&bundle.id, "", 9).expect("Kill");
    let end = waiting.wait().expect("Wait");
    assert_eq!(end.number(1), 137);
    assert!(end.message(2).number(1) > 1_700_000_000, "the time of the end: {end:?}");
    tasks.wait_status(&bundle.id, "", Status::Stopped);
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    let events = stage.sink.wait_for(&bundle.id, "delete 137");
    let wanted = ["create", "start", "exec-added e", "exec-started e", "exit e 5", "exit 137", "delete 137"];
    assert_eq!(events, wanted);
    let all = stage.sink.all();
    assert!(all.iter().all(|event| event.namespace == case.tag), "{all:?}");
    let create = &all[0];
    assert_eq!(create.type_url, "containerd.events.TaskCreate");
    assert_eq!(create.fields.number(6), u64::try_from(created).unwrap_or(0));
    tasks.leave(&bundle.id);
    stage.end();
}

fn an_end_before_starts_reply_is_told_after_it(case: &Case) {
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    for turn in 0..10 {
        let bundle = case.bundle().command(&["/bin/true"]);
        tasks.run(&stage.create(&bundle));
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(0));
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(0));
        let events = stage.sink.wait_for(&bundle.id, "delete 0");
        assert_eq!(events, ["create", "start", "exit 0", "delete 0"], "container {turn}");
        let exec = format!("e{turn}");
        assert_eq!(tasks.run_exec(&keeper.id, &Exec::script(&exec, "exit 7")), 7);
        let events = stage.sink.wait_for(&keeper.id, &format!("exit {exec} 7"));
        let of_exec: Vec<_> = events.iter().filter(|event| event.split(' ').nth(1) == Some(&exec)).collect();
        assert_eq!(of_exec, [&format!("exec-added {exec}"), &format!("exec-started {exec}"), &format!("exit {exec} 7")]);
    }
    tasks.end(&keeper.id);
    stage.end();
}

fn every_exec_ends_before_its_container(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    for exec in ["a", "b", "c"] {
        tasks.exec(&bundle.id, &Exec::new(exec, &["/bin/sleep", "1000"])).expect("Exec");
        tasks.start(&bundle.id, exec).expect("Start of the exec");
    }
    let waiting: Vec<_> = ["a", "b", "c", ""].map(|exec| tasks.waiting(&bundle.id, exec)).into();
    tasks.kill(&bundle.id, "", 9).expect("Kill");
    for pending in waiting {
        assert_eq!(pending.wait().expect("Wait").number(1), 137);
    }
    let events = stage.sink.wait_for(&bundle.id, "exit 137");
    let ends: Vec<_> = events.iter().filter(|event| event.starts_with("exit")).collect();
    if stage.shim.maker != ketch_integration::shim::Maker::Go16 {
        assert_eq!(ends.len(), 4, "{events:?}");
        assert_eq!(ends[3], "exit 137", "the container's own end comes last: {events:?}");
    }
    for exec in ["a", "b", "c"] {
        assert_eq!(tasks.delete(&bundle.id, exec), Ok(137));
    }
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    tasks.leave(&bundle.id);
    stage.end();
}

fn wait_knows_an_end_of_long_ago(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("exit 4");
    let served = stage.serve(&bundle);
    let tasks = &served.tasks;
    tasks.run(&stage.create(&bundle));
    tasks.wait_status(&bundle.id, "", Status::Stopped);
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(4));
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(4));
    assert_eq!(tasks.state(&bundle.id, "").expect("State").number(9), 4);
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(4));
    tasks.leave(&bundle.id);
    stage.end();
}

fn a_signal_is_in_the_exit_status(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("trap 'exit 3' TERM; while :; do sleep 1000 & wait $!; done");
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    tasks.exec(&bundle.id, &Exec::new("e", &["/bin/sleep", "1000"])).expect("Exec");
    tasks.start(&bundle.id, "e").expect("Start");
    tasks.kill(&bundle.id, "e", 15).expect("Kill of the exec");
    assert_eq!(tasks.wait(&bundle.id, "e"), Ok(143));
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running), "the container is not the exec");
    assert_eq!(tasks.delete(&bundle.id, "e"), Ok(143));
    let gone = tasks.kill(&bundle.id, "e", 15).expect_err("Kill of what is gone");
    assert_eq!(gone.code, ttrpc::NOT_FOUND, "{gone}");
    // The shell may not have set its trap yet.
    wait_until("the trap", || {
        tasks.kill(&bundle.id, "", 0).map_err(|e| e.to_string())?;
        let pid = tasks.connect(&bundle.id).map_err(|e| e.to_string())?.1;
        let caught = probe::status_field(pid, "SigCgt");
        let caught = u64::from_str_radix(&caught, 16).map_err(|e| e.to_string())?;
        if caught >> 14 & 1 == 1 { Ok(()) } else { Err(format!("{caught:x}")) }
    });
    tasks.kill(&bundle.id, "", 15).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(3));
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(3));
    tasks.leave(&bundle.id);
    stage.end();
}

fn kill_all_reaches_every_process(case: &Case) {
    let stage = Stage::new(case);
    // What a process ignores, its children ignore too.
    let script = "sleep 1000 & sleep 1000 & trap '' TERM; echo deaf; while :; do wait; done";
    let bundle = case.bundle().script(script);
    let (served, stdout) = stage.run(&bundle);
    let tasks = &served.tasks;
    stdout.wait_for("deaf");
    assert_eq!(tasks.pids(&bundle.id).map(|pids| pids.len()), Ok(3));
    tasks.kill_all(&bundle.id, 15).expect("Kill of all");
    // Since runc 1.2, and with ketch, a process namespace of the container's own makes `kill --all` one of its first process.
    if case.is_runc_before(1, 2) {
        wait_until("the shell alone", || {
            let pids = tasks.pids(&bundle.id).map_err(|e| e.to_string())?;
            if pids.len() == 1 { Ok(()) } else { Err(format!("{pids:?}")) }
        });
    }
    let pids = tasks.pids(&bundle.id).expect("Pids");
    tasks.kill_all(&bundle.id, 9).expect("Kill of all");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
    for pid in pids {
        wait_until("the end of all", || if probe::is_dead(pid) { Ok(()) } else { Err(pid.to_string()) });
    }
    tasks.end(&bundle.id);
    stage.end();
}

fn a_shared_pid_namespace_is_killed_with_its_first_process(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().without_namespace("pid").script("sleep 1000 & echo started; wait");
    let (served, stdout) = stage.run(&bundle);
    let tasks = &served.tasks;
    stdout.wait_for("started");
    let pids = tasks.pids(&bundle.id).expect("Pids");
    assert_eq!(pids.len(), 2, "{pids:?}");
    tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
    for pid in pids {
        wait_until("the end of what it left", || if probe::is_dead(pid) { Ok(()) } else { Err(pid.to_string()) });
    }
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    tasks.leave(&bundle.id);
    stage.end();
}

fn delete_wants_a_stopped_task_and_only_once(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    let running = tasks.delete(&bundle.id, "").expect_err("Delete of a running task");
    assert!([ttrpc::FAILED_PRECONDITION, ttrpc::UNKNOWN].contains(&running.code), "{running}");
    tasks.exec(&bundle.id, &Exec::new("e", &["/bin/sleep", "1000"])).expect("Exec");
    tasks.start(&bundle.id, "e").expect("Start");
    tasks.delete(&bundle.id, "e").expect_err("Delete of a running exec");
    tasks.kill(&bundle.id, "e", 9).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, "e"), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, "e"), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, "e").expect_err("a second Delete").code, ttrpc::NOT_FOUND);
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running), "Delete of an exec frees it alone");
    tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, "").expect_err("a second Delete").code, ttrpc::NOT_FOUND);
    tasks.leave(&bundle.id);
    let events = stage.sink.wait_for(&bundle.id, "delete 137");
    assert_eq!(events.iter().filter(|event| *event == "delete 137").count(), 1, "{events:?}");
    stage.end();
}

/// containerd takes a connection that closes before it has seen the answer for a failure (ShutdownSandbox).
fn the_last_call_is_answered_before_the_end(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "may close first");
    for turn in 0..20 {
        let bundle = case.bundle();
        let served = stage.serve(&bundle);
        let mut shutdown = served.tasks.send("Shutdown", &Message::new().text(1, &bundle.id));
        wait_until("the answer", || if shutdown.is_waiting() { Err("none".into()) } else { Ok(()) });
        assert!(!served.tasks.client.is_closed(), "turn {turn}: closed before we could hang up");
        assert!(shutdown.wait().is_ok(), "turn {turn}");
        drop(served);
        stage.site.wait_without("containerd-shim");
    }
    stage.end();
}

fn nothing_is_made_once_the_shim_is_leaving(case: &Case) {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "ends at once");
    let bundle = case.bundle().sleeper();
    let served = stage.serve(&bundle);
    let tasks = &served.tasks;
    let create = stage.create(&bundle);
    tasks.shutdown(&bundle.id).expect("Shutdown");
    // It waits for its caller to hang up, though not for long.
    let failure = tasks.create(&create).expect_err("Create after Shutdown");
    assert_eq!((failure.code, failure.message.as_str()), (ttrpc::UNAVAILABLE, "the shim is shutting down"));
    tasks.client.hang_up();
    stage.end();
}

fn two_deletes_at_once_give_one_status(case: &Case) {
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    for _ in 0..5 {
        let bundle = case.bundle().script("exit 6");
        tasks.run(&stage.create(&bundle));
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(6));
        let delete = Message::new().text(1, &bundle.id);
        let both = [tasks.send("Delete", &delete), tasks.send("Delete", &delete)];
        let answers = both.map(|pending| pending.wait().map(|answer| answer.number(2)));
        assert!(answers.contains(&Ok(6)), "{answers:?}");
        let is_sound = |answer: &Result<u64, ttrpc::Failure>| answer.as_ref().map_or(true, |status| *status == 6);
        assert!(answers.iter().all(is_sound), "no other status: {answers:?}");
        if stage.shim.is_ketch() {
            wait_until("one event", || {
                let events = stage.sink.of(&bundle.id);
                if events.ends_with(&["delete 6".to_owned()]) { Ok(()) } else { Err(format!("{events:?}")) }
            });
            let events = stage.sink.of(&bundle.id);
            assert_eq!(events, ["create", "start", "exit 6", "delete 6"]);
        }
    }
    tasks.end(&keeper.id);
    stage.end();
}

fn what_is_not_there_is_not_found(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    let stranger = || Message::new().text(1, "no-such-task");
    for method in [
        "State", "Start", "Delete", "Pids", "Pause", "Resume", "Kill", "ResizePty", "CloseIO", "Update", "Wait", "Stats",
        "Checkpoint", "Exec",
    ] {
        let message = if method == "Exec" { stranger().text(2, "e") } else { stranger() };
        let failure = tasks.call(method, &message).expect_err(method);
        assert_eq!(failure.code, ttrpc::NOT_FOUND, "{method}: {failure}");
    }
    for method in ["State", "Start", "Delete", "Kill", "Wait"] {
        let message = Message::new().text(1, &bundle.id).text(2, "no-such-exec");
        let failure = tasks.call(method, &message).expect_err(method);
        assert_eq!(failure.code, ttrpc::NOT_FOUND, "{method} of an exec: {failure}");
    }
    tasks.end(&bundle.id);
    stage.end();
}

fn what_is_there_already_is_refused(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    tasks.create(&stage.create(&bundle)).expect_err("a second Create");
    tasks.start(&bundle.id, "").expect_err("a second Start");
    let exec = Exec::new("e", &["/bin/sleep", "1000"]);
    tasks.exec(&bundle.id, &exec).expect("Exec");
    let again = tasks.exec(&bundle.id, &exec).expect_err("a second Exec of one id");
    assert_eq!(again.code, ttrpc::ALREADY_EXISTS, "{again}");
    // An exec that was never started is deleted as it is.
    tasks.delete(&bundle.id, "e").expect("Delete of a created exec");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    tasks.end(&bundle.id);
    stage.end();
}

fn pause_and_resume(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    tasks.pause(&bundle.id).expect("Pause");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Paused));
    tasks.resume(&bundle.id).expect("Resume");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    let events = stage.sink.wait_for(&bundle.id, "resumed");
    assert_eq!(events, ["create", "start", "paused", "resumed"]);
    // Killed while it is paused.
    tasks.pause(&bundle.id).expect("Pause");
    let _ = tasks.kill_all(&bundle.id, 9);
    let _ = tasks.resume(&bundle.id);
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    tasks.leave(&bundle.id);
    stage.end();
}

fn pids_and_stats(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().command(&["/bin/sleep", "1000"]);
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    let init = tasks.connect(&bundle.id).expect("Connect").1;
    assert_eq!(tasks.pids(&bundle.id), Ok(vec![init]));
    tasks.exec(&bundle.id, &Exec::new("e", &["/bin/sleep", "1000"])).expect("Exec");
    let exec = tasks.start(&bundle.id, "e").expect("Start");
    let mut pids = tasks.pids(&bundle.id).expect("Pids");
    pids.sort_unstable();
    let mut wanted = [init, exec];
    wanted.sort_unstable();
    assert_eq!(pids, wanted);
    let info = tasks.call("Pids", &Message::new().text(1, &bundle.id)).expect("Pids").messages(1);
    let details = info.iter().find(|info| info.number(1) == u64::try_from(exec).unwrap_or(0)).expect("the exec");
    assert_eq!(details.message(2).message(2).text(1), "e", "ProcessDetails name the exec: {details:?}");
    let (kind, _) = tasks.stats(&bundle.id).expect("Stats");
    if case.layout.is_v2() {
        assert_eq!(kind, "io.containerd.cgroups.v2.Metrics");
    } else {
        assert_eq!(kind, "io.containerd.cgroups.v1.Metrics");
        // runc's own threads are still there when its `exec` returns.
        let metrics = wait_until("the two processes alone", || {
            let metrics = tasks.stats(&bundle.id).expect("Stats").1;
            if metrics.message(2).number(1) == 2 { Ok(metrics) } else { Err(format!("pids.current: {metrics:?}")) }
        });
        assert!(metrics.message(3).message(1).number(1) > 0, "cpu.usage.total: {metrics:?}");
        assert!(metrics.message(4).message(33).number(2) > 4096, "memory.usage.usage: {metrics:?}");
    }
    tasks.kill(&bundle.id, "e", 9).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, "e"), Ok(137));
    assert_eq!(tasks.delete(&bundle.id, "e"), Ok(137));
    tasks.end(&bundle.id);
    stage.end();
}

fn update_reaches_the_cgroup(case: &Case) {
    case.needs_controller("pids");
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let tasks = &served.tasks;
    tasks.update(&bundle.id, &json!({ "pids": { "limit": 55 } })).expect("Update");
    assert_eq!(probe::read(bundle.cgroup("pids").join("pids.max")), "55");
    let garbage = Message::new().text(1, &bundle.id).message(2, &any("linux", b"{ no json"));
    let failure = tasks.call("Update", &garbage).expect_err("Update with no JSON");
    assert_ne!(failure.code, ttrpc::UNAVAILABLE, "{failure}");
    assert_eq!(probe::read(bundle.cgroup("pids").join("pids.max")), "55");
    tasks.end(&bundle.id);
    stage.end();
}

fn an_out_of_memory_kill_is_told(case: &Case) {
    case.needs_controller("memory");
    let stage = Stage::new(case);
    let limit = 16 << 20;
    let bundle = case
        .bundle()
        .script("head -c 100m /dev/zero | tail >/dev/null; echo survived; exec sleep 1000")
        .set("/linux/resources/memory", json!({ "limit": limit, "swap": limit }));
    let (served, stdout) = stage.run(&bundle);
    stdout.wait_for("survived");
    // The kernel may say it more than once of one kill.
    let mut events = stage.sink.wait_for(&bundle.id, "oom");
    events.dedup();
    assert_eq!(events, ["create", "start", "oom"]);
    served.tasks.end(&bundle.id);
    stage.end();
}

fn connect_and_shutdown(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let served = stage.serve(&bundle);
    let tasks = &served.tasks;
    let pid = tasks.run(&stage.create(&bundle));
    assert_eq!(tasks.connect(&bundle.id), Ok((stage.shims()[0], pid)));
    tasks.shutdown(&bundle.id).expect("Shutdown while the task is there is no error");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    // A second client, while the first stays.
    let second = Tasks::new(stage.bootstrap(&bundle).connect(&served.address), served.version);
    assert_eq!(second.connect(&bundle.id), tasks.connect(&bundle.id));
    drop(second);
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    tasks.end(&bundle.id);
    stage.end();
}

fn root_file_systems_are_mounted_and_unmounted(case: &Case) {
    let stage = Stage::new(case);
    let bundle = case.bundle().script("test -e /bin/busybox && echo mounted; exec sleep 1000");
    let lower = case.dir.join("lower");
    std::fs::rename(bundle.rootfs(), &lower).expect("move the root file system away");
    std::fs::create_dir(bundle.rootfs()).expect("make the mount point");
    let (upper, work) = (case.folder("upper"), case.folder("work"));
    let overlay = Message::new()
        .text(1, "overlay")
        .text(2, "overlay")
        .bytes(4, format!("lowerdir={}", lower.display()).as_bytes())
        .bytes(4, format!("upperdir={}", upper.display()).as_bytes())
        .bytes(4, format!("workdir={}", work.display()).as_bytes());
    let bind = Message::new()
        .text(1, "bind")
        .text(2, lower.to_string_lossy())
        .bytes(4, b"rbind")
        .bytes(4, b"ro");
    let served = stage.serve(&bundle);
    let tasks = &served.tasks;
    for (name, mount) in [("overlay", overlay), ("bind", bind)] {
        let stdout = stage.stream(name);
        let create = Create { rootfs: vec![mount], ..stage.create(&bundle).stdout(&stdout) };
        tasks.run(&create);
        stdout.wait_for("mounted");
        assert_eq!(stage.mounts(), [bundle.rootfs().display().to_string()], "{name}");
        tasks.kill(&bundle.id, "", 9).expect("Kill");
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
        assert!(stage.mounts().is_empty(), "{name}: {:?}", stage.mounts());
    }
    let broken = Message::new().text(1, "overlay").text(2, "overlay").bytes(4, b"lowerdir=/no/such/folder");
    let create = Create { rootfs: vec![broken], ..stage.create(&bundle) };
    let failure = tasks.create(&create).expect_err("a mount that cannot be made");
    assert!(failure.message.contains("mount"), "{failure}");
    assert!(stage.mounts().is_empty());
    tasks.leave(&bundle.id);
    stage.end();
}

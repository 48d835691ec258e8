//! A shim that was killed, and the one that takes its containers over: driven by ttrpc, and with containerd stopped meanwhile.

use std::path::PathBuf;

use ketch_integration::containerd::{Age, Containerd, Cri};
use ketch_integration::shim::stream::make_fifo;
use ketch_integration::shim::{Bootstrap, Exec, Form, Served, Stage, Status, Stream};
use ketch_integration::{Bundle, Case, probe, tests, wait_until};
use rustix::process::{Pid, Signal, kill_process};

tests![
    many_containers_are_taken_over,
    a_pod_is_taken_over_by_one_shim,
    an_exec_is_taken_over,
    an_end_while_nobody_looks_is_said_to_be_lost,
    a_stopped_task_keeps_its_status,
    a_second_takeover_is_like_the_first,
    a_shim_killed_at_every_step_leaves_a_task_that_can_be_deleted,
    containers_of_a_stopped_containerd_1_6,
    containers_of_a_stopped_containerd_2,
    a_running_containerd_deletes_what_its_dead_shim_had,
];

/// How many containers are taken over at once.
const MANY: usize = 50;

/// Counts for ever on standard output, one number a line, and ends with 7 when it is asked to.
const COUNTS: &str = "trap 'echo asked; exit 7' TERM; i=0; while :; do echo $i; i=$((i+1)); usleep 100000; done";

fn stage(case: &Case) -> Stage<'_> {
    let stage = Stage::new(case);
    stage.shim.not_on_go(case, "can't take a container over from a dead shim");
    stage
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("send a signal");
}

fn kill_shims(stage: &Stage<'_>) {
    stage.shims().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    stage.site.wait_without("containerd-shim");
}

/// Whether the kernel tells the status of a process that is not one's child: PIDFD_INFO_EXIT, of Linux 6.15.
fn tells_exit() -> bool {
    let release = probe::read("/proc/sys/kernel/osrelease");
    let mut parts = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 15)
}

/// The container's end after a takeover: its own status where the kernel tells it, 255 elsewhere.
fn status_of(code: u64) -> u64 {
    if tells_exit() { code } else { 255 }
}

/// The lines so far are the numbers from 0 on, none left out; the last one may be under way.
fn counts_without_a_gap(text: &str) -> Result<usize, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (wanted, line) in whole.lines().enumerate() {
        if line != wanted.to_string() && line != "asked" {
            return Err(format!("line {wanted} is {line:?}"));
        }
    }
    Ok(whole.lines().count())
}

fn wait_count(stream: &Stream, least: usize) {
    wait_until(&format!("{least} lines in {}", stream.path.display()), || {
        let count = counts_without_a_gap(&stream.now()).unwrap_or_else(|e| panic!("{}: {e}", stream.path.display()));
        if count >= least { Ok(()) } else { Err(format!("{count} lines")) }
    });
}

/// A container that counts, and its fifo, which a client holds open over the death of the shim.
struct Counting<'a> {
    bundle: Bundle<'a>,
    served: Served,
    out: Stream,
    pid: i32,
}

fn counting<'a>(stage: &Stage<'a>) -> Counting<'a> {
    let bundle = stage.case.bundle().script(COUNTS);
    let served = stage.serve(&bundle);
    let path = stage.path(&format!("{}.out", bundle.id));
    make_fifo(&path);
    let out = Stream::open_held(&path);
    let pid = served.tasks.run(&stage.create(&bundle).stdout(&out));
    wait_count(&out, 2);
    Counting { bundle, served, out, pid }
}

fn many_containers_are_taken_over(case: &Case) {
    let stage = stage(case);
    let mut all: Vec<_> = (0..MANY).map(|_| counting(&stage)).collect();
    assert_eq!(stage.shims().len(), MANY);
    kill_shims(&stage);
    let before: Vec<_> = all.iter().map(|one| counts_without_a_gap(&one.out.now()).expect("no gap")).collect();
    for one in &mut all {
        assert!(!probe::is_dead(one.pid), "the container lives on without its shim");
        let bootstrap = stage.bootstrap(&one.bundle);
        let again = bootstrap.read(&bootstrap.command("start").run().ok());
        assert_eq!(again.address, one.served.address);
        one.served.tasks = again.tasks;
    }
    assert_eq!(stage.shims().len(), MANY);
    for (one, before) in all.iter().zip(before) {
        let (id, tasks) = (&one.bundle.id, &one.served.tasks);
        assert_eq!(tasks.status(id, ""), Ok(Status::Running));
        assert_eq!(tasks.connect(id).expect("Connect").1, one.pid);
        assert_eq!(tasks.run_exec(id, &Exec::script("e", "exit 9")), 9);
        // What was written while there was no shim has come, and more with it.
        wait_count(&one.out, before + 5);
    }
    // Asked at once: the status of each is there when its new parent has reaped it, which takes up to 2 s under an init that
    // only looks now and then.
    let waiting: Vec<_> = all
        .iter()
        .map(|one| {
            let waiting = one.served.tasks.waiting(&one.bundle.id, "");
            one.served.tasks.kill(&one.bundle.id, "", 15).expect("Kill");
            waiting
        })
        .collect();
    for (one, waiting) in all.iter().zip(waiting) {
        let (id, tasks) = (&one.bundle.id, &one.served.tasks);
        assert_eq!(waiting.wait().expect("Wait").number(1), status_of(7));
        assert_eq!(tasks.delete(id, ""), Ok(status_of(7)));
        one.out.wait_for("asked\n");
        counts_without_a_gap(&one.out.now()).expect("no gap to the end");
        let events = stage.sink.wait_for(id, &format!("delete {}", status_of(7)));
        assert!(events.contains(&format!("exit {}", status_of(7))), "{events:?}");
        tasks.leave(id);
    }
    drop(all);
    stage.end();
}

fn a_pod_is_taken_over_by_one_shim(case: &Case) {
    let stage = stage(case);
    let pod = case.bundle().sleeper();
    let served = stage.serve(&pod);
    served.tasks.run(&stage.create(&pod));
    let group = serde_json::json!({ "io.kubernetes.cri.sandbox-id": pod.id });
    let members: Vec<_> = (0..3)
        .map(|_| {
            let member = case.bundle().sleeper().set("/annotations", group.clone());
            let again = stage.serve(&member);
            again.tasks.run(&stage.create(&member));
            member
        })
        .collect();
    assert_eq!(stage.shims().len(), 1);
    kill_shims(&stage);
    // Whoever of the pod is asked for first, all are there.
    let bootstrap = stage.bootstrap(&members[1]);
    let again = bootstrap.read(&bootstrap.command("start").run().ok());
    assert_eq!(again.address, served.address);
    for bundle in members.iter().chain([&pod]) {
        assert_eq!(again.tasks.status(&bundle.id, ""), Ok(Status::Running));
        again.tasks.kill(&bundle.id, "", 9).expect("Kill");
        assert_eq!(again.tasks.wait(&bundle.id, ""), Ok(status_of(137)));
        assert_eq!(again.tasks.delete(&bundle.id, ""), Ok(status_of(137)));
    }
    again.tasks.leave(&pod.id);
    stage.end();
}

fn an_exec_is_taken_over(case: &Case) {
    let stage = stage(case);
    let one = counting(&stage);
    let id = &one.bundle.id;
    let path = stage.path("exec.out");
    make_fifo(&path);
    let out = Stream::open_held(&path);
    one.served.tasks.exec(id, &Exec::script("e", COUNTS).stdout(&out)).expect("Exec");
    let pid = one.served.tasks.start(id, "e").expect("Start");
    wait_count(&out, 2);
    kill_shims(&stage);
    let bootstrap = stage.bootstrap(&one.bundle);
    let again = bootstrap.read(&bootstrap.command("start").run().ok());
    assert_eq!(again.tasks.status(id, "e"), Ok(Status::Running));
    assert_eq!(again.tasks.state(id, "e").expect("State").number(3), u64::try_from(pid).unwrap_or(0));
    let seen = counts_without_a_gap(&out.now()).expect("no gap");
    wait_count(&out, seen + 5);
    again.tasks.kill(id, "e", 15).expect("Kill");
    assert_eq!(again.tasks.wait(id, "e"), Ok(status_of(7)));
    assert_eq!(again.tasks.delete(id, "e"), Ok(status_of(7)));
    again.tasks.end(id);
    stage.end();
}

fn an_end_while_nobody_looks_is_said_to_be_lost(case: &Case) {
    let stage = stage(case);
    let one = counting(&stage);
    let id = &one.bundle.id;
    kill_shims(&stage);
    kill(one.pid, Signal::TERM);
    wait_until("the container's end", || if probe::is_dead(one.pid) { Ok(()) } else { Err("it runs".into()) });
    let bootstrap = stage.bootstrap(&one.bundle);
    let again = bootstrap.read(&bootstrap.command("start").run().ok());
    // 7 where something still knows it (the kernel, or a parent that has not waited yet); never another code.
    let status = again.tasks.wait(id, "").expect("Wait");
    assert!([7, 255].contains(&status), "{status}");
    assert_eq!(again.tasks.delete(id, ""), Ok(status));
    let events = stage.sink.wait_for(id, &format!("delete {status}"));
    assert!(events.contains(&format!("exit {status}")), "{events:?}");
    // What it wrote last went with it: a pipe that nobody holds any more is no more.
    counts_without_a_gap(&one.out.now()).expect("no gap");
    if status == 255 {
        one.served.log.as_ref().expect("the shim's log").wait_for("lost");
    }
    again.tasks.leave(id);
    stage.end();
}

fn a_stopped_task_keeps_its_status(case: &Case) {
    let stage = stage(case);
    let bundle = case.bundle().script("exit 6");
    let served = stage.serve(&bundle);
    served.tasks.run(&stage.create(&bundle));
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(6));
    stage.sink.wait_for(&bundle.id, "exit 6");
    kill_shims(&stage);
    let bootstrap = stage.bootstrap(&bundle);
    let again = bootstrap.read(&bootstrap.command("start").run().ok());
    assert_eq!(again.tasks.status(&bundle.id, ""), Ok(Status::Stopped));
    assert_eq!(again.tasks.wait(&bundle.id, ""), Ok(6));
    assert_eq!(again.tasks.delete(&bundle.id, ""), Ok(6));
    again.tasks.leave(&bundle.id);
    stage.end();
}

fn a_second_takeover_is_like_the_first(case: &Case) {
    let stage = stage(case);
    let one = counting(&stage);
    let id = &one.bundle.id;
    for turn in 0..5 {
        kill_shims(&stage);
        let bootstrap = stage.bootstrap(&one.bundle);
        let again = bootstrap.read(&bootstrap.command("start").run().ok());
        assert_eq!(again.tasks.status(id, ""), Ok(Status::Running), "turn {turn}");
        assert_eq!(again.tasks.run_exec(id, &Exec::script(&format!("e{turn}"), "exit 2")), 2);
        let seen = counts_without_a_gap(&one.out.now()).expect("no gap");
        wait_count(&one.out, seen + 3);
        if turn == 4 {
            again.tasks.end(id);
        }
    }
    stage.end();
}

/// Killed before Create, after it, after Start, with an exec, paused, and after the end.
fn a_shim_killed_at_every_step_leaves_a_task_that_can_be_deleted(case: &Case) {
    let stage = stage(case);
    for step in ["start", "create", "run", "exec", "pause", "end"] {
        let bundle = case.bundle().sleeper();
        let served = stage.serve(&bundle);
        let (id, tasks) = (&bundle.id, &served.tasks);
        if step != "start" {
            tasks.create(&stage.create(&bundle)).expect("Create");
        }
        if !["start", "create"].contains(&step) {
            tasks.start(id, "").expect("Start");
        }
        match step {
            "exec" => {
                tasks.exec(id, &Exec::new("e", &["/bin/sleep", "1000"])).expect("Exec");
                tasks.start(id, "e").expect("Start of the exec");
            }
            "pause" => {
                tasks.pause(id).expect("Pause");
            }
            "end" => {
                tasks.kill(id, "", 9).expect("Kill");
                tasks.wait(id, "").expect("Wait");
            }
            _ => {}
        }
        kill_shims(&stage);
        let bootstrap = stage.bootstrap(&bundle);
        let again = bootstrap.read(&bootstrap.command("start").run().ok());
        let wanted = match step {
            "start" => None,
            "create" => Some(Status::Created),
            "pause" => Some(Status::Paused),
            "end" => Some(Status::Stopped),
            _ => Some(Status::Running),
        };
        assert_eq!(again.tasks.status(id, "").ok(), wanted, "killed after {step}");
        if step == "start" {
            again.tasks.leave(id);
            continue;
        }
        if step == "pause" {
            again.tasks.resume(id).expect("Resume");
        }
        again.tasks.end(id);
    }
    stage.end();
}

fn containers_of_a_stopped_containerd_1_6(case: &Case) {
    containers_of_a_stopped_containerd(case, Age::V1_6);
}

fn containers_of_a_stopped_containerd_2(case: &Case) {
    containers_of_a_stopped_containerd(case, Age::V2);
}

/// The bundle that containerd made for a task.
fn bundle_of(containerd: &Containerd<'_>, id: &str) -> PathBuf {
    let state = containerd.site.path("state/io.containerd.runtime.v2.task");
    state.join(&containerd.site.case.tag).join(id)
}

fn containers_of_a_stopped_containerd(case: &Case, age: Age) {
    let mut containerd = Containerd::start(case, age, Cri::Off);
    containerd.shim.not_on_go(case, "can't take a container over from a dead shim");
    let ids: Vec<_> = (0..5).map(|n| format!("box{n}")).collect();
    let script = "trap 'exit 7' TERM; while :; do sleep 1000 & wait $!; done";
    for id in &ids {
        let log = format!("file://{}", containerd.site.path(&format!("{id}.log")).display());
        let flags = ["--detach", "--log-uri", &log];
        let _ = containerd.run_command(&flags, id, &["/bin/sh", "-c", script]).run().ok();
    }
    containerd.crash();
    containerd.site.processes("containerd-shim").into_iter().for_each(|pid| kill(pid, Signal::KILL));
    containerd.site.wait_without("containerd-shim");
    // Whoever keeps the machine starts them again, with containerd's own addresses; it is not there yet.
    for id in &ids {
        let socket = containerd.socket();
        let bootstrap = Bootstrap {
            site: &containerd.site,
            shim: containerd.shim.clone(),
            form: if age == Age::V1_6 { Form::Plain } else { Form::Json },
            namespace: case.tag.clone(),
            id: id.clone(),
            bundle: bundle_of(&containerd, id),
            events: format!("{}.ttrpc", socket.display()).into(),
            options: None,
        };
        let again = bootstrap.read(&bootstrap.command("start").run().ok());
        assert_eq!(again.tasks.status(id, ""), Ok(Status::Running));
    }
    containerd.come_back();
    for id in &ids {
        let list = containerd.ctr(["task", "ls"]).ok();
        let line = list.text().lines().find(|line| line.starts_with(&format!("{id} "))).map(str::to_owned);
        assert!(line.is_some_and(|line| line.ends_with("RUNNING")), "{id}: {list}");
        let _ = containerd.ctr(["task", "exec", "--exec-id", "e", id, "/bin/sh", "-c", "exit 5"]).exits(5);
        let _ = containerd.ctr(["task", "kill", id]).ok();
        wait_until("the task's end", || {
            let list = containerd.ctr(["task", "ls"]).ok();
            let is_stopped =
                list.text().lines().any(|line| line.starts_with(&format!("{id} ")) && line.ends_with("STOPPED"));
            if is_stopped { Ok(()) } else { Err(list.text().to_owned()) }
        });
        let removed = containerd.ctr(["task", "rm", id]).ok();
        assert!(removed.stderr.contains(&format!("exit code {}", status_of(7))), "{removed}");
        let _ = containerd.ctr(["container", "rm", id]).ok();
    }
    containerd.site.wait_without("containerd-shim");
    containerd.end();
}

fn a_running_containerd_deletes_what_its_dead_shim_had(case: &Case) {
    let containerd = Containerd::start(case, Age::V1_6, Cri::Off);
    let _ = containerd.run_command(&["--detach"], "box", &["/bin/sleep", "1000"]).run().ok();
    let list = containerd.ctr(["task", "ls"]).ok();
    let pid = list.text().lines().find_map(|line| line.strip_prefix("box")?.split_whitespace().next()?.parse().ok());
    let pid: i32 = pid.expect("the task's pid");
    containerd.site.processes("containerd-shim").into_iter().for_each(|shim| kill(shim, Signal::KILL));
    wait_until("the container's end", || if probe::is_dead(pid) { Ok(()) } else { Err("it runs".into()) });
    wait_until("an empty list", || {
        let list = containerd.ctr(["task", "ls", "--quiet"]).ok();
        if list.text().is_empty() { Ok(()) } else { Err(list.text().to_owned()) }
    });
    containerd.site.wait_without("containerd-shim");
    let mounts = containerd.site.mounts(&containerd.site.path("state"));
    assert!(mounts.is_empty(), "{mounts:?}");
    let _ = containerd.ctr(["container", "rm", "box"]).ok();
    // The name is free again.
    let _ = containerd.run_command(&["--rm"], "box", &["/bin/true"]).run().ok();
    containerd.end();
}

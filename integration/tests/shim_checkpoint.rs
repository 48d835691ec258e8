//! Checkpoint, and Create from one: what a container has written and read goes on, whatever its streams, and nothing of it
//! comes twice. criu does not run on every kernel: where it does not, what is refused is all that is looked at.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use ketch_integration::shim::stream::{make_fifo, open_writer};
use ketch_integration::shim::ttrpc::Failure;
use ketch_integration::shim::{Create, Message, Stage, Status, Stream, Tasks, any};
use ketch_integration::{Bundle, Case, tests, wait_until};

use crate::checkpoint::needs_criu;

tests![
    without_a_criu_that_works_it_is_refused_in_words,
    output_goes_on_where_it_was,
    what_nobody_has_read_at_the_checkpoint_comes_once,
    output_goes_on_beside_the_container_that_was_left_running,
    a_paused_container_is_saved_as_ctr_does_it,
    input_goes_on_where_it_was,
    one_stream_alone_and_none_at_all,
    a_stream_of_another_kind_is_refused,
    what_was_restored_is_saved_again,
];

const KILL: u64 = 137;

fn images(bundle: &Bundle<'_>) -> PathBuf {
    bundle.dir.join("images")
}

fn checkpoint(tasks: &Tasks, bundle: &Bundle<'_>, exit: bool) -> Result<(), Failure> {
    let options = any("containerd.runc.v1.CheckpointOptions", Message::new().flag(1, exit).encode());
    let message = Message::new().text(1, &bundle.id).text(2, images(bundle).to_string_lossy());
    tasks.call("Checkpoint", &message.message(3, &options)).map(drop)
}

/// Saves the container, which ends, and deletes it.
fn checkpoint_and_delete(stage: &Stage<'_>, tasks: &Tasks, bundle: &Bundle<'_>) {
    checkpoint(tasks, bundle, true).expect("Checkpoint");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(KILL));
    let _ = stage.sink.wait_for(&bundle.id, "checkpointed");
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(KILL));
}

/// Create from the images, and Start.
fn restore(tasks: &Tasks, bundle: &Bundle<'_>, create: Create) {
    let create = Create { checkpoint: images(bundle).display().to_string(), ..create };
    tasks.create(&create).expect("Create from a checkpoint");
    tasks.start(&bundle.id, "").expect("Start, which restores");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
}

/// Writes numbers as fast as it can, and exits with 5 on SIGTERM.
fn counting(case: &Case) -> Bundle<'_> {
    case.bundle().script("trap 'exit 5' TERM; i=0; while :; do i=$((i+1)); echo $i; done")
}

/// As many lines as these have come.
fn wait_lines(stream: &Stream, count: usize) {
    wait_until(&format!("{count} lines in {}", stream.path.display()), || {
        let seen = stream.now().lines().count();
        if seen >= count { Ok(()) } else { Err(seen.to_string()) }
    });
}

/// Each whole line is the number after the one before it; gives the first of them.
#[track_caller]
fn consecutive(text: &str) -> u64 {
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let numbers: Vec<u64> = lines.map(|line| line.trim().parse().unwrap_or_else(|e| panic!("{line:?}: {e}"))).collect();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        panic!("{} is followed by {}", pair[0], pair[1]);
    }
    *numbers.first().expect("no number at all")
}

fn without_a_criu_that_works_it_is_refused_in_words(case: &Case) {
    let works = case.has_program("criu") && case.program("criu").arg("check").run().code == 0;
    case.needs(!works, "criu works here");
    let stage = Stage::new(case);
    let bundle = case.bundle().sleeper();
    let (served, _) = stage.run(&bundle);
    let failure = checkpoint(&served.tasks, &bundle, true).expect_err("Checkpoint without criu");
    assert!(failure.message.contains("criu"), "{failure}");
    assert_eq!(served.tasks.status(&bundle.id, ""), Ok(Status::Running));
    served.tasks.end(&bundle.id);
    stage.end();
}

fn output_goes_on_where_it_was(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let bundle = counting(case);
    // What keeps the shim there between the two lives of the container.
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let (before, after) = (stage.stream("before"), stage.stream("after"));
    // Both streams are one fifo of the client's.
    tasks.run(&stage.create(&bundle).stdout(&before));
    wait_lines(&before, 1000);
    checkpoint_and_delete(&stage, tasks, &bundle);
    let mut text = before.finish();
    restore(tasks, &bundle, stage.create(&bundle).stdout(&after));
    wait_lines(&after, 1000);
    tasks.kill(&bundle.id, "", 15).expect("Kill");
    assert_eq!(tasks.wait(&bundle.id, ""), Ok(5));
    assert_eq!(tasks.delete(&bundle.id, ""), Ok(5));
    text.push_str(&after.finish());
    assert_eq!(consecutive(&text), 1);
    tasks.end(&keeper.id);
    stage.end();
}

fn output_goes_on_beside_the_container_that_was_left_running(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let bundle = counting(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let (before, after) = (stage.stream("before"), stage.stream("after"));
    tasks.run(&stage.create(&bundle).stdout(&before));
    wait_lines(&before, 1000);
    checkpoint(tasks, &bundle, false).expect("Checkpoint");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    let seen = before.now().lines().count();
    wait_lines(&before, seen + 1000);
    let _ = tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    assert_eq!(consecutive(&before.finish()), 1);
    restore(tasks, &bundle, stage.create(&bundle).stdout(&after));
    wait_lines(&after, 1000);
    let _ = tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    let text = after.finish();
    // The end of a line may have been written before the checkpoint.
    let first = consecutive(text.split_once('\n').expect("a line").1);
    assert!(first > 1 && first <= u64::try_from(seen).unwrap() + 2, "{first}, where {seen} had been written");
    tasks.end(&keeper.id);
    stage.end();
}

fn a_paused_container_is_saved_as_ctr_does_it(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let bundle = counting(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let (before, after) = (stage.stream("before"), stage.stream("after"));
    tasks.run(&stage.create(&bundle).stdout(&before));
    wait_lines(&before, 1000);
    let _ = tasks.pause(&bundle.id).expect("Pause");
    checkpoint(tasks, &bundle, false).expect("Checkpoint");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Paused));
    let _ = tasks.resume(&bundle.id).expect("Resume");
    let seen = before.now().lines().count();
    wait_lines(&before, seen + 1000);
    fs::remove_dir_all(images(&bundle)).unwrap();
    let _ = tasks.pause(&bundle.id).expect("Pause");
    checkpoint_and_delete(&stage, tasks, &bundle);
    let mut text = before.finish();
    restore(tasks, &bundle, stage.create(&bundle).stdout(&after));
    wait_lines(&after, 1000);
    tasks.kill(&bundle.id, "", 15).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(5), Ok(5)));
    text.push_str(&after.finish());
    assert_eq!(consecutive(&text), 1);
    tasks.end(&keeper.id);
    stage.end();
}

fn input_goes_on_where_it_was(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let script = "n=0; while read word; do n=$((n+1)); echo $n got $word; echo $n >&2
        while [ $word = wait ] && [ ! -e /tmp/go ]; do sleep 0.05; done; done; exit 3";
    let bundle = case.bundle().script(script);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let create = |turn: &str| {
        let (stdin, out, err) = (stage.path(&format!("{turn}.in")), stage.stream(&format!("{turn}.out")), stage.stream(&format!("{turn}.err")));
        make_fifo(&stdin);
        let create = Create { stdin: stdin.display().to_string(), ..stage.create(&bundle).stdout(&out).stderr(&err) };
        (create, stdin, out, err)
    };
    let (first, stdin, out, err) = create("first");
    tasks.run(&first);
    // The last word waits in the container's fifo, and is part of what is saved.
    open_writer(&stdin).write_all(b"one\nwait\nunread\n").expect("write to the task");
    out.wait_for("2 got wait\n");
    checkpoint_and_delete(&stage, tasks, &bundle);
    assert_eq!((out.finish().as_str(), err.finish().as_str()), ("1 got one\n2 got wait\n", "1\n2\n"));

    let (second, stdin, out, err) = create("second");
    restore(tasks, &bundle, second);
    let mut writer = open_writer(&stdin);
    writer.write_all(b"later\n").expect("write to the task");
    fs::write(bundle.rootfs().join("tmp/go"), "").unwrap();
    out.wait_for("4 got later\n");
    drop(writer);
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Running));
    let _ = tasks.close_stdin(&bundle.id, "").expect("CloseIO");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(3), Ok(3)));
    assert_eq!((out.finish().as_str(), err.finish().as_str()), ("3 got unread\n4 got later\n", "3\n4\n"));
    tasks.end(&keeper.id);
    stage.end();
}

fn one_stream_alone_and_none_at_all(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let bundle = counting(case);
    let (before, after) = (stage.stream("before"), stage.stream("after"));
    let only = |stream: &Stream| Create { stderr: String::new(), ..stage.create(&bundle).stdout(stream) };
    tasks.run(&only(&before));
    wait_lines(&before, 10);
    checkpoint_and_delete(&stage, tasks, &bundle);
    restore(tasks, &bundle, only(&after));
    wait_lines(&after, 10);
    let _ = tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    assert_eq!(consecutive(&(before.finish() + &after.finish())), 1);

    let bundle = case.bundle().sleeper();
    tasks.run(&stage.create(&bundle));
    checkpoint_and_delete(&stage, tasks, &bundle);
    restore(tasks, &bundle, stage.create(&bundle));
    let _ = tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    tasks.end(&keeper.id);
    stage.end();
}

fn a_stream_of_another_kind_is_refused(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let bundle = counting(case);
    let before = stage.stream("before");
    tasks.run(&stage.create(&bundle).stdout(&before));
    wait_lines(&before, 10);
    checkpoint_and_delete(&stage, tasks, &bundle);
    // Without streams there is no fifo for what it had.
    let create = Create { checkpoint: images(&bundle).display().to_string(), ..stage.create(&bundle) };
    tasks.create(&create).expect("Create from a checkpoint");
    let failure = tasks.start(&bundle.id, "").expect_err("Start without the streams");
    assert!(failure.message.contains("criu failed: type RESTORE"), "{failure}");
    assert_eq!(tasks.status(&bundle.id, ""), Ok(Status::Created));
    tasks.delete(&bundle.id, "").expect("Delete");
    // With streams it still is what it was.
    let after = stage.stream("after");
    restore(tasks, &bundle, stage.create(&bundle).stdout(&after));
    wait_lines(&after, 10);
    let _ = tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    assert_eq!(consecutive(&(before.finish() + &after.finish())), 1);
    tasks.end(&keeper.id);
    stage.end();
}

fn what_was_restored_is_saved_again(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let bundle = counting(case);
    let mut text = String::new();
    for turn in 0..3 {
        let stream = stage.stream(&format!("out{turn}"));
        let create = stage.create(&bundle).stdout(&stream);
        if turn == 0 {
            tasks.run(&create);
        } else {
            restore(tasks, &bundle, create);
            fs::remove_dir_all(images(&bundle)).unwrap();
        }
        wait_lines(&stream, 100);
        checkpoint_and_delete(&stage, tasks, &bundle);
        text.push_str(&stream.finish());
    }
    assert_eq!(consecutive(&text), 1);
    tasks.end(&keeper.id);
    stage.end();
}

fn what_nobody_has_read_at_the_checkpoint_comes_once(case: &Case) {
    needs_criu(case);
    let stage = Stage::new(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    // More than the client's fifo takes, so that the container's own has the rest.
    let script = "seq 1 20000; : >/tmp/written; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo 20001; exec sleep 1000";
    let bundle = case.bundle().script(script);
    let path = stage.path("unread");
    make_fifo(&path);
    let stdout = path.display().to_string();
    tasks.run(&Create { stderr: stdout.clone(), stdout, ..stage.create(&bundle) });
    let [written, go] = ["tmp/written", "tmp/go"].map(|name| bundle.rootfs().join(name));
    wait_until("the container's output", || if written.exists() { Ok(()) } else { Err("not written".into()) });
    checkpoint(tasks, &bundle, true).expect("Checkpoint");
    let before = Stream::open(&path);
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    let after = stage.stream("after");
    restore(tasks, &bundle, stage.create(&bundle).stdout(&after));
    fs::write(go, "").unwrap();
    after.wait_for("20001\n");
    let _ = tasks.kill(&bundle.id, "", 9).expect("Kill");
    assert_eq!((tasks.wait(&bundle.id, ""), tasks.delete(&bundle.id, "")), (Ok(KILL), Ok(KILL)));
    let after = after.finish();
    assert!(after == "20001\n", "{} bytes, which begin with {:?}", after.len(), after.lines().next());
    let before = before.finish();
    assert_eq!((consecutive(&before), before.lines().count()), (1, 20000));
    tasks.end(&keeper.id);
    stage.end();
}

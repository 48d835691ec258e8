//! Streams of a container across checkpoint and restore, where they lead to its caller: pipes, files, fifos with a name.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ketch_integration::shim::Stream;
use ketch_integration::shim::stream::make_fifo;
use ketch_integration::{Case, Container, tests, wait_until};

use crate::checkpoint::{checkpoint, needs_criu, restore};

tests![
    restore_in_the_foreground_relays_and_exits,
    one_fifo_for_all_three_streams_is_another_afterwards,
];

fn restore_in_the_foreground_relays_and_exits(case: &Case) {
    needs_criu(case);
    let bundle = case.bundle().script("read word; echo first $word; read word; echo second $word; exit 9");
    // One that stays open, as a pipe that ends would end the program.
    let (input, mut kept) = std::io::pipe().unwrap();
    let mut run = Command::new(&case.runtime.path);
    bundle.write();
    run.arg("--root").arg(case.state_root()).arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let output = case.dir.join("run-output");
    run.stdin(input).stdout(fs::File::create(&output).unwrap()).stderr(Stdio::inherit());
    let mut run = run.spawn().unwrap();
    let container = Container::adopt(case, &bundle.id);
    kept.write_all(b"one\n").unwrap();
    wait_until("the first word", || {
        let seen = fs::read_to_string(&output).unwrap();
        if seen.contains("first one") { Ok(()) } else { Err(seen) }
    });
    let _ = checkpoint(&bundle, &[]).run().ok();
    assert!(!run.wait().unwrap().success(), "its process was killed");
    let images = bundle.dir.join("images");
    let restore = case.ketch().args(["restore", "--image-path"]).arg(images).arg("--bundle").arg(&bundle.dir);
    let out = restore.arg(&bundle.id).stdin("two\n").run().exits(9);
    assert_eq!(out.text(), "second two");
    assert_eq!(container.status(), "gone");
}

fn one_fifo_for_all_three_streams_is_another_afterwards(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it can't save a fifo with a name");
    let [first, second] = ["first", "second"].map(|name| Stream::open_held(&fifo(case, name)));
    let through = |stream: &Stream| format!("exec \"$@\" 0<>{} >&0 2>&0", stream.path.display());
    // Another descriptor of it, in a child.
    let bundle = case.bundle().script("exec 7>&1 >/dev/null 2>&1 </dev/null; (i=0; while :; do i=$((i+1)); echo $i >&7; sleep 0.05; done) & wait");
    bundle.write();
    let create = case.ketch().arg("create").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let _ = create.through_shell(&through(&first)).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let _ = container.start().ok();
    first.wait_for("5\n");
    let _ = checkpoint(&bundle, &[]).run().ok();
    let _ = restore(&bundle, &[]).through_shell(&through(&second)).run().ok();
    wait_until("its output", || {
        let seen = second.now();
        if seen.lines().count() > 3 { Ok(()) } else { Err(seen) }
    });
    let _ = checkpoint(&bundle, &["--leave-running"]).run().ok();
    container.stop();
}

/// A new fifo in the case's folder.
pub(crate) fn fifo(case: &Case, name: &str) -> PathBuf {
    let path = case.dir.join(name);
    make_fifo(&path);
    path
}

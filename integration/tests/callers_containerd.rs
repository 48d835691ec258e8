//! Debian's containerd with its runc shim, whose `BinaryName` is the runtime under test: `ctr run` and `ctr task`.

use ketch_integration::containerd::{Age, Containerd, Cri, HEARD, IMAGE};
use ketch_integration::shim::Shim;
use ketch_integration::{Case, tests, wait_until};

tests![a_task_runs_and_its_exit_code_comes_back, a_task_lives_through_exec_pause_metrics_and_kill];

fn start(case: &Case) -> Containerd<'_> {
    Containerd::with_shim(case, Age::V1_6, Cri::Off, Shim::go16())
}

fn a_task_runs_and_its_exit_code_comes_back(case: &Case) {
    let containerd = start(case);
    let runtime = containerd.runtime();
    let (gate, script) = (containerd.gate(), format!("echo from inside; {HEARD}; exit 3"));
    let run = ["run", "--rm", "--snapshotter", "native", "--runc-binary", &runtime, "--mount", &gate, IMAGE, "one"];
    let command = containerd.ctr_command(run).args(["/bin/sh", "-c", &script]);
    let _ = containerd.hear(command, "from inside", "").exits(3);
    containerd.end();
}

fn a_task_lives_through_exec_pause_metrics_and_kill(case: &Case) {
    let containerd = start(case);
    let runtime = containerd.runtime();
    let gate = containerd.gate();
    let run = ["run", "--detach", "--snapshotter", "native", "--runc-binary", &runtime, "--mount", &gate, IMAGE, "two"];
    let _ = containerd.ctr_command(run).args(["/bin/sleep", "1000"]).run().ok();
    assert!(containerd.ctr(["task", "ls"]).ok().text().contains("RUNNING"));
    let script = format!("id -u; {HEARD}");
    let id = containerd.ctr_command(["task", "exec", "--exec-id", "e", "two", "/bin/sh", "-c", &script]);
    let _ = containerd.hear(id, "0", "").ok();
    let _ = containerd.ctr(["task", "exec", "--exec-id", "f", "two", "/bin/sh", "-c", "exit 5"]).exits(5);
    let _ = containerd.ctr(["task", "pause", "two"]).ok();
    assert!(containerd.ctr(["task", "ls"]).ok().text().contains("PAUSED"));
    let _ = containerd.ctr(["task", "resume", "two"]).ok();
    assert!(containerd.ctr(["task", "metrics", "two"]).ok().text().contains("pids.current"));
    assert!(containerd.ctr(["task", "ps", "two"]).ok().text().lines().count() >= 2);
    let _ = containerd.ctr(["task", "kill", "--signal", "KILL", "two"]).ok();
    wait_until("the task's end", || {
        let list = containerd.ctr(["task", "ls"]).ok();
        if list.text().contains("STOPPED") { Ok(()) } else { Err(list.text().to_owned()) }
    });
    let removed = containerd.ctr(["task", "rm", "two"]).ok();
    assert!(removed.stderr.contains("exit code 137"), "{removed}");
    let _ = containerd.ctr(["container", "rm", "two"]).ok();
    containerd.end();
}

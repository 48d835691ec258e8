//! Several commands on one id at once, and several containers at once.

use ketch_integration::runtime::Invocation;
use ketch_integration::{Case, Container, tests};

tests![
    one_of_many_creates_wins,
    one_of_many_starts_wins,
    kill_and_delete_at_once,
    state_beside_create_and_delete,
    twenty_containers_at_once,
];

fn one_of_many_creates_wins(case: &Case) {
    let bundle = case.bundle().sleeper();
    // All written before the first starts: each of them writes config.json anew.
    let commands: Vec<_> = (0..6).map(|_| bundle.create_command().arg(&bundle.id)).collect();
    let running: Vec<_> = commands.into_iter().map(Invocation::spawn).collect();
    let outs: Vec<_> = running.into_iter().map(ketch_integration::runtime::Running::wait).collect();
    let container = Container::adopt(case, &bundle.id);
    assert_eq!(outs.iter().filter(|out| out.code == 0).count(), 1);
    for out in outs.iter().filter(|out| out.code != 0) {
        assert!(out.stderr.contains("container with given ID already exists"), "{out}");
    }
    assert_eq!(container.status(), "created");
    let _ = container.start().ok();
    assert_eq!(container.status(), "running");
}

fn one_of_many_starts_wins(case: &Case) {
    case.not_on_runc("a start that loses the race waits on the fifo for ever");
    let container = case.bundle().sleeper().create();
    let running: Vec<_> = (0..6).map(|_| container.command("start", &[]).spawn()).collect();
    let outs: Vec<_> = running.into_iter().map(ketch_integration::runtime::Running::wait).collect();
    assert_eq!(outs.iter().filter(|out| out.code == 0).count(), 1);
    assert_eq!(container.status(), "running");
}

fn kill_and_delete_at_once(case: &Case) {
    for _ in 0..3 {
        let bundle = case.bundle().sleeper();
        let container = bundle.start();
        let force = || case.ketch().args(["delete", "--force", &bundle.id]).spawn();
        let running = [container.command("kill", &["KILL"]).spawn(), force(), container.command("kill", &["TERM"]).spawn(), force()];
        for running in running {
            let _ = running.wait();
        }
        let _ = case.ketch().args(["delete", "--force", &bundle.id]).run().ok();
        assert_eq!(container.status(), "gone");
    }
}

fn state_beside_create_and_delete(case: &Case) {
    let bundle = case.bundle().sleeper();
    for _ in 0..3 {
        let create = bundle.create_command().arg(&bundle.id).spawn();
        let looks: Vec<_> = (0..4).map(|_| case.ketch().args(["state", &bundle.id]).spawn()).collect();
        let list = case.ketch().args(["list", "-f", "json"]).spawn();
        let _ = create.wait().ok();
        for look in looks {
            let out = look.wait();
            if out.code == 0 {
                let status = out.json()["status"].as_str().unwrap_or_default().to_owned();
                assert!(["creating", "created", "stopped"].contains(&status.as_str()), "{out}");
            } else {
                assert!(out.stderr.contains("does not exist") || case.is_runc_before(2, 0), "{out}");
            }
        }
        let _ = list.wait();
        let _ = case.ketch().args(["delete", "--force", &bundle.id]).run().ok();
    }
}

fn twenty_containers_at_once(case: &Case) {
    let bundles: Vec<_> = (0..20).map(|n| case.bundle().script(&format!("echo number {n}"))).collect();
    let running: Vec<_> = bundles.iter().map(|bundle| bundle.run_command().arg(&bundle.id).spawn()).collect();
    for (n, running) in running.into_iter().enumerate() {
        assert_eq!(running.wait().ok().stdout, format!("number {n}\n"));
    }
}

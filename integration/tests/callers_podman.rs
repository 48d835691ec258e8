//! Debian's podman and buildah with `--runtime` naming the runtime under test.

use std::fs;

use ketch_integration::{Case, Output, Site, tests, wait_until};

tests![run_exec_pause_and_stop, a_user_namespace_is_mapped, a_missing_program_is_127, buildah_runs_in_a_working_container, checkpoint_and_restore_in_place_and_by_an_archive];

struct Podman<'a> {
    site: Site<'a>,
}

impl<'a> Podman<'a> {
    fn new(case: &'a Case) -> Self {
        case.native_only("podman 4.3 asks for controllers that the private v2 layout lacks");
        case.needs(case.has_program("podman"), "no podman (package podman)");
        let site = Site::new(case);
        // Podman's own defaults raise limits, for which the test machines' root has no right.
        let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        fs::write(site.path("containers.conf"), limits).expect("write containers.conf");
        let podman = Self { site };
        let tar = podman.site.busybox_tar().display().to_string();
        let _ = podman.podman(["import", tar.as_str(), "busybox"]).ok();
        podman
    }

    /// The flags that keep both programs' storage in the site.
    fn storage(&self) -> Vec<String> {
        let path = |name: &str| self.site.path(name).display().to_string();
        ["--root".into(), path("storage"), "--runroot".into(), path("run"), "--storage-driver".into(), "vfs".into()].into()
    }

    fn command(&self, head: &[&str], args: &[&str]) -> Output {
        let mut line = self.storage();
        let runtime = self.site.case.runtime.path.display().to_string();
        let tmp = self.site.path("tmp").display().to_string();
        line.extend(["--runtime".into(), runtime, "--cgroup-manager".into(), "cgroupfs".into()]);
        line.extend(["--events-backend".into(), "file".into(), "--tmpdir".into(), tmp]);
        line.extend(head.iter().chain(args).map(|arg| (*arg).to_owned()));
        self.site.run("podman", line)
    }

    fn podman<const N: usize>(&self, args: [&str; N]) -> Output {
        self.command(&[], &args)
    }

    fn run<const N: usize>(&self, args: [&str; N]) -> Output {
        let parent = format!("--cgroup-parent=/{}", self.site.case.tag);
        self.command(&["run", &parent, "--network", "none"], &args)
    }
}

fn run_exec_pause_and_stop(case: &Case) {
    let podman = Podman::new(case);
    assert_eq!(podman.run(["--rm", "busybox", "/bin/echo", "hello"]).ok().text(), "hello");
    let _ = podman.run(["-d", "--name", "c", "busybox", "/bin/sleep", "1000"]).ok();
    assert!(podman.podman(["exec", "c", "/bin/ps"]).ok().text().contains("sleep"));
    let _ = podman.podman(["exec", "c", "/bin/sh", "-c", "exit 9"]).exits(9);
    let _ = podman.podman(["pause", "c"]).ok();
    assert_eq!(podman.podman(["inspect", "--format", "{{.State.Status}}", "c"]).ok().text(), "paused");
    let _ = podman.podman(["unpause", "c"]).ok();
    let _ = podman.podman(["stop", "--time", "1", "c"]).ok();
    assert_eq!(podman.podman(["inspect", "--format", "{{.State.ExitCode}}", "c"]).ok().text(), "137");
    let _ = podman.podman(["rm", "c"]).ok();
}

fn a_user_namespace_is_mapped(case: &Case) {
    let podman = Podman::new(case);
    let out = podman.run(["--rm", "--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000", "busybox", "/bin/cat", "/proc/self/uid_map"]).ok();
    assert_eq!(out.text().split_whitespace().collect::<Vec<_>>(), ["0", "100000", "1000"]);
}

fn a_missing_program_is_127(case: &Case) {
    let podman = Podman::new(case);
    let _ = podman.run(["--rm", "busybox", "/bin/nope"]).exits(127);
}

fn buildah_runs_in_a_working_container(case: &Case) {
    case.needs(case.has_program("buildah"), "no buildah (package buildah)");
    let podman = Podman::new(case);
    let buildah = |args: &[&str]| {
        let mut line = podman.storage();
        line.extend(args.iter().map(|arg| (*arg).to_owned()));
        podman.site.run("buildah", line)
    };
    let name = buildah(&["from", "--pull-never", "localhost/busybox"]).ok().text().to_owned();
    let runtime = case.runtime.path.display().to_string();
    let out = buildah(&["run", "--runtime", &runtime, "--network", "none", &name, "--", "/bin/echo", "built"]).ok();
    assert_eq!(out.text(), "built");
    let _ = buildah(&["rm", &name]).ok();
}

fn checkpoint_and_restore_in_place_and_by_an_archive(case: &Case) {
    crate::checkpoint::needs_criu(case);
    let podman = Podman::new(case);
    let script = "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.1; done";
    let _ = podman.run(["-d", "--name", "c", "busybox", "/bin/sh", "-c", script]).ok();
    let count = |name: &str| {
        let mut seen = 0;
        wait_until("a count of some", || {
            let text = podman.podman(["exec", name, "/bin/cat", "/count"]).ok().text().to_owned();
            seen = text.parse().unwrap_or(0);
            if seen > 5 { Ok(()) } else { Err(text) }
        });
        seen
    };
    let before: u64 = count("c");
    let _ = podman.podman(["container", "checkpoint", "c"]).ok();
    assert_eq!(podman.podman(["inspect", "--format", "{{.State.Status}} {{.State.Checkpointed}}", "c"]).ok().text(), "exited true");
    let _ = podman.podman(["container", "restore", "c"]).ok();
    assert_eq!(podman.podman(["inspect", "--format", "{{.State.Status}}", "c"]).ok().text(), "running");
    assert!(count("c") >= before);
    let archive = podman.site.path("c.tar.gz").display().to_string();
    let _ = podman.podman(["container", "checkpoint", "--export", archive.as_str(), "c"]).ok();
    let _ = podman.podman(["rm", "c"]).ok();
    let _ = podman.podman(["container", "restore", "--import", archive.as_str(), "--name", "d"]).ok();
    assert!(count("d") >= before);
    let _ = podman.podman(["rm", "--force", "--time", "0", "d"]).ok();
}

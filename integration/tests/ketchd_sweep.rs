//! kill -9 of the daemon at every call by which it changes something, command by command: the next one reconciles, nothing that was
//! acknowledged is lost, nothing is left.
//!
//! `step_killer` follows all threads of the daemon while a client's command runs and kills it as one of them enters the n-th such call.
//! The order between threads is another each time, so that a step is no fixed place; the whole of the steps is the whole of the
//! command. Sampled here, with the size printed; all of them in `make soak`.

use ketch_integration::ketchd::registry::{Guard, Registry};
use ketch_integration::ketchd::traces::Traces;
use ketch_integration::ketchd::{Engine, archive};
use ketch_integration::runtime::Output;
use ketch_integration::sample::Sample;
use ketch_integration::{Case, probe, tests};

tests![
    create,
    start,
    stop,
    remove,
    a_run_that_removes_itself,
    a_health_checked_restart,
    exec,
    network_create,
    network_remove,
    connect_and_disconnect,
    volume_create,
    volume_remove,
    load,
    pull,
    image_remove,
    commit,
];

/// A command of a client, killed at one step after another.
struct Sweep<'a> {
    /// Every how many steps, in the ordinary suite.
    stride: usize,
    /// Makes what the command needs: lines of docker's.
    prepare: &'a [&'a str],
    /// A shell's line.
    command: &'a str,
    /// What holds once the command is acknowledged.
    then: &'a dyn Fn(&Engine<'_>, &str),
}

impl Sweep<'_> {
    fn run(&self, case: &Case) {
        let mut engine = Engine::bare(case, &["--live-restore"]);
        engine.only_ketch("a kill at a step of its own leaves shims, and what they hold");
        case.not_sanitised("ptrace has one tracer");
        engine.load_busybox();
        self.run_in(case, &mut engine);
        engine.end();
    }

    fn run_in(&self, case: &Case, engine: &mut Engine<'_>) {
        // The first time makes folders that stay.
        let _ = engine.docker("run --rm busybox true").ok();
        let before = Traces::settled(engine);
        let whole = self.attempt(case, engine, 0);
        let steps = probe::read(report(case)).lines().count();
        assert_eq!(whole.code, 0, "{whole}");
        (self.then)(engine, whole.text());
        clear(engine);
        before.wait_same(engine, "without a kill");
        let sample = Sample::of(case, steps, self.stride);
        let mut hit = 0;
        for number in sample.numbers() {
            let out = self.attempt(case, engine, number + 1);
            let step = probe::read(report(case)).lines().last().unwrap_or_default().to_owned();
            let when = format!("step {} of {steps} ({step})", number + 1);
            println!("{when}: {}", out.code);
            hit += usize::from(ketch_integration::probe::is_dead(engine.pid()));
            engine.kill();
            engine.come_back();
            if out.code == 0 {
                (self.then)(engine, out.text());
            }
            clear(engine);
            before.wait_same(engine, &when);
        }
        sample.tell(hit);
    }

    fn attempt(&self, case: &Case, engine: &Engine<'_>, step: usize) -> Output {
        for line in self.prepare {
            let _ = engine.docker(line).ok();
        }
        let command = engine.program("sh").arg("-c").arg(self.command);
        let mut killer = case.program(env!("CARGO_BIN_EXE_step_killer"));
        killer.env.clone_from(&command.env);
        let killer = killer.arg(report(case)).arg(format!("threads:{}", engine.pid())).arg(step.to_string());
        killer.arg(&command.program).args(command.args).run()
    }
}

fn report(case: &Case) -> std::path::PathBuf {
    case.dir.join("steps")
}

/// Everything can be removed, whatever was half done.
fn clear(engine: &Engine<'_>) {
    let script = r#"
        set -e
        docker ps -aq | xargs -r docker rm -fv >/dev/null
        docker network ls -q --filter type=custom | xargs -r docker network rm >/dev/null
        docker volume ls -q | xargs -r docker volume rm >/dev/null
        docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}' | while read name id; do
            case $name in busybox:latest) ;; *none*) docker rmi -f $id >/dev/null ;; *) docker rmi -f $name >/dev/null ;; esac
        done
    "#;
    let _ = engine.sh(script).ok();
}



fn is(format: &'static str, wanted: &'static str) -> impl Fn(&Engine<'_>, &str) {
    move |engine, _| assert_eq!(engine.inspect("box", format), wanted, "it was acknowledged")
}

const STATUS: &str = "{{.State.Status}}";
const FULL: &str = "--network net -p 127.0.0.1::80 -v vol:/vol -v /anonymous busybox sleep 1000";

fn create(case: &Case) {
    let command = format!("docker create --name box {FULL}");
    Sweep { stride: 11, prepare: &["network create net"], command: &command, then: &is(STATUS, "created") }.run(case);
}

fn start(case: &Case) {
    let create = format!("create --name box {FULL}");
    let prepare = ["network create net", &create];
    Sweep { stride: 37, prepare: &prepare, command: "docker start box", then: &is(STATUS, "running") }.run(case);
}

fn stop(case: &Case) {
    let prepare = ["network create net", &format!("run -d --name box {FULL}")];
    Sweep { stride: 13, prepare: &prepare, command: "docker stop -t 0 box", then: &is(STATUS, "exited") }.run(case);
}

fn remove(case: &Case) {
    let prepare = ["network create net", &format!("run -d --name box {FULL}")];
    let then = |engine: &Engine<'_>, _: &str| {
        assert_eq!(engine.docker("ps -aq").ok().text(), "", "its removal was acknowledged");
        assert_eq!(engine.docker("volume ls -q").ok().text(), "vol");
    };
    Sweep { stride: 17, prepare: &prepare, command: "docker rm -fv box", then: &then }.run(case);
}

fn a_run_that_removes_itself(case: &Case) {
    let command = "docker run --rm --network net -v /anonymous -p 127.0.0.1::80 busybox echo it ran";
    let then = |engine: &Engine<'_>, said: &str| {
        assert_eq!(said, "it ran");
        ketch_integration::wait_until("its removal", || match engine.docker("ps -aq").ok().text() {
            "" => Ok(()),
            left => Err(left.to_owned()),
        });
    };
    Sweep { stride: 61, prepare: &["network create net"], command, then: &then }.run(case);
}

fn a_health_checked_restart(case: &Case) {
    let prepare = ["run -d --name box --health-cmd false --health-interval 50ms --health-retries 1 --restart always --stop-timeout 0 --label ketch.health.restart=true -p 127.0.0.1::80 busybox sleep 1000"];
    let command = "while test x$(docker inspect -f {{.RestartCount}} box) = x0; do :; done";
    let then = |engine: &Engine<'_>, _: &str| {
        engine.wait_inspect("box", "{{.State.Running}}", "true");
    };
    Sweep { stride: 11, prepare: &prepare, command, then: &then }.run(case);
}

fn exec(case: &Case) {
    let prepare = ["run -d --name box --network none busybox sleep 1000"];
    Sweep { stride: 5, prepare: &prepare, command: "docker exec box true", then: &is(STATUS, "running") }.run(case);
}

fn network_create(case: &Case) {
    let then = |engine: &Engine<'_>, _: &str| {
        assert_eq!(engine.inspect("net", "{{(index .IPAM.Config 0).Subnet}}"), "10.81.0.0/24");
        let _ = engine.docker("run --rm --network net busybox true").ok();
    };
    Sweep { stride: 5, prepare: &[], command: "docker network create --subnet 10.81.0.0/24 net", then: &then }.run(case);
}

fn network_remove(case: &Case) {
    let then = |engine: &Engine<'_>, _: &str| {
        assert_eq!(engine.docker("network ls -q --filter type=custom").ok().text(), "");
    };
    Sweep { stride: 5, prepare: &["network create net"], command: "docker network rm net", then: &then }.run(case);
}

fn connect_and_disconnect(case: &Case) {
    let prepare = ["network create net", "run -d --name box busybox sleep 1000"];
    let command = "docker network connect net box && docker network disconnect bridge box";
    let then = |engine: &Engine<'_>, _: &str| {
        let out = engine.docker("inspect --format '{{range $name, $it := .NetworkSettings.Networks}}{{$name}} {{end}}' box").ok();
        assert_eq!(out.text(), "net");
    };
    Sweep { stride: 19, prepare: &prepare, command, then: &then }.run(case);
}

fn volume_create(case: &Case) {
    let then = |engine: &Engine<'_>, _: &str| assert_eq!(engine.inspect("vol", "{{.Labels.a}}"), "b");
    Sweep { stride: 3, prepare: &[], command: "docker volume create --label a=b vol", then: &then }.run(case);
}

fn volume_remove(case: &Case) {
    let prepare = ["run --rm -v vol:/vol --network none busybox sh -c 'echo kept >/vol/file'"];
    let then = |engine: &Engine<'_>, _: &str| assert_eq!(engine.docker("volume ls -q").ok().text(), "");
    Sweep { stride: 3, prepare: &prepare, command: "docker volume rm vol", then: &then }.run(case);
}

/// An engine with the archive of another image at `tar` of its site.
fn with_other_image<'a>(case: &'a Case) -> Engine<'a> {
    let engine = Engine::bare(case, &["--live-restore"]);
    engine.only_ketch("it is slow at this");
    case.not_sanitised("ptrace has one tracer");
    engine.load_busybox();
    let root = engine.site.path("other");
    std::fs::create_dir_all(root.join("folder")).expect("make the other image's root");
    for number in 0..20 {
        std::fs::write(root.join(format!("folder/{number}")), vec![number; 100_000]).expect("write a file");
    }
    let tar = archive::docker_archive(&engine.site, "other:latest", &root, r#""Cmd":["/none"]"#);
    std::fs::rename(tar, engine.site.path("other.tar")).expect("name the archive");
    engine
}

fn has_other(engine: &Engine<'_>, _: &str) {
    let out = engine.docker("create --name box --network none other:latest").ok();
    let tar = engine.site.path("exported.tar");
    let _ = engine.docker(&format!("export --output {} {}", tar.display(), out.text())).ok();
    assert!(std::fs::metadata(tar).expect("the exported files").len() > 2_000_000);
}

fn load(case: &Case) {
    let mut engine = with_other_image(case);
    let command = format!("docker load -q --input {}", engine.site.path("other.tar").display());
    Sweep { stride: 31, prepare: &[], command: &command, then: &has_other }.run_in(case, &mut engine);
    engine.end();
}

fn pull(case: &Case) {
    let mut engine = with_other_image(case);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/other:latest", registry.address);
    let _ = engine.docker(&format!("load -q --input {}", engine.site.path("other.tar").display())).ok();
    let _ = engine.docker(&format!("tag other:latest {name}")).ok();
    let _ = engine.docker(&format!("push -q {name}")).ok();
    clear(&engine);
    let command = format!("docker pull -q {name} && docker tag {name} other:latest");
    Sweep { stride: 31, prepare: &[], command: &command, then: &has_other }.run_in(case, &mut engine);
    registry.stop();
    engine.end();
}

fn image_remove(case: &Case) {
    let mut engine = with_other_image(case);
    let prepare = format!("load -q --input {}", engine.site.path("other.tar").display());
    let then = |engine: &Engine<'_>, _: &str| assert_eq!(engine.docker("images -q other").ok().text(), "");
    Sweep { stride: 7, prepare: &[&prepare], command: "docker rmi other", then: &then }.run_in(case, &mut engine);
    engine.end();
}

fn commit(case: &Case) {
    let prepare = ["run --name box --network none busybox sh -c 'echo kept >/file'"];
    let then = |engine: &Engine<'_>, _: &str| {
        assert_eq!(engine.docker("run --rm --network none other cat /file").ok().text(), "kept");
    };
    Sweep { stride: 11, prepare: &prepare, command: "docker commit box other", then: &then }.run(case);
}

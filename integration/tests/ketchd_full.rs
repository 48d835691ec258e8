//! A disk that is full, a kernel that refuses, a port and addresses that are taken: a clear error, all undone, and the daemon goes on.

use ketch_integration::ketchd::full_disk::{self, says_full};
use ketch_integration::ketchd::traces::Traces;
use ketch_integration::ketchd::{Engine, Maker, archive};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};

tests![
    a_full_data_root,
    a_full_data_root_while_it_starts,
    what_is_removed_from_a_full_disk,
    a_full_exec_root,
    a_log_that_can_not_be_written,
    a_disk_that_does_not_answer,
    a_disk_that_is_busy,
    a_mount_that_is_refused,
    a_taken_port,
    an_address_pool_that_is_used_up,
];

/// An engine with a folder of its own on a small tmpfs.
fn small<'a>(case: &'a Case, folder: &str) -> Engine<'a> {
    let maker = Maker::under_test(case);
    let site = Site::new(case);
    full_disk::mount(&site, folder);
    let engine = Engine::inside(site, maker, &["--live-restore"]);
    engine.load_busybox();
    engine
}

fn a_full_data_root(case: &Case) {
    let engine = small(case, "data");
    engine.only_ketch("its metadata's file is preallocated, so that some of these succeed");
    let root = engine.site.path("other");
    std::fs::create_dir_all(&root).expect("make the other image's root");
    std::fs::write(root.join("file"), vec![1; 1 << 20]).expect("write a file");
    let tar = archive::docker_archive(&engine.site, "other:latest", &root, r#""Cmd":["/none"]"#);
    let _ = engine.docker("run --rm busybox true").ok();
    let _ = engine.docker("run -d --name lives -p 127.0.0.1:8080:80 busybox httpd -f -p 80 -h /etc").ok();
    let _ = engine.docker("create --name later --network none busybox sleep 1000").ok();
    let before = Traces::settled(&engine);
    full_disk::fill(&engine, "data");
    let load = format!("load --input {}", tar.display());
    let lines = ["create --name never --network none busybox true", "volume create vol", &load, "network create net"];
    // What is small may find room in a page that the store has already.
    let undo = ["rm -f never", "volume rm vol", "rmi other", "network rm net"];
    let mut failed = 0;
    for (line, undo) in lines.iter().zip(undo) {
        let out = engine.docker(line);
        if out.code == 0 {
            let _ = engine.docker(undo);
        } else {
            failed += 1;
            // A client that still sends may hear of the end of the connection first.
            let cut = line.starts_with("load") && out.stderr.contains("broken pipe");
            assert!(cut || says_full(&format!("{}{}", out.stdout, out.stderr)), "{line}: {out}");
        }
    }
    assert!(failed >= 2, "it was not full");
    // What runs goes on, is reached, and can be asked.
    assert_eq!(engine.inspect("lives", "{{.State.Status}}"), "running");
    assert_eq!(engine.docker("exec lives echo inside").ok().text(), "inside");
    let _ = engine.sh("busybox wget -qO- http://127.0.0.1:8080/group").ok();
    let out = engine.docker("commit lives kept");
    assert!(out.code == 0 || says_full(&out.stderr), "{out}");
    full_disk::make_room(&engine, "data");
    if out.code == 0 {
        let _ = engine.docker("rmi kept").ok();
    }
    // What could not even be taken back for want of room.
    for line in undo {
        let _ = engine.docker(line);
    }
    before.wait_same(&engine, "all is undone");
    for line in lines {
        let _ = engine.docker(line).ok();
    }
    let _ = engine.docker("start later").ok();
    let _ = engine.docker("stop -t 0 lives").ok();
    for line in ["rm -f never", "volume rm vol", "network rm net", "rmi other"] {
        let _ = engine.docker(line).ok();
    }
    engine.end();
}

fn a_full_data_root_while_it_starts(case: &Case) {
    let mut engine = small(case, "data");
    engine.only_ketch("containerd's root is elsewhere");
    let _ = engine.docker("run -d --name lives --network none busybox sleep 1000").ok();
    let pid = engine.inspect("lives", "{{.State.Pid}}");
    full_disk::fill(&engine, "data");
    // A container stops and goes all the same, or says why not; a restart of the daemon finds it.
    let stopped = engine.docker("run --rm --network none busybox true");
    assert!(stopped.code != 0 && says_full(&stopped.stderr), "{stopped}");
    engine.kill();
    full_disk::make_room(&engine, "data");
    engine.come_back();
    assert_eq!(engine.inspect("lives", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    full_disk::fill(&engine, "data");
    let out = engine.docker("rm -f lives");
    println!("rm -f on a full disk: {}", out.code);
    full_disk::make_room(&engine, "data");
    if out.code != 0 {
        assert!(says_full(&out.stderr), "{out}");
        let _ = engine.docker("rm -f lives").ok();
    }
    engine.end();
}

/// Removals are what makes room: each succeeds on a disk without a free block, several in a row.
fn what_is_removed_from_a_full_disk(case: &Case) {
    let engine = small(case, "data");
    let _ = engine.docker("network create net").ok();
    let _ = engine.docker("volume create vol").ok();
    let _ = engine.docker("tag busybox other").ok();
    let _ = engine.docker("run -d --name runs --network none busybox sleep 1000").ok();
    let _ = engine.docker("run -d --name keeps --network none -v /anonymous busybox sleep 1000").ok();
    for name in ["first", "second", "third"] {
        let _ = engine.docker(&format!("run --name {name} --network none busybox sh -c 'echo x >/file'")).ok();
    }
    let lines = ["rm first", "rm -f runs", "rm -f keeps", "network rm net", "volume rm vol", "rm -v second", "rmi other", "rm third"];
    for line in lines {
        full_disk::fill(&engine, "data");
        let out = engine.docker(line);
        // dockerd writes a new list of names for it, and has no room for that.
        if engine.is_ketch() || line != "rmi other" {
            let _ = out.ok();
        }
    }
    assert_eq!(engine.docker("ps -aq").ok().text(), "");
    full_disk::make_room(&engine, "data");
    let _ = engine.docker("run --rm --network none busybox true").ok();
    let _ = engine.docker("volume prune -f").ok();
    engine.end();
}

fn a_full_exec_root(case: &Case) {
    let engine = small(case, "exec");
    engine.only_ketch("its shims' bundles are elsewhere");
    let _ = engine.docker("run --rm busybox true").ok();
    let _ = engine.docker("create --name box -p 127.0.0.1:8080:80 -v vol:/vol busybox httpd -f -p 80 -h /etc").ok();
    let before = Traces::settled(&engine);
    full_disk::fill(&engine, "exec");
    let out = engine.docker("start box").exits(1);
    assert!(says_full(&out.stderr), "{out}");
    full_disk::make_room(&engine, "exec");
    before.wait_same(&engine, "all is undone");
    let _ = engine.docker("start box").ok();
    let _ = engine.docker("rm -fv box").ok();
    let _ = engine.docker("volume rm vol").ok();
    engine.end();
}

fn a_log_that_can_not_be_written(case: &Case) {
    let engine = small(case, "data");
    let script = "i=0; while :; do i=$((i+1)); echo line $i of many that are written while there is room; sleep 0.01; done";
    let _ = engine.client().args(["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]).run().ok();
    engine.wait_log("box", "line 3 ");
    full_disk::fill(&engine, "data");
    // A writer that were held up would never come to say this.
    let _ = engine.docker("exec -d box sh -c 'sleep 0.5; touch /tmp/passed'");
    let pid = engine.inspect("box", "{{.State.Pid}}");
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(str::trim).map(str::to_owned));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    let seen = switches();
    wait_until("the container goes on", || {
        let now = switches();
        if now > seen + 400 { Ok(()) } else { Err(format!("{now}, {seen} before")) }
    });
    full_disk::make_room(&engine, "data");
    let last = || engine.docker("logs --tail 1 box").ok().text().to_owned();
    let line = last();
    wait_until("lines again", || if last() == line { Err(line.clone()) } else { Ok(()) });
    engine.end();
}

/// A log of mode `blocking` holds its container up, and loses nothing; one of `non-blocking` does neither.
fn a_disk_that_does_not_answer(case: &Case) {
    let maker = Maker::under_test(case);
    case.needs(case.has_program("mkfs.ext4") && std::path::Path::new("/dev/loop-control").exists(), "no loop devices, or no e2fsprogs");
    let site = Site::new(case);
    let script = r#"
        set -e
        truncate -s 400m disk
        mkfs.ext4 -q disk
        mkdir data counts
        mount -o loop disk data
    "#;
    let _ = site.command_in(&site.dir, "sh").args(["-c", script]).run().ok();
    let engine = Engine::inside(site, maker, &["--live-restore"]);
    engine.load_busybox();
    let counts = engine.site.path("counts");
    let padding = "x".repeat(1000);
    for (name, mode) in [("waits", "blocking"), ("goes", "non-blocking")] {
        let script = format!("i=0; while :; do i=$((i+1)); echo $i {padding}; echo $i >/counts/{name}; done");
        let run = engine.client().args(["run", "-d", "--name", name, "--network", "none", "--log-opt"]).arg(format!("mode={mode}"));
        let run = if mode == "non-blocking" { run.args(["--log-opt", "max-buffer-size=64k"]) } else { run };
        let _ = run.arg("-v").arg(format!("{}:/counts", counts.display())).args(["busybox", "sh", "-c", &script]).run().ok();
    }
    let count = |name: &str| wait_until("a count", || {
        let text = std::fs::read_to_string(counts.join(name)).unwrap_or_default();
        text.trim().parse::<u64>().map_err(|error| error.to_string())
    });
    // It ends by itself, whatever becomes of the test: who waits for a frozen disk can't even be killed.
    let script = "fsfreeze -f data; touch frozen; for i in $(seq 300); do test -e thaw && break; sleep 0.1; done; fsfreeze -u data";
    let freezer = engine.site.command_in(&engine.site.dir, "sh").args(["-c", script]).spawn();
    wait_until("the disk does not answer", || if engine.site.path("frozen").exists() { Ok(()) } else { Err(freezer.stderr_now()) });
    let (waits, goes) = (count("waits"), count("goes"));
    wait_until("who does not wait goes on", || match count("goes") {
        now if now > goes + 3000 => Ok(()),
        now => Err(format!("{now}, {goes} before")),
    });
    let now = count("waits");
    std::fs::write(engine.site.path("thaw"), "").expect("end the freeze");
    let _ = freezer.wait().ok();
    assert!(now < waits + 1500, "{now}, {waits} before: who waits has been held up");
    wait_until("who was held up goes on", || match count("waits") {
        later if later > now + 100 => Ok(()),
        later => Err(format!("{later}, {now} before")),
    });
    let _ = engine.docker("kill waits goes").ok();
    let out = engine.docker("logs waits").ok();
    for (number, line) in out.stdout.lines().enumerate() {
        assert!(line.starts_with(&format!("{} x", number + 1)), "line {}: none is missing: {line}", number + 1);
    }
    assert!(out.stdout.lines().count() > 100);
    engine.end();
}

/// A block device that writes no faster than that, until this is dropped.
struct Slow(String);

impl Slow {
    const BYTES: &'static str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

    fn down(device: String, bytes: u32) -> Self {
        std::fs::write(Self::BYTES, format!("{device} {bytes}")).expect("slow the device down");
        Self(device)
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::BYTES, format!("{} 0", self.0));
    }
}

/// The last user of a root waits until all is written that its disk has to write, somebody else's too: that is nobody who is waited
/// for, be it a client or the shim, which would be taken for dead.
fn a_disk_that_is_busy(case: &Case) {
    let maker = Maker::under_test(case);
    let has_loops = case.has_program("mkfs.ext4") && std::path::Path::new("/dev/loop-control").exists();
    case.needs(has_loops, "no loop devices, or no e2fsprogs");
    case.needs(std::path::Path::new(Slow::BYTES).exists(), "no block devices that can be slowed down (cgroup v1's blkio)");
    let site = Site::new(case);
    // The daemon's own file is elsewhere: what it commits is waited for.
    let script = r#"
        set -e
        truncate -s 400m disk
        mkfs.ext4 -q disk
        mkdir data
        mount -o loop disk data
        ln -s ../ketchd.redb data/ketchd.redb
        mountpoint -d data
    "#;
    let made = site.command_in(&site.dir, "sh").args(["-c", script]).run().ok();
    let device = made.text().to_owned();
    let engine = Engine::inside(site, maker, &[]);
    engine.only_ketch("its ends wait for the disk");
    engine.load_busybox();
    for name in ["box", "again"] {
        let _ = engine.docker(&format!("run -d --name {name} --network none busybox sleep 100000")).ok();
    }
    let _ = engine.sh(&format!("sync -f {}", engine.site.path("data").display())).ok();
    // Half a minute's work.
    let slow = Slow::down(device, 1 << 20);
    let _ = engine.sh(&format!("dd if=/dev/zero of={} bs=1M count=32", engine.site.path("data/others").display())).ok();
    let since = std::time::Instant::now();
    let _ = engine.docker("kill box").ok();
    assert_eq!(engine.docker("wait box").ok().text(), "137");
    let took = since.elapsed();
    assert!(took.as_secs() < 8, "the end took {took:?}");
    // What has the root again has it alone: that waits.
    let restart = engine.client().args(["restart", "-t", "0", "again"]).spawn();
    drop(slow);
    let _ = restart.wait().ok();
    assert_eq!(engine.inspect("again", "{{.State.Running}}"), "true");
    assert!(!engine.log().contains("hangs"), "{}", engine.log());
    engine.end();
}

fn a_mount_that_is_refused(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --rm busybox true").ok();
    let before = Traces::settled(&engine);
    let out = engine.docker("run -d --name box -p 127.0.0.1:8080:80 --mount type=volume,dst=/vol,volume-opt=type=nosuchfs,volume-opt=device=none,volume-opt=o=x busybox true");
    assert!(out.code != 0 && out.stderr.contains("no such device"), "{out}");
    let _ = engine.docker("rm -fv box").ok();
    // A file where the container has a folder.
    let file = engine.site.path("file");
    std::fs::write(&file, "").expect("write a file");
    let out = engine.docker(&format!("run -d --name box -p 127.0.0.1:8080:80 -v {}:/etc busybox true", file.display()));
    assert!(out.code != 0 && out.stderr.contains("error mounting"), "{out}");
    let _ = engine.docker("rm -fv box").ok();
    let _ = engine.docker("volume prune -af").ok();
    before.wait_same(&engine, "all is undone");
    engine.end();
}

fn a_taken_port(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --rm busybox true").ok();
    let _ = engine.docker("network create net").ok();
    let _ = engine.docker("create --name box --network net -p 127.0.0.1:8079:79 -p 127.0.0.1:8080:80 -v vol:/vol busybox true").ok();
    let before = Traces::settled(&engine);
    let server = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 8080)); s.listen(); print('up', flush=True); time.sleep(1000)";
    let taken = engine.program("python3").args(["-c", server]).spawn();
    wait_until("the port is taken", || if taken.stdout_now().contains("up") { Ok(()) } else { Err(taken.stderr_now()) });
    let out = engine.docker("start box").exits(1);
    assert!(out.stderr.contains("address already in use"), "{out}");
    taken.signal(rustix::process::Signal::KILL);
    let _ = taken.wait();
    before.wait_same(&engine, "all is undone");
    let _ = engine.docker("start -a box").ok();
    let _ = engine.docker("rm -v box").ok();
    let _ = engine.docker("network rm net").ok();
    let _ = engine.docker("volume rm vol").ok();
    engine.end();
}

fn an_address_pool_that_is_used_up(case: &Case) {
    let engine = Engine::bare(case, &["--default-address-pool", "base=10.82.0.0/23,size=24"]);
    engine.load_busybox();
    let _ = engine.docker("run --rm busybox true").ok();
    let before = Traces::settled(&engine);
    // The default bridge has the first.
    let _ = engine.docker("network create one").ok();
    let out = engine.docker("network create two").exits(1);
    assert!(out.stderr.contains("all predefined address pools have been fully subnetted"), "{out}");
    let _ = engine.docker("network rm one").ok();
    let _ = engine.docker("network create two").ok();
    let _ = engine.docker("network rm two").ok();
    // One address beside the gateway's.
    let _ = engine.docker("network create --subnet 10.83.0.0/30 tight").ok();
    let _ = engine.docker("run -d --name first --network tight busybox sleep 1000").ok();
    let _ = engine.docker("create --name second --network tight -p 127.0.0.1:8080:80 busybox true").ok();
    let out = engine.docker("start second").exits(1);
    assert!(out.stderr.contains("no available IPv4 addresses"), "{out}");
    let _ = engine.docker("rm -f first").ok();
    let _ = engine.docker("start -a second").ok();
    let _ = engine.docker("rm second").ok();
    let _ = engine.docker("network rm tight").ok();
    before.wait_same(&engine, "all is undone");
    engine.end();
}

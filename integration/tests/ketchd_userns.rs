//! `--userns-remap`: containers' users are others on the host. What they see inside, whose their files are outside, what is
//! taken in and given out, what is refused. /etc/passwd and its kin are the test's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};

tests![
    root_inside_is_another_outside,
    what_is_bound_is_the_hosts,
    processes_and_their_streams,
    what_containers_mount,
    volumes_are_roots,
    copies_in_and_out,
    layers_have_the_ids_of_containers,
    builds,
    networks_ports_and_compose,
    namespaces_are_shared_with_their_users,
    the_hosts_users_for_one_container,
    what_is_refused,
    another_start_and_other_users,
    ranges_one_after_another,
    who_is_not_there,
];

/// A site whose accounts and ranges are these, in the mount namespace of its own alone.
fn site<'a>(case: &'a Case, ranges: &str) -> Site<'a> {
    let files = ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"];
    for file in files {
        case.needs(Path::new(file).exists(), &format!("no {file}"));
    }
    let site = Site::new(case);
    for file in files {
        let mut text = fs::read_to_string(file).expect("read an account file of the machine");
        match file {
            "/etc/passwd" => text.push_str("dockremap:x:64001:64001::/:/bin/false\nother:x:64002:64002::/:/bin/false\n"),
            "/etc/group" => text.push_str("dockremap:x:64001:\nother:x:64002:\n"),
            _ => text = ranges.to_owned(),
        }
        let own = site.path(&file[5..]);
        fs::write(&own, text).expect("write an account file");
        let _ = site.run("mount", ["--bind", own.to_str().expect("a path of ASCII"), file]).ok();
    }
    site
}

const RANGES: &str = "dockremap:100000:65536\nother:300000:65536\n";

fn bare<'a>(case: &'a Case, flags: &[&str]) -> Engine<'a> {
    let maker = Maker::under_test(case);
    Engine::inside(site(case, RANGES), maker, flags)
}

fn start(case: &Case) -> Engine<'_> {
    let engine = bare(case, &["--userns-remap", "default", "--experimental"]);
    engine.load_busybox();
    engine
}

fn run(engine: &Engine<'_>, line: &str) -> String {
    engine.docker(&format!("run --rm --network none {line}")).ok().text().to_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whose a file is, and its mode.
fn owner(path: &Path) -> (u32, u32, u32) {
    let about = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (about.uid(), about.gid(), about.permissions().mode() & 0o7777)
}

/// A folder of the host that everybody may write to.
fn open_folder(engine: &Engine<'_>) -> PathBuf {
    let folder = engine.site.path("bound");
    fs::create_dir_all(&folder).expect("make a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("open it");
    folder
}

fn root_inside_is_another_outside(case: &Case) {
    let engine = start(case);
    for map in ["uid_map", "gid_map"] {
        assert_eq!(words(&run(&engine, &format!("busybox cat /proc/self/{map}"))), "0 100000 65536");
    }
    assert_eq!(run(&engine, "busybox id -u"), "0");
    let places = "/ /bin/busybox /tmp /.dockerenv /etc/hosts /etc/hostname /etc/resolv.conf /dev /dev/pts /dev/shm";
    let seen = run(&engine, &format!("busybox stat -c '%u:%g %n' {places}"));
    let wanted: Vec<_> = places.split(' ').map(|place| format!("0:0 {place}")).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(run(&engine, "busybox sh -c 'echo 1.2.3.4 x >>/etc/hosts; mkdir /new; chown 7:8 /new; stat -c %u:%g /new'"), "7:8");

    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    let pid = engine.inspect("box", "{{.State.Pid}}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read a process's status");
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).map(words);
    assert_eq!(uid.as_deref(), Some("100000 100000 100000 100000"));

    let root = engine.docker("info --format '{{.DockerRootDir}} {{.SecurityOptions}}'").ok().text().to_owned();
    let own = engine.site.path("data/100000.100000");
    assert!(root.starts_with(&format!("{} ", own.display())) && root.contains("name=userns"), "{root}");
    for folder in [&own, &engine.site.path("data")] {
        assert_eq!(owner(folder), (0, 100_000, 0o710), "{}", folder.display());
    }
    engine.end();
}

fn what_is_bound_is_the_hosts(case: &Case) {
    let engine = start(case);
    let folder = open_folder(&engine);
    fs::write(folder.join("secret"), "the host's\n").expect("write a file");
    fs::set_permissions(folder.join("secret"), fs::Permissions::from_mode(0o600)).expect("close it");
    let path = folder.display();
    let out = engine.docker(&format!("run --rm --network none -v {path}:/b busybox cat /b/secret")).exits(1);
    assert!(out.stderr.contains("Permission denied") && !out.stdout.contains("the host's"), "{out}");
    // Not by its owner, nor as a link, nor by changing what root may.
    for line in ["chown 0:0 /b/secret", "chmod 666 /b/secret", "sh -c 'ln -s /b/secret /l && cat /l'", "mknod /b/disk b 8 0"] {
        let out = engine.docker(&format!("run --rm --network none -v {path}:/b busybox {line}"));
        assert!(out.code != 0 && !out.stdout.contains("the host's"), "{line}: {out}");
    }
    let _ = run(&engine, &format!("-v {path}:/b busybox sh -c 'touch /b/root; cp /bin/busybox /b/set; chmod 4755 /b/set; touch /b/given; chown 5:6 /b/given'"));
    let _ = run(&engine, &format!("--user 1000:2000 -v {path}:/b busybox touch /b/user"));
    for (name, wanted) in [("root", (100_000, 100_000)), ("set", (100_000, 100_000)), ("given", (100_005, 100_006)), ("user", (101_000, 102_000))] {
        let (user, group, _) = owner(&folder.join(name));
        assert_eq!((user, group), wanted, "{name}");
    }
    // What is below a folder that only root enters is bound all the same.
    let closed = engine.site.path("closed");
    fs::create_dir_all(closed.join("in")).expect("make folders");
    fs::write(closed.join("in/file"), "read\n").expect("write a file");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("close it");
    assert_eq!(run(&engine, &format!("-v {}/in/file:/f:ro busybox cat /f", closed.display())), "read");
    assert_eq!(run(&engine, &format!("--mount type=bind,source={}/in,target=/in,readonly busybox cat /in/file", closed.display())), "read");
    engine.end();
}

fn processes_and_their_streams(case: &Case) {
    let engine = start(case);
    assert_eq!(run(&engine, "--user 1000:1000 --group-add 2000 busybox id"), "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)");
    assert_eq!(run(&engine, "busybox sh -c 'echo again >/dev/stdout; echo error >/dev/stderr'"), "again");
    assert_eq!(run(&engine, "-t busybox sh -c 'stat -c %u $(tty); echo end >/dev/tty'").replace('\r', ""), "0\nend");
    assert_eq!(run(&engine, "--init busybox sh -c 'cat /proc/1/comm'"), "docker-init");
    let _ = engine.docker("run -d --name box --network none --health-cmd 'test $(id -u) = 0' --health-interval 100ms -m 64m busybox sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.1; done'").ok();
    engine.wait_inspect("box", "{{.State.Health.Status}}", "healthy");
    assert_eq!(engine.docker("exec box id -u").ok().text(), "0");
    assert_eq!(engine.docker("exec --user user -w /home box sh -c 'id -u; pwd'").ok().text(), "1000\n/home");
    assert_eq!(engine.docker("exec -t box sh -c 'stat -c %u $(tty)'").ok().text().trim(), "0");
    assert_eq!(engine.sh("echo given | docker exec -i box sh -c 'cat >/dev/stdout'").ok().text(), "given");
    assert_eq!(words(&engine.docker("exec --privileged box cat /proc/self/uid_map").ok().text().replace('\n', " ")), "0 100000 65536");
    let top = engine.docker("top box -o uid,pid,comm").ok();
    assert!(top.text().lines().skip(1).all(|line| line.trim().starts_with("100000")), "{top}");
    let _ = engine.docker("stats --no-stream box").ok();
    for line in ["update -m 80m --memory-swap -1 box", "pause box", "unpause box", "stop box"] {
        let _ = engine.docker(line).ok();
    }
    assert_eq!(engine.inspect("box", "{{.State.ExitCode}}"), "3");
    if engine.is_ketch() {
        let _ = engine.docker("start box").ok();
        let out = engine.docker("checkpoint create box one").exits(1);
        assert!(out.stderr.contains("its users are others on the host (--userns-remap), which is not supported"), "{out}");
    }
    engine.end();
}

fn what_containers_mount(case: &Case) {
    let engine = start(case);
    assert_eq!(run(&engine, "--read-only --tmpfs /t:uid=7,gid=8,mode=700 --shm-size 1m busybox sh -c 'stat -c %u:%g:%a /t; touch /dev/shm/x && echo shm; touch /x 2>/dev/null || echo closed'"), "7:8:700\nshm\nclosed");
    assert_eq!(run(&engine, "--mount type=tmpfs,target=/t,tmpfs-mode=1770 --ipc shareable busybox stat -c %u:%a /t /dev/shm"), "0:1770\n0:1777");
    // Nodes of the host, bound: what they are and who may use them is the host's.
    assert_eq!(run(&engine, "--device /dev/kmsg busybox stat -c %t:%T /dev/kmsg /dev/null /dev/zero"), "1:b\n1:3\n1:5");
    assert_eq!(run(&engine, "--sysctl net.ipv4.ip_forward=0 --sysctl kernel.shmmax=12345 busybox cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax"), "0\n0\n12345");
    // Root inside is nobody to the kernel outside.
    for line in ["sh -c 'echo x >/proc/sys/kernel/core_pattern'", "sh -c 'echo 1 >/proc/sysrq-trigger'", "mknod /n c 1 3", "mount -t tmpfs x /tmp"] {
        assert_ne!(engine.docker(&format!("run --rm --network none --cap-add MKNOD busybox {line}")).code, 0, "{line}");
    }
    assert_eq!(run(&engine, "--security-opt no-new-privileges busybox sh -c 'grep -E \"^(NoNewPrivs|Seccomp):\" /proc/self/status | tr -d \"\\t\"'"), "NoNewPrivs:1\nSeccomp:2");
    assert_eq!(run(&engine, "--workdir /made/here busybox stat -c %u:%g . .."), "0:0\n0:0");
    assert_eq!(run(&engine, "--cgroupns private --cpus 0.5 --pids-limit 50 --ulimit nofile=99 busybox sh -c 'ulimit -n; ls -d /sys/fs/cgroup'"), "99\n/sys/fs/cgroup");
    engine.end();
}

fn volumes_are_roots(case: &Case) {
    let engine = start(case);
    assert_eq!(engine.docker("volume create one").ok().text(), "one");
    let data = PathBuf::from(engine.docker("volume inspect --format '{{.Mountpoint}}' one").ok().text());
    assert_eq!(owner(&data), (100_000, 100_000, 0o755));
    assert_eq!(run(&engine, "-v one:/v busybox sh -c 'touch /v/f; stat -c %u:%g /v /v/f'"), "0:0\n0:0");
    assert_eq!(owner(&data.join("f")).0, 100_000);
    // Filled from the image, at the first use.
    assert_eq!(run(&engine, "-v fresh:/etc -v tmp:/tmp busybox stat -c '%u:%g %a' /etc/passwd /tmp"), "0:0 644\n0:0 1777");
    assert_eq!(owner(&data.with_file_name("../fresh/_data/passwd")).0, 100_000);
    assert_eq!(run(&engine, "--user 1000 -v one:/v busybox sh -c 'touch /v/x 2>/dev/null || echo closed'"), "closed");
    let _ = run(&engine, "-v one:/v busybox mkdir -p /v/below/this");
    assert_eq!(run(&engine, "--mount type=volume,source=one,target=/v,volume-subpath=below busybox sh -c 'ls /v; stat -c %u /v'"), "this\n0");
    let _ = engine.docker("volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m,uid=100007 mounted").ok();
    assert_eq!(run(&engine, "-v mounted:/v busybox stat -c %u /v"), "7");
    let _ = engine.docker("create --name first --network none -v /anonymous busybox").ok();
    assert_eq!(run(&engine, "--volumes-from first busybox stat -c %u /anonymous"), "0");
    engine.end();
}

fn copies_in_and_out(case: &Case) {
    let engine = start(case);
    let (file, out) = (engine.site.path("file"), engine.site.path("out"));
    fs::write(&file, "copied\n").expect("write a file");
    let _ = engine.docker("create --name box --network none -v vol:/new/vol busybox sleep 1000").ok();
    for running in [false, true] {
        if running {
            let _ = engine.docker("start box").ok();
        }
        let name = if running { "running" } else { "stopped" };
        let _ = engine.docker(&format!("cp {} box:/home/{name}", file.display())).ok();
        let _ = engine.docker(&format!("cp {} box:/new/vol/{name}", file.display())).ok();
        // Others than root, and folders that nobody names.
        let tar = format!("dir=$(mktemp -d); cd $dir; mkdir -p a/b; echo x >a/b/{name}; tar --owner=5 --group=6 -cf - a/b/{name} | docker cp - box:/home; rm -r $dir");
        let _ = engine.sh(&tar).ok();
        let list = engine.sh(&format!("docker cp box:/home/{name} - | tar --numeric-owner -tvf - | tr -s ' ' | cut -d ' ' -f 2")).ok();
        let _ = engine.docker(&format!("cp -q box:/home/{name} {}", out.display())).ok();
        assert_eq!(fs::read_to_string(&out).expect("read the copy"), "copied\n");
        // As dockerd: an archive that is given out has the host's ids.
        assert_eq!(list.text(), "100000/100000", "{name}");
    }
    let seen = engine.docker("exec box stat -c '%u:%g %n' /home/stopped /home/running /new/vol /new/vol/stopped /new/vol/running /home/a /home/a/b /home/a/b/stopped /home/a/b/running").ok();
    let wanted = "0:0 /home/stopped\n0:0 /home/running\n0:0 /new/vol\n0:0 /new/vol/stopped\n0:0 /new/vol/running\n0:0 /home/a\n0:0 /home/a/b\n5:6 /home/a/b/stopped\n5:6 /home/a/b/running";
    assert_eq!(seen.text(), wanted);
    // dockerd makes what a volume is mounted upon as the host's root.
    assert_eq!(engine.docker("exec box stat -c %u /new").ok().text(), if engine.is_ketch() { "0" } else { "65534" });
    // The host has no id for such a user.
    let out = engine.sh("dir=$(mktemp -d); cd $dir; echo x >f; tar --owner=70000 -cf - f | docker cp - box:/home; code=$?; rm -r $dir; exit $code");
    assert!(out.code != 0 && out.stderr.contains("container ID 70000 cannot be mapped to a host ID"), "{out}");
    engine.end();
}

/// The members of the uppermost layer of an image, each with its owner.
fn uppermost(engine: &Engine<'_>, image: &str) -> String {
    let script = format!(
        "set -e; dir=$(mktemp -d); docker save {image} | tar -xf - -C $dir; layer=$(tr ',' '\\n' <$dir/manifest.json | grep -o 'blobs/sha256/[0-9a-f]*' | tail -1); tar --numeric-owner -tvf $dir/$layer | tr -s ' ' | cut -d ' ' -f 1,2,6 | sort; rm -r $dir"
    );
    engine.sh(&script).ok().text().to_owned()
}

fn layers_have_the_ids_of_containers(case: &Case) {
    let engine = start(case);
    let plain = engine.another("plain");
    plain.load_busybox();
    let of = |engine: &Engine<'_>, format: &str, name: &str| engine.inspect(name, format);
    for format in ["{{.Id}}", "{{json .RootFS}}"] {
        assert_eq!(of(&engine, format, "busybox"), of(&plain, format, "busybox"));
    }
    let change = "mkdir /d; cp /bin/busybox /d/set; chmod 4755 /d/set; echo x >/d/f; chown -h 1000:2000 /d/f; ln -s f /d/l; ln /d/f /d/h; mkfifo /d/p; rm -r /home; mkdir /home; chown 7 /home; touch -h -d @1 /d/* /d /home";
    for engine in [&engine, &plain] {
        let _ = engine.client().args(["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", change]).run().ok();
        let _ = engine.docker("commit box made").ok();
    }
    // dockerd writes a layer's members in the order of the disk.
    if engine.is_ketch() {
        assert_eq!(of(&engine, "{{json .RootFS}}", "made"), of(&plain, "{{json .RootFS}}", "made"));
    }
    let members = uppermost(&engine, "made");
    assert_eq!(members, uppermost(&plain, "made"));
    for wanted in ["1000/2000 d/f", "-rwsr-xr-x 0/0 d/set", "7/0 home/"] {
        assert!(members.contains(wanted), "{wanted}: {members}");
    }
    // What removes a file is as old as the removal.
    let _ = engine.docker("run --name less --network none made rm /etc/group").ok();
    let _ = engine.docker("commit less less").ok();
    let members = uppermost(&engine, "less");
    assert!(members.contains("0/0 etc/.wh.group"), "{members}");
    let changes = |engine: &Engine<'_>| {
        let mut all: Vec<_> = engine.docker("diff box").ok().text().lines().map(str::to_owned).collect();
        all.sort();
        all
    };
    assert_eq!(changes(&engine), changes(&plain));
    // dockerd leaves the link etc/mtab out where it is not a container's.
    let exported = |engine: &Engine<'_>| engine.sh("docker export box | tar --numeric-owner -tvf - | tr -s ' ' | cut -d ' ' -f 1,2,6 | grep -v -e dev -e mtab | sort").ok().text().to_owned();
    assert_eq!(exported(&engine), exported(&plain));
    // What was saved where the users are the host's, and the other way round, is the same image.
    for (from, to) in [(&engine, &plain), (&plain, &engine)] {
        let tar = from.site.path("moved.tar");
        let _ = from.docker("tag made moved").ok();
        let _ = from.docker(&format!("save -o {} moved", tar.display())).ok();
        let _ = to.docker(&format!("load -i {}", tar.display())).ok();
        assert_eq!(of(to, "{{json .RootFS}}", "moved"), of(from, "{{json .RootFS}}", "made"));
        assert_eq!(run(to, "moved stat -c '%u:%g %a' /d/f /d/set /home"), "1000:2000 644\n0:0 4755\n7:0 755");
    }
    let _ = engine.sh("docker export box | docker import - imported").ok();
    assert_eq!(run(&engine, "imported stat -c %u:%g / /bin/busybox /d/f"), "0:0\n0:0\n1000:2000");
    plain.end();
    engine.end();
}

fn builds(case: &Case) {
    let engine = start(case);
    let folder = engine.site.path("context");
    fs::create_dir_all(&folder).expect("make the context");
    let _ = engine.sh(&format!("cd {}; echo x >file; mkdir tree; echo y >tree/inner; tar --owner=11 --group=12 -cf packed.tar tree", folder.display())).ok();
    let dockerfile = "FROM busybox\nWORKDIR /work/dir\nCOPY --chown=user:extra tree /tree\nCOPY tree /plain/tree\nADD packed.tar /unpacked/\nVOLUME /vol\nUSER user\nRUN id -u >/tmp/who";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("write a Dockerfile");
    let build = |options: &str| engine.sh(&format!("DOCKER_BUILDKIT=0 docker build {options} -t made {}", folder.display())).ok();
    let _ = build("");
    let places = "/work /work/dir /tree /tree/inner /plain /plain/tree/inner /unpacked /unpacked/tree/inner /tmp/who";
    let seen = run(&engine, &format!("--user 0 made stat -c '%u:%g %n' {places}"));
    let wanted = "0:0 /work\n0:0 /work/dir\n1000:2000 /tree\n1000:2000 /tree/inner\n0:0 /plain\n0:0 /plain/tree/inner\n0:0 /unpacked\n11:12 /unpacked/tree/inner\n1000:1000 /tmp/who";
    assert_eq!(seen, wanted);
    assert!(build("").stdout.contains("Using cache"));
    // dockerd takes the host's ids of a stage's files for a container's, and finds none for these.
    let stages = "FROM busybox AS first\nCOPY file /one\nRUN chown 1000:2000 /one; mkdir -p /deep/er; chown 9 /deep/er\nFROM busybox\nCOPY --from=first /one /got/\nCOPY --from=first /deep /got/deep\nCOPY --from=first --chown=5 /one /given";
    if engine.is_ketch() {
        fs::write(folder.join("Dockerfile"), stages).expect("write a Dockerfile");
        let _ = build("");
        let seen = run(&engine, "made stat -c '%u:%g %n' /got /got/one /got/deep /got/deep/er /given");
        assert_eq!(seen, "0:0 /got\n1000:2000 /got/one\n0:0 /got/deep\n9:0 /got/deep/er\n5:5 /given");
        assert!(build("").stdout.contains("Using cache"));
    }
    engine.end();
}

const PROJECT: &str = "
services:
  web:
    image: busybox
    command: sh -c 'id -u >/site/index.html; httpd -f -p 80 -h /site'
    ports: ['127.0.0.1:8071:80']
    volumes: ['site:/site']
    secrets: [word]
    healthcheck: {test: ['CMD', 'test', '-e', '/site/index.html'], interval: 100ms, retries: 50}
  asks:
    image: busybox
    command: sh -c 'wget -qO- http://web/; cat /proc/self/uid_map'
    depends_on: {web: {condition: service_healthy}}
volumes: {site: {}}
secrets: {word: {file: ./word}}
";

fn networks_ports_and_compose(case: &Case) {
    let engine = start(case);
    let folder = engine.site.path("project");
    fs::create_dir_all(&folder).expect("make the project");
    fs::write(folder.join("compose.yaml"), PROJECT).expect("write the project");
    fs::write(folder.join("word"), "secret-word\n").expect("write the secret");
    let compose = |line: &str| engine.sh(&format!("cd {} && docker compose {line}", folder.display()));
    let _ = compose("up -d --quiet-pull").ok();
    wait_until("the second service's end", || {
        let out = compose("ps -a --format '{{.Service}} {{.State}} {{.ExitCode}}'").ok();
        if out.text().contains("asks exited 0") { Ok(()) } else { Err(out.to_string()) }
    });
    let logs = compose("logs --no-log-prefix asks").ok();
    assert_eq!(words(&logs.text().replace('\n', " ")), "0 0 100000 65536");
    let page = engine.sh("curl -sS --retry 20 --retry-connrefused http://127.0.0.1:8071/").ok();
    assert_eq!(page.text(), "0");
    let exec = compose("exec -T web sh -c 'cat /run/secrets/word; ip link set lo down && ip link set lo up 2>/dev/null || echo no'").ok();
    assert_eq!(exec.text(), "secret-word\nno");
    // A network that comes and goes while it runs.
    let _ = engine.docker("network create more").ok();
    let web = compose("ps -q web").ok().text().to_owned();
    let _ = engine.docker(&format!("network connect --alias other more {web}")).ok();
    assert_eq!(engine.docker("run --rm --network more busybox wget -qO- http://other/").ok().text(), "0");
    let _ = engine.docker(&format!("network disconnect more {web}")).ok();
    let _ = compose("down -v -t 0").ok();
    let _ = engine.docker("network rm more").ok();
    // Root of the network that is its own, by a capability.
    assert_eq!(engine.docker("run --rm --cap-add NET_ADMIN busybox sh -c 'ip link set eth0 mtu 1300; cat /sys/class/net/eth0/mtu'").ok().text(), "1300");
    engine.end();
}

fn namespaces_are_shared_with_their_users(case: &Case) {
    let engine = start(case);
    let _ = engine.docker("run -d --name first --network none --ipc shareable busybox sh -c 'touch /dev/shm/there; exec sleep 1000'").ok();
    let users = engine.docker("exec first readlink /proc/self/ns/user").ok().text().to_owned();
    for (option, shown) in [("--network container:first", "net"), ("--network none --ipc container:first", "ipc"), ("--network none --pid container:first", "pid")] {
        let out = engine.docker(&format!("run --rm {option} busybox sh -c 'readlink /proc/self/ns/user; readlink /proc/self/ns/{shown}; id -u'")).ok();
        let own = engine.docker(&format!("exec first readlink /proc/self/ns/{shown}")).ok().text().to_owned();
        assert_eq!(out.text(), format!("{users}\n{own}\n0"), "{option}");
    }
    let all = "--network container:first --ipc container:first --pid container:first";
    assert_eq!(engine.docker(&format!("run --rm {all} busybox sh -c 'ls /dev/shm; cat /proc/1/comm'")).ok().text(), "there\nsleep");
    // Each has its own otherwise.
    assert_ne!(run(&engine, "busybox readlink /proc/self/ns/user"), users);
    engine.end();
}

fn the_hosts_users_for_one_container(case: &Case) {
    let engine = start(case);
    assert_eq!(words(&run(&engine, "--userns host busybox cat /proc/self/uid_map")), "0 0 4294967295");
    // Its files are those of the others: nobody gives them to it.
    assert_eq!(run(&engine, "--userns host busybox stat -c %u:%g /bin/busybox"), "100000:100000");
    assert_eq!(run(&engine, "--userns host --privileged busybox sh -c 'mount -t tmpfs x /tmp && echo mounted'"), "mounted");
    let _ = engine.docker("run --rm --userns host --network host --pid host busybox true").ok();
    assert_eq!(engine.inspect("busybox", "{{.Os}}"), "linux");
    let _ = engine.docker("run -d --name box --network none --userns host busybox sleep 1000").ok();
    assert_eq!(engine.inspect("box", "{{.HostConfig.UsernsMode}}"), "host");
    assert_eq!(words(&engine.docker("exec box cat /proc/self/uid_map").ok().text().replace('\n', " ")), "0 0 4294967295");
    engine.end();
}

fn what_is_refused(case: &Case) {
    let engine = start(case);
    for (option, text) in [
        ("--network none --privileged", "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode"),
        ("--network host", "cannot share the host's network namespace when user namespaces are enabled"),
        ("--network none --pid host", "cannot share the host PID namespace when user namespaces are enabled"),
    ] {
        let out = engine.docker(&format!("create {option} busybox")).exits(1);
        assert_eq!(out.stderr.trim(), format!("Error response from daemon: {text}"), "{option}");
    }
    let out = engine.docker("create --network none --userns private busybox").exits(125);
    assert!(out.stderr.contains("invalid userns mode") || out.stderr.contains("--userns"), "{out}");
    // A file of a user that the host has no id for.
    let root = engine.site.path("root");
    fs::create_dir_all(&root).expect("make a root");
    let tar = format!("cd {} && echo x >f && tar --owner=70000 -cf - f | docker import - bad", root.display());
    let out = engine.sh(&tar);
    assert!(out.code != 0 && format!("{}{}", out.stdout, out.stderr).contains("container ID 70000 cannot be mapped to a host ID"), "{out}");
    assert_eq!(engine.docker("images -q bad").ok().text(), "");
    engine.end();
}

fn another_start_and_other_users(case: &Case) {
    let mut engine = bare(case, &[]);
    let set = |engine: &Engine<'_>, user: &str| {
        let text = if user.is_empty() { "{}".to_owned() } else { format!("{{\"userns-remap\": \"{user}\"}}") };
        fs::write(engine.site.path("daemon.json"), text).expect("write the configuration");
    };
    engine.load_busybox();
    let again = format!("load -i {}", engine.site.path("archive-busybox-latest.tar").display());
    engine.stop();
    set(&engine, "default");
    engine.come_back();
    assert_eq!(engine.docker("images -q").ok().text(), "");
    let _ = engine.docker(&again).ok();
    let _ = engine.docker("run --name kept --network none busybox sh -c 'echo x >/f; chown 7:8 /f'").ok();
    let _ = engine.docker("run -d --restart always --name runs --network none busybox sleep 1000").ok();
    engine.kill();
    engine.come_back();
    engine.wait_inspect("runs", "{{.State.Running}}", "true");
    assert_eq!(words(&engine.docker("exec runs cat /proc/self/uid_map").ok().text().replace('\n', " ")), "0 100000 65536");
    let _ = engine.docker("commit kept made").ok();
    assert_eq!(run(&engine, "made stat -c %u:%g /f /bin/busybox"), "7:8\n0:0");
    let _ = engine.docker("rm -f runs").ok();
    engine.stop();
    // By number, and for others: with nothing of what these had.
    set(&engine, "64002:other");
    engine.come_back();
    assert_eq!(engine.docker("ps -aq").ok().text(), "");
    let _ = engine.docker(&again).ok();
    assert_eq!(words(&run(&engine, "busybox cat /proc/self/uid_map")), "0 300000 65536");
    engine.stop();
    for (user, names) in [("", ""), ("dockremap", "kept")] {
        set(&engine, user);
        engine.come_back();
        assert_eq!(engine.docker("ps -a --format '{{.Names}}'").ok().text(), names);
        assert_eq!(run(&engine, "busybox id -u"), "0");
        if user.is_empty() {
            engine.stop();
        }
    }
    engine.end();
}

fn ranges_one_after_another(case: &Case) {
    let maker = Maker::under_test(case);
    let ranges = "dockremap:100000:1000\nother:7000:10\n64001:200000:64536\n";
    let engine = Engine::inside(site(case, ranges), maker, &["--userns-remap=dockremap:other"]);
    engine.load_busybox();
    assert_eq!(words(&run(&engine, "busybox cat /proc/self/uid_map").replace('\n', " ")), "0 100000 1000 1000 200000 64536");
    let folder = open_folder(&engine);
    let _ = run(&engine, &format!("--user 1001:999 -v {}:/b busybox touch /b/f", folder.display()));
    let (user, group, _) = owner(&folder.join("f"));
    assert_eq!((user, group), (200_001, 100_999));
    assert_eq!(run(&engine, "--user 1000 busybox stat -c %u /home"), "0");
    engine.end();
}

fn who_is_not_there(case: &Case) {
    let mut engine = bare(case, &[]);
    engine.stop();
    let (program, args) = engine.command_line();
    let refused = |user: &str| {
        let out = engine.site.command(&program).args(&args).arg(format!("--userns-remap={user}")).env("PATH", engine.site.path_variable()).run();
        assert_eq!(out.code, 1, "{user}: {out}");
        out.stderr
    };
    for (user, text) in [
        ("a:b:c", "Invalid user/group specification in --userns-remap: \"a:b:c\""),
        ("nobody-at-all", "Error during uid lookup for \"nobody-at-all\": "),
        ("4242", "Uid 4242 has no entry in /etc/passwd"),
        ("dockremap:no-group", "Error during groupname lookup for \"no-group\": "),
        ("daemon", "Can't create ID mappings: no subuid ranges found for user \"daemon\""),
    ] {
        let said = refused(user);
        assert!(said.contains(text), "{user}: {said}");
    }
    if engine.is_ketch() {
        fs::write(engine.site.path("subuid"), "dockremap:0:65536\n").expect("write the ranges");
        let said = refused("default");
        assert!(said.contains("the range 0:65536 of user ids has the host's own root"), "{said}");
        fs::write(engine.site.path("subuid"), "other:100000:65536\n").expect("write the ranges");
        let said = refused("default");
        assert!(said.contains("add the line \"dockremap:165536:65536\" to /etc/subuid and to /etc/subgid"), "{said}");
    }
    engine.come_back();
    engine.end();
}

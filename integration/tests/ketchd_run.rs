//! `docker run` and what it sets: codes, users, folders, limits, capabilities, devices, names.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};

tests![
    output_and_exit_code,
    detached_and_waited_for,
    codes_of_what_does_not_start,
    codes_of_signals,
    auto_remove,
    user_folder_and_environment,
    read_only_and_tmpfs,
    capabilities,
    privileged,
    seccomp_is_dockers,
    no_new_privileges,
    ulimits_and_sysctls,
    an_init,
    an_init_passes_signals_on,
    limits_are_in_the_cgroup,
    an_out_of_memory_kill_is_told,
    devices,
    namespaces_shared_with_another,
    names_and_conflicts,
    hosts_hostname_and_resolver,
    a_name_can_be_used_again,
    cidfile_and_labels,
    ipc_that_is_not_shared,
    no_network_at_all,
];

/// What `docker run --rm --network none ...` prints.
fn run(engine: &Engine<'_>, line: &str) -> String {
    engine.docker(&format!("run --rm --network none {line}")).ok().text().to_owned()
}

fn output_and_exit_code(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("run --rm --network none busybox sh -c 'echo out; echo err >&2; exit 4'").exits(4);
    assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
    let out = engine.docker("run --network none --name kept busybox true").ok();
    assert_eq!((out.text(), out.stderr.trim()), ("", ""));
    assert_eq!(engine.inspect("kept", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"), "exited 0 0");
    assert_eq!(engine.inspect("kept", "{{.Path}} {{.Args}} {{.RestartCount}} {{.Driver}}"), format!("true [] 0 {}", engine.docker("info --format {{.Driver}}").text()));
    let big = engine.docker("run --rm --network none busybox sh -c 'yes 0123456789abcde | head -n 300000'").ok();
    assert_eq!(big.stdout.len(), 4_800_000);
    engine.end();
}

fn detached_and_waited_for(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("run -d --network none --name box busybox sh -c 'until test -e /go; do sleep 0.02; done; exit 6'").ok();
    assert_eq!(out.text().len(), 64);
    assert_eq!(engine.inspect("box", "{{.Id}} {{.State.Running}}"), format!("{} true", out.text()));
    let waiting = engine.client().args(["wait", "box"]).spawn();
    let _ = engine.docker("exec box touch /go").ok();
    assert_eq!(waiting.wait().ok().text(), "6");
    assert_eq!(engine.docker("wait box").ok().text(), "6");
    engine.end();
}

fn codes_of_what_does_not_start(case: &Case) {
    let engine = Engine::start(case);
    let cases = [
        ("nonsense", 127, "exec: \"nonsense\": executable file not found in $PATH"),
        ("/nowhere/program", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ];
    for (program, code, text) in cases {
        let out = engine.docker(&format!("run --rm --network none busybox {program}")).exits(code);
        assert!(out.stderr.contains(text), "{out}");
        assert!(out.stderr.contains("failed to create task for container"), "{out}");
    }
    let out = engine.docker("run --network none --name stays busybox nonsense").exits(127);
    assert!(out.stderr.starts_with("docker: Error response from daemon: "), "{out}");
    assert_eq!(engine.inspect("stays", "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
    assert!(engine.inspect("stays", "{{.State.Error}}").contains("executable file not found"));
    let out = engine.docker("run --rm --network none --pull never nonsense true").exits(125);
    assert!(out.stderr.contains("No such image: nonsense:latest"), "{out}");
    let _ = engine.docker("run --rm --network none --cpuset-cpus 99 busybox true").exits(125);
    engine.end();
}

fn codes_of_signals(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --rm --network none busybox sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'").exits(137);
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("HUP", 129)] {
        let _ = engine.docker(&format!("run -d --name box --network none busybox sh -c 'trap \"exit {code}\" TERM HUP; echo set; while :; do sleep 0.02; done'")).ok();
        engine.wait_log("box", "set");
        let _ = engine.docker(&format!("kill --signal {signal} box")).ok();
        assert_eq!(engine.docker("wait box").ok().text(), code.to_string());
        let _ = engine.docker("rm box").ok();
    }
    engine.end();
}

fn auto_remove(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --rm --name box --network none -v /anonymous busybox sleep 1000").ok();
    assert_eq!(engine.docker("volume ls -q").ok().text().lines().count(), 1);
    let _ = engine.docker("stop -t 0 box").ok();
    wait_until("the container's removal", || {
        let out = engine.docker("ps -aq").ok();
        if out.text().is_empty() { Ok(()) } else { Err(out.to_string()) }
    });
    assert_eq!(engine.docker("volume ls -q").ok().text(), "");
    let out = engine.docker("run --rm --restart always busybox true").exits(125);
    assert!(out.stderr.contains("conflicting options: cannot specify both --restart and --rm"), "{out}");
    engine.end();
}

fn user_folder_and_environment(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(run(&engine, "busybox id"), "uid=0(root) gid=0(root) groups=0(root)");
    assert_eq!(run(&engine, "-u user busybox id"), "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)");
    assert_eq!(run(&engine, "-u 1000 busybox id -G"), "1000 2000");
    assert_eq!(run(&engine, "-u 77:extra --group-add 88 busybox id -G"), "2000 88");
    let out = engine.docker("run --rm --network none -u nobodyhere busybox true").exits(125);
    assert!(out.stderr.contains("unable to find user nobodyhere: no matching entries in passwd file"), "{out}");
    assert_eq!(run(&engine, "-w /made/up busybox pwd"), "/made/up");
    let text = run(&engine, "-e A=b -e 'C=d e' -h box -u user busybox sh -c 'echo $A,$C,$HOME,$HOSTNAME,$PATH'");
    assert_eq!(text, "b,d e,/home,box,/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    assert_eq!(run(&engine, "-t busybox sh -c 'echo $TERM'"), "xterm");
    engine.end();
}

fn read_only_and_tmpfs(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("run --rm --network none --read-only busybox touch /file").exits(1);
    assert!(out.stderr.contains("Read-only file system"), "{out}");
    let options = run(&engine, "--read-only --tmpfs /scratch:size=1m,mode=700 busybox sh -c 'touch /scratch/x; grep \" /scratch \" /proc/mounts'");
    for option in ["tmpfs", "nosuid", "nodev", "noexec", "size=1024k", "mode=700"] {
        assert!(options.contains(option), "{option}: {options}");
    }
    assert_eq!(run(&engine, "--shm-size 8m busybox sh -c 'df -k /dev/shm | tail -n 1 | tr -s \" \" | cut -d \" \" -f 2'"), "8192");
    engine.end();
}

fn capabilities(case: &Case) {
    let engine = Engine::start(case);
    let effective = |line: &str| run(&engine, &format!("{line} busybox grep CapEff /proc/self/status"));
    assert_eq!(effective(""), "CapEff:\t00000000a80425fb");
    assert_eq!(effective("--cap-drop ALL"), "CapEff:\t0000000000000000");
    assert_eq!(effective("--cap-drop ALL --cap-add NET_ADMIN"), "CapEff:\t0000000000001000");
    assert_eq!(effective("--cap-drop CAP_CHOWN --cap-add cap_sys_time"), "CapEff:\t00000000aa0425fa");
    assert_eq!(effective("-u 1000"), "CapEff:\t0000000000000000");
    let out = engine.docker("run --rm --network none --cap-add NONSENSE busybox true").exits(125);
    assert!(out.stderr.contains("invalid CapAdd: unknown capability: \"CAP_NONSENSE\""), "{out}");
    engine.end();
}

fn privileged(case: &Case) {
    let engine = Engine::start(case);
    let text = run(&engine, "--privileged busybox sh -c 'grep -E \"CapEff|Seccomp:\" /proc/self/status; ls /dev/kmsg; mount -t tmpfs x /tmp && echo mounted; grep -c \" /proc/kcore \" /proc/mounts; true'");
    assert!(text.contains("Seccomp:\t0"), "{text}");
    assert!(text.contains("mounted") && text.contains("/dev/kmsg"), "{text}");
    let plain = engine.docker("run --rm --network none busybox mount -t tmpfs x /tmp");
    assert_ne!(plain.code, 0, "{plain}");
    assert_eq!(run(&engine, "busybox sh -c 'grep -c -E \" /proc/(irq|sys) \" /proc/mounts'"), "2");
    engine.end();
}

fn seccomp_is_dockers(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(run(&engine, "busybox grep Seccomp: /proc/self/status"), "Seccomp:\t2");
    assert_eq!(run(&engine, "--security-opt seccomp=unconfined busybox grep Seccomp: /proc/self/status"), "Seccomp:\t0");
    let out = engine.docker("run --rm --network none busybox unshare -U true");
    assert_ne!(out.code, 0, "{out}");
    let out = engine.docker("run --rm --network none --security-opt nonsense=1 busybox true").exits(125);
    assert!(out.stderr.contains("invalid --security-opt"), "{out}");
    engine.end();
}

fn no_new_privileges(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(run(&engine, "busybox grep NoNew /proc/self/status"), "NoNewPrivs:\t0");
    assert_eq!(run(&engine, "--security-opt no-new-privileges busybox grep NoNew /proc/self/status"), "NoNewPrivs:\t1");
    engine.end();
}

fn ulimits_and_sysctls(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(run(&engine, "--ulimit nofile=100:200 busybox sh -c 'ulimit -Sn; ulimit -Hn'"), "100\n200");
    assert_eq!(run(&engine, "--sysctl net.ipv4.ip_forward=1 busybox cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(run(&engine, "--sysctl kernel.shmmax=123456 busybox cat /proc/sys/kernel/shmmax"), "123456");
    let out = engine.docker("run --rm --network none --ulimit nonsense=1 busybox true").exits(125);
    assert!(out.stderr.contains("invalid ulimit type: nonsense"), "{out}");
    engine.end();
}

fn an_init(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --init --name box --network none busybox sleep 1000").ok();
    assert!(engine.docker("exec box sh -c 'tr \"\\0\" \" \" </proc/1/cmdline'").ok().text().ends_with("-- sleep 1000"));
    let _ = engine.docker("stop -t 20 box").ok();
    assert_eq!(engine.inspect("box", "{{.State.ExitCode}}"), "143");
    engine.end();
}

/// All but those that are its own: real-time ones, too, of which the C library keeps two.
fn an_init_passes_signals_on(case: &Case) {
    let engine = Engine::start(case);
    let all = "1 2 10 12 15 29 34 35 50 63 64";
    let script = format!("for number in {all}; do trap \"echo got $number\" $number; done; echo set; while :; do sleep 0.02; done");
    let _ = engine.client().args(["run", "-d", "--init", "--name", "box", "--network", "none", "busybox", "sh", "-c", &script]).run().ok();
    engine.wait_log("box", "set\n");
    for number in all.split(' ') {
        let _ = engine.docker(&format!("kill --signal {number} box")).ok();
        engine.wait_log("box", &format!("got {number}\n"));
    }
    let _ = engine.docker("kill --signal RTMIN+3 box").ok();
    // The child has no trap for it, and it is not the first process: the signal ends it.
    assert_eq!(engine.docker("wait box").ok().text(), "165");
    engine.end();
}

fn limits_are_in_the_cgroup(case: &Case) {
    let engine = Engine::start(case);
    let flags = "--memory 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 33 --blkio-weight 0";
    let _ = engine.docker(&format!("run -d --name box --network none {flags} busybox sleep 1000")).ok();
    let path = format!("{}/{}", engine.cgroup_parent(), engine.inspect("box", "{{.Id}}"));
    let limit = |controller: &str, file: &str| ketch_integration::probe::read(case.layout.cgroup_dir(controller, &path).join(file));
    assert_eq!(limit("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(limit("memory", "memory.soft_limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(limit("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(limit("cpu", "cpu.shares"), "512");
    assert_eq!(limit("cpuset", "cpuset.cpus"), "0");
    assert_eq!(limit("pids", "pids.max"), "33");
    let _ = engine.docker("update --memory 32m --memory-swap 64m --cpus 0.25 --pids-limit 44 box").ok();
    assert_eq!(limit("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(limit("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(limit("pids", "pids.max"), "44");
    // The one without the other, as a container has it already.
    let _ = engine.docker("update --memory-swap 80m box").ok();
    assert_eq!(engine.inspect("box", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), format!("{} {}", 32 << 20, 80 << 20));
    let out = engine.docker("create --network none --memory-swap 80m busybox true").exits(1);
    assert!(out.stderr.contains("You should always set the Memory limit when using Memoryswap limit, see usage"), "{out}");
    let out = engine.docker("run --rm --network none --memory 1m busybox true").exits(125);
    assert!(out.stderr.contains("Minimum memory limit allowed is 6MB"), "{out}");
    engine.end();
}

fn an_out_of_memory_kill_is_told(case: &Case) {
    let engine = Engine::start(case);
    let script = "head -c 200m /dev/zero | tail; exec sleep 1000";
    let _ = engine.client().args(["run", "-d", "--name", "box", "--network", "none", "-m", "32m", "busybox", "sh", "-c", script]).run().ok();
    wait_until("the event of the out-of-memory kill", || {
        let out = engine.docker("events --since 1h --until 0s --filter event=oom --filter container=box");
        if out.text().is_empty() { Err(out.to_string()) } else { Ok(()) }
    });
    let _either = engine.docker("kill box");
    engine.wait_inspect("box", "{{.State.Running}} {{.State.OOMKilled}}", "false true");
    engine.end();
}

fn devices(case: &Case) {
    let engine = Engine::start(case);
    assert!(run(&engine, "--device /dev/null:/dev/other:rw busybox stat -c %F /dev/other").starts_with("character special file"));
    assert_eq!(run(&engine, "busybox sh -c 'cd /dev && echo *'"), "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    let out = engine.docker("run --rm --network none --device /dev/nonsense busybox true").exits(127);
    assert!(out.stderr.contains("error gathering device information while adding custom device \"/dev/nonsense\": no such file or directory"), "{out}");
    let refused = engine.docker("run --rm --network none busybox sh -c 'mknod /d b 1 0 && cat /d'");
    assert!(refused.stderr.contains("Operation not permitted"), "{refused}");
    engine.end();
}

fn namespaces_shared_with_another(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none --ipc shareable busybox sleep 1000").ok();
    let ids = "busybox sh -c 'for n in pid ipc net uts; do readlink /proc/self/ns/$n; done'";
    let own = engine.docker(&format!("exec box {}", &ids[8..])).ok().text().to_owned();
    let text = engine.docker(&format!("run --rm --network container:box --pid container:box --ipc container:box {ids}")).ok().text().to_owned();
    let pairs: Vec<bool> = own.lines().zip(text.lines()).map(|(a, b)| a == b).collect();
    assert_eq!(pairs, [true, true, true, false], "{own}\n{text}");
    let host = run(&engine, &format!("--pid host --uts host {ids}"));
    assert_eq!(host.lines().next(), std::fs::read_link("/proc/self/ns/pid").expect("own namespace").to_str());
    engine.end();
}

fn names_and_conflicts(case: &Case) {
    let engine = Engine::start(case);
    let id = engine.docker("create --name box --network none busybox true").ok().text().to_owned();
    let out = engine.docker("create --name box busybox true").exits(1);
    let text = format!("Error response from daemon: Conflict. The container name \"/box\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name.");
    assert_eq!(out.stderr.trim(), text);
    let out = engine.docker("create --name 'bad name' busybox true").exits(1);
    assert!(out.stderr.contains("Invalid container name (bad name), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"), "{out}");
    assert_eq!(engine.inspect(&id[..6], "{{.Name}}"), "/box");
    let named = engine.docker("create --network none busybox true").ok();
    let name = engine.inspect(named.text(), "{{.Name}}");
    assert!(name.starts_with('/') && name.contains('_'), "{name}");
    let _ = engine.docker("rename box other").ok();
    assert_eq!(engine.inspect("other", "{{.Id}}"), id);
    let out = engine.docker("inspect box").exits(1);
    assert!(out.stderr.contains("No such object: box"), "{out}");
    engine.end();
}

fn hosts_hostname_and_resolver(case: &Case) {
    let engine = Engine::start(case);
    assert_eq!(run(&engine, "-h box busybox cat /etc/hostname"), "box");
    let hosts = run(&engine, "-h box --add-host other:10.1.2.3 busybox cat /etc/hosts");
    assert!(hosts.contains("127.0.0.1\tlocalhost") && hosts.contains("10.1.2.3\tother"), "{hosts}");
    let id = engine.docker("run -d --name box --network none busybox sleep 1000").ok().text().to_owned();
    assert_eq!(engine.docker("exec box hostname").ok().text(), &id[..12]);
    assert_eq!(engine.inspect("box", "{{.Config.Hostname}}"), id[..12]);
    engine.end();
}

fn a_name_can_be_used_again(case: &Case) {
    let engine = Engine::start(case);
    for _ in 0..5 {
        let _ = engine.docker("run --rm --name box --network none busybox true").ok();
    }
    engine.end();
}

fn cidfile_and_labels(case: &Case) {
    let engine = Engine::start(case);
    let file = engine.site.path("id");
    let out = engine.client().args(["run", "-d", "--network", "none", "--label", "a=b", "--label", "empty", "--cidfile"]).arg(&file).args(["busybox", "true"]).run().ok();
    assert_eq!(std::fs::read_to_string(file).expect("the file of the id"), out.text());
    assert_eq!(engine.inspect(out.text(), "{{json .Config.Labels}}"), r#"{"a":"b","empty":""}"#);
    assert_eq!(engine.docker("ps -aq --no-trunc --filter label=a=b").ok().text(), out.text());
    assert_eq!(engine.docker("ps -aq --filter label=a=c").ok().text(), "");
    engine.end();
}

fn ipc_that_is_not_shared(case: &Case) {
    let engine = Engine::start(case);
    for (name, mode) in [("own", "private"), ("shared", "shareable"), ("hosts", "host")] {
        let _ = engine.docker(&format!("run -d --name {name} --network none --ipc {mode} busybox sleep 1000")).ok();
    }
    let _ = engine.docker("run -d --name joined --network none --ipc container:shared busybox sleep 1000").ok();
    let out = engine.docker("run --rm --network none --ipc container:own busybox true");
    assert!(out.code != 0 && out.stderr.contains("non-shareable IPC (hint: use IpcMode:shareable for the donor container)"), "{out}");
    let _ = engine.docker("exec shared sh -c 'echo here >/dev/shm/file'").ok();
    let read = "run --rm --network none --ipc container:joined busybox cat /dev/shm/file";
    assert_eq!(engine.docker(read).ok().text(), "here");
    let _ = engine.docker("run --rm --network none --ipc container:hosts busybox test -d /dev/shm").ok();
    engine.end();
}

/// The old field of the API, which takes the network away whatever the mode is.
fn no_network_at_all(case: &Case) {
    let engine = Engine::start(case);
    let body = r#"{"Image":"busybox","Cmd":["ls","/sys/class/net"],"NetworkDisabled":true}"#;
    let _ = engine.call("POST", "/containers/create?name=box", body).is(201);
    assert_eq!(engine.docker("start -a box").ok().text(), "lo");
    engine.end();
}

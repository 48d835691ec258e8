//! seccomp: each action seen from inside, arguments, unknown names, the listener.

use ketch_integration::console::FdSocket;
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::{Value, json};

tests![
    a_filter_is_on,
    errno_refuses_with_eperm,
    errno_ret_is_given,
    kill_process_ends_it,
    kill_thread_ends_it,
    trap_sends_sigsys,
    log_lets_it_pass,
    an_argument_is_compared,
    masked_equality,
    a_default_action_with_its_errno,
    an_unknown_name_is_passed_over,
    an_unknown_action_is_refused,
    works_without_no_new_privs,
    exec_is_filtered_too,
    a_profile_older_than_close_range,
    a_profile_that_silences_init,
    several_architectures,
    notify_hands_over_a_listener,
    flags_are_taken,
    an_unknown_flag_is_refused,
];

fn profile(bundle: Bundle<'_>, rules: Value) -> Bundle<'_> {
    bundle.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules }),
    )
}

fn mkdir_with(case: &Case, action: &str) -> ketch_integration::Output {
    let rules = json!([{ "names": ["mkdir", "mkdirat"], "action": action }]);
    profile(case.bundle().command(&["/bin/mkdir", "/new"]), rules).run()
}

fn a_filter_is_on(case: &Case) {
    let bundle = case.bundle().script("grep '^Seccomp:' /proc/self/status");
    assert_eq!(profile(bundle, json!([{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }])).prints(), "Seccomp:\t2");
    assert_eq!(case.bundle().script("grep '^Seccomp:' /proc/self/status").prints(), "Seccomp:\t0");
}

fn errno_refuses_with_eperm(case: &Case) {
    let out = mkdir_with(case, "SCMP_ACT_ERRNO");
    assert!(out.code == 1 && out.stderr.contains("Operation not permitted"), "{out}");
}

fn errno_ret_is_given(case: &Case) {
    let rules = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }]);
    let out = profile(case.bundle().command(&["/bin/mkdir", "/new"]), rules).run();
    assert!(out.code == 1 && out.stderr.contains("No space left on device"), "{out}");
}

fn kill_process_ends_it(case: &Case) {
    let _ = mkdir_with(case, "SCMP_ACT_KILL_PROCESS").exits(159);
}

fn kill_thread_ends_it(case: &Case) {
    let _ = mkdir_with(case, "SCMP_ACT_KILL").exits(159);
    let _ = mkdir_with(case, "SCMP_ACT_KILL_THREAD").exits(159);
}

fn trap_sends_sigsys(case: &Case) {
    // Pid 1 ignores a SIGSYS that it does not handle, unless the kernel forces it, which it does for a filter.
    let _ = mkdir_with(case, "SCMP_ACT_TRAP").exits(159);
}

fn log_lets_it_pass(case: &Case) {
    let _ = mkdir_with(case, "SCMP_ACT_LOG").ok();
}

fn chmod_rules(compare: Value) -> Value {
    let at = |index: u32| {
        let mut entry = compare.clone();
        entry["index"] = json!(index);
        json!([entry])
    };
    json!([
        { "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": at(1) },
        { "names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "args": at(2) }
    ])
}

fn an_argument_is_compared(case: &Case) {
    let script = "chmod 755 /etc && echo 755 passes; chmod 700 /etc || echo 700 refused";
    let rules = chmod_rules(json!({ "value": 0o700, "op": "SCMP_CMP_EQ" }));
    assert_eq!(profile(case.bundle().script(script), rules).prints(), "755 passes\n700 refused");
    let rules = chmod_rules(json!({ "value": 0o750, "op": "SCMP_CMP_LT" }));
    assert_eq!(profile(case.bundle().script(script), rules).prints(), "755 passes\n700 refused");
    let rules = chmod_rules(json!({ "value": 0o755, "op": "SCMP_CMP_NE" }));
    assert_eq!(profile(case.bundle().script(script), rules).prints(), "755 passes\n700 refused");
}

fn masked_equality(case: &Case) {
    // Refused when the set-user-id bit is asked for, whatever the rest of the mode.
    let rules = chmod_rules(json!({ "value": 0o4000, "valueTwo": 0o4000, "op": "SCMP_CMP_MASKED_EQ" }));
    let script = "chmod 755 /etc && echo plain passes; chmod 4755 /etc || echo setuid refused";
    assert_eq!(profile(case.bundle().script(script), rules).prints(), "plain passes\nsetuid refused");
}

fn a_default_action_with_its_errno(case: &Case) {
    let bundle = case.bundle().command(&["/bin/true"]);
    // Nothing is allowed but what leads to and through execve of a program whose first calls then fail.
    let bundle = bundle.set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{ "action": "SCMP_ACT_ALLOW", "names": everything_but(&["mkdir", "mkdirat"]) }]
        }),
    );
    let out = bundle.command(&["/bin/mkdir", "/new"]).run();
    assert!(out.code == 1 && out.stderr.contains("Permission denied"), "{out}");
}

/// The system calls that the runtimes and busybox make between the filter and the end.
fn everything_but(names: &[&str]) -> Vec<&'static str> {
    const ALL: &str = "access arch_prctl bind brk capget capset chdir chmod chown clock_gettime clone clone3 close \
        close_range connect dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve execveat exit \
        exit_group faccessat faccessat2 fchdir fchmod fchmodat fchown fchownat fcntl fstat fstatfs futex getcwd getdents64 \
        getegid geteuid getgid getgroups getpgrp getpid getppid getrandom getrlimit getsockopt gettid getuid ioctl kill \
        lchown lseek lstat madvise mkdir mkdirat mmap mount mprotect mremap munmap nanosleep newfstatat open openat openat2 \
        pipe pipe2 poll ppoll prctl pread64 prlimit64 pwrite64 read readlink readlinkat readv recvfrom recvmsg rename \
        rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sendmsg sendto set_robust_list \
        set_tid_address setgid setgroups setresgid setresuid setsid setuid sigaltstack socket socketpair stat statfs statx \
        sysinfo tgkill umask uname unlink unlinkat vfork wait4 waitid write writev";
    ALL.split_whitespace().filter(|name| !names.contains(name)).collect()
}

fn an_unknown_name_is_passed_over(case: &Case) {
    let rules = json!([
        { "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" },
        { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }
    ]);
    let out = profile(case.bundle().command(&["/bin/mkdir", "/new"]), rules).run();
    assert!(out.code == 1 && out.stderr.contains("Operation not permitted"), "{out}");
}

fn an_unknown_action_is_refused(case: &Case) {
    mkdir_with(case, "SCMP_ACT_NO_SUCH").refuses(&["SCMP_ACT_NO_SUCH"]);
}

fn works_without_no_new_privs(case: &Case) {
    let rules = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
    let bundle = profile(case.bundle().command(&["/bin/mkdir", "/new"]), rules);
    let out = bundle.set("/process/noNewPrivileges", json!(false)).run();
    assert!(out.code == 1 && out.stderr.contains("Operation not permitted"), "{out}");
}

fn exec_is_filtered_too(case: &Case) {
    let rules = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
    let container = profile(case.bundle().sleeper(), rules).start();
    let out = container.exec(&["/bin/mkdir", "/new"]);
    assert!(out.code == 1 && out.stderr.contains("Operation not permitted"), "{out}");
}

/// Descriptors are closed before the filter is on: where it refuses close_range(2) they could only be closed one by one,
/// which takes longer than the whole rest of a start. Whoever calls it under this filter does not live to try.
fn a_profile_older_than_close_range(case: &Case) {
    let rules = json!([{ "names": ["close_range"], "action": "SCMP_ACT_KILL_PROCESS" }]);
    let script = "for fd in /proc/self/fd/*; do [ -e $fd ] && echo ${fd##*/}; done; true";
    for no_new_privs in [true, false] {
        let bundle = case.bundle().script(script).set("/process/noNewPrivileges", json!(no_new_privs));
        assert_eq!(profile(bundle, rules.clone()).prints(), "0\n1\n2", "no_new_privs {no_new_privs}");
        let bundle = case.bundle().sleeper().set("/process/noNewPrivileges", json!(no_new_privs));
        assert_eq!(profile(bundle, rules.clone()).start().sh(script), "0\n1\n2", "no_new_privs {no_new_privs}");
    }
}

/// What init can't say by one call it says by the other, and what it can't say at all is known by that.
fn a_profile_that_silences_init(case: &Case) {
    case.not_on_runc("its words are others");
    case.not_on_crun("its words are others");
    let created = "telling the runtime that the container is created, which a seccomp profile has to allow: write: operation";
    let kept = "was kept from saying why: a seccomp profile has to allow write(2)";
    for (names, program, said) in [
        (&["sendmsg"][..], "/no/such", "/no/such"),
        (&["write"], "/no/such", "/no/such"),
        (&["write"], "/bin/true", created),
        (&["write", "sendmsg"], "/bin/true", kept),
    ] {
        let rules = json!([{ "names": names, "action": "SCMP_ACT_ERRNO" }]);
        // With its rights the filter is in force before the program is looked for.
        let bundle = case.bundle().command(&[program]).set("/process/noNewPrivileges", json!(false));
        profile(bundle.capabilities(&["CAP_SYS_ADMIN"]), rules).run().refuses(&[said]);
    }
}

fn several_architectures(case: &Case) {
    let bundle = case.bundle().command(&["/bin/mkdir", "/new"]).set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]
        }),
    );
    let out = bundle.run();
    assert!(out.code == 1 && out.stderr.contains("Operation not permitted"), "{out}");
}

fn notify_hands_over_a_listener(case: &Case) {
    let socket = FdSocket::bind(&case.dir, "seccomp.sock");
    let bundle = case.bundle().command(&["/bin/mkdir", "/new"]).set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "listenerPath": socket.path, "listenerMetadata": "what the agent knows",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
        }),
    );
    let running = bundle.run_command().arg(&bundle.id).spawn();
    let received = socket.receive();
    let text = String::from_utf8_lossy(&received.bytes).trim_end_matches('\0').to_owned();
    let state: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text:?}"));
    assert_eq!(received.fds.len(), 1);
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "what the agent knows");
    assert_eq!(state["state"]["id"], json!(bundle.id));
    assert_eq!(state["state"]["status"], "creating");
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{state}");
    // With the listener gone the call fails as if the kernel did not know it.
    drop(received);
    let out = running.wait();
    assert!(out.code == 1 && out.stderr.contains("Function not implemented"), "{out}");
    drop(Container::adopt(case, &bundle.id));
}

fn flags_are_taken(case: &Case) {
    case.needs_runc(1, 2, "refuses every flag");
    for flag in ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"] {
        let bundle = case.bundle().set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "flags": [flag],
                "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }]
            }),
        );
        let _ = bundle.run().ok();
    }
}

fn an_unknown_flag_is_refused(case: &Case) {
    case.needs_runc(1, 2, "refuses every flag");
    let bundle = case.bundle().set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "flags": ["NO_SUCH_FLAG"],
            "syscalls": [{ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" }]
        }),
    );
    bundle.run().refuses(&["NO_SUCH_FLAG"]);
}

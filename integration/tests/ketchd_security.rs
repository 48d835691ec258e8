//! What confines containers by the daemon's settings: privileges, seccomp, AppArmor.

use std::fs;

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests};

tests![
    no_new_privileges_for_all,
    what_was_made_so_stays_so,
    an_own_seccomp_profile,
    unconfined_by_the_daemon,
    a_profile_that_is_not_there,
    files_of_the_network_in_a_read_only_root,
    apparmor_confines_by_default,
    apparmor_is_not_asked_where_there_is_none,
];

fn bare<'a>(case: &'a Case, flags: &[&str]) -> Engine<'a> {
    let engine = Engine::bare(case, flags);
    engine.load_busybox();
    engine
}

/// A line of the process's own status.
fn status(engine: &Engine<'_>, flags: &str, key: &str) -> String {
    let line = format!("run --rm --network none {flags} busybox grep {key}: /proc/self/status");
    let out = engine.docker(&line).ok();
    out.text().split_whitespace().last().unwrap_or_default().to_owned()
}

fn no_new_privileges_for_all(case: &Case) {
    let engine = bare(case, &["--no-new-privileges"]);
    assert_eq!(status(&engine, "", "NoNewPrivs"), "1");
    assert_eq!(status(&engine, "--security-opt no-new-privileges=false", "NoNewPrivs"), "0");
    assert!(engine.docker("info --format '{{json .SecurityOptions}}'").ok().text().contains("name=no-new-privileges"));
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    for flags in ["", "--privileged"] {
        let out = engine.docker(&format!("exec {flags} box grep NoNewPrivs: /proc/self/status")).ok();
        assert_eq!(out.text(), "NoNewPrivs:\t1", "{flags}");
    }
    engine.end();
}

/// The setting of the day that a container was made on counts, whatever the daemon is started with later.
fn what_was_made_so_stays_so(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    engine.load_busybox();
    let daemon = engine.site.path("daemon.json");
    fs::write(&daemon, "{\"no-new-privileges\": true}").expect("write the settings");
    engine.stop();
    engine.come_back();
    let _ = engine.docker("create --name box --network none busybox grep NoNewPrivs: /proc/self/status").ok();
    fs::write(&daemon, "{}").expect("write the settings");
    engine.stop();
    engine.come_back();
    assert_eq!(engine.docker("start -a box").ok().text(), "NoNewPrivs:\t1");
    assert_eq!(status(&engine, "", "NoNewPrivs"), "0");
    engine.end();
}

fn an_own_seccomp_profile(case: &Case) {
    let file = case.dir.join("profile.json");
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":77}]}"#;
    fs::write(&file, profile).expect("write the profile");
    let engine = bare(case, &["--seccomp-profile", &file.to_string_lossy()]);
    let make = "busybox mkdir /made";
    let out = engine.docker(&format!("run --rm --network none {make}")).exits(1);
    assert!(out.stderr.contains("/made"), "{out}");
    for free in ["--security-opt seccomp=builtin", "--security-opt seccomp=unconfined", "--privileged"] {
        let _ = engine.docker(&format!("run --rm --network none {free} {make}")).ok();
    }
    // Of the client's own, a privileged container is confined, too.
    let own = format!("--security-opt seccomp={}", file.display());
    let _ = engine.docker(&format!("run --rm --network none --privileged {own} {make}")).exits(1);
    let info = engine.docker("info --format '{{json .SecurityOptions}}'").ok();
    assert!(info.text().contains(&format!("name=seccomp,profile={}", file.display())), "{info}");
    engine.end();
}

fn unconfined_by_the_daemon(case: &Case) {
    let engine = bare(case, &["--seccomp-profile", "unconfined"]);
    assert_eq!(status(&engine, "", "Seccomp"), "0");
    assert_eq!(status(&engine, "--security-opt seccomp=builtin", "Seccomp"), "2");
    engine.end();
}

fn a_profile_that_is_not_there(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    engine.stop();
    let (program, mut args) = engine.command_line();
    args.extend(["--seccomp-profile", "/no/where"].map(Into::into));
    let out = engine.site.command(program).args(args).run();
    assert_eq!(out.code, 1, "{out}");
    let text = "opening seccomp profile (/no/where) failed: open /no/where: no such file or directory";
    assert!(out.stderr.contains(text) || out.stdout.contains(text), "{out}");
    engine.come_back();
    engine.end();
}

fn files_of_the_network_in_a_read_only_root(case: &Case) {
    let engine = bare(case, &[]);
    for file in ["hosts", "hostname", "resolv.conf"] {
        let line = format!("run --rm --network none --read-only busybox sh -c 'echo x >>/etc/{file}'");
        let out = engine.docker(&line).exits(1);
        assert!(out.stderr.contains("Read-only file system"), "{out}");
        let _ = engine.docker(&line.replace("--read-only ", "")).ok();
    }
    engine.end();
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

fn apparmor_confines_by_default(case: &Case) {
    case.needs(has_apparmor(), "the kernel runs without AppArmor");
    case.needs(case.has_program("apparmor_parser"), "no apparmor_parser (package apparmor)");
    let engine = bare(case, &[]);
    let label = |flags: &str| {
        let line = format!("run --rm --network none {flags} busybox cat /proc/self/attr/current");
        engine.docker(&line).ok().text().trim_end_matches('\0').to_owned()
    };
    assert_eq!(label(""), "docker-default (enforce)");
    assert_eq!(label("--privileged"), "unconfined");
    assert_eq!(label("--security-opt apparmor=unconfined"), "unconfined");
    // A mount is refused by AppArmor where capabilities and seccomp would allow it.
    let mount = "busybox mount -t tmpfs none /tmp";
    let free = "run --rm --network none --cap-add SYS_ADMIN --security-opt seccomp=unconfined";
    let _ = engine.docker(&format!("{free} {mount}")).exits(1);
    let _ = engine.docker(&format!("{free} --security-opt apparmor=unconfined {mount}")).ok();
    let _ = engine.docker("run -d --name box --network none busybox sleep 1000").ok();
    assert_eq!(engine.inspect("box", "{{.AppArmorProfile}}"), "docker-default");
    let out = engine.docker("exec box cat /proc/self/attr/current").ok();
    assert!(out.text().starts_with("docker-default (enforce)"), "{out}");
    // Whoever confines the daemon's host may stop and kill still.
    let _ = engine.docker("stop -t 0 box").ok();
    let out = engine.docker("run --rm --network none --security-opt apparmor=nonsense busybox true");
    assert_ne!(out.code, 0, "{out}");
    engine.end();
}

fn apparmor_is_not_asked_where_there_is_none(case: &Case) {
    case.needs(!has_apparmor(), "the kernel runs with AppArmor");
    let engine = bare(case, &[]);
    let _ = engine.docker("run --name box --network none --security-opt apparmor=nonsense busybox true").ok();
    assert_eq!(engine.inspect("box", "{{.AppArmorProfile}}"), "");
    engine.end();
}

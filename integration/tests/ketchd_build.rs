//! The classic builder: what it makes, what it leaves, what ends it, and what hostile contexts and images can't reach. What it
//! prints is in `differential/build.txt`.

use std::path::PathBuf;

use ketch_integration::ketchd::Engine;
use ketch_integration::runtime::Output;
use ketch_integration::{Case, tests, wait_until};

tests![
    images_are_built_and_run,
    a_change_of_a_file_ends_the_cache,
    the_cache_outlives_the_engine,
    a_failed_step_leaves_its_container,
    a_build_ends_with_its_client,
    a_crash_in_a_build_leaves_ordinary_containers,
    files_as_they_are,
    hostile_contexts_stay_inside,
    hostile_images_stay_inside,
    archives_are_unpacked_inside,
    what_can_not_be_read_is_refused,
    several_builds_at_once,
    compose_builds,
    debians_docker_compose_builds,
    the_calls_of_a_docker_container_builder,
    docker_py_builds,
];

/// Builds a context of the site's, whose Dockerfile is this.
fn build(engine: &Engine<'_>, dockerfile: &str, options: &str) -> Output {
    let folder = context(engine);
    std::fs::write(folder.join("Dockerfile"), dockerfile).expect("write a Dockerfile");
    engine.sh(&format!("DOCKER_BUILDKIT=0 docker build {options} {}", folder.display()))
}

fn context(engine: &Engine<'_>) -> PathBuf {
    let folder = engine.site.path("context");
    std::fs::create_dir_all(&folder).expect("make the context");
    folder
}

fn write(engine: &Engine<'_>, name: &str, text: &str) {
    let path = context(engine).join(name);
    std::fs::create_dir_all(path.parent().expect("it is in the context")).expect("make a folder");
    std::fs::write(path, text).expect("write a file of the context");
}

/// Sends a tar, made by this shell script in an empty folder, as a context.
fn send(engine: &Engine<'_>, script: &str) -> Output {
    engine.sh(&format!(
        "set -e; dir=$(mktemp -d); cd $dir; {script}; curl -sS --unix-socket {} -X POST -H 'Content-Type: application/x-tar' --data-binary @context.tar 'http://x/build?t=sent&forcerm=1'; rm -r $dir",
        engine.socket().display()
    ))
}

fn ids(engine: &Engine<'_>) -> String {
    engine.docker("ps -aq").ok().text().to_owned()
}

fn images_are_built_and_run(case: &Case) {
    let engine = Engine::start(case);
    write(&engine, "page", "built\n");
    let file = "FROM busybox AS tool\nRUN echo made >/made\nFROM busybox\nCOPY --from=tool /made /\nCOPY page /\nENV WHO=me\nCMD cat /made /page; echo $WHO";
    let out = build(&engine, file, "-t one -t two:2").ok();
    assert!(out.text().contains("Successfully tagged one:latest\nSuccessfully tagged two:2"), "{out}");
    assert_eq!(engine.docker("run --rm --network none two:2").ok().text(), "made\nbuilt\nme");
    assert_eq!(ids(&engine), "");
    let answer = engine.call("GET", "/images/one/json", "").is(200).json();
    assert_eq!(answer["RootFS"]["Layers"].as_array().map(Vec::len), Some(3));
    let out = build(&engine, file, "-q").ok();
    assert_eq!(out.text(), answer["Id"], "all of it was done before");
    engine.end();
}

fn a_change_of_a_file_ends_the_cache(case: &Case) {
    let engine = Engine::start(case);
    let file = "FROM busybox\nCOPY a /a\nRUN cat /a\nCOPY d /d\nRUN ls /d";
    let used = |out: &Output| out.text().matches("Using cache").count();
    write(&engine, "a", "1\n");
    write(&engine, "d/b", "2\n");
    assert_eq!(used(&build(&engine, file, "").ok()), 0);
    assert_eq!(used(&build(&engine, file, "").ok()), 4);
    // Times do not count.
    write(&engine, "a", "1\n");
    assert_eq!(used(&build(&engine, file, "").ok()), 4);
    write(&engine, "d/b", "3\n");
    assert_eq!(used(&build(&engine, file, "").ok()), 2);
    let out = engine.sh(&format!("chmod 600 {}/a", context(&engine).display())).ok();
    assert_eq!(out.text(), "");
    assert_eq!(used(&build(&engine, file, "").ok()), 0);
    assert_eq!(used(&build(&engine, file, "--no-cache").ok()), 0);
    engine.end();
}

fn the_cache_outlives_the_engine(case: &Case) {
    let mut engine = Engine::start(case);
    let file = "FROM busybox\nENV A=1\nRUN echo slow >/x\nFROM scratch\nENV B=2";
    let _ = build(&engine, file, "-t kept").ok();
    engine.kill();
    engine.come_back();
    let out = build(&engine, file, "").ok();
    assert_eq!(out.text().matches("Using cache").count(), 3, "{out}");
    engine.end();
}

fn a_failed_step_leaves_its_container(case: &Case) {
    let engine = Engine::start(case);
    let out = build(&engine, "FROM busybox\nRUN touch /left; exit 3", "").exits(3);
    assert!(out.stderr.contains("The command '/bin/sh -c touch /left; exit 3' returned a non-zero code: 3"), "{out}");
    let id = ids(&engine);
    assert_eq!(engine.inspect(&id, "{{.State.ExitCode}} {{.HostConfig.LogConfig.Type}}"), "3 none");
    assert_eq!(engine.docker(&format!("diff {id}")).ok().text(), "A /left");
    let _ = engine.docker(&format!("rm {id}")).ok();
    let _ = build(&engine, "FROM busybox\nRUN exit 3", "--force-rm").exits(3);
    assert_eq!(ids(&engine), "");
    engine.end();
}

fn a_build_ends_with_its_client(case: &Case) {
    let engine = Engine::start(case);
    let folder = context(&engine);
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN echo begun; exec sleep 1000").expect("write it");
    let script = format!(
        "DOCKER_BUILDKIT=0 docker build {0} >{0}.out 2>&1 & pid=$!; until grep -qx begun {0}.out; do sleep 0.05; done; kill -9 $pid",
        folder.display()
    );
    let _ = engine.sh(&script).ok();
    wait_until("the build's container has gone", || {
        let left = ids(&engine);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    engine.end();
}

fn a_crash_in_a_build_leaves_ordinary_containers(case: &Case) {
    let mut engine = Engine::start(case);
    let folder = context(&engine);
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nCOPY . /x\nRUN echo begun; exec sleep 1000").expect("write it");
    let script = format!(
        "(DOCKER_BUILDKIT=0 docker build {0} >{0}.out 2>&1 &); until grep -qx begun {0}.out; do sleep 0.05; done",
        folder.display()
    );
    let _ = engine.sh(&script).ok();
    engine.kill();
    engine.come_back();
    let id = ids(&engine);
    assert_eq!(id.lines().count(), 1, "{id}");
    let _ = engine.docker(&format!("rm -f {id}")).ok();
    if engine.is_ketch() {
        // What a removal has put aside is taken away behind its answer.
        wait_until("the context has gone", || {
            let staging = std::fs::read_dir(engine.site.path("data/image/staging")).expect("look").count();
            if staging == 0 { Ok(()) } else { Err(format!("{staging} left")) }
        });
    }
    let _ = build(&engine, "FROM busybox\nRUN true", "").ok();
    engine.end();
}

fn files_as_they_are(case: &Case) {
    let engine = Engine::start(case);
    write(&engine, "d/file", "x");
    let script = "cd \"$0\" && chmod 4711 d/file && ln d/file d/hard && ln -s file d/soft && mkfifo d/pipe && touch -d @1000000000 d/file && mkdir -m 1777 d/sticky";
    let _ = engine.program("sh").args(["-c", script]).arg(context(&engine)).run().ok();
    let file = "FROM busybox\nCOPY d /d\nCOPY --chown=user:extra d /owned\nCOPY d/soft /soft\nRUN rm /d/soft && ln -s /etc /d/soft\nCOPY d /d";
    let _ = build(&engine, file, "-t files").ok();
    let out = engine.docker("run --rm --network none files stat -c '%n %A %u:%g %h %Y' /d/file /d/hard /d/pipe /d/sticky /owned/file /soft").ok();
    let lines: Vec<&str> = out.text().lines().collect();
    assert_eq!(lines[0], "/d/file -rwx--x--x 0:0 2 1000000000", "{out}");
    assert_eq!(lines[1].split(' ').nth(3), Some("2"), "{out}");
    assert!(lines[2].starts_with("/d/pipe prw") && lines[3].starts_with("/d/sticky drwxrwxrwt"), "{out}");
    assert!(lines[4].starts_with("/owned/file -rwx--x--x 1000:2000 2"), "{out}");
    assert!(lines[5].starts_with("/soft -rwx--x--x 0:0 1"), "{out}");
    let out = engine.docker("run --rm --network none files readlink /d/soft").ok();
    assert_eq!(out.text(), "file", "the image's link was replaced, not followed");
    engine.end();
}

/// A file beside the engine's folders that nothing may write to or read.
fn secret(engine: &Engine<'_>) -> PathBuf {
    let path = engine.site.path("secret");
    std::fs::write(&path, "kept-apart").expect("write the secret");
    path
}

fn hostile_contexts_stay_inside(case: &Case) {
    let engine = Engine::start(case);
    let secret = secret(&engine);
    let path = secret.display().to_string();
    // Links that lead out, as sources and on the way.
    for (links, source) in [
        (format!("ln -s {path} link"), "link"),
        ("ln -s ../../../../../../../../.. up".to_owned(), "up"),
        (format!("ln -s {} dir", secret.parent().expect("it has one").display()), "dir/secret"),
        (format!("ln -s {path} d*"), "d*"),
    ] {
        let script = format!("{links}; printf 'FROM busybox\\nCOPY {source} /got\\nRUN find /got | head -5; cat /got\\n' >Dockerfile; tar -cf context.tar *");
        let out = send(&engine, &script);
        assert!(!out.stdout.contains("kept-apart"), "{source}: {out}");
        assert!(out.stdout.contains("error"), "{source}: {out}");
    }
    // A member behind a link of its own, and one that climbs.
    let script = format!(
        "echo over >w; mkdir a; ln -s {} a/l; tar -cf context.tar a/l; rm a/l; mkdir a/l; echo over >a/l/secret; printf 'FROM busybox\\n' >Dockerfile; tar -rf context.tar Dockerfile a/l/secret",
        secret.parent().expect("it has one").display()
    );
    let _either = send(&engine, &script);
    let climb = format!("printf 'FROM busybox\\n' >Dockerfile; tar -cf context.tar Dockerfile; echo over >x; tar -rPf context.tar --transform 's,^x$,../../../../../../../..{path},' x");
    let _either = send(&engine, &climb);
    assert_eq!(std::fs::read_to_string(&secret).expect("read the secret"), "kept-apart");
    engine.end();
}

fn hostile_images_stay_inside(case: &Case) {
    let engine = Engine::start(case);
    let secret = secret(&engine);
    let parent = secret.parent().expect("it has one").display().to_string();
    write(&engine, "secret", "over\n");
    let links = format!("RUN ln -s {parent} /out && ln -s ../../../../../../../..{parent} /up && rm -rf /etc && ln -s {parent} /etc");
    let file = format!("FROM busybox\n{links}\nCOPY secret /out/\nCOPY secret /up/secret\nADD secret /etc/secret\nWORKDIR /out/made\nCOPY --chown=user secret /x");
    let out = build(&engine, &file, "--force-rm");
    assert_ne!(out.code, 0, "there is no user in what /etc is now: {out}");
    assert_eq!(std::fs::read_to_string(&secret).expect("read the secret"), "kept-apart");
    assert!(!secret.with_file_name("made").exists());
    let file = format!("FROM busybox AS one\nRUN ln -s {parent} /out && ln -s {} /file\nFROM busybox\nCOPY --from=one /file /got\nRUN cat /got", secret.display());
    let out = build(&engine, &file, "--force-rm");
    assert!(!out.stdout.contains("kept-apart") && out.code != 0, "{out}");
    engine.end();
}

fn archives_are_unpacked_inside(case: &Case) {
    let engine = Engine::start(case);
    let secret = secret(&engine);
    let parent = secret.parent().expect("it has one").display().to_string();
    let script = format!(
        "cd \"$0\" && mkdir -p p/d && echo x >p/d/file && tar -C p -czf good.tgz . && cd p && ln -s {parent} l && tar -cf ../bad.tar l && rm l && mkdir l && echo over >l/secret && tar -rf ../bad.tar l/secret && cd .. && rm -r p"
    );
    let _ = engine.program("sh").args(["-c", &script]).arg(context(&engine)).run().ok();
    let _ = build(&engine, "FROM busybox\nADD good.tgz /g\nADD good.tgz /h/\nCOPY good.tgz /kept", "-t added").ok();
    let out = engine.docker("run --rm --network none added sh -c 'cat /g/d/file /h/d/file; wc -c </kept | grep -c .'").ok();
    assert_eq!(out.text(), "x\nx\n1");
    let _either = build(&engine, "FROM busybox\nADD bad.tar /b", "");
    assert_eq!(std::fs::read_to_string(&secret).expect("read the secret"), "kept-apart");
    engine.end();
}

fn what_can_not_be_read_is_refused(case: &Case) {
    let engine = Engine::start(case);
    let path = |query: &str| format!("/build?{query}");
    let refused = |query: &str| engine.http().call("POST", &path(query), &["Content-Type: application/x-tar"], "nonsense");
    for query in ["", "t=Upper", "buildargs=x", "labels=[]", "version=9", "securityopt=x"] {
        let answer = refused(query);
        assert!(answer.status >= 400, "{query}: {answer:?}");
    }
    let script = "printf 'FROM busybox\\n' >Dockerfile; head -c 100000 /dev/urandom >big; tar -cf whole.tar big Dockerfile; head -c 50000 whole.tar >context.tar";
    let out = send(&engine, script);
    assert!(out.stdout.contains("message") || out.stdout.contains("error"), "{out}");
    assert_eq!(ids(&engine), "");
    if engine.is_ketch() {
        let left = std::fs::read_dir(engine.site.path("data/image/staging")).expect("look").count();
        assert_eq!(left, 0, "nothing is left of them");
    }
    engine.end();
}

fn several_builds_at_once(case: &Case) {
    let engine = Engine::start(case);
    let script = "for i in 1 2 3 4 5 6; do mkdir -p c$i; printf 'FROM busybox\\nCOPY . /c\\nRUN echo '$i' >/n\\nRUN cat /n\\nCMD cat /n\\n' >c$i/Dockerfile; DOCKER_BUILDKIT=0 docker build -q -t n$i c$i & pids=\"$pids $!\"; done; for pid in $pids; do wait $pid || exit 1; done";
    let _ = engine.program("sh").args(["-c", &format!("cd \"$0\"; {script}")]).arg(context(&engine)).run().ok();
    for number in 1..=6 {
        let out = engine.docker(&format!("run --rm --network none n{number}")).ok();
        assert_eq!(out.text(), number.to_string());
    }
    assert_eq!(ids(&engine), "");
    engine.end();
}

fn compose_builds(case: &Case) {
    let engine = Engine::start(case);
    let folder = engine.site.path("project");
    std::fs::create_dir_all(folder.join("app")).expect("make the project");
    std::fs::write(
        folder.join("compose.yaml"),
        "services:\n  app:\n    build: {context: app, args: {WHO: compose}, target: last}\n    network_mode: none\n",
    )
    .expect("write the project");
    std::fs::write(
        folder.join("app/Dockerfile"),
        "FROM busybox AS last\nARG WHO\nRUN echo built by $WHO >/who\nCMD cat /who\nFROM last\nRUN exit 1\n",
    )
    .expect("write a Dockerfile");
    let run = |line: &str| {
        let script = format!("cd \"$0\" && DOCKER_BUILDKIT=0 docker compose {line}");
        engine.program("sh").args(["-c", &script]).arg(&folder).run()
    };
    let _ = run("up --build --no-color").ok();
    let out = run("logs --no-color --no-log-prefix app").ok();
    assert_eq!(out.text(), "built by compose");
    let _ = run("down --rmi all").ok();
    engine.end();
}

fn debians_docker_compose_builds(case: &Case) {
    let engine = Engine::start(case).with_debians_clients();
    let folder = engine.site.path("project");
    std::fs::create_dir_all(folder.join("app")).expect("make the project");
    let file = "version: '3'\nservices:\n  app:\n    build: {context: app, args: {WHO: compose}}\n    image: made:latest\n    network_mode: none\n";
    std::fs::write(folder.join("docker-compose.yml"), file).expect("write the project");
    std::fs::write(folder.join("app/Dockerfile"), "FROM busybox\nARG WHO\nRUN echo built by $WHO >/who\nCMD cat /who\n")
        .expect("write a Dockerfile");
    let old = |line: &str| {
        let script = format!("cd \"$0\"; DOCKER_BUILDKIT=0 docker-compose --project-name old {line}");
        engine.program("sh").args(["-c", &script]).arg(&folder).run()
    };
    let out = old("build --no-cache").ok();
    assert!(format!("{}{}", out.stdout, out.stderr).contains("Successfully tagged made:latest"), "{out}");
    let _ = old("up -d").ok();
    engine.wait_log("old_app_1", "built by compose");
    std::fs::write(folder.join("app/Dockerfile"), "FROM busybox\nRUN exit 3\n").expect("write a Dockerfile");
    let out = old("build");
    assert!(out.code != 0 && format!("{}{}", out.stdout, out.stderr).contains("returned a non-zero code: 3"), "{out}");
    let _ = old("down --rmi all").ok();
    engine.end();
}

/// What `docker buildx` asks of an engine for a builder of its driver `docker-container`, one by one: its binary and image are not to be had
/// here. The builder's end of the stream is `cat`.
fn the_calls_of_a_docker_container_builder(case: &Case) {
    let engine = Engine::start(case);
    let dockerfile = "FROM busybox\nRUN printf '#!/bin/sh\\n[ \"$1\" = dial-stdio ] && exec cat\\n[ -e /ready ] && cat /etc/buildkit/buildkitd.toml\\n' >/bin/buildctl && chmod +x /bin/buildctl\nENTRYPOINT [\"/bin/sh\", \"-c\", \"touch /ready; exec sleep 1000\"]";
    let _ = build(&engine, dockerfile, "-t moby/buildkit:buildx-stable-1").ok();
    let name = "/containers/buildx_buildkit_b0";
    let json = ["Content-Type: application/json"];
    let body = r#"{"Image":"moby/buildkit:buildx-stable-1","Cmd":["--allow-insecure-entitlement=network.host"],"HostConfig":{"Privileged":true,"Init":true,
        "RestartPolicy":{"Name":"unless-stopped"},"NetworkMode":"none",
        "Mounts":[{"Type":"volume","Source":"buildx_buildkit_b0_state","Target":"/var/lib/buildkit"}]}}"#;
    let _ = engine.call("POST", "/containers/create?name=buildx_buildkit_b0", body).is(201);
    // Its configuration comes as an archive before its start.
    let folder = engine.site.path("etc-of-it/etc/buildkit");
    std::fs::create_dir_all(&folder).expect("make a folder");
    std::fs::write(folder.join("buildkitd.toml"), "debug = true\n").expect("write a configuration");
    let put = format!("tar -C {} -cf - etc | curl -sf --unix-socket ${{DOCKER_HOST#unix://}} -T - 'http://d/containers/buildx_buildkit_b0/archive?path=%2F&noOverwriteDirNonDir=true'", engine.site.path("etc-of-it").display());
    case.needs(case.has_program("curl"), "no curl (package curl)");
    let _ = engine.sh(&put).ok();
    let _ = engine.call("POST", &format!("{name}/start"), "").is(204);
    let exec = |command: &str, input: bool| {
        let body = format!(r#"{{"AttachStdin":{input},"AttachStdout":true,"AttachStderr":true,"Cmd":{command}}}"#);
        let made = engine.call("POST", &format!("{name}/exec"), &body).is(201);
        let id = made.json()["Id"].as_str().expect("an id").to_owned();
        let mut http = engine.http();
        let headers = ["Connection: Upgrade", "Upgrade: tcp", json[0]];
        http.ask("POST", &format!("/exec/{id}/start"), &headers, r#"{"Detach":false,"Tty":false}"#);
        assert_eq!(http.head().status, 101);
        (id, http)
    };
    // Until it is up.
    wait_until("the workers", || {
        let (id, mut http) = exec(r#"["buildctl","debug","workers"]"#, false);
        let seen = http.frame();
        while http.frame().is_some() {}
        let code = engine.call("GET", &format!("/exec/{id}/json"), "").is(200).json()["ExitCode"].as_i64();
        let wanted = Some((1, "debug = true\n".to_owned()));
        if seen == wanted && code == Some(0) { Ok(()) } else { Err(format!("{seen:?} {code:?}")) }
    });
    // What is said goes both ways for as long as both want, and its end arrives at either side.
    let (id, mut http) = exec(r#"["buildctl","dial-stdio"]"#, true);
    let piece = "x".repeat(32 << 10);
    for _ in 0..100 {
        http.send(piece.as_bytes());
        let mut heard = 0;
        while heard < piece.len() {
            let (stream, text) = http.frame().expect("an answer");
            assert_eq!(stream, 1, "{text}");
            heard += text.len();
        }
    }
    http.half_close();
    assert_eq!(http.frame(), None);
    let ended = engine.call("GET", &format!("/exec/{id}/json"), "").is(200).json();
    assert!(ended["Running"] == false && ended["ExitCode"] == 0, "{ended}");
    // A client that goes ends the builder's side.
    let (id, http) = exec(r#"["buildctl","dial-stdio"]"#, true);
    drop(http);
    wait_until("the end of what nobody speaks to", || {
        let seen = engine.call("GET", &format!("/exec/{id}/json"), "").is(200).json();
        if seen["Running"] == false { Ok(()) } else { Err(seen.to_string()) }
    });
    let _ = engine.call("POST", &format!("{name}/stop?t=0"), "").is(204);
    let _ = engine.call("DELETE", &format!("{name}?v=1&force=1"), "").is(204);
    let _ = engine.call("DELETE", "/volumes/buildx_buildkit_b0_state", "").is(204);
    engine.end();
}

fn docker_py_builds(case: &Case) {
    let cache = std::env::var("KETCH_CACHE").unwrap_or_else(|_| "/var/cache/ketch".into());
    let python = PathBuf::from(cache).join("dockerpy-7.1.0/bin/python");
    case.needs(python.exists(), "no docker-py (ketchd_dockerpy:: makes it)");
    let engine = Engine::start(case);
    write(&engine, "Dockerfile", "FROM busybox\nARG A\nLABEL a=$A\nRUN echo $A\n");
    let script = r#"
import docker, io, sys
client = docker.from_env()
image, log = client.images.build(path=sys.argv[1], tag="py:1", buildargs={"A": "x"}, rm=True)
assert image.tags == ["py:1"] and image.labels == {"a": "x"}, image.attrs
log = list(log)
assert any("aux" in line for line in log) and any(line.get("stream") == "x\n" for line in log), log
try:
    client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 2\n"), forcerm=True)
    raise SystemExit("it did not fail")
except docker.errors.BuildError as error:
    assert "returned a non-zero code: 2" in error.msg, error.msg
try:
    client.images.build(fileobj=io.BytesIO(b"NONSENSE"))
    raise SystemExit("it did not fail")
except docker.errors.APIError as error:
    assert error.status_code == 400, error
assert client.api.prune_builds()["SpaceReclaimed"] == 0
print("built")
"#;
    let out = engine.program(&python).args(["-c", script]).arg(context(&engine)).run().ok();
    assert_eq!(out.text(), "built");
    engine.end();
}

//! Files to and from containers over the archive API: what is told of them, what is refused, and a container that changes its
//! root while it is looked at.

use std::fs;

use ketch_integration::ketchd::{Answer, Engine};
use ketch_integration::race::Race;
use ketch_integration::{Case, tests, wait_until};
use serde_json::{Value, json};

tests![
    what_is_told_of_a_file,
    refusals_have_their_status,
    kinds_are_replaced_or_kept,
    volumes_of_one_that_does_not_run,
    what_is_mounted_read_only_stays_so,
    what_the_host_has_read_only_stays_so,
    devices_are_no_files,
    events_of_copies,
    nothing_else_happens_to_a_stopped_one,
    who_only_looks_holds_nobody,
    from_one_folder_of_a_stopped_one_to_another,
    links_of_a_hostile_root,
    a_race_of_links_wins_nothing,
];

/// What the header says.
fn told(engine: &Engine<'_>, answer: &Answer) -> Value {
    let header = answer.header("x-docker-container-path-stat");
    let json = engine.sh(&format!("echo {header} | base64 -d")).ok();
    serde_json::from_str(json.text()).unwrap_or_else(|e| panic!("not JSON ({e}): {answer:?}"))
}

fn archive(engine: &Engine<'_>, method: &str, query: &str) -> Answer {
    engine.call(method, &format!("/containers/box/archive?{query}"), "")
}

/// Has tar make an archive in the site, and the engine unpack it at `path`.
fn put(engine: &Engine<'_>, tar: &str, query: &str) -> Answer {
    let file = engine.site.path("put.tar");
    let _ = engine.sh(&format!("tar -cf {} {tar}", file.display())).ok();
    let bytes = fs::read(&file).expect("read the archive");
    let mut http = engine.http();
    let head = format!(
        "PUT /containers/box/archive?{query} HTTP/1.1\r\nHost: docker\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    http.send(head.as_bytes());
    http.send(&bytes);
    http.answer(false)
}

fn what_is_told_of_a_file(case: &Case) {
    let engine = Engine::start(case);
    let script = "mkdir -m 1777 /s; echo text >/s/file; chmod 4750 /s/file; ln -s ../s/./file /s/link; ln -s /none/../x /s/out; mkfifo /s/pipe; touch -d '2020-01-02 03:04:05' /s/file";
    let _ = engine.client().args(["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]).run().ok();
    let stat = |path: &str| told(&engine, &archive(&engine, "HEAD", &format!("path={path}")).is(200));
    let file = json!({"name": "file", "size": 5, "mode": 0x0080_01e8, "mtime": "2020-01-02T03:04:05Z", "linkTarget": ""});
    assert_eq!(stat("/s/file"), file);
    assert_eq!(stat("s/../s/file"), file);
    let of = |path: &str, keys: &[&str]| {
        let seen = stat(path);
        keys.iter().map(|key| seen[key].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("/s", &["name", "mode"]), [json!("s"), json!(0x8010_01ff_u32)]);
    assert_eq!(of("/s/link", &["name", "mode", "linkTarget"]), [json!("link"), json!(0x0800_01ff), json!("/s/file")]);
    assert_eq!(of("/s/out", &["linkTarget"]), [json!("/x")]);
    assert_eq!(of("/s/pipe", &["mode"]), [json!(0x0200_01a4)]);
    assert_eq!(of("/", &["name"]), [json!("/")]);
    let answer = archive(&engine, "GET", "path=/s/file").is(200);
    assert_eq!(answer.header("content-type"), "application/x-tar");
    assert_eq!(told(&engine, &answer), file);
    let zipped = engine.http().call("GET", "/containers/box/archive?path=/s", &["Accept-Encoding: gzip, deflate"], "");
    assert_eq!(zipped.is(200).header("content-encoding"), "gzip");
    engine.end();
}

fn refusals_have_their_status(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'ln -s l /l; echo x >/file'").ok();
    for method in ["GET", "PUT"] {
        assert_eq!(archive(&engine, method, "").refuses(400), "bad parameter: pathcannot be empty");
        let none = engine.call(method, "/containers/none/archive?path=/", "");
        assert_eq!(none.refuses(404), "No such container: none");
        assert_eq!(archive(&engine, method, "path=/none").refuses(404), "Could not find the file /none in container box");
    }
    let _ = archive(&engine, "HEAD", "path=/none").is(404);
    let _ = archive(&engine, "HEAD", "path=/file/").is(500);
    assert_eq!(archive(&engine, "GET", "path=/file/").refuses(500), "lstat /file/: not a directory");
    assert_eq!(archive(&engine, "GET", "path=/l/x").refuses(500), "lstat /l/x: too many levels of symbolic links");
    assert_eq!(archive(&engine, "PUT", "path=/l").refuses(500), "EvalSymlinks: too many links");
    assert_eq!(archive(&engine, "PUT", "path=/file").refuses(400), "extraction point is not a directory");
    assert_eq!(archive(&engine, "PUT", "path=/file/").refuses(500), "lstat /file/: not a directory");
    assert_eq!(archive(&engine, "PUT", "path=/file/x").refuses(500), "not a directory");
    // An empty body is an empty archive.
    let _ = archive(&engine, "PUT", "path=/tmp").is(200);
    engine.end();
}

fn kinds_are_replaced_or_kept(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'mkdir -p /w/a/deep; echo x >/w/b'").ok();
    let folder = engine.site.path("in");
    fs::create_dir_all(folder.join("b")).expect("make a folder");
    fs::write(folder.join("a"), "new").expect("write a file");
    let at = folder.display();
    let refused = put(&engine, &format!("-C {at} a"), "path=/w&noOverwriteDirNonDir=1").refuses(500);
    assert_eq!(refused, "cannot overwrite directory \"a\" with non-directory \"/w\"");
    let refused = put(&engine, &format!("-C {at} b"), "path=/w&noOverwriteDirNonDir=true").refuses(500);
    assert_eq!(refused, "cannot overwrite non-directory \"b\" with directory \"/w\"");
    let _ = put(&engine, &format!("-C {at} a b"), "path=/w").is(200);
    let list = engine.sh("docker cp box:/w - | tar -tf - | xargs").ok();
    assert_eq!(list.text(), "w/ w/a w/b/");
    engine.end();
}

fn volumes_of_one_that_does_not_run(case: &Case) {
    let engine = Engine::start(case);
    let bound = engine.site.path("bound");
    fs::create_dir_all(bound.join("deep")).expect("make a folder");
    fs::write(bound.join("deep/file"), "bound").expect("write a file");
    let _ = engine
        .client()
        .args(["create", "--name", "box", "--network", "none", "-v", "vol:/etc", "-v"])
        .arg(format!("{}:/made/by/this", bound.display()))
        .args(["-v", "inner:/made/by/this/deep/inner", "busybox", "true"])
        .run()
        .ok();
    // The image's files are in the new volume already.
    assert!(engine.sh("docker cp box:/etc/passwd - | tar -xOf -").ok().text().contains("root:"));
    assert_eq!(engine.sh("docker cp box:/made/by/this/deep/file - | tar -xOf -").ok().text(), "bound");
    let file = engine.site.path("file");
    fs::write(&file, "put").expect("write a file");
    for place in ["/etc/put", "/made/by/this/put", "/made/by/this/deep/inner/put"] {
        let _ = engine.client().arg("cp").arg(&file).arg(format!("box:{place}")).run().ok();
    }
    assert_eq!(fs::read_to_string(bound.join("put")).expect("what was put"), "put");
    let seen = engine.docker("run --rm --network none -v vol:/a -v inner:/b busybox cat /a/put /b/put").ok();
    assert_eq!(seen.text(), "putput");
    assert!(engine.site.mounts(&engine.site.path("data/volumes")).is_empty());
    engine.end();
}

fn what_is_mounted_read_only_stays_so(case: &Case) {
    let engine = Engine::start(case);
    let bound = engine.site.path("bound");
    fs::create_dir_all(bound.join("deep")).expect("make a folder");
    let _ = engine
        .client()
        .args(["run", "-d", "--name", "box", "--network", "none", "-v"])
        .arg(format!("{}:/w/ro:ro", bound.display()))
        .args(["busybox", "sleep", "1000"])
        .run()
        .ok();
    let folder = engine.site.path("in");
    fs::create_dir_all(folder.join("ro/deep")).expect("make a folder");
    fs::write(folder.join("ro/deep/file"), "x").expect("write a file");
    let tar = format!("-C {} ro", folder.display());
    assert_eq!(put(&engine, &tar, "path=/w/ro/deep").refuses(400), "mounted volume is marked read-only");
    // Into the root, and by names of the archive's into what is mounted there.
    let refused = put(&engine, &tar, "path=/w").refuses(500);
    assert!(refused.contains("read-only file system"), "{refused}");
    let refused = put(&engine, &format!("-C {} deep", folder.join("ro").display()), "path=/w/ro/../ro").refuses(400);
    assert_eq!(refused, "mounted volume is marked read-only");
    assert_eq!(fs::read_dir(bound.join("deep")).expect("the folder").count(), 0);
    engine.end();
}

fn what_the_host_has_read_only_stays_so(case: &Case) {
    let engine = Engine::start(case);
    let bound = engine.site.path("bound");
    let script = "mkdir -p $0/deep && mount --bind $0 $0 && mount -o remount,bind,ro $0";
    let _ = engine.program("sh").args(["-c", script]).arg(&bound).run().ok();
    let _ = engine.docker(&format!("create --name box --network none -v {}:/w busybox sleep 1000", bound.display())).ok();
    fs::write(engine.site.path("file"), "x").expect("write a file");
    let tar = format!("-C {} file", engine.site.dir.display());
    for state in ["created", "running"] {
        let refused = put(&engine, &tar, "path=/w/deep").refuses(500);
        assert!(refused.contains("read-only file system"), "{state}: {refused}");
        let _ = engine.docker("start box").ok();
    }
    let _ = engine.docker("rm -f box").ok();
    let _ = engine.program("umount").arg(&bound).run().ok();
    engine.end();
}

fn devices_are_no_files(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'mkdir /w; mknod /w/null c 1 3; mknod /w/disk b 7 0; mkfifo /w/pipe; echo x >/w/z; sleep 1000'").ok();
    wait_until("the files", || match engine.docker("exec box ls /w/z") {
        out if out.code == 0 => Ok(()),
        out => Err(out.to_string()),
    });
    let list = engine.sh("docker cp box:/w - | tar -tvf - | cut -c 1").ok();
    assert_eq!(list.text(), "d\nb\nc\np\n-");
    engine.end();
}

fn events_of_copies(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none busybox").ok();
    // Not at once: either waits for the other's end.
    let _ = engine.sh("docker cp box:/etc/passwd - >$DOCKER_CONFIG/tar && docker cp - box:/tmp <$DOCKER_CONFIG/tar").ok();
    // The command line has whole seconds for the end.
    let listen = "docker events --since 1m --until 0s --filter container=box --format '{{.Action}}' | xargs";
    wait_until("the events", || match engine.sh(listen).ok() {
        out if out.text() == "create archive-path extract-to-dir" => Ok(()),
        out => Err(out.to_string()),
    });
    engine.end();
}

/// A start waits for the copy's end, and both are done.
fn nothing_else_happens_to_a_stopped_one(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none busybox cat /tmp/last").ok();
    let mut http = engine.http();
    let tar = engine.site.path("slow.tar");
    fs::write(engine.site.path("last"), "whole\n").expect("write a file");
    let _ = engine.sh(&format!("tar -C {} -cf {} last", engine.site.dir.display(), tar.display())).ok();
    let bytes = fs::read(&tar).expect("read the archive");
    let head = format!("PUT /containers/box/archive?path=/tmp HTTP/1.1\r\nHost: docker\r\nContent-Length: {}\r\n\r\n", bytes.len());
    http.send(head.as_bytes());
    http.send(&bytes[..100]);
    let out = std::thread::scope(|scope| {
        let started = scope.spawn(|| engine.docker("start -a box"));
        http.send(&bytes[100..]);
        assert_eq!(http.answer(false).status, 200);
        started.join().expect("the start")
    });
    assert!(out.code == 0 || out.stderr.contains("/tmp/last"), "{out}");
    assert_eq!(engine.docker("start -a box").ok().text(), "whole");
    engine.end();
}

/// A client that does not read what it has asked for keeps nobody from the container, and still gets it.
fn who_only_looks_holds_nobody(case: &Case) {
    let engine = Engine::start(case);
    engine.only_ketch("it holds the container's lock, and even inspect waits");
    let script = "dd if=/dev/zero of=/big bs=1M count=24; rm -r /tmp; touch -d '2020-01-02 03:04:05' /";
    let _ = engine.client().args(["run", "--name", "box", "--network", "none", "-v", "vol:/made/for/it", "busybox", "sh", "-c", script]).run().ok();
    let before = engine.docker("diff box").ok().text().to_owned();
    let mut slow = engine.http();
    slow.ask("GET", "/containers/box/archive?path=/big", &[], "");
    assert_eq!(slow.head().status, 200);
    assert_eq!(engine.docker("diff box").ok().text(), before, "to look changes nothing");
    let _ = archive(&engine, "HEAD", "path=/big").is(200);
    assert_eq!(archive(&engine, "HEAD", "path=/tmp").status, 404);
    assert_eq!(told(&engine, &archive(&engine, "HEAD", "path=/").is(200))["mtime"], "2020-01-02T03:04:05Z");
    let _ = archive(&engine, "HEAD", "path=/made/for/it").is(200);
    let _ = engine.docker("start -a box").ok();
    let _ = engine.docker("rm box").ok();
    let _ = engine.docker("volume rm vol").ok();
    let mut bytes = 0;
    while let Some(chunk) = slow.chunk() {
        bytes += chunk.len();
    }
    assert!(bytes > 1 << 20, "{bytes}");
    engine.end();
}

/// Both ends are the same container: neither may wait for the other's lock.
fn from_one_folder_of_a_stopped_one_to_another(case: &Case) {
    let engine = Engine::start(case);
    engine.only_ketch("the two wait for each other for ever");
    let script = "mkdir /from /to; dd if=/dev/urandom of=/from/big bs=1M count=8";
    let _ = engine.client().args(["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]).run().ok();
    for _ in 0..5 {
        let _ = engine.sh("timeout 60 docker cp box:/from/big - | timeout 60 docker cp - box:/to").ok();
    }
    let _ = engine.docker("cp box:/from/big one").ok();
    let _ = engine.docker("cp box:/to/big two").ok();
    let _ = engine.sh("cmp one two && rm one two").ok();
    engine.end();
}

fn links_of_a_hostile_root(case: &Case) {
    let engine = Engine::start(case);
    let outside = engine.site.path("outside");
    fs::create_dir_all(&outside).expect("make a folder");
    fs::write(outside.join("secret"), "of the host").expect("write a file");
    let script = format!("ln -s {0} /abs; ln -s /../../../../../../..{0} /up; ln -s /proc/1/root /proc1; ln -s /proc/self/fd /fds; sleep 1000", outside.display());
    let _ = engine.client().args(["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", &script]).run().ok();
    wait_until("the links", || match engine.docker("exec box ls -d /fds") {
        out if out.code == 0 => Ok(()),
        out => Err(out.to_string()),
    });
    for running in [true, false] {
        if !running {
            let _ = engine.docker("kill box").ok();
        }
        for link in ["abs", "up", "proc1", "fds", "proc1/proc/1/root", "abs/secret", "up/secret"] {
            let answer = archive(&engine, "GET", &format!("path=/{link}/"));
            assert!(!answer.body.contains("of the host"), "{link}: {answer:?}");
            let answer = put(&engine, &format!("-C {} secret", outside.display()), &format!("path=/{link}"));
            assert!(answer.status >= 400, "{link}: {answer:?}");
        }
    }
    assert_eq!(fs::read_dir(&outside).expect("the folder").count(), 1);
    engine.end();
}

/// CVE-2018-15664: a folder of the path is a link to the root for a moment, between its look-up and its use.
fn a_race_of_links_wins_nothing(case: &Case) {
    let engine = Engine::start(case);
    let outside = engine.site.path("outside");
    fs::create_dir_all(&outside).expect("make a folder");
    fs::write(outside.join("which"), "of the host").expect("write a file");
    fs::write(engine.site.path("put"), "put").expect("write a file");
    let at = outside.display();
    let script = format!(
        "mkdir -p {at} /folder{at}; echo inside >{at}/which; echo inside >/folder{at}/which; \
         while :; do mv /folder /race; mv /race /folder; ln -s / /race; rm /race; ln -s /proc/self/root /race; rm /race; done"
    );
    let _ = engine.client().args(["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", &script]).run().ok();
    let tar = engine.site.path("race.tar");
    let _ = engine.sh(&format!("tar -C {} -cf {} put", engine.site.dir.display(), tar.display())).ok();
    let bytes = fs::read(&tar).expect("read the archive");
    let (mut read, mut written) = (0, 0);
    for _ in Race::of(case, 300) {
        // What has gone by the time it is read cuts the connection: whatever has come is looked at.
        let mut http = engine.http();
        http.ask("GET", &format!("/containers/box/archive?path=/race{at}/which"), &["Connection: close"], "");
        let answer = String::from_utf8_lossy(&http.rest()).into_owned();
        assert!(!answer.contains("of the host"), "a file of the host: {answer:?}");
        read += usize::from(answer.contains("inside"));
        let mut http = engine.http();
        let head = format!("PUT /containers/box/archive?path=/race{at} HTTP/1.1\r\nHost: docker\r\nContent-Length: {}\r\n\r\n", bytes.len());
        http.send(head.as_bytes());
        http.send(&bytes);
        written += usize::from(http.answer(false).status == 200);
        assert!(!outside.join("put").exists(), "a file on the host");
    }
    println!("read {read} times and written {written} times inside");
    assert!(read > 0 && written > 0, "no round has come through: {read}, {written}");
    assert_eq!(fs::read_to_string(outside.join("which")).expect("the host's file"), "of the host");
    engine.end();
}

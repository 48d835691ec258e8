//! Streams: logs in every form, exec and attach with and without a terminal, what is typed and its end, over the command line and raw.

use ketch_integration::console::Terminal;
use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};

tests![
    logs_of_both_streams,
    logs_with_times_and_tail,
    logs_since_and_until,
    logs_followed_to_the_end,
    logs_over_raw_http,
    logs_without_a_reader,
    logs_rotate,
    exec_output_and_codes,
    exec_codes_are_there_when_the_stream_ends,
    exec_settings,
    exec_with_a_terminal,
    exec_of_typed_input,
    exec_detached_and_inspected,
    exec_over_raw_http,
    run_with_typed_input,
    run_with_a_terminal,
    attach_ends_with_the_container,
    attach_half_close_over_raw_http,
    attach_by_websocket,
    attach_with_logs,
    attach_detaches_by_keys,
    a_terminal_is_resized,
];

fn logs_of_both_streams(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'echo out; echo err >&2; printf tail'").ok();
    let out = engine.docker("logs box").ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("out\ntail", "err\n"));
    let _ = engine.docker("run --name tty -t --network none busybox sh -c 'echo out; echo err >&2'").ok();
    assert_eq!(engine.docker("logs tty").ok().stdout, "out\r\nerr\r\n");
    let log = engine.inspect("box", "{{.LogPath}}");
    let log = std::fs::read_to_string(log).expect("the log's file");
    assert!(log.lines().any(|line| line.starts_with(r#"{"log":"out\n","stream":"stdout","time":""#)), "{log}");
    let _ = engine.docker("run --name long --network none busybox sh -c 'head -c 40000 /dev/zero | tr \"\\0\" x; echo'").ok();
    assert_eq!(engine.docker("logs long").ok().stdout.len(), 40_001);
    engine.end();
}

fn logs_with_times_and_tail(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none -l l=v --log-opt labels=l busybox seq 1 100").ok();
    assert_eq!(engine.docker("logs --tail 3 box").ok().text(), "98\n99\n100");
    assert_eq!(engine.docker("logs --tail 0 box").ok().text(), "");
    assert_eq!(engine.docker("logs -n all box").ok().text().lines().count(), 100);
    let out = engine.docker("logs -t --tail 1 box").ok();
    let (time, line) = out.text().split_once(' ').expect("a time and a line");
    assert_eq!((time.len(), line), (30, "100"), "{out}");
    assert_eq!(engine.docker("logs --details --tail 1 box").ok().text(), "l=v 100");
    engine.end();
}

fn logs_since_and_until(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'echo one; until test -e /go; do sleep 0.02; done; echo two'").ok();
    engine.wait_log("box", "one");
    // Clocks of a log are the daemon's: a line's own time divides them.
    let first = engine.docker("logs -t box").ok().text().split(' ').next().unwrap_or_default().to_owned();
    let _ = engine.docker("exec box touch /go").ok();
    let _ = engine.docker("wait box").ok();
    let second = engine.docker("logs -t --tail 1 box").ok().text().split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(engine.docker(&format!("logs --since {second} box")).ok().text(), "two");
    assert_eq!(engine.docker(&format!("logs --until {first} box")).ok().text(), "one");
    assert_eq!(engine.docker("logs --since 1h box").ok().text(), "one\ntwo");
    assert_eq!(engine.docker("logs --until 1h box").ok().text(), "");
    engine.end();
}

fn logs_followed_to_the_end(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'echo one; until test -e /go; do sleep 0.02; done; echo two'").ok();
    let following = engine.client().args(["logs", "-f", "box"]).spawn();
    wait_until("the first line", || if following.stdout_now() == "one\n" { Ok(()) } else { Err(following.stdout_now()) });
    let _ = engine.docker("exec box touch /go").ok();
    assert_eq!(following.wait().ok().text(), "one\ntwo");
    assert_eq!(engine.docker("logs -f box").ok().text(), "one\ntwo");
    engine.end();
}

fn logs_over_raw_http(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'echo out; echo err >&2'").ok();
    let answer = engine.call("GET", "/containers/box/logs?stdout=1", "").is(200);
    assert_eq!(answer.header("content-type"), "application/vnd.docker.multiplexed-stream");
    assert_eq!(answer.body, "\u{1}\0\0\0\0\0\0\u{4}out\n");
    let old = engine.call("GET", "/v1.41/containers/box/logs?stderr=1", "").is(200);
    assert_eq!(old.body, "\u{2}\0\0\0\0\0\0\u{4}err\n");
    let none = engine.call("GET", "/containers/box/logs", "").refuses(400);
    assert_eq!(none, "Bad parameters: you must choose at least one stream");
    // The head comes before the first line does.
    let _ = engine.docker("run -d --name quiet --network none busybox sleep 1000").ok();
    let mut http = engine.http();
    http.ask("GET", "/containers/quiet/logs?stdout=1&follow=1", &[], "");
    assert_eq!(http.head().status, 200);
    engine.end();
}

fn logs_without_a_reader(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none --log-driver none busybox echo out").ok();
    let answer = engine.call("GET", "/containers/box/logs?stdout=1", "");
    assert_eq!(answer.refuses(501), "configured logging driver does not support reading");
    let _ = engine.docker("run --name local --network none --log-driver local busybox sh -c 'echo out; echo err >&2'").ok();
    let out = engine.docker("logs local").ok();
    assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
    if !engine.is_ketch() {
        // dockerd says the same after asking for a plugin for fifteen seconds.
        return engine.end();
    }
    let out = engine.docker("run --rm --network none --log-driver nonsense busybox true").exits(125);
    assert!(out.stderr.contains("error looking up logging plugin nonsense: plugin \"nonsense\" not found"), "{out}");
    engine.end();
}

fn logs_rotate(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none --log-opt max-size=20k --log-opt max-file=3 --log-opt compress=true busybox seq 1 5000").ok();
    let folder = engine.inspect("box", "{{.LogPath}}");
    let folder = std::path::Path::new(&folder).parent().expect("a folder");
    wait_until("the log's files", || {
        let mut names: Vec<_> = std::fs::read_dir(folder).expect("list").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name.contains("-json.log")).collect();
        names.sort();
        let ends: Vec<_> = names.iter().filter_map(|name| name.split_once("-json.log")).map(|(_, end)| end.to_owned()).collect();
        if ends == ["", ".1.gz", ".2.gz"] || ends == ["", ".1", ".2.gz"] { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let text = engine.docker("logs box").ok();
    assert!(text.text().ends_with("4999\n5000"), "{}", text.text().len());
    assert_eq!(engine.docker("logs --tail 2 box").ok().text(), "4999\n5000");
    engine.end();
}

fn box_up(engine: &Engine<'_>, flags: &str) -> String {
    engine.docker(&format!("run -d --name box --network none {flags} busybox sleep 1000")).ok().text().to_owned()
}

fn exec_output_and_codes(case: &Case) {
    let engine = Engine::start(case);
    let _ = box_up(&engine, "");
    let out = engine.docker("exec box sh -c 'echo out; echo err >&2; exit 7'").exits(7);
    assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
    let out = engine.docker("exec box nonsense").exits(127);
    assert!(format!("{}{}", out.stdout, out.stderr).contains("exec: \"nonsense\": executable file not found in $PATH"), "{out}");
    let _ = engine.docker("exec box /etc/passwd").exits(126);
    let _ = engine.docker("exec box sh -c 'kill -9 $$'").exits(137);
    let big = engine.docker("exec box sh -c 'yes 0123456789abcde | head -n 300000'").ok();
    assert_eq!(big.stdout.len(), 4_800_000);
    let _ = engine.docker("stop -t 0 box").ok();
    let out = engine.docker("exec box true").exits(1);
    assert!(out.stderr.contains(&format!("container {} is not running", engine.inspect("box", "{{.Id}}"))), "{out}");
    engine.end();
}

/// The client asks for the code as soon as the output ends, and takes none for 0.
fn exec_codes_are_there_when_the_stream_ends(case: &Case) {
    let engine = Engine::start(case);
    let _ = box_up(&engine, "");
    for _ in 0..30 {
        let _ = engine.docker("exec box sh -c 'echo out; exit 7'").exits(7);
    }
    engine.end();
}

fn exec_settings(case: &Case) {
    let engine = Engine::start(case);
    let _ = box_up(&engine, "-e FROM=container --cap-drop ALL");
    let out = engine.docker("exec -w /tmp -u user -e A=b box sh -c 'pwd; id -u; echo $A $FROM'").ok();
    assert_eq!(out.text(), "/tmp\n1000\nb container");
    assert_eq!(engine.docker("exec box grep CapEff /proc/self/status").ok().text(), "CapEff:\t0000000000000000");
    let privileged = engine.docker("exec --privileged box grep CapEff /proc/self/status").ok();
    assert_ne!(privileged.text(), "CapEff:\t0000000000000000");
    engine.end();
}

fn exec_with_a_terminal(case: &Case) {
    let engine = Engine::start(case);
    let _ = box_up(&engine, "");
    let (mut terminal, slave) = Terminal::open();
    let running = engine.client().args(["exec", "-it", "box", "sh"]).terminal(slave).spawn();
    terminal.send("tty; echo e''nd\n");
    let seen = terminal.expect("end\r\n");
    assert!(seen.contains("/dev/pts/"), "{seen}");
    terminal.send("exit 8\n");
    let _ = running.wait().exits(8);
    engine.end();
}

fn exec_of_typed_input(case: &Case) {
    let engine = Engine::start(case);
    let _ = box_up(&engine, "");
    assert_eq!(engine.client().args(["exec", "-i", "box", "cat"]).stdin("through and back").run().ok().text(), "through and back");
    let much = "x".repeat(3_000_000);
    assert_eq!(engine.client().args(["exec", "-i", "box", "wc", "-c"]).stdin(much).run().ok().text(), "3000000");
    engine.end();
}

fn exec_detached_and_inspected(case: &Case) {
    let engine = Engine::start(case);
    let id = box_up(&engine, "");
    let exec = engine.call("POST", "/containers/box/exec", r#"{"Cmd":["sh","-c","until test -e /go; do sleep 0.02; done; exit 5"],"Env":["A=b"]}"#).is(201);
    let exec = exec.json()["Id"].as_str().unwrap_or_default().to_owned();
    let inspect = || engine.call("GET", &format!("/exec/{exec}/json"), "").is(200).json();
    let before = inspect();
    assert_eq!((before["Running"].as_bool(), before["ExitCode"].is_null(), before["ContainerID"].as_str()), (Some(false), true, Some(id.as_str())), "{before}");
    assert_eq!(before["ProcessConfig"]["entrypoint"], "sh");
    let started = engine.call("POST", &format!("/exec/{exec}/start"), r#"{"Detach":true}"#).is(200);
    assert_eq!(started.body, "");
    let during = inspect();
    assert!(during["Running"] == true && during["Pid"].as_u64().is_some_and(|pid| pid > 0), "{during}");
    assert_eq!(engine.inspect("box", "{{len .ExecIDs}}"), "1");
    let again = engine.call("POST", &format!("/exec/{exec}/start"), r#"{"Detach":true}"#);
    assert_eq!(again.refuses(409), format!("exec command {exec} is already running"));
    let _ = engine.docker("exec box touch /go").ok();
    wait_until("the exec's end", || if inspect()["ExitCode"] == 5 { Ok(()) } else { Err(inspect().to_string()) });
    assert_eq!(inspect()["Running"], false);
    engine.end();
}

fn exec_over_raw_http(case: &Case) {
    let engine = Engine::start(case);
    let _ = box_up(&engine, "");
    let create = |body: &str| engine.call("POST", "/containers/box/exec", body).is(201).json()["Id"].as_str().unwrap_or_default().to_owned();
    let upgrade = ["Content-Type: application/json", "Connection: Upgrade", "Upgrade: tcp"];
    let exec = create(r#"{"AttachStdin":true,"AttachStdout":true,"AttachStderr":true,"Cmd":["sh","-c","cat; echo err >&2; exit 3"]}"#);
    let mut http = engine.http();
    http.ask("POST", &format!("/exec/{exec}/start"), &upgrade, r#"{"Detach":false,"Tty":false}"#);
    let head = http.head();
    assert_eq!(head.line, "HTTP/1.1 101 UPGRADED");
    assert_eq!(head.header("content-type"), "application/vnd.docker.multiplexed-stream");
    assert_eq!((head.header("connection"), head.header("upgrade")), ("Upgrade", "tcp"));
    http.send(b"typed\n");
    assert_eq!(http.frame(), Some((1, "typed\n".to_owned())));
    http.half_close();
    assert_eq!(http.frame(), Some((2, "err\n".to_owned())));
    assert_eq!(http.frame(), None);
    let exec = create(r#"{"AttachStdout":true,"Tty":true,"Cmd":["echo","raw"]}"#);
    let mut http = engine.http();
    http.ask("POST", &format!("/exec/{exec}/start"), &["Content-Type: application/json"], r#"{"Tty":true}"#);
    let head = http.head();
    assert_eq!((head.status, head.header("content-type")), (200, "application/vnd.docker.raw-stream"));
    assert_eq!(String::from_utf8_lossy(&http.rest()), "raw\r\n");
    let none = engine.call("POST", "/containers/box/exec", "{}").refuses(400);
    assert_eq!(none, "No exec command specified");
    engine.end();
}

fn run_with_typed_input(case: &Case) {
    let engine = Engine::start(case);
    let run = |words: &[&str], typed: &str| engine.client().args(["run", "--rm", "-i", "--network", "none", "busybox"]).args(words).stdin(typed).run().ok();
    assert_eq!(run(&["cat"], "through and back").text(), "through and back");
    assert_eq!(run(&["cat"], "").text(), "");
    assert_eq!(run(&["sh", "-c", "cat >/dev/null; echo after"], "x").text(), "after");
    assert_eq!(run(&["wc", "-c"], &"x".repeat(3_000_000)).text(), "3000000");
    let ends = engine.client().args(["run", "--rm", "-i", "--network", "none", "busybox", "true"]).stdin("unread").run();
    assert_eq!(ends.code, 0, "{ends}");
    engine.end();
}

fn run_with_a_terminal(case: &Case) {
    let engine = Engine::start(case);
    let (mut terminal, slave) = Terminal::open();
    let script = "test -t 0 && test -t 1 && read word && echo got $word; cat; exit 9";
    let running = engine.client().args(["run", "--rm", "-it", "--network", "none", "busybox", "sh", "-c", script]).terminal(slave).spawn();
    terminal.send("word\n");
    let _ = terminal.expect("got word\r\n");
    terminal.send("echoed\n");
    let _ = terminal.expect("echoed\r\nechoed\r\n");
    terminal.send("\x04");
    let _ = running.wait().exits(9);
    engine.end();
}

fn attach_ends_with_the_container(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name box --network none busybox sh -c 'until test -e /go; do sleep 0.02; done; echo out; echo err >&2; exit 4'").ok();
    let attached = engine.client().args(["attach", "box"]).spawn();
    wait_until("the attachment", || {
        let out = engine.docker("events --since 1h --until 0s --filter event=attach");
        if out.text().is_empty() { Err(out.to_string()) } else { Ok(()) }
    });
    let _ = engine.docker("exec box touch /go").ok();
    let out = attached.wait().exits(4);
    assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
    let out = engine.docker("attach box").exits(1);
    assert!(out.stderr.contains("cannot attach to a stopped container, start it first"), "{out}");
    engine.end();
}

fn attach_half_close_over_raw_http(case: &Case) {
    let engine = Engine::start(case);
    let body = r#"{"Image":"busybox","Cmd":["sh","-c","cat; echo after"],"OpenStdin":true,"StdinOnce":true,"HostConfig":{"NetworkMode":"none"}}"#;
    let _ = engine.call("POST", "/containers/create?name=box", body).is(201);
    let mut http = engine.http();
    http.ask("POST", "/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1", &["Connection: Upgrade", "Upgrade: tcp"], "");
    let head = http.head();
    assert_eq!(head.line, "HTTP/1.1 101 UPGRADED");
    assert_eq!(head.header("content-type"), "application/vnd.docker.multiplexed-stream");
    let _ = engine.call("POST", "/containers/box/start", "").is(204);
    http.send(b"typed\n");
    assert_eq!(http.frame(), Some((1, "typed\n".to_owned())));
    http.half_close();
    assert_eq!(http.frame(), Some((1, "after\n".to_owned())));
    assert_eq!(http.frame(), None);
    engine.wait_inspect("box", "{{.State.Status}} {{.State.ExitCode}}", "exited 0");
    engine.end();
}

fn attach_with_logs(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'echo out; echo err >&2'").ok();
    let mut http = engine.http();
    http.ask("POST", "/containers/box/attach?logs=1&stdout=1&stderr=1", &[], "");
    let head = http.head();
    assert_eq!((head.status, head.header("content-type")), (200, "application/vnd.docker.raw-stream"));
    // Which of the two streams was read first is chance.
    let mut frames: Vec<_> = std::iter::from_fn(|| http.frame()).collect();
    frames.sort();
    assert_eq!(frames, [(1, "out\n".to_owned()), (2, "err\n".to_owned())]);
    engine.end();
}

fn attach_detaches_by_keys(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -dit --name box --network none busybox sh").ok();
    let (mut terminal, slave) = Terminal::open();
    let attached = engine.client().args(["attach", "box"]).terminal(slave).spawn();
    terminal.send("echo he''re\n");
    let _ = terminal.expect("here\r\n");
    terminal.send("\x10\x11");
    let _ = terminal.expect("read escape sequence");
    let _ = attached.wait().exits(1);
    assert_eq!(engine.inspect("box", "{{.State.Running}}"), "true");
    engine.end();
}

fn a_terminal_is_resized(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -dit --name box --network none busybox sh").ok();
    let _ = engine.call("POST", "/containers/box/resize?h=33&w=77", "").is(200);
    let _ = engine.docker("exec box sh -c 'stty size </dev/console >/tmp/size'").code;
    let mut http = engine.http();
    http.ask("POST", "/containers/box/attach?stream=1&stdin=1&stdout=1", &["Connection: Upgrade", "Upgrade: tcp"], "");
    assert_eq!(http.head().header("content-type"), "application/vnd.docker.raw-stream");
    http.send(b"stty size >/tmp/size\n");
    wait_until("the terminal's size", || {
        let seen = engine.docker("exec box cat /tmp/size");
        if seen.text() == "33 77" { Ok(()) } else { Err(seen.to_string()) }
    });
    let _ = engine.call("POST", "/containers/box/resize?h=x&w=77", "").refuses(400);
    let exec = engine.call("POST", "/containers/box/exec", r#"{"AttachStdout":true,"Tty":true,"ConsoleSize":[44,88],"Cmd":["stty","size"]}"#).is(201).json();
    let mut http = engine.http();
    http.ask("POST", &format!("/exec/{}/start", exec["Id"].as_str().unwrap_or_default()), &["Content-Type: application/json"], r#"{"Tty":true,"ConsoleSize":[44,88]}"#);
    let _ = http.head();
    // stty asks its standard input, which is the terminal all the same.
    assert_eq!(String::from_utf8_lossy(&http.rest()).trim(), "44 88");
    engine.end();
}

/// What a server's binary messages hold, one after the other; each is short, whole and not masked (RFC 6455, 5.2).
fn binary_messages(mut frames: &[u8]) -> String {
    let mut text = String::new();
    while let [kind, length, rest @ ..] = frames {
        let (payload, others) = rest.split_at(usize::from(*length));
        if *kind == 0x82 {
            text += &String::from_utf8_lossy(payload);
        }
        frames = others;
    }
    text
}

fn attach_by_websocket(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d -i --name box --network none busybox sh -c 'read line; echo got $line; echo err >&2'").ok();
    let mut http = engine.http();
    let path = "/v1.50/containers/box/attach/ws?stream=1&stdin=1&stdout=1&stderr=1";
    // The key of RFC 6455's example.
    let headers = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Origin: http://docker",
    ];
    http.ask("GET", path, &headers, "");
    let head = http.head();
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    // In two pieces, the second masked.
    http.send(b"\x01\x82\0\0\0\0li");
    http.send(b"\x80\x83\x01\x02\x03\x04og\x09");
    let text = binary_messages(&http.rest());
    // Two streams, in no order; what comes together may be one message.
    assert!(matches!(text.as_str(), "got line\nerr\n" | "err\ngot line\n"), "{text:?}");
    let _ = engine.call("GET", "/containers/none/attach/ws?stream=1", "").refuses(404);
    engine.end();
}

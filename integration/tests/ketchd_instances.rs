//! Several engines in one network namespace, and somebody who flushes everybody's rules.


use std::time::Instant;

use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::{Case, tests, wait_until};

tests![three_side_by_side, a_flush_under_published_ports];

fn ours(case: &Case) -> Maker {
    let maker = Maker::under_test(case);
    case.needs(maker != Maker::Docker, "dockerd: one in a network namespace; what was flushed comes back with its next start");
    maker
}

fn rules(engine: &Engine<'_>) -> String {
    engine.sh("nft list ruleset").ok().stdout
}

fn web(engine: &Engine<'_>, port: u16) {
    let _ = engine.docker(&format!("run -d --name web -p {port}:80 busybox httpd -f -p 80 -h /etc")).ok();
}

fn is_reached(engine: &Engine<'_>, port: u16) {
    wait_until("a page", || {
        let out = engine.sh(&format!("busybox timeout 5 busybox wget -qO- http://127.0.0.1:{port}/group"));
        if out.code == 0 && out.text().contains("extra:x:2000:user") { Ok(()) } else { Err(out.to_string()) }
    });
}

fn three_side_by_side(case: &Case) {
    let maker = ours(case);
    let site = ketch_integration::site::Site::new(case);
    // Somebody's bridge is there already, with an address of its own.
    let _ = site.run("sh", ["-c", "ip link add docker0 type bridge && ip address add 10.84.0.1/16 dev docker0"]).ok();
    let first = Engine::inside(site, maker, &[]);
    first.load_busybox();
    let other = |name: &str, flags: &[&str]| {
        let engine = first.another_with(name, flags);
        engine.load_busybox();
        engine
    };
    let second = other("second", &[]);
    web(&first, 8081);
    web(&second, 8082);
    let with_two = rules(&first);
    assert_eq!(with_two.lines().filter(|line| line.starts_with("table ip ketch-")).count(), 2, "{with_two}");
    let third = other("third", &["--iptables=false"]);
    web(&third, 8083);
    assert_eq!(rules(&first), with_two, "--iptables=false touches no rule");
    let engines = [(&first, 8081), (&second, 8082), (&third, 8083)];
    let mut addresses = Vec::new();
    for (engine, port) in engines {
        is_reached(engine, port);
        addresses.push(engine.inspect("web", "{{.NetworkSettings.Networks.bridge.IPAddress}}"));
        addresses.push(engine.inspect("bridge", "{{(index .IPAM.Config 0).Subnet}}"));
        let _ = engine.docker("network create own").ok();
        let _ = engine.docker("run --rm --network own busybox true").ok();
        let subnet = engine.inspect("own", "{{(index .IPAM.Config 0).Subnet}}");
        assert!(!addresses.contains(&subnet), "{subnet}");
        addresses.push(subnet);
    }
    let mut unique = addresses.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(addresses[1], "10.84.0.0/16", "the bridge that was there is adopted by the first");
    let out = second.sh("ip -details link show docker0").ok();
    assert!(out.text().contains("alias ketchd "), "it bears its mark: {out}");
    let fourth = first.site.beside("fourth");
    let [data, exec, pid] = ["data", "exec", "pid"].map(|name| fourth.path(name).display().to_string());
    let others = second.inspect("bridge", "{{index .Options \"com.docker.network.bridge.name\"}}");
    let taken = fourth.command(first.command_line().0).args(["--config-file", "/dev/null", "--bridge", &others, "--host"]);
    let taken = taken.arg(format!("unix://{data}.sock")).args(["--data-root", &data, "--exec-root", &exec, "--pidfile", &pid]).run();
    assert!(taken.stderr.contains("is that of another ketchd"), "{taken}");
    assert_eq!(unique.len(), 9, "each address is given out once: {addresses:?}");
    // A crash and the end of one are nothing to the others.
    let mut second = second;
    second.kill();
    is_reached(&first, 8081);
    is_reached(&third, 8083);
    second.come_back();
    is_reached(&second, 8082);
    // What one removes is its own.
    let _ = third.docker("rm -f web").ok();
    is_reached(&first, 8081);
    let _ = second.docker("rm -f web").ok();
    is_reached(&first, 8081);
    let _ = first.docker("rm -f web").ok();
    for engine in [third, second, first] {
        let _ = engine.docker("network rm own").ok();
        engine.end();
    }
}

fn a_flush_under_published_ports(case: &Case) {
    let maker = ours(case);
    let engine = Engine::of(case, maker, &[]);
    engine.load_busybox();
    let _ = engine.docker("network create own").ok();
    web(&engine, 8080);
    let echo = "import socket; s = socket.socket(); s.bind(('0.0.0.0', 7)); s.listen(); c, _ = s.accept(); print('up', flush=True)\nwhile d := c.recv(99): c.sendall(d)";
    let _ = engine.docker("run -d --name echo --network own -p 8007:7 busybox sleep 1000").ok();
    let pid = engine.inspect("echo", "{{.State.Pid}}");
    let serving = engine.program("nsenter").args(["--target", &pid, "--net", "python3", "-c", echo]).spawn();
    // What is written to the client goes to the connection, and comes back.
    let client = "import socket, sys, time\nfor t in range(2000):\n  try: s = socket.create_connection(('127.0.0.1', 8007), 5); break\n  except OSError: time.sleep(0.01)\ns.settimeout(20)\ns.sendall(b'one'); print(s.recv(9).decode(), flush=True)\nimport os\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\ns.sendall(b'two'); print(s.recv(9).decode(), flush=True)";
    let go = engine.site.path("go");
    let asking = engine.program("python3").args(["-c", client]).arg(&go).spawn();
    wait_until("an answer by the connection", || if asking.stdout_now().contains("one") { Ok(()) } else { Err(format!("{} {}", asking.stderr_now(), serving.stderr_now())) });
    let before = rules(&engine);
    assert!(before.contains("8007") && before.contains("8080"), "{before}");
    let flushed = Instant::now();
    let _ = engine.sh("nft flush ruleset").ok();
    wait_until("the rules are back", || {
        let now = rules(&engine);
        if now == before { Ok(()) } else { Err(now) }
    });
    println!("{}: the rules were back {} ms after the flush had begun", case.name, flushed.elapsed().as_millis());
    std::fs::write(&go, "").expect("tell the client");
    let out = asking.wait().ok();
    assert_eq!(out.text(), "one\ntwo", "the connection lives on");
    is_reached(&engine, 8080);
    serving.signal(rustix::process::Signal::KILL);
    let _ = serving.wait();

    let _ = engine.docker("rm -f web echo").ok();
    let _ = engine.docker("network rm own").ok();
    engine.end();
}

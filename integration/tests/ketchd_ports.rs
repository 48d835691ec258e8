//! Published ports, as others on the network see them: which are reached from where, conflicts, IPv6, gateway modes, and beside
//! rules of the host's own.

use ketch_integration::ketchd::lan::Lan;
use ketch_integration::ketchd::{Engine, Maker};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_until};

tests![
    from_another_machine,
    what_is_at_loopback_stays_there,
    a_containers_own_address_is_no_door,
    routed_isolated_and_unprotected,
    ipv6_to_containers_with_and_without_it,
    datagrams_over_ipv6,
    ranges_and_conflicts,
    beside_a_hosts_policy,
    a_host_that_did_not_forward_is_no_router,
    it_forwards_for_all_when_told,
    inner_networks_reach_no_published_port,
    without_icc,
    a_port_of_sctp,
];

fn web(engine: &Engine<'_>, name: &str, flags: &str) {
    let _ = engine.docker(&format!("run -d --name {name} {flags} busybox httpd -f -p 80 -h /etc")).ok();
    wait_until("the server", || {
        let out = engine.docker(&format!("exec {name} wget -qO- http://127.0.0.1/group"));
        if out.code == 0 { Ok(()) } else { Err(out.to_string()) }
    });
}

fn reached(lan: &Lan<'_, '_>, url: &str) {
    wait_until(url, || if lan.fetches(url) { Ok(()) } else { Err("no page".to_owned()) });
}

fn here(engine: &Engine<'_>, url: &str) {
    wait_until(url, || {
        let out = engine.sh(&format!("busybox timeout 5 busybox wget -qO- {url}/group"));
        if out.code == 0 { Ok(()) } else { Err(out.to_string()) }
    });
}

fn from_another_machine(case: &Case) {
    let engine = Engine::start(case);
    let lan = Lan::new(&engine, "lan", "192.0.2");
    let _ = engine.docker("network create one").ok();
    web(&engine, "alpha", "--network one -p 8090:80 -p 192.0.2.1:8091:80");
    for port in [8090, 8091] {
        reached(&lan, &format!("http://192.0.2.1:{port}"));
    }
    // And the other way: what leaves has the machine's address, which alone the other one knows.
    let _ = lan.sh("ip route del default").ok();
    let _ = engine.docker("exec alpha ping -c 1 -W 5 192.0.2.2").ok();
    lan.end();
    engine.end();
}

fn what_is_at_loopback_stays_there(case: &Case) {
    let engine = Engine::start(case);
    let lan = Lan::new(&engine, "lan", "192.0.2");
    web(&engine, "alpha", "-p 127.0.0.1:8090:80 -p 8091:80");
    reached(&lan, "http://192.0.2.1:8091");
    assert!(!lan.fetches("http://192.0.2.1:8090"), "a port of 127.0.0.1 at the machine's other address");
    // The other machine sends what is for 127.0.0.1 over the cable, with an address that can be answered.
    let _ = lan
        .sh("echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo
            ip route add 127.0.0.1/32 via 192.0.2.1 src 192.0.2.2; ip route get 127.0.0.1")
        .ok();
    assert!(!lan.fetches("http://127.0.0.1:8090"), "a port of 127.0.0.1 is reached from the network");
    here(&engine, "http://127.0.0.1:8090");
    lan.end();
    engine.end();
}

fn a_containers_own_address_is_no_door(case: &Case) {
    let engine = Engine::start(case);
    let lan = Lan::new(&engine, "lan", "192.0.2");
    web(&engine, "alpha", "-p 8090:80");
    web(&engine, "beta", "");
    reached(&lan, "http://192.0.2.1:8090");
    for name in ["alpha", "beta"] {
        let address = engine.inspect(name, "{{.NetworkSettings.IPAddress}}");
        assert!(!lan.fetches(&format!("http://{address}")), "{name} by its own address");
        here(&engine, &format!("http://{address}"));
    }
    lan.end();
    engine.end();
}

fn routed_isolated_and_unprotected(case: &Case) {
    let engine = Engine::start(case);
    let lan = Lan::new(&engine, "lan", "192.0.2");
    let mode = "com.docker.network.bridge.gateway_mode_ipv4";
    let _ = engine.docker(&format!("network create -o {mode}=routed routed")).ok();
    let _ = engine.docker(&format!("network create -o {mode}=nat-unprotected open")).ok();
    web(&engine, "alpha", "--network routed -p 8090:80");
    web(&engine, "beta", "--network routed");
    web(&engine, "gamma", "--network open");
    let address = |name: &str, network: &str| {
        engine.inspect(name, &format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"))
    };
    reached(&lan, &format!("http://{}", address("alpha", "routed")));
    assert!(!lan.fetches("http://192.0.2.1:8090"), "nothing is translated to a routed network");
    assert!(!lan.fetches(&format!("http://{}", address("beta", "routed"))), "a port that is not published");
    reached(&lan, &format!("http://{}", address("gamma", "open")));
    let ports = engine.inspect("alpha", "{{json (index .NetworkSettings.Ports \"80/tcp\")}}");
    assert!(ports.starts_with(r#"[{"HostIp":"0.0.0.0","HostPort":""}"#), "{ports}");
    let refused = engine.docker(&format!("network create -o {mode}=isolated x")).exits(1);
    assert!(refused.stderr.contains("gateway mode 'isolated' can only be used for an internal network"), "{refused}");
    let refused = engine.docker(&format!("network create -o {mode}=zz x")).exits(1);
    assert!(refused.stderr.contains(&format!("failed to parse {mode} value: zz (unknown gateway mode zz)")), "{refused}");
    let _ = engine.docker(&format!("network create --internal -o {mode}=isolated -o com.docker.network.bridge.name=kiso isolated")).ok();
    let bridge = engine.sh("ip -4 -o addr show kiso").ok();
    assert_eq!(bridge.text(), "", "the machine has no address in an isolated network");
    web(&engine, "delta", "--network isolated");
    lan.end();
    engine.end();
}

fn ipv6_to_containers_with_and_without_it(case: &Case) {
    let engine = Engine::start(case);
    let lan = Lan::new(&engine, "lan", "192.0.2");
    let _ = engine.sh("ip addr add fd00:99::1/64 dev lan0 nodad; ip -n lan addr add fd00:99::2/64 dev lan1 nodad").ok();
    let _ = engine.docker("network create --ipv6 --subnet fd00:77::/64 six").ok();
    let _ = engine.docker("network create --ipv6 --ipv4=false only").ok();
    web(&engine, "alpha", "--network six -p 8090:80 -p '[::1]:8091:80'");
    web(&engine, "beta", "-p 8092:80");
    web(&engine, "gamma", "--network only -p 8093:80");
    for url in ["http://192.0.2.1:8090", "http://[fd00:99::1]:8090", "http://[fd00:99::1]:8092", "http://[fd00:99::1]:8093"] {
        reached(&lan, url);
    }
    assert!(!lan.fetches("http://[fd00:99::1]:8091"), "a port of ::1");
    for port in [8090, 8091, 8092, 8093] {
        here(&engine, &format!("http://[::1]:{port}"));
    }
    assert_eq!(engine.docker("port gamma").ok().text(), "80/tcp -> [::]:8093");
    let mut ports: Vec<String> = engine.docker("port alpha").ok().text().lines().map(str::to_owned).collect();
    ports.sort();
    assert_eq!(ports, ["80/tcp -> 0.0.0.0:8090", "80/tcp -> [::1]:8091", "80/tcp -> [::]:8090"]);
    let own = engine.inspect("alpha", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
    let _ = lan.sh("ip route add fd00:77::/64 via fd00:99::1").ok();
    assert!(!lan.fetches(&format!("http://[{own}]")), "a container by its own address");
    assert!(engine.inspect("gamma", "{{.NetworkSettings.Networks.only.GlobalIPv6Address}}").starts_with("fd"));
    assert_eq!(engine.inspect("gamma", "{{.NetworkSettings.Networks.only.IPAddress}}"), "");
    lan.end();
    engine.end();
}

fn datagrams_over_ipv6(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name alpha -p 8092:53/udp busybox sleep 1000").ok();
    assert_eq!(engine.docker("port alpha").ok().text(), "53/udp -> 0.0.0.0:8092\n53/udp -> [::]:8092");
    let server = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53))\nwhile True: d, a = s.recvfrom(99); s.sendto(d, a)";
    let pid = engine.inspect("alpha", "{{.State.Pid}}");
    let serving = engine.program("nsenter").args(["--target", &pid, "--net", "timeout", "30", "python3", "-c", server]).spawn();
    let client = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(1); s.connect(('::1', 8092)); s.send(b'datagram'); print(s.recv(99).decode())";
    wait_until("a datagram back", || {
        let out = engine.program("python3").args(["-c", client]).run();
        if out.text() == "datagram" { Ok(()) } else { Err(out.to_string()) }
    });
    engine.end();
    drop(serving);
}

fn ranges_and_conflicts(case: &Case) {
    let engine = Engine::start(case);
    let holder = engine.program("timeout").args(["60", "python3", "-c", "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', 8400)); s.listen(); time.sleep(60)"]).spawn();
    wait_until("the other program", || {
        let out = engine.sh("ss -Hltn sport = :8400");
        if out.text().is_empty() { Err("it does not listen".into()) } else { Ok(()) }
    });
    let taken = engine.docker("run --name alpha -p 8400:80 busybox true").exits(125);
    assert!(taken.stderr.contains("failed to bind host port for 0.0.0.0:8400:172.17.0.2:80/tcp: address already in use"), "{taken}");
    web(&engine, "beta", "-p 8400-8402:80");
    assert_eq!(engine.docker("port beta 80/tcp").ok().text().lines().next(), Some("0.0.0.0:8401"));
    web(&engine, "gamma", "-p 8400-8402:80");
    assert_eq!(engine.docker("port gamma 80/tcp").ok().text().lines().next(), Some("0.0.0.0:8402"));
    let none = engine.docker("run --name delta -p 8401:80 busybox true").exits(125);
    assert!(none.stderr.contains("Bind for 0.0.0.0:8401 failed: port is already allocated"), "{none}");
    let twice = engine.docker("run --name epsilon -p 8410:80 -p 8410:81 busybox true").exits(125);
    assert!(twice.stderr.contains(":8410 failed: port is already allocated"), "{twice}");
    let foreign = engine.docker("run --name zeta -p 9.9.9.9:8411:80 busybox true").exits(125);
    assert!(foreign.stderr.contains("failed to bind host port for 9.9.9.9:8411:172.17.0.4:80/tcp: cannot assign requested address"), "{foreign}");
    // What was refused has left nothing.
    web(&engine, "eta", "-p 8410:80");
    engine.end();
    drop(holder);
}

/// As of firewalld: a table of the host's own that drops what it does not know. An engine opens nothing of it.
fn beside_a_hosts_policy(case: &Case) {
    let engine = Engine::start(case);
    let lan = Lan::new(&engine, "lan", "192.0.2");
    let table = "add table inet host; add chain inet host forward { type filter hook forward priority filter + 10; policy drop; }; add rule inet host forward ct state established,related accept";
    web(&engine, "alpha", "-p 8090:80");
    reached(&lan, "http://192.0.2.1:8090");
    let _ = engine.program("nft").arg(table).run().ok();
    assert!(!lan.fetches("http://192.0.2.1:8090"), "the host's policy holds");
    let _ = engine.program("nft").arg("add rule inet host forward ct status dnat accept").run().ok();
    reached(&lan, "http://192.0.2.1:8090");
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("rm -f alpha").ok();
    let rules = engine.sh("nft list table inet host").ok();
    assert!(rules.text().contains("policy drop") && rules.text().contains("ct status dnat accept"), "{rules}");
    lan.end();
    engine.end();
}

/// An engine of a machine that forwarded for nobody before.
fn not_forwarding<'a>(case: &'a Case, flags: &[&str]) -> Engine<'a> {
    let maker = Maker::under_test(case);
    let site = Site::new(case);
    let _ = site.command("sh").args(["-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"]).run().ok();
    let engine = Engine::inside(site, maker, flags);
    engine.load_busybox();
    engine
}

fn a_host_that_did_not_forward_is_no_router(case: &Case) {
    let mut engine = not_forwarding(case, &[]);
    for _start in 0..2 {
        let (lan, wan) = (Lan::new(&engine, "lan", "192.0.2"), Lan::new(&engine, "wan", "198.51.100"));
        let _ = lan.sh("busybox ping -c 1 -W 5 192.0.2.1").ok();
        assert_ne!(lan.sh("busybox ping -c 1 -W 2 198.51.100.2").code, 0, "the machine forwards for others");
        web(&engine, "alpha", "-p 8090:80");
        reached(&lan, "http://192.0.2.1:8090");
        let _ = engine.docker("exec alpha ping -c 1 -W 5 192.0.2.2").ok();
        lan.end();
        wan.end();
        let _ = engine.docker("rm -f alpha").ok();
        // It is remembered: the next start finds a machine that forwards.
        engine.stop();
        engine.come_back();
    }
    engine.end();
}

fn it_forwards_for_all_when_told(case: &Case) {
    let engine = not_forwarding(case, &["--ip-forward-no-drop"]);
    let (lan, wan) = (Lan::new(&engine, "lan", "192.0.2"), Lan::new(&engine, "wan", "198.51.100"));
    let _ = lan.sh("busybox ping -c 1 -W 5 198.51.100.2").ok();
    lan.end();
    wan.end();
    engine.end();
}

fn inner_networks_reach_no_published_port(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.sh("ip link add out0 type veth peer name out1; ip addr add 192.0.2.1/24 dev out0; ip link set out0 up").ok();
    let _ = engine.docker("network create --internal inner").ok();
    let _ = engine.docker("network create one").ok();
    web(&engine, "alpha", "--network one -p 192.0.2.1:8090:80");
    here(&engine, "http://192.0.2.1:8090");
    let gateway = engine.docker("network inspect --format '{{(index .IPAM.Config 0).Gateway}}' inner").ok().text().to_owned();
    // With a way out that it makes itself, it would be in its own network only.
    let out = engine.docker(&format!("run --rm --network inner --cap-add NET_ADMIN busybox sh -c 'ip route add 192.0.2.0/24 via {gateway} && timeout 3 wget -qO- http://192.0.2.1:8090/group; exit $?'"));
    assert_ne!(out.code, 0, "an internal network's container reaches a published port: {out}");
    engine.end();
}

fn without_icc(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create -o com.docker.network.bridge.enable_icc=false apart").ok();
    web(&engine, "alpha", "--network apart -p 8090:80");
    let address = engine.inspect("alpha", "{{.NetworkSettings.Networks.apart.IPAddress}}");
    let out = engine.docker(&format!("run --rm --network apart busybox sh -c 'timeout 3 wget -qO- http://{address}/group; exit $?'"));
    assert_ne!(out.code, 0, "{out}");
    let gateway = engine.inspect("alpha", "{{.NetworkSettings.Networks.apart.Gateway}}");
    let out = engine.docker(&format!("run --rm --network apart busybox sh -c 'timeout 5 wget -qO- http://{gateway}:8090/group; exit $?'")).ok();
    assert!(out.text().contains("extra:"), "{out}");
    engine.end();
}

/// It is forwarded by the same rules. Whether anything gets through can be seen only where the kernel has such sockets.
fn a_port_of_sctp(case: &Case) {
    let engine = Engine::start(case);
    let socket = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)";
    let has_sockets = engine.program("python3").args(["-c", socket]).run().code == 0;
    if !has_sockets {
        engine.only_ketch("its proxy and its hold on the port want a socket of SCTP, which this kernel has none of");
    }
    let _ = engine.docker("run -d --name box -p 127.0.0.1:9999:9998/sctp -p 9999:9997/tcp busybox sleep 1000").ok();
    let shown = engine.docker("port box").ok();
    assert!(shown.text().lines().any(|line| line == "9998/sctp -> 127.0.0.1:9999"), "{shown}");
    let address = engine.inspect("box", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    if engine.is_ketch() && case.has_program("nft") {
        let rules = engine.program("nft").args(["--numeric", "list", "ruleset"]).run().ok();
        let line = rules.text().lines().find(|line| line.contains("127.0.0.1") && line.contains("9998")).map(str::to_owned);
        assert!(line.is_some_and(|line| line.contains(&address) && line.contains("9999")), "{rules}");
    }
    if has_sockets {
        let serve = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP); s.bind(('', 9998)); s.listen(); c, _ = s.accept(); c.sendall(b'hello')";
        let pid = engine.inspect("box", "{{.State.Pid}}");
        let server = engine.program("nsenter").args(["--target", &pid, "--net", "python3", "-c", serve]).spawn();
        let ask = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP); s.connect(('127.0.0.1', 9999)); print(s.recv(5).decode())";
        wait_until("an answer by SCTP", || match engine.program("python3").args(["-c", ask]).run() {
            out if out.text() == "hello" => Ok(()),
            out => Err(out.to_string()),
        });
        let _ = server.wait();
    } else {
        println!("no sockets of SCTP in this kernel: nothing was sent");
    }
    let _ = engine.docker("rm -f box").ok();
    engine.end();
}

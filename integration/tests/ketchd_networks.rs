//! Networks: the default bridge and one's own, addresses, names, published ports, isolation, connecting while it runs.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};

tests![
    the_three_that_are_there,
    the_default_bridge,
    create_inspect_and_remove,
    addresses_and_pools,
    names_resolve_on_ones_own,
    the_default_bridge_has_no_names,
    aliases_and_round_robin,
    ports_are_published,
    udp_and_random_ports,
    a_taken_port_is_refused_and_nothing_stays,
    networks_are_isolated,
    inner_networks_have_no_way_out,
    connect_and_disconnect_while_it_runs,
    host_and_none,
    another_containers_network,
    a_network_in_use_is_not_removed,
    six,
    mac_and_mtu,
    restart_keeps_the_network,
    resolver_and_hosts_files,
    prune_takes_the_unused,
    endpoints_of_inspect,
];

fn up(engine: &Engine<'_>, name: &str, flags: &str) {
    let _ = engine.docker(&format!("run -d --name {name} {flags} busybox sleep 1000")).ok();
}

fn web(engine: &Engine<'_>, name: &str, flags: &str) {
    let _ = engine.docker(&format!("run -d --name {name} {flags} busybox httpd -f -p 80 -h /etc")).ok();
}

/// What a web server in the site or in a container gives.
fn fetched(engine: &Engine<'_>, line: &str, url: &str) {
    wait_until("a page", || {
        let out = engine.sh(&format!("{line} busybox sh -c 'timeout 5 busybox wget -qO- {url}/group; exit $?'"));
        if out.code == 0 && out.text().contains("extra:x:2000:user") { Ok(()) } else { Err(out.to_string()) }
    });
}

fn the_three_that_are_there(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'").ok();
    assert_eq!(out.text(), "bridge bridge local\nhost host local\nnone null local");
    let bridge = engine.call("GET", "/networks/bridge", "").is(200).json();
    assert_eq!(bridge["IPAM"]["Config"], serde_json::json!([{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]));
    assert_eq!(bridge["Options"]["com.docker.network.bridge.name"], "docker0");
    assert_eq!(bridge["Containers"], serde_json::json!({}));
    let out = engine.docker("network rm bridge").exits(1);
    assert!(out.stderr.contains("bridge is a pre-defined network and cannot be removed"), "{out}");
    engine.end();
}

fn the_default_bridge(case: &Case) {
    let engine = Engine::start(case);
    up(&engine, "one", "");
    up(&engine, "two", "");
    assert_eq!(engine.inspect("one", "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}} {{.NetworkSettings.IPPrefixLen}}"), "172.17.0.2 172.17.0.1 16");
    assert_eq!(engine.docker("exec one ip route").ok().text().lines().next(), Some("default via 172.17.0.1 dev eth0 "));
    let _ = engine.docker("exec one ping -c 1 -W 5 172.17.0.3").ok();
    let _ = engine.docker("exec one ping -c 1 -W 5 172.17.0.1").ok();
    let _ = engine.sh("ping -c 1 -W 5 172.17.0.2 || busybox ping -c 1 -W 5 172.17.0.2").ok();
    engine.end();
}

fn create_inspect_and_remove(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("network create --label a=b -o com.docker.network.bridge.name=kt0 one").ok();
    assert_eq!(out.text().len(), 64);
    let seen = engine.call("GET", "/networks/one", "").is(200).json();
    assert_eq!((seen["Id"].as_str(), seen["Driver"].as_str(), seen["Scope"].as_str()), (Some(out.text()), Some("bridge"), Some("local")));
    assert_eq!(seen["Labels"], serde_json::json!({"a": "b"}));
    assert_eq!(seen["Options"], serde_json::json!({"com.docker.network.bridge.name": "kt0"}));
    assert_eq!((&seen["EnableIPv4"], &seen["EnableIPv6"], &seen["Internal"], &seen["Attachable"], &seen["Ingress"]), (&true.into(), &false.into(), &false.into(), &false.into(), &false.into()));
    assert!(engine.sh("ip -brief link show kt0").code == 0, "a bridge");
    let twice = engine.docker("network create one").exits(1);
    assert_eq!(twice.stderr.trim(), "Error response from daemon: network with name one already exists");
    assert_eq!(engine.docker("network rm one").ok().text(), "one");
    assert_ne!(engine.sh("ip -brief link show kt0").code, 0, "the bridge is gone");
    let gone = engine.docker("network rm one").exits(1);
    assert!(gone.stderr.contains("network one not found"), "{gone}");
    engine.end();
}

fn addresses_and_pools(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("network create two").ok();
    assert_eq!(engine.docker("network inspect --format '{{(index .IPAM.Config 0).Subnet}}' one two").ok().text(), "172.18.0.0/16\n172.19.0.0/16");
    let _ = engine.docker("network create --subnet 10.77.0.0/24 --gateway 10.77.0.9 --ip-range 10.77.0.128/25 three").ok();
    up(&engine, "a1", "--network three");
    assert_eq!(engine.inspect("a1", "{{.NetworkSettings.Networks.three.IPAddress}} {{.NetworkSettings.Networks.three.Gateway}}"), "10.77.0.128 10.77.0.9");
    up(&engine, "b1", "--network three --ip 10.77.0.5");
    assert_eq!(engine.docker("exec b1 ip -4 -o addr show eth0").ok().text().split_whitespace().nth(3), Some("10.77.0.5/24"));
    let taken = engine.docker("run --rm --network three --ip 10.77.0.5 busybox true").exits(125);
    assert!(taken.stderr.contains("Address already in use"), "{taken}");
    let overlap = engine.docker("network create --subnet 10.77.0.0/25 four").exits(1);
    assert!(overlap.stderr.contains("Pool overlaps with other one on this address space"), "{overlap}");
    let outside = engine.docker("run --rm --network one --ip 10.1.1.1 busybox true").exits(125);
    assert!(outside.stderr.contains("user specified IP address is supported only when connecting to networks with user configured subnets"), "{outside}");
    engine.end();
}

fn names_resolve_on_ones_own(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    web(&engine, "alpha", "--network one --hostname hosty");
    up(&engine, "beta", "--network one");
    fetched(&engine, "docker exec beta", "http://alpha");
    let id = engine.inspect("alpha", "{{.Id}}")[..12].to_owned();
    for name in ["alpha", "hosty", "alpha.one", &id] {
        let out = engine.docker(&format!("exec beta ping -c 1 -W 5 {name}"));
        assert_eq!(out.code, 0, "{name}: {out}");
    }
    assert!(engine.docker("exec beta cat /etc/resolv.conf").ok().text().contains("nameserver 127.0.0.11"));
    let none = engine.docker("exec beta nslookup nonsense 127.0.0.11");
    assert_ne!(none.code, 0, "{none}");
    let address = engine.inspect("alpha", "{{.NetworkSettings.Networks.one.IPAddress}}");
    let back = engine.docker(&format!("exec beta nslookup {address} 127.0.0.11")).ok();
    assert!(back.text().contains("alpha.one"), "{back}");
    let _ = engine.docker("rename alpha gamma").ok();
    let _ = engine.docker("exec beta ping -c 1 -W 5 gamma").ok();
    engine.end();
}

fn the_default_bridge_has_no_names(case: &Case) {
    let engine = Engine::start(case);
    up(&engine, "alpha", "");
    let out = engine.docker("run --rm busybox ping -c 1 -W 2 alpha");
    assert_ne!(out.code, 0, "{out}");
    let _ = engine.docker("run --rm --link alpha:linked busybox ping -c 1 -W 5 linked").ok();
    engine.end();
}

fn aliases_and_round_robin(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "--network one --network-alias shared --network-alias own");
    up(&engine, "beta", "--network one --network-alias shared");
    let out = engine.docker("run --rm --network one busybox nslookup -type=a shared 127.0.0.11").ok();
    for name in ["alpha", "beta"] {
        let address = engine.inspect(name, "{{.NetworkSettings.Networks.one.IPAddress}}");
        assert!(out.text().contains(&format!("Address: {address}")), "{address}: {out}");
    }
    let _ = engine.docker("stop -t 0 beta").ok();
    let out = engine.docker("run --rm --network one busybox nslookup -type=a shared 127.0.0.11").ok();
    assert_eq!(out.text().matches("Name:").count(), 1, "{out}");
    engine.end();
}

fn ports_are_published(case: &Case) {
    let engine = Engine::start(case);
    web(&engine, "alpha", "-p 8090:80 -p 127.0.0.1:8091:80");
    for port in ["8090", "8091"] {
        fetched(&engine, "", &format!("http://127.0.0.1:{port}"));
    }
    // From another container by the bridge's address, and back to itself.
    fetched(&engine, "docker run --rm busybox", "http://172.17.0.1:8090");
    fetched(&engine, "docker exec alpha", "http://172.17.0.1:8090");
    let out = engine.docker("port alpha 80/tcp").ok();
    let mut ports: Vec<&str> = out.text().lines().collect();
    ports.sort_unstable();
    assert_eq!(ports, ["0.0.0.0:8090", "127.0.0.1:8091", "[::]:8090"]);
    assert!(engine.docker("ps --format {{.Ports}}").ok().text().contains("0.0.0.0:8090->80/tcp"));
    let _ = engine.docker("stop -t 0 alpha").ok();
    assert_ne!(engine.sh("busybox timeout 2 busybox wget -qO- http://127.0.0.1:8090/group").code, 0);
    let _ = engine.docker("start alpha").ok();
    fetched(&engine, "", "http://127.0.0.1:8090");
    engine.end();
}

fn udp_and_random_ports(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run -d --name alpha -p 8092:53/udp -p 80 -p 9000-9002:9000-9002 busybox httpd -f -p 80 -h /etc").ok();
    let random = engine.docker("port alpha 80").ok().text().lines().next().and_then(|line| line.rsplit(':').next().map(str::to_owned)).expect("a port");
    fetched(&engine, "", &format!("http://127.0.0.1:{random}"));
    assert_eq!(engine.docker("port alpha 9001/tcp").ok().text().lines().next(), Some("0.0.0.0:9001"));
    // busybox has nothing that listens: python stands in the container's network and sends back what comes.
    let server = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 53)); d, a = s.recvfrom(99); s.sendto(d, a)";
    let pid = engine.inspect("alpha", "{{.State.Pid}}");
    let serving = engine.program("nsenter").args(["--target", &pid, "--net", "python3", "-c", server]).spawn();
    let client = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.connect(('127.0.0.1', 8092)); s.send(b'datagram'); print(s.recv(99).decode())";
    wait_until("a datagram back", || {
        let out = engine.program("python3").args(["-c", client]).run();
        if out.text() == "datagram" { Ok(()) } else { Err(out.to_string()) }
    });
    let _ = serving.wait().ok();
    engine.end();
}

fn a_taken_port_is_refused_and_nothing_stays(case: &Case) {
    let engine = Engine::start(case);
    web(&engine, "alpha", "-p 127.0.0.1:8093:80");
    let out = engine.docker("run -d --name beta -p 127.0.0.1:8093:80 busybox sleep 1000").exits(125);
    assert!(out.stderr.contains("Bind for 127.0.0.1:8093 failed: port is already allocated"), "{out}");
    assert_eq!(engine.inspect("beta", "{{.State.Status}}"), "created");
    let _ = engine.docker("rm -f alpha").ok();
    let _ = engine.docker("start beta").ok();
    engine.end();
}

fn networks_are_isolated(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("network create two").ok();
    web(&engine, "alpha", "--network one -p 8094:80");
    let address = engine.inspect("alpha", "{{.NetworkSettings.Networks.one.IPAddress}}");
    // As the first process of its namespace it would not hear its own end.
    let fetch = format!("busybox sh -c 'timeout 2 wget -qO- http://{address}/group; exit $?'");
    let out = engine.docker(&format!("run --rm --network two {fetch}"));
    assert_ne!(out.code, 0, "{out}");
    let out = engine.docker(&format!("run --rm {fetch}"));
    assert_ne!(out.code, 0, "{out}");
    fetched(&engine, "docker run --rm --network one busybox", &format!("http://{address}"));
    engine.end();
}

fn inner_networks_have_no_way_out(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create --internal inner").ok();
    up(&engine, "alpha", "--network inner");
    assert!(!engine.docker("exec alpha ip route").ok().text().contains("default"));
    up(&engine, "beta", "--network inner");
    let _ = engine.docker("exec beta ping -c 1 -W 5 alpha").ok();
    engine.end();
}

fn connect_and_disconnect_while_it_runs(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("network create --subnet 10.78.0.0/24 two").ok();
    up(&engine, "alpha", "--network one");
    up(&engine, "beta", "--network two");
    let _ = engine.docker("network connect --alias second --ip 10.78.0.7 two alpha").ok();
    assert!(engine.docker("exec alpha ip -4 -o addr show eth1").ok().text().contains("10.78.0.7/24"));
    let _ = engine.docker("exec beta ping -c 1 -W 5 second").ok();
    let twice = engine.docker("network connect two alpha").exits(1);
    assert!(twice.stderr.contains("endpoint with name alpha already exists in network two"), "{twice}");
    let _ = engine.docker("network disconnect two alpha").ok();
    assert_ne!(engine.docker("exec alpha ip link show eth1").code, 0);
    assert_ne!(engine.docker("exec beta ping -c 1 -W 1 second").code, 0);
    let out = engine.docker("network disconnect two alpha").exits(1);
    assert!(out.stderr.contains("is not connected to network two") || out.stderr.contains("is not connected to the network two"), "{out}");
    engine.end();
}

fn host_and_none(case: &Case) {
    let engine = Engine::start(case);
    let links = engine.docker("run --rm --network none busybox ip -o link").ok();
    assert!(links.text().lines().all(|line| !line.contains("eth0")), "{links}");
    let own = engine.sh("readlink /proc/self/ns/net").ok();
    assert_eq!(engine.docker("run --rm --network host busybox readlink /proc/self/ns/net").ok().text(), own.text());
    let out = engine.docker("run --rm --network host -h x busybox hostname").ok();
    assert_eq!(out.text(), "x");
    engine.end();
}

fn another_containers_network(case: &Case) {
    let engine = Engine::start(case);
    web(&engine, "alpha", "");
    fetched(&engine, "docker run --rm --network container:alpha busybox", "http://127.0.0.1");
    let out = engine.docker("run --rm --network container:nonsense busybox true").exits(125);
    assert!(out.stderr.contains("No such container: nonsense"), "{out}");
    let _ = engine.docker("stop -t 0 alpha").ok();
    let out = engine.docker("run --rm --network container:alpha busybox true").exits(125);
    assert!(out.stderr.contains("cannot join network namespace of a non running container"), "{out}");
    engine.end();
}

fn a_network_in_use_is_not_removed(case: &Case) {
    let engine = Engine::start(case);
    let id = engine.docker("network create one").ok().text().to_owned();
    up(&engine, "alpha", "--network one");
    let out = engine.docker("network rm one").exits(1);
    assert!(out.stderr.contains(&format!("error while removing network: network one has active endpoints (name:\"alpha\" id:\"")) || out.stderr.contains(&format!("network one id {id} has active endpoints")), "{out}");
    let _ = engine.docker("rm -f alpha").ok();
    let _ = engine.docker("network rm one").ok();
    engine.end();
}

fn six(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create --ipv6 --subnet fd00:77::/64 six").ok();
    web(&engine, "alpha", "--network six -p '[::1]:8095:80'");
    let address = engine.inspect("alpha", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
    assert_eq!(address, "fd00:77::2");
    fetched(&engine, "docker run --rm --network six busybox", &format!("http://[{address}]"));
    fetched(&engine, "", "http://[::1]:8095");
    engine.end();
}

fn mac_and_mtu(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create -o com.docker.network.driver.mtu=1400 one").ok();
    let out = engine.docker("run --rm --network one --mac-address 02:42:ac:11:00:99 busybox ip link show eth0").ok();
    assert!(out.text().contains("mtu 1400") && out.text().contains("02:42:ac:11:00:99"), "{out}");
    engine.end();
}

fn restart_keeps_the_network(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create --subnet 10.79.0.0/24 one").ok();
    up(&engine, "alpha", "--network one --ip 10.79.0.7");
    let _ = engine.docker("restart -t 0 alpha").ok();
    assert!(engine.docker("exec alpha ip -4 -o addr show eth0").ok().text().contains("10.79.0.7/24"));
    let _ = engine.docker("stop -t 0 alpha").ok();
    assert_eq!(engine.inspect("alpha", "{{.NetworkSettings.Networks.one.IPAddress}}"), "");
    let _ = engine.docker("start alpha").ok();
    assert_eq!(engine.inspect("alpha", "{{.NetworkSettings.Networks.one.IPAddress}}"), "10.79.0.7");
    engine.end();
}

fn resolver_and_hosts_files(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("run --rm --dns 10.1.1.1 --dns-search example.test --dns-option ndots:2 busybox cat /etc/resolv.conf").ok();
    for line in ["nameserver 10.1.1.1", "search example.test", "options ndots:2"] {
        assert!(out.text().lines().any(|seen| seen == line), "{line}: {out}");
    }
    let out = engine.docker("run --rm -h box --add-host other:10.1.2.3 --add-host gate:host-gateway busybox cat /etc/hosts").ok();
    for line in ["127.0.0.1\tlocalhost", "10.1.2.3\tother", "172.17.0.1\tgate", "172.17.0.2\tbox"] {
        assert!(out.text().lines().any(|seen| seen == line), "{line}: {out}");
    }
    engine.end();
}

fn prune_takes_the_unused(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create used").ok();
    let _ = engine.docker("network create unused").ok();
    up(&engine, "alpha", "--network used");
    assert_eq!(engine.docker("network prune -f").ok().text(), "Deleted Networks:\nunused");
    assert_eq!(engine.docker("network ls --filter type=custom --format {{.Name}}").ok().text(), "used");
    engine.end();
}

fn endpoints_of_inspect(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "--network one");
    let container = engine.call("GET", "/v1.50/containers/alpha/json", "").is(200).json();
    let network = engine.call("GET", "/networks/one", "").is(200).json();
    let endpoint = &container["NetworkSettings"]["Networks"]["one"];
    assert_eq!(endpoint["NetworkID"], network["Id"]);
    let id = container["Id"].as_str().expect("an id");
    let entry = &network["Containers"][id];
    assert_eq!((&entry["Name"], &entry["EndpointID"], &entry["MacAddress"]), (&"alpha".into(), &endpoint["EndpointID"], &endpoint["MacAddress"]));
    assert_eq!(entry["IPv4Address"], format!("{}/16", endpoint["IPAddress"].as_str().unwrap_or_default()));
    let sandbox = container["NetworkSettings"]["SandboxKey"].as_str().unwrap_or_default();
    assert!(sandbox.contains("netns"), "{sandbox}");
    assert_eq!(endpoint["DNSNames"], serde_json::json!(["alpha", &id[..12]]));
    engine.end();
}

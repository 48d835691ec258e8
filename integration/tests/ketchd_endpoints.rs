//! What a container's endpoint may say: priorities, names and settings of its interface, addresses; networks' own options; and
//! interfaces that hang on one of the host's.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests, wait_until};

tests![
    the_way_out_is_by_priority,
    an_interface_has_settings_and_a_name,
    endpoints_of_run,
    what_cannot_be_meant_is_refused,
    ranges_and_reserved_addresses,
    macvlan,
    macvlan_is_checked,
    ipvlan,
    a_foreign_interface_is_no_bridge,
    a_bridge_that_was_there_stays,
    anothers_names_are_its_own,
    a_changed_resolv_conf_stays,
];

fn up(engine: &Engine<'_>, name: &str, flags: &str) {
    let _ = engine.docker(&format!("run -d --name {name} {flags} busybox sleep 1000")).ok();
}

fn the_way_out_is_by_priority(case: &Case) {
    let engine = Engine::start(case);
    for name in ["one", "two"] {
        let _ = engine.docker(&format!("network create {name}")).ok();
    }
    up(&engine, "alpha", "--network one");
    let way = || engine.docker("exec alpha ip route").ok().text().lines().next().unwrap_or_default().trim().to_owned();
    assert_eq!(way(), "default via 172.18.0.1 dev eth0");
    let _ = engine.docker("network connect --gw-priority 5 two alpha").ok();
    assert_eq!(way(), "default via 172.19.0.1 dev eth1");
    let _ = engine.docker("network disconnect two alpha").ok();
    assert_eq!(way(), "default via 172.18.0.1 dev eth0");
    engine.end();
}

fn an_interface_has_settings_and_a_name(case: &Case) {
    let engine = Engine::start(case);
    for name in ["one", "two"] {
        let _ = engine.docker(&format!("network create {name}")).ok();
    }
    up(&engine, "alpha", "--network one");
    let _ = engine.docker("network connect --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1 --driver-opt com.docker.network.endpoint.ifname=foo0 two alpha").ok();
    assert_eq!(engine.docker("exec alpha cat /proc/sys/net/ipv4/conf/foo0/log_martians").ok().text(), "1");
    let _ = engine.docker("network disconnect two alpha").ok();
    let none = engine.docker("network connect --driver-opt com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nosuch=1 two alpha").exits(1);
    assert!(none.stderr.contains("/nosuch is not a sysctl file"), "{none}");
    assert_ne!(engine.docker("exec alpha ip link show eth1").code, 0, "nothing is left of it");
    let _ = engine.docker("network connect two alpha").ok();
    engine.end();
}

fn endpoints_of_run(case: &Case) {
    let engine = Engine::start(case);
    for name in ["one", "two"] {
        let _ = engine.docker(&format!("network create {name}")).ok();
    }
    let out = engine.docker("run --rm --network name=one,mac-address=02:42:00:00:00:09,gw-priority=3,alias=zz --network name=two busybox sh -c 'ip link show eth0; ip route; ip link show eth1'").ok();
    assert!(out.text().contains("02:42:00:00:00:09") && out.text().contains("default via 172.18.0.1 dev eth0"), "{out}");
    assert!(out.text().contains("eth1@"), "{out}");
    engine.end();
}

fn what_cannot_be_meant_is_refused(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "");
    for (options, text) in [
        ("com.docker.network.endpoint.sysctls=zz", "unrecognised network interface sysctl 'zz'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"),
        ("com.docker.network.endpoint.sysctls=net.ipv4.conf.eth0.log_martians=1", "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'"),
    ] {
        let out = engine.docker(&format!("network connect --driver-opt {options} one alpha")).exits(1);
        assert!(out.stderr.contains(text), "{out}");
    }
    let out = engine.docker("run --rm --ip 172.17.0.99 busybox true").exits(125);
    assert!(out.stderr.contains("invalid config for network bridge: invalid endpoint settings:") && out.stderr.contains("user specified IP address is supported on user defined networks only"), "{out}");
    for (body, status, text) in [
        (r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.20.0.0/24"},{"Subnet":"10.21.0.0/24"}]}}"#, 403, "bridge driver doesn't support multiple subnets"),
        (r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.40.0.0/24","Gateway":"10.40.0.1","AuxiliaryAddresses":{"a":"10.40.0.1"}}]}}"#, 500, "failed to allocate secondary ip address (a:10.40.0.1): Address already in use"),
        (r#"{"Name":"x","Options":{"com.docker.network.host_ipv4":"zz"}}"#, 400, "failed to parse com.docker.network.host_ipv4 value: zz (nil ip)"),
        (r#"{"Name":"x","Options":{"com.docker.network.bridge.inhibit_ipv4":"zz"}}"#, 400, "failed to parse com.docker.network.bridge.inhibit_ipv4 value: zz (strconv.ParseBool: parsing \"zz\": invalid syntax)"),
        (r#"{"Name":"x","IPAM":{"Driver":"null"}}"#, 400, "ipv4 pool is empty"),
    ] {
        let answer = engine.call("POST", "/networks/create", body).is(status).json();
        assert_eq!(answer["message"], text, "{body}");
    }
    engine.end();
}

fn ranges_and_reserved_addresses(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create --subnet 10.22.0.0/24 --ip-range 10.22.0.0/29 --aux-address a=10.22.0.2 --gateway 10.22.0.1 one").ok();
    let mut given = Vec::new();
    for number in 0..5 {
        up(&engine, &format!("c{number}"), "--network one");
        given.push(engine.inspect(&format!("c{number}"), "{{.NetworkSettings.Networks.one.IPAddress}}"));
    }
    assert_eq!(given, ["10.22.0.3", "10.22.0.4", "10.22.0.5", "10.22.0.6", "10.22.0.7"]);
    let full = engine.docker("run --rm --network one busybox true").exits(125);
    assert!(full.stderr.contains("no available IPv4 addresses on this network's address pools: one"), "{full}");
    let _ = engine.docker("rm -f c1").ok();
    up(&engine, "again", "--network one");
    assert_eq!(engine.inspect("again", "{{.NetworkSettings.Networks.one.IPAddress}}"), "10.22.0.4");
    engine.end();
}

fn macvlan(case: &Case) {
    let mut engine = Engine::start(case);
    let _ = engine.sh("ip link add cable0 type veth peer name cable1; ip link set cable0 up; ip link set cable1 up; ip addr add 10.5.0.1/24 dev cable1").ok();
    let _ = engine.docker("network create -d macvlan -o parent=cable0 --subnet 10.5.0.0/24 --gateway 10.5.0.1 mv").ok();
    up(&engine, "alpha", "--network mv");
    up(&engine, "beta", "--network mv --ip 10.5.0.9 -p 80:80");
    let _ = engine.docker("exec alpha ping -c 1 -W 5 beta").ok();
    assert_eq!(engine.docker("exec alpha ip route").ok().text().lines().next().map(str::trim), Some("default via 10.5.0.1 dev eth0"));
    // The other end of the cable is a neighbour like any other.
    let _ = engine.docker("exec alpha ping -c 1 -W 5 10.5.0.1").ok();
    assert_eq!(engine.inspect("beta", "{{.NetworkSettings.Networks.mv.IPAddress}} {{json .NetworkSettings.Ports}}"), "10.5.0.9 {}");
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("network connect one alpha").ok();
    let _ = engine.docker("network disconnect mv alpha").ok();
    assert_ne!(engine.docker("exec alpha ip link show eth0").code, 0, "its interface is gone");
    let _ = engine.docker("network connect --ip 10.5.0.77 mv alpha").ok();
    assert!(engine.docker("exec alpha ip -4 addr").ok().text().contains("10.5.0.77/24"));
    if engine.is_ketch() {
        engine.kill();
        engine.come_back();
        let _ = engine.docker("exec alpha ping -c 1 -W 5 beta").ok();
    }
    let _ = engine.docker("rm -f alpha beta").ok();
    let _ = engine.docker("network rm mv").ok();
    let _ = engine.sh("ip link show cable0").ok();
    engine.end();
}

fn macvlan_is_checked(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.sh("ip link add cable0 type veth peer name cable1").ok();
    for (options, text) in [
        ("-d macvlan -o parent=lo", "loopback interface is not a valid macvlan parent link"),
        ("-d ipvlan -o parent=lo", "loopback interface is not a valid ipvlan parent link"),
        ("-d macvlan -o parent=nosuch", "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
        ("-d macvlan -o parent=nosuch.5", "-o parent interface was not found on the host: nosuch"),
        ("-d macvlan -o parent=cable0 -o macvlan_mode=zz", "requested macvlan mode 'zz' is not valid, 'bridge' mode is the macvlan driver default"),
    ] {
        let out = engine.docker(&format!("network create {options} x")).exits(1);
        assert!(out.stderr.contains(text), "{options}: {out}");
    }
    assert_eq!(engine.docker("network ls --filter type=custom --format {{.Name}}").ok().text(), "");
    engine.end();
}

fn ipvlan(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.sh("ip link add cable0 type veth peer name cable1; ip link set cable0 up; ip link set cable1 up").ok();
    let has = engine.sh("ip link add try0 link cable0 type ipvlan && ip link del try0");
    case.needs(has.code == 0, "the kernel has no ipvlan");
    let _ = engine.docker("network create -d ipvlan -o parent=cable0 --subnet 10.6.0.0/24 iv").ok();
    up(&engine, "alpha", "--network iv");
    up(&engine, "beta", "--network iv");
    let _ = engine.docker("exec alpha ping -c 1 -W 5 beta").ok();
    engine.end();
}

fn a_foreign_interface_is_no_bridge(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.sh("ip link add cable0 type veth peer name cable1; ip addr add 192.0.2.1/24 dev cable0").ok();
    let out = engine.docker("network create -o com.docker.network.bridge.name=cable0 x").exits(1);
    assert!(out.stderr.contains("existing interface cable0 is not a bridge"), "{out}");
    assert!(engine.sh("ip -4 -o addr show cable0").ok().text().contains("192.0.2.1/24"), "it is as it was");
    engine.end();
}

fn a_bridge_that_was_there_stays(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.sh("ip link add own0 type bridge; ip link set own0 up").ok();
    let _ = engine.docker("network create -o com.docker.network.bridge.name=own0 --subnet 10.7.0.0/24 one").ok();
    up(&engine, "alpha", "--network one");
    let _ = engine.docker("exec alpha ping -c 1 -W 5 10.7.0.1").ok();
    let _ = engine.docker("rm -f alpha").ok();
    let _ = engine.docker("network rm one").ok();
    let _ = engine.sh("ip link show own0").ok();
    engine.end();
}

fn anothers_names_are_its_own(case: &Case) {
    let engine = Engine::start(case);
    up(&engine, "alpha", "--hostname ha --domainname example.test");
    assert_eq!(engine.docker("run --rm --network container:alpha busybox hostname").ok().text(), "ha");
    engine.end();
}

fn a_changed_resolv_conf_stays(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("network create one").ok();
    up(&engine, "alpha", "");
    up(&engine, "beta", "");
    let _ = engine.docker("exec alpha sh -c 'echo nameserver 192.0.2.7 >/etc/resolv.conf'").ok();
    for name in ["alpha", "beta"] {
        let _ = engine.docker(&format!("network connect one {name}")).ok();
    }
    assert_eq!(engine.docker("exec alpha cat /etc/resolv.conf").ok().text(), "nameserver 192.0.2.7");
    wait_until("beta's server", || {
        let out = engine.docker("exec beta cat /etc/resolv.conf").ok();
        if out.text().contains("nameserver 127.0.0.11") { Ok(()) } else { Err(out.to_string()) }
    });
    engine.end();
}

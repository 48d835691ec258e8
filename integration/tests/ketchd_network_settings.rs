//! The daemon's settings of networks: each is obeyed, or refused.

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests};

tests![
    ipv6_on_the_default_bridge,
    an_ipv6_address_of_the_bridge,
    an_ipv6_way_out,
    an_ipv4_way_out,
    a_range_of_the_bridge,
    options_of_new_networks,
    mtu_and_masquerading,
    more_networks_are_no_more_rules_on_the_way,
    without_ipv6_rules,
    without_forwarding,
    several_gateways_of_the_host,
    what_cannot_be_meant_is_refused,
    another_backend_is_refused,
    a_foreign_interface_is_no_default_bridge,
    without_rules,
];

const SHOWN: &str = "network inspect bridge --format '{{json .IPAM.Config}} {{.EnableIPv6}}'";

fn inside(engine: &Engine<'_>, command: &str) -> String {
    engine.docker(&format!("run --rm busybox {command}")).ok().text().to_owned()
}

fn engine<'a>(case: &'a Case, flags: &[&str]) -> Engine<'a> {
    let engine = Engine::bare(case, flags);
    engine.load_busybox();
    engine
}

fn ipv6_on_the_default_bridge(case: &Case) {
    let engine = engine(case, &["--ipv6", "--fixed-cidr-v6", "fd00:6::/64"]);
    assert_eq!(
        engine.docker(SHOWN).ok().text(),
        r#"[{"Subnet":"fd00:6::/64","IPRange":"fd00:6::/64"},{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}] true"#
    );
    assert!(inside(&engine, "ip -6 addr show eth0").contains("inet6 fd00:6::2/64"));
    assert!(inside(&engine, "ip -6 route").contains("default via fd00:6::1 dev eth0"));
    assert!(inside(&engine, "ping -6 -c 1 -W 5 fd00:6::1").contains("1 packets received"));
    engine.end();
}

fn an_ipv6_address_of_the_bridge(case: &Case) {
    let mut engine = engine(case, &["--ipv6", "--bip6", "fd00:5::9/64"]);
    let shown = r#"[{"Subnet":"fd00:5::/64","Gateway":"fd00:5::9"},{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}] true"#;
    assert_eq!(engine.docker(SHOWN).ok().text(), shown);
    assert!(inside(&engine, "ip -6 route").contains("default via fd00:5::9 dev eth0"));
    engine.stop();
    engine.come_back();
    assert!(inside(&engine, "ip -6 route").contains("default via fd00:5::9 dev eth0"), "after the daemon's restart");
    engine.end();
}

fn an_ipv6_way_out(case: &Case) {
    let engine = engine(case, &["--ipv6", "--fixed-cidr-v6", "fd00:6::/64", "--default-gateway-v6", "fd00:6::9"]);
    assert!(engine.docker(SHOWN).ok().text().contains(r#""AuxiliaryAddresses":{"DefaultGatewayIPv6":"fd00:6::9"}"#));
    assert!(inside(&engine, "ip -6 route").contains("default via fd00:6::9 dev eth0"));
    engine.end();
}

fn an_ipv4_way_out(case: &Case) {
    let engine = engine(case, &["--default-gateway", "172.17.0.9"]);
    assert!(inside(&engine, "ip route").contains("default via 172.17.0.9 dev eth0"));
    assert!(engine.sh("ip -4 -o addr show docker0").ok().text().contains("172.17.0.1/16"));
    engine.end();
}

fn a_range_of_the_bridge(case: &Case) {
    let engine = engine(case, &["--bip", "10.9.0.1/24", "--fixed-cidr", "10.9.0.128/25"]);
    assert_eq!(
        engine.docker(SHOWN).ok().text(),
        r#"[{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.128/25","Gateway":"10.9.0.1"}] false"#
    );
    assert!(inside(&engine, "ip -4 addr show eth0").contains("inet 10.9.0.128/24"));
    engine.end();
}

fn options_of_new_networks(case: &Case) {
    let engine = engine(
        case,
        &["--default-network-opt", "bridge=com.docker.network.driver.mtu=1234", "--default-network-opt", "other=a=b"],
    );
    let _ = engine.docker("network create one").ok();
    let _ = engine.docker("network create -o com.docker.network.driver.mtu=1300 two").ok();
    assert_eq!(
        engine.docker("network inspect --format '{{json .Options}}' one two").ok().text(),
        "{\"com.docker.network.driver.mtu\":\"1234\"}\n{\"com.docker.network.driver.mtu\":\"1300\"}"
    );
    let link = engine.docker("run --rm --network one busybox ip link show eth0").ok();
    assert!(link.text().contains("mtu 1234"), "{link}");
    assert!(inside(&engine, "ip link show eth0").contains("mtu 1500"), "the default bridge has its own");
    engine.end();
}

fn mtu_and_masquerading(case: &Case) {
    let engine = engine(case, &["--mtu", "1300", "--ip-masq=false"]);
    assert!(inside(&engine, "ip link show eth0").contains("mtu 1300"));
    let options = engine.docker("network inspect bridge --format '{{json .Options}}'").ok();
    for option in [r#""com.docker.network.bridge.enable_ip_masquerade":"false""#, r#""com.docker.network.driver.mtu":"1300""#] {
        assert!(options.text().contains(option), "{options}");
    }
    let rules = engine.sh("iptables-save 2>/dev/null; nft list ruleset 2>/dev/null").ok();
    assert!(!rules.text().contains("oifname != \"docker0\" masquerade"), "{rules}");
    assert!(!rules.text().contains("-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"), "{rules}");
    engine.end();
}

fn more_networks_are_no_more_rules_on_the_way(case: &Case) {
    let engine = engine(case, &[]);
    engine.only_ketch("a rule for each");
    let on_the_way = || {
        let chains = "for c in guard prerouting output forward postrouting; do nft list chain ip $(nft list tables ip | sed -n 's/^table ip //p') $c; done";
        engine.sh(chains).ok().stdout
    };
    let more = |numbers: std::ops::Range<u8>| {
        for number in numbers {
            let _ = engine.docker(&format!("network create --subnet 10.83.{number}.0/24 n{number}")).ok();
            let _ = engine.docker(&format!("network create --internal --subnet 10.84.{number}.0/24 i{number}")).ok();
        }
    };
    more(0..1);
    let with_few = on_the_way();
    assert!(with_few.contains("masquerade"), "{with_few}");
    more(1..6);
    assert_eq!(on_the_way(), with_few);
    // What they say is said of each.
    let rules = engine.sh("nft list ruleset").ok();
    assert_eq!(rules.text().matches("10.83.").count(), 6, "{rules}");
    assert_eq!(rules.text().matches(": jump inside-br-").count(), 12, "in two families: {rules}");
    engine.end();
}

fn without_ipv6_rules(case: &Case) {
    let engine = engine(case, &["--ip6tables=false"]);
    let _ = engine.docker("network create --ipv6 --subnet fd00:77::/64 six").ok();
    let _ = engine.docker("run -d --name alpha --network six -p 8090:80 busybox httpd -f -p 80 -h /etc").ok();
    let tables = engine.sh("nft list tables").ok();
    assert!(!tables.text().contains("table ip6 "), "{tables}");
    assert!(tables.text().contains("table ip "), "{tables}");
    // The engine carries them itself.
    let page = engine.sh("for i in 1 2 3 4 5; do busybox timeout 5 busybox wget -qO- 'http://[::1]:8090/group' && exit; sleep 1; done; exit 1").ok();
    assert!(page.text().contains("extra:"), "{page}");
    engine.end();
}

fn without_forwarding(case: &Case) {
    let engine = engine(case, &["--ip-forward=false"]);
    let before = engine.sh("cat /proc/sys/net/ipv4/ip_forward").ok();
    let _ = engine.docker("network create one").ok();
    assert_eq!(engine.sh("cat /proc/sys/net/ipv4/ip_forward").ok().text(), before.text());
    engine.end();
}

fn several_gateways_of_the_host(case: &Case) {
    let engine = engine(case, &["--host-gateway-ip", "192.0.2.1", "--host-gateway-ip", "2001:db8::1"]);
    let hosts = engine.docker("run --rm --add-host gate:host-gateway busybox cat /etc/hosts").ok();
    for line in ["192.0.2.1\tgate", "2001:db8::1\tgate"] {
        assert!(hosts.text().lines().any(|seen| seen == line), "{hosts}");
    }
    engine.end();
}

/// The daemon's end with these flags, and what it says.
fn refused(engine: &mut Engine<'_>, flags: &[&str], text: &str) {
    let (program, args) = engine.command_line();
    let out = engine.program("timeout").arg("60").arg(program).args(args).args(flags).run();
    assert_ne!(out.code, 124, "{flags:?}: it runs");
    assert!(out.code != 0 && out.stderr.contains(text), "{flags:?}: {out}");
}

fn what_cannot_be_meant_is_refused(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    engine.stop();
    let _ = engine.sh("ip link del docker0").ok();
    let before = [
        (&["--bip", "zz"][..], "parse bip failed: invalid CIDR address: zz"),
        (&["--bip6", "zz", "--ipv6"], "parse bip6 failed: invalid CIDR address: zz"),
        (&["--bridge", "none", "--bip", "10.0.0.1/24"], "You specified -b & --bip, mutually exclusive options. Please specify only one"),
        (&["--fixed-cidr-v6", "10.0.0.0/8", "--ipv6"], "invalid fixed-cidr-v6: '10.0.0.0/8' is not a valid IPv6 subnet"),
        (&["--default-gateway", "10.1.1.1"], "auxiliary address: (DefaultGatewayIPv4:10.1.1.1) must belong to the master pool: 172.17.0.0/16"),
        (&["--default-gateway-v6", "zz"], "invalid argument \"zz\" for \"--default-gateway-v6\" flag"),
    ];
    for (flags, text) in before {
        refused(&mut engine, flags, text);
    }
    engine.come_back();
    engine.end();
}

fn another_backend_is_refused(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    engine.only_ketch("28.5 does not know the flag yet");
    engine.stop();
    refused(&mut engine, &["--firewall-backend", "iptables"], "--firewall-backend iptables is not served by ketchd");
    engine.come_back();
    engine.end();
}

fn a_foreign_interface_is_no_default_bridge(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    engine.stop();
    let _ = engine.sh("ip link add cable0 type veth peer name cable1; ip addr add 192.0.2.1/24 dev cable0").ok();
    refused(&mut engine, &["--bridge", "cable0"], "existing interface cable0 is not a bridge");
    let link = engine.sh("ip -4 -o addr show cable0").ok();
    assert!(link.text().contains("192.0.2.1/24") && !link.text().contains("172.17."), "{link}");
    engine.come_back();
    engine.end();
}

fn without_rules(case: &Case) {
    let engine = engine(case, &["--iptables=false", "--ip6tables=false"]);
    let _ = engine.docker("run -d --name alpha -p 8090:80 -p 8091:80/udp busybox httpd -f -p 80 -h /etc").ok();
    let page = engine.sh("for i in 1 2 3 4 5; do busybox timeout 5 busybox wget -qO- http://127.0.0.1:8090/group && exit; sleep 1; done; exit 1").ok();
    assert!(page.text().contains("extra:"), "{page}");
    assert_eq!(engine.sh("nft list ruleset").ok().text(), "");
    // Nothing would keep containers from the machine's own services at 127.0.0.1.
    assert_eq!(engine.sh("cat /proc/sys/net/ipv4/conf/docker0/route_localnet").ok().text(), "0");
    engine.end();
}

//! Published ports in the kernel: who is led where, a flushed ruleset, datagrams of a client that goes on.

use super::*;

#[test]
fn published_ports_lead_to_containers_from_everywhere() {
    alone(|world| {
        let networks = world.open();
        let _id = network(&networks, r#"{"Name":"front"}"#);
        let web =
            world.join(&networks, "web", "front", &[("80/tcp", "", "8080"), ("81/tcp", "127.0.0.1", "")]);
        let other = world.join(&networks, "other", "bridge", &[]);
        let ports = &web.settings.ports;
        let loopback: u16 = ports["81/tcp"].as_ref().unwrap()[0].host_port.parse().unwrap();
        let (first, second) = (listen(&web, 80), listen(&web, 81));
        let direct = address(&web, "front");
        let dump = || nft(&["list", "ruleset"]);
        // The host by each of its addresses, the container itself, another network's container by the host's address.
        assert!(reach(None, ([127, 0, 0, 1].into(), 8080), &first).is_some(), "{}", dump());
        assert!(reach(None, ([172, 18, 0, 1].into(), 8080), &first).is_some(), "{}", dump());
        assert!(reach(None, ([127, 0, 0, 1].into(), loopback), &second).is_some(), "{}", dump());
        assert!(reach(Some(&web), ([172, 18, 0, 1].into(), 8080), &first).is_some(), "{}", dump());
        let source = reach(Some(&other), ([172, 17, 0, 1].into(), 8080), &first);
        assert!(source.is_some(), "{}", dump());
        // Not by what is the container's own, from another network; nor what is at the host's loopback only.
        assert_eq!(attempt(Some(&other), (direct, 80), &first), None);
        assert_eq!(attempt(Some(&other), ([172, 17, 0, 1].into(), loopback), &second), None);
        let taken =
            networks.join(&world.wanted("late", "bridge", &[("80/tcp", "", "8080")])).unwrap_err().message;
        assert!(taken.ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{taken}");
        networks.leave(&format!("{:0<64}", "web")).unwrap();
        assert!(!nft(&["list", "ruleset"]).contains("8080"));
    });
}

#[test]
fn a_flushed_ruleset_is_back_and_connections_live_on() {
    alone(|world| {
        if Command::new("nft").arg("--version").output().is_err() {
            eprintln!("skipped: there is no nft");
            return;
        }
        let networks = world.open();
        let web = world.join(&networks, "web", "bridge", &[("80/tcp", "", "8080")]);
        let server = listen(&web, 80);
        let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let before = nft(&["list", "ruleset"]);
        assert!(before.contains("ketch-"), "{before}");
        let flushed = Instant::now();
        let _none = nft(&["flush", "ruleset"]);
        let mut now = nft(&["list", "ruleset"]);
        while now != before {
            assert!(flushed.elapsed() < Duration::from_secs(10), "{now}\nwas\n{before}");
            now = nft(&["list", "ruleset"]);
        }
        eprintln!("back after {:?}", flushed.elapsed());
        client.write_all(b"y").unwrap();
        let mut byte = [0];
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
        assert!(reach(None, ([127, 0, 0, 1].into(), 8080), &server).is_some());
    });
}

#[test]
fn a_client_of_datagrams_follows_its_port() {
    alone(|world| {
        let networks = world.open();
        let hear = |joined: &Joined| {
            let open = || {
                let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                Ok(socket)
            };
            namespace::enter(joined.namespace.as_deref().unwrap(), open).unwrap()
        };
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let reaches = |server: &UdpSocket| {
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut buffer = [0; 8];
            while Instant::now() < deadline {
                // A refusal is the port's before anybody listens there.
                let _refused = client.send_to(b"x", "127.0.0.1:5353");
                if server.recv(&mut buffer).is_ok() {
                    return true;
                }
            }
            false
        };
        let ports = [("53/udp", "", "5353")];
        let first = world.join(&networks, "first", "bridge", &ports);
        assert!(reaches(&hear(&first)));
        networks.leave(&format!("{:0<64}", "first")).unwrap();
        // It has the address now.
        let _other = world.join(&networks, "other", "bridge", &[]);
        let second = world.join(&networks, "second", "bridge", &ports);
        assert_ne!(address(&first, "bridge"), address(&second, "bridge"));
        assert!(reaches(&hear(&second)), "{}", nft(&["list", "ruleset"]));
    });
}

//! Who reaches a service's ports: labels that close them (`ketch.allow`) and that narrow published ones (`ketch.publish.*`), on a real
//! cluster, by both address families. Whoever is to be kept out attacks from each place that there is: a neighbour on the same node and
//! on another, another network, the node itself, another machine. Each way is shown to be open before it is closed, or afterwards.

use std::time::Duration;

use ketch_integration::mesh::{IMAGE, Mesh};
use ketch_integration::site::Site;
use ketch_integration::{Case, tests, wait_within};

tests![labels_that_can_not_be_are_refused, closed_ports_are_for_those_who_are_named, published_ports_are_for_some];

/// Two ports, by both families.
const SERVE: &str = "sh -c 'mkdir /www; echo served >/www/index.html; httpd -p 81 -h /www; exec httpd -f -p 80 -h /www'";
/// A change of labels is to be there by then.
const SETTLES: Duration = Duration::from_secs(30);

fn formed(case: &Case, workers: usize) -> Mesh<'_> {
    let mesh = Mesh::formed_of_ketch(case, 1, workers);
    let subnets = "--ipv6 --subnet 10.31.0.0/24 --subnet fd00:31::/64";
    let _ = mesh.docker(1, &format!("network create -d overlay {subnets} front")).ok();
    mesh
}

fn create(mesh: &Mesh<'_>, name: &str, flags: &str, command: &str) {
    mesh.create(&format!("--name {name} {flags}"), command);
}

/// A task's container at a node.
#[derive(Debug)]
struct Task {
    node: usize,
    id: String,
    pid: String,
}

impl Task {
    #[track_caller]
    fn of(mesh: &Mesh<'_>, node: usize, service: &str) -> Self {
        let line = format!("ps --quiet --no-trunc --filter label=com.docker.swarm.service.name={service}");
        let id = mesh.wait_output(node, &line, |text| !text.is_empty() && !text.contains('\n'));
        let pid = mesh.node(node).engine.inspect(&id, "{{.State.Pid}}");
        Self { node, id, pid }
    }

    /// Its addresses in the network `front`, of both families, as a URL has them.
    fn addresses(&self, mesh: &Mesh<'_>) -> [String; 2] {
        let of = |field: &str| {
            mesh.node(self.node).engine.inspect(&self.id, &format!("{{{{.NetworkSettings.Networks.front.{field}}}}}"))
        };
        [of("IPAddress"), format!("[{}]", of("GlobalIPv6Address"))]
    }

    /// What its node reaches it by.
    fn by_host(&self, mesh: &Mesh<'_>) -> String {
        let line = format!("nsenter --net=/proc/{}/ns/net ip -o -4 address", self.pid);
        let out = mesh.node(self.node).engine.sh(&line).ok();
        let found = out.text().lines().find_map(|line| {
            let address = line.split_whitespace().nth(3)?;
            address.starts_with("172.").then(|| address.split('/').next().map(str::to_owned))?
        });
        found.unwrap_or_else(|| panic!("{out}"))
    }

    /// Whether it gets a page.
    fn reaches(&self, mesh: &Mesh<'_>, at: &str) -> bool {
        is_served(&mesh.node(self.node).engine.site, &["nsenter", &format!("--net=/proc/{}/ns/net", self.pid)], at)
    }
}

/// Whether a page comes from there.
fn is_served(site: &Site<'_>, before: &[&str], at: &str) -> bool {
    let url = format!("http://{at}/");
    let curl = ["curl", "--silent", "--globoff", "--max-time", "2", &url];
    let words: Vec<&str> = before.iter().copied().chain(curl).collect();
    site.run(words[0], &words[1..]).text() == "served"
}

#[track_caller]
fn comes_to(what: &str, is_so: impl Fn() -> bool) {
    wait_within(SETTLES, what, || if is_so() { Ok(()) } else { Err("not yet".to_owned()) });
}

/// The service's virtual addresses in `front`.
fn virtual_addresses(mesh: &Mesh<'_>, service: &str) -> Vec<String> {
    let line = format!("service inspect {service} --format '{{{{range .Endpoint.VirtualIPs}}}}{{{{println .Addr}}}}{{{{end}}}}'");
    let out = mesh.docker(1, &line).ok();
    let addresses = out.text().lines().filter_map(|line| line.trim().split('/').next().map(str::to_owned));
    let of_url = |address: String| if address.contains(':') { format!("[{address}]") } else { address };
    addresses.filter(|address| !address.is_empty()).map(of_url).collect()
}

fn labels_that_can_not_be_are_refused(case: &Case) {
    let mesh = formed(case, 0);
    let refused = |labels: &str, told: &str| {
        let line = format!("service create -d --name bad --network front {labels} {IMAGE} sleep 1000");
        mesh.docker(1, &line).refuses(&[told]);
    };
    refused("--label ketch.allow=web", "label ketch.allow: \"web\" is no service with its ports, such as web:80/tcp");
    refused("--label ketch.allow= --cap-add NET_ADMIN", "label ketch.allow: a service with the capability");
    refused("--label ketch.alow=web:80", "label ketch.alow: is not known; a service may have");
    refused("--label ketch.publish.from=10.0.0.0/8", "label ketch.publish.from: the service has no published port");
    refused("--label ketch.publish.ip=/dev -p 80:80", "label ketch.publish.ip: \"/dev\" is neither an address");
    create(&mesh, "good", "--network front --label ketch.allow=web:80", "sleep 1000");
    mesh.docker(1, "service update -d --label-add ketch.allow=web:99999 good")
        .refuses(&["label ketch.allow: \"web:99999\" has no port from 1 to 65535"]);
    mesh.docker(1, "service update -d --label-add ketch.publish.ip=eth0 good")
        .refuses(&["label ketch.publish.ip: the service has no published port"]);
    let _ = mesh.docker(1, "service rm good").ok();
    mesh.end();
}

fn closed_ports_are_for_those_who_are_named(case: &Case) {
    let mesh = formed(case, 1);
    let _ = mesh.docker(1, "network create -d overlay aside").ok();
    create(&mesh, "db", "--network front --constraint node.hostname==node2", SERVE);
    for (name, network) in [("shop", "front"), ("other", "front"), ("far", "aside")] {
        create(&mesh, name, &format!("--mode global --network {network}"), "sleep 1000");
    }
    let db = Task::of(&mesh, 2, "db");
    let tasks = |service: &str| [1, 2].map(|node| Task::of(&mesh, node, service));
    let (shops, others, far) = (tasks("shop"), tasks("other"), tasks("far"));
    let mut front: Vec<String> = db.addresses(&mesh).to_vec();
    front.extend(virtual_addresses(&mesh, "db"));
    assert_eq!(front.len(), 4, "two of the task, two of the service: {front:?}");
    let host = db.by_host(&mesh);
    let node = |at: &str| is_served(&mesh.node(2).engine.site, &[], at);

    // Open, as a plain service is, to all but another network.
    for task in shops.iter().chain(&others) {
        for address in &front {
            comes_to(&format!("{address} from {task:?}"), || task.reaches(&mesh, &format!("{address}:80")));
        }
    }
    comes_to("the host's own way", || node(&format!("{host}:80")));

    let _ = mesh.docker(1, "service update -q -d --label-add ketch.allow=shop:80/tcp db").ok();
    for task in &others {
        for address in &front {
            comes_to(&format!("{address} is closed to {task:?}"), || !task.reaches(&mesh, &format!("{address}:80")));
        }
    }
    for task in &shops {
        for address in &front {
            comes_to(&format!("{address} from {task:?}"), || task.reaches(&mesh, &format!("{address}:80")));
            assert!(!task.reaches(&mesh, &format!("{address}:81")), "{address}: another port from {task:?}");
        }
    }
    let by_name = format!("exec {} sh -c '(echo GET / HTTP/1.0; echo) | nc -w 3 db 80'", shops[0].id);
    let _ = mesh.wait_output(1, &by_name, |text| text.contains("served"));
    for task in &far {
        for address in front.iter().chain([&host]) {
            assert!(!task.reaches(&mesh, &format!("{address}:80")), "{address}: another network, from {task:?}");
        }
    }
    assert!(!node(&format!("{host}:80")), "the host's own way");
    assert_eq!(Task::of(&mesh, 2, "db").id, db.id, "nobody has restarted it");
    // What it asks of others is answered: its own names, and a neighbour that is open.
    let _ = mesh.wait_output(2, &format!("exec {} nslookup shop 127.0.0.11", db.id), |text| text.contains("10.31.0."));

    let _ = mesh.docker(1, "service update -q -d --label-rm ketch.allow db").ok();
    comes_to("it is open again", || others.iter().all(|task| task.reaches(&mesh, &format!("{}:80", front[0]))));
    comes_to("to the host too", || node(&format!("{host}:80")));
    let _ = mesh.docker(1, "service rm db shop other far").ok();
    mesh.end();
}

fn published_ports_are_for_some(case: &Case) {
    let mesh = formed(case, 1);
    let flags = "--network front --constraint node.hostname==node2 --publish 8080:80 \
                 --publish mode=host,published=8081,target=80 --label ketch.publish.from=10.99.0.254";
    create(&mesh, "web", flags, SERVE);
    let _web = Task::of(&mesh, 2, "web");
    let (friend, stranger) = (mesh.wire().site(), mesh.wire().connected(9));
    let places = ["10.99.0.1:8080", "10.99.0.2:8080", "10.99.0.2:8081"];
    for place in places {
        comes_to(place, || is_served(friend, &[], place));
        assert!(!is_served(&stranger, &[], place), "{place} by a stranger");
    }
    for place in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081", "10.99.0.2:8081"] {
        assert!(!is_served(&mesh.node(2).engine.site, &[], place), "{place} by the node itself");
    }
    let update = |labels: &str| drop(mesh.docker(1, &format!("service update -q -d {labels} web")).ok());
    update("--label-rm ketch.publish.from --label-add ketch.publish.ip=10.99.0.2");
    comes_to("open to all at one address", || is_served(&stranger, &[], "10.99.0.2:8080"));
    assert!(is_served(&stranger, &[], "10.99.0.2:8081"));
    comes_to("closed at the other", || !is_served(friend, &[], "10.99.0.1:8080"));
    update("--label-add ketch.publish.ip=mesh0,::1");
    comes_to("open by an interface", || is_served(&stranger, &[], "10.99.0.1:8080"));
    comes_to("and at an address of IPv6", || is_served(&mesh.node(1).engine.site, &[], "[::1]:8080"));
    assert!(!is_served(&mesh.node(1).engine.site, &[], "127.0.0.1:8080"), "and nowhere else");
    update("--label-rm ketch.publish.ip");
    comes_to("open everywhere", || is_served(&mesh.node(1).engine.site, &[], "127.0.0.1:8080"));
    let _ = mesh.docker(1, "service rm web").ok();
    mesh.end();
}

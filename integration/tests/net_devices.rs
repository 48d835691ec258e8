//! `linux.netDevices`: devices of the host's network namespace that move into the container's.
//!
//! On dummy links, which not every kernel has; `make vm-test` boots one that has.

use ketch_integration::runtime::Kind;
use ketch_integration::{Case, tests};
use serde_json::json;

tests![
    a_device_moves_with_its_addresses,
    a_device_gets_another_name,
    a_missing_device_is_named,
    a_taken_name_is_refused,
    a_namespace_by_path,
    a_refused_container_does_not_take_it,
];

/// A dummy link of the test's own on the host, taken away at its end wherever it went.
struct Link<'a> {
    case: &'a Case,
    name: String,
}

impl<'a> Link<'a> {
    fn new(case: &'a Case) -> Self {
        case.needs_runc(1, 4, "does not move devices");
        case.needs(!matches!(case.runtime.kind, Kind::Crun { major: 1, minor: ..26 }), "this crun does not move devices");
        // A device's name has at most 15 bytes: what is unique in the tag is its end.
        let tag = case.fresh_id();
        let unique: String = tag.chars().filter(char::is_ascii_digit).collect();
        let name = format!("k{}", &unique[unique.len().saturating_sub(12)..]);
        let made = case.program("ip").args(["link", "add", &name, "type", "dummy"]).run();
        case.needs(made.code == 0, "the kernel has no dummy links");
        Self { case, name }
    }

    fn ip(&self, args: &[&str]) {
        let _ = self.case.program("ip").args(args).run().ok();
    }

    fn is_on_the_host(&self) -> bool {
        self.case.program("ip").args(["link", "show", &self.name]).run().code == 0
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        let _ = self.case.program("ip").args(["link", "del", &self.name]).run();
    }
}

fn a_device_moves_with_its_addresses(case: &Case) {
    let link = Link::new(case);
    link.ip(&["addr", "add", "192.0.2.7/24", "dev", &link.name]);
    link.ip(&["link", "set", &link.name, "up"]);
    link.ip(&["-6", "addr", "add", "2001:db8::7/64", "dev", &link.name, "nodad"]);
    let bundle = case.bundle().script("sleep 1; ip addr; exec sleep 1000").set(&format!("/linux/netDevices/{}", link.name), json!({}));
    let container = bundle.start();
    assert!(!link.is_on_the_host());
    let seen = container.sh("ip addr");
    for part in [&*link.name, "192.0.2.7/24", "2001:db8::7/64", "UP"] {
        assert!(seen.contains(part), "no {part} in {seen}");
    }
}

fn a_device_gets_another_name(case: &Case) {
    let link = Link::new(case);
    let bundle = case.bundle().script("ip link show inside0");
    let seen = bundle.set(&format!("/linux/netDevices/{}", link.name), json!({ "name": "inside0" })).prints();
    assert!(seen.contains("inside0"), "{seen}");
}

fn a_missing_device_is_named(case: &Case) {
    drop(Link::new(case));
    case.bundle().set("/linux/netDevices/nosuch0", json!({})).run().refuses(&["nosuch0"]);
}

fn a_taken_name_is_refused(case: &Case) {
    let link = Link::new(case);
    let bundle = case.bundle().set(&format!("/linux/netDevices/{}", link.name), json!({ "name": "lo" }));
    let out = bundle.run();
    assert_ne!(out.code, 0, "{out}");
}

fn a_namespace_by_path(case: &Case) {
    let link = Link::new(case);
    let first = case.bundle().sleeper().start();
    let path = format!("/proc/{}/ns/net", first.pid());
    let second = case.bundle().script("ip link").namespace("network", Some(&path));
    let seen = second.set(&format!("/linux/netDevices/{}", link.name), json!({})).prints();
    assert!(seen.contains(&link.name), "{seen}");
    assert!(first.sh("ip link").contains(&link.name), "the device left with the second container");
}

/// What is wrong with the configuration is found before a device moves.
fn a_refused_container_does_not_take_it(case: &Case) {
    let link = Link::new(case);
    let bundle = case.bundle().set(&format!("/linux/netDevices/{}", link.name), json!({}));
    let out = bundle.set("/process/cwd", json!("not/absolute")).run();
    assert_ne!(out.code, 0, "{out}");
    assert!(link.is_on_the_host());
}

//! Devices: the default /dev, asked-for ones, and the rules of the device controller or program.

use ketch_integration::{Bundle, Case, tests};
use serde_json::json;

tests![
    default_devices_are_there,
    default_links_are_there,
    an_asked_for_device_is_made,
    a_device_rule_refuses,
    a_device_rule_allows,
    default_devices_can_be_used,
    a_device_that_is_there_already,
    a_fifo_is_made,
    an_unknown_device_type_is_refused,
    devices_in_a_user_namespace_are_bound,
    dev_null_works_as_stdin,
    ptmx_is_the_containers,
];

fn default_devices_are_there(case: &Case) {
    let devices = [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")];
    let names = devices.map(|(name, _)| format!("/dev/{name}")).join(" ");
    let seen = case.bundle().script(&format!("stat -c '%F %a %t:%T' {names}")).prints();
    let expected: Vec<_> = devices.iter().map(|(_, number)| format!("character special file 666 {number}")).collect();
    assert_eq!(seen, expected.join("\n"));
}

fn default_links_are_there(case: &Case) {
    let seen = case.bundle().script("cd /dev; for l in fd stdin stdout stderr ptmx; do readlink $l; done; test -e core || echo no core").prints();
    let mut expected = vec!["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"];
    // /proc/kcore is masked, but its link is there all the same.
    if seen.ends_with("no core") {
        expected.push("no core");
    }
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}

/// A number that belongs to no driver: opening it says "no such device" when the rules allow it, and "not permitted"
/// when they do not.
fn with_unused_device(bundle: Bundle<'_>) -> Bundle<'_> {
    bundle.script("cat /dev/unused").edit(|spec| {
        spec["linux"]["devices"] = json!([{
            "path": "/dev/unused", "type": "c", "major": 240, "minor": 77, "fileMode": 0o640, "uid": 3, "gid": 4
        }]);
    })
}

const NO_NODES: &str = "a user's container gets the host's devices, and makes none (rootless::)";

fn an_asked_for_device_is_made(case: &Case) {
    case.root_only(NO_NODES);
    let bundle = with_unused_device(case.bundle()).script("stat -c '%F %a %t:%T %u:%g' /dev/unused");
    assert_eq!(bundle.prints(), "character special file 640 f0:4d 3:4");
}

fn a_device_rule_refuses(case: &Case) {
    case.root_only(NO_NODES);
    let out = with_unused_device(case.bundle()).edit(|spec| {
        spec["process"]["capabilities"]["effective"] = json!(["CAP_DAC_OVERRIDE"]);
        spec["process"]["capabilities"]["permitted"] = json!(["CAP_DAC_OVERRIDE"]);
        spec["process"]["capabilities"]["bounding"] = json!(["CAP_DAC_OVERRIDE"]);
    });
    let out = out.run();
    assert!(out.code != 0 && out.stderr.contains("Operation not permitted"), "{out}");
}

fn a_device_rule_allows(case: &Case) {
    case.root_only(NO_NODES);
    let bundle = with_unused_device(case.bundle()).capabilities(&["CAP_DAC_OVERRIDE"]).edit(|spec| {
        spec["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 240, "minor": 77, "access": "r" }
        ]);
    });
    let out = bundle.run();
    assert!(out.code != 0 && out.stderr.contains("No such device or address"), "{out}");
}

fn default_devices_can_be_used(case: &Case) {
    let script = "echo gone > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/full";
    let out = case.bundle().script(script).run();
    assert_eq!(out.stdout, "4\n4\n");
    assert!(out.stderr.contains("No space left on device"), "{out}");
}

fn a_device_that_is_there_already(case: &Case) {
    // Named in the spec though it is a default one: as Docker and podman write it.
    let bundle = case.bundle().script("stat -c %t:%T /dev/null").edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 }]);
        // Who names a default device brings its rule, too.
        spec["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }
        ]);
    });
    assert_eq!(bundle.prints(), "1:3");
}

fn a_fifo_is_made(case: &Case) {
    case.root_only(NO_NODES);
    let bundle = case.bundle().script("stat -c %F /dev/queue").edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/queue", "type": "p", "fileMode": 0o600 }]);
    });
    assert_eq!(bundle.prints(), "fifo");
}

fn an_unknown_device_type_is_refused(case: &Case) {
    let bundle = case.bundle().edit(|spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/odd", "type": "z", "major": 1, "minor": 3 }]);
    });
    bundle.run().refuses(&["z"]);
}

fn devices_in_a_user_namespace_are_bound(case: &Case) {
    let bundle = case.bundle().user_namespace(100_000).script("stat -c %t:%T /dev/null; echo gone > /dev/null && echo usable");
    assert_eq!(bundle.prints(), "1:3\nusable");
}

fn dev_null_works_as_stdin(case: &Case) {
    assert_eq!(case.bundle().script("wc -c < /dev/null").prints(), "0");
}

fn ptmx_is_the_containers(case: &Case) {
    assert_eq!(case.bundle().script("ls /dev/pts").prints(), "ptmx");
}

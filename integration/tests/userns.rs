//! User namespaces: mappings, what is refused, and what root inside may not do outside.

use std::os::unix::fs::MetadataExt;

use ketch_integration::{Case, probe, tests};
use serde_json::json;

tests![
    mappings_are_written,
    root_inside_is_the_mapped_id_outside,
    a_root_process_cannot_write_a_host_file,
    a_missing_mapping_is_refused,
    mappings_without_a_namespace_are_passed_over,
    an_unmapped_user_is_refused,
    several_ranges,
    exec_joins_the_user_namespace,
    setgroups_works_inside,
];

fn mappings_are_written(case: &Case) {
    let bundle = case.bundle().script("cat /proc/self/uid_map /proc/self/gid_map").user_namespace(100_000);
    let seen = bundle.prints();
    let words: Vec<_> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "100000", "65536", "0", "100000", "65536"]);
}

fn root_inside_is_the_mapped_id_outside(case: &Case) {
    let bundle = case.bundle().script("touch /mine; id -u; exec sleep 1000").user_namespace(100_000);
    let container = bundle.start();
    container.wait_stdout("0\n");
    assert!(probe::status_field(container.pid(), "Uid").starts_with("100000\t"));
    assert_eq!(bundle.rootfs().join("mine").metadata().expect("the file").uid(), 100_000);
}

fn a_root_process_cannot_write_a_host_file(case: &Case) {
    let canary = case.folder("host").join("canary");
    std::fs::write(&canary, "untouched").expect("write the canary");
    let bundle = case.bundle().script("echo changed > /mnt/canary").user_namespace(100_000).mount(json!({
        "destination": "/mnt", "type": "bind", "source": case.dir.join("host"), "options": ["rbind", "rw"]
    }));
    let out = bundle.run();
    assert!(out.code != 0 && out.stderr.contains("Permission denied"), "{out}");
    assert_eq!(probe::read(&canary), "untouched");
}

fn a_missing_mapping_is_refused(case: &Case) {
    let bundle = case.bundle().namespace("user", None);
    let out = bundle.run();
    assert!(out.code != 0 && out.stderr.to_lowercase().contains("mapping"), "{out}");
}

fn mappings_without_a_namespace_are_passed_over(case: &Case) {
    let bundle = case.bundle().user_namespace(100_000).without_namespace("user");
    let _ = bundle.run().ok();
}

fn an_unmapped_user_is_refused(case: &Case) {
    let bundle = case.bundle().user_namespace(100_000).set("/process/user/uid", json!(70_000));
    let _ = bundle.run().exits(1);
}

fn several_ranges(case: &Case) {
    let map = json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 },
        { "containerID": 10, "hostID": 200_000, "size": 100 }
    ]);
    let bundle = case.bundle().user_namespace(100_000).script("wc -l < /proc/self/uid_map; wc -l < /proc/self/gid_map");
    assert_eq!(bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).prints(), "2\n2");
}

fn exec_joins_the_user_namespace(case: &Case) {
    let container = case.bundle().sleeper().user_namespace(100_000).start();
    assert_eq!(container.sh("id -u; cat /proc/self/uid_map | wc -l"), "0\n1");
    let out = container.exec_with(&["--user", "33:33"], &["/bin/id", "-u"]).ok();
    assert_eq!(out.text(), "33");
}

fn setgroups_works_inside(case: &Case) {
    let bundle = case.bundle().command(&["/bin/id", "-G"]).user_namespace(100_000);
    let bundle = bundle.set("/process/user/additionalGids", json!([7, 8]));
    assert_eq!(bundle.prints(), "0 7 8");
}

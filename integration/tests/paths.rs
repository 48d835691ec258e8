//! Masked and read-only paths.

use std::fs;

use ketch_integration::{Case, tests};
use serde_json::json;

tests![a_masked_file_is_empty, a_masked_folder_is_empty, a_missing_masked_path_is_passed_over, a_read_only_path, a_mask_through_a_symlink];

fn a_masked_file_is_empty(case: &Case) {
    let bundle = case.bundle().script("cat /secret; stat -c %t:%T /secret; echo x > /secret");
    fs::write(bundle.rootfs().join("secret"), "seen").expect("write");
    let bundle = bundle.set("/linux/maskedPaths", json!(["/secret"]));
    let seen = bundle.run().ok();
    assert_eq!(seen.text(), "1:3", "the mask is /dev/null: {seen}");
    assert_eq!(fs::read_to_string(bundle.rootfs().join("secret")).expect("read"), "seen");
}

fn a_masked_folder_is_empty(case: &Case) {
    let bundle = case.bundle().script("ls /secret; touch /secret/new");
    fs::create_dir(bundle.rootfs().join("secret")).expect("mkdir");
    fs::write(bundle.rootfs().join("secret/file"), "seen").expect("write");
    let out = bundle.set("/linux/maskedPaths", json!(["/secret"])).run();
    assert!(out.stdout.is_empty() && out.stderr.contains("Read-only file system"), "{out}");
}

fn a_missing_masked_path_is_passed_over(case: &Case) {
    let bundle = case.bundle().set("/linux/maskedPaths", json!(["/no/such"]));
    let _ = bundle.set("/linux/readonlyPaths", json!(["/no/such/either"])).run().ok();
}

fn a_read_only_path(case: &Case) {
    let bundle = case.bundle().script("cat /kept/file; touch /kept/new");
    fs::create_dir(bundle.rootfs().join("kept")).expect("mkdir");
    fs::write(bundle.rootfs().join("kept/file"), "readable").expect("write");
    let out = bundle.set("/linux/readonlyPaths", json!(["/kept"])).run();
    assert!(out.stdout == "readable" && out.stderr.contains("Read-only file system"), "{out}");
}

fn a_mask_through_a_symlink(case: &Case) {
    let canary = case.folder("host").join("canary");
    fs::write(&canary, "untouched").expect("write");
    let bundle = case.bundle().script("true");
    std::os::unix::fs::symlink(&canary, bundle.rootfs().join("link")).expect("link");
    // Inside the rootfs the link leads nowhere; the host's file of that path is none of the container's business.
    let _ = bundle.set("/linux/maskedPaths", json!(["/link"])).run().ok();
    assert_eq!(fs::read_to_string(canary).expect("read"), "untouched");
}

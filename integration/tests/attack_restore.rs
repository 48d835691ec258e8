//! Attacks on restore: by a root file system that is another by then, by names of mount points, by what the saved container
//! did to its mounts, and by a folder of images that somebody else has packed.
//!
//! CVE-2026-119101 (runc), CVE-2026-115520 (crun), CVE-2026-119614 (criu): a restore binds a directory of the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ketch_integration::runtime::{Kind, Output};
use ketch_integration::shim::Stream;
use ketch_integration::{Bundle, Case, Container, tests};
use serde_json::json;

use crate::checkpoint::{checkpoint, count, needs_criu, restore, start};

tests![
    a_root_with_a_symlink_shows_nothing_of_the_host,
    a_bind_below_a_symlink_reaches_nothing_of_the_host,
    a_mount_point_is_no_syntax_of_criu,
    a_read_only_bind_does_not_come_back_writable,
    symlinks_among_the_images_are_refused,
    devices_and_fifos_among_the_images_are_refused,
    hostile_descriptors_are_refused,
    a_fifo_of_the_images_opens_no_other_file,
    images_give_no_right_that_the_configuration_does_not,
];

const SECRET: &str = "of the host alone";

/// A folder of the host's that a container must not see.
fn canary(case: &Case) -> PathBuf {
    let folder = case.folder("canary");
    fs::write(folder.join("secret"), SECRET).unwrap();
    folder
}

fn counting(case: &Case) -> Bundle<'_> {
    crate::checkpoint::counting(case)
}

fn saved<'a>(bundle: &Bundle<'a>) -> Container<'a> {
    let container = start(bundle);
    let _ = count(bundle);
    let _ = checkpoint(bundle, &[]).run().ok();
    container
}

/// Either it was refused and nothing is left, or it runs and shows nothing: what it says on `ls` and `cat` of `place`.
fn confined(container: &Container<'_>, bundle: &Bundle<'_>, out: &Output, place: &str) {
    if out.code != 0 {
        assert_eq!(container.status(), "gone", "{out}");
        assert!(!bundle.cgroup("pids").exists());
        return;
    }
    let seen = container.exec(&["/bin/sh", "-c", &format!("ls -la {place}; cat {place}/secret")]);
    assert!(!format!("{}{}", seen.stdout, seen.stderr).contains(SECRET), "the host's folder is shown: {seen}");
}

fn a_root_with_a_symlink_shows_nothing_of_the_host(case: &Case) {
    needs_criu(case);
    let canary = canary(case);
    // A read-only path is a bind of the root's own directory, which criu makes again by its path.
    let bundle = counting(case).edit(|spec| {
        spec["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/srv"));
    });
    fs::create_dir(bundle.rootfs().join("srv")).unwrap();
    let container = saved(&bundle);
    fs::remove_dir(bundle.rootfs().join("srv")).unwrap();
    symlink(&canary, bundle.rootfs().join("srv")).unwrap();
    let out = restore(&bundle, &[]).run();
    confined(&container, &bundle, &out, "/srv");
    if out.code == 0 {
        confined(&container, &bundle, &out, &canary.display().to_string());
    }
}

fn a_bind_below_a_symlink_reaches_nothing_of_the_host(case: &Case) {
    needs_criu(case);
    let canary = canary(case);
    let source = case.folder("source");
    let bundle = counting(case)
        .mount(json!({ "source": source, "destination": "/data/inner", "options": ["bind"] }));
    let container = saved(&bundle);
    fs::remove_dir_all(bundle.rootfs().join("data")).unwrap();
    symlink(&canary, bundle.rootfs().join("data")).unwrap();
    let out = restore(&bundle, &[]).run();
    confined(&container, &bundle, &out, "/data");
    let names: Vec<_> = fs::read_dir(&canary).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["secret"], "nothing was made in it");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("canary"), "nothing was mounted in it");
}

fn a_mount_point_is_no_syntax_of_criu(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it hands any name to criu");
    let canary = canary(case);
    let (one, two) = (case.folder("one"), case.folder("two"));
    // criu is told `mnt[MOUNTPOINT]:NAME`, and would take this for a mount at /x.
    let name = format!("/x]:{}", canary.display());
    let bundle = counting(case)
        .mount(json!({ "source": one, "destination": "/x", "options": ["bind"] }))
        .mount(json!({ "source": two, "destination": name, "options": ["bind"] }));
    let container = start(&bundle);
    checkpoint(&bundle, &[]).run().refuses(&["has a name that criu can't be told"]);
    assert_eq!(container.status(), "running");

    // The same by a symlink of the image, which config.json knows nothing of.
    let bundle = counting(case).mount(json!({ "source": one, "destination": "/link", "options": ["bind"] }));
    fs::create_dir_all(bundle.rootfs().join("y]:").join("z")).unwrap();
    symlink("/y]:/z", bundle.rootfs().join("link")).unwrap();
    let container = start(&bundle);
    checkpoint(&bundle, &[]).run().refuses(&["has a name that criu can't be told"]);
    assert_eq!(container.status(), "running");
}

fn a_read_only_bind_does_not_come_back_writable(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it takes a mount's flags from the images");
    let source = case.folder("source");
    let bundle = counting(case)
        .capabilities(&["CAP_SYS_ADMIN"])
        .mount(json!({ "source": source, "destination": "/data", "options": ["bind", "ro"] }));
    let container = start(&bundle);
    // As an image could say that was tampered with.
    let file = container.process_file(|process| {
        process["args"] = json!(["/bin/mount", "-o", "remount,bind,rw", "/data"]);
        let names = json!(["CAP_SYS_ADMIN"]);
        process["capabilities"] = json!({ "bounding": names, "effective": names, "permitted": names });
    });
    let _ = case.ketch().args(["exec", "--process"]).arg(file).arg(&bundle.id).run().ok();
    let _ = checkpoint(&bundle, &[]).run().ok();
    restore(&bundle, &[]).run().refuses(&["would be shown \"/data\" without MS_RDONLY"]);
    assert_eq!(container.status(), "gone");
    assert!(!bundle.cgroup("pids").exists());
}

fn symlinks_among_the_images_are_refused(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it looks at no file of criu's");
    let canary = canary(case);
    let bundle = counting(case);
    let container = saved(&bundle);
    let images = bundle.dir.join("images");
    // criu writes its log there, and reads memory from here.
    for name in ["restore.log", "pages-1.img"] {
        let place = images.join(name);
        let kept = fs::read(&place).ok();
        let _ = fs::remove_file(&place);
        symlink(canary.join("secret"), &place).unwrap();
        restore(&bundle, &[]).run().refuses(&["is no usable checkpoint", &format!("{name} is a symlink")]);
        assert_eq!(fs::read_to_string(canary.join("secret")).unwrap(), SECRET);
        fs::remove_file(&place).unwrap();
        if let Some(kept) = kept {
            fs::write(&place, kept).unwrap();
        }
    }
    symlink("/nowhere", images.join("parent")).unwrap();
    restore(&bundle, &[]).run().refuses(&["its parent /nowhere: no such file"]);
    fs::remove_file(images.join("parent")).unwrap();
    fs::rename(images.join("inventory.img"), images.join("elsewhere")).unwrap();
    restore(&bundle, &[]).run().refuses(&["inventory.img: no such file"]);
    fs::rename(images.join("elsewhere"), images.join("inventory.img")).unwrap();
    assert_eq!(container.status(), "gone");
    let _ = restore(&bundle, &[]).run().ok();
}

/// Before criu reads anything: it would wait at a fifo, and a device is the host's memory or disk.
fn devices_and_fifos_among_the_images_are_refused(case: &Case) {
    case.needs(case.has_program("criu"), "no criu (package criu)");
    case.not_on_runc("it looks at no file of criu's");
    let bundle = counting(case);
    bundle.write();
    let images = case.folder("bundle-images");
    fs::write(images.join("inventory.img"), "").unwrap();
    let place = images.join("pages-1.img");
    // /dev/null, a number that no disk has, a fifo.
    for arguments in [&["c", "1", "3"][..], &["b", "259", "1048575"], &["p"]] {
        let _ = fs::remove_file(&place);
        let made = case.program("mknod").arg(&place).args(arguments).run();
        case.needs(made.code == 0, &format!("devices can't be made here: {}", made.stderr));
        let restore = case.ketch().args(["restore", "--detach", "--image-path"]).arg(&images);
        let refused = restore.arg("--bundle").arg(&bundle.dir).arg(&bundle.id).run();
        refused.refuses(&["is no usable checkpoint", "pages-1.img is a device or a fifo"]);
        assert_eq!(Container::adopt(case, &bundle.id).status(), "gone");
    }
}

fn hostile_descriptors_are_refused(case: &Case) {
    needs_criu(case);
    let bundle = counting(case);
    let container = saved(&bundle);
    let file = bundle.dir.join("images/descriptors.json");
    let kept = fs::read(&file).unwrap();
    let ours = matches!(case.runtime.kind, Kind::Ketch);
    for text in ["", "{}", "[1,2,3]", "[\"a\""] {
        fs::write(&file, text).unwrap();
        let out = restore(&bundle, &[]).run();
        if ours {
            out.refuses(&["is no usable checkpoint: descriptors.json"]);
        } else {
            out.refuses(&[]);
        }
        assert_eq!(container.status(), "gone");
    }
    fs::remove_file(&file).unwrap();
    restore(&bundle, &[]).run().refuses(&["descriptors.json", "no such file"]);
    // A name of criu's own in place of a pipe opens nothing: it is not handed on.
    fs::write(&file, r#"["extRootNetNS","tty[8800:1]","pipe:[1]:extRootPidNS"]"#).unwrap();
    let _ = restore(&bundle, &[]).run().ok();
    container.stop();
    fs::write(&file, kept).unwrap();
}

/// criu opens anew what it is given for a fifo, as the images say: a file of the host's could be emptied so.
fn a_fifo_of_the_images_opens_no_other_file(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it can't save a fifo with a name");
    let output = Stream::open_held(&crate::checkpoint_streams::fifo(case, "fifo"));
    let bundle = counting(case);
    bundle.write();
    let create = case.ketch().arg("create").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    let through = |file: &Path| format!("exec \"$@\" </dev/null >>{} 2>/dev/null", file.display());
    let _ = create.through_shell(&through(&output.path)).run().ok();
    let container = Container::adopt(case, &bundle.id);
    let _ = container.start().ok();
    let _ = count(&bundle);
    let _ = checkpoint(&bundle, &[]).run().ok();
    let file = case.dir.join("log");
    fs::write(&file, SECRET).unwrap();
    let log = case.dir.join("restore-messages");
    let restore = case.ketch().arg("--log").arg(&log).args(["restore", "--detach", "--image-path"]);
    let restore = restore.arg(bundle.dir.join("images")).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
    assert_ne!(restore.through_shell(&through(&file)).run().code, 0);
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("stream 1 was a fifo and is none now"), "{said}");
    assert_eq!(container.status(), "gone");
    assert_eq!(fs::read_to_string(&file).unwrap(), SECRET);
}

/// Images that were tampered with say other rights than config.json; here config.json is what has changed since.
fn images_give_no_right_that_the_configuration_does_not(case: &Case) {
    needs_criu(case);
    case.not_on_runc("it believes the images");
    let bundle = counting(case).capabilities(&["CAP_SYS_ADMIN", "CAP_KILL"]).edit(|spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "uts");
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let container = saved(&bundle);
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }],
    });
    let changes: [(&str, serde_json::Value, &str); 3] = [
        ("/process/capabilities", json!({ "bounding": ["CAP_KILL"] }), "CAP_SYS_ADMIN, which config.json does not allow"),
        ("/linux/seccomp", filter, "would run without a seccomp filter"),
        ("/linux/namespaces", json!(null), "would be in the uts namespace"),
    ];
    let mut bundle = bundle;
    let saved_with = bundle.spec.clone();
    for (place, value, said) in changes {
        bundle = match &value {
            serde_json::Value::Null => bundle.edit(|spec| {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "uts" }));
            }),
            _ => bundle.set(place, value),
        };
        bundle.write();
        restore(&bundle, &[]).run().refuses(&["of the restored container", said]);
        assert_eq!(container.status(), "gone");
        assert!(!bundle.cgroup("pids").exists());
        bundle = bundle.edit(|spec| *spec = saved_with.clone());
    }
    bundle.write();
    let _ = restore(&bundle, &[]).run().ok();
    assert_eq!(container.status(), "running");
}

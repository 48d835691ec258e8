//! Images mounted into containers (`--mount type=image`, API 1.48): what is there, what is refused, and that the image is held for
//! as long as the container is there.

use std::fs;
use std::os::unix::fs::symlink;

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests};
use serde_json::{Value, json};

tests![
    an_image_is_there_and_read_only,
    a_part_of_one,
    what_is_refused,
    an_image_is_held,
    one_that_was_removed_by_force_is_still_there,
    volumes_from_brings_it,
    it_outlives_the_daemon,
    copies_of_what_does_not_run,
];

/// An engine with busybox and an image of files.
fn start<'a>(case: &'a Case, flags: &[&str]) -> Engine<'a> {
    let engine = Engine::bare(case, flags);
    engine.load_busybox();
    let root = engine.site.path("files");
    fs::create_dir_all(root.join("deep/er")).expect("make a folder");
    fs::create_dir_all(root.join("links")).expect("make a folder");
    fs::write(root.join("file"), "one").expect("write a file");
    fs::write(root.join("deep/file"), "two").expect("write a file");
    symlink("../deep", root.join("links/in")).expect("link");
    symlink("/etc", root.join("links/absolute")).expect("link");
    symlink("../../..", root.join("links/out")).expect("link");
    let _ = engine.sh(&format!("tar -C {} -c . | docker import - files:latest", root.display())).ok();
    engine
}

fn create(engine: &Engine<'_>, version: &str, mount: &Value) -> ketch_integration::ketchd::Answer {
    let body = json!({"Image": "busybox", "Cmd": ["ls", "-A", "/x"], "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}});
    engine.call("POST", &format!("{version}/containers/create?name=box"), &body.to_string())
}

fn an_image_is_there_and_read_only(case: &Case) {
    let engine = start(case, &[]);
    let mount = "--mount type=image,source=files,target=/x/y";
    let script = "ls -A /x/y; cat /x/y/file; echo; echo no >/x/y/file; rm /x/y/deep/file; touch /x/y/new; grep -c ' /x/y ro,' /proc/self/mountinfo";
    let out = engine.client().args(["run", "--name", "box", "--network", "none"]).args(mount.split(' ')).args(["busybox", "sh", "-c", script]).run();
    assert_eq!(out.stdout, "deep\nfile\nlinks\none\n1\n", "{out}");
    assert_eq!(out.stderr.matches("Read-only file system").count(), 3, "{out}");
    let shown: Value = serde_json::from_str(&engine.inspect("box", "{{json .Mounts}}")).expect("JSON");
    let one = &shown[0];
    assert_eq!((&one["Type"], &one["Name"], &one["Destination"]), (&json!("image"), &json!("files"), &json!("/x/y")));
    assert_eq!((&one["Mode"], &one["RW"], &one["Propagation"]), (&json!(""), &json!(false), &json!("rprivate")));
    assert!(one["Source"].as_str().is_some_and(|path| path.starts_with('/')) && one.get("Driver").is_none(), "{one}");
    let asked: Value = serde_json::from_str(&engine.inspect("box", "{{json .HostConfig.Mounts}}")).expect("JSON");
    assert_eq!(asked, json!([{"Type": "image", "Source": "files", "Target": "/x/y"}]));
    // Several layers are one tree, and what a layer has removed is not there.
    let _ = engine.docker("run --name step --network none busybox sh -c 'rm -r /root; echo new >/new'").ok();
    let _ = engine.docker("commit step layers").ok();
    let out = engine.docker("run --rm --network none --mount type=image,source=layers,target=/x busybox sh -c 'ls -d /x/root /x/bin /x/new'");
    assert_eq!((out.stdout.as_str(), out.code), ("/x/bin\n/x/new\n", 1), "{out}");
    // Two mounts of one image, and by its id.
    let id = engine.inspect("files", "{{.Id}}");
    let twice = format!("--mount type=image,source={id},target=/x --mount type=image,source=files:latest,target=/y");
    let out = engine.docker(&format!("run --rm --network none {twice} busybox cat /x/file /y/deep/file")).ok();
    assert_eq!(out.text(), "onetwo");
    engine.end();
}

fn a_part_of_one(case: &Case) {
    let engine = start(case, &[]);
    let part = |path: &str, command: &str| {
        engine.docker(&format!("run --rm --network none --mount type=image,source=files,target=/x,image-subpath={path} busybox {command}"))
    };
    assert_eq!(part("deep", "ls -A /x").ok().text(), "er\nfile");
    assert_eq!(part("deep/file", "cat /x").ok().text(), "two");
    assert_eq!(part("links/in", "cat /x/file").ok().text(), "two");
    for (path, why) in [("links/out", ""), ("links/absolute", ""), ("none", "no such file or directory")] {
        let out = part(path, "ls -A /x");
        assert!(out.code != 0 && out.stdout.is_empty() && out.stderr.contains(why), "{path}: {out}");
    }
    engine.end();
}

fn what_is_refused(case: &Case) {
    let engine = start(case, &[]);
    let config = "invalid mount config for type";
    for (mount, why) in [
        (json!({"Type": "image", "Target": "/x"}), format!("{config} \"image\": field Source must not be empty")),
        (json!({"Type": "image", "Source": "files"}), format!("{config} \"image\": field Target must not be empty")),
        (json!({"Type": "image", "Source": "files", "Target": "/"}), format!("{config} \"image\": invalid specification: destination can't be '/'")),
        (json!({"Type": "image", "Source": "files", "Target": "/x", "ImageOptions": {"Subpath": "../x"}}), format!("{config} \"image\": subpath must be a relative path within the volume")),
        (json!({"Type": "image", "Source": "files", "Target": "/x", "ImageOptions": {"Subpath": "/x"}}), format!("{config} \"image\": subpath must be a relative path within the volume")),
        (json!({"Type": "tmpfs", "Target": "/x", "ImageOptions": {}}), format!("{config} \"tmpfs\": field ImageOptions must not be specified")),
        (json!({"Type": "volume", "Target": "/x", "ImageOptions": {}}), format!("{config} \"volume\": field ImageOptions must not be specified")),
        (json!({"Type": "bind", "Source": "/", "Target": "/x", "ImageOptions": {}}), format!("{config} \"bind\": field ImageOptions must not be specified")),
    ] {
        assert_eq!(create(&engine, "", &mount).refuses(400), why, "{mount}");
    }
    let plain = json!({"Type": "image", "Source": "files", "Target": "/x"});
    assert_eq!(create(&engine, "/v1.47", &plain).refuses(400), "Mount type \"Image\" needs API v1.48 or newer");
    let none = json!({"Type": "image", "Source": "nowhere", "Target": "/x"});
    assert!(create(&engine, "", &none).refuses(404).starts_with("No such image: nowhere"));
    assert_eq!(engine.docker("ps --all --quiet").ok().text(), "");
    let made = create(&engine, "/v1.48", &plain).is(201).json();
    assert_eq!(made["Warnings"], json!(["Image mount is an experimental feature"]));
    let _ = engine.docker("rm box").ok();
    for field in ["BindOptions", "VolumeOptions", "TmpfsOptions"] {
        let mount = json!({"Type": "image", "Source": "files", "Target": "/x", field: {}});
        assert_eq!(create(&engine, "", &mount).refuses(400), format!("{field} must not be specified on mount type \"image\""));
    }
    engine.end();
}

fn an_image_is_held(case: &Case) {
    let engine = start(case, &[]);
    let _ = engine.docker("create --name box --mount type=image,source=files,target=/x busybox cat /x/file").ok();
    let (box_id, id) = (engine.inspect("box", "{{.Id}}"), engine.inspect("files", "{{.Id}}"));
    let held = format!("conflict: unable to remove repository reference \"files\" (must force) - container {} is using its referenced image {}", &box_id[..12], &id[7..19]);
    engine.docker("rmi files").refuses(&[&held]);
    assert_eq!(engine.docker("start --attach box").ok().text(), "one");
    let _ = engine.docker("rm box").ok();
    let gone = engine.docker("rmi files").ok();
    assert!(gone.text().contains("Untagged: files:latest") && gone.text().contains("Deleted: sha256:"), "{gone}");
    if engine.is_ketch() {
        // Nothing of it is on the disk any more: busybox's layer is.
        let layers = || fs::read_dir(engine.site.path("data/layers")).map(Iterator::count).unwrap_or_default();
        ketch_integration::wait_until("one layer", || if layers() == 1 { Ok(()) } else { Err(layers().to_string()) });
        assert_eq!(fs::read_dir(engine.site.path("data/snapshots")).expect("list the roots").count(), 0);
    }
    engine.end();
}

fn one_that_was_removed_by_force_is_still_there(case: &Case) {
    let mut engine = start(case, &[]);
    let _ = engine.docker("run --name box --network none --mount type=image,source=files,target=/x busybox cat /x/file").ok();
    let _ = engine.docker("rmi --force files").ok();
    let _ = engine.docker("image prune --force --all").ok();
    assert_eq!(engine.docker("start --attach box").ok().text(), "one");
    if engine.is_ketch() {
        // dockerd mounts it no more once it was down.
        engine.stop();
        engine.come_back();
        assert_eq!(engine.docker("start --attach box").ok().text(), "one");
    }
    engine.end();
}

fn volumes_from_brings_it(case: &Case) {
    let engine = start(case, &[]);
    let _ = engine.docker("run -d --name box --network none --mount type=image,source=files,target=/x,image-subpath=deep busybox sleep 1000").ok();
    let out = engine.docker("run --rm --network none --volumes-from box busybox sh -c 'cat /x/file; touch /x/new'");
    assert!(out.stdout == "two" && out.stderr.contains("Read-only file system"), "{out}");
    engine.end();
}

fn it_outlives_the_daemon(case: &Case) {
    let mut engine = start(case, &["--live-restore"]);
    let _ = engine.docker("run -d --name box --network none --mount type=image,source=files,target=/x busybox sleep 1000").ok();
    engine.kill();
    engine.come_back();
    assert_eq!(engine.docker("exec box cat /x/file").ok().text(), "one");
    assert_eq!(engine.sh("docker cp box:/x/file - | tar -xO").ok().stdout, "one");
    let _ = engine.docker("restart -t 0 box").ok();
    assert_eq!(engine.docker("exec box cat /x/deep/file").ok().text(), "two");
    engine.docker("rmi files").refuses(&["is using its referenced image"]);
    let _ = engine.docker("rm --force box").ok();
    let _ = engine.docker("rmi files").ok();
    engine.end();
}

/// What is copied out of a container is what it sees when it runs, whether it does or not.
fn copies_of_what_does_not_run(case: &Case) {
    let engine = start(case, &[]);
    // dockerd mounts no image twice where one of the mounts is of a part.
    let _ = engine.sh(&format!("tar -C {} -c . | docker import - parts:latest", engine.site.path("files").display())).ok();
    let mounts = "--mount type=image,source=files,target=/x --mount type=image,source=parts,target=/part,image-subpath=links/in -v vol:/x/links";
    let _ = engine.docker(&format!("create --name box --network none {mounts} busybox sleep 1000")).ok();
    let looks = |engine: &Engine<'_>| {
        let read = |path: &str| engine.sh(&format!("docker cp box:{path} - | tar -xO")).ok().stdout;
        let names = engine.sh("docker cp box:/x - | tar -t | sort | xargs").ok().text().to_owned();
        (read("/x/file"), read("/x/deep/file"), read("/part/file"), names)
    };
    let wanted = ("one".to_owned(), "two".to_owned(), "two".to_owned(), "x/ x/deep/ x/deep/er/ x/deep/file x/file x/links/".to_owned());
    // Never started, running, ended, and with its image removed by force.
    assert_eq!(looks(&engine), wanted);
    let _ = engine.docker("start box").ok();
    assert_eq!(looks(&engine), wanted);
    let _ = engine.docker("stop -t 0 box").ok();
    assert_eq!(looks(&engine), wanted);
    if engine.is_ketch() {
        // dockerd does not have it any more then.
        let _ = engine.docker("rmi --force files").ok();
        assert_eq!(looks(&engine), wanted);
    }
    // Nothing goes into an image; a volume upon it is another matter.
    fs::write(engine.site.path("new"), "new").expect("write a file");
    let new = engine.site.path("new");
    engine.docker(&format!("cp {} box:/x/deep/new", new.display())).refuses(&["mounted volume is marked read-only"]);
    let _ = engine.docker(&format!("cp {} box:/x/links/new", new.display())).ok();
    assert_eq!(engine.docker("run --rm --network none -v vol:/v busybox cat /v/new").ok().text(), "new");
    let _ = engine.docker("rm box").ok();
    engine.end();
}

//! Roots whose files' owners are mapped (`uidmap=`, `gidmap=` of a mount), as containerd's snapshotters ask for them in a user
//! namespace: what the container and the host see, what is refused, and that nothing is left.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use ketch_integration::bundle::Bundle;
use ketch_integration::shim::{Create, Message, Served, Shim, Stage};
use ketch_integration::{Case, probe, tests, wait_until};

tests![
    the_layers_of_an_overlay_are_mapped,
    more_layers_than_a_page_of_options_names_are_mapped,
    a_bound_root_is_mapped,
    a_bound_root_that_is_read_only_is_mapped,
    several_ranges_are_mapped,
    mapped_roots_are_made_side_by_side,
    a_shim_whose_file_is_gone_maps_on,
    a_mapping_that_makes_no_sense_is_refused_with_its_mount,
    what_the_kernel_does_not_map_is_refused_with_its_mount,
    layers_that_a_killed_shim_has_left_go_with_delete,
];

const FIRST: u32 = 100_000;
const MAPS: [&str; 2] = ["uidmap=0:100000:65536", "gidmap=0:100000:65536"];

fn new_stage(case: &Case) -> Stage<'_> {
    let stage = Stage::new(case);
    stage.shim.not_on_go16(case, "knows no mapped mounts");
    stage
}

/// A container in a user namespace, and the root file system that it had, which is root's.
fn moved_root<'a>(case: &'a Case, script: &str) -> (Bundle<'a>, PathBuf) {
    let bundle = case.bundle().script(script);
    let lower = case.folder("layers").join(&bundle.id);
    fs::rename(bundle.rootfs(), &lower).expect("move the root file system away");
    fs::create_dir(bundle.rootfs()).expect("make the mount point");
    // This gives the root to the mapped user, whose the files shall not be.
    (bundle.user_namespace(FIRST), lower)
}

fn mount<S: AsRef<str>>(kind: &str, source: &str, options: impl IntoIterator<Item = S>) -> Message {
    let message = Message::new().text(1, kind).text(2, source);
    options.into_iter().fold(message, |message, option| message.bytes(4, option.as_ref().as_bytes()))
}

/// An overlay of layers, the topmost first, whose upper layer is the mapped root's, as the snapshotter makes it.
fn overlay(case: &Case, name: &str, layers: &[PathBuf]) -> (Message, PathBuf) {
    let (upper, work) = (case.folder(&format!("{name}-upper")), case.folder(&format!("{name}-work")));
    chown(&upper, Some(FIRST), Some(FIRST)).expect("give the upper layer away");
    let layers: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
    let options = [
        format!("workdir={}", work.display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={}", layers.join(":")),
    ];
    (mount("overlay", "overlay", options.iter().map(String::as_str).chain(MAPS)), upper)
}

/// Runs the container to its end; what it says.
#[track_caller]
fn run(stage: &Stage<'_>, served: &Served, bundle: &Bundle<'_>, root: Message) -> String {
    let stdout = stage.stream(&format!("{}.out", bundle.id));
    served.tasks.run(&Create { rootfs: vec![root], ..stage.create(bundle).stdout(&stdout) });
    assert_eq!(served.tasks.wait(&bundle.id, ""), Ok(0));
    // containerd's shim mounts a bind and its mapped copy on top of it.
    let place = bundle.rootfs().display().to_string();
    assert!(stage.mounts().iter().all(|point| *point == place), "nothing but the root is mounted: {:?}", stage.mounts());
    assert_eq!(served.tasks.delete(&bundle.id, ""), Ok(0));
    assert!(stage.mounts().is_empty(), "{:?}", stage.mounts());
    stdout.finish()
}

#[track_caller]
fn end(stage: Stage<'_>, served: &Served, bundle: &Bundle<'_>) {
    let layers = bundle.dir.join("rootfs.layers");
    assert!(!layers.exists(), "{} is left", layers.display());
    served.tasks.leave(&bundle.id);
    no_holder(&stage);
    stage.end();
}

fn no_holder(stage: &Stage<'_>) {
    wait_until("no holder of a user namespace", || {
        let left = stage.site.processes("-hold-user-namespace");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

fn the_layers_of_an_overlay_are_mapped(case: &Case) {
    let stage = new_stage(case);
    let script = "stat -c %u:%g /bin/busybox /top /users; echo more >>/top; echo >/made";
    let (bundle, lower) = moved_root(case, script);
    let top = case.folder("top");
    for (name, owner) in [("top", 0), ("users", 1000)] {
        fs::write(top.join(name), name).expect("write into the layer");
        chown(top.join(name), Some(owner), Some(owner)).expect("give the file away");
    }
    let served = stage.serve(&bundle);
    let (root, upper) = overlay(case, "one", &[top.clone(), lower]);
    assert_eq!(run(&stage, &served, &bundle, root), "0:0\n0:0\n1000:1000\n");
    let owner = |path: PathBuf| path.metadata().map(|data| (data.uid(), data.gid())).expect("a file");
    assert_eq!((owner(upper.join("top")), owner(upper.join("made"))), ((FIRST, FIRST), (FIRST, FIRST)));
    assert_eq!((owner(top.join("top")), probe::read(top.join("top"))), ((0, 0), "top".to_owned()), "a layer is never written to");
    end(stage, &served, &bundle);
}

fn more_layers_than_a_page_of_options_names_are_mapped(case: &Case) {
    let stage = new_stage(case);
    let (bundle, lower) = moved_root(case, "cat /layer-* | wc -c; stat -c %u /layer-* | grep -c '^0$'");
    let folder = format!("layers/{}", "x".repeat(100));
    let mut layers: Vec<_> = (0..60)
        .map(|number| {
            let layer = case.folder(&format!("{folder}/{number}/fs"));
            fs::write(layer.join(format!("layer-{number}")), ".").expect("write into the layer");
            layer
        })
        .collect();
    layers.push(case.dir.join(folder).join("root"));
    fs::rename(lower, &layers[60]).expect("move the root to the other layers");
    let served = stage.serve(&bundle);
    let (root, _) = overlay(case, "many", &layers);
    assert_eq!(run(&stage, &served, &bundle, root), "60\n60\n");
    end(stage, &served, &bundle);
}

/// What the container says, and who has the file `/made`.
fn bound(stage: Stage<'_>, options: &[&str], script: &str) -> (String, u32) {
    let (bundle, lower) = moved_root(stage.case, script);
    let served = stage.serve(&bundle);
    let root = mount("bind", &lower.to_string_lossy(), options.iter().copied().chain(MAPS));
    let seen = run(&stage, &served, &bundle, root);
    let made = lower.join("made").metadata().map_or(0, |data| data.uid());
    end(stage, &served, &bundle);
    (seen, made)
}

fn a_bound_root_is_mapped(case: &Case) {
    let (seen, made) = bound(new_stage(case), &["rbind", "rw"], "stat -c %u:%g /bin/busybox; echo >/made && stat -c %u /made");
    assert_eq!((seen.as_str(), made), ("0:0\n0\n", 0), "it is its own root's on the host, too");
}

fn a_bound_root_that_is_read_only_is_mapped(case: &Case) {
    let stage = new_stage(case);
    stage.shim.not_on_go(case, "does not map what it binds read-only");
    let script = "stat -c %u:%g /bin/busybox; echo 2>/dev/null >/made || echo read-only";
    assert_eq!(bound(stage, &["rbind", "ro"], script).0, "0:0\nread-only\n");
}

fn several_ranges_are_mapped(case: &Case) {
    let stage = new_stage(case);
    let (bundle, lower) = moved_root(case, "stat -c %u:%g /a /b");
    for (name, owner) in [("a", 5), ("b", 15)] {
        fs::write(lower.join(name), name).expect("write into the root");
        chown(lower.join(name), Some(owner), Some(owner)).expect("give the file away");
    }
    let map = serde_json::json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 },
        { "containerID": 10, "hostID": 300_000, "size": 10 }
    ]);
    let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let served = stage.serve(&bundle);
    let maps = ["uidmap=0:100000:10,10:300000:10", "gidmap=0:100000:10,10:300000:10"];
    let root = mount("bind", &lower.to_string_lossy(), ["rbind", "rw"].into_iter().chain(maps));
    assert_eq!(run(&stage, &served, &bundle, root), "5:5\n15:15\n");
    end(stage, &served, &bundle);
}

fn mapped_roots_are_made_side_by_side(case: &Case) {
    let stage = new_stage(case);
    let (keeper, served) = stage.keeper();
    let tasks = &served.tasks;
    let bundles: Vec<_> = (0..8).map(|_| moved_root(case, "exec sleep 1000")).collect();
    let under_way: Vec<_> = bundles
        .iter()
        .map(|(bundle, lower)| {
            let (root, _) = overlay(case, &bundle.id, std::slice::from_ref(lower));
            tasks.creating(&Create { rootfs: vec![root], ..stage.create(bundle) })
        })
        .collect();
    for creating in under_way {
        creating.wait().expect("Create");
    }
    assert_eq!(stage.mounts().len(), bundles.len());
    for (bundle, _) in &bundles {
        tasks.kill(&bundle.id, "", 9).expect("Kill");
        assert_eq!(tasks.wait(&bundle.id, ""), Ok(137));
        assert_eq!(tasks.delete(&bundle.id, ""), Ok(137));
    }
    assert!(stage.mounts().is_empty(), "{:?}", stage.mounts());
    tasks.end(&keeper.id);
    stage.end();
}

fn a_shim_whose_file_is_gone_maps_on(case: &Case) {
    let shim = Shim::under_test(case);
    shim.not_on_go16(case, "knows no mapped mounts");
    let stage = Stage::with_shim(case, shim.copied(case));
    let (bundle, lower) = moved_root(case, "stat -c %u /bin/busybox");
    let served = stage.serve(&bundle);
    // A pod's shim lives on when a package is updated.
    fs::remove_file(&stage.shim.path).expect("remove the shim's file");
    let (root, _) = overlay(case, "late", &[lower]);
    assert_eq!(run(&stage, &served, &bundle, root), "0\n");
    end(stage, &served, &bundle);
}

/// Create fails with a text, nothing is left, and the shim goes on.
#[track_caller]
fn refused(stage: &Stage<'_>, served: &Served, bundle: &Bundle<'_>, root: Message, text: &str) {
    let failure = served.tasks.create(&Create { rootfs: vec![root], ..stage.create(bundle) });
    let Err(failure) = failure else { panic!("a root is mounted; awaited was {text:?}") };
    if stage.shim.is_ketch() {
        let place = bundle.rootfs().display().to_string();
        assert!(failure.message.contains(&place) && failure.message.contains(text), "no {text:?} or {place} in {failure}");
    }
    assert!(stage.mounts().is_empty(), "{:?}", stage.mounts());
    assert!(!bundle.dir.join("rootfs.layers").exists(), "the layers' folder is left");
    no_holder(stage);
}

fn a_mapping_that_makes_no_sense_is_refused_with_its_mount(case: &Case) {
    let stage = new_stage(case);
    let (bundle, lower) = moved_root(case, "stat -c %u /bin/busybox");
    let served = stage.serve(&bundle);
    let with = |maps: &[&str]| mount("bind", &lower.to_string_lossy(), ["rbind", "rw"].iter().chain(maps));
    let group = MAPS[1];
    let many: Vec<_> = (0..341).map(|id| format!("{id}:{id}:1")).collect();
    let many = format!("uidmap={}", many.join(","));
    let texts = [
        ("uidmap=0:100000", "\"0:100000\" is not"),
        ("uidmap=0:100000:65536,", "\"\" is not"),
        ("uidmap=root:100000:65536", "\"root:100000:65536\" is not"),
        ("uidmap=0:-1:65536", "\"0:-1:65536\" is not"),
        ("uidmap=0:100000:0", "0:100000:0 is no range"),
        ("uidmap=0:4294967295:2", "0:4294967295:2 is no range"),
        // Two ranges that overlap: the kernel does not say more.
        ("uidmap=0:100000:10,5:200000:10", "write the mappings"),
        (&many, "341 ranges"),
    ];
    for (option, text) in texts {
        refused(&stage, &served, &bundle, with(&[option, group]), text);
    }
    // What containerd's shim passes over.
    if stage.shim.is_ketch() {
        refused(&stage, &served, &bundle, with(&["uidmap=", group]), "\"\" is not <id>:<id>:<length>");
        refused(&stage, &served, &bundle, with(&["uidmap=0:4294967296:1", group]), "\"0:4294967296:1\" is not");
        refused(&stage, &served, &bundle, with(&[group]), "uidmap= and gidmap= go together");
        refused(&stage, &served, &bundle, with(&MAPS[..1]), "uidmap= and gidmap= go together");
    }
    assert_eq!(run(&stage, &served, &bundle, with(&MAPS)), "0\n");
    end(stage, &served, &bundle);
}

fn what_the_kernel_does_not_map_is_refused_with_its_mount(case: &Case) {
    let stage = new_stage(case);
    let (bundle, lower) = moved_root(case, "stat -c %u /bin/busybox");
    let served = stage.serve(&bundle);
    // proc knows no mapped mounts.
    let bind = mount("bind", "/proc", ["rbind", "rw"].into_iter().chain(MAPS));
    refused(&stage, &served, &bundle, bind, "map the owners");
    let layers = |top: &str| overlay(case, "none", &[lower.clone(), Path::new(top).to_owned()]).0;
    refused(&stage, &served, &bundle, layers("/proc/sys"), "layer /proc/sys");
    refused(&stage, &served, &bundle, layers("/no/such/layer"), "layer /no/such/layer");
    let no_lower = mount("overlay", "overlay", ["index=off"].into_iter().chain(MAPS));
    refused(&stage, &served, &bundle, no_lower, "lowerdir=");
    let (root, upper) = overlay(case, "late", std::slice::from_ref(&lower));
    fs::remove_dir(&upper).expect("remove the upper layer");
    refused(&stage, &served, &bundle, root, "mount the root file system");
    let (root, _) = overlay(case, "well", &[lower]);
    assert_eq!(run(&stage, &served, &bundle, root), "0\n");
    end(stage, &served, &bundle);
}

fn layers_that_a_killed_shim_has_left_go_with_delete(case: &Case) {
    let stage = new_stage(case);
    stage.shim.not_on_go(case, "keeps its layers elsewhere");
    let bundle = case.bundle().sleeper();
    let bootstrap = stage.bootstrap(&bundle);
    let layers = bundle.dir.join("rootfs.layers");
    fs::create_dir(&layers).expect("make the folder of layers");
    let path = layers.display().to_string();
    let script = format!("mount -t tmpfs layers {path} && mkdir {path}/0 && mount --bind /usr {path}/0");
    let _ = stage.site.run("sh", ["-c", &script]).ok();
    assert_eq!(stage.mounts().len(), 2);
    let _ = bootstrap.command("delete").run().ok();
    assert!(!layers.exists(), "the folder of layers is left");
    stage.end();
}

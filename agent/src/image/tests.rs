//! Images from archives to removal, on a disk of the test's own. As root, like the daemon.

use std::io::Write;

use serde_json::json;

use super::load::LoadOptions;
use super::progress::Progress;
use super::*;
use crate::scratch::{self, Folder};
use crate::tar::{Entry, Writer};

fn open(folder: &Folder) -> Images {
    let store = Store::open(&folder.path().join("store")).unwrap();
    Images::open(&folder.path().join("root"), store, Arc::default()).unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, bytes) in files {
        let entry = Entry {
            path: name.as_bytes().to_vec(),
            mode: 0o644,
            size: bytes.len() as u64,
            ..Entry::default()
        };
        writer.append(&entry).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// An archive of one image with these layers.
fn archive(name: &str, layers: &[&[u8]], corrupt: bool) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true}],
        "name": name.split(':').next(),
    });
    let config = serde_json::to_vec(&config).unwrap();
    let names: Vec<_> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", &config)];
    let broken = [layers[0], b"more"].concat();
    for (number, layer) in layers.iter().enumerate() {
        files.push((&names[number], if corrupt { &broken } else { layer }));
    }
    files.push(("manifest.json", &manifest));
    tar(&files)
}

fn load(images: &Images, archive: &[u8]) -> Result<()> {
    images.load(archive, &LoadOptions::default(), &Progress::default())
}

fn count(folder: &Folder, path: &str) -> usize {
    std::fs::read_dir(folder.path().join("root").join(path)).unwrap().count()
}

fn is_root() -> bool {
    scratch::is_root("owners of files need")
}

#[test]
fn loaded_images_are_there_after_a_restart_and_gone_after_removal() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("images");
    let (base, top) = (tar(&[("etc/name", b"base")]), tar(&[("etc/top", b"top")]));
    let images = open(&folder);
    load(&images, &archive("a:1", &[&base], false)).unwrap();
    load(&images, &archive("b:1", &[&base, &top], false)).unwrap();
    assert_eq!((count(&folder, "layers"), count(&folder, "image/staging")), (2, 0), "one layer is shared");
    drop(images);

    let images = open(&folder);
    let image = images.find("b:1").unwrap();
    assert_eq!(images.find(&image.id.hex()[..8]).unwrap().id, image.id);
    assert_eq!(images.find("c").unwrap_err().message, "No such image: c:latest");
    let root = images.prepare(&image, "c1").unwrap();
    assert_eq!(root.lower.len(), 3);
    assert!(root.lower[0].join("etc/top").exists() && root.lower[1].join("etc/name").exists());
    assert!(root.lower[2].join("etc/hosts").exists() && root.lower[2].join(".dockerenv").exists());
    drop(image);
    let users =
        images.roots().into_iter().map(|(container, image)| User { container, image, running: false });
    let mut options = RemoveOptions { users: users.collect(), ..RemoveOptions::default() };
    let refused = images.remove("b:1", &options).unwrap_err().message;
    assert!(refused.contains("(must force) - container c1 is using its referenced image"), "{refused}");
    options.force = true;
    let done = images.remove("b:1", &options).unwrap();
    assert_eq!(done.len(), 2, "the container has its layers still: {done:?}");
    assert_eq!(count(&folder, "layers"), 2);
    images.release("c1").unwrap();
    assert_eq!((count(&folder, "layers"), count(&folder, "snapshots")), (1, 0));
    let done = images.remove("a:1", &RemoveOptions::default()).unwrap();
    assert_eq!(done.len(), 3, "{done:?}");
    for left in ["layers", "image/blobs", "image/staging", "image/unpacking", "snapshots"] {
        assert_eq!(count(&folder, left), 0, "{left}");
    }
}

#[test]
fn what_is_wrong_leaves_nothing() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("images");
    let images = open(&folder);
    let base = tar(&[("a", b"a")]);
    let error = load(&images, &archive("a:1", &[&base], true)).unwrap_err().message;
    assert!(error.contains("invalid diffID"), "{error}");
    let hostile = tar(&[("../../evil", b"")]);
    assert!(load(&images, &archive("a:1", &[&hostile], false)).unwrap_err().message.contains("leads out"));
    let whole = archive("a:1", &[&base], false);
    for length in [0, 700, whole.len() / 2] {
        assert!(load(&images, &whole[..length]).is_err(), "{length}");
    }
    for left in ["layers", "image/blobs", "image/staging", "image/unpacking"] {
        assert_eq!(count(&folder, left), 0, "{left}");
    }
}

#[test]
fn saved_images_load_again_as_the_same() {
    if !is_root() {
        return;
    }
    let (first, second) = (Folder::new("images"), Folder::new("images"));
    let (base, top) = (tar(&[("a", b"a")]), tar(&[("b", b"b")]));
    let images = open(&first);
    load(&images, &archive("x/y:1", &[&base, &top], false)).unwrap();
    let mut saved = Vec::new();
    images.save(&images.select(&["x/y".to_owned()]).unwrap(), &mut saved).unwrap();
    let again = open(&second);
    load(&again, &saved).unwrap();
    assert_eq!(again.find("x/y:1").unwrap().id, images.find("x/y:1").unwrap().id);
    let mut twice = Vec::new();
    again.save(&again.select(&["x/y:1".to_owned()]).unwrap(), &mut twice).unwrap();
    assert_eq!(saved, twice);
}

#[test]
fn a_killed_daemon_leaves_nothing_half_done() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("images");
    let base = tar(&[("a", b"a")]);
    let images = open(&folder);
    load(&images, &archive("a:1", &[&base], false)).unwrap();
    let root = folder.path().join("root");
    drop(images);
    // As each step of a pull, a prepare and a removal may leave it.
    std::fs::write(root.join("image/staging/7"), "half a blob").unwrap();
    std::fs::create_dir(root.join("layers/99")).unwrap();
    std::fs::write(root.join("image/blobs").join(Digest::of(b"x").hex()), "x").unwrap();
    std::fs::create_dir(root.join("snapshots/c9")).unwrap();
    let images = open(&folder);
    assert_eq!((count(&folder, "layers"), count(&folder, "image/blobs")), (1, 2));
    assert_eq!((count(&folder, "image/staging"), count(&folder, "snapshots")), (0, 0));
    assert_eq!(images.count(), 1);
    drop(images);
    std::fs::remove_dir_all(root.join("layers/0")).unwrap();
    let images = open(&folder);
    assert_eq!(images.count(), 0, "an image without its layer is none");
    assert_eq!(count(&folder, "image/blobs"), 0);
}

#[test]
fn what_a_container_has_changed_becomes_a_layer() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("images");
    let images = open(&folder);
    let base = tar(&[("etc/gone", b"x"), ("etc/kept", b"x"), ("etc/changed", b"x"), ("old/a", b"x")]);
    load(&images, &archive("a:1", &[&base], false)).unwrap();
    let image = images.find("a:1").unwrap();
    let root = images.prepare(&image, "c1").unwrap();
    // Through a mount, as a container does it.
    let script = format!(
        "mkdir {0}/m; mount -t overlay overlay -o {1} {0}/m; cd {0}/m; rm etc/gone; echo y >etc/changed; mkdir new; \
         echo z >new/f; ln new/f new/g; ln -s / new/l; rm -r old; mkdir old; echo b >old/b; mkfifo new/p",
        folder.path().display(),
        root.mounts[0].options.join(","),
    );
    let made = std::process::Command::new("unshare").args(["-m", "sh", "-ec", &script]).status().unwrap();
    if !made.success() {
        eprintln!("skipped: an overlay can't be mounted here");
        return;
    }
    let shown: Vec<_> = images
        .changes("c1")
        .unwrap()
        .into_iter()
        .map(|change| format!("{}{}", change.kind, change.path))
        .collect();
    assert_eq!(
        shown,
        [
            "0/etc",
            "0/etc/changed",
            "2/etc/gone",
            "1/new",
            "1/new/f",
            "1/new/g",
            "1/new/l",
            "1/new/p",
            "0/old",
            "1/old/b"
        ]
    );
    let options = changes::CommitOptions {
        container: "c1".into(),
        reference: Some("b:1".parse().unwrap()),
        comment: "why".into(),
        config: image.config(),
        ..changes::CommitOptions::default()
    };
    let committed = images.commit(&options).unwrap();
    assert_eq!(committed.record.parent, Some(image.id));
    assert_eq!((committed.layers.len(), committed.file.history.len()), (2, 3));
    let names = |archive: &[u8]| {
        let mut reader = crate::tar::Reader::new(archive);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        names
    };
    let mut layer = Vec::new();
    images.write_layer(&committed.layers[1], &mut layer).unwrap();
    let expected = [
        "etc/",
        "etc/changed",
        "etc/.wh.gone",
        "new/",
        "new/f",
        "new/g",
        "new/l",
        "new/p",
        "old/",
        "old/.wh..wh..opq",
        "old/b",
    ];
    assert_eq!(names(&layer), expected);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    images.export("c1", &mut before).unwrap();
    let _root = images.prepare(&committed, "c2").unwrap();
    images.export("c2", &mut after).unwrap();
    let expected =
        ["etc/", "etc/changed", "etc/kept", "new/", "new/f", "new/g", "new/l", "new/p", "old/", "old/b"];
    // What is below every image is there, too.
    let ground = |name: &String| {
        ![".dockerenv", "dev/", "proc/", "sys/"].iter().any(|own| name.starts_with(own))
            && !["etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"].contains(&name.as_str())
    };
    for archive in [after, before] {
        let exported = names(&archive);
        assert!(exported.iter().any(|name| name == ".dockerenv"));
        assert_eq!(exported.into_iter().filter(ground).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn what_cannot_be_read_is_kept() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("images");
    let base = tar(&[("a", b"a")]);
    let images = open(&folder);
    load(&images, &archive("a:1", &[&base], false)).unwrap();
    load(&images, &archive("b:1", &[&base], false)).unwrap();
    let (id, blobs) = (images.find("a:1").unwrap().id, folder.path().join("root/image/blobs"));
    drop(images);
    let config = blobs.join(id.hex());
    let whole = std::fs::read(&config).unwrap();
    // No file is there to be read, and yet something is.
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    let reopened = || {
        let store = Store::open(&folder.path().join("store")).unwrap();
        Images::open(&folder.path().join("root"), store, Arc::default())
    };
    let error = reopened().unwrap_err().message;
    assert!(error.contains(&id.hex()), "{error}");
    std::fs::remove_dir(&config).unwrap();
    // Of a version that is not this one; then as it was.
    std::fs::write(&config, br#"{"rootfs":7}"#).unwrap();
    let images = open(&folder);
    assert_eq!((images.count(), count(&folder, "layers")), (1, 1));
    let _none = images.remove("b:1", &RemoveOptions::default()).unwrap();
    assert_eq!(count(&folder, "layers"), 1, "the image that can't be read has it");
    drop(images);
    std::fs::write(&config, &whole).unwrap();
    let images = open(&folder);
    assert_eq!(images.find("a:1").unwrap().id, id);
    drop(images);
    // What comes in anew is whole again, and goes as any other.
    std::fs::write(&config, b"{").unwrap();
    let images = open(&folder);
    assert!(images.find("a:1").is_err());
    load(&images, &archive("a:1", &[&base], false)).unwrap();
    assert_eq!(std::fs::read(&config).unwrap(), whole);
    let _none = images.remove("a:1", &RemoveOptions::default()).unwrap();
    assert_eq!((count(&folder, "layers"), count(&folder, "image/blobs")), (0, 0));
}

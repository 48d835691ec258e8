use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::CWD;

use super::*;
use crate::build::sums::Sums;
use crate::build::untar::untar;
use crate::scratch::{Folder, is_root};
use crate::tar::{Reader, Writer};

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 1000 };

fn tree(folder: &Folder) -> Tree {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Tree::new(openat(CWD, folder.path(), flags, Mode::empty()).unwrap(), LIMITS)
}

fn member(path: &str, kind: Kind, link: &str) -> Entry {
    Entry { path: path.into(), kind, link: link.into(), mode: 0o644, size: 0, ..Entry::default() }
}

fn archive(members: &[(Entry, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, data) in members {
        let entry = Entry { size: data.len() as u64, ..entry.clone() };
        writer.append(&entry).unwrap();
        io::Write::write_all(&mut writer, data.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn unpack(tree: &mut Tree, members: &[(Entry, &str)]) -> io::Result<Sums> {
    let mut sums = Sums::new();
    untar(tree, b"", &mut Reader::new(archive(members).as_slice()), Some(&mut sums)).map(|()| sums)
}

#[test]
fn links_are_resolved_inside() {
    let folder = Folder::new("tree");
    let make = |link: &str, target: &str| symlink(target, folder.path().join(link)).unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    make("abs", "/a");
    make("up", "../../../../a/b");
    make("a/back", "../abs");
    make("loop", "loop");
    let tree = tree(&folder);
    let resolved = |path: &str| String::from_utf8(tree.resolve(path.as_bytes()).unwrap()).unwrap();
    for (path, wanted) in [
        ("abs/x", "a/x"),
        ("/up", "a/b"),
        ("a/back/back/y/", "a/y"),
        ("../../etc", "etc"),
        ("none/../abs", "a"),
        ("", ""),
    ] {
        assert_eq!(resolved(path), wanted, "{path}");
    }
    assert!(tree.resolve(b"loop/x").is_err());
    assert_eq!(tree.resolve_parent(b"a/back").unwrap(), b"a/back");
    assert!(tree.open(b"abs", OFlags::PATH).is_err(), "what is not resolved is not followed");
}

#[test]
fn nothing_of_an_archive_is_outside() {
    if !is_root("owners are set by") {
        return;
    }
    let outer = Folder::new("outer");
    std::fs::create_dir(outer.path().join("in")).unwrap();
    std::fs::write(outer.path().join("secret"), "kept").unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || Tree::new(openat(CWD, outer.path().join("in"), flags, Mode::empty()).unwrap(), LIMITS);
    let outside = outer.path().display().to_string();
    for members in [
        vec![(member("up", Kind::Symlink, "../.."), ""), (member("up/secret", Kind::File, ""), "x")],
        vec![(member("abs", Kind::Symlink, &outside), ""), (member("abs/secret", Kind::File, ""), "x")],
        vec![(member("secret", Kind::Symlink, "../secret"), ""), (member("secret", Kind::File, ""), "x")],
        vec![(member("../secret", Kind::File, ""), "x")],
        vec![(member("hard", Kind::HardLink, "../secret"), ""), (member("hard", Kind::File, ""), "x")],
        vec![(member("d", Kind::Symlink, "../"), ""), (member("d", Kind::Directory, ""), "")],
    ] {
        let _either = unpack(&mut open(), &members);
        assert_eq!(std::fs::read_to_string(outer.path().join("secret")).unwrap(), "kept", "{members:?}");
        let names: Vec<_> =
            std::fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{members:?}: {names:?}");
    }
}

#[test]
fn what_is_there_is_replaced_but_folders_by_folders() {
    if !is_root("owners are set by") {
        return;
    }
    let folder = Folder::new("replaced");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::DirBuilder::new().recursive(true).create(path("d/deep/er")).unwrap();
    std::fs::write(path("d/deep/er/file"), "").unwrap();
    std::fs::create_dir(path("kept")).unwrap();
    std::fs::write(path("kept/file"), "there").unwrap();
    let mut tree = tree(&folder);
    let sums = unpack(
        &mut tree,
        &[
            (Entry { mode: 0o755, seconds: 5, ..member("kept/", Kind::Directory, "") }, ""),
            (member("kept/new", Kind::File, ""), "data"),
            (Entry { mode: 0o4711, uid: 3, gid: 4, ..member("d", Kind::File, "") }, "x"),
            (member("hard", Kind::HardLink, "kept/new"), ""),
            (member("made/on/the/way", Kind::Fifo, ""), ""),
        ],
    )
    .unwrap();
    assert_eq!(std::fs::read_to_string(path("kept/file")).unwrap(), "there");
    let about = std::fs::metadata(path("d")).unwrap();
    assert_eq!((about.permissions().mode() & 0o7777, about.uid(), about.gid()), (0o4711, 3, 4));
    assert_eq!(std::fs::metadata(path("kept")).unwrap().mtime(), 5);
    assert_eq!(std::fs::metadata(path("hard")).unwrap().nlink(), 2);
    assert_eq!(std::fs::metadata(path("made/on")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(sums.len(), 5);
    tree.give(b"d", (7, 7)).unwrap();
    assert_eq!(
        std::fs::metadata(path("d")).unwrap().permissions().mode() & 0o7777,
        0o711,
        "as chown(2) does"
    );
}

#[test]
fn an_archive_is_bounded() {
    if !is_root("owners are set by") {
        return;
    }
    let folder = Folder::new("bounded");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |bytes, entries| {
        let root = openat(CWD, folder.path(), flags, Mode::empty()).unwrap();
        Tree::new(root, Limits { bytes, entries })
    };
    let members: Vec<_> = ["a", "b", "c"].map(|name| (member(name, Kind::File, ""), "12345")).into();
    assert!(unpack(&mut open(15, 3), &members).is_ok());
    for (bytes, entries) in [(14, 3), (15, 2)] {
        let error = unpack(&mut open(bytes, entries), &members).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

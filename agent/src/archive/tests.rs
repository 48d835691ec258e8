//! Archives in and out of a folder that stands for a container's root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::{Receive, View, receive, send};
use crate::error::{Kind as ErrorKind, Result};
use crate::scratch::Folder;
use crate::tar::{Entry, Kind, Reader, Writer};

fn view(folder: &Path) -> View {
    View::of(fs::File::open(folder).unwrap().into(), folder.canonicalize().unwrap())
}

/// A member of the tests' own user.
fn member(path: &str, kind: Kind) -> Entry {
    let about = fs::metadata("/proc/self").unwrap();
    Entry {
        path: path.into(),
        kind,
        mode: 0o750,
        uid: about.uid(),
        gid: about.gid(),
        seconds: 7,
        ..Entry::default()
    }
}

fn link(path: &str, kind: Kind, target: &str) -> Entry {
    Entry { link: target.into(), ..member(path, kind) }
}

fn archive(members: &[(Entry, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in members {
        let entry = Entry { size: content.len() as u64, ..entry.clone() };
        writer.append(&entry).unwrap();
        std::io::Write::write_all(&mut writer, content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn put(view: &View, path: &str, how: Receive, members: &[(Entry, &str)]) -> Result<()> {
    receive(view, view.folder(path)?, how, archive(members).as_slice())
}

fn names(view: &View, path: &str) -> Vec<String> {
    let stat = view.stat(path).unwrap();
    let tar = send(view, path, stat.is_folder(), Vec::new()).unwrap();
    let mut reader = Reader::new(tar.as_slice());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

#[test]
fn what_is_received_is_sent_again() {
    let folder = Folder::new("archive");
    let view = view(folder.path());
    let members = [
        (member("made/", Kind::Directory), ""),
        (member("made/file", Kind::File), "content"),
        (link("made/again", Kind::HardLink, "made/file"), ""),
        (link("made/link", Kind::Symlink, "file"), ""),
        (member("implied/deep/file", Kind::File), "x"),
    ];
    put(&view, "/", Receive::default(), &members).unwrap();
    let about = fs::metadata(folder.path().join("made/file")).unwrap();
    assert_eq!((about.permissions().mode() & 0o7777, about.mtime(), about.nlink()), (0o750, 7, 2));
    assert_eq!(fs::metadata(folder.path().join("made")).unwrap().mtime(), 7);
    assert_eq!(names(&view, "/made"), ["made/", "made/again", "made/file", "made/link"]);
    assert_eq!(names(&view, "/made/."), ["./", "./again", "./file", "./link"]);
    assert_eq!(names(&view, "/made/link"), ["link"]);
    assert_eq!(names(&view, "/implied"), ["implied/", "implied/deep/", "implied/deep/file"]);
    assert_eq!(names(&view, "/")[..2], ["/", "/implied/"]);
    let stat = view.stat("/made/link").unwrap();
    assert_eq!((stat.name.as_str(), stat.link_target.as_str(), stat.size), ("link", "/made/file", 4));
}

#[test]
fn links_are_followed_inside_and_never_out() {
    let (folder, outside) = (Folder::new("archive"), Folder::new("outside"));
    let view = view(folder.path());
    fs::create_dir(folder.path().join("in")).unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink("../../../../../../../../in", folder.path().join("up")).unwrap();
    symlink("up", folder.path().join("twice")).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    let file = [(member("file", Kind::File), "x")];
    put(&view, "/twice", Receive::default(), &file).unwrap();
    assert!(folder.path().join("in/file").exists());
    assert_eq!(view.stat("/twice").unwrap().link_target, "/in");
    assert_eq!(put(&view, "/out", Receive::default(), &file).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(
        put(&view, "/loop", Receive::default(), &file).unwrap_err().message,
        "EvalSymlinks: too many links"
    );
    // By a link that the archive itself brings, too: it is made, and leads to the container's own.
    let target = outside.path().to_str().unwrap();
    let through = [(link("l", Kind::Symlink, target), ""), (member("l/file", Kind::File), "x")];
    let _refused = put(&view, "/", Receive::default(), &through);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn names_that_lead_out_are_refused() {
    let folder = Folder::new("archive");
    let view = view(folder.path());
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(folder.path().join("secret"), "x").unwrap();
    for (entry, text) in [
        (member("../out", Kind::File), "invalid entry name \"../out\""),
        (member("a/../../out", Kind::File), "invalid entry name \"a/../../out\""),
        (link("l", Kind::HardLink, "../secret"), "invalid hardlink \"/secret\" -> \"../secret\""),
    ] {
        let error = put(&view, "/in", Receive::default(), &[(entry, "")]).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Internal, text));
    }
    assert_eq!(fs::read_dir(folder.path().join("in")).unwrap().count(), 0);
}

#[test]
fn kinds_are_kept_where_that_is_asked() {
    let folder = Folder::new("archive");
    let view = view(folder.path());
    fs::DirBuilder::new().recursive(true).create(folder.path().join("folder/in/deep")).unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let keeps = Receive { keeps_kinds: true, ..Receive::default() };
    let file = [(member("folder", Kind::File), "y")];
    let made = [(member("file/", Kind::Directory), "")];
    let text = |error: crate::error::Error| error.message;
    assert_eq!(
        text(put(&view, "/", keeps, &file).unwrap_err()),
        "cannot overwrite directory \"folder\" with non-directory \"/\""
    );
    assert_eq!(
        text(put(&view, "/", keeps, &made).unwrap_err()),
        "cannot overwrite non-directory \"file\" with directory \"/\""
    );
    put(&view, "/", Receive::default(), &file).unwrap();
    put(&view, "/", Receive::default(), &made).unwrap();
    assert!(folder.path().join("folder").is_file() && folder.path().join("file").is_dir());
    assert_eq!(text(put(&view, "/folder", keeps, &made).unwrap_err()), "extraction point is not a directory");
    assert_eq!(text(put(&view, "/folder/", keeps, &made).unwrap_err()), "lstat /folder/: not a directory");
}

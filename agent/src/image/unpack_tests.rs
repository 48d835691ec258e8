//! What hostile and odd tars leave behind: in their folder, and nothing outside. As root, like the daemon.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::scratch::{self, Folder};
use crate::tar::{Sparse, Writer};

const PLENTY: Limits = Limits { bytes: 1 << 20, entries: 100 };

struct Layer {
    scratch: Folder,
    result: Result<u64>,
}

impl Layer {
    fn root(&self) -> PathBuf {
        self.scratch.path().join("layer")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }
}

fn unpack_bytes(archive: &[u8], limits: Limits) -> Layer {
    let scratch = Folder::new("unpack");
    for name in ["layer", "trash"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
    }
    fs::write(scratch.path().join("outside"), "untouched").unwrap();
    let mut unpacker =
        Unpacker::new(&scratch.path().join("layer"), &scratch.path().join("trash"), limits).unwrap();
    let result = unpacker.unpack(&mut Reader::new(archive)).map(|()| unpacker.size);
    assert_eq!(fs::read(scratch.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "something was made outside");
    Layer { scratch, result }
}

fn unpack(members: &[Entry]) -> Layer {
    unpack_bytes(&archive(members), PLENTY)
}

fn archive(members: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for member in members {
        writer.append(member).unwrap();
        writer.write_all(&vec![b'x'; usize::try_from(member.size).unwrap()]).unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> Entry {
    Entry { path: path.into(), mode: 0o644, size: 3, seconds: 1, ..Entry::default() }
}

fn folder(path: &str) -> Entry {
    Entry { path: path.into(), kind: Kind::Directory, mode: 0o755, seconds: 1, ..Entry::default() }
}

fn link(kind: Kind, path: &str, to: &str) -> Entry {
    Entry { path: path.into(), kind, link: to.into(), mode: 0o777, ..Entry::default() }
}

fn is_root() -> bool {
    scratch::is_root("owners, devices and trusted attributes need")
}

fn opaque(path: &std::path::Path) -> bool {
    let mut value = [0; 4];
    rustix::fs::lgetxattr(path, OPAQUE_XATTR, &mut value).is_ok_and(|length| &value[..length] == b"y")
}

#[test]
fn members_are_what_they_say() {
    if !is_root() {
        return;
    }
    let mut suid = file("bin/su");
    (suid.mode, suid.uid, suid.gid, suid.nanoseconds) = (0o6755, 5, 6, 7);
    suid.xattrs =
        vec![(b"user.k".to_vec(), b"v".to_vec()), (b"trusted.overlay.redirect".to_vec(), b"/".to_vec())];
    let device = Entry {
        path: b"dev/zero".to_vec(),
        kind: Kind::Char,
        mode: 0o666,
        device: (1, 5),
        ..Entry::default()
    };
    let layer = unpack(&[
        Entry { mode: 0o1777, ..folder("./") },
        folder("bin"),
        suid,
        link(Kind::HardLink, "bin/other", "./bin/su"),
        link(Kind::Symlink, "link", "/etc/passwd"),
        device,
        Entry { path: b"fifo".to_vec(), kind: Kind::Fifo, mode: 0o600, ..Entry::default() },
    ]);
    assert_eq!(layer.result.as_ref().unwrap(), &(3 + 11));
    let su = fs::metadata(layer.path("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o6755, 5, 6, 2));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1, 7));
    assert_eq!(fs::metadata(layer.path("bin")).unwrap().mtime(), 1, "a folder's time outlives its files'");
    assert_eq!(fs::metadata(layer.root()).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(layer.path("link")).unwrap(), PathBuf::from("/etc/passwd"));
    assert!(fs::symlink_metadata(layer.path("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(layer.path("dev/zero")).unwrap().rdev(), makedev(1, 5));
    let mut value = [0; 8];
    assert_eq!(rustix::fs::lgetxattr(layer.path("bin/su"), "user.k", &mut value), Ok(1));
    assert!(rustix::fs::lgetxattr(layer.path("bin/su"), "trusted.overlay.redirect", &mut value).is_err());
}

#[test]
fn nothing_leads_out() {
    for path in ["../outside", "a/../../outside", "/../outside"] {
        assert!(unpack(&[file(path)]).error().contains("leads out"), "{path}");
    }
    // Links of the layer's own are followed inside it.
    let layer = unpack(&[link(Kind::Symlink, "l", "/../.."), file("l/outside")]);
    assert_eq!(fs::read(layer.path("outside")).unwrap(), b"xxx");
    let layer = unpack(&[link(Kind::Symlink, "l", "../outside"), file("l")]);
    assert_eq!(fs::read(layer.path("l")).unwrap(), b"xxx", "the link itself is replaced");
    for target in ["../outside", "/proc/self/exe", "l"] {
        let layer = unpack(&[link(Kind::Symlink, "k", "../../outside"), link(Kind::HardLink, "h", target)]);
        assert!(layer.result.is_err(), "{target}");
    }
    let magic = unpack(&[link(Kind::Symlink, "p", "/proc/self/root"), file("p/tmp/x")]);
    assert!(magic.result.is_err());
    // The rest of what a symlink to a folder outside could be used for: whiteouts, folders, removal.
    let layer =
        unpack(&[link(Kind::Symlink, "up", ".."), file("up/.wh.outside"), folder("up"), file("up/x")]);
    assert!(layer.result.is_ok() && layer.path("up/x").exists());
}

#[test]
fn whiteouts_become_overlays() {
    if !is_root() {
        return;
    }
    let layer = unpack(&[
        file("a/.wh.gone"),
        file("b/.wh..wh..opq"),
        file("c/.wh.new"),
        folder("c/new"),
        file("d/own"),
        file("d/.wh.own"),
        folder("e"),
        file(".wh.e"),
        file("f/.wh..wh.plnk"),
    ]);
    layer.result.as_ref().unwrap();
    let gone = fs::symlink_metadata(layer.path("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(opaque(&layer.path("b")) && !layer.path("b/.wh..wh..opq").exists());
    assert!(layer.path("c/new").is_dir() && opaque(&layer.path("c/new")), "the lower folder stays hidden");
    assert!(layer.path("d/own").is_file(), "a layer does not remove its own files");
    assert!(opaque(&layer.path("e")));
    assert_eq!(fs::read_dir(layer.path("f")).unwrap().count(), 0);
    for bad in [".wh.", ".wh..", ".wh..."] {
        let layer = unpack(&[file(bad)]);
        assert!(layer.result.is_err() || bad == ".wh...", "{bad}");
    }
}

#[test]
fn later_members_replace_earlier_ones() {
    let layer = unpack(&[
        file("a/b/c"),
        file("a"),
        folder("a"),
        file("a/new"),
        file("f"),
        link(Kind::HardLink, "f", "f"),
        folder("g"),
        file("g/x"),
        folder("g"),
    ]);
    layer.result.as_ref().unwrap();
    assert!(layer.path("a/new").is_file() && !layer.path("a/b").exists());
    assert!(layer.path("f").is_file() && layer.path("g/x").is_file());
}

#[test]
fn bombs_are_bounded() {
    let many: Vec<_> = (0..101).map(|number| file(&number.to_string())).collect();
    assert!(unpack(&many).error().contains("more than 100 files"));
    let large = Entry { size: 2 << 20, ..file("large") };
    assert!(unpack(std::slice::from_ref(&large)).error().contains("more than 1048576 bytes"));
    // A size that the archive only claims.
    let mut claimed = archive(&[file("claimed")]);
    let text = format!("{:011o}\0", 512);
    claimed[124..136].copy_from_slice(text.as_bytes());
    let layer = unpack_bytes(&claimed[..600], PLENTY);
    assert!(layer.result.is_err(), "the checksum is not right, nor the length");
    let long = file(&"d/".repeat(2100));
    assert!(unpack(&[long]).result.is_err());
}

#[test]
fn truncated_archives_are_refused() {
    let whole = archive(&[file("a"), file("b")]);
    for length in [1, 511, 513, 600, 1023, 1025, 1540] {
        let layer = unpack_bytes(&whole[..length], PLENTY);
        assert!(layer.result.is_err(), "{length}");
    }
}

#[test]
fn holes_are_holes() {
    let sparse = Sparse { real_size: 1 << 30, pieces: vec![(4096, 2), ((1 << 30) - 1, 1)] };
    let map = b"2\n4096\n2\n1073741823\n1\n";
    let records: Vec<u8> =
        ["22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n", "34 GNU.sparse.realsize=1073741824\n"]
            .concat()
            .into_bytes();
    let mut archive = Vec::new();
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend(b"abc");
    let mut writer = Writer::new(&mut archive);
    writer.append(&Entry { size: records.len() as u64, ..file("pax") }).unwrap();
    writer.write_all(&records).unwrap();
    writer.append(&Entry { size: data.len() as u64, ..file("sparse") }).unwrap();
    writer.write_all(&data).unwrap();
    let _archive = writer.finish().unwrap();
    // The first is the records of the second.
    archive[156] = b'x';
    let sum: u32 = archive[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    archive[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    let mut reader = Reader::new(archive.as_slice());
    assert_eq!(reader.next_entry().unwrap().unwrap().sparse, Some(sparse));
    let layer = unpack_bytes(&archive, PLENTY);
    let about = fs::metadata(layer.path("sparse")).unwrap();
    assert_eq!(about.len(), 1 << 30);
    assert!(about.blocks() * 512 < 1 << 20, "{} blocks", about.blocks());
    let bytes = fs::read(layer.path("sparse")).unwrap();
    assert_eq!((&bytes[4096..4098], bytes[(1 << 30) - 1]), (b"ab".as_slice(), b'c'));
}

fn any_member() -> impl Strategy<Value = Entry> {
    let name = prop::sample::select(vec![
        "a",
        "a/b",
        "a/b/c",
        "b",
        "b/a",
        "..",
        "../a",
        "a/../b",
        "/a",
        "./",
        ".wh.a",
        "a/.wh.b",
        "a/.wh..wh..opq",
        ".wh..wh..opq",
        "b/.wh.a",
        "c/../../x",
        ".wh...",
        "a//b/",
    ]);
    let kind = prop::sample::select(vec![
        Kind::File,
        Kind::HardLink,
        Kind::Symlink,
        Kind::Char,
        Kind::Directory,
        Kind::Fifo,
    ]);
    let link =
        prop::sample::select(vec!["", "a", "/a", "..", "../..", "a/b", "/", "../outside", "/proc/self/fd/0"]);
    (name, kind, link, 0_u32..0o10000).prop_map(|(path, kind, link, mode)| Entry {
        path: path.into(),
        kind,
        link: link.into(),
        mode: mode | 0o700,
        size: if kind == Kind::File { 2 } else { 0 },
        ..Entry::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_members_stay_inside(members in prop::collection::vec(any_member(), 0..12)) {
        if is_root() {
            let _layer = unpack(&members);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0_usize..1024) {
        let mut broken = archive(&[file("a"), link(Kind::Symlink, "b", "a")]);
        let at = at.min(broken.len() - 1);
        if let Some(byte) = bytes.pop() {
            broken[at] = byte;
        }
        let _layer = unpack_bytes(&broken, PLENTY);
        let _layer = unpack_bytes(&bytes, PLENTY);
    }
}

#[test]
fn owners_are_the_hosts_on_the_disk_and_containers_in_tars() {
    if !scratch::is_root("giving files away takes") {
        return;
    }
    let ids = crate::remap::Ids::new(&[(7000, 10), (9000, 10)], &[(8000, 10)]).unwrap();
    let scratch = Folder::new("owners");
    for name in ["layer", "trash"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
    }
    let owned = |entry: Entry, uid, gid| Entry { uid, gid, ..entry };
    let members = [
        owned(file("implied/folder/file"), 12, 9),
        owned(link(Kind::Symlink, "link", "/etc"), 3, 4),
        file(".wh.gone"),
    ];
    let root = scratch.path().join("layer");
    let unpacker = || {
        let made = Unpacker::new(&root, &scratch.path().join("trash"), PLENTY).unwrap();
        made.for_users(&ids)
    };
    unpacker().unpack(&mut Reader::new(&archive(&members)[..])).unwrap();
    let owner = |path: &str| {
        let about = fs::symlink_metadata(root.join(path)).unwrap();
        (about.uid(), about.gid())
    };
    assert_eq!((owner("implied"), owner("implied/folder")), ((7000, 8000), (7000, 8000)));
    assert_eq!((owner("implied/folder/file"), owner("link")), ((9002, 8009), (7003, 8004)));
    let opened = File::open(&root).unwrap().into();
    let packed =
        super::super::pack::pack(&opened, super::super::pack::Of::Changes, &ids, Vec::new()).unwrap();
    let mut reader = Reader::new(&packed[..]);
    let mut owners = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        owners.push((text(&entry.path), entry.uid, entry.gid));
    }
    let wanted = [
        (".wh.gone", 0, 0),
        ("implied/", 0, 0),
        ("implied/folder/", 0, 0),
        ("implied/folder/file", 12, 9),
        ("link", 3, 4),
    ];
    assert_eq!(owners, wanted.map(|(path, uid, gid)| (path.to_owned(), uid, gid)));
    // Whom containers do not have.
    let error = unpacker().unpack(&mut Reader::new(&archive(&[owned(file("x"), 20, 0)])[..])).unwrap_err();
    assert_eq!(error.to_string(), "the owner of \"x\"");
}

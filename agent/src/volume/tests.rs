//! Volumes on a disk: made, held, filled, removed, and found again.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::scratch::Folder;

fn open(folder: &Path) -> Volumes {
    let store = Store::open(&folder.join("store")).unwrap();
    Volumes::open(folder, store, Arc::new(Events::default())).unwrap()
}

fn named(name: &str) -> Create {
    Create { name: name.to_owned(), ..Create::default() }
}

#[test]
fn names_are_checked_in_dockerds_words() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let refused = |create: &Create| volumes.create(create, None).unwrap_err().message;
    assert_eq!(
        refused(&named("x")),
        "create x: volume name is too short, names should be at least two alphanumeric characters"
    );
    assert_eq!(
        refused(&named("../x")),
        "create ../x: \"../x\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
         are allowed. If you intended to pass a host directory, use absolute path"
    );
    let other = Create { driver: "nfs".into(), ..named("vol") };
    assert_eq!(refused(&other), "create vol: error looking up volume plugin nfs: plugin \"nfs\" not found");
}

#[test]
fn volumes_are_found_again_and_go_when_nobody_holds_them() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let made = volumes.create(&Create { labels: labels.clone(), ..named("kept") }, Some("c1")).unwrap();
    let anonymous = volumes.create(&Create::default(), None).unwrap();
    assert_eq!((anonymous.name.len(), anonymous.labels.unwrap().contains_key(ANONYMOUS)), (64, true));
    assert_eq!(volumes.remove("kept").unwrap_err().message, "remove kept: volume is in use - [c1]");
    drop(volumes);
    let volumes = open(folder.path());
    let found = volumes.find("kept").unwrap();
    assert_eq!((found.labels, found.created), (labels, made.created));
    volumes.hold("kept", "c2");
    assert_eq!(volumes.let_go("c2"), ["kept"]);
    volumes.remove("kept").unwrap();
    assert_eq!(volumes.remove("kept").unwrap_err().message, "get kept: no such volume");
    assert!(!folder.path().join("volumes/kept").exists());
    assert_eq!(fs::read_dir(folder.path().join("volumes")).unwrap().count(), 1);
}

#[test]
fn a_removal_that_was_cut_off_is_ended_by_the_next_start() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let _made = volumes.create(&named("half"), None).unwrap();
    drop(volumes);
    let place = folder.path().join("volumes");
    fs::rename(place.join("half"), place.join(".removed-x")).unwrap();
    let volumes = open(folder.path());
    assert!(volumes.find("half").is_err());
    assert_eq!(fs::read_dir(place).unwrap().count(), 0);
}

#[test]
fn pruning_takes_what_is_wanted_and_free() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let _held = volumes.create(&named("held"), Some("c1")).unwrap();
    let _free = volumes.create(&named("free"), None).unwrap();
    let _other = volumes.create(&named("other"), None).unwrap();
    fs::write(folder.path().join("volumes/free/_data/file"), "12345").unwrap();
    let (names, bytes) = volumes.prune(|volume| volume.name != "other").unwrap();
    assert_eq!((names, bytes), (vec!["free".to_owned()], 5));
}

#[test]
fn an_empty_volume_is_filled_with_what_the_root_has() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::create_dir(root.join("data")).unwrap();
    fs::create_dir(root.join("data/inner")).unwrap();
    fs::write(root.join("data/inner/file"), "x").unwrap();
    fs::hard_link(root.join("data/inner/file"), root.join("data/same")).unwrap();
    fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/etc", root.join("data/link")).unwrap();
    // An absolute link in a root is meant from there.
    symlink("/data", root.join("alias")).unwrap();
    let _made = volumes.create(&named("vol"), None).unwrap();
    volumes.fill("vol", "c1", &root, "/alias").unwrap();
    let data = folder.path().join("volumes/vol/_data");
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_to_string(data.join("inner/file")).unwrap(), "x");
    assert_eq!(
        fs::metadata(data.join("same")).unwrap().ino(),
        fs::metadata(data.join("inner/file")).unwrap().ino()
    );
    assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("/etc"));
    // Once only.
    fs::write(root.join("data/later"), "y").unwrap();
    volumes.fill("vol", "c1", &root, "/data").unwrap();
    assert!(!data.join("later").exists());
    volumes.fill("vol", "c1", &root, "/nowhere").unwrap();
}

#[test]
fn half_a_copy_is_made_again() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::create_dir(root.join("data")).unwrap();
    fs::write(root.join("data/file"), "x").unwrap();
    let _made = volumes.create(&named("vol"), None).unwrap();
    let volume = folder.path().join("volumes/vol");
    fs::create_dir(volume.join("_filling")).unwrap();
    fs::write(volume.join("_filling/half"), "").unwrap();
    volumes.fill("vol", "c1", &root, "/data").unwrap();
    assert_eq!(fs::read_to_string(volume.join("_data/file")).unwrap(), "x");
    assert!(!volume.join("_data/half").exists() && !volume.join("_filling").exists());
    // Into the folder itself, while another container has it.
    let _made = volumes.create(&named("two"), None).unwrap();
    let _data = volumes.mount("two", "c2").unwrap();
    let before = fs::metadata(folder.path().join("volumes/two/_data")).unwrap().ino();
    volumes.fill("two", "c1", &root, "/data").unwrap();
    let data = folder.path().join("volumes/two/_data");
    assert_eq!((fs::metadata(&data).unwrap().ino(), data.join("file").exists()), (before, true));
}

#[test]
fn subpaths_stay_inside() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let _made = volumes.create(&named("vol"), None).unwrap();
    let data = folder.path().join("volumes/vol/_data");
    fs::create_dir(data.join("in")).unwrap();
    symlink("/etc", data.join("out")).unwrap();
    let opened = fs::File::from(volumes.subpath("vol", "in").unwrap());
    assert_eq!(opened.metadata().unwrap().ino(), data.join("in").metadata().unwrap().ino());
    assert!(volumes.subpath("vol", "out").is_err() && volumes.subpath("vol", "../vol").is_err());
    assert_eq!(
        volumes.subpath("vol", "nowhere").unwrap_err().message,
        format!(
            "cannot access path {0}/nowhere: lstat {0}/nowhere: no such file or directory",
            data.display()
        )
    );
}

#[test]
fn a_volume_on_a_disk_that_is_not_there_yet_is_kept() {
    let folder = Folder::new("volume");
    let volumes = open(folder.path());
    let _made = volumes.create(&named("far"), None).unwrap();
    drop(volumes);
    let (place, disk) = (folder.path().join("volumes/far"), folder.path().join("disk"));
    fs::remove_dir_all(&place).unwrap();
    std::os::unix::fs::symlink(&disk, &place).unwrap();
    assert!(open(folder.path()).find("far").is_ok());
    fs::remove_file(&place).unwrap();
    assert!(open(folder.path()).find("far").is_err());
}

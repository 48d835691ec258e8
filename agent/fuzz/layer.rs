//! Any bytes as a layer: what is made is below its folder, and nothing beside it.
#![no_main]

use std::fs;
use std::path::PathBuf;

use ketchd::image::unpack::{Limits, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let folder = PathBuf::from(format!("/tmp/ketchd-fuzz-{}", std::process::id()));
    let _left = fs::remove_dir_all(&folder);
    for name in ["layer", "trash", "beside"] {
        fs::DirBuilder::new().recursive(true).create(folder.join(name)).expect("make a folder");
    }
    let limits = Limits { bytes: 1 << 20, entries: 1000 };
    let _unpacked = unpack(input, &folder.join("layer"), &folder.join("trash"), limits);
    assert_eq!(fs::read_dir(&folder).expect("look").count(), 3, "something is beside the layer");
    assert_eq!(fs::read_dir(folder.join("beside")).expect("look").count(), 0);
});

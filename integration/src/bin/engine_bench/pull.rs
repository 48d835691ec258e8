//! The pull of a big image from a registry on loopback, beside dockerd and beside `skopeo copy` with an untar of each layer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ketch_integration::ketchd::registry::{Guard, Registry};
use serde_json::Value;

use super::contender::Contender;
use super::samples::{Samples, milliseconds};
use super::{Extent, OURS, PEER, knob};

/// How its layers are packed.
pub(crate) const PACKED: [&str; 2] = ["gzip", "zstd"];
/// skopeo and tar.
pub(crate) const SKOPEO: &str = "skopeo";

/// Makes the image, once, as a registry's folder that lasts: `integration/bench/image.py` says what is in it.
pub(crate) fn store() -> PathBuf {
    let cache = std::env::var("KETCH_CACHE").ok().filter(|path| !path.is_empty());
    let folder = Path::new(cache.as_deref().unwrap_or("/var/cache/ketch")).join("bench-image");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/image.py");
    let status = std::process::Command::new("python3").arg(script).arg(&folder).status();
    assert!(status.is_ok_and(|status| status.success()), "make the image");
    folder
}

/// Rounds of all, each in its turn.
pub(crate) fn measure(contenders: &mut [Contender<'_>], extent: Extent, samples: &mut Samples) {
    let store = store();
    let mut registries = Vec::new();
    for one in contenders.iter() {
        let site = &one.engine.site;
        symlink(&store, site.path("registry-None")).expect("link the registry's folder");
        registries.push(Registry::start(site, Guard::None));
    }
    for packed in PACKED.iter().filter(|packed| !extent.quick || **packed == "gzip") {
        for _ in 0..knob("PULLS", extent.heavy) {
            for (one, registry) in contenders.iter().zip(&registries) {
                let (first, second) = pull(one, &registry.address, packed);
                samples.keep(&format!("pull of 1 GiB in ten layers, {packed}, s"), one.key, first / 1000.0);
                samples.keep(&format!("  the same again, {packed}, ms"), one.key, second);
            }
            if let Some(one) = contenders.iter().find(|one| one.key == PEER || one.key == OURS) {
                let taken = copy_and_untar(one, packed);
                samples.keep(&format!("pull of 1 GiB in ten layers, {packed}, s"), SKOPEO, taken / 1000.0);
            }
        }
    }
    registries.into_iter().for_each(Registry::stop);
}

/// What earlier work has left for the disk is not this one's.
fn settle() {
    rustix::fs::sync();
}

fn pull(one: &Contender<'_>, registry: &str, packed: &str) -> (f64, f64) {
    let path = format!("/images/create?fromImage={registry}/big&tag={packed}");
    settle();
    let timed = || {
        let since = Instant::now();
        let mut http = one.engine.http();
        let answer = http.call("POST", &path, &[], "");
        let taken = milliseconds(since);
        assert!(answer.status == 200 && !answer.body.contains("errorDetail"), "{answer:?}");
        taken
    };
    let taken = (timed(), timed());
    let _gone = one.call("DELETE", &format!("/images/{registry}/big:{packed}"), &Value::Null);
    taken
}

fn copy_and_untar(one: &Contender<'_>, packed: &str) -> f64 {
    let script = r#"
        set -e
        mkdir "$0"
        skopeo copy --quiet --src-tls-verify=false "docker://127.0.0.1:5000/big:$1" "dir:$0/copy"
        mkdir "$0/root"
        for digest in $(jq -r '.layers[].digest' "$0/copy/manifest.json"); do
            tar -C "$0/root" -xf "$0/copy/${digest#sha256:}"
        done
    "#;
    let folder = one.engine.site.path("skopeo");
    settle();
    let since = Instant::now();
    drop(one.engine.site.command("sh").args(["-c", script]).arg(&folder).arg(packed).run().ok());
    let taken = milliseconds(since);
    fs::remove_dir_all(folder).expect("remove what skopeo has copied");
    taken
}

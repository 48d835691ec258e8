//! An engine whose registry is reached through a front of the test's own, which cuts, changes or holds back what passes.
//!
//! Called by the tests of registries.

use std::fs;

use super::front::{Asked, Front, Reply};
use super::registry::{Guard, Registry};
use super::{Engine, archive};
use crate::case::Case;
use crate::wait::wait_until;

/// Where the front is.
pub const FRONT: &str = "127.0.0.1:5001";

/// Bytes of each layer's file, which do not compress.
pub const SIZE: usize = 3 << 20;

/// An engine, and a registry behind a front; `big:1` of so many layers is there as `a/big:1` and not here.
#[derive(Debug)]
pub struct Fronted<'a> {
    pub engine: Engine<'a>,
    pub registry: Registry,
}

impl<'a> Fronted<'a> {
    /// Starts both, and puts the image there.
    ///
    /// # Panics
    /// When one of them does not come up.
    #[must_use]
    pub fn new(case: &'a Case, flags: &[&str], layers: usize) -> Self {
        let engine = Engine::bare(case, flags);
        let registry = Registry::start(&engine.site, Guard::None);
        let tar = archive::of_layers(&engine.site, &format!("{}/a/big:1", registry.address), layers, SIZE);
        let _ = engine.client().args(["load", "-q", "-i"]).arg(tar).run().ok();
        let _ = engine.docker(&format!("push -q {}/a/big:1", registry.address)).ok();
        let _ = engine.docker(&format!("rmi {}/a/big:1", registry.address)).ok();
        Self { engine, registry }
    }

    /// What is in front of the registry, and decides.
    pub fn front(&self, decide: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Front {
        Front::start(&self.engine.site, FRONT, &self.registry.address, decide)
    }

    /// Nothing is left of a pull that failed.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn is_empty(&self) {
        assert_eq!(self.engine.docker("images -q").ok().text(), "");
        if self.engine.is_ketch() {
            for folder in ["data/image/staging", "data/image/unpacking", "data/layers", "data/image/blobs"] {
                let path = self.engine.site.path(folder);
                wait_until(folder, || {
                    let left: Vec<_> =
                        fs::read_dir(&path).expect("list").flatten().map(|e| e.path()).collect();
                    if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
                });
            }
        }
    }

    /// Has both end.
    ///
    /// # Panics
    /// When they do not in time.
    pub fn end(self) {
        self.registry.stop();
        self.engine.end();
    }
}

/// The digest of `a/big:1`'s config.
///
/// # Panics
/// When the registry has no such manifest.
#[must_use]
pub fn config_digest(site: &Fronted<'_>) -> String {
    let manifest = site.engine.sh(&format!(
        "curl -s -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://{}/v2/a/big/manifests/1",
        site.registry.address
    ));
    let manifest: serde_json::Value = serde_json::from_str(manifest.ok().text()).expect("a manifest");
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}

/// Whether a request is for a layer, when the config is known.
pub fn layers_but(config: String) -> impl Fn(&Asked) -> bool + Send + Sync + 'static {
    move |asked| asked.is_blob() && !asked.path.contains(&config)
}

/// schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The registry's own manifest, changed by a function.
///
/// # Panics
/// When the registry has no such manifest.
pub fn changed_manifest(site: &Fronted<'_>, change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let text = site.engine.sh(&format!(
        "curl -s -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://{}/v2/a/big/manifests/1",
        site.registry.address
    ));
    let mut manifest: serde_json::Value = serde_json::from_str(text.ok().text()).expect("a manifest");
    change(&mut manifest);
    serde_json::to_vec(&manifest).expect("encode a manifest")
}

/// Says that this is the manifest, by whatever name it is asked for.
pub fn manifest(kind: &'static str, bytes: Vec<u8>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let digest = digest(&bytes);
    move |asked| {
        if asked.is_manifest() {
            let headers = vec![("Content-Type", kind.to_owned()), ("Docker-Content-Digest", digest.clone())];
            Reply::Own(200, headers, bytes.clone())
        } else {
            Reply::Pass
        }
    }
}

/// As a registry names these bytes.
///
/// # Panics
/// When they can't be summed.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let file = std::env::temp_dir().join(format!("ketch-digest-{:?}", std::thread::current().id()));
    fs::write(&file, bytes).expect("write bytes");
    let digest = archive::sha256(&file);
    fs::remove_file(file).expect("remove bytes");
    format!("sha256:{digest}")
}

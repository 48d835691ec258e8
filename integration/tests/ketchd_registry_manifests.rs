//! What registries have: manifests of all kinds, platforms, compressions, and what a push finds there.

use ketch_integration::ketchd::front::Reply;
use ketch_integration::ketchd::fronted::{DOCKER_MANIFEST, FRONT, Fronted, changed_manifest, digest, manifest};
use ketch_integration::{Case, tests};

tests![
    schema_1_is_refused,
    indexes_and_platforms,
    foreign_layers_are_refused,
    layers_in_zstd,
    a_push_mounts_what_is_there,
    pull_all_tags,
    what_is_told_of_an_image_that_is_there,
];

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn schema_1_is_refused(case: &Case) {
    let site = Fronted::new(case, &[], 1);
    let kind = "application/vnd.docker.distribution.manifest.v1+json";
    let text = br#"{"schemaVersion":1,"name":"a/big","tag":"1","architecture":"amd64","fsLayers":[],"history":[],"signatures":[]}"#;
    let front = site.front(manifest(kind, text.to_vec()));
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    let words = "support for Docker Image Format v1 and Docker Image manifest version 2, schema 1 has been removed";
    assert!(out.stderr.contains(words), "{out}");
    site.is_empty();
    drop(front);
    site.end();
}

fn indexes_and_platforms(case: &Case) {
    let site = Fronted::new(case, &[], 1);
    for kind in [DOCKER_INDEX, OCI_INDEX] {
        let text = site.engine.sh(&format!("curl -s -H 'Accept: {DOCKER_MANIFEST}' http://{}/v2/a/big/manifests/1", site.registry.address)).ok();
        let bytes = text.stdout.clone().into_bytes();
        let of = |architecture: &str, variant: &str| {
            let mut platform = serde_json::json!({"os": "linux", "architecture": architecture});
            if !variant.is_empty() {
                platform["variant"] = variant.into();
            }
            serde_json::json!({"mediaType": DOCKER_MANIFEST, "digest": digest(&bytes), "size": bytes.len(), "platform": platform})
        };
        let index = |manifests: &[serde_json::Value]| {
            serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests})).expect("encode an index")
        };
        let serve = |index: Vec<u8>| {
            let own = digest(&index);
            site.front(move |asked| {
                if asked.is_manifest() && (asked.path.ends_with("/1") || asked.path.ends_with(&own)) {
                    let headers = vec![("Content-Type", kind.to_owned()), ("Docker-Content-Digest", own.clone())];
                    Reply::Own(200, headers, index.clone())
                } else {
                    Reply::Pass
                }
            })
        };
        let front = serve(index(&[of("arm64", "v8"), of("amd64", "")]));
        let _ = site.engine.docker(&format!("pull {FRONT}/a/big:1")).ok();
        let _ = site.engine.docker(&format!("rmi {FRONT}/a/big:1")).ok();
        let out = site.engine.docker(&format!("pull --platform linux/s390x {FRONT}/a/big:1")).exits(1);
        assert!(out.stderr.contains("no matching manifest for linux/s390x in the manifest list entries"), "{out}");
        drop(front);
        let front = serve(index(&[of("arm64", "v8")]));
        let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
        assert!(out.stderr.contains("no matching manifest for linux/amd64"), "{out}");
        assert!(out.stderr.contains("in the manifest list entries"), "{out}");
        site.is_empty();
        drop(front);
    }
    site.end();
}

fn foreign_layers_are_refused(case: &Case) {
    let site = Fronted::new(case, &["--max-download-attempts=1"], 1);
    site.engine.only_ketch("it fetches them from wherever a manifest says");
    let bytes = changed_manifest(&site, |manifest| {
        manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        manifest["layers"][0]["urls"] = serde_json::json!(["http://127.0.0.1:5003/layer"]);
    });
    let front = site.front(manifest(DOCKER_MANIFEST, bytes));
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    assert!(out.stderr.contains("is foreign") && out.stderr.contains("not supported"), "{out}");
    site.is_empty();
    drop(front);
    site.end();
}

fn layers_in_zstd(case: &Case) {
    let site = Fronted::new(case, &[], 2);
    site.engine.site.case.needs(case.has_program("skopeo"), "no skopeo");
    let (from, to) = (format!("docker://{}/a/big:1", site.registry.address), format!("docker://{}/z/big:1", site.registry.address));
    let flags = ["copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", "--format=oci", "--dest-compress-format=zstd"];
    let oci = format!("oci:{}", site.engine.site.path("zstd").display());
    let _ = site.engine.site.command("skopeo").args(flags).args([&from, &oci]).run().ok();
    let _ = site.engine.site.command("skopeo").args(flags).args([&oci, &to]).run().ok();
    let out = site.engine.docker(&format!("pull {}/z/big:1", site.registry.address)).ok();
    assert!(out.text().contains("Pull complete"), "{out}");
    let container = site.engine.docker(&format!("create {}/z/big:1 /none", site.registry.address)).ok();
    let names = site.engine.sh(&format!("docker export {} | tar -t", container.text())).ok();
    assert!(names.text().lines().any(|line| line == "layer1/file"), "{names}");
    site.end();
}

fn a_push_mounts_what_is_there(case: &Case) {
    let site = Fronted::new(case, &[], 2);
    let name = format!("{}/a/big:1", site.registry.address);
    let _ = site.engine.docker(&format!("pull -q {name}")).ok();
    let to = format!("{}/other/copy:2", site.registry.address);
    let _ = site.engine.docker(&format!("tag {name} {to}")).ok();
    let out = site.engine.docker(&format!("push {to}")).ok();
    assert_eq!(out.text().lines().filter(|line| line.ends_with(": Mounted from a/big")).count(), 2, "{out}");
    let last = out.text().lines().last().expect("a last line").to_owned();
    assert!(last.starts_with("2: digest: sha256:") && last.contains(" size: "), "{last}");
    let out = site.engine.docker(&format!("push {to}")).ok();
    assert_eq!(out.text().lines().filter(|line| line.ends_with(": Layer already exists")).count(), 2, "{out}");
    assert_eq!(out.text().lines().last(), Some(last.as_str()));
    site.end();
}

fn pull_all_tags(case: &Case) {
    let site = Fronted::new(case, &[], 1);
    let name = format!("{}/a/big", site.registry.address);
    let _ = site.engine.docker(&format!("pull -q {name}:1")).ok();
    for tag in ["2", "three"] {
        let _ = site.engine.docker(&format!("tag {name}:1 {name}:{tag}")).ok();
        let _ = site.engine.docker(&format!("push -q {name}:{tag}")).ok();
    }
    let _ = site.engine.docker(&format!("rmi {name}:1 {name}:2 {name}:three")).ok();
    let out = site.engine.docker(&format!("pull -a {name}")).ok();
    for tag in ["1", "2", "three"] {
        assert!(out.text().contains(&format!("{tag}: Pulling from a/big")), "{out}");
    }
    assert!(out.text().contains(&format!("Status: Downloaded newer image for {name}\n")), "{out}");
    let _ = site.engine.docker(&format!("pull -a {}/a/none", site.registry.address)).exits(1);
    site.end();
}

/// The lines that clients read: of layers nothing, since there is nothing to fetch; of a push its end with the details that tell it.
fn what_is_told_of_an_image_that_is_there(case: &Case) {
    let site = Fronted::new(case, &[], 1);
    let address = &site.registry.address;
    let _ = site.engine.docker(&format!("pull -q {address}/a/big:1")).ok();
    let lines = |path: &str| -> Vec<serde_json::Value> {
        let auth: &[&str] = &["X-Registry-Auth: e30="];
        let answer = site.engine.http().call("POST", path, auth, "").is(200);
        answer.body.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    };
    let pulled = lines(&format!("/images/create?fromImage={address}/a/big&tag=1"));
    assert_eq!(pulled.len(), 3, "{pulled:?}");
    assert_eq!(pulled[0]["status"], "Pulling from a/big");
    let _ = site.engine.docker(&format!("tag {address}/a/big:1 {address}/a/big:2")).ok();
    let pushed = lines(&format!("/images/{address}/a/big/push?tag=2"));
    assert_eq!(pushed[0], serde_json::json!({"status": format!("The push refers to repository [{address}/a/big]")}));
    let [.., told, end] = pushed.as_slice() else { panic!("{pushed:?}") };
    assert!(told["status"].as_str().is_some_and(|text| text.starts_with("2: digest: ")), "{told}");
    assert!(told.get("progressDetail").is_none() && end.get("progressDetail").is_some(), "{pushed:?}");
    assert_eq!(end["aux"]["Tag"], "2", "{end}");
    site.end();
}

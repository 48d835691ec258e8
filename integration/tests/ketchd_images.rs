//! Images: archives in and out, names, history, registries with and without a guard, what containers leave in them.

use ketch_integration::ketchd::registry::{Guard, Registry};
use ketch_integration::ketchd::{Engine, archive};
use ketch_integration::{Case, tests};

tests![
    load_twice_and_from_a_stream,
    load_refuses_what_is_no_archive,
    save_and_load_again,
    tag_and_remove,
    remove_what_is_used,
    list_and_filters,
    inspect_and_history,
    the_image_configures_its_containers,
    push_and_pull_plain,
    pull_by_digest_and_all,
    pull_what_is_not_there,
    push_and_pull_with_a_password,
    login_checks_the_password,
    run_pulls_what_is_missing,
    pull_reports_progress,
    commit_and_its_changes,
    export_and_import,
    whiteouts_and_opaque_folders,
    prune_dangling_and_unused,
    hostile_layers_leave_nothing,
    many_pulls_share,
];

fn ids(engine: &Engine<'_>) -> Vec<String> {
    engine.docker("images -q --no-trunc").ok().text().lines().map(str::to_owned).collect()
}

fn load_twice_and_from_a_stream(case: &Case) {
    let engine = Engine::start(case);
    let first = ids(&engine);
    let tar = engine.site.path("archive-busybox-latest.tar");
    let out = engine.client().arg("load").stdin(std::fs::read(tar).expect("read the archive")).run().ok();
    assert_eq!(out.text(), "Loaded image: busybox:latest");
    assert_eq!(ids(&engine), first);
    let answer = engine.call("GET", "/images/busybox/json", "").is(200).json();
    assert_eq!(answer["RepoTags"], serde_json::json!(["busybox:latest"]));
    assert_eq!(answer["Id"], first[0]);
    engine.end();
}

fn load_refuses_what_is_no_archive(case: &Case) {
    let engine = Engine::bare(case, &[]);
    let _ = archive::busybox(&engine.site);
    let out = engine.client().arg("load").stdin("nonsense").run();
    assert_eq!(out.code, 1, "{out}");
    let tar = engine.site.path("archive-busybox-latest");
    let manifest = r#"[{"Config":"config.json","RepoTags":["bad:1"],"Layers":["missing.tar"]}]"#;
    std::fs::write(tar.join("manifest.json"), manifest).expect("write a manifest");
    let out = engine.sh(&format!("tar -C {0} -cf {0}.bad manifest.json config.json && docker load -i {0}.bad", tar.display()));
    assert_ne!(out.code, 0, "{out}");
    assert_eq!(engine.docker("images --format {{.Repository}}").ok().text(), "");
    engine.end();
}

fn save_and_load_again(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("tag busybox other:2").ok();
    let before = ids(&engine);
    let tar = engine.site.path("saved.tar");
    let _ = engine.client().args(["save", "busybox:latest", "other:2", "-o"]).arg(&tar).run().ok();
    let names = engine.sh(&format!("tar -tf {}", tar.display())).ok();
    for name in ["manifest.json", "index.json", "oci-layout", "repositories"] {
        assert!(names.text().lines().any(|line| line == name), "{name}: {names}");
    }
    let _ = engine.docker("rmi -f busybox:latest other:2").ok();
    assert!(ids(&engine).is_empty());
    let out = engine.client().args(["load", "-q", "-i"]).arg(&tar).run().ok();
    let mut lines: Vec<&str> = out.text().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: busybox:latest", "Loaded image: other:2"]);
    assert_eq!(ids(&engine), before);
    assert_eq!(engine.docker("run --rm --network none other:2 echo runs").ok().text(), "runs");
    engine.end();
}

fn tag_and_remove(case: &Case) {
    let engine = Engine::start(case);
    let id = ids(&engine).remove(0);
    let _ = engine.docker("tag busybox a/b:c").ok();
    let _ = engine.docker(&format!("tag {} by-id", &id[7..19])).ok();
    assert_eq!(engine.docker("rmi a/b:c").ok().text(), "Untagged: a/b:c");
    assert_eq!(engine.docker("rmi by-id:latest").ok().text(), "Untagged: by-id:latest");
    let out = engine.docker("rmi busybox").ok();
    let lines: Vec<&str> = out.text().lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert_eq!(lines[..2], ["Untagged: busybox:latest".to_owned(), format!("Deleted: {id}")]);
    let out = engine.docker("rmi busybox").exits(1);
    assert_eq!(out.stderr.trim(), "Error response from daemon: No such image: busybox:latest");
    assert!(ids(&engine).is_empty());
    engine.end();
}

fn remove_what_is_used(case: &Case) {
    let engine = Engine::start(case);
    let id = engine.docker("run -d --name box --network none busybox sleep 1000").ok().text()[..12].to_owned();
    let out = engine.docker("rmi busybox").exits(1);
    let image = &ids(&engine)[0][7..19];
    assert_eq!(
        out.stderr.trim(),
        format!("Error response from daemon: conflict: unable to remove repository reference \"busybox\" (must force) - container {id} is using its referenced image {image}")
    );
    assert_eq!(engine.docker("rmi -f busybox").ok().text(), "Untagged: busybox:latest");
    assert_eq!(engine.docker("exec box echo lives").ok().text(), "lives");
    let _ = engine.docker("rm -f box").ok();
    let _ = engine.docker("image prune -f").ok();
    assert!(ids(&engine).is_empty());
    engine.end();
}

fn list_and_filters(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("tag busybox one:1").ok();
    let _ = engine.docker("tag busybox two:1").ok();
    let names = |flags: &str| {
        let out = engine.docker(&format!("images --format {{{{.Repository}}}}:{{{{.Tag}}}} {flags}")).ok();
        let mut lines: Vec<String> = out.text().lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    assert_eq!(names(""), "busybox:latest one:1 two:1");
    assert_eq!(names("one"), "one:1");
    assert_eq!(names("'*:1'"), "one:1 two:1");
    assert_eq!(names("--filter reference=t*"), "two:1");
    assert_eq!(names("--filter dangling=true"), "");
    // Containers are counted from 1.51 on, which dockerd has.
    let list = engine.call("GET", "/v1.50/images/json", "").is(200).json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert!(list[0]["Size"].as_u64().is_some_and(|size| size > 1_000_000), "{list}");
    assert_eq!((&list[0]["ParentId"], &list[0]["Containers"], &list[0]["SharedSize"]), (&"".into(), &(-1).into(), &(-1).into()));
    engine.end();
}

fn inspect_and_history(case: &Case) {
    let engine = Engine::start(case);
    let image = engine.call("GET", "/v1.50/images/busybox/json", "").is(200).json();
    assert_eq!((image["Os"].as_str(), image["Architecture"].as_str()), (Some("linux"), Some("amd64")));
    assert_eq!(image["Created"], "2026-01-02T03:04:05Z");
    assert_eq!(image["RootFS"]["Type"], "layers");
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["sh"]));
    let history = engine.call("GET", "/images/busybox/history", "").is(200).json();
    assert_eq!((history[0]["CreatedBy"].as_str(), &history[0]["Tags"]), (Some("the test's own hands"), &serde_json::json!(["busybox:latest"])));
    engine.end();
}

fn the_image_configures_its_containers(case: &Case) {
    let engine = Engine::start(case);
    let root = engine.site.path("busybox");
    let config = r#""Env":["PATH=/bin","A=image"],"Entrypoint":["sh","-c","pwd; id -u; echo $A; echo $0"],"Cmd":["from-image"],"WorkingDir":"/made","User":"user","Labels":{"l":"image"},"Volumes":{"/vol":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"INT""#;
    let tar = archive::docker_archive(&engine.site, "configured:1", &root, config);
    let _ = engine.client().args(["load", "-i"]).arg(tar).run().ok();
    assert_eq!(engine.docker("run --rm --network none configured:1").ok().text(), "/made\n1000\nimage\nfrom-image");
    assert_eq!(engine.docker("run --rm --network none -e A=own -u 0 -w /tmp configured:1 own").ok().text(), "/tmp\n0\nown\nown");
    assert_eq!(engine.docker("run --rm --network none --entrypoint echo configured:1 x").ok().text(), "x");
    let _ = engine.docker("create --name box -l m=own configured:1").ok();
    assert_eq!(engine.inspect("box", "{{json .Config.Labels}} {{.Config.StopSignal}} {{len .Mounts}} {{json .Config.ExposedPorts}}"), r#"{"l":"image","m":"own"} INT 1 {"80/tcp":{}}"#);
    engine.end();
}

fn push_and_pull_plain(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/a/busybox:1", registry.address);
    let id = ids(&engine).remove(0);
    let _ = engine.docker(&format!("tag busybox {name}")).ok();
    let out = engine.docker(&format!("push {name}")).ok();
    assert!(out.text().contains("The push refers to repository [127.0.0.1:5000/a/busybox]"), "{out}");
    assert!(out.text().contains(": Pushed") && out.text().contains("1: digest: sha256:"), "{out}");
    let again = engine.docker(&format!("push {name}")).ok();
    assert!(again.text().contains("Layer already exists"), "{again}");
    let _ = engine.docker(&format!("rmi -f busybox {name}")).ok();
    let out = engine.docker(&format!("pull {name}")).ok();
    for text in ["1: Pulling from a/busybox", "Pull complete", "Digest: sha256:", &format!("Status: Downloaded newer image for {name}")] {
        assert!(out.text().contains(text), "{text}: {out}");
    }
    assert!(out.text().ends_with(&name), "{out}");
    assert_eq!(ids(&engine), [id]);
    assert_eq!(engine.docker(&format!("run --rm --network none {name} echo runs")).ok().text(), "runs");
    let out = engine.docker(&format!("pull {name}")).ok();
    assert!(out.text().contains(&format!("Status: Image is up to date for {name}")), "{out}");
    registry.stop();
    engine.end();
}

fn pull_by_digest_and_all(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/busybox", registry.address);
    for tag in ["1", "2"] {
        let _ = engine.docker(&format!("tag busybox {name}:{tag}")).ok();
        let _ = engine.docker(&format!("push -q {name}:{tag}")).ok();
    }
    let digest = engine.inspect(&format!("{name}:1"), "{{index .RepoDigests 0}}");
    assert!(digest.starts_with(&format!("{name}@sha256:")), "{digest}");
    let _ = engine.docker(&format!("rmi busybox {name}:1 {name}:2")).ok();
    let out = engine.docker(&format!("pull {digest}")).ok();
    assert!(out.text().contains(&format!("Status: Downloaded newer image for {digest}")), "{out}");
    assert_eq!(engine.docker("images --format {{.Repository}}:{{.Tag}}").ok().text(), format!("{name}:<none>"));
    let _ = engine.docker(&format!("run --rm --network none {digest} true")).ok();
    let _ = engine.docker(&format!("pull -a {name}")).ok();
    assert_eq!(engine.docker("images -q --filter dangling=false").ok().text().lines().count(), 2);
    let wrong = format!("{}0", &digest[..digest.len() - 1]);
    if wrong != digest {
        let out = engine.docker(&format!("pull {wrong}")).exits(1);
        assert!(out.stderr.contains("manifest unknown"), "{out}");
    }
    registry.stop();
    engine.end();
}

fn pull_what_is_not_there(case: &Case) {
    let engine = Engine::bare(case, &[]);
    let registry = Registry::start(&engine.site, Guard::None);
    let out = engine.docker(&format!("pull {}/none", registry.address)).exits(1);
    assert_eq!(out.stderr.trim(), "Error response from daemon: manifest for 127.0.0.1:5000/none:latest not found: manifest unknown: manifest unknown");
    registry.stop();
    let out = engine.docker("pull 127.0.0.1:5000/none").exits(1);
    assert!(out.stderr.contains("connection refused"), "{out}");
    let out = engine.docker("pull UPPER").exits(1);
    assert!(out.stderr.contains("repository name must be lowercase") || out.stderr.contains("must be lowercase"), "{out}");
    let _ = engine.call("POST", "/images/create?fromImage=127.0.0.1:5000/none&tag=latest", "").refuses(500);
    engine.end();
}

fn push_and_pull_with_a_password(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::Password);
    let name = format!("{}/busybox:1", registry.address);
    let _ = engine.docker(&format!("tag busybox {name}")).ok();
    let out = engine.docker(&format!("push {name}")).exits(1);
    assert!(out.stderr.contains("no basic auth credentials"), "{out}");
    let out = engine.client().args(["login", "-u", "user", "--password-stdin", &registry.address]).stdin("secret").run().ok();
    assert!(out.text().contains("Login Succeeded"), "{out}");
    let _ = engine.docker(&format!("push {name}")).ok();
    let _ = engine.docker(&format!("rmi busybox {name}")).ok();
    let _ = engine.docker(&format!("pull {name}")).ok();
    let _ = engine.docker(&format!("rmi {name}")).ok();
    let _ = engine.docker(&format!("logout {}", registry.address)).ok();
    let out = engine.docker(&format!("pull {name}")).exits(1);
    assert!(out.stderr.contains("no basic auth credentials"), "{out}");
    registry.stop();
    engine.end();
}

/// Pushes busybox under this name, and removes what is here.
fn only_in_the_registry(engine: &Engine<'_>, name: &str) {
    let _ = engine.docker(&format!("tag busybox {name}")).ok();
    let _ = engine.docker(&format!("push -q {name}")).ok();
    let _ = engine.docker(&format!("rmi busybox {name}")).ok();
}

fn login_checks_the_password(case: &Case) {
    let engine = Engine::bare(case, &[]);
    let registry = Registry::start(&engine.site, Guard::Password);
    let body = format!(r#"{{"username":"user","password":"secret","serveraddress":"{}"}}"#, registry.address);
    let answer = engine.call("POST", "/auth", &body).is(200);
    assert_eq!(answer.body, "{\"IdentityToken\":\"\",\"Status\":\"Login Succeeded\"}\n");
    // dockerd tries HTTP too where TLS has said no, as loopback is allowed to, and tells of that: 500.
    let answer = engine.call("POST", "/auth", &body.replace("secret", "wrong"));
    assert!([401, 500].contains(&answer.status), "{answer:?}");
    let message = answer.clone().refuses(answer.status);
    assert!(message.contains("login attempt to http") && message.contains("failed with status: 40"), "{message}");
    registry.stop();
    engine.end();
}

fn run_pulls_what_is_missing(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/busybox:1", registry.address);
    only_in_the_registry(&engine, &name);
    let out = engine.docker(&format!("run --rm --network none {name} echo runs")).ok();
    assert_eq!(out.text(), "runs");
    assert!(out.stderr.contains(&format!("Unable to find image '{name}' locally")), "{out}");
    let out = engine.docker(&format!("run --rm --network none --pull always {name} echo runs")).ok();
    assert!(out.stderr.contains("Image is up to date"), "{out}");
    registry.stop();
    engine.end();
}

fn pull_reports_progress(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/busybox", registry.address);
    only_in_the_registry(&engine, &format!("{name}:1"));
    let answer = engine.call("POST", &format!("/images/create?fromImage={name}&tag=1"), "").is(200);
    assert_eq!((answer.header("content-type"), answer.header("transfer-encoding")), ("application/json", "chunked"));
    assert!(answer.body.ends_with("}\r\n"), "{}", answer.body);
    let lines: Vec<serde_json::Value> = answer.body.split("\r\n").filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0], serde_json::json!({"status": "Pulling from busybox", "id": "1"}));
    let layer = &lines[1];
    assert_eq!((layer["status"].as_str(), &layer["progressDetail"]), (Some("Pulling fs layer"), &serde_json::json!({})));
    assert_eq!(layer["id"].as_str().map(str::len), Some(12));
    let has = |status: &str| lines.iter().any(|line| line["status"] == status && line["id"] == layer["id"]);
    assert!(has("Download complete") && has("Pull complete"), "{}", answer.body);
    let last = lines.last().expect("a last line");
    assert_eq!(*last, serde_json::json!({"status": format!("Status: Downloaded newer image for {name}:1")}));
    registry.stop();
    engine.end();
}

fn commit_and_its_changes(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'echo made >/made; rm /bin/yes'").ok();
    let out = engine.docker("commit -a me -m why -c 'ENV A=b' -c 'CMD cat /made' -c 'WORKDIR /tmp' -c 'LABEL x=y' box made:1").ok();
    assert_eq!(out.text().len(), 71);
    assert_eq!(engine.docker("run --rm --network none made:1").ok().text(), "made");
    assert_eq!(engine.docker("run --rm --network none made:1 sh -c 'pwd; echo $A; ls /bin/yes'").exits(1).text(), "/tmp\nb");
    let image = engine.call("GET", "/v1.50/images/made:1/json", "").is(200).json();
    assert_eq!((image["Author"].as_str(), image["Comment"].as_str()), (Some("me"), Some("why")));
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(2));
    assert_eq!(image["Config"]["Labels"], serde_json::json!({"x": "y"}));
    let out = engine.docker("rmi busybox");
    let _ = out.code;
    let _ = engine.docker("rm box").ok();
    let _ = engine.docker("run --rm --network none made:1").ok();
    engine.end();
}

fn export_and_import(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox sh -c 'echo made >/made'").ok();
    let tar = engine.site.path("export.tar");
    let _ = engine.client().args(["export", "box", "-o"]).arg(&tar).run().ok();
    assert_eq!(engine.sh(&format!("tar -xOf {} made", tar.display())).ok().text(), "made");
    let out = engine.client().args(["import", "-c", "CMD [\"cat\",\"/made\"]", "-c", "ENV PATH=/bin"]).arg(&tar).arg("flat:1").run().ok();
    assert_eq!(out.text().len(), 71);
    assert_eq!(engine.docker("run --rm --network none flat:1").ok().text(), "made");
    assert_eq!(engine.docker("history -q flat:1").ok().text().lines().count(), 1);
    engine.end();
}

fn whiteouts_and_opaque_folders(case: &Case) {
    let engine = Engine::start(case);
    let script = "mkdir -p /d/deep && echo a >/d/a && echo b >/d/deep/b && ln /d/a /d/hard && ln -s a /d/soft && chmod 4750 /d/a && chown 7:8 /d/deep";
    let _ = engine.client().args(["run", "--name", "one", "--network", "none", "busybox", "sh", "-c", script]).run().ok();
    let _ = engine.docker("commit one layers:1").ok();
    let _ = engine.docker("run --name two --network none layers:1 sh -c 'rm -r /d/deep && mkdir /d/deep && echo c >/d/deep/c && rm /bin/yes'").ok();
    let _ = engine.docker("commit two layers:2").ok();
    let tar = engine.site.path("layers.tar");
    let _ = engine.client().args(["save", "layers:2", "-o"]).arg(&tar).run().ok();
    let _ = engine.docker("rm one two").ok();
    let _ = engine.docker("rmi layers:2 layers:1 busybox").ok();
    let _ = engine.client().args(["load", "-i"]).arg(&tar).run().ok();
    let look = "ls /d/deep; cat /d/soft; stat -c '%a %h' /d/a; stat -c %u:%g /d/deep; ls /bin/yes; true";
    let out = engine.client().args(["run", "--rm", "--network", "none", "layers:2", "sh", "-c", look]).run().ok();
    assert_eq!(out.text(), "c\na\n4750 2\n0:0");
    engine.end();
}

fn prune_dangling_and_unused(case: &Case) {
    let engine = Engine::start(case);
    let _ = engine.docker("run --name box --network none busybox touch /x").ok();
    let id = engine.docker("commit box").ok().text().to_owned();
    assert_eq!(engine.docker("images -q --no-trunc --filter dangling=true").ok().text(), id);
    let out = engine.docker("image prune -f").ok();
    assert!(out.text().contains(&format!("deleted: {id}")), "{out}");
    let out = engine.docker("image prune -af").ok();
    assert_eq!(out.text(), "Total reclaimed space: 0B");
    let _ = engine.docker("rm box").ok();
    let out = engine.docker("image prune -af").ok();
    assert!(out.text().contains("untagged: busybox:latest"), "{out}");
    assert!(ids(&engine).is_empty());
    engine.end();
}

fn hostile_layers_leave_nothing(case: &Case) {
    let engine = Engine::start(case);
    let base = engine.site.path("archive-busybox-latest");
    // A layer whose link leaves the folder and whose next entry goes through it.
    let script = r#"
        set -e
        cd "$0"; rm -rf evil; mkdir -p evil; cd evil
        ln -s "$1" out; tar -cf ../evil.tar out; rm out; mkdir out; echo x >out/escaped; tar -rf ../evil.tar out/escaped
        cp ../evil.tar layer.tar
        printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' $(sha256sum layer.tar | cut -d ' ' -f 1) >config.json
        echo '[{"Config":"config.json","RepoTags":["evil:1"],"Layers":["layer.tar"]}]' >manifest.json
        tar -cf ../archive.tar manifest.json config.json layer.tar
    "#;
    let target = engine.site.path("target");
    std::fs::create_dir_all(&target).expect("make the target");
    let _ = engine.program("sh").args(["-c", script]).arg(&base).arg(&target).run().ok();
    let out = engine.client().args(["load", "-i"]).arg(base.join("archive.tar")).run();
    assert!(!target.join("escaped").exists(), "{out}");
    let wrong = r#"cd "$0/evil" && sed -i 's/sha256:..../sha256:0000/' config.json && tar -cf ../wrong.tar manifest.json config.json layer.tar"#;
    let _ = engine.program("sh").args(["-c", wrong]).arg(&base).run().ok();
    let out = engine.client().args(["load", "-i"]).arg(base.join("wrong.tar")).run();
    assert_ne!(out.code, 0, "{out}");
    engine.end();
}

fn many_pulls_share(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/busybox:1", registry.address);
    only_in_the_registry(&engine, &name);
    let pulls: Vec<_> = (0..4).map(|_| engine.client().args(["pull", &name]).spawn()).collect();
    for pull in pulls {
        let _ = pull.wait().ok();
    }
    assert_eq!(ids(&engine).len(), 1);
    registry.stop();
    engine.end();
}

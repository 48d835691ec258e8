//! Hostile images through the engine: by load, import and pull. Nothing is made outside of an image's own folders, what is
//! refused is refused clearly, and nothing of it is left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ketch_integration::ketchd::front::{Asked, Front, Reply};
use ketch_integration::ketchd::hostile::{Member, archive, archive_with, digest, gzip, member, pax, tar};
use ketch_integration::ketchd::Engine;
use ketch_integration::wait::wait_until;
use ketch_integration::{Case, tests};

tests![
    what_leads_out_is_refused,
    what_looks_as_if_it_led_out_stays_inside,
    archives_that_lead_out,
    numbers_beyond_reason,
    bombs,
    documents_beyond_bounds,
    whiteouts_and_marks,
    devices_and_setuid_files_are_out_of_reach,
    hostile_layers_by_pull,
    names_of_any_bytes,
];

/// An engine, and a folder beside its own with a file that nobody may change.
struct Ground<'a> {
    engine: Engine<'a>,
    number: u32,
}

impl<'a> Ground<'a> {
    fn new(case: &'a Case) -> Self {
        let engine = Engine::bare(case, &[]);
        let target = engine.site.path("target");
        fs::create_dir_all(&target).expect("make the target");
        fs::write(target.join("file"), "whole").expect("write a file");
        Self { engine, number: 0 }
    }

    /// Has the engine begin again with these settings.
    fn set(&mut self, settings: &str) {
        fs::write(self.engine.site.path("daemon.json"), settings).expect("write the settings");
        self.engine.stop();
        self.engine.come_back();
    }

    fn outside(&self) -> String {
        self.engine.site.path("target").display().to_string()
    }

    /// The target is as it was, and the engine has no image and nothing of one.
    #[track_caller]
    fn is_untouched(&self, what: &str) {
        let target = self.engine.site.path("target");
        let names: Vec<_> = fs::read_dir(&target).expect("list the target").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["file"], "{what}");
        let file = target.join("file");
        assert_eq!(fs::read_to_string(&file).expect("read the file"), "whole", "{what}");
        let about = fs::metadata(&file).expect("stat the file");
        assert_eq!((about.nlink(), about.mode() & 0o7777), (1, 0o644), "{what}");
        assert!(!Path::new("/ketch-escaped").exists() && !self.engine.site.path("escaped").exists(), "{what}");
        if self.engine.is_ketch() {
            for folder in ["data/image/staging", "data/image/unpacking", "data/layers", "data/image/blobs"] {
                let path = self.engine.site.path(folder);
                wait_until(what, || {
                    let left: Vec<_> = fs::read_dir(&path).expect("list").flatten().map(|e| e.path()).collect();
                    if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
                });
            }
        }
    }

    /// Loads and imports a layer, which must both be refused with one of these words.
    #[track_caller]
    fn refuses(&mut self, what: &str, layer: &[u8], words: &[&str]) {
        self.number += 1;
        let tar = archive(&self.engine.site, &format!("evil:{}", self.number), &[layer.to_vec()]);
        let out = self.engine.client().args(["load", "-i"]).arg(&tar).run();
        let file = self.engine.site.path("layer.tar");
        fs::write(&file, layer).expect("write the layer");
        let imported = self.engine.client().arg("import").arg(&file).arg("evil:import").run();
        for out in [out, imported] {
            assert_ne!(out.code, 0, "{what}: {out}");
            if self.engine.is_ketch() {
                // A client that still sends may hear of the end of the connection first.
                let cut = layer.len() > 8 << 20 && out.stderr.contains("broken pipe");
                assert!(cut || words.iter().any(|word| out.stderr.contains(word)), "{what}: {out}");
            }
        }
        self.is_untouched(what);
    }

    /// Loads a layer, which may be taken or refused: what counts is what is not touched.
    #[track_caller]
    fn bears(&mut self, what: &str, layers: &[Vec<u8>]) {
        self.number += 1;
        let name = format!("evil:{}", self.number);
        let tar = archive(&self.engine.site, &name, layers);
        let out = self.engine.client().args(["load", "-i"]).arg(&tar).run();
        if out.code == 0 {
            let _ = self.engine.docker(&format!("rmi -f {name}")).ok();
        }
        self.is_untouched(what);
    }
}

fn what_leads_out_is_refused(case: &Case) {
    let mut ground = Ground::new(case);
    let outside = ground.outside();
    let out = ["leads out of the layer", "which the layer does not have before it"];
    ground.refuses("a name with ..", &tar(&[member("../escaped", b'0').data("x")]), &out);
    ground.refuses("a name with .. deep inside", &tar(&[member("a/../../escaped", b'0').data("x")]), &out);
    let many = format!("{}ketch-escaped", "../".repeat(20));
    ground.refuses("a name with many ..", &tar(&[member(many.as_bytes(), b'0').data("x")]), &out);
    ground.refuses("a folder ..", &tar(&[member("..", b'5').mode(0o777)]), &out);
    let link = member("hard", b'1').link(format!("../../../../{outside}/file"));
    ground.refuses("a hard link with ..", &tar(&[link]), &out);
    let link = member("hard", b'1').link(format!("{outside}/file"));
    ground.refuses("an absolute hard link", &tar(std::slice::from_ref(&link)), &out);
    let soft = member("soft", b'2').link(&outside);
    let through = member("hard", b'1').link("soft/file");
    ground.refuses("a hard link through a symlink", &tar(&[soft, through]), &out);
    ground.refuses("a whiteout of ..", &tar(&[member("a/.wh...", b'0')]), &out);
    let deep = format!("{}x", "d/".repeat(2100));
    ground.refuses("a name that is too long", &tar(&[pax(&[("path", deep.as_bytes())]), member("x", b'0')]), &["leads out", "too long", "name too long"]);
    ground.engine.end();
}

fn what_looks_as_if_it_led_out_stays_inside(case: &Case) {
    let mut ground = Ground::new(case);
    let outside = ground.outside();
    let up = format!("{}{}", "../".repeat(30), &outside[1..]);
    let file = |name: &str| member(name, b'0').data("changed").mode(0o666);
    ground.bears("an absolute name", &[tar(&[file(&format!("{outside}/file"))])]);
    for (what, target) in [("absolute", outside.as_str()), ("relative", up.as_str())] {
        let soft = member("out", b'2').link(target);
        ground.bears(what, &[tar(&[soft.clone(), file("out/file"), file("out/escaped")])]);
        ground.bears(what, &[tar(&[soft.clone(), member("out/file", b'5').mode(0o777)])]);
        ground.bears(what, &[tar(&[soft.clone(), member("out/.wh.file", b'0')])]);
        ground.bears(what, &[tar(&[soft.clone(), member("out/.wh..wh..opq", b'0')])]);
        ground.bears(what, &[tar(&[soft.clone(), member("out/x", b'2').link("y")])]);
        ground.bears(what, &[tar(&[soft.clone(), member("out/null", b'3')])]);
        // By a layer above, and by a link that takes a folder's place in the middle.
        ground.bears(what, &[tar(std::slice::from_ref(&soft)), tar(&[file("out/file")])]);
        ground.bears(what, &[tar(&[member("out", b'5'), file("out/a"), soft.clone(), file("out/escaped")])]);
        let last = format!("{target}/file");
        ground.bears(what, &[tar(&[member("f", b'2').link(&last), file("f")])]);
        ground.bears(what, &[tar(&[member("f", b'2').link(&last), member("f", b'5').mode(0o777)])]);
        ground.bears(what, &[tar(&[pax(&[("path", format!("{outside}/file").as_bytes())]), file("x")])]);
    }
    ground.bears("proc", &[tar(&[member("p", b'2').link("/proc/self/root"), file("p/ketch-escaped")])]);
    ground.bears("proc's cwd", &[tar(&[member("p", b'2').link("/proc/self/cwd"), file("p/escaped")])]);
    ground.bears("a loop of links", &[tar(&[member("a", b'2').link("b"), member("b", b'2').link("a"), file("a/x")])]);
    ground.bears("the root as a file", &[tar(&[member("./", b'0'), member("/", b'2').link(&outside), file("escaped")])]);
    ground.engine.end();
}

fn archives_that_lead_out(case: &Case) {
    let ground = Ground::new(case);
    let engine = &ground.engine;
    let outside = ground.outside();
    let layer = tar(&[member("f", b'0').data("x")]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        digest(&engine.site, &layer)
    );
    let load = |what: &str, manifest: &str, extra: &[Member]| {
        let mut members = vec![member("manifest.json", b'0').data(manifest), member("config.json", b'0').data(&config)];
        members.extend_from_slice(extra);
        let path = engine.site.path("archive.tar");
        fs::write(&path, tar(&members)).expect("write the archive");
        let out = engine.client().args(["load", "-i"]).arg(&path).run();
        assert_ne!(out.code, 0, "{what}: {out}");
        ground.is_untouched(what);
    };
    let manifest = |layer: &str| format!(r#"[{{"Config":"config.json","RepoTags":["evil:1"],"Layers":["{layer}"]}}]"#);
    load("a layer outside", &manifest("../../target/file"), &[]);
    load("a layer by an absolute name", &manifest(&format!("{outside}/file")), &[]);
    load("a file that leads out", &manifest("l"), &[member("../escaped", b'0').data("x")]);
    load("a link that leads out", &manifest("l"), &[member("l", b'2').link(format!("{outside}/file"))]);
    load("links in a circle", &manifest("a"), &[member("a", b'2').link("b"), member("b", b'2').link("a")]);
    load("a folder for a layer", &manifest("l"), &[member("l", b'5')]);
    load("no manifest's form", r#"{"Config":1}"#, &[]);
    load("a config elsewhere", r#"[{"Config":"/etc/passwd","RepoTags":["evil:1"],"Layers":[]}]"#, &[]);
    load("a tag that is none", r#"[{"Config":"config.json","RepoTags":["../evil"],"Layers":["l"]}]"#, &[member("l", b'0').data(&layer)]);
    ground.engine.end();
}

fn numbers_beyond_reason(case: &Case) {
    let mut ground = Ground::new(case);
    let words = ["malformed tar", "EOF", "unexpected end", "end of file", "more than", "reading the layer"];
    let sizes: &[(&str, &[u8; 12])] = &[
        ("a negative size", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("the largest size in octal", b"77777777777\0"),
        ("a size of 2^63", b"\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00"),
        ("a size that is no number", b"12345678xyz\0"),
        ("a size that overflows", b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    ];
    for (what, field) in sizes {
        ground.refuses(what, &tar(&[member("f", b'0').data("x").stating(**field)]), &words);
    }
    let huge = "9".repeat(30);
    ground.refuses("a PAX size", &tar(&[pax(&[("size", huge.as_bytes())]), member("f", b'0').data("x")]), &words);
    ground.refuses("a negative PAX size", &tar(&[pax(&[("size", b"-1")]), member("f", b'0').data("x")]), &words);
    let value = vec![b'v'; 3 << 20];
    ground.refuses("PAX records of 3 MiB", &tar(&[pax(&[("comment", &value)]), member("f", b'0')]), &words);
    let cut = tar(&[member("f", b'0').data(vec![1; 5000])]);
    ground.refuses("a tar that is cut", &cut[..2000], &words);
    ground.refuses("a wrong checksum", &{
        let mut bytes = tar(&[member("f", b'0').data("x")]);
        bytes[0] = b'g';
        bytes
    }, &words);
    ground.engine.end();
}

fn bombs(case: &Case) {
    let mut ground = Ground::new(case);
    ground.engine.only_ketch("it has no such bounds");
    ground.set(r#"{"ketch-max-layer-size": "8m", "ketch-max-layer-files": 500}"#);
    let zeros = tar(&[member("zeros", b'0').data(vec![0; 32 << 20])]);
    ground.refuses("a layer that is too large", &zeros, &["the layer has more than 8388608 bytes"]);
    let packed = gzip(&ground.engine.site, &zeros);
    assert!(packed.len() < 1 << 20);
    ground.refuses("a bomb", &packed, &["the layer has more than 8388608 bytes", "invalid diffID"]);
    let many: Vec<Member> = (0..600).map(|number| member(format!("f{number}"), b'0')).collect();
    ground.refuses("too many files", &tar(&many), &["the layer has more than 500 files"]);
    let links: Vec<Member> = std::iter::once(member("f", b'0'))
        .chain((0..600).map(|number| member(format!("l{number}"), b'1').link("f")))
        .collect();
    ground.refuses("too many links", &tar(&links), &["the layer has more than 500 files"]);
    // As many as are allowed, and one that is there often enough to count once.
    let allowed: Vec<Member> = (0..400).map(|number| member(format!("f{number}"), b'0').data("x")).collect();
    ground.bears("as many as are allowed", &[tar(&allowed)]);
    ground.engine.end();
}

fn documents_beyond_bounds(case: &Case) {
    let ground = Ground::new(case);
    let engine = &ground.engine;
    let layer = tar(&[member("f", b'0').data("x")]);
    let of = |rest: &str| {
        let sum = digest(&engine.site, &layer);
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{sum}"]}}{rest}}}"#)
    };
    let depth = 100_000;
    let deep = format!(r#","container_config":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    let history = format!(r#","history":[{}{{}}]"#, "{},".repeat(2_000_000));
    let long = format!(r#","author":"{}""#, "a".repeat(9 << 20));
    let wide = format!(r#","author":"{}""#, "a".repeat(2 << 20));
    let many = (0..70_000).map(|number| format!(r#""{number:x}=""#)).collect::<Vec<_>>().join(",");
    let many = format!(r#","config":{{"Env":[{many}]}}"#);
    let none = "\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"";
    let layers = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}{none}]}}}}"#,
        format!("{none},").repeat(60_000)
    );
    for (what, config, words) in [
        ("a config that is too deep", of(&deep), "recursion limit exceeded"),
        ("two million steps", of(&history), "at most 10000 steps"),
        ("a config of 9 MiB", of(&long), "more than 8388608 bytes"),
        ("a config of 2 MiB", of(&wide), "may take 1048576 bytes"),
        ("70,000 variables", of(&many), "an image may have 65536"),
        ("60,000 layers", layers, "max depth exceeded"),
        ("a config that is none", "7".into(), "config.json"),
        ("another system's", of(r#","os":"windows""#), "duplicate field"),
    ] {
        let path = archive_with(&engine.site, "evil:1", std::slice::from_ref(&layer), config.as_bytes());
        let out = engine.client().args(["load", "-i"]).arg(&path).run();
        if engine.is_ketch() {
            assert_ne!(out.code, 0, "{what}: {out}");
            assert!(out.stderr.contains(words), "{what}: {out}");
            ground.is_untouched(what);
        }
        // dockerd takes some of them; it lives.
        let _ = engine.docker("images -q").ok();
    }
    ground.engine.end();
}

fn whiteouts_and_marks(case: &Case) {
    let mut ground = Ground::new(case);
    for name in [".wh.", ".wh..", ".wh..wh.", ".wh..wh..opq", ".wh..wh.plnk", "a/.wh./b", ".wh.a/b", ".wh.x/../y"] {
        ground.bears(name, &[tar(&[member(name, b'0')])]);
        ground.bears(name, &[tar(&[member("a", b'5'), member("a/f", b'0')]), tar(&[member(name, b'0')])]);
        ground.bears(name, &[tar(&[member("f", b'0'), member(name, b'1').link("f")])]);
    }
    // An image can't tell overlayfs to take content from elsewhere.
    let marks: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/../../../target"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.origin", b"\0\xfb\x1d\0"),
    ];
    for mark in marks {
        ground.bears(mark.0, &[tar(&[pax(&[*mark]), member("d", b'5'), pax(&[*mark]), member("f", b'0').data("x")])]);
    }
    if ground.engine.is_ketch() {
        let layer = tar(&[pax(marks), member("d", b'5'), pax(marks), member("d/f", b'0').data("x")]);
        let path = archive(&ground.engine.site, "marked:1", &[layer]);
        let _ = ground.engine.client().args(["load", "-i"]).arg(path).run().ok();
        let layers = ground.engine.site.path("data/layers");
        let found = ground.engine.sh(&format!("getfattr -R -d -m - --absolute-names {} 2>/dev/null || true", layers.display()));
        assert!(!found.stdout.contains("overlay"), "{found}");
        let _ = ground.engine.docker("rmi marked:1").ok();
    }
    ground.is_untouched("marks");
    ground.engine.end();
}

fn devices_and_setuid_files_are_out_of_reach(case: &Case) {
    let ground = Ground::new(case);
    ground.engine.only_ketch("its folders are another's");
    // A real image is needed to run one.
    ground.engine.load_busybox();
    let members = [member("null", b'3').mode(0o666), member("root-shell", b'0').data("x").mode(0o4755)];
    let path = archive(&ground.engine.site, "devices:1", &[tar(&members)]);
    let _ = ground.engine.client().args(["load", "-i"]).arg(path).run().ok();
    // No other user gets as far as to them, by the layers or by the blobs.
    for folder in ["data/layers", "data/image", "data/image/blobs"] {
        let about = fs::metadata(ground.engine.site.path(folder)).expect("stat a folder");
        assert_eq!((about.mode() & 0o077, about.uid()), (0, 0), "{folder}");
    }
    let _ = ground.engine.docker("create --name box --network none devices:1 /none").ok();
    let listed = ground.engine.sh("docker export box | tar -tv").ok();
    let line = |name: &str| listed.text().lines().find(|line| line.ends_with(name)).unwrap_or_default().to_owned();
    assert!(line(" null").starts_with("crw-rw-rw-") && line(" root-shell").starts_with("-rwsr-xr-x"), "{listed}");
    ground.engine.end();
}

/// A registry of one image, made of what is given.
fn registry(ground: &Ground<'_>, layer: &[u8]) -> Front {
    let site = &ground.engine.site;
    let packed = gzip(site, layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        digest(site, layer)
    );
    let kinds = "application/vnd.docker";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kinds}.distribution.manifest.v2+json","config":{{"mediaType":"{kinds}.container.image.v1+json","size":{},"digest":"sha256:{}"}},"layers":[{{"mediaType":"{kinds}.image.rootfs.diff.tar.gzip","size":{},"digest":"sha256:{}"}}]}}"#,
        config.len(),
        digest(site, config.as_bytes()),
        packed.len(),
        digest(site, &packed)
    );
    let of_manifest = format!("sha256:{}", digest(site, manifest.as_bytes()));
    let of_config = digest(site, config.as_bytes());
    Front::start(site, "127.0.0.1:5001", "127.0.0.1:5001", move |asked: &Asked| {
        if asked.is_manifest() {
            let kind = format!("{kinds}.distribution.manifest.v2+json");
            let headers = vec![("Content-Type", kind), ("Docker-Content-Digest", of_manifest.clone())];
            Reply::Own(200, headers, manifest.clone().into_bytes())
        } else if asked.path.contains(&of_config) {
            Reply::Own(200, vec![], config.clone().into_bytes())
        } else if asked.is_blob() {
            Reply::Own(200, vec![], packed.clone())
        } else {
            Reply::Own(200, vec![], b"{}".to_vec())
        }
    })
}

fn hostile_layers_by_pull(case: &Case) {
    let mut ground = Ground::new(case);
    ground.set(r#"{"max-download-attempts": 1}"#);
    let outside = ground.outside();
    for (what, layer, words) in [
        ("a name with ..", tar(&[member("../escaped", b'0').data("x")]), "leads out of the layer"),
        ("a hard link outside", tar(&[member("h", b'1').link(format!("{outside}/file"))]), "which the layer does not have"),
        ("a whiteout of ..", tar(&[member(".wh...", b'0')]), "leads out of the layer"),
        ("a negative size", tar(&[member("f", b'0').stating([0xff; 12])]), "malformed tar"),
        ("no tar", vec![b'x'; 4096], "malformed tar"),
    ] {
        let front = registry(&ground, &layer);
        let out = ground.engine.docker("pull 127.0.0.1:5001/evil:1");
        // dockerd takes whiteouts of this kind.
        if ground.engine.is_ketch() {
            assert_ne!(out.code, 0, "{what}: {out}");
            assert!(out.stderr.contains(words), "{what}: {out}");
        } else {
            let _ = ground.engine.docker("rmi -f 127.0.0.1:5001/evil:1");
        }
        ground.is_untouched(what);
        drop(front);
    }
    ground.engine.end();
}

fn names_of_any_bytes(case: &Case) {
    let ground = Ground::new(case);
    let name = b"d/\xff\xfe\x01 \n\"\\";
    let layer = tar(&[member("d", b'5'), member(name, b'0').data("x"), member("d/\u{e4}", b'2').link(name)]);
    let path = archive(&ground.engine.site, "bytes:1", &[layer.clone(), layer]);
    let _ = ground.engine.client().args(["load", "-i"]).arg(path).run().ok();
    let saved = ground.engine.site.path("saved.tar");
    let _ = ground.engine.client().args(["save", "bytes:1", "-o"]).arg(&saved).run().ok();
    let _ = ground.engine.docker("rmi bytes:1").ok();
    let _ = ground.engine.client().args(["load", "-i"]).arg(saved).run().ok();
    let _ = ground.engine.docker("create --name box --network none bytes:1 /none").ok();
    let count = ground.engine.sh("docker export box | tar -x -C $(mktemp -d) --to-command='wc -c' | grep -c '^1$'").ok();
    assert_eq!(count.text(), "1");
    let _ = ground.engine.docker("rm box").ok();
    let _ = ground.engine.docker("rmi bytes:1").ok();
    ground.is_untouched("names of any bytes");
    ground.engine.end();
}

//! Registries over a network that fails: broken and changed downloads, limits, callers at once, tokens, redirections, mirrors,
//! TLS, and manifests of all kinds.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ketch_integration::ketchd::front::{Asked, Front, Reply};
use ketch_integration::ketchd::registry::{Guard, Registry};
use ketch_integration::ketchd::{Engine, archive};
use ketch_integration::wait::wait_until;
use ketch_integration::{Case, tests};

tests![
    a_broken_layer_goes_on_where_it_broke,
    a_broken_layer_is_tried_so_often,
    a_changed_layer_is_refused,
    a_layer_of_another_size_is_refused,
    callers_share_a_download,
    downloads_at_once,
    uploads_at_once,
    a_pull_that_nobody_waits_for_leaves_nothing,
    a_busy_registry,
    tokens,
    tokens_expire,
    a_wrong_password_at_the_token_server,
    a_token_stands_for_the_password,
    redirections_are_told_no_secrets,
    mirrors_come_first,
    insecure_networks,
    certificates_of_clients,
    schema_1_is_refused,
    indexes_and_platforms,
    foreign_layers_are_refused,
    layers_in_zstd,
    a_push_mounts_what_is_there,
    pull_all_tags,
];

const FRONT: &str = "127.0.0.1:5001";
const TOKENS: &str = "127.0.0.1:5002";
const ELSEWHERE: &str = "127.0.0.1:5003";
/// Bytes of each layer's file, which do not compress.
const SIZE: usize = 3 << 20;

/// An engine, and a registry behind a front; `big:1` of so many layers is there as `a/big:1` and not here.
struct Site<'a> {
    engine: Engine<'a>,
    registry: Registry,
}

impl<'a> Site<'a> {
    fn new(case: &'a Case, flags: &[&str], layers: usize) -> Self {
        let engine = Engine::bare(case, flags);
        let registry = Registry::start(&engine.site, Guard::None);
        let tar = archive::of_layers(&engine.site, &format!("{}/a/big:1", registry.address), layers, SIZE);
        let _ = engine.client().args(["load", "-q", "-i"]).arg(tar).run().ok();
        let _ = engine.docker(&format!("push -q {}/a/big:1", registry.address)).ok();
        let _ = engine.docker(&format!("rmi {}/a/big:1", registry.address)).ok();
        Self { engine, registry }
    }

    fn front(&self, decide: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Front {
        Front::start(&self.engine.site, FRONT, &self.registry.address, decide)
    }

    /// Nothing is left of a pull that failed.
    #[track_caller]
    fn is_empty(&self) {
        assert_eq!(self.engine.docker("images -q").ok().text(), "");
        if self.engine.is_ketch() {
            for folder in ["data/image/staging", "data/layers", "data/image/blobs"] {
                let path = self.engine.site.path(folder);
                wait_until(folder, || {
                    let left: Vec<_> = fs::read_dir(&path).expect("list").flatten().map(|e| e.path()).collect();
                    if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
                });
            }
        }
    }

    fn end(self) {
        self.registry.stop();
        self.engine.end();
    }
}

fn config_digest(site: &Site<'_>) -> String {
    let manifest = site.engine.sh(&format!(
        "curl -s -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://{}/v2/a/big/manifests/1",
        site.registry.address
    ));
    let manifest: serde_json::Value = serde_json::from_str(manifest.ok().text()).expect("a manifest");
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}

/// Whether a request is for a layer, when the config is known.
fn layers_but(config: String) -> impl Fn(&Asked) -> bool + Send + Sync + 'static {
    move |asked| asked.is_blob() && !asked.path.contains(&config)
}

fn a_broken_layer_goes_on_where_it_broke(case: &Case) {
    let site = Site::new(case, &[], 1);
    let layer = layers_but(config_digest(&site));
    let seen = AtomicUsize::new(0);
    let front = site.front(move |asked| match layer(asked).then(|| seen.fetch_add(1, Ordering::SeqCst)) {
        Some(0) => Reply::Cut(1 << 20),
        Some(1) => Reply::Hang,
        _ => Reply::Pass,
    });
    let _ = site.engine.docker(&format!("pull {FRONT}/a/big:1")).ok();
    let ranges: Vec<_> = front.asked().iter().map(|asked| asked.header("range").to_owned()).filter(|range| !range.is_empty()).collect();
    assert!(!ranges.is_empty(), "{:?}", front.asked());
    for range in &ranges {
        let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a range");
        assert!((1..=1 << 20).contains(&from), "{range}");
    }
    let _ = site.engine.docker(&format!("run --rm --network none {FRONT}/a/big:1 true"));
    drop(front);
    site.end();
}

fn a_broken_layer_is_tried_so_often(case: &Case) {
    let site = Site::new(case, &["--max-download-attempts=2"], 1);
    let layer = Arc::new(layers_but(config_digest(&site)));
    let counted = Arc::clone(&layer);
    let front = site.front(move |asked| if layer(asked) { Reply::Own(503, vec![], b"busy".to_vec()) } else { Reply::Pass });
    let answer = site.engine.call("POST", &format!("/images/create?fromImage={FRONT}/a/big&tag=1"), "").is(200);
    assert!(answer.body.contains("Retrying in 5 seconds") && answer.body.contains("Retrying in 1 second\""), "{}", answer.body);
    assert!(answer.body.contains("errorDetail") && answer.body.contains("503 Service Unavailable"), "{}", answer.body);
    assert_eq!(front.count(|asked| counted(asked)), 2);
    site.is_empty();
    drop(front);
    site.end();
}

fn a_changed_layer_is_refused(case: &Case) {
    let site = Site::new(case, &["--max-download-attempts=1"], 2);
    let layer = layers_but(config_digest(&site));
    let front = site.front(move |asked| if layer(asked) { Reply::Corrupt(2 << 20) } else { Reply::Pass });
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    assert!(out.stderr.contains("filesystem layer verification failed for digest sha256:"), "{out}");
    site.is_empty();
    drop(front);
    site.end();
}

/// The registry's own manifest, changed by a function.
fn changed_manifest(site: &Site<'_>, change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let text = site.engine.sh(&format!(
        "curl -s -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://{}/v2/a/big/manifests/1",
        site.registry.address
    ));
    let mut manifest: serde_json::Value = serde_json::from_str(text.ok().text()).expect("a manifest");
    change(&mut manifest);
    serde_json::to_vec(&manifest).expect("encode a manifest")
}

/// Says that this is the manifest, by whatever name it is asked for.
fn manifest(kind: &'static str, bytes: Vec<u8>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
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

fn digest(bytes: &[u8]) -> String {
    let file = std::env::temp_dir().join(format!("ketch-digest-{:?}", std::thread::current().id()));
    fs::write(&file, bytes).expect("write bytes");
    let digest = archive::sha256(&file);
    fs::remove_file(file).expect("remove bytes");
    format!("sha256:{digest}")
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn a_layer_of_another_size_is_refused(case: &Case) {
    let site = Site::new(case, &["--max-download-attempts=1"], 1);
    site.engine.only_ketch("it looks at the digest alone");
    for (size, words) in [(SIZE / 2, "filesystem layer verification failed"), (SIZE * 2, "and its manifest says")] {
        let bytes = changed_manifest(&site, |manifest| manifest["layers"][0]["size"] = size.into());
        let front = site.front(manifest(DOCKER_MANIFEST, bytes));
        let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
        assert!(out.stderr.contains(words), "{out}");
        site.is_empty();
        drop(front);
    }
    site.end();
}

/// Holds requests until so many are there at once, and knows the most that there were. One that is alone for long goes on,
/// so that a limit that is too small fails and does not hang.
#[derive(Default)]
struct Meeting {
    now: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Meeting {
    fn attend(&self, wanted: usize) {
        let mut now = self.now.lock().expect("no panic holds it");
        now.0 += 1;
        now.1 = now.1.max(now.0);
        self.changed.notify_all();
        while now.1 < wanted {
            let (next, timeout) = self.changed.wait_timeout(now, Duration::from_secs(20)).expect("no panic holds it");
            now = next;
            if timeout.timed_out() {
                break;
            }
        }
        now.0 -= 1;
    }

    fn most(&self) -> usize {
        self.now.lock().expect("no panic holds it").1
    }
}

fn callers_share_a_download(case: &Case) {
    let site = Site::new(case, &[], 2);
    let layer = Arc::new(layers_but(config_digest(&site)));
    // No layer comes before all callers have the manifest.
    let (callers, counted) = (4, Arc::clone(&layer));
    let asked_for = Arc::new((Mutex::new(0), Condvar::new()));
    let front = site.front(move |asked| {
        let (count, changed) = &*asked_for;
        let mut count = count.lock().expect("no panic holds it");
        if asked.method == "GET" && asked.is_manifest() {
            *count += 1;
            changed.notify_all();
        } else if layer(asked) {
            while *count < callers {
                let waited = changed.wait_timeout(count, Duration::from_secs(20)).expect("no panic holds it");
                count = waited.0;
                if waited.1.timed_out() {
                    break;
                }
            }
        }
        Reply::Pass
    });
    let pulls: Vec<_> = (0..callers).map(|_| site.engine.client().args(["pull", &format!("{FRONT}/a/big:1")]).spawn()).collect();
    for pull in pulls {
        let out = pull.wait().ok();
        assert!(out.text().contains("Digest: sha256:"), "{out}");
    }
    assert_eq!(front.count(|asked| counted(asked)), 2, "two layers, each fetched once");
    drop(front);
    site.end();
}

fn downloads_at_once(case: &Case) {
    let site = Site::new(case, &["--max-concurrent-downloads=2"], 5);
    let layer = layers_but(config_digest(&site));
    let meeting = Arc::new(Meeting::default());
    let at = Arc::clone(&meeting);
    let front = site.front(move |asked| {
        if layer(asked) {
            at.attend(2);
        }
        Reply::Pass
    });
    let _ = site.engine.docker(&format!("pull {FRONT}/a/big:1")).ok();
    assert_eq!(meeting.most(), 2);
    drop(front);
    site.end();
}

fn uploads_at_once(case: &Case) {
    let site = Site::new(case, &["--max-concurrent-uploads=2"], 5);
    let _ = site.engine.docker(&format!("pull -q {}/a/big:1", site.registry.address)).ok();
    let _ = site.engine.docker(&format!("tag {}/a/big:1 {FRONT}/b/big:1", site.registry.address)).ok();
    let meeting = Arc::new(Meeting::default());
    let at = Arc::clone(&meeting);
    let front = site.front(move |asked| {
        // dockerd sends by PATCH, and ends by PUT.
        if asked.body.len() >= SIZE {
            at.attend(2);
        }
        Reply::Pass
    });
    let out = site.engine.docker(&format!("push {FRONT}/b/big:1")).ok();
    assert!(out.text().contains("1: digest: sha256:"), "{out}");
    assert_eq!(meeting.most(), 2);
    drop(front);
    site.end();
}

fn a_pull_that_nobody_waits_for_leaves_nothing(case: &Case) {
    let site = Site::new(case, &[], 2);
    let layer = Arc::new(layers_but(config_digest(&site)));
    let counted = Arc::clone(&layer);
    let front = site.front(move |asked| if layer(asked) { Reply::Cut(1 << 20) } else { Reply::Pass });
    let mut http = site.engine.http();
    http.ask("POST", &format!("/images/create?fromImage={FRONT}/a/big&tag=1"), &[], "");
    wait_until("the download", || if front.count(|asked| counted(asked)) > 0 { Ok(()) } else { Err("no layer".into()) });
    drop(http);
    site.is_empty();
    drop(front);
    site.end();
}

fn a_busy_registry(case: &Case) {
    let site = Site::new(case, &[], 1);
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
    let front = site.front(move |asked| {
        if asked.is_manifest() { Reply::Own(429, vec![("Content-Type", "application/json".into())], body.to_vec()) } else { Reply::Pass }
    });
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    // dockerd asks by HEAD first, whose answer has no body.
    assert!(out.stderr.contains("toomanyrequests"), "{out}");
    drop(front);
    let layer = layers_but(config_digest(&site));
    let seen = AtomicUsize::new(0);
    let front = site.front(move |asked| {
        if layer(asked) && seen.fetch_add(1, Ordering::SeqCst) == 0 { Reply::Own(503, vec![], vec![]) } else { Reply::Pass }
    });
    let _ = site.engine.docker(&format!("pull {FRONT}/a/big:1")).ok();
    drop(front);
    site.end();
}

/// A registry that wants tokens, each good for so many requests.
fn guarded(site: &Site<'_>, good_for: usize) -> (Front, Front) {
    let left = Arc::new(AtomicUsize::new(0));
    let given = Arc::new(AtomicUsize::new(0));
    let (fill, number) = (Arc::clone(&left), Arc::clone(&given));
    let tokens = Front::start(&site.engine.site, TOKENS, TOKENS, move |asked| {
        let form = String::from_utf8_lossy(&asked.body).into_owned();
        // user:secret
        let is_known = asked.header("authorization") == "Basic dXNlcjpzZWNyZXQ=" || form.contains("refresh_token=long-lived");
        if !is_known {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}"#;
            return Reply::Own(401, vec![("Content-Type", "application/json".into())], body.to_vec());
        }
        fill.store(good_for, Ordering::SeqCst);
        let number = number.fetch_add(1, Ordering::SeqCst) + 1;
        let refresh = if asked.path.contains("offline_token=true") { r#","refresh_token":"long-lived""# } else { "" };
        let body = format!(r#"{{"token":"token-{number}","access_token":"token-{number}","expires_in":300{refresh}}}"#);
        Reply::Own(200, vec![("Content-Type", "application/json".into())], body.into_bytes())
    });
    let front = site.front(move |asked| {
        let current = format!("Bearer token-{}", given.load(Ordering::SeqCst));
        let is_good = asked.header("authorization") == current
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_good {
            return Reply::Pass;
        }
        let scope = if asked.path.starts_with("/v2/a/big/") { ",scope=\"repository:a/big:pull\"" } else { "" };
        let challenge = format!("Bearer realm=\"http://{TOKENS}/token\",service=\"tests\"{scope}");
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        Reply::Own(401, vec![("WWW-Authenticate", challenge), ("Content-Type", "application/json".into())], body.to_vec())
    });
    (front, tokens)
}

fn login(site: &Site<'_>) {
    let _ = site.engine.client().args(["login", "-u", "user", "--password-stdin", FRONT]).stdin("secret").run().ok();
}

fn tokens(case: &Case) {
    let site = Site::new(case, &[], 3);
    let (front, tokens) = guarded(&site, 1000);
    login(&site);
    let _ = site.engine.docker(&format!("pull {FRONT}/a/big:1")).ok();
    let asked = tokens.asked();
    let scoped: Vec<_> = asked.iter().filter(|asked| asked.path.contains("scope=") || !asked.body.is_empty()).collect();
    assert!(!scoped.is_empty(), "{asked:?}");
    for one in scoped {
        let text = one.path.clone() + &String::from_utf8_lossy(&one.body);
        assert!(text.contains("service=tests") && text.contains("scope=repository%3Aa%2Fbig%3Apull"), "{text}");
    }
    // The password is for the token server alone.
    assert_eq!(front.count(|asked| asked.header("authorization").starts_with("Basic")), 0);
    drop((front, tokens));
    site.end();
}

fn tokens_expire(case: &Case) {
    let site = Site::new(case, &[], 4);
    site.engine.only_ketch("it gives up when requests at once use up a token");
    let (front, tokens) = guarded(&site, 2);
    login(&site);
    let before = tokens.count(|_| true);
    let _ = site.engine.docker(&format!("pull {FRONT}/a/big:1")).ok();
    assert!(tokens.count(|_| true) - before > 1, "{:?}", tokens.asked());
    drop((front, tokens));
    site.end();
}

fn a_wrong_password_at_the_token_server(case: &Case) {
    let site = Site::new(case, &[], 1);
    let (front, tokens) = guarded(&site, 1000);
    let out = site.engine.client().args(["login", "-u", "user", "--password-stdin", FRONT]).stdin("wrong").run();
    assert_eq!(out.code, 1, "{out}");
    assert!(out.stderr.contains("/v2/\": unauthorized: incorrect username or password"), "{out}");
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    assert!(out.stderr.contains("unauthorized: incorrect username or password"), "{out}");
    site.is_empty();
    drop((front, tokens));
    site.end();
}

fn a_token_stands_for_the_password(case: &Case) {
    let site = Site::new(case, &[], 1);
    let (front, tokens) = guarded(&site, 1000);
    let body = format!(r#"{{"username":"user","password":"secret","serveraddress":"{FRONT}"}}"#);
    let answer = site.engine.call("POST", "/auth", &body).is(200).json();
    assert_eq!(answer["IdentityToken"], "long-lived");
    // {"identitytoken":"long-lived"}
    let header = "X-Registry-Auth: eyJpZGVudGl0eXRva2VuIjoibG9uZy1saXZlZCJ9";
    let pull = format!("/images/create?fromImage={FRONT}/a/big&tag=1");
    let answer = site.engine.http().call("POST", &pull, &[header], "").is(200);
    assert!(answer.body.contains("Downloaded newer image"), "{}", answer.body);
    let form = tokens.asked().into_iter().filter(|asked| asked.method == "POST").map(|asked| String::from_utf8_lossy(&asked.body).into_owned()).next_back();
    let form = form.expect("a form");
    for part in ["grant_type=refresh_token", "refresh_token=long-lived", "service=tests", "scope=repository%3Aa%2Fbig%3Apull"] {
        assert!(form.contains(part), "{part}: {form}");
    }
    drop((front, tokens));
    site.end();
}

fn redirections_are_told_no_secrets(case: &Case) {
    let site = Site::new(case, &["--max-download-attempts=1"], 1);
    let (front, tokens) = guarded(&site, 1000);
    login(&site);
    let layer = Arc::new(layers_but(config_digest(&site)));
    let elsewhere = Front::start(&site.engine.site, ELSEWHERE, &site.registry.address, |_| Reply::Pass);
    let redirecting = Arc::clone(&layer);
    let redirect = move |asked: &Asked| {
        if redirecting(asked) {
            Reply::Own(307, vec![("Location", format!("http://{ELSEWHERE}{}", asked.path))], vec![])
        } else {
            Reply::Pass
        }
    };
    let second = Front::start(&site.engine.site, "127.0.0.1:5004", FRONT, redirect);
    let credentials = site.engine.site.path("config/config.json");
    let text = fs::read_to_string(&credentials).expect("read the client's credentials");
    fs::write(&credentials, text.replace(FRONT, "127.0.0.1:5004")).expect("write them");
    let _ = site.engine.docker("pull 127.0.0.1:5004/a/big:1").ok();
    assert!(second.count(|asked| !asked.header("authorization").is_empty()) > 0);
    let asked = elsewhere.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.header("authorization").is_empty()), "{asked:?}");
    let _ = site.engine.docker("rmi 127.0.0.1:5004/a/big:1").ok();
    drop(elsewhere);
    // One that asks who we are gets no answer from us, and no password.
    let challenge = "Bearer realm=\"http://127.0.0.1:5003/token\",service=\"evil\",scope=\"repository:a/big:pull\"";
    let evil = Front::start(&site.engine.site, ELSEWHERE, ELSEWHERE, move |_| {
        Reply::Own(401, vec![("WWW-Authenticate", challenge.to_owned())], vec![])
    });
    if site.engine.is_ketch() {
        let out = site.engine.docker("pull 127.0.0.1:5004/a/big:1").exits(1);
        assert!(out.stderr.contains("unauthorized"), "{out}");
        let asked = evil.asked();
        assert!(asked.iter().all(|asked| asked.header("authorization").is_empty() && asked.is_blob()), "{asked:?}");
        site.is_empty();
    }
    drop((front, tokens, second, evil));
    site.end();
}

fn mirrors_come_first(case: &Case) {
    let site = Site::new(case, &["--registry-mirror=http://127.0.0.1:5001"], 1);
    // docker.io/a/big at the mirror.
    let front = site.front(|_| Reply::Pass);
    let out = site.engine.docker("pull a/big:1").ok();
    assert!(out.text().contains("Status: Downloaded newer image for a/big:1"), "{out}");
    assert!(front.count(Asked::is_blob) >= 2);
    let _ = site.engine.docker("rmi a/big:1").ok();
    // What it has not, and one that is down: Docker's own is asked, and not there.
    let out = site.engine.docker("pull a/none:1").exits(1);
    assert!(out.stderr.contains("https://registry-1.docker.io/v2/"), "{out}");
    assert!(front.count(|asked| asked.path.contains("/a/none/")) > 0);
    drop(front);
    let out = site.engine.docker("pull a/big:1").exits(1);
    assert!(out.stderr.contains("https://registry-1.docker.io/v2/"), "{out}");
    site.is_empty();
    site.end();
}

fn insecure_networks(case: &Case) {
    let site = Site::new(case, &["--insecure-registry=10.99.0.0/16"], 1);
    for address in ["10.99.1.2", "10.98.1.2"] {
        let _ = site.engine.site.run("ip", ["address", "add", &format!("{address}/32"), "dev", "lo"]).ok();
    }
    let trusted = Front::start(&site.engine.site, "10.99.1.2:5001", &site.registry.address, |_| Reply::Pass);
    let other = Front::start(&site.engine.site, "10.98.1.2:5001", &site.registry.address, |_| Reply::Pass);
    let _ = site.engine.docker("pull 10.99.1.2:5001/a/big:1").ok();
    let out = site.engine.docker("pull 10.98.1.2:5001/a/big:1").exits(1);
    assert!(out.stderr.contains("Get \"https://10.98.1.2:5001/v2/\": "), "{out}");
    assert_eq!(other.count(|_| true), 0, "asked without TLS");
    drop((trusted, other));
    site.end();
}

fn certificates_of_clients(case: &Case) {
    let engine = Engine::start(case);
    let registry = Registry::start(&engine.site, Guard::Certificate);
    let name = format!("{}/busybox:1", registry.address);
    let _ = engine.docker(&format!("tag busybox {name}")).ok();
    let out = engine.docker(&format!("push {name}")).exits(1);
    // Loopback is asked without TLS, too, which is what is told of.
    assert!(out.stderr.contains("certificate required") || out.stderr.contains("400 Bad Request"), "{out}");
    registry.give_certificate(&engine.site);
    let _ = engine.docker(&format!("push {name}")).ok();
    let _ = engine.docker(&format!("rmi busybox {name}")).ok();
    let _ = engine.docker(&format!("pull {name}")).ok();
    registry.stop();
    engine.end();
}

fn schema_1_is_refused(case: &Case) {
    let site = Site::new(case, &[], 1);
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
    let site = Site::new(case, &[], 1);
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
    let site = Site::new(case, &["--max-download-attempts=1"], 1);
    site.engine.only_ketch("it fetches them from wherever a manifest says");
    let bytes = changed_manifest(&site, |manifest| {
        manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{ELSEWHERE}/layer")]);
    });
    let front = site.front(manifest(DOCKER_MANIFEST, bytes));
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    assert!(out.stderr.contains("is foreign") && out.stderr.contains("not supported"), "{out}");
    site.is_empty();
    drop(front);
    site.end();
}

fn layers_in_zstd(case: &Case) {
    let site = Site::new(case, &[], 2);
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
    let site = Site::new(case, &[], 2);
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
    let site = Site::new(case, &[], 1);
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

//! Who may speak to a registry, and which one is asked: tokens, passwords, redirections, mirrors, TLS and clients' certificates.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ketch_integration::ketchd::Engine;
use ketch_integration::ketchd::front::{Asked, Front, Reply};
use ketch_integration::ketchd::fronted::{FRONT, Fronted, config_digest, layers_but};
use ketch_integration::ketchd::registry::{Guard, Registry};
use ketch_integration::{Case, tests};

tests![
    tokens,
    tokens_expire,
    a_wrong_password_at_the_token_server,
    a_token_stands_for_the_password,
    redirections_are_told_no_secrets,
    mirrors_come_first,
    insecure_networks,
    certificates_of_clients,
];

const TOKENS: &str = "127.0.0.1:5002";

const ELSEWHERE: &str = "127.0.0.1:5003";

/// A registry that wants tokens, each good for so many requests.
fn guarded(site: &Fronted<'_>, good_for: usize) -> (Front, Front) {
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

fn login(site: &Fronted<'_>) {
    let _ = site.engine.client().args(["login", "-u", "user", "--password-stdin", FRONT]).stdin("secret").run().ok();
}

fn tokens(case: &Case) {
    let site = Fronted::new(case, &[], 3);
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
    let site = Fronted::new(case, &[], 4);
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
    let site = Fronted::new(case, &[], 1);
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
    let site = Fronted::new(case, &[], 1);
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
    let site = Fronted::new(case, &["--max-download-attempts=1"], 1);
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
    let site = Fronted::new(case, &["--registry-mirror=http://127.0.0.1:5001"], 1);
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
    let site = Fronted::new(case, &["--insecure-registry=10.99.0.0/16"], 1);
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
    // Which alert it is depends on what the registry was built with.
    assert!(out.stderr.contains("/v2/\": remote error: tls: "), "{out}");
    assert!(out.stderr.contains("certificate required") || out.stderr.contains("bad certificate"), "{out}");
    registry.give_certificate(&engine.site);
    let _ = engine.docker(&format!("push {name}")).ok();
    let _ = engine.docker(&format!("rmi busybox {name}")).ok();
    let _ = engine.docker(&format!("pull {name}")).ok();
    registry.stop();
    engine.end();
}

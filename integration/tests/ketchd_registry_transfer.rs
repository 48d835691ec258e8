//! Layers on their way over a network that fails: broken and changed downloads, sizes, limits, callers at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ketch_integration::ketchd::front::Reply;
use ketch_integration::ketchd::fronted::{DOCKER_MANIFEST, FRONT, Fronted, SIZE, changed_manifest, config_digest, layers_but, manifest};
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
];

fn a_broken_layer_goes_on_where_it_broke(case: &Case) {
    let site = Fronted::new(case, &[], 1);
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
    let site = Fronted::new(case, &["--max-download-attempts=2"], 1);
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
    let site = Fronted::new(case, &["--max-download-attempts=1"], 2);
    let layer = layers_but(config_digest(&site));
    let front = site.front(move |asked| if layer(asked) { Reply::Corrupt(2 << 20) } else { Reply::Pass });
    let out = site.engine.docker(&format!("pull {FRONT}/a/big:1")).exits(1);
    assert!(out.stderr.contains("filesystem layer verification failed for digest sha256:"), "{out}");
    site.is_empty();
    drop(front);
    site.end();
}

fn a_layer_of_another_size_is_refused(case: &Case) {
    let site = Fronted::new(case, &["--max-download-attempts=1"], 1);
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
    let site = Fronted::new(case, &[], 2);
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
    let site = Fronted::new(case, &["--max-concurrent-downloads=2"], 5);
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
    let site = Fronted::new(case, &["--max-concurrent-uploads=2"], 5);
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
    let site = Fronted::new(case, &[], 2);
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
    let site = Fronted::new(case, &[], 1);
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

//! What is in use stays: removals and prunes at once with creates, commits, pulls, saves and loads; and a daemon that is
//! killed in a pull or a load. And how much can be in use of one image.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use ketch_integration::ketchd::front::{Asked, Front, Reply};
use ketch_integration::ketchd::hostile::{self, member};
use ketch_integration::ketchd::registry::{Guard, Registry};
use ketch_integration::ketchd::{Engine, archive};
use ketch_integration::wait::wait_until;
use ketch_integration::{Case, tests};

tests![
    removals_against_creates_and_commits,
    prunes_against_pulls_and_loads,
    a_save_outlives_its_image,
    a_root_outlives_its_image,
    killed_in_a_pull,
    killed_in_a_load,
    layers_as_many_as_can_be_stacked,
];

const FRONT: &str = "127.0.0.1:5001";

/// As often as each does its work.
const ROUNDS: usize = 8;

/// Nothing of images is left, once there are none.
#[track_caller]
fn is_empty(engine: &Engine<'_>) {
    let ids = engine.docker("images -aq").ok();
    if !ids.text().is_empty() {
        let _ = engine.client().args(["rmi", "-f"]).args(ids.text().lines()).run();
    }
    let _ = engine.docker("image prune -af").ok();
    assert_eq!(engine.docker("images -aq").ok().text(), "");
    if engine.is_ketch() {
        for folder in ["data/image/staging", "data/image/unpacking", "data/layers", "data/image/blobs", "data/snapshots"] {
            let path = engine.site.path(folder);
            wait_until(folder, || {
                let left: Vec<_> = fs::read_dir(&path).expect("list").flatten().map(|e| e.path()).collect();
                if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
            });
        }
    }
}

fn removals_against_creates_and_commits(case: &Case) {
    let engine = Engine::start(case);
    let tar = engine.site.path("archive-busybox-latest.tar");
    std::thread::scope(|scope| {
        let _remover = scope.spawn(|| {
            for _ in 0..ROUNDS {
                let _ = engine.docker("rmi busybox");
                let _ = engine.docker("rmi -f busybox");
                let _ = engine.docker("image prune -af");
                let _ = engine.client().args(["load", "-q", "-i"]).arg(&tar).run().ok();
            }
        });
        for worker in 0..3 {
            let engine = &engine;
            let _worker = scope.spawn(move || {
                for round in 0..ROUNDS {
                    let name = format!("box-{worker}-{round}");
                    let made = engine.docker(&format!("create --pull never --name {name} --network none busybox echo lives"));
                    if made.code != 0 {
                        // Gone at this moment, and said to be.
                        assert!(made.stderr.contains("No such image"), "{made}");
                        continue;
                    }
                    // A container that was made is whole, whatever became of its image.
                    assert_eq!(engine.docker(&format!("start -a {name}")).ok().text(), "lives");
                    let committed = engine.docker(&format!("commit {name}"));
                    if committed.code == 0 {
                        let run = engine.docker(&format!("run --pull never --rm --network none {} echo too", committed.text()));
                        assert!(run.code == 0 || run.stderr.contains("No such image") || run.stderr.contains("Unable to find image"), "{run}");
                    }
                    let _ = engine.docker(&format!("rm {name}")).ok();
                }
            });
        }
    });
    is_empty(&engine);
    engine.end();
}

/// Counts one less when it goes, whatever has become of its owner.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn prunes_against_pulls_and_loads(case: &Case) {
    let engine = Engine::bare(case, &[]);
    let registry = Registry::start(&engine.site, Guard::None);
    let name = format!("{}/big:1", registry.address);
    let tar = archive::of_layers(&engine.site, &name, 4, 200_000);
    let _ = engine.client().args(["load", "-q", "-i"]).arg(&tar).run().ok();
    let _ = engine.docker(&format!("push -q {name}")).ok();
    let running = AtomicUsize::new(3);
    let worker = |work: &dyn Fn()| {
        let _ended = Ended(&running);
        for _ in 0..ROUNDS {
            work();
        }
    };
    // A removal may come between a pull's end and the client's look at it.
    let pull = || worker(&|| drop(engine.docker(&format!("pull -q {name}")).ok()));
    let load = || worker(&|| drop(engine.client().args(["load", "-q", "-i"]).arg(&tar).run().ok()));
    let remove = || worker(&|| drop(engine.docker(&format!("rmi {name}"))));
    // What prune takes is what has no name: nothing that is being pulled or loaded is without one.
    let prune = || {
        while running.load(Ordering::SeqCst) > 0 {
            let _ = engine.docker("image prune -f");
        }
    };
    std::thread::scope(|scope| {
        let _threads = (scope.spawn(pull), scope.spawn(load), scope.spawn(remove), scope.spawn(prune));
    });
    let _ = engine.docker(&format!("pull -q {name}")).ok();
    let _ = engine.docker(&format!("create --name box --network none {name} /none")).ok();
    let names = engine.sh("docker export box | tar -t").ok();
    for layer in 0..4 {
        assert!(names.text().lines().any(|line| line == format!("layer{layer}/file")), "{names}");
    }
    let _ = engine.docker("rm box").ok();
    registry.stop();
    is_empty(&engine);
    engine.end();
}

fn a_save_outlives_its_image(case: &Case) {
    let engine = Engine::bare(case, &[]);
    let tar = archive::of_layers(&engine.site, "big:1", 6, 4 << 20);
    let _ = engine.client().args(["load", "-q", "-i"]).arg(&tar).run().ok();
    let mut http = engine.http();
    http.ask("GET", "/images/big:1/get", &[], "");
    assert_eq!(http.head().status, 200);
    let first = http.chunk().expect("a first piece");
    let out = engine.docker("rmi big:1");
    let mut bytes = first;
    while let Some(piece) = http.chunk() {
        bytes.extend(piece);
    }
    let saved = engine.site.path("saved.tar");
    fs::write(&saved, &bytes).expect("write the archive");
    assert!(bytes.len() > 6 * (4 << 20), "{} bytes; {out}", bytes.len());
    let _ = engine.docker("rmi big:1");
    let out = engine.client().args(["load", "-i"]).arg(&saved).run().ok();
    assert!(out.text().contains("Loaded image: big:1"), "{out}");
    is_empty(&engine);
    engine.end();
}

fn a_root_outlives_its_image(case: &Case) {
    let mut engine = Engine::start(case);
    let _ = engine.docker("create --name box --network none busybox echo lives").ok();
    let _ = engine.docker("rmi -f busybox").ok();
    let _ = engine.docker("image prune -af").ok();
    assert_eq!(engine.docker("start -a box").ok().text(), "lives");
    engine.stop();
    engine.come_back();
    assert_eq!(engine.docker("start -a box").ok().text(), "lives");
    let _ = engine.docker("rm box").ok();
    is_empty(&engine);
    engine.end();
}

fn killed_in_a_pull(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    let registry = Registry::start(&engine.site, Guard::None);
    let tar = archive::of_layers(&engine.site, &format!("{}/big:1", registry.address), 3, 2 << 20);
    let _ = engine.client().args(["load", "-q", "-i"]).arg(&tar).run().ok();
    let _ = engine.docker(&format!("push -q {}/big:1", registry.address)).ok();
    let _ = engine.docker(&format!("rmi {}/big:1", registry.address)).ok();
    // At each of the pull's requests, the last ones being layers that come half.
    let total = {
        let front = Front::start(&engine.site, FRONT, &registry.address, |_| Reply::Pass);
        let _ = engine.docker(&format!("pull -q {FRONT}/big:1")).ok();
        let _ = engine.docker(&format!("rmi {FRONT}/big:1")).ok();
        front.count(Asked::is_blob)
    };
    for step in 0..total {
        let seen = AtomicUsize::new(0);
        let front = Front::start(&engine.site, FRONT, &registry.address, move |asked| {
            if asked.is_blob() && seen.fetch_add(1, Ordering::SeqCst) >= step { Reply::Cut(1 << 20) } else { Reply::Pass }
        });
        let mut http = engine.http();
        http.ask("POST", &format!("/images/create?fromImage={FRONT}/big&tag=1"), &[], "");
        wait_until("the pull's step", || {
            let count = front.count(Asked::is_blob);
            if count > step { Ok(()) } else { Err(format!("{count} of {step}")) }
        });
        engine.kill();
        drop(front);
        engine.come_back();
        is_empty(&engine);
    }
    let _ = engine.docker(&format!("pull -q {}/big:1", registry.address)).ok();
    registry.stop();
    is_empty(&engine);
    engine.end();
}

fn killed_in_a_load(case: &Case) {
    let mut engine = Engine::bare(case, &[]);
    let tar = archive::of_layers(&engine.site, "big:1", 3, 2 << 20);
    let bytes = fs::read(&tar).expect("read the archive");
    for part in [1, 2, 3] {
        let mut http = engine.http();
        let head = format!("POST /images/load HTTP/1.1\r\nHost: docker\r\nContent-Length: {}\r\n\r\n", bytes.len());
        http.send(head.as_bytes());
        http.send(&bytes[..bytes.len() * part / 4]);
        if engine.is_ketch() {
            let staging = engine.site.path("data/image/staging");
            wait_until("a staged file", || match fs::read_dir(&staging).map(Iterator::count) {
                Ok(0) | Err(_) => Err("none".into()),
                Ok(_) => Ok(()),
            });
        }
        engine.kill();
        engine.come_back();
        is_empty(&engine);
    }
    let _ = engine.client().args(["load", "-i"]).arg(&tar).run().ok();
    is_empty(&engine);
    engine.end();
}

fn layers_as_many_as_can_be_stacked(case: &Case) {
    let engine = Engine::bare(case, &[]);
    engine.only_ketch("it takes 125");
    let most = 498;
    let layers: Vec<_> =
        (0..=most).map(|number| hostile::tar(&[member(format!("f{number}"), b'0').data("x")])).collect();
    let tar = hostile::archive(&engine.site, "deep:1", &layers[..most]);
    let _ = engine.client().args(["load", "-q", "-i"]).arg(tar).run().ok();
    // Mounted for a container, and read as a whole.
    let out = engine.docker("run --network none --name deep deep:1 /none").exits(127);
    assert!(out.stderr.contains("/none"), "{out}");
    let names = engine.sh("docker export deep | tar -t | grep -c '^f[0-9]*$'").ok();
    assert_eq!(names.text(), most.to_string());
    let _ = engine.docker("rm deep").ok();
    let tar = hostile::archive(&engine.site, "deep:2", &layers);
    let out = engine.client().args(["load", "-q", "-i"]).arg(tar).run();
    assert!(out.code == 1 && out.stderr.contains("max depth exceeded"), "{out}");
    is_empty(&engine);
    engine.end();
}

//! docker-py 7 from PyPI on the engine: its public API walked through by a script of our own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use ketch_integration::ketchd::Engine;
use ketch_integration::{Case, tests};

tests![the_public_api];

/// Made once for all runs of the suite: docker-py and what it needs, nothing of the machine's.
fn environment(case: &Case) -> PathBuf {
    static ONCE: Mutex<()> = Mutex::new(());
    let _one = ONCE.lock();
    let cache = std::env::var("KETCH_CACHE").unwrap_or_else(|_| "/var/cache/ketch".into());
    let folder = PathBuf::from(cache).join("dockerpy-7.1.0");
    if !folder.join("done").exists() {
        let script = "set -e; rm -rf \"$0\"; python3 -m venv \"$0\"; \"$0/bin/pip\" install --quiet docker==7.1.0; touch \"$0/done\"";
        let made = Command::new("sh").args(["-c", script]).arg(&folder).status();
        case.needs(made.is_ok_and(|status| status.success()), "no docker-py (python3-venv, PyPI)");
    }
    folder.join("bin/python")
}

fn the_public_api(case: &Case) {
    let python = environment(case);
    let engine = Engine::start(case);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dockerpy/walk.py");
    let out = engine.program(&python).arg(script).env("PYTHONDONTWRITEBYTECODE", "1").run().ok();
    assert_eq!(out.text(), "walked");
    engine.end();
}

//! What a leader needs that has nothing to do, with a hundred nodes more than the managers. They have no containers
//! (`agent/examples/fake_nodes.rs`), but keys, stores and connections as any.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use ketch_integration::mesh::Mesh;
use ketch_integration::site::{Daemon, Site};
use ketch_integration::wait::wait_within;

use super::super::contender::cpu;
use super::super::crowd::pss;
use super::super::samples::Samples;
use super::super::{Extent, OURS, knob};
use super::Stage;

pub(super) const CPU: &str = "leader at rest with 100 nodes: CPU, percent";
pub(super) const MEMORY: &str = "leader at rest with 100 nodes: memory, PSS, MiB";
pub(super) const SYNCED: &str = "leader at rest with 100 nodes: synced writes a second";

/// Everybody has registered, and what that has left to write is written.
const SETTLED: Duration = Duration::from_secs(10);
/// How long they may take to join.
const PATIENCE: Duration = Duration::from_secs(180);
/// On the bridge.
const NUMBER: usize = 200;

/// The nodes without containers.
#[derive(Debug)]
pub(super) struct Fakes<'a> {
    daemon: Daemon,
    _site: Site<'a>,
}

impl<'a> Fakes<'a> {
    /// Has them join, and waits until they have.
    pub(super) fn join(mesh: &Mesh<'a>) -> Self {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/fake_nodes");
        let program = std::env::var_os("FAKE_NODES").filter(|path| !path.is_empty());
        let program = program.map_or_else(|| PathBuf::from(built), PathBuf::from).display().to_string();
        let site = mesh.wire().connected(NUMBER);
        let folder = site.path("nodes").display().to_string();
        let count = knob("NODES", 100);
        let token = mesh.token(1, "worker");
        let own = format!("10.99.0.{NUMBER}");
        let words = [folder, count.to_string(), own, "10.99.0.1:2377".to_owned(), token];
        let daemon = site.daemon(&program, words);
        let log = site.path("fake_nodes.log");
        wait_within(PATIENCE, "the nodes without containers", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("joined") { Ok(()) } else { Err(text) }
        });
        let line = "node ls --filter role=worker --format '{{.Status}}'";
        let all = |text: &str| text.lines().filter(|line| *line == "Ready").count() == count;
        let _status = mesh.wait_output_within(PATIENCE, 1, line, all);
        Self { daemon, _site: site }
    }

    /// Seconds of CPU that all of them have used.
    fn used(&self) -> f64 {
        cpu(&[self.daemon.pid()])
    }
}

pub(super) fn measure(stage: &mut Stage<'_>, extent: Extent, samples: &mut Samples) {
    let mesh = &stage.ours;
    let fakes = stage.fakes.get_or_insert_with(|| Fakes::join(mesh));
    std::thread::sleep(SETTLED);
    let leads = mesh.leader(1, Duration::from_secs(30));
    let pid = mesh.node(leads).engine.pid();
    let long = Duration::from_secs(if extent.quick { 15 } else { 60 });
    let before = (cpu(&[pid]), fakes.used());
    std::thread::sleep(long);
    let used = cpu(&[pid]) - before.0;
    samples.keep(CPU, OURS, used / long.as_secs_f64() * 100.0);
    samples.keep(
        "  the nodes themselves: CPU, percent",
        OURS,
        (fakes.used() - before.1) / long.as_secs_f64() * 100.0,
    );
    samples.keep(MEMORY, OURS, pss(pid));
    let long = Duration::from_secs(if extent.quick { 5 } else { 20 });
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    let synced = synced(mesh, pid, long) as f64;
    samples.keep(SYNCED, OURS, synced / long.as_secs_f64());
}

/// Calls that wait for a disk, of all threads of a process. Apart from the CPU's time, of which tracing takes some.
fn synced(mesh: &Mesh<'_>, pid: i32, long: Duration) -> usize {
    let site = mesh.wire().site();
    let file = site.path("synced.txt");
    let calls = "trace=fsync,fdatasync,sync_file_range,syncfs,msync,sync";
    let strace =
        site.case.program("timeout").args(["-s", "INT", &long.as_secs().to_string(), "strace", "-f"]);
    let out = strace.args(["-e", calls, "-p", &pid.to_string(), "-o"]).arg(&file).run();
    assert!(out.stderr.contains("attached"), "strace (package strace): {out}");
    let text = wait_within(Duration::from_secs(5), "strace's file", || {
        fs::read_to_string(&file).map_err(|error| error.to_string())
    });
    let is_call = |line: &&str| line.contains("sync") && !line.contains("resumed>");
    text.lines().filter(is_call).count()
}

//! Numbers for Prometheus in its text form, at `--metrics-addr` and, for those who may use the API, there: dockerd's by its names,
//! and those of ketch's own loops. Each module counts what it does; here is only the text.

mod cluster;
mod counted;
mod page;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::system;
pub use counted::Counted;
pub(crate) use counted::LayersCounted;
use counted::STATUSES;
use page::{Family, Page};

/// The content type of the text.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// So many are answered at once, each within so long.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest request that is read, in bytes.
const LONGEST: usize = 8 << 10;

/// The numbers now, made where it may wait for the store.
///
/// # Errors
/// It panicked.
pub async fn text(daemon: Arc<Daemon>) -> Result<String> {
    blocking(move || Ok(written(&daemon))).await
}

fn written(daemon: &Daemon) -> String {
    let mut page = Page::default();
    add_engine(&mut page, daemon);
    add_containers(&mut page, daemon);
    add_work(&mut page, daemon);
    add_between_nodes(&mut page, daemon);
    // Of no node before the daemon has begun.
    if let Ok(node) = daemon.node() {
        cluster::add(&mut page, node, &daemon.counted.sums);
    }
    page.text()
}

/// By dockerd's names.
fn add_engine(page: &mut Page, daemon: &Daemon) {
    let machine = system::machine();
    let name = machine.name.replace('"', "");
    let info = [
        ("architecture", "x86_64"),
        ("commit", "ketch"),
        ("daemon_id", daemon.id.as_str()),
        ("graphdriver", "overlay2"),
        ("kernel", machine.kernel.as_str()),
        ("os", name.as_str()),
        ("os_type", "linux"),
        ("version", crate::VERSION),
    ];
    let family = Family::gauge("engine_daemon_engine_info", "The engine and the machine that it runs on");
    page.number(family, &info, 1);
    let mut gauge = |name, help, value: u64| page.number(Family::gauge(name, help), &[], value);
    gauge("engine_daemon_engine_cpus_cpus", "The machine's CPUs", machine.cpus as u64);
    gauge("engine_daemon_engine_memory_bytes", "The machine's memory, in bytes", machine.memory);
    gauge("engine_daemon_events_subscribers_total", "Those who listen to events", daemon.events.listeners());
    gauge("process_open_fds", "The daemon's open files", system::open_files());
    gauge("process_resident_memory_bytes", "The daemon's memory, in bytes", system::resident_memory());
    let (probes, failed) = daemon.engine.probes();
    let mut counter = |name, help, value: u64| page.number(Family::counter(name, help), &[], value);
    counter("engine_daemon_health_checks_total", "Health checks so far", probes);
    counter("engine_daemon_health_checks_failed_total", "Health checks that have failed", failed);
    counter("engine_daemon_events_total", "Events so far", daemon.events.count());
}

fn add_containers(page: &mut Page, daemon: &Daemon) {
    let all = daemon.engine.all();
    let states: Vec<_> = all.iter().map(|container| container.read(|record| record.state.word())).collect();
    let family = Family::gauge("engine_daemon_container_states_containers", "Containers by what they do");
    for state in ["paused", "running", "stopped"] {
        let count = states.iter().filter(|word| match **word {
            "paused" => state == "paused",
            "running" | "restarting" => state == "running",
            _ => state == "stopped",
        });
        page.number(family, &[("state", state)], count.count());
    }
}

/// What ketchd has done so far, and how long it took.
fn add_work(page: &mut Page, daemon: &Daemon) {
    let requests = daemon.counted.requests();
    let family =
        Family::counter("ketch_api_requests_total", "Requests of the API by class of route and status");
    for (class, answered, _) in &requests {
        for (status, count) in STATUSES.into_iter().zip(answered).filter(|(_, count)| **count > 0) {
            page.number(family, &[("route", *class), ("status", status)], count);
        }
    }
    let family = Family::histogram("ketch_api_request_seconds", "Until an answer of the API begins");
    requests.iter().for_each(|(class, _, took)| page.spans(family, &[("route", *class)], took));
    let pulls = daemon.images.pulls();
    page.spans(Family::histogram("ketch_image_pull_seconds", "Pulls of images"), &[], &pulls.took.now());
    let family = Family::counter("ketch_image_failed_pulls_total", "Pulls of images that have failed");
    page.number(family, &[], pulls.failed.count());
    let family = Family::histogram(
        "ketch_network_apply_seconds",
        "Making the node's networks be as the cluster wants them",
    );
    page.spans(family, &[], &daemon.counted.networks.now());
    let family = Family::counter("ketch_network_problems_total", "What kept one of these networks from it");
    page.number(family, &[], daemon.counted.network_problems.count());
}

/// What goes between this node and others: layers, requests about tasks' containers, and connections whose tasks are told who
/// connects.
fn add_between_nodes(page: &mut Page, daemon: &Daemon) {
    let layers = &daemon.counted.layers;
    let directions = [("given", &layers.given), ("received", &layers.received)];
    let family = Family::histogram(
        "ketch_layer_piece_seconds",
        "From a request for a piece of a layer to its bytes, turns and rates among it",
    );
    directions.iter().for_each(|(way, it)| page.spans(family, &[("direction", *way)], &it.took.now()));
    let family = Family::counter("ketch_layer_bytes_total", "Bytes of layers between this node and others");
    directions.iter().for_each(|(way, it)| page.number(family, &[("direction", *way)], it.bytes.count()));
    let family = Family::counter(
        "ketch_layer_pieces_without_bytes_total",
        "Requests for a piece of a layer that was not there, or not in time",
    );
    directions.iter().for_each(|(way, it)| page.number(family, &[("direction", *way)], it.none.count()));
    let family =
        Family::counter("ketch_layer_wrong_total", "Times that another node gave wrong bytes of a layer");
    page.number(family, &[], layers.wrong.count());
    let family = Family::counter(
        "ketch_container_access_requests_total",
        "Requests about tasks' containers between nodes: of clients that others answered, of managers answered here",
    );
    let directions = [("sent", &daemon.counted.asked_elsewhere), ("answered", &daemon.counted.visits)];
    for (way, answers) in directions {
        for (status, count) in STATUSES.into_iter().zip(answers.counts()) {
            page.number(family, &[("direction", way), ("status", status)], count);
        }
    }
    let (ports, started) = daemon.networks.relayed();
    let family =
        Family::gauge("ketch_relay_ports", "Published ports whose tasks are told who connects, on this node");
    page.number(family, &[], ports);
    let family =
        Family::counter("ketch_relay_starts_total", "Starts of the process that carries these ports");
    page.number(family, &[], started);
}

/// Answers `GET /metrics`, and nothing else, to some at once: the others wait to be taken.
pub async fn serve(listener: TcpListener, daemon: Arc<Daemon>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answered = answer(stream, Arc::clone(&daemon));
                drop(tokio::spawn(async move {
                    let _late = tokio::time::timeout(PATIENCE, answered).await;
                    drop(place);
                }));
            }
            Err(error) => {
                debug!("accepting a connection for metrics: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        }
    }
}

/// One request for each connection: scrapers ask rarely.
async fn answer(mut stream: TcpStream, daemon: Arc<Daemon>) {
    let mut request = Vec::new();
    let head = async {
        let mut buffer = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < LONGEST {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(length) => request.extend_from_slice(&buffer[..length]),
            }
        }
    };
    head.await;
    let wanted = request.starts_with(b"GET /metrics ") || request.starts_with(b"GET /metrics?");
    let (status, body) = if wanted {
        let Ok(text) = text(daemon).await else { return };
        ("200 OK", text)
    } else {
        ("404 Not Found", "404 page not found\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

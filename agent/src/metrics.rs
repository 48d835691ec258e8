//! Numbers for Prometheus, by dockerd's names, in its text form: at `--metrics-addr` and, for those who may use the API, there.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use crate::daemon::Daemon;
use crate::system;

/// The content type of the text.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The longest request that is read, in bytes.
const LONGEST: usize = 8 << 10;

/// The numbers now.
#[must_use]
pub fn text(daemon: &Daemon) -> String {
    let machine = system::machine();
    let mut text = String::new();
    let mut last = String::new();
    let mut number = |name: &str, kind: &str, help: &str, labels: &str, value: u64| {
        // Writing into memory can't fail.
        if last != name {
            let _written = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            name.clone_into(&mut last);
        }
        let _written = writeln!(text, "{name}{labels} {value}");
    };
    let info = format!(
        "{{architecture=\"x86_64\",commit=\"ketch\",daemon_id=\"{}\",graphdriver=\"overlay2\",kernel=\"{}\",os=\"{}\",os_type=\"linux\",version=\"{}\"}}",
        daemon.id,
        machine.kernel,
        machine.name.replace('"', ""),
        crate::VERSION
    );
    number("engine_daemon_engine_info", "gauge", "The engine and the machine that it runs on", &info, 1);
    number("engine_daemon_engine_cpus_cpus", "gauge", "The machine's CPUs", "", machine.cpus as u64);
    number(
        "engine_daemon_engine_memory_bytes",
        "gauge",
        "The machine's memory, in bytes",
        "",
        machine.memory,
    );
    let states =
        daemon.engine.all().into_iter().map(|container| container.read(|record| record.state.word()));
    let states: Vec<_> = states.collect();
    for state in ["paused", "running", "stopped"] {
        let count = states.iter().filter(|word| match **word {
            "paused" => state == "paused",
            "running" | "restarting" => state == "running",
            _ => state == "stopped",
        });
        let labels = format!("{{state=\"{state}\"}}");
        let help = "Containers by what they do";
        number("engine_daemon_container_states_containers", "gauge", help, &labels, count.count() as u64);
    }
    let (probes, failed) = daemon.engine.probes();
    number("engine_daemon_health_checks_total", "counter", "Health checks so far", "", probes);
    number(
        "engine_daemon_health_checks_failed_total",
        "counter",
        "Health checks that have failed",
        "",
        failed,
    );
    number("engine_daemon_events_total", "counter", "Events so far", "", daemon.events.count());
    number(
        "engine_daemon_events_subscribers_total",
        "gauge",
        "Those who listen to events",
        "",
        daemon.events.listeners(),
    );
    number("process_open_fds", "gauge", "The daemon's open files", "", system::open_files());
    number(
        "process_resident_memory_bytes",
        "gauge",
        "The daemon's memory, in bytes",
        "",
        system::resident_memory(),
    );
    text
}

/// Answers `GET /metrics`, and nothing else.
pub async fn serve(listener: TcpListener, daemon: Arc<Daemon>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, Arc::clone(&daemon)))),
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
    if tokio::time::timeout(std::time::Duration::from_secs(10), head).await.is_err() {
        return;
    }
    let wanted = request.starts_with(b"GET /metrics ") || request.starts_with(b"GET /metrics?");
    let (status, body) =
        if wanted { ("200 OK", text(&daemon)) } else { ("404 Not Found", "404 page not found\n".to_owned()) };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

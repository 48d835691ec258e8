//! One probe of a container's health: a process in it, or a question over HTTP or TCP to its address, without a process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ketch_engine_api::container::HealthConfig;
use ketch_engine_api::exec::ExecConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::container::Container;
use super::{exec, signal};
use crate::blocking::blocking;
use crate::daemon::Daemon;

/// `GET :8080/healthz`.
const HTTP_LABEL: &str = "ketch.health.http";
/// `:5432`.
const TCP_LABEL: &str = "ketch.health.tcp";
/// What is kept of a probe's output, as Docker does.
const KEPT: usize = 4096;

/// What is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process in the container.
    Process(Vec<String>),
    /// A request; a status below 400 is well.
    Http { method: String, port: u16, path: String },
    /// A connection.
    Tcp(u16),
}

/// What came of a probe. Docker's codes: 0 is well, -1 did not come to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of the process.
    pub exit_code: i64,
    /// The beginning of what it said.
    pub output: String,
}

impl Kind {
    /// What a container's config and labels ask for; the config wins. `shell` is the image's own, if it has one.
    #[must_use]
    pub fn of(
        config: Option<&HealthConfig>,
        labels: &BTreeMap<String, String>,
        shell: &[String],
    ) -> Option<Self> {
        let test = config.and_then(|config| config.test.as_deref()).unwrap_or_default();
        match test {
            [first, ..] if first == "NONE" => return None,
            [first, words @ ..] if first == "CMD" => return Some(Self::Process(words.to_vec())),
            [first, words @ ..] if first == "CMD-SHELL" => {
                let mut all = shell.to_vec();
                if all.is_empty() {
                    all.extend(["/bin/sh", "-c"].map(str::to_owned));
                }
                all.extend(words.iter().cloned());
                return Some(Self::Process(all));
            }
            _ => {}
        }
        if let Some(text) = labels.get(HTTP_LABEL) {
            let (method, rest) = text.split_once(' ').unwrap_or(("GET", text));
            let (port, path) = rest.strip_prefix(':')?.split_once('/').unwrap_or((&rest[1..], ""));
            let method = method.to_owned();
            return Some(Self::Http { method, port: port.parse().ok()?, path: format!("/{path}") });
        }
        let text = labels.get(TCP_LABEL)?;
        Some(Self::Tcp(text.strip_prefix(':')?.parse().ok()?))
    }
}

/// Runs one.
pub(super) async fn run(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    kind: &Kind,
    timeout: Duration,
) -> Outcome {
    match kind {
        Kind::Process(words) => process(daemon, container, words, timeout).await,
        Kind::Http { .. } | Kind::Tcp(_) => {
            match tokio::time::timeout(timeout, ask(daemon, container, kind)).await {
                Ok(Ok(output)) => Outcome { exit_code: 0, output },
                Ok(Err(error)) => Outcome { exit_code: 1, output: error.to_string() },
                Err(_) => too_long(timeout),
            }
        }
    }
}

fn too_long(timeout: Duration) -> Outcome {
    Outcome { exit_code: -1, output: format!("Health check exceeded timeout ({})", words(timeout)) }
}

/// A duration as Go writes it.
fn words(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) if seconds >= 60 => format!("{}m{}s", seconds / 60, seconds % 60),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0')),
    }
}

async fn process(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    words: &[String],
    timeout: Duration,
) -> Outcome {
    let config = ExecConfig {
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(words.to_vec()),
        ..ExecConfig::default()
    };
    let failed = |error: crate::error::Error| Outcome { exit_code: -1, output: error.message };
    let made = match exec::create(daemon, container, &container.id, config)
        .await
        .and_then(|id| exec::find(daemon, &id))
    {
        Ok(made) => made,
        Err(error) => return failed(error),
    };
    let mut output = made.streams.listen();
    // In a task of its own: probes may end at any moment, and a start must not stop half way.
    let mut starting = {
        let (daemon, made) = (Arc::clone(daemon), Arc::clone(&made));
        tokio::spawn(async move { exec::start(&daemon, &made, None).await })
    };
    let mut text = Vec::new();
    let mut ended = made.ended.subscribe();
    let running = async {
        match (&mut starting).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.message),
            Err(error) => return Err(error.to_string()),
        }
        while let Some((_, bytes)) = output.recv().await {
            if text.len() <= KEPT {
                text.extend_from_slice(&bytes);
            }
        }
        let _told = ended.wait_for(|ended| *ended).await;
        Ok(())
    };
    let ran = tokio::time::timeout(timeout, running).await;
    if ran.is_ok() {
        // Nobody looks at it, and there is another soon.
        let _made = daemon.engine.execs().remove(&made.id);
    }
    match ran {
        Ok(Ok(())) => Outcome { exit_code: made.exit_code().unwrap_or(-1), output: kept(&text) },
        Ok(Err(output)) => Outcome { exit_code: -1, output },
        Err(_) => {
            // One that has not come to its start yet does so first: probes do not pile up.
            if !starting.is_finished() {
                let _started = starting.await;
            }
            if let Ok(task) = signal::running(container) {
                let _ended = task.kill(&made.id, 9, true).await;
            }
            too_long(timeout)
        }
    }
}

fn kept(text: &[u8]) -> String {
    match text.get(..KEPT) {
        Some(first) if text.len() > KEPT => format!("{}...", String::from_utf8_lossy(first)),
        _ => String::from_utf8_lossy(text).into_owned(),
    }
}

/// The container's address, as the daemon reaches it.
fn address(daemon: &Daemon, container: &Container) -> Option<String> {
    let record = container.read(super::Record::clone);
    if record.host_config.network_mode == "host" {
        return Some("127.0.0.1".to_owned());
    }
    let shown = super::networking::shown(daemon, &record);
    let networks = shown.get("Networks")?.as_object()?;
    let addresses = networks.values().filter_map(|one| one.get("IPAddress").and_then(Value::as_str));
    addresses.filter(|address| !address.is_empty()).map(str::to_owned).next()
}

async fn ask(daemon: &Daemon, container: &Container, kind: &Kind) -> std::io::Result<String> {
    let address = address(daemon, container)
        .ok_or_else(|| std::io::Error::other("the container has no address that the daemon can reach"))?;
    let (Kind::Http { port, .. } | Kind::Tcp(port)) = kind else { return Ok(String::new()) };
    let mut stream = connect(daemon, container, (address.as_str(), *port)).await?;
    let Kind::Http { method, path, .. } = kind else { return Ok(String::new()) };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: ketchd\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _count = stream.take(64 << 10).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let line = text.lines().next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    match status {
        Some(200..400) => Ok(kept(text.as_bytes())),
        Some(_) => Err(std::io::Error::other(line.to_owned())),
        None => Err(std::io::Error::other("the answer is no HTTP")),
    }
}

/// From inside of the container's network: by its own address it is reached there whatever its service lets in (`ketch.allow`), and
/// in networks that the node itself is not in.
async fn connect(daemon: &Daemon, container: &Container, to: (&str, u16)) -> std::io::Result<TcpStream> {
    let Ok(address) = to.0.parse::<IpAddr>() else { return TcpStream::connect(to).await };
    let (networks, id) = (daemon.networks.clone(), container.id.clone());
    let socket = blocking(move || networks.socket_in(&id, address)).await;
    match socket.map_err(|error| std::io::Error::other(error.message))? {
        Some(socket) => {
            let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
            socket.connect((address, to.1).into()).await
        }
        None => TcpStream::connect(to).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_and_labels() {
        let of = |test: &[&str], labels: &[(&str, &str)]| {
            let test = test.iter().map(|&word| word.to_owned()).collect();
            let config = HealthConfig { test: Some(test), ..HealthConfig::default() };
            let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
            Kind::of(Some(&config), &labels, &[])
        };
        assert_eq!(of(&["CMD", "true"], &[]), Some(Kind::Process(vec!["true".into()])));
        let Some(Kind::Process(words)) = of(&["CMD-SHELL", "a b"], &[]) else { panic!("a process") };
        assert_eq!(words, ["/bin/sh", "-c", "a b"]);
        let config =
            HealthConfig { test: Some(vec!["CMD-SHELL".into(), "a b".into()]), ..HealthConfig::default() };
        let own = Kind::of(Some(&config), &BTreeMap::new(), &["/bin/ash".to_owned(), "-ec".to_owned()]);
        assert_eq!(own, Some(Kind::Process(["/bin/ash", "-ec", "a b"].map(str::to_owned).to_vec())));
        assert_eq!(of(&["NONE"], &[(TCP_LABEL, ":5")]), None);
        let http = Kind::Http { method: "GET".into(), port: 8080, path: "/healthz".into() };
        assert_eq!(of(&[], &[(HTTP_LABEL, "GET :8080/healthz")]), Some(http));
        assert_eq!(of(&[], &[(TCP_LABEL, ":5432")]), Some(Kind::Tcp(5432)));
        assert_eq!(of(&[], &[(TCP_LABEL, "nope")]), None);
    }

    #[test]
    fn output_is_cut_and_times_are_gos() {
        assert_eq!(kept(&[b'x'; 5000]).len(), KEPT + 3);
        assert_eq!(words(Duration::from_millis(1500)), "1.5s");
        assert_eq!(words(Duration::from_millis(20)), "20ms");
        assert_eq!(words(Duration::from_secs(90)), "1m30s");
    }
}

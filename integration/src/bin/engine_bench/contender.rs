//! An engine that takes part, and the calls that it is measured by.

use std::cell::RefCell;
use std::path::Path;

use ketch_integration::ketchd::{Engine, Http, Maker};
use ketch_integration::{Case, Site};
use serde_json::{Value, json};

/// A running engine with busybox loaded, and a connection that is kept.
#[derive(Debug)]
pub(crate) struct Contender<'a> {
    pub key: &'static str,
    pub engine: Engine<'a>,
    http: RefCell<Http>,
}

/// A call that has to succeed.
///
/// # Panics
/// When it does not.
pub(crate) fn call(http: &mut Http, method: &str, path: &str, body: &Value) -> Value {
    let (kind, text): (&[&str], String) = match body {
        Value::Null => (&[], String::new()),
        body => (&["Content-Type: application/json"], body.to_string()),
    };
    let answer = http.call(method, path, kind, &text);
    assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
    serde_json::from_str(&answer.body).unwrap_or_default()
}

/// What is asked for to make a container.
pub(crate) fn body(network: &str, command: &[&str], more: &Value) -> Value {
    let mut body = json!({ "Image": "busybox", "Cmd": command, "HostConfig": { "NetworkMode": network } });
    for (key, value) in more.as_object().into_iter().flatten() {
        match (body.get_mut(key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => into.extend(from.clone()),
            _ => body[key] = value.clone(),
        }
    }
    body
}

/// Makes a container and starts it.
pub(crate) fn start(http: &mut Http, body: &Value) -> String {
    let made = call(http, "POST", "/containers/create", body);
    let id = made["Id"].as_str().expect("an id").to_owned();
    let _none = call(http, "POST", &format!("/containers/{id}/start"), &Value::Null);
    id
}

impl<'a> Contender<'a> {
    /// Starts the engine. What is in /run on any machine is on a tmpfs; its data on the disk, unless DISK=tmpfs.
    pub(crate) fn start(key: &'static str, maker: &Maker, case: &'a Case) -> Self {
        let site = Site::new(case);
        let on_disk = std::env::var("DISK").is_ok_and(|disk| disk == "tmpfs");
        let folders: &[&str] = if on_disk {
            &["exec", "containerd-state", "data", "containerd-root"]
        } else {
            &["exec", "containerd-state"]
        };
        for folder in folders {
            std::fs::create_dir_all(site.path(folder)).expect("make a folder");
            drop(site.command("mount").args(["-t", "tmpfs", "bench"]).arg(site.path(folder)).run().ok());
        }
        // An address of the host that is not loopback, which dockerd has a proxy for.
        drop(site.run("ip", ["address", "add", super::network::HOST, "dev", "lo"]).ok());
        // The default of ketchd; what it is until the API serves again is measured with containers that run on.
        let engine = Engine::inside(site, maker.clone(), &["--live-restore"]);
        engine.load_busybox();
        let http = RefCell::new(engine.http());
        Self { key, engine, http }
    }

    /// A call on the kept connection.
    pub(crate) fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        call(&mut self.http.borrow_mut(), method, path, body)
    }

    /// A started container.
    pub(crate) fn started(&self, body: &Value) -> String {
        start(&mut self.http.borrow_mut(), body)
    }

    /// A new connection in place of the kept one.
    pub(crate) fn reconnect(&self) {
        *self.http.borrow_mut() = self.engine.http();
    }

    /// Takes a container away, whatever it does.
    pub(crate) fn remove(&self, id: &str) {
        let _none = self.call("DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null);
    }

    /// Takes all containers away, several at once.
    pub(crate) fn remove_all(&self) {
        let all = self.call("GET", "/containers/json?all=1", &Value::Null);
        let ids: Vec<&str> =
            all.as_array().into_iter().flatten().filter_map(|one| one["Id"].as_str()).collect();
        let socket = self.engine.socket();
        std::thread::scope(|scope| {
            for part in ids.chunks(ids.len().div_ceil(8).max(1)) {
                let socket = &socket;
                let _thread = scope.spawn(move || {
                    let mut http = Http::at(socket).expect("connect");
                    for id in part {
                        let _none =
                            call(&mut http, "DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null);
                    }
                });
            }
        });
    }

    /// The processes of the engine itself: dockerd has its containerd.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = vec![self.engine.pid()];
        pids.extend(self.engine.site.processes("containerd.toml"));
        pids
    }

    /// A program's number, which it prints; run in the network namespace of a process.
    pub(crate) fn client(&self, of: i32, arguments: &[&str]) -> f64 {
        let this = std::env::current_exe().expect("find this program");
        let case = self.engine.site.case;
        let enter = case.program("nsenter").args(["--target", &of.to_string(), "--net", "--"]);
        enter.arg(&this).arg("client").args(arguments).run().ok().text().parse().expect("a number")
    }

    /// Takes everything down.
    pub(crate) fn end(self) {
        self.remove_all();
        drop(self.http);
        let mut engine = self.engine;
        engine.stop();
    }
}

/// User and system time of processes, in seconds.
pub(crate) fn cpu(pids: &[i32]) -> f64 {
    pids.iter()
        .map(|pid| {
            let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
            let stat = stat.expect("read stat");
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            // USER_HZ, which is 100 on every Linux of this architecture.
            fields[11..13].iter().map(|field| field.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
        })
        .sum()
}

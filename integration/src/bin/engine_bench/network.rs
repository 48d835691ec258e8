//! Published ports and names.

use serde_json::{Value, json};

use super::Extent;
use super::contender::{Contender, body, cpu};
use super::samples::Samples;

/// The host's address that ports are reached at.
pub(crate) const HOST: &str = "198.51.100.1/32";
const PORT: &str = "18080";
/// Connections of one sample. All samples' must fit into the ports that a client has for one address, each of which rests for a
/// minute after use.
const CONNECTIONS: &str = "1200";
/// Samples of each kind, in turns: between engines there is less to be told than between two samples of one.
const TURNS: usize = 20;

/// A server behind a published port, and one that asks for another's name.
pub(crate) fn measure(contenders: &mut [Contender<'_>], extent: Extent, samples: &mut Samples) {
    let this = std::env::current_exe().expect("find this program");
    let mut askers = Vec::new();
    // The server has the last CPU, and its client the first: where the scheduler puts them is most of the difference of samples.
    let last = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1).to_string();
    for one in contenders.iter() {
        let more = json!({
            "ExposedPorts": { "8080/tcp": {} },
            "HostConfig": {
                "PortBindings": { "8080/tcp": [{ "HostPort": PORT }] },
                "CpusetCpus": last,
                "Binds": [format!("{}:/serve:ro", this.display())],
            },
        });
        let server = one.started(&body("bridge", &["/serve", "client", "serve"], &more));
        let _made = one.call("POST", "/networks/create", &json!({ "Name": "names" }));
        let sleep = ["/bin/sleep", "1000000"];
        let named =
            json!({ "NetworkingConfig": { "EndpointsConfig": { "names": { "Aliases": ["target"] } } } });
        let target = one.started(&body("names", &sleep, &named));
        let asker = one.started(&body("names", &sleep, &Value::Null));
        let seen = one.call("GET", &format!("/containers/{asker}/json"), &Value::Null);
        let pid = i32::try_from(seen["State"]["Pid"].as_i64().expect("a pid")).expect("a small number");
        askers.push((pid, [server, target, asker]));
    }
    let host = HOST.trim_end_matches("/32");
    let address = format!("{host}:{PORT}");
    let seconds = "1";
    let turns = if extent.quick { TURNS / 5 } else { TURNS };
    for turn in 0..turns {
        for offset in 0..contenders.len() {
            let at = (turn + offset) % contenders.len();
            let (one, (asker, _)) = (&contenders[at], &askers[at]);
            let value = one.client(None, &["throughput", &address, seconds]);
            samples.keep("published port, GiB a second", one.key, value);
            let value = one.client(None, &["connections", &address, CONNECTIONS]);
            samples.keep("published port, new connections a second", one.key, value);
            let pids = [one.engine.pid()];
            let before = cpu(&pids);
            let value = one.client(Some(*asker), &["names", "127.0.0.11:53", "target", seconds]);
            let used = cpu(&pids) - before;
            samples.keep("names answered a second", one.key, value);
            samples.keep("names answered for each second of the engine's CPU", one.key, value / used);
        }
    }
    for (one, (_, ids)) in contenders.iter().zip(&askers) {
        ids.iter().for_each(|id| one.remove(id));
        let _gone = one.call("DELETE", "/networks/names", &Value::Null);
    }
}

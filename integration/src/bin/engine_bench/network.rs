//! Published ports and names.

use serde_json::{Value, json};

use super::Extent;
use super::contender::{Contender, body, cpu};
use super::samples::Samples;

/// The host's address that ports are reached at.
pub(crate) const HOST: &str = "198.51.100.1/32";
const PORT: &str = "18080";

/// A server behind a published port, and one that asks for another's name.
pub(crate) fn measure(contenders: &mut [Contender<'_>], extent: Extent, samples: &mut Samples) {
    let this = std::env::current_exe().expect("find this program");
    let mut askers = Vec::new();
    for one in contenders.iter() {
        let more = json!({
            "ExposedPorts": { "8080/tcp": {} },
            "HostConfig": {
                "PortBindings": { "8080/tcp": [{ "HostPort": PORT }] },
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
    let seconds = if extent.quick { "1" } else { "3" };
    for _ in 0..extent.heavy.max(2) * 2 {
        for (one, (asker, _)) in contenders.iter().zip(&askers) {
            let value = one.client(None, &["throughput", &address, seconds]);
            samples.keep("published port, GiB a second", one.key, value);
            let value = one.client(None, &["connections", &address, "3000"]);
            samples.keep("published port, new connections a second", one.key, value);
            let pids = [one.engine.pid()];
            let before = cpu(&pids);
            let value = one.client(Some(*asker), &["names", "127.0.0.11:53", "target", seconds]);
            let used = cpu(&pids) - before;
            samples.keep("names answered a second", one.key, value);
            let asked = value * seconds.parse::<f64>().unwrap_or(1.0);
            samples.keep("names answered for each second of the engine's CPU", one.key, asked / used);
        }
    }
    for (one, (_, ids)) in contenders.iter().zip(&askers) {
        ids.iter().for_each(|id| one.remove(id));
        let _gone = one.call("DELETE", "/networks/names", &Value::Null);
    }
}

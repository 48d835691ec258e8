//! Published ports and names.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::contender::{Contender, body, cpu};
use super::samples::Samples;
use super::{Extent, client};

/// The host's address that ports are reached at.
pub(crate) const HOST: &str = "198.51.100.1/32";
const PORT: &str = "18080";
/// Turns of all kinds.
const TURNS: usize = 20;
/// Connections of one sample, and samples of each engine in a turn. All must fit into the ports that a client has for one address,
/// each of which rests for a minute after use.
const CONNECTIONS: [&str; 2] = ["30", "20"];
/// Milliseconds of one sample of throughput, and samples of each engine in a turn.
const THROUGHPUT: [&str; 2] = ["200", "8"];

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
        let _group = put_first(one);
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
        for (what, [much, times], kept) in [
            ("throughput", THROUGHPUT, "published port, GiB a second"),
            ("connections", CONNECTIONS, "published port, new connections a second"),
        ] {
            for taken in by_turns(contenders, &address, &[what, much, times]) {
                contenders.iter().zip(taken).for_each(|(one, value)| samples.keep(kept, one.key, value));
            }
        }
        for offset in 0..contenders.len() {
            let at = (turn + offset) % contenders.len();
            let (one, (asker, _)) = (&contenders[at], &askers[at]);
            let pids = [one.engine.pid()];
            let before = cpu(&pids);
            let value = one.client(*asker, &["names", "127.0.0.11:53", "target", seconds]);
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

/// Other work on the machine yields to this one's containers: v1's files, and v2's. Gives the folder of its cgroup.
fn put_first(one: &Contender<'_>) -> PathBuf {
    let groups = [("cpu", "cpu.shares", "262144"), ("", "cpu.weight", "10000")];
    let mut put = groups.into_iter().filter_map(|(tree, file, most)| {
        let folder = Path::new("/sys/fs/cgroup").join(tree).join(&one.engine.site.case.tag);
        fs::write(folder.join(file), most).is_ok().then_some(folder)
    });
    put.next().expect("a cgroup with a share of the CPU")
}

/// What a client's samples are, turn by turn, in the order of the contenders. It goes from one's network namespace to the next's,
/// has the first CPU, and other work yields to it as to the servers.
fn by_turns(contenders: &[Contender<'_>], address: &str, arguments: &[&str]) -> Vec<Vec<f64>> {
    let Some(first) = contenders.first() else { return Vec::new() };
    let this = std::env::current_exe().expect("find this program");
    let group = put_first(first).join("client");
    fs::create_dir_all(&group).expect("make the client's cgroup");
    let inside = ["-c", "echo $$ >$0/cgroup.procs && exec taskset --cpu-list 0 \"$@\""];
    let client = first.engine.site.case.program("sh").args(inside).arg(group).arg(this).arg("client");
    let networks = contenders.iter().map(|one| one.engine.site.network());
    let targets = networks.map(|path| client::target(address, &path));
    let out = client.args(arguments).args(targets).run().ok();
    let line = |line: &str| line.split(' ').map(|number| number.parse().expect("a number")).collect();
    out.text().lines().map(line).collect()
}

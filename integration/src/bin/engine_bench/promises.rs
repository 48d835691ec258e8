//! The promises: what, the bound, what was measured; printed, and written where they are shown.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use super::samples::Samples;
use super::{OURS, PEER, mesh, pull, scale};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench");

#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// It is only told.
    None,
}

pub(crate) struct Promise {
    pub(crate) what: &'static str,
    pub(crate) bound: Bound,
    pub(crate) measured: Option<f64>,
}

/// The promises of one bench.
pub(crate) struct Promises {
    /// Of its file, and of the marks around its rows.
    name: &'static str,
    command: &'static str,
    all: Vec<Promise>,
}

impl Promise {
    fn bound(&self) -> String {
        match self.bound {
            Bound::AtMost(bound) => format!("at most {bound}"),
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::None => "-".to_owned(),
        }
    }

    fn shown(&self) -> String {
        self.measured.map_or_else(
            || "-".to_owned(),
            |value| if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") },
        )
    }

    fn verdict(&self) -> &'static str {
        match (self.measured, self.bound) {
            (None, _) => "not measured",
            (Some(_), Bound::None) => "told",
            (Some(value), Bound::AtMost(bound)) if value <= bound => "met",
            (Some(value), Bound::AtLeast(bound)) if value >= bound => "met",
            _ => "NOT MET",
        }
    }
}

/// Of one engine.
pub(crate) fn engine(samples: &Samples) -> Promises {
    let ours = |case: &str| samples.of(case, OURS);
    let over = |case: &str, other: &str| Some(samples.of(case, OURS)? / samples.of(case, other)?);
    let mut all = Vec::new();
    let mut promise = |what, bound, measured| all.push(Promise { what, bound, measured });
    let most = Bound::AtMost;
    promise("run with the default bridge, over dockerd", most(0.25), over("run, ms", PEER));
    promise("run with `--network none`, over dockerd", most(0.2), over("run --network none, ms", PEER));
    promise("exec, over dockerd", most(0.35), over("exec, ms", PEER));
    let burst = "100 created and started, 16 at once, ms";
    promise("100 created and started, 16 at once, over dockerd", most(0.2), over(burst, PEER));
    let rate = "30 starts a second for 60 s: started within 1 s, of all";
    promise(
        "30 starts a second for 60 s with veth, NAT and DNS: started within 1 s of when they were due, of all",
        Bound::AtLeast(1.0),
        ours(rate),
    );
    promise(
        "the same: containers that failed or found no name",
        most(0.0),
        ours("  failed, or found no name").filter(|_| ours(rate).is_some()),
    );
    promise("idle memory, PSS, MiB", most(20.0), ours("memory when idle, PSS, MiB"));
    promise(
        "memory with 200 running containers, shims apart, PSS, MiB",
        most(60.0),
        ours("memory with 200 running, PSS, MiB"),
    );
    for (packed, [docker, skopeo, again]) in pull::PACKED.iter().zip([
        [
            "pull of 1 GiB in ten gzip layers, over dockerd",
            "pull of 1 GiB in ten gzip layers, over `skopeo copy` and untar",
            "second pull of the same, gzip, ms",
        ],
        [
            "pull of 1 GiB in ten zstd layers, over dockerd",
            "pull of 1 GiB in ten zstd layers, over `skopeo copy` and untar",
            "second pull of the same, zstd, ms",
        ],
    ]) {
        let case = format!("pull of 1 GiB in ten layers, {packed}, s");
        promise(docker, most(0.5), over(&case, PEER));
        promise(skopeo, most(0.5), over(&case, pull::SKOPEO));
        promise(again, most(50.0), ours(&format!("  the same again, {packed}, ms")));
    }
    let least = Bound::AtLeast(1.0);
    let in_turns = |case: &str| samples.by_turns(case, OURS, PEER);
    promise("published port, throughput, over dockerd", least, in_turns("published port, GiB a second"));
    promise(
        "published port, new connections a second, over dockerd",
        least,
        in_turns("published port, new connections a second"),
    );
    promise(
        "names answered a second, for each second of ketchd's CPU",
        Bound::AtLeast(20000.0),
        ours("names answered for each second of the engine's CPU"),
    );
    promise(
        "`GET /containers/json?all=1` of 1,000 containers, ms",
        most(50.0),
        ours("list of 1000 containers, 200 of them running, ms"),
    );
    promise(
        "the agent's return with 200 running containers, until the API serves, ms",
        most(1000.0),
        ours("return with 200 running, until the API serves, ms"),
    );
    Promises { name: "ketchd", command: "make bench-ketchd", all }
}

/// Of a cluster.
pub(crate) fn mesh(samples: &Samples) -> Promises {
    Promises { name: "mesh", command: "make bench-mesh", all: mesh::promises(samples) }
}

/// Of a large cluster.
pub(crate) fn scale(samples: &Samples) -> Promises {
    Promises { name: "scale", command: "make bench-scale", all: scale::promises(samples) }
}

fn rows(all: &[Promise], taken: &str) -> String {
    let mut text = format!("{taken}\n\n| promise | bound | measured | |\n|---|---|---|---|\n");
    for one in all {
        let _ = writeln!(text, "| {} | {} | {} | {} |", one.what, one.bound(), one.shown(), one.verdict());
    }
    text
}

impl Promises {
    /// Prints them. A run of everything, as it is without knobs, is written down.
    pub(crate) fn tell(&self, samples: &Samples, plain: bool) {
        let whole = plain && self.all.iter().all(|one| one.measured.is_some());
        println!();
        for one in &self.all {
            println!("{:<100} {:>14} {:>9}  {}", one.what, one.bound(), one.shown(), one.verdict());
        }
        let mut value = samples.json();
        value["promises"] = self
            .all
            .iter()
            .map(|one| json!({ "promise": one.what, "bound": one.bound(), "measured": one.shown(), "verdict": one.verdict() }))
            .collect();
        let default = if whole { format!("{FOLDER}/{}.json", self.name) } else { String::new() };
        let path = std::env::var("RESULTS").ok().filter(|path| !path.is_empty()).unwrap_or(default);
        if path.is_empty() {
            println!("\nnot a whole run: written nowhere");
            return;
        }
        let text = serde_json::to_string_pretty(&value).expect("write JSON");
        fs::write(&path, format!("{text}\n")).expect("write the results");
        println!("\nwritten: {path}");
        if whole {
            self.refresh(&rows(&self.all, &self.taken(&value)));
        }
    }

    /// When, where and how they were measured.
    fn taken(&self, value: &Value) -> String {
        let fact = |name: &str| value[name].to_string().trim_matches('"').to_owned();
        format!(
            "Measured {} on {} CPUs, kernel {}, {} and {} rounds, load {} to {}, a synced write {} ms; `{}`.",
            today(),
            fact("cpus"),
            fact("kernel"),
            fact("rounds"),
            fact("heavy_rounds"),
            fact("load_before"),
            fact("load_after"),
            fact("fsync_ms"),
            self.command,
        )
    }

    /// Puts the rows between the two marks of the bench's README.md and of the repository's.
    fn refresh(&self, rows: &str) {
        let begin = format!("<!-- {} promises -->", self.name);
        let end = format!("<!-- end of {} promises -->", self.name);
        for path in [format!("{FOLDER}/README.md"), format!("{FOLDER}/../../README.md")] {
            let text = fs::read_to_string(&path).expect("read README.md");
            let (head, rest) = text.split_once(&begin).expect("the mark of the promises");
            let (_, tail) = rest.split_once(&end).expect("the end of the promises");
            fs::write(&path, format!("{head}{begin}\n{rows}{end}{tail}")).expect("write README.md");
        }
    }
}

fn today() -> String {
    let out = std::process::Command::new("date").arg("+%F").output();
    out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default()
}

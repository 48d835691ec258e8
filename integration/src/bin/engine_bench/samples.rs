//! What was measured: numbers by case and contender, and what is to be known of the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::Extent;

/// All samples, in the order of the cases.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    order: Vec<String>,
    taken: BTreeMap<(String, String), Vec<f64>>,
    pub facts: Map<String, Value>,
}

/// The middle one.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Since then.
pub(crate) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

impl Samples {
    /// Keeps one.
    pub(crate) fn keep(&mut self, case: &str, key: &str, value: f64) {
        if !self.order.iter().any(|known| known == case) {
            self.order.push(case.to_owned());
        }
        self.taken.entry((case.to_owned(), key.to_owned())).or_default().push(value);
    }

    /// The median of a case, if there is any.
    pub(crate) fn of(&self, case: &str, key: &str) -> Option<f64> {
        self.taken.get(&(case.to_owned(), key.to_owned())).map(|all| median(all))
    }

    /// The largest of a case, if there is any.
    pub(crate) fn worst(&self, case: &str, key: &str) -> Option<f64> {
        self.taken.get(&(case.to_owned(), key.to_owned()))?.iter().copied().max_by(f64::total_cmp)
    }

    /// How much more one has than the other: the middle one of the ratios of each two neighbouring turns, in which each was first
    /// once. What the machine does in the course of a run does not touch it, nor who comes first.
    pub(crate) fn by_turns(&self, case: &str, key: &str, other: &str) -> Option<f64> {
        let taken = |key: &str| self.taken.get(&(case.to_owned(), key.to_owned()));
        let sums = |all: &[f64]| all.chunks(2).map(|two| two.iter().sum::<f64>()).collect::<Vec<_>>();
        let (ours, others) = (sums(taken(key)?), sums(taken(other)?));
        let ratios: Vec<f64> = ours.iter().zip(others).map(|(one, other)| one / other).collect();
        Some(median(&ratios))
    }

    /// Notes what the machine is like, and what syncing a file costs on the disk that the engines use.
    pub(crate) fn facts(&mut self, extent: Extent) {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.note("kernel", json!(read("/proc/sys/kernel/osrelease")));
        self.note("cpus", json!(cpus));
        self.note("rounds", json!(extent.rounds));
        self.note("heavy_rounds", json!(extent.heavy));
        self.note("fsync_ms", json!(fsync()));
        self.load("load_before");
    }

    /// Notes the load now.
    pub(crate) fn load(&mut self, name: &str) {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        self.note(name, json!(load.split(' ').next().unwrap_or_default()));
    }

    /// Notes a fact.
    pub(crate) fn note(&mut self, name: &str, value: Value) {
        let _before = self.facts.insert(name.to_owned(), value);
    }

    fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.taken.keys().map(|(_, key)| key.as_str()).collect();
        keys.sort_by_key(|key| (*key != super::OURS, (*key).to_owned()));
        keys.dedup();
        keys
    }

    /// Medians, a line for each case, and the ratio of ours to the peer's.
    pub(crate) fn table(&self) -> String {
        let keys = self.keys();
        let mut text = format!("{:<58}", "medians");
        keys.iter().for_each(|key| write!(text, "{key:>12}").expect("a string grows"));
        text.push_str("       ratio");
        for case in &self.order {
            let _ = write!(text, "\n{case:<58}");
            for key in &keys {
                match self.of(case, key) {
                    Some(value) => write!(text, "{value:>12.2}").expect("a string grows"),
                    None => text.push_str("           -"),
                }
            }
            if let (Some(ours), Some(peers)) = (self.of(case, super::OURS), self.of(case, super::PEER)) {
                let _ = write!(text, "{:>12.2}", ours / peers);
            }
        }
        text
    }

    /// Goes on with what an earlier part of the run has taken.
    pub(crate) fn take_up(&mut self, text: &str) {
        let before: Vec<(String, String, Vec<f64>)> =
            serde_json::from_str(text).expect("an earlier part's samples");
        for (case, key, taken) in before {
            taken.into_iter().for_each(|value| self.keep(&case, &key, value));
        }
    }

    /// Each sample, for a later part of the run.
    pub(crate) fn whole(&self) -> String {
        let of = |case: &String| {
            let taken = self.taken.iter().filter(move |((one, _), _)| one == case);
            taken.map(|((case, key), taken)| (case.clone(), key.clone(), taken.clone())).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.order.iter().flat_map(of).collect();
        serde_json::to_string(&all).expect("write JSON")
    }

    /// All of it, for the file.
    pub(crate) fn json(&self) -> Value {
        let mut cases = Vec::new();
        for case in &self.order {
            for key in self.keys() {
                let Some(taken) = self.taken.get(&(case.clone(), key.to_owned())) else { continue };
                let mut sorted = taken.clone();
                sorted.sort_by(f64::total_cmp);
                let at = |part: usize| round(sorted[(sorted.len() - 1) * part / 10]);
                cases.push(json!({
                    "case": case, "engine": key, "n": sorted.len(),
                    "median": round(median(&sorted)), "p10": at(1), "p90": at(9),
                }));
            }
        }
        let mut all = self.facts.clone();
        let _none = all.insert("cases".to_owned(), cases.into());
        all.into()
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The median of thirty appended and synced pages.
fn fsync() -> f64 {
    let path = std::path::Path::new("/tmp/ketch-integration").join(format!("fsync-{}", std::process::id()));
    fs::create_dir_all("/tmp/ketch-integration").expect("make the folder");
    let mut file = fs::File::create(&path).expect("make a file");
    let taken: Vec<f64> = (0..30)
        .map(|_| {
            file.write_all(&[0; 4096]).expect("write");
            let since = Instant::now();
            file.sync_data().expect("sync");
            milliseconds(since)
        })
        .collect();
    fs::remove_file(path).expect("remove the file");
    round(median(&taken))
}

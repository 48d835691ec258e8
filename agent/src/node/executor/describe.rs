//! What this node is made of, as managers are told it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ketch_cluster::objects::node::{EngineDescription, NodeDescription, Platform};
use ketch_cluster::objects::{GenericResource, Labels, Resources};

use crate::blocking::blocking;
use crate::daemon::Daemon;
use crate::error::Result;
use crate::system::{self, Machine};
use crate::{logs, network, volume};
use ketch_node::executor::DataPath;
use tracing::warn;

const NETWORKS: [&str; 6] = ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"];

/// The node now.
///
/// # Errors
/// The machine can't be looked at.
pub(super) async fn describe(daemon: &Arc<Daemon>, path: Option<DataPath>) -> Result<NodeDescription> {
    // Files of /proc and /etc.
    let networks = daemon.networks.clone();
    let (machine, encryption, worn_key) =
        blocking(move || Ok((system::machine(), network::can_encrypt(), networks.worn_key()))).await?;
    // All else is known: a node that says nothing of itself gets no tasks.
    let worn_key = worn_key.unwrap_or_else(|error| {
        warn!("how far the data key is used up: {error}");
        None
    });
    let Machine { hostname, architecture, cpus, memory, .. } = machine;
    Ok(NodeDescription {
        hostname,
        platform: Platform { architecture, os: "linux".to_owned() },
        resources: Resources {
            nano_cpus: cpus as u64 * 1_000_000_000,
            memory_bytes: memory,
            generic: generic(&daemon.config.generic_resources),
        },
        engine: EngineDescription {
            version: crate::VERSION.to_owned(),
            labels: labels(&daemon.config.live().labels),
            plugins: plugins(),
        },
        data_address: path.map(|path| path.address),
        encryption,
        worn_key,
        tls: None,
    })
}

fn labels(given: &[String]) -> Labels {
    given
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn plugins() -> BTreeSet<(String, String)> {
    let of = |kind: &'static str| move |name: &str| (kind.to_owned(), name.to_owned());
    let networks = NETWORKS.into_iter().map(of("Network"));
    let logs = logs::DRIVERS.into_iter().filter(|name| *name != "none").map(of("Log"));
    networks.chain(logs).chain([("Volume".to_owned(), volume::DRIVER.to_owned())]).collect()
}

/// `kind=3` is a count, `kind=name` an instance; several in one text are parted by commas.
fn generic(given: &[String]) -> Vec<GenericResource> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut names: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let pairs = given.iter().flat_map(|text| text.split(',')).filter_map(|text| text.trim().split_once('='));
    for (kind, value) in pairs {
        match value.parse::<u64>() {
            Ok(count) => *counts.entry(kind).or_default() += count,
            Err(_) => drop(names.entry(kind).or_default().insert(value.to_owned())),
        }
    }
    let counts =
        counts.into_iter().map(|(kind, amount)| GenericResource::Count { kind: kind.to_owned(), amount });
    let names =
        names.into_iter().map(|(kind, values)| GenericResource::Named { kind: kind.to_owned(), values });
    counts.chain(names).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_resources_are_counts_or_names() {
        let given = ["gpu=one".to_owned(), "gpu=two,ssd=3".to_owned(), "nothing".to_owned()];
        let named = GenericResource::Named {
            kind: "gpu".to_owned(),
            values: ["one", "two"].map(str::to_owned).into(),
        };
        let counted = GenericResource::Count { kind: "ssd".to_owned(), amount: 3 };
        assert_eq!(generic(&given), [counted, named]);
    }

    #[test]
    fn what_the_engine_has() {
        let plugins = plugins();
        for (kind, name) in
            [("Network", "overlay"), ("Network", "host"), ("Volume", "local"), ("Log", "json-file")]
        {
            assert!(plugins.contains(&(kind.to_owned(), name.to_owned())), "{kind} {name}");
        }
        assert_eq!(
            labels(&["a=b=c".to_owned(), "d".to_owned()]),
            Labels::from([("a".to_owned(), "b=c".to_owned()), ("d".to_owned(), String::new()),])
        );
    }
}

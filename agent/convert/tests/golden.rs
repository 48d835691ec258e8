//! What is converted, against what dockerd 28.5 showed for the same: the files below `golden/`, which `record.sh` made.
//!
//! Field by field, in dockerd's order, what is missing included. What differs by intent is in `INTENDED`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests: a failure ends the test")]

mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;

use ketch_cluster::control::{Reachability, TaskCounts};
use ketch_cluster::id::NetworkId;
use ketch_cluster::objects::{Config, Network, Secret, SecretText, Service};
use ketch_cluster::store::{Snapshot, Store};
use ketch_cluster::view::{Observed, View};
use ketch_convert::node::Around;
use ketch_convert::service::Defaults;
use ketch_convert::{cluster, config, network, node, secret, service, task};
use ketch_engine_api::swarm;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// In a case whose name holds the first, at a path that holds the second: what it is, and why ketch differs.
const INTENDED: &[(&str, &str, &str)] = &[
    (
        "options of binds that dockerd forgets",
        "BindOptions",
        "dockerd drops them, and binds otherwise than asked",
    ),
    (
        "networks in the old place",
        "Networks",
        "the task's networks are the only ones; clients read both places",
    ),
    ("a body", "/Orchestration/", LEFT_OUT),
    ("a body", "/Raft/", LEFT_OUT),
    ("a body", "/Dispatcher/", LEFT_OUT),
    ("a body", "/CAConfig/", LEFT_OUT),
    ("tasks", "IPAMOptions", "of the ingress network, where nobody gave any, dockerd shows an empty driver"),
];

/// Of a cluster's update.
const LEFT_OUT: &str = "dockerd takes what is left out for zero, ticks of raft too; here it is the default";

fn read(name: &str) -> Value {
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    with_small_ids(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

/// SwarmKit draws the 25 digits of an id from 136 bits, ketch from 128: the first digit of each is made a smaller one.
fn with_small_ids(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(k, it)| (k, with_small_ids(it))).collect(),
        Value::Array(items) => items.into_iter().map(with_small_ids).collect(),
        Value::String(text) if text.len() == 25 && text.bytes().all(|it| it.is_ascii_alphanumeric()) => {
            Value::String(format!("{}{}", char::from(b'0' + text.as_bytes()[0] % 10), &text[1..]))
        }
        other => other,
    }
}

fn cases(name: &str) -> Vec<Value> {
    let Value::Array(cases) = read(name) else { panic!("{name}.json is a list") };
    assert!(!cases.is_empty());
    cases
}

fn how(case: &Value) -> &str {
    case["how"].as_str().unwrap()
}

/// As ketchd reads a body: Go takes a null for a missing value.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, it)| !it.is_null()).map(|(k, it)| (k, without_nulls(it))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn parsed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(without_nulls(value.clone())).unwrap()
}

/// Where two values differ, by path.
fn differences(path: &str, docker: &Value, ours: &Value, found: &mut Vec<(String, String)>) {
    match (docker, ours) {
        (Value::Object(docker), Value::Object(ours)) => {
            for (key, value) in docker {
                match ours.get(key) {
                    Some(our) => differences(&format!("{path}/{key}"), value, our, found),
                    None => found.push((format!("{path}/{key}"), format!("missing, dockerd: {value}"))),
                }
            }
            for (key, value) in ours.iter().filter(|(key, _)| !docker.contains_key(*key)) {
                found.push((format!("{path}/{key}"), format!("dockerd leaves it out: {value}")));
            }
            let common = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
                a.keys().filter(|key| b.contains_key(*key)).cloned().collect::<Vec<_>>()
            };
            if common(docker, ours) != common(ours, docker) {
                found.push((format!("{path}/"), "another order of fields".to_owned()));
            }
        }
        (Value::Array(docker), Value::Array(ours)) if docker.len() == ours.len() => {
            for (index, (docker, our)) in docker.iter().zip(ours).enumerate() {
                differences(&format!("{path}/{index}"), docker, our, found);
            }
        }
        _ if docker != ours => found.push((path.to_owned(), format!("{ours}, dockerd: {docker}"))),
        _ => {}
    }
}

/// Every unintended difference of every case.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn compare(&mut self, how: &str, docker: &Value, ours: &impl Serialize) {
        let ours = serde_json::from_str(&serde_json::to_string(ours).unwrap()).unwrap();
        let mut found = Vec::new();
        differences("", docker, &ours, &mut found);
        let is_intended =
            |path: &str| INTENDED.iter().any(|(case, part, _)| how.contains(case) && path.contains(part));
        let unintended = found.into_iter().filter(|(path, _)| !is_intended(path));
        self.0.extend(unintended.map(|(path, what)| format!("{how}: {path}: {what}")));
    }

    fn end(self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

/// A store with these networks.
fn store_of(networks: impl IntoIterator<Item = Network>) -> Store {
    let objects = networks.into_iter().map(Into::into).collect();
    Store::of(Snapshot { version: Default::default(), objects })
}

fn recorded_networks() -> Vec<Network> {
    cases("networks").iter().map(objects::network_of_case).collect()
}

#[test]
fn services_are_shown_as_they_were_given() {
    let (store, observed) = (store_of(recorded_networks()), Observed::default());
    let view = View::new(&store, &observed);
    let mut findings = Findings::default();
    for case in cases("services") {
        let shown: swarm::service::Service = parsed(&case["shown"]);
        // Of a rollback nobody looks at what was sent.
        let sent = if case["sent"].is_null() { &case["shown"]["Spec"] } else { &case["sent"] };
        let auth = Some(SecretText::from("e30="));
        let object = objects::service(&view, service::spec_of(&view, parsed(sent), auth).unwrap(), shown);
        findings.compare(how(&case), &case["shown"], &service::shown(&object, Defaults::LeftOut, None));
        let filled = service::shown(&object, Defaults::FilledIn, None);
        findings.compare(&format!("{}, filled in", how(&case)), &case["filled"], &filled);
        goes_round(&view, &object);
    }
    findings.end();
}

/// What is shown and sent back makes the same object.
fn goes_round(view: &View<'_>, object: &Service) {
    let text = serde_json::to_string(&service::spec_shown(&object.spec)).unwrap();
    let back = parsed(&serde_json::from_str(&text).unwrap());
    let back = service::spec_of(view, back, Some(SecretText::from("e30="))).unwrap();
    assert_eq!(back, object.spec, "{text}");
}

#[test]
fn services_in_a_list_have_their_tasks_in_numbers() {
    let case = read("tasks");
    let store = store_of(objects::networks_of_tasks(&case["shown"]));
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let mut findings = Findings::default();
    for docker in case["services"].as_array().unwrap() {
        let shown: swarm::service::Service = parsed(docker);
        let status = shown.service_status.unwrap();
        let counts = TaskCounts {
            running: status.running_tasks,
            desired: status.desired_tasks,
            completed: status.completed_tasks,
        };
        let spec = service::spec_of(&view, shown.spec.clone(), None).unwrap();
        let object = objects::service(&view, spec, shown);
        findings.compare("a list", docker, &service::shown(&object, Defaults::LeftOut, Some(counts)));
    }
    findings.end();
}

#[test]
fn tasks_are_shown_with_their_networks() {
    let case = read("tasks");
    let store = store_of(objects::networks_of_tasks(&case["shown"]));
    let observed = Observed::default();
    let view = View::new(&store, &observed);
    let mut findings = Findings::default();
    for docker in case["shown"].as_array().unwrap() {
        let object = Arc::new(objects::task(&view, parsed(docker)));
        findings.compare("tasks", docker, &task::shown(&view, &object));
    }
    findings.end();
}

#[test]
fn networks_are_listed() {
    let mut findings = Findings::default();
    for case in cases("networks") {
        let network = objects::network_of_case(&case);
        findings.compare(how(&case), &case["shown"], &network::listed(&network));
    }
    findings.end();
}

#[test]
fn secrets_are_shown_without_their_data() {
    let mut findings = Findings::default();
    for case in cases("secrets") {
        let shown: swarm::payload::Secret = parsed(&case["shown"]);
        let spec = secret::spec_of(parsed(&case["sent"])).unwrap();
        let (id, meta) = (shown.id.parse().unwrap(), objects::meta(&shown.meta));
        let object = Secret { id, meta, spec, internal: false, superseded: false };
        findings.compare(how(&case), &case["shown"], &secret::shown(&object));
    }
    findings.end();
}

#[test]
fn configs_are_shown_whole() {
    let mut findings = Findings::default();
    for case in cases("configs") {
        let shown: swarm::payload::Config = parsed(&case["shown"]);
        let spec = config::spec_of(parsed(&case["sent"])).unwrap();
        let (id, meta) = (shown.id.parse().unwrap(), objects::meta(&shown.meta));
        let object = Config { id, meta, spec, superseded: false };
        findings.compare(how(&case), &case["shown"], &config::shown(&object));
    }
    findings.end();
}

#[test]
fn nodes_are_shown() {
    let mut findings = Findings::default();
    for case in cases("nodes") {
        let shown: swarm::node::Node = parsed(&case["shown"]);
        let authority = objects::authority(&shown.description.tls_info);
        let object = objects::node(node::spec_of(parsed(&case["sent"])).unwrap(), &authority, shown);
        let around = Around {
            members: &BTreeMap::from([(object.id, Reachability::Reachable)]),
            leader: Some(object.id),
            authorities: &[authority],
        };
        findings.compare(how(&case), &case["shown"], &node::shown(&object, &around));
    }
    findings.end();
}

#[test]
fn the_cluster_is_shown() {
    let mut findings = Findings::default();
    for case in cases("swarm") {
        let shown: swarm::cluster::Swarm = parsed(&case["shown"]);
        let spec = cluster::spec_of(parsed(&case["sent"])).unwrap();
        let authorities = [objects::authority(&shown.info.tls_info)];
        let key: swarm::cluster::UnlockKey = parsed(&case["unlock_key"]);
        let object = Arc::new(objects::cluster(spec, &key, shown));
        findings.compare(how(&case), &case["shown"], &cluster::shown(&object, &authorities));
        findings.compare(how(&case), &case["unlock_key"], &cluster::unlock_key(&object));
        let (local, store) = objects::local(&parsed(&case["info"]), &object);
        let observed = Observed::default();
        let view = View::new(&store, &observed);
        let info = cluster::local_info(&local, Some((&view, &authorities)));
        findings.compare(how(&case), &case["info"], &info);
    }
    findings.end();
}

#[test]
fn a_network_that_is_gone_is_shown_by_its_id() {
    let case = read("tasks");
    let (full, empty, observed) =
        (store_of(objects::networks_of_tasks(&case["shown"])), Store::default(), Observed::default());
    let web = case["shown"].as_array().unwrap().iter().find(|task| !task["NetworksAttachments"].is_null());
    let object = Arc::new(objects::task(&View::new(&full, &observed), parsed(web.unwrap())));
    let shown = task::shown(&View::new(&empty, &observed), &object);
    let network = &shown.networks_attachments.unwrap()[0].network;
    assert_eq!(network.id.parse::<NetworkId>(), Ok(object.networks[0].network));
    assert_eq!(network.spec, swarm::network::NetworkSpec::default());
}

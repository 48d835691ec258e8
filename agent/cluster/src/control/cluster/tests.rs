//! `cluster`, one case at a time.

use super::super::tests::{commit, with_view};
use super::*;
use crate::fixture::{self, at};
use crate::id::NodeId;
use crate::objects::cluster::{CaConfig, DispatcherConfig, JoinTokens, RaftConfig};
use crate::store::Store;

fn token(secret: u128) -> String {
    JoinToken { root_digest: [9; 32], secret }.to_string()
}

fn tokens() -> JoinTokens {
    JoinTokens { worker: token(100), manager: token(200) }
}

fn store() -> Store {
    let mut cluster = fixture::cluster();
    cluster.root_ca.join_tokens = tokens();
    cluster.shut_out = [(NodeId::of(8), at(4)), (NodeId::of(9), at(6))].into();
    fixture::store([cluster.into()])
}

fn update(store: &Store, spec: ClusterSpec, rotate: &[Rotate]) -> ClusterUpdate {
    ClusterUpdate {
        version: store.cluster().unwrap().meta.version,
        spec,
        rotate: rotate.iter().copied().collect(),
        secrets: NewSecrets { worker_token: 1, manager_token: 2, unlock_key: [7; 32] },
    }
}

fn updated(store: &mut Store, update: ClusterUpdate) -> Result<Cluster, ControlError> {
    let actions = with_view(store, |view| update_cluster(view, update, at(5)))?;
    commit(store, &actions);
    Ok(Cluster::clone(store.cluster().unwrap()))
}

fn refused(change: impl FnOnce(&mut ClusterSpec)) -> ControlError {
    let mut store = store();
    let mut spec = ClusterSpec::default();
    change(&mut spec);
    let wanted = update(&store, spec, &[]);
    updated(&mut store, wanted).unwrap_err()
}

#[test]
fn settings_are_written_and_ended_certificates_forgotten() {
    let mut store = store();
    let spec = ClusterSpec { name: String::new(), task_history_limit: 3, ..ClusterSpec::default() };
    let wanted = update(&store, spec, &[]);
    let cluster = updated(&mut store, wanted).unwrap();
    assert_eq!((cluster.spec.task_history_limit, cluster.spec.name.as_str()), (3, "default"));
    assert_eq!(cluster.root_ca.join_tokens, tokens());
    assert_eq!(cluster.shut_out, [(NodeId::of(9), at(6))].into());
    assert_eq!((cluster.unlock_key, cluster.meta.updated_at), (None, at(5)));
}

#[test]
fn what_is_left_out_is_dockers_default() {
    let mut store = store();
    let spec = ClusterSpec {
        name: String::new(),
        raft: RaftConfig {
            snapshot_interval: 0,
            election_tick: 0,
            heartbeat_tick: 0,
            ..RaftConfig::default()
        },
        dispatcher: DispatcherConfig { heartbeat_period: Duration::ZERO },
        ca: CaConfig { node_certificate_expiry: Duration::ZERO, force_rotate: 0 },
        ..ClusterSpec::default()
    };
    let wanted = update(&store, spec, &[]);
    assert_eq!(updated(&mut store, wanted).unwrap().spec, ClusterSpec::default());
}

#[test]
fn a_stale_version_is_out_of_sequence() {
    let mut store = store();
    let stale = ClusterUpdate { version: Version(9), ..update(&store, ClusterSpec::default(), &[]) };
    assert_eq!(updated(&mut store, stale), Err(texts::out_of_sequence()));
    let none = Store::default();
    let wanted = update(&store, ClusterSpec::default(), &[]);
    assert_eq!(with_view(&none, |view| update_cluster(view, wanted, at(5))), Err(texts::no_swarm()));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert_eq!(refused(|spec| spec.name = "other".to_owned()), texts::cluster_renamed());
    let short = Duration::from_secs(3599);
    assert_eq!(
        refused(|spec| spec.ca.node_certificate_expiry = short),
        texts::certificate_expiry_too_short()
    );
    for period in [Duration::from_nanos(1), Duration::from_millis(99), Duration::from_secs(3601)] {
        let told = refused(|spec| spec.dispatcher.heartbeat_period = period).to_string();
        assert_eq!(told, "heartbeat period must be from 100ms to 1h0m0s");
    }
    assert_eq!(refused(|spec| spec.raft.election_tick = 1), texts::election_before_heartbeat());
    assert_eq!(refused(|spec| spec.raft.heartbeat_tick = 10), texts::election_before_heartbeat());
    let told = refused(|spec| drop(spec.labels.insert("a".to_owned(), "x".repeat(2 << 20)))).to_string();
    assert!(told.starts_with("cluster spec is too large"), "{told}");
}

#[test]
fn rotation_changes_the_secret_alone() {
    let mut store = store();
    let wanted = update(&store, ClusterSpec::default(), &[Rotate::WorkerToken]);
    let cluster = updated(&mut store, wanted).unwrap();
    let worker = token(1);
    assert_eq!(cluster.root_ca.join_tokens, JoinTokens { worker: worker.clone(), ..tokens() });
    let wanted = update(&store, ClusterSpec::default(), &[Rotate::ManagerToken]);
    let cluster = updated(&mut store, wanted).unwrap();
    let manager = token(2);
    assert_eq!(cluster.root_ca.join_tokens, JoinTokens { worker, manager });
}

#[test]
fn a_stored_token_that_is_none_is_told_of() {
    let mut store = fixture::store([fixture::cluster().into()]);
    let wanted = update(&store, ClusterSpec::default(), &[Rotate::WorkerToken]);
    assert_eq!(updated(&mut store, wanted).unwrap_err().kind(), crate::control::ErrorKind::Unknown);
}

#[test]
fn the_unlock_key_is_there_while_managers_lock_themselves() {
    let mut store = store();
    let locking = || ClusterSpec { autolock: true, ..ClusterSpec::default() };
    let key = |byte| Some(SecretBytes(vec![byte; 32]));
    let wanted = update(&store, locking(), &[]);
    assert_eq!(updated(&mut store, wanted).unwrap().unlock_key, key(7));
    let other = NewSecrets { worker_token: 0, manager_token: 0, unlock_key: [8; 32] };
    let wanted = ClusterUpdate { secrets: other, ..update(&store, locking(), &[]) };
    assert_eq!(updated(&mut store, wanted).unwrap().unlock_key, key(7), "it is kept");
    let other = NewSecrets { worker_token: 0, manager_token: 0, unlock_key: [8; 32] };
    let wanted = ClusterUpdate { secrets: other, ..update(&store, locking(), &[Rotate::UnlockKey]) };
    assert_eq!(updated(&mut store, wanted).unwrap().unlock_key, key(8));
    let wanted = update(&store, ClusterSpec::default(), &[Rotate::UnlockKey]);
    assert_eq!(updated(&mut store, wanted).unwrap().unlock_key, None);
}

#[test]
fn no_secret_is_in_a_log_line() {
    let update = update(&store(), ClusterSpec::default(), &[]);
    assert!(format!("{update:?}").contains("secrets: NewSecrets }"));
}

#[test]
fn a_new_clusters_settings_are_filled_in_and_judged() {
    let zeros = ClusterSpec { name: String::new(), ca: CaConfig::default(), ..ClusterSpec::default() };
    assert_eq!(new_cluster_spec(zeros), Ok(ClusterSpec::default()));
    let named = ClusterSpec { name: "other".to_owned(), ..ClusterSpec::default() };
    assert_eq!(new_cluster_spec(named), Err(texts::cluster_renamed()));
}

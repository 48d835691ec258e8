//! Records: what was written is read, and nothing else.

use std::sync::Arc;

use ketch_cluster::id::{ServiceId, TaskId};
use ketch_cluster::objects::task::TaskRuntime;
use ketch_cluster::objects::{ContainerSpec, Task, TaskSpec, Version};
use ketch_cluster::store::{Object, StoreAction};
use proptest::prelude::*;

use super::{create_with, entropy};
use crate::DataKeys;
use crate::consensus::Transaction;
use crate::record::{EntryRecord, LogIdRecord, MembershipRecord, PayloadRecord};
use crate::seal::{Place, Seal, SealError};
use crate::tests::peer;
use crate::wire::{self, AppendRequest, WireError};

fn ids() -> impl Strategy<Value = LogIdRecord> {
    (any::<u64>(), any::<u64>(), 0..u64::MAX).prop_map(|(term, leader, index)| LogIdRecord {
        term,
        leader,
        index,
    })
}

fn payloads() -> impl Strategy<Value = PayloadRecord> {
    let transaction = (any::<u128>(), any::<Vec<u8>>())
        .prop_map(|(number, data)| PayloadRecord::Transaction(create_with(number, data).into()));
    let sets = proptest::collection::btree_set(1..9_u64, 1..4);
    let membership = proptest::collection::vec(sets, 1..3).prop_map(|voters| {
        let peers = voters.iter().flatten().map(|id| (*id, peer(*id))).collect();
        PayloadRecord::Membership(MembershipRecord { voters, peers })
    });
    let kinds = 0..4_usize;
    let tasks = proptest::collection::vec((any::<u128>(), kinds), 0..9)
        .prop_map(|tasks| PayloadRecord::Transaction(transaction_of(tasks.into_iter().map(task_action))));
    prop_oneof![Just(PayloadRecord::Blank), transaction, tasks, membership]
}

fn transaction_of(actions: impl Iterator<Item = StoreAction>) -> Transaction {
    Transaction::from(actions.collect::<Vec<_>>())
}

/// Of one of a few services; the last kind is no task.
fn task_action((id, kind): (u128, usize)) -> StoreAction {
    match kind {
        0 => StoreAction::Create(task(id, "").into()),
        1 => StoreAction::Update(task(id, "busybox:1").into()),
        2 => StoreAction::Create(task(id, "nginx:1").into()),
        _ => StoreAction::Remove(TaskId::of(id).into()),
    }
}

fn task(id: u128, image: &str) -> Task {
    let container = ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() };
    let spec = TaskSpec { runtime: TaskRuntime::Container(Box::new(container)), ..TaskSpec::default() };
    Task {
        spec_version: Version(7),
        service: Some(ServiceId::of(1)),
        slot: 3,
        name: "web.3".into(),
        service_name: "web".into(),
        ..Task::new(TaskId::of(id), Arc::new(spec))
    }
}

#[test]
fn a_spec_that_tasks_share_is_written_once_and_shared_again() {
    let written = transaction_of((0..200).map(|id| StoreAction::Create(task(id, "busybox:1").into())));
    let json = serde_json::to_vec(&PayloadRecord::Transaction(written.clone())).unwrap();
    let plain = serde_json::to_vec(written.actions()).unwrap();
    assert!(json.len() * 2 < plain.len(), "{} bytes of {}", json.len(), plain.len());
    let PayloadRecord::Transaction(read) = serde_json::from_slice(&json).unwrap() else { panic!("{json:?}") };
    assert_eq!(read, written);
    let again = serde_json::to_vec(&PayloadRecord::Transaction(read.clone())).unwrap();
    assert_eq!(again, json, "what was read is passed on as it was");
    let specs: Vec<_> = read
        .actions()
        .iter()
        .map(|action| match action {
            StoreAction::Create(Object::Task(task)) => &task.spec,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(specs.iter().all(|spec| Arc::ptr_eq(spec, specs[0])));
}

#[test]
fn a_transaction_of_before_reads_and_one_without_its_spec_does_not() {
    let written = transaction_of([StoreAction::Update(task(1, "nginx:1").into())].into_iter());
    let old = format!("{{\"transaction\":{}}}", serde_json::to_string(written.actions()).unwrap());
    let read: PayloadRecord = serde_json::from_str(&old).unwrap();
    let written = PayloadRecord::Transaction(written);
    assert_eq!(read, written);
    let new = serde_json::to_string(&written).unwrap();
    let (head, tail) = new.split_once("\"actions\":[[0,").unwrap();
    let broken = format!("{head}\"actions\":[[1,{tail}");
    assert!(serde_json::from_str::<PayloadRecord>(&broken).is_err());
}

fn entries() -> impl Strategy<Value = EntryRecord> {
    (ids(), payloads()).prop_map(|(id, payload)| EntryRecord { id, payload })
}

proptest! {
    #[test]
    fn an_entry_survives_raft_and_json(record in entries()) {
        let entry = record.clone().entry().unwrap();
        prop_assert_eq!(&EntryRecord::from(&entry), &record);
        let json = serde_json::to_vec(&record).unwrap();
        prop_assert_eq!(serde_json::from_slice::<EntryRecord>(&json).unwrap(), record);
    }

    #[test]
    fn a_seal_opens_only_in_its_place(plain: Vec<u8>, key: u64, other: u64) {
        let seal = Seal::new(&DataKeys::one([1; 32]), entropy(key));
        let bytes = key.to_be_bytes();
        let place = Place { table: "log", key: &bytes };
        let sealed = seal.close(place, &plain).unwrap();
        prop_assert_eq!(seal.open(place, &sealed), Ok(plain.clone()));
        prop_assert_ne!(&seal.close(place, &plain).unwrap(), &sealed, "a nonce is used once");
        if other != key {
            let elsewhere = other.to_be_bytes();
            let moved = Place { table: "log", key: &elsewhere };
            prop_assert_eq!(seal.open(moved, &sealed), Err(SealError::Broken));
        }
        let table = Place { table: "state", ..place };
        prop_assert_eq!(seal.open(table, &sealed), Err(SealError::Broken));
        let stranger = Seal::new(&DataKeys::one([2; 32]), entropy(key));
        prop_assert_eq!(stranger.open(place, &sealed), Err(SealError::Broken));
    }

    #[test]
    fn a_changed_or_short_record_does_not_open(plain: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
        let seal = Seal::new(&DataKeys::one([1; 32]), entropy(5));
        let place = Place { table: "log", key: &[0] };
        let mut sealed = seal.close(place, &plain).unwrap();
        let short = &sealed[..at.index(sealed.len())];
        prop_assert!(seal.open(place, short).is_err());
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(seal.open(place, &sealed).is_err());
    }

    #[test]
    fn a_message_is_read_as_sent_and_never_panics(records in proptest::collection::vec(entries(), 0..4), cut: prop::sample::Index, noise: Vec<u8>) {
        let request = AppendRequest {
            vote: crate::record::VoteRecord { term: 3, candidate: 1, granted: true },
            previous: None,
            entries: records,
            committed: Some(LogIdRecord { term: 2, leader: 1, index: 7 }),
        };
        let message = wire::encode(&request, &noise).unwrap();
        let (read, body) = wire::decode::<AppendRequest>(&message).unwrap();
        prop_assert_eq!(read, request);
        prop_assert_eq!(body, noise.as_slice());
        let short = &message[..cut.index(message.len() - noise.len())];
        prop_assert!(wire::decode::<AppendRequest>(short).is_err());
        drop(wire::decode::<AppendRequest>(&noise));
    }
}

#[test]
fn a_newer_format_is_named() {
    let seal = Seal::new(&DataKeys::one([1; 32]), entropy(5));
    let place = Place { table: "log", key: &[0] };
    let mut sealed = seal.close(place, b"x").unwrap();
    sealed[0] = 2;
    assert_eq!(seal.open(place, &sealed), Err(SealError::Newer(2)));
    assert!(matches!(wire::decode::<u64>(&[9]), Err(WireError::Format(9))));
}

/// The bytes of format 1: a change of them is a new format.
#[test]
fn format_1_reads_as_it_was_written() {
    let json = r#"{"id":{"term":2,"leader":1,"index":7},"payload":{"membership":{"voters":[[1]],"peers":{"1":{"raft_id":1,"node":"0000000000000000000000001","address":"10.0.0.1:2377"}}}}}"#;
    let membership =
        MembershipRecord { voters: vec![[1].into()], peers: std::iter::once((1, peer(1))).collect() };
    let record = EntryRecord {
        id: LogIdRecord { term: 2, leader: 1, index: 7 },
        payload: PayloadRecord::Membership(membership),
    };
    assert_eq!(serde_json::to_string(&record).unwrap(), json);
    assert_eq!(serde_json::from_str::<EntryRecord>(json).unwrap(), record);
}

//! Records: what was written is read, and nothing else.

use proptest::prelude::*;

use super::{create_with, entropy};
use crate::DataKeys;
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
    prop_oneof![Just(PayloadRecord::Blank), transaction, membership]
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

//! Crashes, partitions and proposals in any order: what was acknowledged is never lost, and all managers agree.

use super::*;
use crate::ProposeError;

const MANAGERS: u64 = 3;
const STEPS: u128 = 60;

struct Storm {
    managers: Managers,
    up: BTreeMap<u64, Arc<ClusterLog>>,
    bits: Entropy,
    acknowledged: Vec<u128>,
}

impl Storm {
    async fn new(seed: u64) -> Self {
        let mut managers = Managers::default();
        let logs = managers.voters(MANAGERS).await;
        let up = (1..).zip(logs).collect();
        Self { managers, up, bits: entropy(seed + 100), acknowledged: vec![] }
    }

    fn draw(&self, below: u8) -> u8 {
        let mut byte = [0];
        (self.bits)(&mut byte);
        byte[0] % below
    }

    async fn step(&mut self, number: u128) {
        let id = u64::from(self.draw(3)) + 1;
        let others: Vec<_> = (1..=MANAGERS).filter(|other| *other != id).collect();
        match self.draw(10) {
            0 => {
                self.managers.crash(id).await;
                self.up.remove(&id);
            }
            1 | 2 => self.start(id).await,
            3 => self.managers.hub.partition(&[id], &others),
            4 | 5 => self.managers.hub.heal(),
            6 => {
                if let Some(log) = self.up.get(&id) {
                    log.snapshot_now().await.unwrap();
                }
            }
            _ => self.propose(number).await,
        }
    }

    async fn start(&mut self, id: u64) {
        if self.up.contains_key(&id) {
            return;
        }
        let options = Options { retention: Retention { snapshot_every: 10, keep: 2 }, ..Options::default() };
        let log = self.managers.start_with(id, options).await.unwrap();
        self.up.insert(id, log);
    }

    /// To everybody in turn, for there may be two that think they lead.
    async fn propose(&mut self, number: u128) {
        for log in self.up.values() {
            if log.propose(create(number), Duration::from_secs(3)).await.is_ok() {
                self.acknowledged.push(number);
            }
        }
    }

    async fn calm(mut self) {
        self.managers.hub.heal();
        for id in 1..=MANAGERS {
            self.start(id).await;
        }
        let logs: Vec<&ClusterLog> = self.up.values().map(AsRef::as_ref).collect();
        let mut elections = 0;
        // An election that began before the calm may still unseat the first.
        let leads = loop {
            let leads = leader(&logs).await;
            elections += 1;
            assert!(elections < 20, "no leader stays: {:?}", leads.status());
            match leads.barrier(SOON).await {
                Ok(()) => break leads,
                Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let snapshot = leads.read(ketch_cluster::store::Store::snapshot);
        for number in &self.acknowledged {
            assert!(has(leads, *number), "{number} was acknowledged");
        }
        for log in logs {
            catch_up(log, leads).await;
            assert_eq!(log.read(ketch_cluster::store::Store::snapshot), snapshot);
        }
        // They hold each other through the hub: without this they would go on beside the next storm.
        for id in 1..=MANAGERS {
            self.managers.crash(id).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_in_a_storm() {
    let mut acknowledged = 0;
    for seed in 0..10 {
        let mut storm = Storm::new(seed).await;
        for number in 0..STEPS {
            storm.step(number).await;
        }
        acknowledged += storm.acknowledged.len();
        storm.calm().await;
    }
    assert!(acknowledged > 50, "{acknowledged} were acknowledged at all");
}

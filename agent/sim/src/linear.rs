//! Whether what clients see of the cluster's store is as if it were one, whatever goes wrong: they create, read, update and
//! remove objects through all managers, and the history of that is checked for linearizability.
//!
//! A play of its own beside [`run`](crate::run)'s: without workers and services, with faults that are made for it (the leader is cut
//! off and goes on for as long as it may), and thousands of requests. Called by [`run`](crate::run); [`Api`] is every node's.

mod api;
mod checker;
mod clients;
mod history;
mod register;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use ketch_node::node::Lead;

pub(crate) use self::api::Api;
use self::clients::{Clients, lock};
use self::history::Operation;
use self::register::Answer;
use crate::cluster::Cluster;
use crate::random::Random;

const CLIENTS: usize = 6;
/// How long clients ask while things go wrong, in simulated time.
const STORM: Duration = Duration::from_secs(60);
/// After so long clients go on to other objects: short histories are checked faster.
const PERIOD: u64 = 6;
/// Objects at a time.
const OBJECTS: usize = 2;
/// How long a healed cluster has until all are answered.
const ANSWERS: Duration = Duration::from_secs(40);

/// As many requests as a run must have answered: of one in which nobody is, every order is right.
const LEAST: usize = 20;

/// Plays it on a cluster that has formed.
pub(crate) fn play(cluster: &mut Cluster, random: &mut Random) -> Result<(), String> {
    let mut clients = Clients::new(CLIENTS);
    let mut trouble = Trouble::default();
    let end = cluster.elapsed() + STORM;
    while cluster.elapsed() < end {
        cluster.pass()?;
        trouble.go_on(cluster, random);
        clients.go_on(cluster, random, &names(cluster.elapsed()));
    }
    cluster.note("heal");
    trouble.end(cluster);
    let last = names(cluster.elapsed());
    let done = |clients: &mut Clients, cluster: &mut Cluster, what: &str| {
        cluster.until(ANSWERS, what, |cluster| match clients.are_done(cluster.elapsed()) {
            true => Ok(()),
            false => Err("some wait".to_owned()),
        })
    };
    done(&mut clients, cluster, "requests are answered")?;
    clients.read_all(cluster, &last);
    done(&mut clients, cluster, "the last reads are answered")?;
    let history = lock(&clients.history);
    let checked = checker::check(&history)?;
    let is_told = |it: &&Operation| matches!(it.answer, Answer::Done | Answer::Read(_));
    let answered = history.objects().flat_map(|(_, operations)| operations).filter(is_told);
    let answered = answered.count();
    if answered < LEAST {
        return Err(format!(
            "{answered} requests of {} were answered, fewer than {LEAST}",
            checked.operations
        ));
    }
    cluster.note(&format!("linearizable: {checked:?}"));
    Ok(())
}

fn names(now: Duration) -> Vec<String> {
    let period = now.as_secs() / PERIOD;
    (0..OBJECTS).map(|number| format!("object-{period}-{number}")).collect()
}

/// What goes wrong now.
#[derive(Debug, Default)]
struct Trouble {
    open: Option<(Duration, Kind)>,
    /// Until when all is well.
    quiet: Duration,
    /// Who led when all was well.
    leader: Arc<Mutex<Option<usize>>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Down(usize),
    /// From all others.
    CutOff(usize),
    Parted(usize, usize),
}

impl Trouble {
    fn go_on(&mut self, cluster: &mut Cluster, random: &mut Random) {
        let now = cluster.elapsed();
        match self.open {
            Some((until, _)) if until <= now => {
                self.end(cluster);
                self.quiet = now + Duration::from_millis(random.between(500, 4000));
            }
            None if self.quiet <= now => self.begin(cluster, random),
            None => look_for_leader(cluster, &self.leader),
            Some(_) => {}
        }
    }

    /// All is well again.
    fn end(&mut self, cluster: &mut Cluster) {
        match self.open.take() {
            None => {}
            Some((_, Kind::Down(one))) => cluster.start(one),
            Some((_, Kind::Parted(one, other))) => cluster.join_again(one, other),
            Some((_, Kind::CutOff(one))) => {
                for other in others(cluster, one) {
                    cluster.join_again(one, other);
                }
            }
        }
    }

    /// Mostly it is the leader whom it hits.
    fn begin(&mut self, cluster: &mut Cluster, random: &mut Random) {
        let leader = *self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        let any = usize::try_from(random.below(cluster.sites.len() as u64)).unwrap_or(0);
        let one = if random.below(3) == 0 { any } else { leader.unwrap_or(any) };
        let other = (one + 1 + any) % cluster.sites.len();
        let kind = match random.below(6) {
            0 => {
                cluster.kill(one);
                Kind::Down(one)
            }
            1 => {
                cluster.power_off(one, random);
                Kind::Down(one)
            }
            2 if one != other => {
                cluster.part(one, other);
                Kind::Parted(one, other)
            }
            _ => {
                for other in others(cluster, one) {
                    cluster.part(one, other);
                }
                Kind::CutOff(one)
            }
        };
        let lasts = Duration::from_millis(random.between(300, 8000));
        self.open = Some((cluster.elapsed() + lasts, kind));
    }
}

fn others(cluster: &Cluster, one: usize) -> Vec<usize> {
    (0..cluster.sites.len()).filter(|other| *other != one).collect()
}

/// Asks each manager whether it leads; the last one that says so is noted.
fn look_for_leader(cluster: &Cluster, known: &Arc<Mutex<Option<usize>>>) {
    for (index, site) in cluster.sites.iter().enumerate() {
        let known = Arc::clone(known);
        let _runs = site.order(move |node| {
            async move {
                if let Ok(Lead::Here(..)) = node.lead().await {
                    *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(index);
                }
            }
            .boxed()
        });
    }
}

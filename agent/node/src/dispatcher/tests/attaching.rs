//! Containers that are no tasks come into networks.

use ketch_cluster::control::create_network;
use ketch_cluster::objects::network::{IpamConfig, NetworkSpec};

use super::*;
use crate::calls::{AttachAsked, Attached, Wanted};

async fn network(cluster: &Cluster, attachable: bool) {
    let subnet = IpamConfig { subnet: "10.30.0.0/24".parse().ok(), ..IpamConfig::default() };
    let spec =
        NetworkSpec { name: "net".to_owned(), attachable, ipam: vec![subnet], ..NetworkSpec::default() };
    cluster.leader.change(|view, now, bits| create_network(view, spec, now, bits)).await.unwrap();
}

/// Of a node that has overlay networks.
async fn begin(cluster: &Cluster, number: u128) -> Worker {
    let mut asked = asked(number);
    let plugin = ("Network".to_owned(), "overlay".to_owned());
    asked.description.engine.plugins.extend([plugin]);
    Worker::begin_with(&cluster.dispatcher, identity(number), asked).await.unwrap()
}

fn wanted(address: &str) -> Wanted {
    Wanted {
        container: "c".repeat(64),
        name: "box".to_owned(),
        aliases: vec!["other".to_owned()],
        network: "net".to_owned(),
        addresses: address.parse().into_iter().collect(),
    }
}

async fn attach(cluster: &Cluster, worker: &Worker, wanted: Wanted) -> Attached {
    let asked = AttachAsked { session: worker.session, place: None, wanted };
    cluster.ask(worker.identity, &asked).await.unwrap()
}

/// With an address of its own, for one, it would wait for itself in vain.
#[tokio::test(start_paused = true)]
async fn a_place_whose_answer_was_lost_is_asked_for_again() {
    let cluster = Cluster::with(1).await;
    let worker = begin(&cluster, 101).await;
    network(&cluster, true).await;
    let place = Some(TaskId::of(77));
    let asked = AttachAsked { session: worker.session, place, wanted: wanted("10.30.0.77") };
    for _ in 0..3 {
        let given = cluster.ask(worker.identity, &asked).await.unwrap();
        assert_eq!(given, Attached::Given(TaskId::of(77)));
    }
    assert_eq!(cluster.leader.view(|view| view.tasks().count()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_container_has_its_place_until_its_worker_says_that_it_has_ended() {
    let cluster = Cluster::with(2).await;
    let one = begin(&cluster, 101).await;
    let two = begin(&cluster, 102).await;
    network(&cluster, true).await;
    let Attached::Given(task) = attach(&cluster, &one, wanted("10.30.0.77")).await else {
        panic!("not given")
    };
    let given = cluster.leader.view(|view| view.task(task).cloned()).unwrap();
    assert_eq!((given.node, &*given.name), (Some(NodeId::of(101)), "box"));
    assert_eq!(given.networks[0].addresses[0].to_string(), "10.30.0.77/24");
    let clash = attach(&cluster, &two, wanted("10.30.0.77")).await;
    assert_eq!(clash, Attached::NotGiven("address 10.30.0.77 of network net is in use".to_owned()));
    // No heartbeats come meanwhile.
    let two = begin(&cluster, 102).await;
    let outside = attach(&cluster, &two, wanted("10.31.0.7")).await;
    assert_eq!(outside, Attached::NotGiven("address 10.31.0.7 can't be given in network net".to_owned()));
    let attachments = |it: &Cluster| it.leader.view(|view| view.tasks().count());
    assert_eq!(attachments(&cluster), 1, "what was not given is withdrawn");
    let (one, two) = (begin(&cluster, 101).await, begin(&cluster, 102).await);
    let waiting = attach(&cluster, &two, wanted("10.30.0.77"));
    let ended = async {
        sleep(A_WHILE).await;
        one.tell(vec![(task, word(TaskState::Complete))]).await.unwrap()
    };
    let (given, _) = tokio::join!(waiting, ended);
    assert!(matches!(given, Attached::Given(_)), "{given:?}");
    until("the first is forgotten", || attachments(&cluster) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_may_not_be_attached_is_told_in_dockers_words() {
    let cluster = Cluster::with(1).await;
    let worker = begin(&cluster, 101).await;
    let refused = |text: &str| Attached::Refused(format!("rpc error: code = {text}"));
    assert_eq!(attach(&cluster, &worker, wanted("")).await, refused("NotFound desc = network net not found"));
    network(&cluster, false).await;
    assert_eq!(
        attach(&cluster, &worker, wanted("")).await,
        refused("PermissionDenied desc = network net not manually attachable")
    );
    let asked = AttachAsked { session: worker.session + 1, place: None, wanted: wanted("") };
    assert_eq!(cluster.ask(worker.identity, &asked).await.unwrap_err(), Refusal::NoSession);
}

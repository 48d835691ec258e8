//! The move to another root.

use base64::Engine;
use ketch_ca::root::{self, Root};
use ketch_cluster::control::{ClusterUpdate, NewRoot, NewSecrets};
use ketch_cluster::objects::Node;
use ketch_cluster::objects::node::{CaKeyId, NodeTls};
use ketch_cluster::store::StoreAction;

use crate::fixture::{Managers, Site, found, until};
use crate::manager::Leader;

async fn rotate(leader: &Leader) {
    let cluster = leader.view(|view| view.cluster().cloned().unwrap());
    let mut spec = cluster.spec.clone();
    spec.ca.force_rotate += 1;
    let secrets = NewSecrets { worker_token: 5, manager_token: 6, unlock_key: [7; 32] };
    let version = cluster.meta.version;
    leader.update_cluster(ClusterUpdate { version, spec, rotate: [].into(), secrets }).await.unwrap();
}

/// What a dispatcher writes of a node that has renewed.
async fn moved(leader: &Leader, id: ketch_cluster::id::NodeId, next: CaKeyId) {
    leader
        .change::<_, ()>(|view, _, _| {
            let mut node = Node::clone(view.node(id).unwrap());
            let tls = NodeTls { issuer: next, roots: [next].into() };
            node.description.get_or_insert_default().tls = Some(tls);
            Ok(((), vec![StoreAction::Update(node.into())]))
        })
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn nodes_are_asked_to_renew_and_the_old_root_ends_when_all_have() {
    let managers = Managers::of(3).await;
    let leader = managers.leader().await;
    let before = managers.cluster().await;
    rotate(&leader).await;
    let rotation = managers.cluster().await.root_ca.rotation.clone().unwrap();
    let next = root::describe(&rotation.certificate).unwrap().id;
    let mut renewals = leader.renewals();
    let ready = managers.seats[0].site.node;
    renewals.wait_for(|asked| asked.contains(&ready)).await.unwrap();
    assert_eq!(
        Site::join(&managers.hub, "10.0.0.9", "10.0.0.1:2377", &before.root_ca.join_tokens.worker)
            .await
            .unwrap()
            .world
            .credentials()
            .unwrap()
            .identity
            .issuer,
        next,
        "the old token is good, and the certificate of the next root"
    );

    let ids: Vec<_> = leader.view(|view| view.nodes().map(|node| node.id).collect());
    for id in ids {
        assert!(managers.cluster().await.root_ca.rotation.is_some());
        moved(&leader, id, next).await;
    }
    let after = found("the end of the old root", || {
        leader.view(|view| view.cluster().filter(|it| it.root_ca.rotation.is_none()).cloned())
    })
    .await;
    assert_eq!(after.root_ca.certificate, rotation.certificate);
    assert_ne!(after.root_ca.join_tokens, before.root_ca.join_tokens);
    until("nobody is asked", || renewals.borrow().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn another_leader_goes_on_with_it() {
    let managers = Managers::of(3).await;
    let first = managers.leader().await;
    rotate(&first).await;
    let rotation = managers.cluster().await.root_ca.rotation.clone().unwrap();
    let next = root::describe(&rotation.certificate).unwrap().id;
    let place = managers.leading().await;
    managers.kill(place).await;
    let leader = managers.leader().await;
    for seat in &managers.seats {
        moved(&leader, seat.site.node, next).await;
    }
    until("the old root has ended", || {
        leader.view(|view| view.cluster().is_some_and(|it| it.root_ca.rotation.is_none()))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_users_own_root_takes_the_place_of_the_clusters() {
    let managers = Managers::of(1).await;
    let leader = managers.leader().await;
    let before = managers.cluster().await;
    let own = Root::create(leader.now()).unwrap();
    let key = |root: &Root| {
        let digits = base64::engine::general_purpose::STANDARD.encode(&root.key.0);
        format!("-----BEGIN PRIVATE KEY-----\n{digits}\n-----END PRIVATE KEY-----\n")
    };
    let to = async |certificate: &str, key: &str| {
        let known = managers.cluster().await;
        let secrets = NewSecrets { worker_token: 5, manager_token: 6, unlock_key: [7; 32] };
        let (version, spec) = (known.meta.version, known.spec.clone());
        let root = NewRoot { certificate: certificate.to_owned(), key: key.to_owned() };
        let update = ClusterUpdate { version, spec, rotate: [].into(), secrets };
        leader.update_cluster_to(update, root).await.map_err(|error| error.to_string())
    };
    let other = Root::create(leader.now()).unwrap();
    assert_eq!(
        to(&own.certificate, &key(&other)).await.unwrap_err(),
        "rpc error: code = InvalidArgument desc = certificate key mismatch"
    );
    assert_eq!(managers.cluster().await.root_ca, before.root_ca);

    to(&own.certificate, &key(&own)).await.unwrap();
    let next = root::describe(&own.certificate).unwrap().id;
    moved(&leader, managers.seats[0].site.node, next).await;
    let after = found("the end of the old root", || {
        leader.view(|view| view.cluster().filter(|it| it.root_ca.rotation.is_none()).cloned())
    })
    .await;
    assert_eq!(after.root_ca.certificate, own.certificate);
    assert_ne!(after.root_ca.join_tokens, before.root_ca.join_tokens);
}

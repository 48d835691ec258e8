//! Nodes of a cluster without containers, for the bench of the mesh: many in one process, each with the very node and worker of
//! ketchd, its own keys, store and TLS connections.
//!
//! `fake_nodes <folder> <count> <own address> <manager host:port> <worker token>`. Says how many have, `joined` once all have, and
//! runs until it is killed. Called by `integration`'s `engine_bench mesh`.

#[path = "../scale/src/executor.rs"]
mod executor;

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use ketch_cluster::objects::node::Availability;
use ketch_node::node::{Advertised, JoinOrder, Node, NodeParts};
use ketch_node::wire::{Answer, Call, Refusal, Service};
use ketch_raft::Blocking;
use ketchd::node::world::SystemWorld;

use self::executor::{Pretended, description};

/// How many join at the same time: a manager takes 64 handshakes from one address.
const AT_ONCE: usize = 8;
/// How often each tries it, and how long it waits in between.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, count, address, manager, token] = words.as_slice() else {
        return Err("fake_nodes <folder> <count> <own address> <manager host:port> <worker token>".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let numbers: Vec<usize> = (1..=count.parse()?).collect();
        let mut nodes = Vec::new();
        for some in numbers.chunks(AT_ONCE) {
            let joining = some.iter().map(|number| join(folder, *number, (address, manager, token)));
            nodes.extend(futures_util::future::try_join_all(joining).await?);
            println!("{}", nodes.len());
        }
        println!("joined");
        std::future::pending::<()>().await;
        drop(nodes);
        Ok(())
    })
}

async fn join(
    folder: &str,
    number: usize,
    (address, manager, token): (&String, &String, &String),
) -> Result<Arc<Node>, Box<dyn Error>> {
    let own: IpAddr = address.parse()?;
    let node = Node::new(NodeParts {
        world: Arc::new(SystemWorld::new(&Path::new(folder).join(number.to_string()))),
        executor: Arc::new(Pretended { description: description(&format!("fake{number}"), Some(own)) }),
        api: Arc::new(NoApi),
        blocking: Blocking::Threads,
    });
    let order = JoinOrder {
        listen: format!("{address}:2377"),
        advertise: format!("{address}:2377"),
        advertised: Advertised::Given,
        data_address: Some(own),
        managers: vec![manager.clone()],
        token: token.clone(),
        availability: Availability::Active,
    };
    // A manager on a busy machine may let one wait for too long.
    let mut tries = 1..TRIES;
    while let Err(error) = node.join(order.clone()).await {
        eprintln!("node {number}: {error}");
        let _try = tries.next().ok_or(error)?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(node)
}

/// A worker is asked nothing.
struct NoApi;

impl Service for NoApi {
    fn answer(&self, _call: Call) -> BoxFuture<'static, Result<Answer, Refusal>> {
        ready(Err(Refusal::Denied("this node serves no API".to_owned()))).boxed()
    }
}

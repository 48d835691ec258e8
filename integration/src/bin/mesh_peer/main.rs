//! Both ends of the traffic that is sent through a cluster's ports: `serve` in the tasks, the others outside of the nodes.
//!
//! Static, like every program of the workspace: it is all that its image has. Called by the `mesh_traffic` and `mesh_proxy` tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's program: a failure is its message")]

mod ask;
mod serve;

use std::net::SocketAddr;

/// Where `serve` listens: pages, a database, datagrams.
const PAGES: u16 = 8080;
const DATABASE: u16 = 5432;
const DATAGRAMS: u16 = 5300;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve"] => serve::serve().await,
        ["check"] => {
            let own = SocketAddr::from(([127, 0, 0, 1], PAGES));
            assert!(ask::check(own).await.is_ok(), "no page");
        }
        ["load", rate, addresses @ ..] => {
            let addresses: Vec<SocketAddr> = addresses.iter().map(|text| address(text)).collect();
            ask::load(rate.parse().expect("requests per second"), &addresses).await;
        }
        ["datagrams", to] => ask::datagrams(address(to)).await,
        ["session", to] => ask::session(address(to)).await,
        other => panic!("unknown command {other:?}"),
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

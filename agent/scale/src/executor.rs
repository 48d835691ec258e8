//! Containers that are not there: of the managers' own workers here, and of the nodes of `fake_nodes`, an example of ketchd, which has this
//! file too. Tasks that come are said to run until they are to stop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use ketch_cluster::assignment::Item;
use ketch_cluster::id::TaskId;
use ketch_cluster::objects::node::{EngineDescription, NodeDescription, Platform};
use ketch_cluster::objects::{Resources, Task};
use ketch_node::calls::Visit;
use ketch_node::executor::{DataPath, Ended, Executor, LogLine, LogOptions, Started, TaskError, Work};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// What a node of the bench says of itself.
pub(crate) fn description(hostname: &str, data_address: Option<IpAddr>) -> NodeDescription {
    let networks = ["bridge", "host", "overlay"].map(|name| ("Network".to_owned(), name.to_owned()));
    NodeDescription {
        hostname: hostname.to_owned(),
        platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
        resources: Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Resources::default() },
        engine: EngineDescription {
            version: "bench".to_owned(),
            plugins: networks.into(),
            ..EngineDescription::default()
        },
        data_address,
        ..NodeDescription::default()
    }
}

#[derive(Debug)]
pub(crate) struct Pretended {
    pub(crate) description: NodeDescription,
}

impl Executor for Pretended {
    fn set_data_path(&self, _: Option<DataPath>) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn describe(&self) -> BoxFuture<'_, NodeDescription> {
        ready(self.description.clone()).boxed()
    }

    fn network(&self, _items: &[Item]) -> BoxFuture<'_, Result<(), String>> {
        ready(Ok(())).boxed()
    }

    fn prepare(&self, _work: Work) -> BoxFuture<'_, Result<(), TaskError>> {
        ready(Ok(())).boxed()
    }

    fn start(&self, _task: Arc<Task>) -> BoxFuture<'_, Result<Started, TaskError>> {
        ready(Ok(Started::default())).boxed()
    }

    fn wait(&self, _task: Arc<Task>) -> BoxFuture<'_, Result<Ended, TaskError>> {
        std::future::pending().boxed()
    }

    fn shutdown(&self, _task: Arc<Task>) -> BoxFuture<'_, Result<(), TaskError>> {
        ready(Ok(())).boxed()
    }

    fn remove(&self, _task: TaskId) -> BoxFuture<'_, Result<(), TaskError>> {
        ready(Ok(())).boxed()
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, String>> {
        ready(Ok(BTreeSet::new())).boxed()
    }

    fn serve(&self, _: Visit, _: DuplexStream) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn logs(
        &self,
        _task: Arc<Task>,
        _options: LogOptions,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<LogLine>, String>> {
        ready(Err("there is none".to_owned())).boxed()
    }
}

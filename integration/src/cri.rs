//! A small client of the Kubernetes runtime interface (CRI v1): gRPC's unary calls over containerd's socket, by `h2`.
//!
//! Messages are written by field number from the published api.proto, as in [`crate::shim::protobuf`]. Called by `shim_cri`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use h2::client::SendRequest;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

use crate::shim::{Failure, Fields, Message};

/// The connection, with what drives it while a call waits.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    requests: RefCell<SendRequest<bytes::Bytes>>,
}

/// A pod as the tests want it.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub uses_host_network: bool,
    /// Where its containers' logs go.
    pub logs: PathBuf,
    pub cgroup_parent: String,
    /// The host's id of the first of its 65,536 users and groups, where it has a user namespace.
    pub users: Option<u32>,
    /// A folder of the host that its containers have at /volume, with owners as they see them.
    pub volume: Option<PathBuf>,
}

/// The end of a command that ran in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub exit_code: u64,
}

impl Pod {
    fn config(&self) -> Message {
        let metadata =
            Message::new().text(1, &self.name).text(2, format!("uid-{}", self.name)).text(3, "default");
        // NODE is 2.
        let namespaces = Message::new().number(1, if self.uses_host_network { 2 } else { 0 }).number(2, 1);
        let namespaces = self.with_users(namespaces);
        let linux =
            Message::new().text(1, &self.cgroup_parent).message(2, &Message::new().message(1, &namespaces));
        let config =
            Message::new().message(1, &metadata).text(3, self.logs.to_string_lossy()).message(8, &linux);
        if self.uses_host_network { config } else { config.text(2, &self.name) }
    }

    fn ids(&self) -> Option<Message> {
        self.users.map(|first| Message::new().number(1, first.into()).number(2, 0).number(3, 65_536))
    }

    /// A NamespaceOption with the pod's user namespace, of mode POD, which is 0.
    fn with_users(&self, namespaces: Message) -> Message {
        match self.ids() {
            Some(ids) => namespaces.message(5, &Message::new().message(2, &ids).message(3, &ids)),
            None => namespaces,
        }
    }

    fn mounts(&self) -> Vec<Message> {
        let mount = |folder: &PathBuf| {
            let mount = Message::new().text(1, "/volume").text(2, folder.to_string_lossy());
            match self.ids() {
                Some(ids) => mount.message(6, &ids).message(7, &ids),
                None => mount,
            }
        };
        self.volume.iter().map(mount).collect()
    }
}

impl Cri {
    /// Connects.
    ///
    /// # Panics
    /// When nobody speaks HTTP/2 there.
    #[must_use]
    pub fn connect(socket: &Path) -> Self {
        let runtime = Builder::new_current_thread().enable_io().build().expect("build a runtime");
        let requests = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await.expect("connect to containerd");
            let (requests, connection) = h2::client::handshake(stream).await.expect("speak HTTP/2");
            // It ends with the connection; a call then says so.
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests: RefCell::new(requests) }
    }

    /// A call of the RuntimeService.
    ///
    /// # Errors
    /// The status that was answered.
    ///
    /// # Panics
    /// When the connection breaks or the answer is no message.
    pub fn call(&self, method: &str, message: &Message) -> Result<Fields, Failure> {
        self.service("runtime.v1.RuntimeService", method, message)
    }

    /// Whether the image of that name is known: the plugin hears of an import by an event.
    ///
    /// # Panics
    /// As [`Cri::call`].
    #[must_use]
    pub fn knows_image(&self, name: &str) -> bool {
        let asked = Message::new().message(1, &Message::new().text(1, name));
        let answer = self.service("runtime.v1.ImageService", "ImageStatus", &asked);
        answer.is_ok_and(|status| !status.text(1).is_empty())
    }

    fn service(&self, service: &str, method: &str, message: &Message) -> Result<Fields, Failure> {
        let body = message.encode();
        // gRPC: not compressed, the length, the message.
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(body);
        let request = http::Request::post(format!("http://localhost/{service}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let (head, trailers, body) = self.runtime.block_on(async {
            let requests = self.requests.borrow().clone();
            let mut requests = requests.ready().await.expect("a connection to containerd");
            let (answer, mut sender) = requests.send_request(request, false).expect("send a request");
            sender.send_data(bytes.into(), true).expect("send a message");
            let (head, mut stream) = answer.await.unwrap_or_else(|e| panic!("{method}: {e}")).into_parts();
            let mut body = Vec::new();
            while let Some(chunk) = stream.data().await {
                let chunk = chunk.unwrap_or_else(|e| panic!("{method}: {e}"));
                let _ = stream.flow_control().release_capacity(chunk.len());
                body.extend_from_slice(&chunk);
            }
            let trailers = stream.trailers().await.unwrap_or_else(|e| panic!("{method}: {e}"));
            (head, trailers.unwrap_or_default(), body)
        });
        let header = |name: &str| {
            let value = trailers.get(name).or_else(|| head.headers.get(name));
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
        };
        match header("grpc-status").as_str() {
            "0" => {
                let message = body.get(5..).unwrap_or_default();
                Ok(Fields::decode(message).unwrap_or_else(|e| panic!("{method}: the answer: {e}")))
            }
            code => Err(Failure { code: code.parse().unwrap_or(2), message: header("grpc-message") }),
        }
    }

    fn must(&self, method: &str, message: &Message) -> Fields {
        self.call(method, message).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// Starts a pod.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn run_pod(&self, pod: &Pod) -> String {
        self.try_pod(pod).unwrap_or_else(|e| panic!("RunPodSandbox: {e}"))
    }

    /// Starts a pod that may not be startable.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn try_pod(&self, pod: &Pod) -> Result<String, Failure> {
        Ok(self.call("RunPodSandbox", &Message::new().message(1, &pod.config()))?.text(1))
    }

    /// Its status.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn pod_status(&self, id: &str) -> Fields {
        self.must("PodSandboxStatus", &Message::new().text(1, id)).message(1)
    }

    /// Creates a container of the busybox image; `limit` is of its memory in bytes, none when 0.
    ///
    /// # Panics
    /// When it cannot be created.
    #[track_caller]
    #[must_use]
    pub fn create(&self, pod: (&str, &Pod), name: &str, attempt: u64, script: &str, limit: u64) -> String {
        let (pod_id, pod) = pod;
        let resources = Message::new().number(4, limit).number(10, limit);
        // A process namespace of its own: CONTAINER.
        let own_pids = pod.with_users(Message::new().number(2, 1));
        let metadata = Message::new().text(1, name).number(2, attempt);
        let config = Message::new()
            .message(1, &metadata)
            .message(2, &Message::new().text(1, crate::containerd::IMAGE))
            .bytes(3, b"/bin/sh")
            .bytes(3, b"-c")
            .bytes(3, script.as_bytes())
            .messages(7, &pod.mounts())
            .text(11, format!("{name}-{attempt}.log"))
            .message(
                15,
                &Message::new().message(1, &resources).message(2, &Message::new().message(3, &own_pids)),
            );
        let request = Message::new().text(1, pod_id).message(2, &config).message(3, &pod.config());
        self.must("CreateContainer", &request).text(1)
    }

    /// Starts a container.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn start(&self, id: &str) {
        self.must("StartContainer", &Message::new().text(1, id));
    }

    /// Stops a container, killing it after a number of seconds.
    ///
    /// # Panics
    /// When it does not stop.
    #[track_caller]
    pub fn stop(&self, id: &str, seconds: u64) {
        self.must("StopContainer", &Message::new().text(1, id).number(2, seconds));
    }

    /// Removes a container.
    ///
    /// # Panics
    /// When it cannot be removed.
    #[track_caller]
    pub fn remove(&self, id: &str) {
        self.must("RemoveContainer", &Message::new().text(1, id));
    }

    /// The status of a container: `state` is field 3 (1 running, 2 exited), `exit_code` 7, `reason` 10.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn status(&self, id: &str) -> Fields {
        self.must("ContainerStatus", &Message::new().text(1, id)).message(1)
    }

    /// Whether it says of its default handler that pods may have a user namespace: Kubernetes asks before it starts one.
    ///
    /// # Panics
    /// When it has no status.
    #[track_caller]
    #[must_use]
    pub fn offers_users(&self) -> bool {
        let handlers = self.must("Status", &Message::new()).messages(3);
        let default = handlers.iter().find(|handler| handler.text(1).is_empty());
        default.is_some_and(|handler| handler.message(2).number(2) == 1)
    }

    /// The host's pid of a container's first process.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn pid(&self, id: &str) -> i32 {
        let status = self.must("ContainerStatus", &Message::new().text(1, id).flag(2, true));
        let info = status.pairs(2).into_iter().find(|(key, _)| key == "info").expect("verbose information").1;
        let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
        info["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a pid")
    }

    /// The statistics of a container.
    ///
    /// # Panics
    /// When there are none.
    #[track_caller]
    #[must_use]
    pub fn stats(&self, id: &str) -> Fields {
        self.must("ContainerStats", &Message::new().text(1, id)).message(1)
    }

    /// Runs a script in a container and waits for its end.
    ///
    /// # Panics
    /// When it cannot be run.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, id: &str, script: &str) -> Ran {
        let command = [&b"/bin/sh"[..], b"-c", script.as_bytes()];
        let request = command.iter().fold(Message::new().text(1, id), |message, word| message.bytes(2, word));
        let answer = self.must("ExecSync", &request.number(3, 30));
        Ran { stdout: answer.text(1), stderr: answer.text(2), exit_code: answer.number(3) }
    }

    /// Stops a pod and removes it with its containers.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn remove_pod(&self, id: &str) {
        self.must("StopPodSandbox", &Message::new().text(1, id));
        self.must("RemovePodSandbox", &Message::new().text(1, id));
    }
}

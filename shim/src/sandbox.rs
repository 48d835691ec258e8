//! The Sandbox service: a pod without a pause process. Its namespaces are kept by bind mounts in the sandbox's bundle (see
//! [`crate::namespaces`]); the process that containerd hears of is the shim itself, and containers that ask to join its
//! namespaces are sent to the kept ones.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ketch_shim_api::cri::PodSandboxConfig;
use ketch_shim_api::sandbox as api;
use ketch_shim_api::types::{Metric, Platform};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::error::{self, ShimError};
use crate::namespaces::{self, Namespaces};
use crate::options::RuntimeConfig;
use crate::pod::Pod;
use crate::server::Limits;
use crate::service::Shim;
use crate::task::{decode, encode};
use crate::waiting::Changes;
use crate::{container, log, stats};

const FILE: &str = "ketch-sandbox.json";
const KILL: u32 = 9;

/// What a sandbox is made from and has become; kept in its bundle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    socket: String,
    pub(crate) pod: Pod,
    pub(crate) config: RuntimeConfig,
    pub(crate) namespaces: Namespaces,
    /// The shims it has had: containers may name the namespaces of any.
    pub(crate) pids: Vec<u32>,
    /// In milliseconds since 1970; none before it is started.
    created: Option<u64>,
    /// None before it is stopped.
    stopped: Option<u64>,
}

/// The shim's pod.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) bundle: PathBuf,
    pub(crate) record: RefCell<Record>,
    changing: Mutex<()>,
    stop: Changes,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

impl Sandbox {
    fn new(bundle: &Path, record: Record) -> Self {
        Self {
            bundle: bundle.to_owned(),
            record: RefCell::new(record),
            changing: Mutex::default(),
            stop: Changes::default(),
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.record.borrow().stopped.is_some()
    }

    fn remember(&self) -> Result<(), ShimError> {
        let path = self.bundle.join(FILE);
        let text = serde_json::to_vec(&*self.record.borrow());
        let text = text.map_err(|source| ShimError::Json { path: path.clone(), source })?;
        std::fs::write(&path, text).map_err(ShimError::file("write", &path))
    }
}

/// Carries a call out.
///
/// # Errors
/// The method is not known, its message can't be read, or what it asks for fails.
pub(crate) async fn call(
    shim: &Rc<Shim>,
    method: &str,
    payload: &[u8],
    limits: Limits,
) -> Result<Vec<u8>, ShimError> {
    match method {
        "CreateSandbox" => create(shim, &decode(payload)?).map(|()| encode(api::CreateSandboxResponse {})),
        "StartSandbox" => start(shim, &decode(payload)?, limits).await.map(encode),
        "Platform" => {
            decode::<api::PlatformRequest>(payload)?;
            Ok(encode(api::PlatformResponse { platform: Some(platform()) }))
        }
        "StopSandbox" => {
            let request: api::StopSandboxRequest = decode(payload)?;
            let sandbox = sandbox(shim, &request.sandbox_id)?;
            stop(shim, &sandbox, limits).await?;
            Ok(encode(api::StopSandboxResponse {}))
        }
        "WaitSandbox" => {
            let request: api::WaitSandboxRequest = decode(payload)?;
            Ok(encode(wait(&*sandbox(shim, &request.sandbox_id)?).await))
        }
        "SandboxStatus" => status(shim, &decode(payload)?).map(encode),
        "PingSandbox" => {
            let request: api::PingRequest = decode(payload)?;
            sandbox(shim, &request.sandbox_id)?;
            Ok(encode(api::PingResponse {}))
        }
        "ShutdownSandbox" => {
            let request: api::ShutdownSandboxRequest = decode(payload)?;
            shutdown(shim, &request.sandbox_id, limits).await?;
            Ok(encode(api::ShutdownSandboxResponse {}))
        }
        "SandboxMetrics" => {
            let request: api::SandboxMetricsRequest = decode(payload)?;
            Ok(encode(metrics(&*sandbox(shim, &request.sandbox_id)?)))
        }
        _ => Err(ShimError::Unimplemented(format!("method {method}"))),
    }
}

fn sandbox(shim: &Shim, id: &str) -> Result<Rc<Sandbox>, ShimError> {
    let found = shim.sandbox.borrow().clone().filter(|sandbox| sandbox.record.borrow().id == id);
    found.ok_or_else(|| ShimError::NotFound(format!("sandbox {id} does not exist")))
}

fn create(shim: &Shim, request: &api::CreateSandboxRequest) -> Result<(), ShimError> {
    if shim.sandbox.borrow().is_some() {
        return Err(ShimError::AlreadyExists(format!("sandbox {} already exists", request.sandbox_id)));
    }
    if !request.rootfs.is_empty() {
        return Err(ShimError::Invalid("a sandbox without a process has no root file system".into()));
    }
    // Options that are no pod's are the runtime's; else those are what `start` was given.
    let options = request.options.as_ref();
    let pod = options.map(ketch_shim_api::wire::Any::unpack::<PodSandboxConfig>).transpose();
    let pod = pod.map_err(|source| ShimError::Decode { what: "the pod", source })?.flatten();
    let bundle = Path::new(&request.bundle_path);
    let config = if options.is_some() && pod.is_none() {
        RuntimeConfig::decode(options)?
    } else {
        container::options(bundle)
    };
    let pod = Pod::new(&pod.unwrap_or_default(), &request.netns_path)?;
    let record = Record {
        id: request.sandbox_id.clone(),
        socket: shim.socket.to_string_lossy().into_owned(),
        pod,
        config,
        namespaces: Namespaces::default(),
        pids: vec![std::process::id()],
        created: None,
        stopped: None,
    };
    let sandbox = Sandbox::new(bundle, record);
    sandbox.remember()?;
    *shim.sandbox.borrow_mut() = Some(Rc::new(sandbox));
    Ok(())
}

async fn start(
    shim: &Rc<Shim>,
    request: &api::StartSandboxRequest,
    limits: Limits,
) -> Result<api::StartSandboxResponse, ShimError> {
    let sandbox = sandbox(shim, &request.sandbox_id)?;
    let _changing = sandbox.changing.lock().await;
    let record = sandbox.record.borrow().clone();
    if record.created.is_some() {
        return Err(ShimError::Precondition(format!("sandbox {} has been started", record.id)));
    }
    let runtime =
        container::runtime_for(&record.config, &sandbox.bundle, &shim.namespace, &shim.default_runtime);
    let made = namespaces::make(shim, &runtime, &sandbox.bundle, &record.id, &record.pod, limits).await;
    let created = now();
    {
        let mut record = sandbox.record.borrow_mut();
        record.namespaces = made?;
        record.created = Some(created);
    }
    sandbox.remember()?;
    Ok(api::StartSandboxResponse {
        pid: std::process::id(),
        created_at: Some(at(created).into()),
        spec: None,
    })
}

fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() }
}

/// Ends what still runs in the pod, and its namespaces. A second stop finds nothing to do.
async fn stop(shim: &Rc<Shim>, sandbox: &Sandbox, limits: Limits) -> Result<(), ShimError> {
    let _changing = sandbox.changing.lock().await;
    if sandbox.is_stopped() {
        return Ok(());
    }
    let containers: Vec<_> = shim.containers.borrow().values().cloned().collect();
    for one in containers.iter().filter(|one| one.init.finished().is_none() && one.init.pid.get() != 0) {
        let killed = one.runtime.kill(shim.reaper.as_ref(), &one.id, KILL, false, limits.runtime()).await;
        if let Err(error) = killed
            && !error.is_finished()
            && !error.is_no_container()
        {
            return Err(ShimError::runtime("stop the sandbox")(error));
        }
        if tokio::time::timeout(limits.runtime(), one.init.wait()).await.is_err() {
            return Err(ShimError::Deadline(format!("container {} does not end", one.id)));
        }
    }
    namespaces::unmake(&sandbox.bundle);
    sandbox.record.borrow_mut().stopped = Some(now());
    sandbox.stop.tell();
    sandbox.remember()
}

async fn wait(sandbox: &Sandbox) -> api::WaitSandboxResponse {
    let stopped = sandbox.stop.until(|| sandbox.record.borrow().stopped).await;
    api::WaitSandboxResponse { exit_status: 0, exited_at: Some(at(stopped).into()) }
}

fn status(shim: &Shim, request: &api::SandboxStatusRequest) -> Result<api::SandboxStatusResponse, ShimError> {
    let sandbox = sandbox(shim, &request.sandbox_id)?;
    let record = sandbox.record.borrow();
    let ready = record.created.is_some() && record.stopped.is_none();
    let mut info = std::collections::BTreeMap::new();
    if request.verbose {
        let containers: Vec<_> = shim.containers.borrow().keys().cloned().collect();
        info.insert("containers".to_owned(), containers.join(","));
        info.insert("cgroupParent".to_owned(), record.pod.cgroup_parent.clone());
        for (kind, path) in record.namespaces.kept() {
            info.insert(format!("{kind}Namespace"), path.to_owned());
        }
    }
    Ok(api::SandboxStatusResponse {
        sandbox_id: record.id.clone(),
        pid: std::process::id(),
        state: if ready { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" }.to_owned(),
        info,
        created_at: record.created.map(|created| at(created).into()),
        exited_at: record.stopped.map(|stopped| at(stopped).into()),
        extra: None,
    })
}

/// Stops the sandbox and ends the shim. One that is not there, as after a failed creation, has nothing to stop.
async fn shutdown(shim: &Rc<Shim>, id: &str, limits: Limits) -> Result<(), ShimError> {
    if let Ok(sandbox) = sandbox(shim, id) {
        stop(shim, &sandbox, limits).await?;
        let _gone = std::fs::remove_file(sandbox.bundle.join(FILE));
    }
    if shim.has_containers() {
        return Err(ShimError::Precondition(format!("sandbox {id} still has containers")));
    }
    shim.leave();
    Ok(())
}

/// What the pod's cgroup has used.
fn metrics(sandbox: &Sandbox) -> api::SandboxMetricsResponse {
    let record = sandbox.record.borrow();
    let data = stats::of_path(&record.pod.cgroup_parent);
    let metrics =
        Metric { timestamp: Some(SystemTime::now().into()), id: record.id.clone(), data: Some(data) };
    api::SandboxMetricsResponse { metrics: Some(metrics) }
}

/// The sandbox of a shim that died, if the current folder is its bundle.
pub(crate) fn take_over(shim: &Shim, bundle: &Path) {
    let Ok(text) = std::fs::read(bundle.join(FILE)) else { return };
    match serde_json::from_slice::<Record>(&text) {
        Ok(mut record) if Path::new(&record.socket) == shim.socket => {
            record.pids.push(std::process::id());
            let sandbox = Sandbox::new(bundle, record);
            if let Err(error) = sandbox.remember() {
                log::warn(&error::chain(&error));
            }
            *shim.sandbox.borrow_mut() = Some(Rc::new(sandbox));
        }
        Ok(_) => {}
        Err(error) => log::error(&format!("read the sandbox in {}: {error}", bundle.display())),
    }
}

/// What a dead shim has left of a sandbox.
pub(crate) fn clean_up(bundle: &Path) {
    if std::fs::remove_file(bundle.join(FILE)).is_ok() {
        namespaces::unmake(bundle);
    }
}

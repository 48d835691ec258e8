//! Starts a shim as each age of containerd does, and connects to it.
//!
//! Called by the `shim_` tests and the bench. The shim lives in a [`Site`]: its socket, below /run/containerd, is seen from
//! here through /proc.

use std::fs;
use std::path::{Path, PathBuf};

use super::Shim;
use super::protobuf::{Fields, Message, any};
use super::stream::{Stream, make_fifo};
use super::task::Tasks;
use super::ttrpc::Client;
use crate::bundle::Bundle;
use crate::case::Case;
use crate::runtime::{Invocation, Output};
use crate::site::Site;

/// What containerd hands over and expects back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// 1.6 and 1.7: flags, and the options on standard input; an address, or JSON, comes back.
    Plain,
    /// 2.0 to 2.2: the same, with the highest version that containerd takes; JSON comes back.
    Json,
    /// 2.3: BootstrapParams on standard input; BootstrapResult comes back.
    Params,
}

/// How a shim is to be started.
#[derive(Debug)]
pub struct Bootstrap<'a> {
    pub site: &'a Site<'a>,
    pub shim: Shim,
    pub form: Form,
    pub namespace: String,
    pub id: String,
    pub bundle: PathBuf,
    /// Where containerd takes events.
    pub events: PathBuf,
    /// An Any, as [`options`] makes it.
    pub options: Option<Message>,
}

/// A shim that answered `start`.
#[derive(Debug)]
pub struct Served {
    /// As the shim says it.
    pub address: String,
    pub version: u64,
    pub tasks: Tasks,
    pub log: Option<Stream>,
}

/// The option `root`: shims have the runtime keep its state in a folder of containerd's namespace below it.
#[must_use]
pub fn runtime_root(case: &Case) -> PathBuf {
    case.dir.join("runtimes")
}

/// Where the runtime keeps the state of a container of the case.
#[must_use]
pub fn runtime_state(case: &Case, id: &str) -> PathBuf {
    runtime_root(case).join(&case.tag).join(id)
}

/// runc's options with the runtime under test and a root of the case's, as an Any.
#[must_use]
pub fn options(case: &Case) -> Message {
    any("containerd.runc.v1.Options", runc_options(case).encode())
}

/// The same, before it is wrapped.
#[must_use]
pub fn runc_options(case: &Case) -> Message {
    Message::new().text(6, case.runtime.path.to_string_lossy()).text(7, runtime_root(case).to_string_lossy())
}

impl<'a> Bootstrap<'a> {
    /// Of a bundle, in the form of containerd 1.6.
    ///
    /// # Panics
    /// When config.json cannot be written.
    #[must_use]
    pub fn new(site: &'a Site<'a>, shim: &Shim, bundle: &Bundle<'_>, events: &Path) -> Self {
        bundle.write();
        // containerd's link to a folder for things beside the bundle; a checkpoint works in there.
        fs::create_dir_all(bundle.dir.join("work")).expect("make the bundle's work folder");
        Self {
            site,
            shim: shim.clone(),
            form: Form::Plain,
            namespace: site.case.tag.clone(),
            id: bundle.id.clone(),
            bundle: bundle.dir.clone(),
            events: events.to_owned(),
            options: Some(options(site.case)),
        }
    }

    #[must_use]
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// containerd's own socket, which nobody listens at: events go to the one with `.ttrpc`, which it tells apart.
    #[must_use]
    pub fn grpc_address(&self) -> String {
        self.events.display().to_string().trim_end_matches(".ttrpc").to_owned()
    }

    /// The shim's binary with flags in the form's way, not yet run; `action` is `start` or `delete`.
    #[must_use]
    pub fn command(&self, action: &str) -> Invocation {
        let grpc = self.grpc_address();
        let command = self
            .site
            .command_in(&self.bundle, &self.shim.path)
            .env("PATH", self.site.path_variable())
            .env("TTRPC_ADDRESS", &self.events)
            .env("GRPC_ADDRESS", &grpc)
            .env("NAMESPACE", &self.namespace)
            .env("GOMAXPROCS", "2")
            .args([
                "-namespace",
                &self.namespace,
                "-address",
                &grpc,
                "-publish-binary",
                "/usr/bin/containerd",
            ])
            .args(["-id", &self.id]);
        let command = if action == "delete" { command.arg("-bundle").arg(&self.bundle) } else { command };
        let command = command.arg(action);
        match (self.form, &self.options) {
            (Form::Plain, Some(options)) => command.stdin(options.encode()),
            (Form::Plain, None) => command,
            (Form::Json, Some(options)) => command.env("MAX_SHIM_VERSION", "2").stdin(options.encode()),
            (Form::Json, None) => command.env("MAX_SHIM_VERSION", "2").stdin(Vec::new()),
            (Form::Params, options) => {
                let extensions =
                    options.iter().map(|options| Message::new().message(1, options)).collect::<Vec<_>>();
                let params = Message::new()
                    .text(1, &self.id)
                    .text(2, &self.namespace)
                    .text(4, "2.3.0")
                    .text(5, self.events.to_string_lossy())
                    .text(6, &grpc)
                    .text(7, "/usr/bin/containerd")
                    .messages(8, &extensions);
                command.env("MAX_SHIM_VERSION", "3").stdin(params.encode())
            }
        }
    }

    /// Runs `start` and connects to the address that it gives.
    ///
    /// # Panics
    /// When it fails, says something else too, or there is nobody at the address.
    #[must_use]
    pub fn start(&self) -> Served {
        let fifo = self.bundle.join("log");
        // The shim of 1.6 opens it for writing and waits for the reader.
        if !fifo.exists() {
            make_fifo(&fifo);
        }
        let log = Stream::open_held(&fifo);
        let served = self.read(&self.command("start").run().ok());
        Served { log: Some(log), ..served }
    }

    /// Reads the answer to `start` and connects.
    ///
    /// # Panics
    /// When it is no answer, or there is nobody at the address.
    #[must_use]
    pub fn read(&self, output: &Output) -> Served {
        // containerd reads both together.
        assert_eq!(output.stderr, "", "on success nothing may be on standard error: {output}");
        let (address, version) = parse(output).unwrap_or_else(|e| panic!("{e}: {output}"));
        let client = self.connect(&address);
        Served { tasks: Tasks::new(client, version), address, version, log: None }
    }

    /// Connects to a shim's address.
    ///
    /// # Panics
    /// When there is nobody.
    #[must_use]
    pub fn connect(&self, address: &str) -> Client {
        let path = self.socket(address);
        Client::connect(&path).unwrap_or_else(|e| panic!("connect to {}: {e}", path.display()))
    }

    /// The socket of an address, as seen from here.
    #[must_use]
    pub fn socket(&self, address: &str) -> PathBuf {
        self.site.seen_from_outside(Path::new(address.trim_start_matches("unix://")))
    }
}

/// The address and the version of the task API, as containerd finds them: protobuf, then JSON, then plain text.
fn parse(output: &Output) -> Result<(String, u64), String> {
    let bytes = output.bytes();
    if bytes.starts_with(b"{") {
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if value["protocol"] != "ttrpc" {
            return Err(format!("protocol {}", value["protocol"]));
        }
        let address = value["address"].as_str().ok_or("no address")?;
        return Ok((address.to_owned(), value["version"].as_u64().ok_or("no version")?));
    }
    if bytes.starts_with(b"unix://") {
        return Ok((String::from_utf8_lossy(&bytes).trim().to_owned(), 2));
    }
    let fields = Fields::decode(&bytes)?;
    if fields.text(3) != "ttrpc" {
        return Err(format!("no BootstrapResult: {fields:?}"));
    }
    Ok((fields.text(2), fields.number(1)))
}

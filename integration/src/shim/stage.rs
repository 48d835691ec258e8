//! Where shims are driven without containerd: a site, a sink of their events, and the options that every task gets.
//!
//! Called by the `shim_` tests and the bench.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::bootstrap::{Bootstrap, Form, Served, options, runtime_root};
use super::events::Sink;
use super::protobuf::Message;
use super::stream::Stream;
use super::task::{Create, Status};
use super::{Maker, Shim};
use crate::bundle::Bundle;
use crate::case::Case;
use crate::site::Site;
use crate::wait::wait_until;

/// The namespaces that shims live in, and what is around them.
#[derive(Debug)]
pub struct Stage<'a> {
    pub case: &'a Case,
    pub site: Site<'a>,
    pub shim: Shim,
    pub sink: Sink,
    pub options: Message,
}

impl<'a> Stage<'a> {
    /// With the shim under test.
    #[must_use]
    pub fn new(case: &'a Case) -> Self {
        Self::with_shim(case, Shim::under_test(case))
    }

    /// With a shim.
    #[must_use]
    pub fn with_shim(case: &'a Case, shim: Shim) -> Self {
        let sink = Sink::bind(&case.dir.join("events.sock.ttrpc"));
        let site = Site::new(case);
        // What the shim starts when nobody names a runtime, as for a pod's namespaces.
        fs::create_dir_all(site.path("bin")).expect("make the folder of programs");
        symlink(&case.runtime.path, site.path("bin/ketch")).expect("link the runtime");
        Self { case, site, shim, sink, options: options(case) }
    }

    /// How the shim of a bundle is started, in the form that fits the shim.
    #[must_use]
    pub fn bootstrap(&self, bundle: &Bundle<'_>) -> Bootstrap<'_> {
        let form = match self.shim.maker {
            Maker::Go16 => Form::Plain,
            Maker::Go2 | Maker::Ketch => Form::Json,
        };
        Bootstrap::new(&self.site, &self.shim, bundle, &self.sink.path).form(form)
    }

    /// Starts the shim of a bundle.
    #[must_use]
    pub fn serve(&self, bundle: &Bundle<'_>) -> Served {
        self.bootstrap(bundle).start()
    }

    /// A new fifo that is read by a thread.
    #[must_use]
    pub fn stream(&self, name: &str) -> Stream {
        Stream::new(&self.path(name))
    }

    /// A path in the case's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.case.dir.join(name)
    }

    /// Create with the options of the stage.
    #[must_use]
    pub fn create(&self, bundle: &Bundle<'_>) -> Create {
        Create::new(bundle, Some(&self.options))
    }

    /// Starts a shim and in it the bundle's container, whose standard output is the stream.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn run(&self, bundle: &Bundle<'_>) -> (Served, Stream) {
        let served = self.serve(bundle);
        let stdout = self.stream(&format!("{}.out", bundle.id));
        served.tasks.run(&self.create(bundle).stdout(&stdout));
        assert_eq!(served.tasks.status(&bundle.id, ""), Ok(Status::Running));
        (served, stdout)
    }

    /// A container that runs and keeps its shim there, while others come and go in that one.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn keeper(&self) -> (Bundle<'a>, Served) {
        let bundle = self.case.bundle().sleeper();
        let served = self.serve(&bundle);
        let _ = served.tasks.run(&self.create(&bundle));
        (bundle, served)
    }

    /// The pids of the shims that serve in the site.
    #[must_use]
    pub fn shims(&self) -> Vec<i32> {
        self.site.processes("containerd-shim")
    }

    /// Nothing may be left: no shim, no socket, no state of the runtime's, no mount.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn end(self) {
        self.site.wait_without("containerd-shim");
        let sockets = self.site.seen_from_outside(Path::new("/run/containerd/s"));
        let sockets = || fs::read_dir(&sockets).into_iter().flatten().flatten().map(|entry| entry.path());
        wait_until("no socket left", || match sockets().next() {
            None => Ok(()),
            Some(path) => Err(path.display().to_string()),
        });
        let state =
            fs::read_dir(runtime_root(self.case).join(&self.case.tag)).into_iter().flatten().flatten();
        let state: Vec<_> = state.map(|entry| entry.path()).collect();
        assert!(state.is_empty(), "the runtime still knows of {state:?}");
        let mounts = self.mounts();
        assert!(mounts.is_empty(), "left mounted: {mounts:?}");
    }

    /// The mounts in the site whose place is in the case's folder.
    #[must_use]
    pub fn mounts(&self) -> Vec<String> {
        self.site.mounts(&self.case.dir)
    }
}

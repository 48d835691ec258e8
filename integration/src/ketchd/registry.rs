//! Debian's docker-registry in an engine's site: plain on loopback or for others, or with TLS by a CA of its own and a user's
//! password.
//!
//! Called by the tests of images, and by the mesh.

use std::fs;
use std::path::{Path, PathBuf};

use crate::site::{Daemon, Site};

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`, as the first part of an image's name.
    pub address: String,
    /// Its folder of blobs.
    pub folder: PathBuf,
    log: PathBuf,
    daemon: Daemon,
}

/// Who may speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everybody, without TLS.
    None,
    /// `user` with the password `secret`, by TLS; the CA is in the folder that daemons look in.
    Password,
    /// Who has a certificate of the same CA.
    Certificate,
}

impl Registry {
    /// Starts it; the site's network namespace is its own, so that the port is free.
    ///
    /// # Panics
    /// When it does not start, or docker-registry is not installed.
    #[must_use]
    pub fn start(site: &Site<'_>, guard: Guard) -> Self {
        site.case
            .needs(site.case.has_program("docker-registry"), "no docker-registry (package docker-registry)");
        if guard == Guard::Certificate {
            let _ = site.run("ip", ["address", "add", "10.97.0.1/32", "dev", "lo"]).ok();
        }
        let folder = site.path(&format!("registry-{guard:?}"));
        fs::create_dir_all(&folder).expect("make the registry's folder");
        let address = match guard {
            Guard::None => "127.0.0.1:5000",
            Guard::Password => "127.0.0.1:5443",
            // Loopback is asked without a look at certificates, the client's own too.
            Guard::Certificate => "10.97.0.1:5444",
        };
        let mut text = settings(&folder, address, AccessLog::Off);
        if guard != Guard::None {
            let script = r#"
                set -e
                cd "$0"
                openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt 2>/dev/null
                openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout key.pem -out request.pem 2>/dev/null
                echo "subjectAltName=IP:${1%:*}" >extensions
                openssl x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out cert.pem 2>/dev/null
                openssl req -newkey rsa:2048 -nodes -subj /CN=user -keyout client.key -out request.pem 2>/dev/null
                openssl x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out client.cert 2>/dev/null
                htpasswd -Bbn user secret >passwords
                mkdir -p /etc/docker
                mount -t tmpfs site /etc/docker
                mkdir -p /etc/docker/certs.d/$1
                cp ca.crt /etc/docker/certs.d/$1/ca.crt
            "#;
            let made = site.command("sh").args(["-c", script]).arg(&folder).arg(address).run().ok();
            drop(made);
            let path = folder.display();
            text.push_str(&format!("  tls:\n    certificate: {path}/cert.pem\n    key: {path}/key.pem\n"));
            text.push_str(&match guard {
                Guard::Certificate => format!("    clientcas: [{path}/ca.crt]\n"),
                _ => format!("auth:\n  htpasswd:\n    realm: test\n    path: {path}/passwords\n"),
            });
        }
        Self::serve(site, address, folder, &text)
    }

    /// Starts one without TLS at an address of the site's, which others on its network reach.
    ///
    /// # Panics
    /// When it does not start, or docker-registry is not installed.
    #[must_use]
    pub fn for_others(site: &Site<'_>, address: &str) -> Self {
        site.case
            .needs(site.case.has_program("docker-registry"), "no docker-registry (package docker-registry)");
        let folder = site.path("registry");
        fs::create_dir_all(&folder).expect("make the registry's folder");
        let text = settings(&folder, address, AccessLog::On);
        Self::serve(site, address, folder, &text)
    }

    fn serve(site: &Site<'_>, address: &str, folder: PathBuf, text: &str) -> Self {
        let file = folder.join("config.yml");
        fs::write(&file, text).expect("write the registry's configuration");
        let mut daemon = site.daemon("docker-registry", [std::ffi::OsStr::new("serve"), file.as_os_str()]);
        let log = site.path("docker-registry.log");
        let listens = format!("listening on {address}");
        daemon.wait_ready(|| fs::read_to_string(&log).is_ok_and(|text| text.contains(&listens)));
        Self { address: address.into(), folder, log, daemon }
    }

    /// What it was asked for, of one that is for others: each line has the method and the path.
    ///
    /// # Panics
    /// When its log can't be read.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).expect("read the registry's log");
        text.lines()
            .filter_map(|line| Some(line.split_once("] \"")?.1.split_once(" HTTP/")?.0.to_owned()))
            .collect()
    }

    /// Puts a certificate that it accepts where daemons look for theirs.
    ///
    /// # Panics
    /// When it cannot be put there.
    pub fn give_certificate(&self, site: &Site<'_>) {
        let script = "cp \"$0/client.cert\" \"$0/client.key\" \"/etc/docker/certs.d/$1/\"";
        let put = site.command("sh").args(["-c", script]).arg(&self.folder).arg(&self.address).run().ok();
        drop(put);
    }

    /// Has it end.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn stop(self) {
        self.daemon.stop();
    }
}

/// Whether each request is told in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AccessLog {
    Off,
    On,
}

/// The beginning of its configuration.
fn settings(folder: &Path, address: &str, log: AccessLog) -> String {
    let is_off = log == AccessLog::Off;
    format!(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: {is_off}\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
        folder.display()
    )
}

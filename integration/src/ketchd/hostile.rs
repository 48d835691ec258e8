//! Layers that no tool would write: tars made byte by byte, and images of them.
//!
//! Called by the tests of hostile images.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::archive::sha256;
use crate::site::Site;

/// A member's header as tar has it, whatever it says.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: Vec<u8>,
    /// `b'0'` a file, `b'1'` a hard link, `b'2'` a symlink, `b'3'` a character device, `b'5'` a folder, `b'x'` PAX records.
    pub kind: u8,
    pub link: Vec<u8>,
    /// The field's twelve bytes; none: the length of the data.
    pub size: Option<[u8; 12]>,
    pub data: Vec<u8>,
    pub mode: u32,
}

/// A member of this name and kind.
#[must_use]
pub fn member(name: impl AsRef<[u8]>, kind: u8) -> Member {
    Member {
        name: name.as_ref().to_vec(),
        kind,
        link: Vec::new(),
        size: None,
        data: Vec::new(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
    }
}

impl Member {
    #[must_use]
    pub fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.link = target.as_ref().to_vec();
        self
    }

    #[must_use]
    pub fn data(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.data = bytes.as_ref().to_vec();
        self
    }

    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The size that the header states.
    #[must_use]
    pub fn stating(mut self, field: [u8; 12]) -> Self {
        self.size = Some(field);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}\0", self.mode).as_bytes());
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        let size = format!("{:011o}\0", self.data.len());
        put(124, self.size.as_ref().map_or(size.as_bytes(), |field| field.as_slice()));
        put(136, b"00000000000\0");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, b"0000001\0");
        put(337, b"0000003\0");
        put(148, b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

/// PAX records in front of the next member.
#[must_use]
pub fn pax(records: &[(&str, &[u8])]) -> Member {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        data.extend([length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", *value, b"\n"].concat());
    }
    member("PaxHeaders.0/records", b'x').data(data)
}

/// An archive of them.
#[must_use]
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(Member::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A docker archive whose one image has these layers, as they are: their digests are right.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn archive(site: &Site<'_>, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let digests: Vec<_> = layers.iter().map(|layer| format!("\"sha256:{}\"", digest(site, layer))).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        digests.join(",")
    );
    archive_with(site, name, layers, config.as_bytes())
}

/// The same with another config.
///
/// # Panics
/// When it cannot be written.
#[must_use]
pub fn archive_with(site: &Site<'_>, name: &str, layers: &[Vec<u8>], config: &[u8]) -> PathBuf {
    let names: Vec<_> = (0..layers.len()).map(|number| format!("layer{number}.tar")).collect();
    let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":[{}]}}]"#, quoted.join(","));
    let mut members =
        vec![member("manifest.json", b'0').data(manifest), member("config.json", b'0').data(config)];
    members.extend(names.iter().zip(layers).map(|(name, layer)| member(name, b'0').data(layer)));
    let path = site.path(&format!("hostile-{}.tar", name.replace([':', '/'], "-")));
    fs::write(&path, tar(&members)).expect("write the archive");
    path
}

/// Of bytes, in hexadecimal.
///
/// # Panics
/// When the folder of the site can't be written to.
#[must_use]
pub fn digest(site: &Site<'_>, bytes: &[u8]) -> String {
    let file = site.path("bytes-to-sum");
    fs::write(&file, bytes).expect("write bytes");
    sha256(&file)
}

/// By gzip.
///
/// # Panics
/// When there is no gzip.
#[must_use]
pub fn gzip(site: &Site<'_>, bytes: &[u8]) -> Vec<u8> {
    let file = site.path("bytes-to-pack");
    fs::write(&file, bytes).expect("write bytes");
    let out = Command::new("gzip").args(["-n", "-c"]).arg(&file).output().expect("run gzip");
    assert!(out.status.success(), "gzip: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

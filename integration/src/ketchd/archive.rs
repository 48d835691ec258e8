//! Images of busybox, written as `docker save` writes them.
//!
//! Called by [`super::Engine`] and the tests of images.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::site::Site;

/// What busybox stands in for; a test that needs another applet calls `busybox NAME`.
const APPLETS: &[&str] = &[
    "sh", "ash", "true", "false", "echo", "sleep", "ps", "id", "cat", "head", "tail", "ls", "grep", "stat",
    "env", "pwd", "kill", "mount", "umount", "touch", "rm", "mkdir", "wc", "od", "dd", "hostname", "ip",
    "nc", "httpd", "wget", "nslookup", "ping", "sed", "awk", "tr", "sort", "cut", "test", "printf", "date",
    "df", "du", "chmod", "chown", "ln", "mv", "cp", "find", "xargs", "seq", "stty", "tty", "whoami",
    "readlink", "yes", "nproc", "sysctl", "chroot", "mknod", "ulimit", "uname", "timeout", "trap", "tar",
    "sync", "mktemp", "basename",
];

/// Writes `busybox:latest` as a docker archive.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn busybox(site: &Site<'_>) -> PathBuf {
    let root = site.path("busybox");
    for folder in ["bin", "etc", "tmp", "root", "home", "var", "usr", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(folder)).expect("make the image's folders");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy busybox (package busybox-static)");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).expect("write passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n").expect("write group");
    run(Command::new("chmod").arg("1777").arg(root.join("tmp")));
    let config =
        r#""Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]"#;
    docker_archive(site, "busybox:latest", &root, config)
}

/// Packs a root folder into an archive of one layer; `config` is the inside of the image's `config` object.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn docker_archive(site: &Site<'_>, name: &str, root: &Path, config: &str) -> PathBuf {
    let folder = site.path(&format!("archive-{}", name.replace([':', '/'], "-")));
    fs::create_dir_all(&folder).expect("make the archive's folder");
    let layer = folder.join("layer.tar");
    // The same bytes each time, so that the same digests.
    run(Command::new("tar")
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(&layer)
        .arg("."));
    let diff = sha256(&layer);
    let image = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","config":{{{config}}},"history":[{{"created":"2026-01-02T03:04:05Z","created_by":"the test's own hands"}}],"rootfs":{{"type":"layers","diff_ids":["sha256:{diff}"]}}}}"#
    );
    fs::write(folder.join("config.json"), image).expect("write the image's configuration");
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":["layer.tar"]}}]"#);
    fs::write(folder.join("manifest.json"), manifest).expect("write the archive's manifest");
    let tar = folder.with_extension("tar");
    run(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&tar).args([
        "manifest.json",
        "config.json",
        "layer.tar",
    ]));
    tar
}

/// An image of so many layers, each with one file of `size` bytes that do not compress, as a docker archive.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn of_layers(site: &Site<'_>, name: &str, layers: usize, size: usize) -> PathBuf {
    let folder = site.path("archive-of-layers");
    fs::create_dir_all(&folder).expect("make the archive's folder");
    let (mut files, mut diffs) = (Vec::new(), Vec::new());
    for number in 0..layers {
        let root = folder.join(format!("root{number}"));
        fs::create_dir_all(root.join(format!("layer{number}"))).expect("make a layer's folder");
        // A generator of Marsaglia's: the same bytes each time, and another layer's are others.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
        let mut bytes = Vec::with_capacity(size);
        while bytes.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        fs::write(root.join(format!("layer{number}/file")), bytes).expect("write a layer's file");
        let layer = folder.join(format!("layer{number}.tar"));
        run(Command::new("tar")
            .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-C"])
            .arg(&root)
            .arg("-cf")
            .arg(&layer)
            .arg(format!("layer{number}")));
        diffs.push(format!("\"sha256:{}\"", sha256(&layer)));
        files.push(format!("layer{number}.tar"));
    }
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diffs.join(",")
    );
    fs::write(folder.join("config.json"), config).expect("write the image's configuration");
    let names: Vec<_> = files.iter().map(|file| format!("\"{file}\"")).collect();
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":[{}]}}]"#, names.join(","));
    fs::write(folder.join("manifest.json"), manifest).expect("write the archive's manifest");
    let tar = folder.with_extension("tar");
    let members = ["manifest.json", "config.json"].into_iter().chain(files.iter().map(String::as_str));
    run(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&tar).args(members));
    tar
}

/// A file's digest, in hexadecimal.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn sha256(file: &Path) -> String {
    let out = Command::new("sha256sum").arg(file).output().expect("run sha256sum");
    String::from_utf8_lossy(&out.stdout).split(' ').next().unwrap_or_default().to_owned()
}

fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}

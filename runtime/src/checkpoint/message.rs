//! criu's messages: what a request is made of, and what an answer says. The numbers are those of criu's `rpc.proto`.

use std::os::unix::ffi::OsStrExt;

use super::wire::{Fields, WireError, Writer};
use crate::plan::criu::{CgroupsMode, CriuOptions, NetworkContents};

/// What is asked for, or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: an error before the request was understood.
    Empty,
    /// Save.
    Dump,
    /// Bring back.
    Restore,
    /// Save memory only.
    PreDump,
    /// criu waits at a point of its way.
    Notify,
    /// What criu and the kernel can do.
    FeatureCheck,
    /// Which criu it is.
    Version,
    /// Something that is never asked for here.
    Other(u64),
}

impl Kind {
    const KNOWN: [(Self, u64, &'static str); 7] = [
        (Self::Empty, 0, "EMPTY"),
        (Self::Dump, 1, "DUMP"),
        (Self::Restore, 2, "RESTORE"),
        (Self::PreDump, 13, "SINGLE_PRE_DUMP"),
        (Self::Notify, 6, "NOTIFY"),
        (Self::FeatureCheck, 9, "FEATURE_CHECK"),
        (Self::Version, 10, "VERSION"),
    ];

    fn number(self) -> u64 {
        if let Self::Other(number) = self {
            return number;
        }
        Self::KNOWN.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, number, _)| *number)
    }

    fn of(number: u64) -> Self {
        Self::KNOWN
            .iter()
            .find(|(_, known, _)| *known == number)
            .map_or(Self::Other(number), |(kind, ..)| *kind)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::KNOWN.iter().find(|(kind, ..)| kind == self) {
            Some((_, _, name)) => f.write_str(name),
            None => write!(f, "{}", self.number()),
        }
    }
}

/// What criu and the kernel can do, or are asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// The kernel tells which pages were written to.
    pub memory_tracking: bool,
    /// Pages can be brought in when they are touched.
    pub lazy_pages: bool,
}

/// The folders of a request, by the numbers that they have in the process that made the socket: criu finds them below
/// `/proc/<that process>/fd`.
#[derive(Debug, Clone, Copy)]
pub struct Folders {
    /// The images.
    pub images: i32,
    /// The log, if it is another folder's.
    pub work: Option<i32>,
}

/// A request without options.
#[must_use]
pub fn bare(kind: Kind) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, kind.number());
    request.finish()
}

/// A request about features.
#[must_use]
pub fn feature_check(asked: Features) -> Vec<u8> {
    let mut features = Writer::default();
    features.switch(1, asked.memory_tracking);
    features.switch(2, asked.lazy_pages);
    let mut request = Writer::default();
    request.number(1, Kind::FeatureCheck.number());
    request.message(5, features);
    request.finish()
}

/// The answer to a notification.
#[must_use]
pub fn notified(success: bool) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, Kind::Notify.number());
    request.switch(3, success);
    request.finish()
}

/// A request with options.
#[must_use]
pub fn request(kind: Kind, options: &CriuOptions, folders: Folders) -> Vec<u8> {
    let mut request = Writer::default();
    request.number(1, kind.number());
    request.message(2, write_options(options, folders));
    request.finish()
}

/// `CLONE_NEWNET`.
const EMPTY_NETWORK: u64 = 0x4000_0000;
/// Everything but the most talkative.
const LOG_LEVEL: i32 = 4;

fn write_options(options: &CriuOptions, folders: Folders) -> Writer {
    let shared = &options.shared;
    let mut out = Writer::default();
    out.integer(1, folders.images);
    if let Some(pid) = options.pid {
        out.integer(2, pid);
    }
    out.switch(3, options.leave_running);
    out.switch(4, shared.ext_unix_sk);
    out.switch(5, shared.tcp_established);
    out.switch(6, options.evasive_devices);
    out.switch(7, shared.shell_job);
    out.switch(8, shared.file_locks);
    out.integer(9, LOG_LEVEL);
    out.bytes(10, options.log_file.as_bytes());
    if let Some(server) = &options.page_server {
        let mut address = Writer::default();
        address.bytes(1, server.address.as_bytes());
        address.integer(2, server.port.into());
        out.message(11, address);
    }
    out.switch(12, true);
    out.bytes(13, options.root.as_os_str().as_bytes());
    if let Some(parent) = &options.parent_image {
        out.bytes(14, parent.as_bytes());
        out.switch(15, true);
    }
    out.switch(16, shared.auto_dedup);
    if let Some(work) = folders.work {
        out.integer(17, work);
    }
    out.switch(18, options.link_remap);
    for (key, value) in &options.mounts {
        out.message(23, pair(key, value));
    }
    out.switch(24, true);
    for (controllers, path) in &options.cgroup_roots {
        out.message(25, pair(controllers, path));
    }
    if options.sibling {
        out.switch(26, true);
    }
    for inherited in &options.inherited {
        let mut fd = Writer::default();
        fd.bytes(1, inherited.key.as_bytes());
        fd.integer(2, inherited.fd);
        out.message(27, fd);
    }
    out.number(34, mode(shared.cgroups_mode));
    for external in &options.external {
        out.bytes(37, external.as_bytes());
    }
    if options.network == NetworkContents::Empty {
        out.number(38, EMPTY_NETWORK);
    }
    for namespace in &options.joined {
        let mut join = Writer::default();
        join.bytes(1, namespace.kind.as_bytes());
        join.bytes(2, namespace.path.as_os_str().as_bytes());
        out.message(39, join);
    }
    if let Some(cgroup) = &options.freeze_cgroup {
        out.bytes(44, cgroup.as_bytes());
    }
    out.switch(46, options.tcp_skip_in_flight);
    out.switch(48, shared.lazy_pages);
    out.switch(50, true);
    for (field, text) in
        [(51, &options.config_file), (53, &options.lsm_profile), (63, &options.lsm_mount_context)]
    {
        if let Some(text) = text {
            out.bytes(field, text.as_bytes());
        }
    }
    out
}

fn pair(first: &str, second: &str) -> Writer {
    let mut pair = Writer::default();
    pair.bytes(1, first.as_bytes());
    pair.bytes(2, second.as_bytes());
    pair
}

fn mode(mode: CgroupsMode) -> u64 {
    match mode {
        CgroupsMode::Ignore => 0,
        CgroupsMode::Soft => 3,
        CgroupsMode::Full => 4,
        CgroupsMode::Strict => 5,
        CgroupsMode::Default => 6,
    }
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The number of what was asked for.
    kind: u64,
    /// Whether it was done.
    pub success: bool,
    /// At a notification: which point of the way it is.
    pub script: String,
    /// The restored container's first process, as criu's parent sees it.
    pub pid: Option<i32>,
    /// An error number, 0 for none.
    pub errno: i32,
    /// criu's first error.
    pub message: String,
    /// What was asked about.
    pub features: Features,
    /// Major and minor number, and the third.
    pub version: (i32, i32, i32),
}

impl Response {
    /// What this answers.
    #[must_use]
    pub fn kind(&self) -> Kind {
        Kind::of(self.kind)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut response = Self::default();
        for field in Fields::of(bytes) {
            let (field, value) = field?;
            match field {
                1 => response.kind = value.number(field)?,
                2 => response.success = value.number(field)? != 0,
                4 => {
                    for inner in Fields::of(value.bytes(field)?) {
                        if let (1, pid) = inner? {
                            response.pid = Some(pid.integer(1)?);
                        }
                    }
                }
                5 => {
                    for inner in Fields::of(value.bytes(field)?) {
                        match inner? {
                            (1, script) => response.script = script.text(1)?,
                            (2, pid) => response.pid = Some(pid.integer(2)?),
                            _ => {}
                        }
                    }
                }
                7 => response.errno = value.integer(field)?,
                8 => {
                    for inner in Fields::of(value.bytes(field)?) {
                        match inner? {
                            (1, is) => response.features.memory_tracking = is.number(1)? != 0,
                            (2, is) => response.features.lazy_pages = is.number(2)? != 0,
                            _ => {}
                        }
                    }
                }
                9 => response.message = value.text(field)?,
                10 => {
                    for inner in Fields::of(value.bytes(field)?) {
                        match inner? {
                            (1, number) => response.version.0 = number.integer(1)?,
                            (2, number) => response.version.1 = number.integer(2)?,
                            (4, number) => response.version.2 = number.integer(4)?,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Value;
    use super::*;
    use crate::plan::criu::{Inherited, JoinedNamespace, PageServer, SharedFlags};

    /// The fields of the options of a request, in order.
    fn options(kind: Kind, options: &CriuOptions, folders: Folders) -> Vec<(u32, Value<'static>)> {
        let request = request(kind, options, folders).leak();
        let fields: Vec<_> = Fields::of(request).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Value::Number(kind.number())));
        assert_eq!((fields[1].0, fields.len()), (2, 2));
        Fields::of(fields[1].1.bytes(2).unwrap()).map(Result::unwrap).collect()
    }

    #[test]
    fn requests_have_the_numbers_of_rpc_proto() {
        assert_eq!(bare(Kind::Version), [8, 10]);
        assert_eq!(notified(true), [8, 6, 24, 1]);
        assert_eq!(
            feature_check(Features { memory_tracking: true, lazy_pages: false }),
            [8, 9, 42, 4, 8, 1, 16, 0]
        );
    }

    /// Every field that is ever sent, by a request that has all of them: those of a checkpoint and those of a restore.
    #[test]
    fn options_have_the_numbers_of_rpc_proto() {
        let pair = |first: &str, second: &str| (first.to_owned(), second.to_owned());
        let asked = CriuOptions {
            shared: SharedFlags {
                tcp_established: true,
                ext_unix_sk: true,
                shell_job: true,
                file_locks: true,
                auto_dedup: true,
                lazy_pages: true,
                cgroups_mode: CgroupsMode::Strict,
            },
            network: NetworkContents::Empty,
            log_file: "dump.log",
            root: "/r".into(),
            mounts: vec![pair("/a", "ketch=/a"), pair("ketch-mask", "/n")],
            external: vec!["net[7]:x".to_owned(), "file[1:2]".to_owned()],
            config_file: Some("/c".to_owned()),
            pid: Some(77),
            leave_running: true,
            tcp_skip_in_flight: true,
            link_remap: true,
            freeze_cgroup: Some("/f".to_owned()),
            page_server: Some(PageServer { address: "::1".into(), port: 5 }),
            parent_image: Some("../p".to_owned()),
            evasive_devices: true,
            sibling: true,
            cgroup_roots: vec![pair("cpu", "/g")],
            inherited: vec![Inherited { key: "pipe:[1]".into(), fd: 2 }],
            joined: vec![JoinedNamespace { kind: "ipc", path: "/i".into() }],
            lsm_profile: Some("apparmor:a".to_owned()),
            lsm_mount_context: Some("m".to_owned()),
        };
        let (number, bytes, on) = (Value::Number, Value::Bytes, Value::Number(1));
        let expected = [
            (1, number(9)),
            (2, number(77)),
            (3, on),
            (4, on),
            (5, on),
            (6, on),
            (7, on),
            (8, on),
            (9, number(4)),
            (10, bytes(b"dump.log")),
            (11, bytes(b"\x0a\x03::1\x10\x05")),
            (12, on),
            (13, bytes(b"/r")),
            (14, bytes(b"../p")),
            (15, on),
            (16, on),
            (17, number(10)),
            (18, on),
            (23, bytes(b"\x0a\x02/a\x12\x08ketch=/a")),
            (23, bytes(b"\x0a\x0aketch-mask\x12\x02/n")),
            (24, on),
            (25, bytes(b"\x0a\x03cpu\x12\x02/g")),
            (26, on),
            (27, bytes(b"\x0a\x08pipe:[1]\x10\x02")),
            (34, number(5)),
            (37, bytes(b"net[7]:x")),
            (37, bytes(b"file[1:2]")),
            (38, number(0x4000_0000)),
            (39, bytes(b"\x0a\x03ipc\x12\x02/i")),
            (44, bytes(b"/f")),
            (46, on),
            (48, on),
            (50, on),
            (51, bytes(b"/c")),
            (53, bytes(b"apparmor:a")),
            (63, bytes(b"m")),
        ];
        let found = options(Kind::Dump, &asked, Folders { images: 9, work: Some(10) });
        assert_eq!(found, expected);

        // Without anything asked for: what is never left to criu's defaults.
        let bare = CriuOptions { log_file: "l", network: NetworkContents::AsItIs, ..CriuOptions::default() };
        let found = options(Kind::Restore, &bare, Folders { images: 9, work: None });
        let off = number(0);
        let expected = [
            (1, number(9)),
            (3, off),
            (4, off),
            (5, off),
            (6, off),
            (7, off),
            (8, off),
            (9, number(4)),
            (10, bytes(b"l")),
            (12, on),
            (13, bytes(b"")),
            (16, off),
            (18, off),
            (24, on),
            (34, number(6)),
            (46, off),
            (48, off),
            (50, on),
        ];
        assert_eq!(found, expected);
    }

    /// Above all switches are on, or off.
    #[test]
    fn each_switch_has_its_own_number() {
        type Set = fn(&mut CriuOptions);
        let switches: [(u32, Set); 11] = [
            (3, |options| options.leave_running = true),
            (4, |options| options.shared.ext_unix_sk = true),
            (5, |options| options.shared.tcp_established = true),
            (6, |options| options.evasive_devices = true),
            (7, |options| options.shared.shell_job = true),
            (8, |options| options.shared.file_locks = true),
            (16, |options| options.shared.auto_dedup = true),
            (18, |options| options.link_remap = true),
            (26, |options| options.sibling = true),
            (46, |options| options.tcp_skip_in_flight = true),
            (48, |options| options.shared.lazy_pages = true),
        ];
        for (number, set) in switches {
            let mut asked = CriuOptions::default();
            set(&mut asked);
            let found = options(Kind::Dump, &asked, Folders { images: 9, work: None });
            let on = found.into_iter().filter(|(_, value)| *value == Value::Number(1));
            let on: Vec<u32> =
                on.map(|(field, _)| field).filter(|field| ![12, 24, 50].contains(field)).collect();
            assert_eq!(on, [number]);
        }
    }

    #[test]
    fn modes_have_the_numbers_of_rpc_proto() {
        let modes = [
            (CgroupsMode::Ignore, 0),
            (CgroupsMode::Soft, 3),
            (CgroupsMode::Full, 4),
            (CgroupsMode::Strict, 5),
            (CgroupsMode::Default, 6),
        ];
        assert!(modes.into_iter().all(|(known, number)| mode(known) == number));
        let kinds = Kind::KNOWN.map(|(kind, number, name)| (kind.number(), number, name));
        assert_eq!(
            kinds,
            [
                (0, 0, "EMPTY"),
                (1, 1, "DUMP"),
                (2, 2, "RESTORE"),
                (13, 13, "SINGLE_PRE_DUMP"),
                (6, 6, "NOTIFY"),
                (9, 9, "FEATURE_CHECK"),
                (10, 10, "VERSION"),
            ]
        );
    }

    #[test]
    fn answers_are_read() {
        let mut version = Writer::default();
        version.number(1, 4);
        version.number(2, 1);
        version.bytes(3, b"v4.1.1");
        version.number(4, 1);
        let mut answer = Writer::default();
        answer.number(1, 10);
        answer.switch(2, true);
        answer.message(10, version);
        let response = Response::decode(&answer.finish()).unwrap();
        assert_eq!((response.kind(), response.success, response.version), (Kind::Version, true, (4, 1, 1)));

        let mut notify = Writer::default();
        notify.bytes(1, b"post-restore");
        notify.integer(2, 4711);
        let mut answer = Writer::default();
        answer.number(1, 6);
        answer.switch(2, false);
        answer.message(5, notify);
        answer.integer(7, 22);
        answer.bytes(9, b"why");
        let response = Response::decode(&answer.finish()).unwrap();
        assert_eq!((response.script.as_str(), response.pid), ("post-restore", Some(4711)));
        assert_eq!((response.errno, response.message.as_str()), (22, "why"));
        assert_eq!(response.kind().to_string(), "NOTIFY");
        assert!(Response::decode(&[8]).is_err());
    }
}

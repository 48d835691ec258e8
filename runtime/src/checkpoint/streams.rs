//! A container's standard streams, as far as they lead out of it: by which names images know them, and which streams of the
//! caller a restore puts in their place.
//!
//! criu knows a pipe by `pipe:[<inode>]`. A fifo with a name, as shims make them, lies on a mount that is not the container's:
//! criu saves it once it was told that `file[<mount>:<inode>]` (hexadecimal) is somebody else's, and asks for it by that name
//! again. Every descriptor of the fifo in the container is meant, whichever process has it under whatever number.
//!
//! The names come from the folder of images. So all that they can choose is which of the caller's own three streams the
//! container gets, and a fifo is opened anew by whoever restores, for reading or writing as the images say: only what is a
//! fifo or a pipe is handed over for one, as reading and writing is all that can be done with those.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use ketch_sys::poll::{self, Until};
use ketch_sys::{path, stat, stream};

use crate::log;
use crate::plan::criu::Inherited;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    Pipe,
    Fifo,
}

impl Outside {
    /// What leads out of a container by this name, if anything does.
    fn of(name: &str) -> Option<Self> {
        let inner = |prefix: &str| name.strip_prefix(prefix)?.strip_suffix(']');
        let is_number = |text: &str, is_digit: fn(&u8) -> bool| {
            !text.is_empty() && text.bytes().all(|byte| is_digit(&byte))
        };
        if let Some(inode) = inner("pipe:[") {
            return is_number(inode, u8::is_ascii_digit).then_some(Self::Pipe);
        }
        let (mount, inode) = inner("file[")?.split_once(':')?;
        [mount, inode].iter().all(|text| is_number(text, u8::is_ascii_hexdigit)).then_some(Self::Fifo)
    }
}

/// Whether a restore can put something in its place.
pub(super) fn leads_out(name: &str) -> bool {
    Outside::of(name).is_some()
}

/// Those that criu has to be told of when it saves.
pub(super) fn fifos(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| Outside::of(name) == Some(Outside::Fifo))
}

/// Where streams lead, or how criu calls that: for the record of a container that gets them.
#[must_use]
pub fn names(streams: [BorrowedFd<'_>; 3]) -> Vec<String> {
    streams.map(name).into()
}

fn name(stream: BorrowedFd<'_>) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd()));
    let link = link.map(|path| path.display().to_string()).unwrap_or_default();
    // Without a path it is of no mount.
    if link.starts_with('/') && stream::is_pipe(stream) { fifo(stream).unwrap_or(link) } else { link }
}

fn fifo(stream: BorrowedFd<'_>) -> Option<String> {
    let (mount, inode) = (stat::mount_id(stream).ok()?, stat::status(stream).ok()?.inode);
    Some(format!("file[{mount:x}:{inode:x}]"))
}

/// What a restore gives to criu of the caller's streams.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// By the names of what they stand for.
    pub(super) inherited: Vec<Inherited>,
    /// Fifos for output, opened anew, that were empty.
    outputs: Vec<File>,
}

impl Handed {
    /// For the streams of the saved container, each with its number, those of the caller.
    pub(super) fn new(saved: Vec<(i32, String)>, streams: [BorrowedFd<'_>; 3]) -> Self {
        let mut handed = Self::default();
        for ((fd, key), stream) in saved.into_iter().filter_map(|entry| {
            let stream = streams.get(usize::try_from(entry.0).ok()?)?;
            Some((entry, *stream))
        }) {
            match Outside::of(&key) {
                Some(Outside::Pipe) => {}
                Some(Outside::Fifo) if stream::is_pipe(stream) => {
                    handed.outputs.extend((fd > 0).then(|| reader_of_empty(stream)).flatten());
                }
                Some(Outside::Fifo) => {
                    log::warn(format_args!(
                        "restore: stream {fd} was a fifo and is none now: what has it open can't be restored"
                    ));
                    continue;
                }
                None => continue,
            }
            handed.inherited.push(Inherited { key, fd });
        }
        handed
    }

    /// Takes out of the fifos for output what criu has put in. It was there when the container was saved, and whoever read
    /// the output then has had it.
    pub(super) fn discard_output(&mut self) {
        for mut output in self.outputs.drain(..) {
            // It ends when there is nothing more for now.
            let _would_block = io::copy(&mut output, &mut io::sink());
        }
    }
}

/// A descriptor of its own, which does not wait, where nothing is in the fifo that somebody else has put in.
fn reader_of_empty(stream: BorrowedFd<'_>) -> Option<File> {
    let link = format!("/proc/self/fd/{}", stream.as_raw_fd());
    let reader = path::open_host(Path::new(&link), path::READ | path::NON_BLOCKING).ok()?;
    let ready = poll::wait_until(&[(reader.as_fd(), Until::Readable)], Some(Instant::now())).ok()?;
    (ready == [false]).then(|| File::from(reader))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;

    #[test]
    fn only_pipes_and_fifos_lead_out() {
        assert!(["pipe:[12]", "file[1f:a0c]"].into_iter().all(leads_out));
        for name in [
            "",
            "/dev/pts/0",
            "extRootNetNS",
            "pipe:[1]:x",
            "xpipe:[2]",
            "pipe:[]",
            "file[1]",
            "file[1:]",
            "file[1:2]x",
        ] {
            assert!(!leads_out(name), "{name}");
        }
        let names = ["pipe:[12]", "file[1f:a0c]", "/tmp/x"].map(str::to_owned);
        assert_eq!(fifos(&names).collect::<Vec<_>>(), ["file[1f:a0c]"]);
    }

    #[test]
    fn streams_are_named_as_criu_names_them() {
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        let (reader, _writer) = io::pipe().unwrap();
        let found = names([null.as_fd(), reader.as_fd(), reader.as_fd()]);
        assert_eq!(found[0], "/dev/null");
        assert!(Outside::of(&found[1]) == Some(Outside::Pipe) && found[1] == found[2], "{found:?}");
    }

    #[test]
    fn what_is_no_fifo_is_not_handed_over_for_one() {
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        let (reader, _writer) = io::pipe().unwrap();
        let saved = [(0, "file[1:2]"), (1, "file[1:3]"), (2, "pipe:[7]"), (5, "pipe:[8]")];
        let saved = saved.map(|(fd, key)| (fd, key.to_owned())).into();
        let handed = Handed::new(saved, [reader.as_fd(), null.as_fd(), null.as_fd()]);
        let keys: Vec<_> = handed.inherited.iter().map(|one| (one.fd, one.key.as_str())).collect();
        assert_eq!(keys, [(0, "file[1:2]"), (2, "pipe:[7]")]);
    }

    #[test]
    fn output_is_discarded_where_there_was_none_before() {
        let ((mut one, mut to_one), (mut two, mut to_two)) = (io::pipe().unwrap(), io::pipe().unwrap());
        to_two.write_all(b"earlier ").unwrap();
        let saved = vec![(1, "file[1:2]".to_owned()), (2, "file[1:3]".to_owned())];
        let mut handed = Handed::new(saved, [to_one.as_fd(), to_one.as_fd(), to_two.as_fd()]);
        to_one.write_all(b"saved").unwrap();
        to_two.write_all(b"saved").unwrap();
        handed.discard_output();
        drop((to_one, to_two));
        let mut text = String::new();
        one.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
        two.read_to_string(&mut text).unwrap();
        assert_eq!(text, "earlier saved");
    }
}

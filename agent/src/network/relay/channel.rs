//! What the daemon and the relay's process say to each other: lines of JSON on a stream socket, with listening sockets beside them.
//! The daemon tells ports, the relay what goes wrong.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

/// So many sockets go with a word at most: one for each address family.
pub(super) const MOST_LISTENERS: usize = 2;
/// As much is read at once.
const CHUNK: usize = 16 << 10;

/// What the relay is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// A published port: connections are taken from these sockets...
    Opened { port: u16, listeners: usize },
    /// ...and led to these in turn; those that are there may go on with the others of `stay` too.
    Leads { port: u16, backends: Vec<SocketAddr>, stay: Vec<SocketAddr> },
    /// Nothing new is taken; what is there goes on.
    Closed { port: u16 },
}

/// Tells one. With `Opened` go its sockets.
///
/// # Errors
/// The relay has gone, or does not read.
pub(super) fn tell(channel: impl AsFd, word: &Word, listeners: &[OwnedFd]) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_LISTENERS))];
    let mut beside = SendAncillaryBuffer::new(&mut room);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("too many sockets for one port"));
    }
    let mut sent = 0;
    while sent < line.len() {
        let part = [IoSlice::new(&line[sent..])];
        match rustix::net::sendmsg(&channel, &part, &mut beside, SendFlags::NOSIGNAL) {
            Ok(length) => {
                sent += length;
                beside.clear();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The relay's end: what has come, as far as it is whole.
#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: Vec<u8>,
    /// Sockets come with the first byte of their word: the first of these are the first word's.
    sockets: VecDeque<OwnedFd>,
}

/// A word with its sockets.
pub(super) type Told = (Word, Vec<OwnedFd>);

impl Heard {
    /// Reads what is there; `None`: the daemon has gone, or says nothing more.
    ///
    /// # Errors
    /// The kernel's; a word that is none.
    pub(super) fn read(&mut self, channel: impl AsFd) -> io::Result<Option<Vec<Told>>> {
        let is_open = loop {
            match self.receive(&channel) {
                // The daemon has gone; the second, without having read all that was said to it.
                Ok(0) | Err(Errno::CONNRESET) => break false,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break true,
                Err(error) => return Err(error.into()),
            }
        };
        let told = self.words()?;
        Ok(if is_open || !told.is_empty() { Some(told) } else { None })
    }

    fn receive(&mut self, channel: impl AsFd) -> Result<usize, Errno> {
        let mut buffer = [0; CHUNK];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_LISTENERS))];
        let mut beside = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received =
            rustix::net::recvmsg(channel, &mut [IoSliceMut::new(&mut buffer)], &mut beside, flags)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                self.sockets.extend(sockets);
            }
        }
        self.bytes.extend_from_slice(&buffer[..received.bytes]);
        Ok(received.bytes)
    }

    fn words(&mut self) -> io::Result<Vec<Told>> {
        let Some(end) = self.bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.bytes.split_off(end + 1);
        let whole = std::mem::replace(&mut self.bytes, rest);
        let mut told = Vec::new();
        for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let word: Word = serde_json::from_slice(line)?;
            let count = match &word {
                // The kernel gives none where there is no room for descriptors: the next word's are not for this one.
                Word::Opened { listeners, .. } if *listeners > self.sockets.len() => {
                    return Err(io::Error::other("there is no room for more sockets"));
                }
                Word::Opened { listeners, .. } => *listeners,
                Word::Leads { .. } | Word::Closed { .. } => 0,
            };
            told.push((word, self.sockets.drain(..count).collect()));
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn leads(count: u16) -> Word {
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        Word::Leads { port: 80, backends: (1..=count).map(at).collect(), stay: vec![at(9)] }
    }

    #[test]
    fn words_come_whole_with_their_own_sockets() {
        let (daemon, relay) = UnixStream::pair().unwrap();
        let (one, other) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let places = [one.local_addr().unwrap(), other.local_addr().unwrap()];
        tell(&daemon, &leads(3), &[]).unwrap();
        tell(&daemon, &Word::Opened { port: 80, listeners: 1 }, &[one.into()]).unwrap();
        tell(&daemon, &Word::Closed { port: 80 }, &[]).unwrap();
        tell(&daemon, &Word::Opened { port: 81, listeners: 1 }, &[other.into()]).unwrap();
        let mut heard = Heard::default();
        let told = heard.read(&relay).unwrap().unwrap();
        let words: Vec<_> = told.iter().map(|(word, sockets)| (word, sockets.len())).collect();
        assert_eq!(words[0], (&leads(3), 0));
        assert_eq!(words[1], (&Word::Opened { port: 80, listeners: 1 }, 1));
        assert_eq!(words[2], (&Word::Closed { port: 80 }, 0));
        for (place, at) in places.into_iter().zip([1, 3]) {
            let listener = TcpListener::from(told[at].1[0].try_clone().unwrap());
            let _client = TcpStream::connect(place).unwrap();
            assert_eq!(listener.local_addr().unwrap(), place);
        }
        assert!(heard.read(&relay).unwrap().unwrap().is_empty());
        drop(daemon);
        assert!(heard.read(&relay).unwrap().is_none());
    }

    #[test]
    fn a_word_without_its_sockets_takes_none_of_the_next() {
        let (daemon, relay) = UnixStream::pair().unwrap();
        let next = TcpListener::bind("127.0.0.1:0").unwrap();
        tell(&daemon, &Word::Opened { port: 80, listeners: 1 }, &[]).unwrap();
        tell(&daemon, &Word::Opened { port: 81, listeners: 1 }, &[next.into()]).unwrap();
        assert!(Heard::default().read(&relay).is_err());
    }

    #[test]
    fn a_word_may_be_larger_than_what_is_read_at_once() {
        let (daemon, relay) = UnixStream::pair().unwrap();
        let teller =
            std::thread::Builder::new().spawn(move || tell(&daemon, &leads(20_000), &[]).unwrap()).unwrap();
        let mut heard = Heard::default();
        let mut told = Vec::new();
        while told.is_empty() {
            told = heard.read(&relay).unwrap().unwrap_or_default();
        }
        teller.join().unwrap();
        assert_eq!(told[0].0, leads(20_000));
    }

    #[test]
    fn a_daemon_that_was_killed_before_it_had_read_all_has_gone() {
        let (daemon, mut relay) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut relay, b"something goes wrong\n").unwrap();
        drop(daemon);
        assert!(Heard::default().read(&relay).unwrap().is_none());
    }

    #[test]
    fn what_is_no_word_is_an_error() {
        let (mut daemon, relay) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut daemon, b"{\"Opened\":{}}\n").unwrap();
        assert!(Heard::default().read(&relay).is_err());
    }
}

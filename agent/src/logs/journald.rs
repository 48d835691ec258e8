//! The `journald` driver: an entry is a datagram of fields in the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::entry::{self, Entry, Stream};
use super::options::LogConfig;
use super::tag::{self, Container};
use crate::error::{Error, Result};

const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that has stopped reading holds up a container's log no longer than this for each entry.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An open log.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// What every entry has, encoded.
    fields: Vec<u8>,
    /// Of the entries, from 1.
    ordinal: u64,
}

impl Journal {
    /// Not connected yet: a write does that where nothing else has.
    ///
    /// # Errors
    /// Options that mean nothing.
    pub(super) fn new(config: &LogConfig, container: &Container) -> Result<Self> {
        Self::at(Path::new(SOCKET), config, container)
    }

    /// # Errors
    /// There is no journal here.
    pub(super) fn connect(&mut self) -> Result<()> {
        let socket = connect(&self.path)
            .map_err(|_| Error::new(crate::error::Kind::Internal, "journald is not enabled on this host"))?;
        self.socket = Some(socket);
        Ok(())
    }

    fn at(path: &Path, config: &LogConfig, container: &Container) -> Result<Self> {
        let tag = tag::tag(config, container, "{{.ID}}")?;
        let mut all = BTreeMap::from([
            ("CONTAINER_ID".to_owned(), container.id.get(..12).unwrap_or(&container.id).to_owned()),
            ("CONTAINER_ID_FULL".to_owned(), container.id.clone()),
            ("CONTAINER_NAME".to_owned(), container.name.clone()),
            ("CONTAINER_TAG".to_owned(), tag.clone()),
            ("IMAGE_NAME".to_owned(), container.image_name.clone()),
            ("SYSLOG_IDENTIFIER".to_owned(), tag),
            ("CONTAINER_LOG_EPOCH".to_owned(), entry::random_id()),
        ]);
        all.extend(tag::attributes(config, container, field_name)?);
        let mut fields = Vec::new();
        for (name, value) in all.iter().filter(|(name, _)| !name.is_empty()) {
            field(name, value.as_bytes(), &mut fields);
        }
        Ok(Self { path: path.to_owned(), socket: None, fields, ordinal: 0 })
    }

    /// Tells the journal all of them but what it refuses; where it does not listen, the rest is lost.
    pub(super) fn write_all(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut told = Ok(());
        for entry in entries {
            match self.write(entry) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                other => told = told.and(other),
            }
        }
        told
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.ordinal += 1;
        let mut message = self.fields.clone();
        let priority: &[u8] = match entry.stream {
            Stream::Stdout => b"6",
            Stream::Stderr => b"3",
        };
        field("PRIORITY", priority, &mut message);
        field("MESSAGE", entry.text(), &mut message);
        field("SYSLOG_TIMESTAMP", entry.time.to_string().as_bytes(), &mut message);
        field("CONTAINER_LOG_ORDINAL", self.ordinal.to_string().as_bytes(), &mut message);
        if let Some(partial) = &entry.partial {
            field("CONTAINER_PARTIAL_ID", partial.id.as_bytes(), &mut message);
            field("CONTAINER_PARTIAL_ORDINAL", partial.ordinal.to_string().as_bytes(), &mut message);
            field("CONTAINER_PARTIAL_LAST", partial.last.to_string().as_bytes(), &mut message);
            if !partial.last {
                field("CONTAINER_PARTIAL_MESSAGE", b"true", &mut message);
            }
        }
        if let Some(socket) = &self.socket {
            match send(socket, &message) {
                // The journal was started anew, with a socket of its own.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected
                    ) => {}
                other => return other,
            }
        }
        let socket = self.socket.insert(connect(&self.path)?);
        send(socket, &message)
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

/// A datagram, or, as labels may be longer than a socket takes, a sealed file that a datagram brings.
fn send(socket: &UnixDatagram, message: &[u8]) -> io::Result<()> {
    match socket.send(message) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {}
        other => return other.map(drop),
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("ketchd-journal", flags)?);
    file.write_all(message)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    let _fits = control.push(SendAncillaryMessage::ScmRights(&files));
    let nothing: [IoSlice<'_>; 0] = [];
    let _sent = rustix::net::sendmsg(socket, &nothing, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One field: `NAME=value`, or for values of several lines the name, their length, and them.
fn field(name: &str, value: &[u8], message: &mut Vec<u8>) {
    message.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value);
    message.push(b'\n');
}

/// The journal's names are of capitals, digits and underscores, and begin with no underscore: those are its own.
fn field_name(key: &str) -> String {
    let name: String =
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    name.trim_start_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    #[test]
    fn names_are_the_journals() {
        assert_eq!(field_name("com.example/a-b"), "COM_EXAMPLE_A_B");
        assert_eq!(field_name("_x"), "X");
    }

    #[test]
    fn what_a_socket_does_not_take_comes_in_a_file_and_a_new_journal_is_found() {
        let folder = crate::scratch::Folder::new("journal");
        let path = folder.path().join("socket");
        let container = Container { id: "0123456789abcdef".into(), ..Container::default() };
        let server = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::at(&path, &LogConfig::default(), &container).unwrap();
        let mut entry = Entry {
            stream: Stream::Stdout,
            time: Timestamp::new(0, 0),
            line: vec![b'x'; 8 << 20],
            partial: None,
            attributes: BTreeMap::new(),
        };
        journal.write(&entry).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
        let _received = rustix::net::recvmsg(&server, &mut [], &mut control, flags).unwrap();
        let file = control.drain().find_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let size = File::from(file.unwrap()).metadata().unwrap().len();
        assert!(size > 8 << 20, "{size}");
        drop(server);
        std::fs::remove_file(&path).unwrap();
        let server = UnixDatagram::bind(&path).unwrap();
        entry.line = b"again\n".to_vec();
        journal.write(&entry).unwrap();
        let mut buffer = [0; 4096];
        let length = server.recv(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..length]).contains("\nMESSAGE=again\n"));
    }

    #[test]
    fn entries_are_datagrams_of_fields() {
        let folder = crate::scratch::Folder::new("journal");
        let path = folder.path().join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        let config = LogConfig {
            driver: "journald".into(),
            options: BTreeMap::from([("env".into(), "A".into()), ("tag".into(), "{{.Name}}".into())]),
        };
        let container = Container {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            env: vec!["A=x\ny".into()],
            ..Container::default()
        };
        let mut journal = Journal::at(&path, &config, &container).unwrap();
        let entry = Entry {
            stream: Stream::Stdout,
            time: Timestamp::new(0, 0),
            line: b"hi\n".to_vec(),
            partial: None,
            attributes: BTreeMap::new(),
        };
        journal.write(&entry).unwrap();
        let mut buffer = [0; 4096];
        let length = server.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.starts_with("A\n\x03\0\0\0\0\0\0\0x\ny\nCONTAINER_ID=0123456789ab\n"), "{text:?}");
        for field in
            ["\nMESSAGE=hi\n", "\nPRIORITY=6\n", "\nCONTAINER_TAG=web\n", "\nCONTAINER_LOG_ORDINAL=1\n"]
        {
            assert!(text.contains(field), "{field:?} in {text:?}");
        }
    }
}

//! The D-Bus client against Debian's dbus-daemon, and against peers that break the rules.
//!
//! The daemon is the test's own, on a socket of its own. Skips with a printed reason where it is not installed.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they share")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ketch::dbus::{Address, Answer, Call, Connection, DbusError, Kind, Message, Transport, Type, Value};
use proptest::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// For a peer that says nothing.
const SOON: Duration = Duration::from_millis(300);

fn bus_call<'a>(member: &'a str, body: &'a [Value]) -> Call<'a> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        body,
    }
}

struct Daemon {
    child: Child,
    address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn daemon() -> Option<Daemon> {
    let spawned = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        println!("SKIP: no dbus-daemon");
        return None;
    };
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    Some(Daemon { child, address: address.trim().to_owned() })
}

#[test]
fn a_bus_answers_calls_and_passes_signals_on() {
    let Some(daemon) = daemon() else { return };
    let address = Address::parse(&daemon.address).unwrap();
    let mut ours = Connection::open(&address, Transport::Bus, PATIENCE).unwrap();
    let id = ours.call("GetId", &bus_call("GetId", &[])).unwrap();
    assert!(id[0].as_text().is_some_and(|id| id.len() == 32), "{id:?}");

    let unknown = ours.call("Nothing", &bus_call("Nothing", &[])).unwrap_err();
    assert!(unknown.is("org.freedesktop.DBus.Error.UnknownMethod"), "{unknown:?}");
    let wrong = ours.call("AddMatch", &bus_call("AddMatch", &[Value::text("nonsense")])).unwrap_err();
    assert!(wrong.is("org.freedesktop.DBus.Error.MatchRuleInvalid"), "{wrong:?}");

    ours.listen(("org.freedesktop.DBus", "NameOwnerChanged")).unwrap();
    let mut other = Connection::open(&address, Transport::Bus, PATIENCE).unwrap();
    let name = [Value::text("org.ketch.Test"), Value::U32(0)];
    assert_eq!(other.call("RequestName", &bus_call("RequestName", &name)).unwrap(), [Value::U32(1)]);
    let owner = ours.signal("the name's owner", |values| match values {
        [name, _, owner] if name.as_text() == Some("org.ketch.Test") => owner.as_text().map(str::to_owned),
        _ => None,
    });
    assert!(owner.unwrap().starts_with(':'));
    // Signals that came while an answer was waited for are kept.
    other.call("ReleaseName", &bus_call("ReleaseName", &name[..1])).unwrap();
    ours.call("GetId", &bus_call("GetId", &[])).unwrap();
    let released = ours.signal("the name's end", |values| (values[2].as_text() == Some("")).then_some(()));
    released.unwrap();
}

/// A socket with somebody behind it who does as `behave` says.
fn peer(behave: impl FnOnce(UnixStream) + Send + 'static) -> (Address, std::thread::JoinHandle<()>) {
    static SERIAL: AtomicUsize = AtomicUsize::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = std::env::temp_dir().join(format!("ketch-dbus-{}-{serial}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::Builder::new().spawn({
        let path = path.clone();
        move || {
            let (stream, _) = listener.accept().unwrap();
            std::fs::remove_file(path).unwrap();
            behave(stream);
        }
    });
    (Address::Path(path), thread.unwrap())
}

fn line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).trim_matches(['\0', '\r', '\n']).to_owned()
}

/// Authenticates whoever comes, as systemd does.
fn authenticate(stream: &mut UnixStream) {
    assert!(line(stream).starts_with("AUTH EXTERNAL "));
    stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n").unwrap();
    assert_eq!(line(stream), "NEGOTIATE_UNIX_FD");
    stream.write_all(b"AGREE_UNIX_FD\r\n").unwrap();
    assert_eq!(line(stream), "BEGIN");
}

/// The client's error when it opens a connection and makes a call.
fn error_of(behave: impl FnOnce(UnixStream) + Send + 'static, patience: Duration) -> DbusError {
    let (address, thread) = peer(behave);
    let called = Connection::open(&address, Transport::Peer, patience)
        .and_then(|mut connection| connection.call("Get", &bus_call("Get", &[])));
    let error = called.unwrap_err();
    thread.join().unwrap();
    error
}

fn wait_for_the_end(mut stream: UnixStream) {
    let mut rest = Vec::new();
    let _cut = stream.read_to_end(&mut rest);
}

#[test]
fn nobody_is_waited_for_without_end() {
    let silent = error_of(wait_for_the_end, SOON);
    assert_eq!(silent.to_string(), "no answer from D-Bus within 0 s to the authentication");
    let after = |mut stream: UnixStream| {
        authenticate(&mut stream);
        wait_for_the_end(stream);
    };
    assert_eq!(error_of(after, SOON).to_string(), "no answer from D-Bus within 0 s to Get");
    // One that sends without end, but not what is asked for.
    let babble = |mut stream: UnixStream| {
        authenticate(&mut stream);
        let signal = signal_bytes();
        while stream.write_all(&signal).is_ok() {}
    };
    assert!(matches!(error_of(babble, SOON), DbusError::TimedOut { .. }));
}

/// The bytes of a message that is no answer: a call, with its type changed to that of a signal.
fn signal_bytes() -> Vec<u8> {
    let mut bytes = bus_call("JobRemoved", &[]).encode(1, Answer::Unwanted).unwrap();
    bytes[1] = 4;
    bytes
}

#[test]
fn a_full_queue_is_not_waited_for_without_end() {
    let path = std::env::temp_dir().join(format!("ketch-dbus-queue-{}", std::process::id()));
    let _listener = UnixListener::bind(&path).unwrap();
    // Connections that are given up leave their place in the queue: one more than its length, and it is full.
    let length = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    for _ in 0..=length.trim().parse::<usize>().unwrap() {
        drop(UnixStream::connect(&path).unwrap());
    }
    let error = Connection::open(&Address::Path(path.clone()), Transport::Peer, SOON).unwrap_err();
    std::fs::remove_file(path).unwrap();
    assert_eq!(error.to_string(), "no answer from D-Bus within 0 s to a connection");
}

#[test]
fn broken_peers_are_told_apart() {
    let closed = error_of(drop, PATIENCE);
    assert!(matches!(closed, DbusError::Closed), "{closed:?}");
    let cut = error_of(
        |mut stream| {
            authenticate(&mut stream);
            stream.write_all(b"l\x02").unwrap();
        },
        PATIENCE,
    );
    assert!(matches!(cut, DbusError::Closed | DbusError::Io(_)), "{cut:?}");
    let stranger = error_of(
        |mut stream| {
            stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
            wait_for_the_end(stream);
        },
        PATIENCE,
    );
    assert_eq!(stranger.to_string(), "D-Bus refuses to authenticate this user: \"SSH-2.0-OpenSSH\"");
    let endless = error_of(
        |mut stream| {
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        },
        PATIENCE,
    );
    assert!(matches!(endless, DbusError::Refused { .. }), "{endless:?}");
    let long = error_of(
        |mut stream| {
            authenticate(&mut stream);
            stream.write_all(b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0").unwrap();
            wait_for_the_end(stream);
        },
        PATIENCE,
    );
    assert!(matches!(long, DbusError::Malformed(_)), "{long:?}");
}

/// In a user namespace the number of the user is another one than the peer sees.
#[test]
fn a_number_that_the_peer_does_not_know_is_left_out() {
    let (address, thread) = peer(|mut stream| {
        assert!(line(&mut stream).starts_with("AUTH EXTERNAL "));
        stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        assert_eq!(line(&mut stream), "AUTH EXTERNAL");
        stream.write_all(b"DATA\r\n").unwrap();
        assert_eq!(line(&mut stream), "DATA");
        stream.write_all(b"OK 0123\r\n").unwrap();
        assert_eq!(line(&mut stream), "NEGOTIATE_UNIX_FD");
        stream.write_all(b"ERROR\r\n").unwrap();
        wait_for_the_end(stream);
    });
    drop(Connection::open(&address, Transport::Peer, PATIENCE).unwrap());
    thread.join().unwrap();
}

fn basic() -> impl Strategy<Value = Value> {
    let text = "[^\0]{0,12}";
    prop_oneof![
        any::<u8>().prop_map(Value::Byte),
        any::<bool>().prop_map(Value::Bool),
        any::<i16>().prop_map(Value::I16),
        any::<u16>().prop_map(Value::U16),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(Value::U32),
        any::<i64>().prop_map(Value::I64),
        any::<u64>().prop_map(Value::U64),
        any::<f64>().prop_filter("one of many", |number| !number.is_nan()).prop_map(Value::double),
        text.prop_map(Value::Text),
        "(/[A-Za-z0-9_]{1,4}){1,3}".prop_map(Value::Path),
        "[ybnqiuxtdsogv]{0,5}".prop_map(Value::Signature),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    basic().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|value| Value::Variant(Box::new(value))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Value::Struct),
            // All elements alike: the same value again and again.
            (inner.clone(), 0..3_usize)
                .prop_map(|(value, count)| Value::Array(value.kind(), vec![value; count])),
            (basic(), inner, 0..3_usize).prop_map(|(key, value, count)| {
                let entry = Value::Entry(Box::new(key), Box::new(value));
                Value::Array(entry.kind(), vec![entry; count])
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_survives_its_text(value in value()) {
        let text = value.to_string();
        prop_assert_eq!(text.parse::<Value>(), Ok(value), "{}", text);
    }

    #[test]
    fn a_value_survives_its_bytes(values in prop::collection::vec(value(), 0..4)) {
        let signature: String = values.iter().map(|value| value.kind().to_string()).collect();
        prop_assume!(Type::parse_all(&signature).is_ok());
        let bytes = bus_call("Member", &values).encode(7, Answer::Wanted).unwrap();
        let message = Message::decode(&bytes).unwrap();
        prop_assert_eq!(message.kind, Kind::Call);
        prop_assert_eq!(message.values(), Ok(values));
    }

    #[test]
    fn bytes_that_are_changed_do_no_harm(values in prop::collection::vec(value(), 0..4), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let signature: String = values.iter().map(|value| value.kind().to_string()).collect();
        prop_assume!(Type::parse_all(&signature).is_ok());
        let mut bytes = bus_call("Member", &values).encode(7, Answer::Wanted).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(message) = Message::decode(&bytes) {
            let _whatever = message.values();
        }
    }

    #[test]
    fn any_text_is_a_value_or_is_refused(text in "[\\[\\](){}<>@'\"a-z0-9:, .+\\\\-]{0,40}") {
        if let Ok(value) = text.parse::<Value>() {
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }
    }
}

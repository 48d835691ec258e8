//! The relay with real sockets: its loop in a thread of the test, and its process, jailed, as the daemon starts it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use super::header::header;
use super::server::Server;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const NONE: [SocketAddr; 0] = [];

/// The program is the tests' own: one of them is the relay.
pub(super) fn make_relay_of(command: &mut Command) {
    let test = "network::relay::tests::the_process_itself";
    let _command = command
        .args(["--exact", test, "--ignored", "--test-threads=1", "--nocapture"])
        .env("KETCH_TEST_RELAY", "1");
}

#[test]
#[ignore = "the process of the tests below"]
fn the_process_itself() {
    if std::env::var_os("KETCH_TEST_RELAY").is_some() {
        let _code = process::run();
        std::process::exit(0);
    }
}

/// A published port: its sockets at both families' loopback, as the daemon has them.
fn published() -> (SocketAddr, Vec<OwnedFd>) {
    let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = four.local_addr().unwrap();
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, at.port())).unwrap();
    for listener in [&four, &six] {
        listener.set_nonblocking(true).unwrap();
    }
    (at, vec![four.into(), six.into()])
}

fn clones(listeners: &[OwnedFd]) -> Vec<OwnedFd> {
    listeners.iter().map(|listener| listener.try_clone().unwrap()).collect()
}

fn listen() -> (SocketAddr, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    (listener.local_addr().unwrap(), listener)
}

/// The next that comes to a backend, if it does so soon.
fn accepted_within(listener: &TcpListener, milliseconds: i64) -> Option<TcpStream> {
    let poll = rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN);
    let patience =
        rustix::event::Timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    if rustix::event::poll(&mut [poll], Some(&patience)).unwrap() == 0 {
        return None;
    }
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

fn accepted(listener: &TcpListener) -> TcpStream {
    accepted_within(listener, 20_000).unwrap()
}

fn connected(to: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(to).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Whether a backend reads the client's header before anything else.
fn is_greeted(backend: &mut TcpStream, client: &TcpStream) -> bool {
    let wanted = header(client.local_addr().unwrap(), client.peer_addr().unwrap());
    let mut bytes = vec![0; wanted.len()];
    backend.read_exact(&mut bytes).is_ok() && bytes == wanted
}

/// Both ends of one that is carried to this backend: what the relay was told last it may not have read yet.
fn carried(at: SocketAddr, backend: &TcpListener) -> (TcpStream, TcpStream) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let client = connected(at);
        // Before it there may be some that were given up.
        while let Some(mut its) = accepted_within(backend, 200) {
            if is_greeted(&mut its, &client) {
                return (client, its);
            }
        }
    }
    panic!("nobody comes to the backend with his header");
}

/// Waits until a new connection is ended.
fn wait_refused(at: SocketAddr, why: &str) {
    let begun = Instant::now();
    loop {
        let mut client = connected(at);
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        if is_reset(&mut client) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{why}");
    }
}

fn leads(backends: &[SocketAddr], stay: &[SocketAddr]) -> Leads {
    Leads { backends: backends.to_vec(), stay: stay.iter().copied().collect() }
}

/// Whether it is ended by the other side before it says anything.
fn is_reset(client: &mut TcpStream) -> bool {
    client.read_exact(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

fn talk(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
    from.write_all(text).unwrap();
    let mut bytes = vec![0; text.len()];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, text);
}

/// The loop in a thread, with room for so many.
struct Looping {
    daemon: Option<UnixStream>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Looping {
    fn new(most: usize) -> Self {
        let (daemon, its) = UnixStream::pair().unwrap();
        let thread = thread::Builder::new().spawn(move || Server::new(its.as_fd(), most)?.run()).unwrap();
        Self { daemon: Some(daemon), thread: Some(thread) }
    }

    fn tell(&self, word: &Word, listeners: &[OwnedFd]) {
        tell(self.daemon.as_ref().unwrap(), word, listeners).unwrap();
    }

    fn open(&self, port: u16, listeners: &[OwnedFd], backends: &[SocketAddr]) {
        self.lead(port, backends, &NONE);
        self.tell(&Word::Opened { port, listeners: listeners.len() }, listeners);
    }

    fn lead(&self, port: u16, backends: &[SocketAddr], stay: &[SocketAddr]) {
        self.tell(&Word::Leads { port, backends: backends.to_vec(), stay: stay.to_vec() }, &[]);
    }

    fn end(mut self) {
        drop(self.daemon.take());
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

#[test]
fn bytes_go_both_ways_and_each_end_is_passed_on_alone() {
    let ((at, listeners), (to, backend)) = (published(), listen());
    let looping = Looping::new(64);
    looping.open(80, &listeners, &[to]);
    let (mut client, mut its) = carried(at, &backend);
    let much: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let sent = much.clone();
    let mut sender = client.try_clone().unwrap();
    let writer = thread::Builder::new()
        .spawn(move || {
            sender.write_all(&sent).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        })
        .unwrap();
    let mut got = Vec::new();
    let _length = its.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == much, "{} bytes of {}", got.len(), much.len());
    // The client has ended, and hears what comes after that.
    let back = thread::Builder::new().spawn(move || its.write_all(&much).map(|()| much).unwrap()).unwrap();
    let mut got = Vec::new();
    let _length = client.read_to_end(&mut got).unwrap();
    assert!(got == back.join().unwrap());
    looping.end();
}

#[test]
fn both_families_are_told_as_they_came() {
    let ((at, listeners), (to, backend)) = (published(), listen());
    let looping = Looping::new(64);
    looping.open(80, &listeners, &[to]);
    for host in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (mut client, mut its) = carried(SocketAddr::new(host, at.port()), &backend);
        talk(&mut its, &mut client, b"who speaks first is all the same");
    }
    looping.end();
}

#[test]
fn backends_have_their_turns_and_those_who_do_not_serve_are_passed_over() {
    let ((at, listeners), (one, first), (two, second), (gone, closed)) =
        (published(), listen(), listen(), listen());
    drop(closed);
    let looping = Looping::new(64);
    looping.open(80, &listeners, &[one, gone, two]);
    let clients: Vec<_> = (0..6).map(|_| connected(at)).collect();
    // Whoever was for the one in between is the next one's.
    for (backend, times) in [(&first, 2), (&second, 4)] {
        (0..times).for_each(|_| drop(accepted(backend)));
    }
    drop(clients);
    looping.lead(80, &[gone], &NONE);
    wait_refused(at, "nobody serves");
    looping.lead(80, &NONE, &NONE);
    wait_refused(at, "there is nobody");
    looping.end();
}

#[test]
fn one_who_is_silent_is_given_up_for_the_next() {
    let ((at, listeners), (to, backend)) = (published(), listen());
    // Nothing is taken from it, and no more may wait than it has room for.
    let (silent, full) = listen();
    rustix::net::listen(&full, 0).unwrap();
    let _waits = TcpStream::connect(silent).unwrap();
    let looping = Looping::new(64);
    looping.open(80, &listeners, &[silent, to]);
    let mut client = connected(at);
    let mut its = accepted(&backend);
    assert!(is_greeted(&mut its, &client));
    talk(&mut client, &mut its, b"served all the same");
    drop((client, its));
    looping.end();
}

#[test]
fn connections_go_on_with_whoever_stays_and_end_with_whoever_has_gone() {
    let ((at, listeners), (one, first), (two, second)) = (published(), listen(), listen());
    let looping = Looping::new(64);
    looping.open(80, &listeners, &[one]);
    let (mut client, mut its) = carried(at, &first);
    looping.lead(80, &[two], &[one]);
    let (mut other, mut others) = carried(at, &second);
    talk(&mut client, &mut its, b"about to stop, and answers");
    looping.lead(80, &[two], &NONE);
    assert!(is_reset(&mut client) && is_reset(&mut its), "it has gone");
    talk(&mut other, &mut others, b"it is here");
    drop((other, others));
    looping.end();
}

#[test]
fn a_broken_end_breaks_the_other() {
    let ((at, listeners), (to, backend)) = (published(), listen());
    let looping = Looping::new(64);
    looping.open(80, &listeners, &[to]);
    let (client, mut its) = carried(at, &backend);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    assert!(is_reset(&mut its));
    looping.end();
}

#[test]
fn as_many_are_carried_as_there_is_room_for_and_the_others_wait() {
    let ((at, listeners), (to, backend)) = (published(), listen());
    let looping = Looping::new(8);
    looping.open(80, &listeners, &[to]);
    let (one, _one) = carried(at, &backend);
    let two = carried(at, &backend);
    let third = connected(at);
    backend.set_nonblocking(true).unwrap();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        assert_eq!(
            backend.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "a quarter of the room for one port"
        );
    }
    backend.set_nonblocking(false).unwrap();
    drop((one, _one));
    assert!(is_greeted(&mut accepted(&backend), &third));
    looping.tell(&Word::Closed { port: 80 }, &[]);
    drop((third, two));
    looping.end();
}

#[test]
fn without_a_daemon_it_takes_nothing_new_and_carries_what_it_has() {
    let ((at, listeners), (to, backend)) = (published(), listen());
    let mut looping = Looping::new(64);
    looping.open(80, &listeners, &[to]);
    let (mut client, mut its) = carried(at, &backend);
    drop(looping.daemon.take());
    drop(listeners);
    let begun = Instant::now();
    while TcpStream::connect(at).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it takes new ones");
    }
    // Those that it took before it knew have come to the backend, and end.
    while accepted_within(&backend, 200).is_some() {}
    talk(&mut client, &mut its, b"still here");
    assert!(!looping.thread.as_ref().unwrap().is_finished());
    drop((client, its));
    looping.end();
}

/// The relay's process, in this test's own namespace.
fn started(port: u16, listeners: &[OwnedFd], to: &[SocketAddr]) -> Relay {
    let relay = Relay::default();
    set_ports(&relay, port, listeners, &leads(to, &NONE));
    relay
}

fn set_ports(relay: &Relay, port: u16, listeners: &[OwnedFd], leads: &Leads) {
    let thread = rustix::thread::gettid().as_raw_nonzero();
    let own = format!("/proc/self/task/{thread}/ns/net");
    relay.set(Path::new(&own), &[(port, leads.clone())].into(), |_| Ok(clones(listeners))).unwrap();
}

fn process_of(relay: &Relay) -> String {
    let state = locked(&relay.0);
    let fd = state.running.as_ref().unwrap().process.as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().to_owned()
}

/// In a namespace of its own, with a loopback.
fn alone(run: impl FnOnce() + Send) {
    namespace::alone(|| {
        crate::network::link::Links::open().unwrap().up(1).unwrap();
        run();
        Ok(())
    })
    .unwrap();
}

#[test]
fn its_process_has_nothing_left_and_is_started_again_when_it_is_killed() {
    alone(|| {
        let ((at, listeners), (to, backend)) = (published(), listen());
        let relay = started(80, &listeners, &[to]);
        let (mut client, mut its) = carried(at, &backend);
        talk(&mut client, &mut its, b"carried");
        let process = process_of(&relay);
        // A test is a thread of its process.
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
        let mut statuses = tasks.map(|task| std::fs::read_to_string(task.path().join("status")).unwrap());
        let status = statuses.find(|it| it.contains("Seccomp:\t2")).unwrap();
        let said = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let user = 0xF000_6B74_u32.to_string();
        assert_eq!(said("Uid:"), vec![user.clone(); 4]);
        assert_eq!(said("Gid:"), vec![user; 4]);
        assert_eq!(said("Groups:"), [""; 0]);
        for field in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(said(field), ["0000000000000000"], "{field}");
        }
        assert_eq!((said("NoNewPrivs:"), said("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));

        let killed = rustix::process::Pid::from_raw(process.parse().unwrap()).unwrap();
        rustix::process::kill_process(killed, Signal::KILL).unwrap();
        assert!(
            matches!(client.read(&mut [0]), Ok(0) | Err(_)) && matches!(its.read(&mut [0]), Ok(0) | Err(_))
        );
        let (mut client, mut its) = carried(at, &backend);
        talk(&mut client, &mut its, b"carried by another");
        assert_ne!(process_of(&relay), process);
    });
}

#[test]
fn its_process_is_told_of_changes_and_ends_when_there_is_nothing_to_carry() {
    alone(|| {
        let ((at, listeners), (one, first), (two, second)) = (published(), listen(), listen());
        let relay = started(80, &listeners, &[one]);
        let (mut client, mut its) = carried(at, &first);
        let process = process_of(&relay);
        set_ports(&relay, 80, &listeners, &leads(&[two], &[one]));
        let _others = carried(at, &second);
        talk(&mut client, &mut its, b"goes on");
        assert_eq!(process_of(&relay), process);
        relay.end();
        talk(&mut client, &mut its, b"to its end");
        drop((client, its, _others));
        let begun = Instant::now();
        while Path::new(&format!("/proc/{process}")).exists() {
            assert!(begun.elapsed() < PATIENCE, "{process} is there still");
            thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn one_that_dies_at_once_is_started_ever_more_rarely() {
    let at_once = Duration::from_millis(20);
    let mut pauses = vec![Duration::ZERO];
    for _ in 0..6 {
        pauses.push(pause(pauses[pauses.len() - 1], at_once));
    }
    let wanted = [0, 500, 1000, 2000, 4000, 5000, 5000].map(Duration::from_millis);
    assert_eq!(pauses, wanted);
    assert_eq!(pause(LONGEST_PAUSE, WELL), PAUSE);
}

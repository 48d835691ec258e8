//! What runs inside of network namespaces, as this program again: a server of bytes, its clients, and one that asks for names.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// By its first word; clients print one number, or those of all their turns.
///
/// # Panics
/// When something fails.
pub(crate) fn run(arguments: &[String]) {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["serve"] => serve(),
        ["throughput", milliseconds, turns, ref targets @ ..] => {
            let length = Duration::from_millis(milliseconds.parse().expect("milliseconds"));
            in_turns(turns.parse().expect("turns"), targets, |address| throughput(address, length));
        }
        ["connections", count, turns, ref targets @ ..] => {
            let count = count.parse().expect("a count");
            in_turns(turns.parse().expect("turns"), targets, |address| connections(address, count));
        }
        ["ask", address] => assert_eq!(ask(&mut TcpStream::connect(address).expect("connect")), 0),
        ["requests", rate, until, ref addresses @ ..] => {
            requests(rate.parse().expect("a rate"), Path::new(until), addresses);
        }
        ["names", server, name, seconds] => {
            println!("{}", names(server, name, seconds.parse().expect("seconds")))
        }
        _ => panic!("client {words:?}"),
    }
}

/// Takes everything of a connection, then says how much that was: one connection after another. At the second port connections begin
/// with a header of the PROXY protocol, from a client of IPv4, which is not counted.
fn serve() {
    const HEADER: usize = 28;
    drop(std::thread::spawn(|| serve_at(8081, HEADER)));
    serve_at(8080, 0);
}

fn serve_at(port: u16, header: usize) {
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("listen");
    let mut buffer = vec![0; 1 << 20];
    loop {
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let mut total: u64 = 0;
        if stream.read_exact(&mut buffer[..header]).is_ok() {
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                total += count as u64;
            }
        }
        let _gone = stream.write_all(&total.to_be_bytes());
    }
}

fn ask(stream: &mut TcpStream) -> u64 {
    stream.shutdown(Shutdown::Write).expect("end the sending");
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).expect("the server's count");
    u64::from_be_bytes(answer)
}

/// What is reached, and the network namespace that it is reached from.
pub(crate) fn target(address: &str, network: &Path) -> String {
    format!("{address}@{}", network.display())
}

/// Takes a sample of each of these targets, turn by turn, each turn another one first: all by one process, so that what
/// lies between two samples of a turn is as short as it can be. Prints a line for each turn, in the order of the targets.
fn in_turns(turns: usize, targets: &[&str], sample: impl Fn(&str) -> f64) {
    let open = |target: &&'_ str| {
        let (address, path) = target.split_once('@').expect("an address and a network namespace");
        (address.to_owned(), File::open(path).expect("open a network namespace"))
    };
    let targets: Vec<(String, File)> = targets.iter().map(open).collect();
    let mut taken = vec![0.0; targets.len()];
    for turn in 0..turns {
        for offset in 0..targets.len() {
            let at = (turn + offset) % targets.len();
            let (address, network) = &targets[at];
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter a network namespace");
            taken[at] = sample(address);
        }
        println!("{}", taken.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    }
}

/// GiB a second that have arrived.
fn throughput(address: &str, length: Duration) -> f64 {
    let mut stream = TcpStream::connect(address).expect("connect");
    let piece = vec![b'x'; 256 << 10];
    let since = Instant::now();
    while since.elapsed() < length {
        stream.write_all(&piece).expect("send");
    }
    let arrived = ask(&mut stream);
    #[expect(clippy::cast_precision_loss, reason = "a rate of GiB")]
    let gib = arrived as f64 / f64::from(1 << 30);
    gib / since.elapsed().as_secs_f64()
}

/// New connections a second, one after another, each with an answer.
fn connections(address: &str, count: u32) -> f64 {
    let since = Instant::now();
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).expect("connect");
        assert_eq!(ask(&mut stream), 0);
    }
    f64::from(count) / since.elapsed().as_secs_f64()
}

/// So many requests a second to the addresses in turn, each a connection of its own, until a file is there. Prints how many there
/// were, and how many of them failed.
fn requests(rate: u32, until: &Path, addresses: &[&str]) {
    /// Who waits for answers at the same time.
    const CLIENTS: u32 = 32;
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| address.parse().expect("an address")).collect();
    let (begun, asked, failed) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (asked, failed, addresses) = (&asked, &failed, &addresses);
            let _thread = scope.spawn(move || {
                for number in (client..).step_by(CLIENTS as usize) {
                    let due = begun + Duration::from_secs(1) * number / rate;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if until.exists() {
                        break;
                    }
                    let _before = asked.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = request(addresses[number as usize % addresses.len()]) {
                        eprintln!("request {number} at {:.3} s: {error}", begun.elapsed().as_secs_f64());
                        let _before = failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    println!("{} {} {}", asked.into_inner(), failed.into_inner(), begun.elapsed().as_secs_f64());
}

/// Nothing is sent, and that is answered.
fn request(address: SocketAddr) -> std::io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0; 8])
}

/// Answers a second to questions for a name's address, thirty-two on their way.
fn names(server: &str, name: &str, seconds: u64) -> f64 {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect(server).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set a timeout");
    let question = |number: u16| {
        let mut message = number.to_be_bytes().to_vec();
        message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        message.push(u8::try_from(name.len()).expect("a short name"));
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(&[0, 0, 1, 0, 1]);
        message
    };
    let mut asked: u16 = 0;
    for _ in 0..32 {
        let _length = socket.send(&question(asked)).expect("ask");
        asked = asked.wrapping_add(1);
    }
    let (since, mut answered, mut buffer) = (Instant::now(), 0_u32, [0; 512]);
    while since.elapsed() < Duration::from_secs(seconds) {
        let length = socket.recv(&mut buffer).expect("an answer");
        assert!(length > 12 && buffer[3] & 15 == 0 && buffer[7] == 1, "one address: {:?}", &buffer[..length]);
        answered += 1;
        let _length = socket.send(&question(asked)).expect("ask");
        asked = asked.wrapping_add(1);
    }
    f64::from(answered) / since.elapsed().as_secs_f64()
}

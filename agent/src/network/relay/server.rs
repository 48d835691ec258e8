//! The relay's loop: it takes connections of clients, joins each to a backend, and moves what comes, as the kernel says that it can.
//! One thread, and nothing in it waits but for the kernel's next word.
//!
//! Whatever waits is bounded: as many connections as there are descriptors for, and of one port a quarter of them; the others wait to be
//! taken, as they do before any program. A backend that does not answer has [`ANSWERS_WITHIN`], and then the next is asked.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags};

use super::channel::{Heard, Told, Word};
use super::connection::{Answer, Connecting, Connection, Stage, connect};
use super::flow::{End, Pipes, Progress};
use super::header::header;
use super::listening::Listening;
use super::process::keep_alive;
use super::say::Sayings;

/// A backend is to have answered by then.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// After the kernel had no room for a connection.
const PATIENCE: Duration = Duration::from_millis(100);
/// So many connections of one port are taken before others have their turn.
const TAKEN_AT_ONCE: usize = 64;
const EVENTS: usize = 256;

/// What an event is of: the daemon's channel, listening sockets behind [`LISTENS`] by their port, and both ends of connections by
/// their place, the client's first.
const CHANNEL: u64 = u64::MAX;
const LISTENS: u64 = 1 << 62;

/// All that is carried.
#[derive(Debug)]
pub(super) struct Server<'a> {
    epoll: OwnedFd,
    /// `None`: the daemon has gone.
    channel: Option<BorrowedFd<'a>>,
    heard: Heard,
    sayings: Sayings,
    ports: BTreeMap<u16, Listening>,
    connections: Vec<Option<Connection>>,
    /// Places of `connections` that are free.
    free: Vec<usize>,
    /// Places that become free when no event of this turn can be of them.
    left: Vec<usize>,
    count: usize,
    most: usize,
    pipes: Pipes,
    /// When backends were asked, each with its connection's place: all have the same time, so the first is the first to have none.
    asked: VecDeque<(Instant, usize)>,
    /// Those that have more to do at once, each once.
    busy: VecDeque<usize>,
    /// The kernel had no room until then.
    waits_until: Option<Instant>,
    has_changed: bool,
}

impl<'a> Server<'a> {
    /// Carries at most so many connections at once.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn new(channel: BorrowedFd<'a>, most: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, channel, EventData::new_u64(CHANNEL), EventFlags::IN)?;
        Ok(Self {
            epoll,
            channel: Some(channel),
            heard: Heard::default(),
            sayings: Sayings::default(),
            ports: BTreeMap::new(),
            connections: Vec::new(),
            free: Vec::new(),
            left: Vec::new(),
            count: 0,
            most,
            pipes: Pipes::default(),
            asked: VecDeque::new(),
            busy: VecDeque::new(),
            waits_until: None,
            has_changed: false,
        })
    }

    /// Serves until the daemon has gone and no connection is left.
    ///
    /// # Errors
    /// The kernel's; the daemon says what is no word.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while self.channel.is_some() || self.count > 0 {
            self.wait(&mut events)?;
            for event in &events {
                self.take(event.data.u64())?;
            }
            self.go_on();
            self.give_up_the_silent();
            let left = mem::take(&mut self.left);
            self.free.extend(left);
            self.pause_and_resume()?;
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let first = self.asked.front().map(|(until, _)| *until);
        let next = first.into_iter().chain(self.waits_until).min();
        let wait = if self.busy.is_empty() {
            next.map(|next| next.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
        } else {
            Some(Duration::ZERO)
        };
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, of: u64) -> io::Result<()> {
        match of {
            CHANNEL => self.hear(),
            LISTENS.. => {
                let _others_have_their_turn = self.accept(u16::try_from(of - LISTENS).unwrap_or_default());
                Ok(())
            }
            of => {
                let place = usize::try_from(of / 2).unwrap_or(usize::MAX);
                self.look(place, of % 2 == 0);
                Ok(())
            }
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        let Some(channel) = self.channel else { return Ok(()) };
        match self.heard.read(channel)? {
            Some(told) => told.into_iter().try_for_each(|told| self.obey(told)),
            None => {
                epoll::delete(&self.epoll, channel)?;
                self.channel = None;
                let ports: Vec<u16> = self.ports.keys().copied().collect();
                // Those that wait to be taken have nobody else.
                ports.iter().for_each(|port| while self.accept(*port) == Taken::Some {});
                ports.into_iter().try_for_each(|port| self.close(port))
            }
        }
    }

    fn obey(&mut self, (word, listeners): Told) -> io::Result<()> {
        match word {
            Word::Opened { port, .. } => self.open(port, listeners),
            Word::Leads { port, backends, stay } => {
                let known = self.ports.entry(port).or_default();
                known.lead(backends, stay);
                self.end_those_without(port);
                Ok(())
            }
            Word::Closed { port } => self.close(port),
        }
    }

    fn open(&mut self, port: u16, listeners: Vec<OwnedFd>) -> io::Result<()> {
        self.forget_listeners(port)?;
        for listener in &listeners {
            keep_alive(listener)?;
            let of = EventData::new_u64(LISTENS + u64::from(port));
            epoll::add(&self.epoll, listener, of, EventFlags::IN)?;
        }
        let known = self.ports.entry(port).or_default();
        (known.listeners, known.is_paused) = (listeners, false);
        self.has_changed = true;
        Ok(())
    }

    fn close(&mut self, port: u16) -> io::Result<()> {
        self.forget_listeners(port)?;
        let is_over = self.ports.get(&port).is_some_and(|known| known.carried == 0);
        if is_over {
            drop(self.ports.remove(&port));
        }
        Ok(())
    }

    /// The daemon has the same sockets: they are not forgotten because these are closed.
    fn forget_listeners(&mut self, port: u16) -> io::Result<()> {
        let listeners =
            self.ports.get_mut(&port).map(|known| mem::take(&mut known.listeners)).unwrap_or_default();
        Ok(listeners.iter().try_for_each(|listener| epoll::delete(&self.epoll, listener))?)
    }

    /// Whoever has gone does not say so when his machine has gone with him.
    fn end_those_without(&mut self, port: u16) {
        let Some(known) = self.ports.get(&port) else { return };
        let is_lost = |connection: &Connection| {
            connection.port == port
                && matches!(&connection.stage, Stage::Joined(it) if !known.may_go_on(it.to))
        };
        let lost = self.connections.iter().enumerate();
        let lost: Vec<usize> =
            lost.filter(|(_, it)| it.as_ref().is_some_and(is_lost)).map(|(place, _)| place).collect();
        for place in lost {
            if let Some(connection) = self.leave(place) {
                connection.reset();
            }
        }
    }

    /// Takes connections that wait at a port.
    fn accept(&mut self, port: u16) -> Taken {
        for _ in 0..TAKEN_AT_ONCE {
            if self.is_full(port) {
                self.has_changed = true;
                return Taken::All;
            }
            let Some((socket, from)) = self.accept_one(port) else { return Taken::All };
            let to = rustix::net::getsockname(&socket).ok().and_then(|to| SocketAddr::try_from(to).ok());
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            let (Some(to), Some(from)) = (to, from) else { continue };
            let others = self.ports.get_mut(&port).map(Listening::next).unwrap_or_default();
            self.join(port, End::new(socket), (others, header(from, to)));
        }
        Taken::Some
    }

    /// The next that any of the port's sockets has.
    fn accept_one(&mut self, port: u16) -> Option<(OwnedFd, Option<SocketAddrAny>)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listeners = &mut self.ports.get_mut(&port)?.listeners;
        let mut at = 0;
        while let Some(listener) = listeners.get(at) {
            match rustix::net::acceptfrom_with(listener, flags) {
                Ok(accepted) => return Some(accepted),
                // It has gone again.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => at += 1,
                // The daemon has shut it. It would be told of for ever: the daemon has it too.
                Err(Errno::INVAL) => {
                    let shut = listeners.swap_remove(at);
                    let _unknown = epoll::delete(&self.epoll, &shut);
                }
                Err(error) => {
                    self.sayings.say(format_args!("taking a connection of the port {port}: {error}"));
                    self.waits_until = Some(Instant::now() + PATIENCE);
                    self.has_changed = true;
                    return None;
                }
            }
        }
        None
    }

    fn join(&mut self, port: u16, client: End, (others, header): (VecDeque<SocketAddr>, Vec<u8>)) {
        let Some((first, others)) = ask_next(others) else {
            return self.refuse(port, client, "no task serves");
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let (backend, to) = first;
        let until = Instant::now() + ANSWERS_WITHIN;
        let watched = self.watch(&client.socket, place, Side::Client);
        if let Err(error) = watched.and_then(|()| self.watch(&backend, place, Side::Backend)) {
            self.free.push(place);
            return self.refuse(port, client, &error.to_string());
        }
        self.asked.push_back((until, place));
        let stage = Stage::Connecting(Connecting { backend, to, until, others, header });
        self.connections[place] = Some(Connection { port, client, stage, is_busy: false });
        self.count += 1;
        if let Some(known) = self.ports.get_mut(&port) {
            known.carried += 1;
        }
    }

    fn refuse(&mut self, port: u16, client: End, why: &str) {
        self.sayings.say(format_args!("a connection to the port {port} is ended: {why}"));
        client.reset();
    }

    fn watch(&self, socket: &OwnedFd, place: usize, side: Side) -> io::Result<()> {
        let side = u64::from(side == Side::Backend);
        let of = EventData::new_u64(place as u64 * 2 + side);
        let whatever = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, of, whatever)?)
    }

    /// The kernel says something of an end of a connection.
    fn look(&mut self, place: usize, is_client: bool) {
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        match &mut connection.stage {
            Stage::Joined(joined) => {
                let end = if is_client { &mut connection.client } else { &mut joined.backend };
                (end.is_readable, end.is_writable) = (true, true);
                if !connection.is_busy {
                    self.pump(place);
                }
            }
            Stage::Connecting(_) if is_client => {}
            Stage::Connecting(_) => self.finish(place),
        }
    }

    /// A backend may have answered.
    fn finish(&mut self, place: usize) {
        let Some(Connection { port, client, stage, is_busy }) =
            self.connections.get_mut(place).and_then(Option::take)
        else {
            return;
        };
        let (stage, refused) = match stage {
            Stage::Joined(joined) => (Stage::Joined(joined), None),
            Stage::Connecting(connecting) => match connecting.look() {
                Answer::Joined(joined) => (Stage::Joined(joined), None),
                Answer::NotYet(connecting) => (Stage::Connecting(connecting), None),
                Answer::Refused(connecting, error) => (Stage::Connecting(connecting), Some(error)),
            },
        };
        self.connections[place] = Some(Connection { port, client, stage, is_busy });
        match refused {
            None => self.pump(place),
            Some(error) => self.ask_another(place, &error),
        }
    }

    /// The one who was asked does not serve: the next, or none.
    fn ask_another(&mut self, place: usize, error: &io::Error) {
        let Some((port, to, others)) = self
            .connecting(place)
            .map(|(port, connecting)| (port, connecting.to, mem::take(&mut connecting.others)))
        else {
            return;
        };
        self.sayings.say(format_args!("{to}, to which the port {port} leads, does not answer: {error}"));
        let asked =
            ask_next(others).filter(|((backend, _), _)| self.watch(backend, place, Side::Backend).is_ok());
        let Some(((backend, to), others)) = asked else {
            self.leave(place).into_iter().for_each(Connection::reset);
            return;
        };
        let until = Instant::now() + ANSWERS_WITHIN;
        self.asked.push_back((until, place));
        if let Some((_, connecting)) = self.connecting(place) {
            let header = mem::take(&mut connecting.header);
            *connecting = Connecting { backend, to, until, others, header };
        }
    }

    fn connecting(&mut self, place: usize) -> Option<(u16, &mut Connecting)> {
        match self.connections.get_mut(place)?.as_mut()? {
            Connection { port, stage: Stage::Connecting(connecting), .. } => Some((*port, connecting)),
            _ => None,
        }
    }

    fn pump(&mut self, place: usize) {
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        let Stage::Joined(joined) = &mut connection.stage else { return };
        match joined.pump(&mut connection.client, &mut self.pipes) {
            Ok(Progress::Waits) => {}
            Ok(Progress::More) => {
                connection.is_busy = true;
                self.busy.push_back(place);
            }
            Ok(Progress::Ended) => drop(self.leave(place)),
            Err(_) => self.leave(place).into_iter().for_each(Connection::reset),
        }
    }

    /// Those that had more to do: each has its turn before the first has its next.
    fn go_on(&mut self) {
        for _ in 0..self.busy.len() {
            let Some(place) = self.busy.pop_front() else { return };
            if let Some(Some(connection)) = self.connections.get_mut(place) {
                connection.is_busy = false;
            }
            self.pump(place);
        }
    }

    fn give_up_the_silent(&mut self) {
        let now = Instant::now();
        while let Some((until, place)) = self.asked.pop_front_if(|(until, _)| *until <= now) {
            let is_it = |it: &Connection| matches!(&it.stage, Stage::Connecting(it) if it.until == until);
            if self.connections.get(place).is_some_and(|it| it.as_ref().is_some_and(is_it)) {
                self.ask_another(place, &io::ErrorKind::TimedOut.into());
            }
        }
        self.sayings.tell(self.channel, now);
    }

    /// A connection is no more: its place is another's from the next turn on.
    fn leave(&mut self, place: usize) -> Option<Connection> {
        let connection = self.connections.get_mut(place)?.take()?;
        self.left.push(place);
        self.count -= 1;
        self.has_changed = true;
        if let Some(known) = self.ports.get_mut(&connection.port) {
            known.carried -= 1;
            if known.carried == 0 && known.listeners.is_empty() {
                drop(self.ports.remove(&connection.port));
            }
        }
        Some(connection)
    }

    fn is_full(&self, port: u16) -> bool {
        let of_port = self.ports.get(&port).map_or(0, |known| known.carried);
        self.count >= self.most || of_port >= self.most.div_ceil(4) || self.waits_until.is_some()
    }

    /// Sockets of ports that have as many connections as they may are not looked at.
    fn pause_and_resume(&mut self) -> io::Result<()> {
        if self.waits_until.is_some_and(|until| until <= Instant::now()) {
            (self.waits_until, self.has_changed) = (None, true);
        }
        if !mem::take(&mut self.has_changed) {
            return Ok(());
        }
        let changed: Vec<(u16, bool)> = self
            .ports
            .iter()
            .map(|(port, known)| (*port, known.is_paused, self.is_full(*port)))
            .filter(|(_, was, is)| was != is)
            .map(|(port, _, is)| (port, is))
            .collect();
        for (port, is_paused) in changed {
            let Some(known) = self.ports.get_mut(&port) else { continue };
            known.is_paused = is_paused;
            let flags = if is_paused { EventFlags::empty() } else { EventFlags::IN };
            for listener in &known.listeners {
                let of = EventData::new_u64(LISTENS + u64::from(port));
                epoll::modify(&self.epoll, listener, of, flags)?;
            }
        }
        Ok(())
    }
}

/// Of those that wait at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// There may be more.
    Some,
    /// Or as many as there is room for.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Backend,
}

/// The socket of the first that can be asked at all, and who is left.
type Asked = ((OwnedFd, SocketAddr), VecDeque<SocketAddr>);

fn ask_next(mut others: VecDeque<SocketAddr>) -> Option<Asked> {
    while let Some(to) = others.pop_front() {
        if let Ok(socket) = connect(to) {
            return Some(((socket, to), others));
        }
    }
    None
}

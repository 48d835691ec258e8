//! The connection: authentication, calls and their answers, signals. Nothing here waits longer than the patience that
//! it was given.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ketch_sys::{credential, socket};

use super::DbusError;
use super::address::{Address, Transport};
use super::message::{Answer, Call, Kind, Message, PREFIX};
use super::value::Value;

/// The longest line that authentication may answer.
const LINE_LIMIT: usize = 4096;

/// A signal: interface and member.
type SignalName = (&'static str, &'static str);

/// An authenticated connection.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    transport: Transport,
    patience: Duration,
    serial: u32,
    /// Received, and not yet taken apart.
    buffer: Vec<u8>,
    /// The one signal that is listened to; others are dropped.
    wanted: Option<SignalName>,
    /// Those that came while something else was waited for.
    signals: VecDeque<Message>,
    /// Who answered the last call: on a bus, anybody may send a signal of any name.
    answerer: String,
}

impl Connection {
    /// Connects, and says who we are. To connect, and for each answer from then on, no more than `patience` is waited.
    ///
    /// # Errors
    /// Nobody is there, or does not know us, or does not answer.
    pub fn open(address: &Address, transport: Transport, patience: Duration) -> Result<Self, DbusError> {
        let name = match address {
            Address::Path(path) => socket::UnixName::Path(path),
            Address::Abstract(name) => socket::UnixName::Abstract(name),
        };
        let connected = socket::connect_stream_within(name, patience);
        let stream = connected.map_err(|source| match source.errno {
            ketch_sys::Errno::EAGAIN => {
                DbusError::TimedOut { seconds: patience.as_secs(), question: "a connection" }
            }
            _ => DbusError::Connect { address: address.to_string(), source },
        })?;
        let mut connection = Self {
            stream: UnixStream::from(stream),
            transport,
            patience,
            serial: 0,
            buffer: Vec::new(),
            wanted: None,
            signals: VecDeque::new(),
            answerer: String::new(),
        };
        connection.authenticate()?;
        if transport == Transport::Bus {
            connection.call("Hello", &bus_call("Hello", &[]))?;
        }
        Ok(connection)
    }

    /// SASL's EXTERNAL: the other side knows from the socket who we are. The first attempt names the user, as every
    /// client does; in a user namespace its number is another one than the other side's, so the second names none.
    fn authenticate(&mut self) -> Result<(), DbusError> {
        const QUESTION: &str = "the authentication";
        let until = self.deadline();
        let user: String =
            credential::effective_uid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.send(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut answer = self.line(QUESTION, until)?;
        if answer.starts_with("REJECTED") {
            self.send(b"AUTH EXTERNAL\r\n")?;
            answer = self.line(QUESTION, until)?;
            if answer.starts_with("DATA") {
                self.send(b"DATA\r\n")?;
                answer = self.line(QUESTION, until)?;
            }
        }
        if !answer.starts_with("OK") {
            return Err(DbusError::Refused { answer });
        }
        // A systemd that reads the end of the authentication and the first call at once forgets the call until more
        // comes. So both ends are asked for together, and the call waits for the answer to the first of them.
        self.send(b"NEGOTIATE_UNIX_FD\r\nBEGIN\r\n")?;
        self.line(QUESTION, until).map(|_whatever| ())
    }

    /// Listens to a signal from now on; [`Connection::signal`] gives them.
    ///
    /// # Errors
    /// The bus does not take the rule.
    pub fn listen(&mut self, wanted: SignalName) -> Result<(), DbusError> {
        self.wanted = Some(wanted);
        // A peer sends its signals without being asked to.
        if self.transport == Transport::Bus {
            let (interface, member) = wanted;
            let rule = Value::text(format!("type='signal',interface='{interface}',member='{member}'"));
            self.call("AddMatch", &bus_call("AddMatch", &[rule]))?;
        }
        Ok(())
    }

    /// Calls a method and waits for its answer. `question` is its name for people.
    ///
    /// # Errors
    /// [`DbusError::Answer`] when the answer is an error; otherwise the connection is of no more use.
    pub fn call(&mut self, question: &'static str, call: &Call<'_>) -> Result<Vec<Value>, DbusError> {
        let serial = self.post(call, Answer::Wanted)?;
        let until = self.deadline();
        loop {
            let message = self.receive(question, until)?;
            match message.kind {
                Kind::Return if message.reply_serial == serial => {
                    let values = message.values()?;
                    self.answerer = message.sender;
                    return Ok(values);
                }
                Kind::Error if message.reply_serial == serial => {
                    let text =
                        message.values().ok().and_then(|values| values.first()?.as_text().map(str::to_owned));
                    let name = message.error_name;
                    return Err(DbusError::Answer { text: text.unwrap_or_else(|| name.clone()), name });
                }
                Kind::Signal if self.is_wanted(&message) => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Calls a method without waiting for what becomes of it.
    ///
    /// # Errors
    /// The call can't be sent.
    pub fn tell(&mut self, call: &Call<'_>) -> Result<(), DbusError> {
        self.post(call, Answer::Unwanted).map(|_serial| ())
    }

    fn post(&mut self, call: &Call<'_>, answer: Answer) -> Result<u32, DbusError> {
        self.serial += 1;
        self.send(&call.encode(self.serial, answer)?)?;
        Ok(self.serial)
    }

    /// The first signal of those that are listened to, of whoever answered the last call, in whose values `pick` finds
    /// something.
    ///
    /// # Errors
    /// None came in time.
    pub fn signal<T>(
        &mut self,
        question: &'static str,
        mut pick: impl FnMut(&[Value]) -> Option<T>,
    ) -> Result<T, DbusError> {
        let until = self.deadline();
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(question, until)?,
            };
            if self.is_wanted(&message)
                && message.sender == self.answerer
                && let Some(found) = pick(&message.values()?)
            {
                return Ok(found);
            }
        }
    }

    fn is_wanted(&self, message: &Message) -> bool {
        message.kind == Kind::Signal
            && self
                .wanted
                .is_some_and(|(interface, member)| message.interface == interface && message.member == member)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), DbusError> {
        // The socket has its time limit for writing since before it was connected.
        self.stream.write_all(bytes).map_err(|error| self.failure(error, "a message"))
    }

    fn receive(&mut self, question: &'static str, until: Instant) -> Result<Message, DbusError> {
        loop {
            let length = self.buffer.first_chunk::<PREFIX>().map(Message::length).transpose()?;
            if let Some(length) = length.filter(|length| *length <= self.buffer.len()) {
                let message = Message::decode(&self.buffer[..length])?;
                self.buffer.drain(..length);
                return Ok(message);
            }
            self.read(question, until)?;
        }
    }

    fn line(&mut self, question: &'static str, until: Instant) -> Result<String, DbusError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            if self.buffer.len() > LINE_LIMIT {
                return Err(DbusError::Refused { answer: "a line without end".to_owned() });
            }
            self.read(question, until)?;
        }
    }

    /// Reads what there is, waiting for it until `until`.
    fn read(&mut self, question: &'static str, until: Instant) -> Result<(), DbusError> {
        let mut bytes = [0; 4096];
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.failure(io::ErrorKind::WouldBlock.into(), question));
        }
        // The kernel counts in microseconds, and zero is no limit.
        let limit = left.max(Duration::from_millis(1));
        let length = loop {
            let read = self.stream.set_read_timeout(Some(limit)).and_then(|()| self.stream.read(&mut bytes));
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| self.failure(error, question))?,
            }
        };
        if length == 0 {
            return Err(DbusError::Closed);
        }
        self.buffer.extend(&bytes[..length]);
        Ok(())
    }

    fn failure(&self, error: io::Error, question: &'static str) -> DbusError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                DbusError::TimedOut { seconds: self.patience.as_secs(), question }
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => DbusError::Closed,
            _ => DbusError::Io(error),
        }
    }
}

/// A call of the bus itself.
fn bus_call<'a>(member: &'a str, body: &'a [Value]) -> Call<'a> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        body,
    }
}

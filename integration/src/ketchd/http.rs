//! HTTP on the engine's socket by hand, so that a test sees each byte of an answer. One answer at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub struct Http {
    stream: UnixStream,
    /// Read, and not yet asked for.
    ahead: Vec<u8>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The first line, as it was.
    pub line: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// A header's value, or nothing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// # Panics
    /// When the body is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }

    /// # Panics
    /// When it has another status.
    #[must_use]
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// An error's message.
    ///
    /// # Panics
    /// When it has another status, kind of content or form.
    #[must_use]
    #[track_caller]
    pub fn refuses(self, status: u16) -> String {
        let answer = self.is(status);
        assert_eq!(answer.header("content-type"), "application/json", "{answer:?}");
        let value = answer.json();
        let message = value["message"].as_str().unwrap_or_default().to_owned();
        let written = serde_json::json!({ "message": message });
        assert_eq!(value, written, "{answer:?}");
        assert!(answer.body.ends_with("}\n"), "{answer:?}");
        message
    }
}

impl Http {
    /// Connects.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn at(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// Whether somebody answers, which a daemon that listens already may not do yet.
    ///
    /// # Panics
    /// When nothing comes in time.
    #[must_use]
    #[track_caller]
    pub fn is_served(mut self) -> bool {
        self.ask("GET", "/_ping", &[], "");
        self.line().starts_with("HTTP/1.1 200 ")
    }

    /// Sends a request and reads its whole answer.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn call(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        self.ask(method, path, headers, body);
        self.answer(method == "HEAD")
    }

    /// Sends a request.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &str) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n");
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        self.send(format!("{text}\r\n{body}").as_bytes());
    }

    /// Sends bytes as they are; an engine that has answered already and closed is no fault.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Has the engine read the end of the stream, and goes on reading.
    ///
    /// # Panics
    /// When the connection is gone.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("close the sending half");
    }

    /// Reads an answer's head.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let mut line = self.line();
        // What an engine says before the last answer, on its way.
        while line.starts_with("HTTP/1.1 100") {
            let _ = self.line();
            line = self.line();
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let Some(status) = status else { panic!("no answer, the engine has closed: {line:?}") };
        let mut headers = Vec::new();
        loop {
            let text = self.line();
            match text.split_once(": ") {
                None => break,
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            }
        }
        Answer { status, line, headers, body: String::new() }
    }

    /// Reads a whole answer.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn answer(&mut self, is_head: bool) -> Answer {
        let mut answer = self.head();
        let bytes = if is_head || matches!(answer.status, 204 | 304) {
            Vec::new()
        } else if answer.header("transfer-encoding") == "chunked" {
            let mut whole = Vec::new();
            while let Some(chunk) = self.chunk() {
                whole.extend(chunk);
            }
            whole
        } else if let Ok(length) = answer.header("content-length").parse() {
            self.exactly(length)
        } else {
            self.rest()
        };
        answer.body = String::from_utf8_lossy(&bytes).into_owned();
        answer
    }

    /// The next chunk of a chunked body; none at its end.
    ///
    /// # Panics
    /// When it is malformed, or nothing comes in time.
    #[must_use]
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line();
        let length = match usize::from_str_radix(&line, 16) {
            Ok(length) => length,
            Err(_) if line.is_empty() => panic!("no chunk: the engine has closed in the middle of an answer"),
            Err(error) => panic!("no chunk ({error}): {line:?}"),
        };
        let bytes = self.exactly(length);
        let _ = self.line();
        (length > 0).then_some(bytes)
    }

    /// The next frame of a multiplexed stream: its stream and its bytes; none at the end.
    ///
    /// # Panics
    /// When nothing comes in time.
    #[must_use]
    #[track_caller]
    pub fn frame(&mut self) -> Option<(u8, String)> {
        while self.ahead.len() < 8 {
            if !self.fill() {
                return None;
            }
        }
        let head = self.exactly(8);
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        Some((head[0], String::from_utf8_lossy(&self.exactly(length)).into_owned()))
    }

    /// Whether the engine has closed; that is waited for as long as for an answer.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    /// All that follows until the engine closes.
    ///
    /// # Panics
    /// When nothing comes in time.
    #[must_use]
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    #[track_caller]
    fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length && self.fill() {}
        assert!(
            self.ahead.len() >= length,
            "{length} bytes announced: {:?}",
            String::from_utf8_lossy(&self.ahead)
        );
        self.ahead.drain(..length).collect()
    }

    #[track_caller]
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            if !self.fill() {
                return String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned();
            }
        }
    }

    /// Reads more; false when the engine has closed. An engine that says nothing is not one that has ended its answer.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16384];
        let length = match self.stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!(
                "nothing came from the engine within {} s; not yet looked at: {:?}",
                TIMEOUT.as_secs(),
                String::from_utf8_lossy(&self.ahead)
            ),
            Err(_) => 0,
        };
        self.ahead.extend_from_slice(&buffer[..length]);
        length > 0
    }
}

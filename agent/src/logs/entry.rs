//! One line of a container's output, and how lines are cut out of what a container writes.

use std::collections::BTreeMap;

use crate::timestamp::Timestamp;

/// The longest piece of a line that is one entry, in bytes; longer lines are several (moby's copier).
pub(super) const LONGEST: usize = 16 << 10;

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Of that.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// Which piece of a line that is longer than an entry may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The line's: all its pieces have it.
    pub id: String,
    /// From 1.
    pub ordinal: u32,
    /// Whether the line ends with this piece.
    pub last: bool,
}

/// A line, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub stream: Stream,
    /// When its first byte was seen; the pieces of a line have their first one's.
    pub time: Timestamp,
    /// Its bytes, with the newline; a piece that is not the last, and a last line without one, have none.
    pub line: Vec<u8>,
    /// Of a long line.
    pub partial: Option<Partial>,
    /// Labels and variables that the log's options name; only what has been read has them here.
    pub attributes: BTreeMap<String, String>,
}

impl Entry {
    /// As `docker logs` prints it, behind the time and the attributes, where these are wanted.
    #[must_use]
    pub fn printed(&self, timestamps: bool, details: bool) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.line.len() + 32);
        if timestamps {
            text.extend_from_slice(self.time.padded().as_bytes());
            text.push(b' ');
        }
        if details {
            let pairs: Vec<_> = self
                .attributes
                .iter()
                .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
                .collect();
            text.extend_from_slice(pairs.join(",").as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&self.line);
        text
    }

    /// The line without its newline.
    pub(super) fn text(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }
}

/// As in a query: Go's `url.QueryEscape`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What of a stream has not become an entry yet.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
    /// Of the line whose first piece is out: its id, its time, the pieces so far.
    begun: Option<(String, Timestamp, u32)>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new(), begun: None }
    }

    /// Takes what the container wrote at `time`; `found` gets each entry that is whole with it.
    pub(super) fn take(&mut self, time: Timestamp, mut bytes: &[u8], mut found: impl FnMut(Entry)) {
        while !bytes.is_empty() {
            let room = LONGEST - self.pending.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let (piece, rest) = bytes.split_at(end.map_or(room.min(bytes.len()), |newline| newline + 1));
            self.pending.extend_from_slice(piece);
            bytes = rest;
            if end.is_some() || self.pending.len() == LONGEST {
                found(self.entry(time, end.is_some()));
            }
        }
    }

    /// The last line, where it has no newline.
    pub(super) fn rest(&mut self, time: Timestamp) -> Option<Entry> {
        (!self.pending.is_empty()).then(|| self.entry(time, false))
    }

    fn entry(&mut self, time: Timestamp, last: bool) -> Entry {
        let line = std::mem::take(&mut self.pending);
        let (time, partial) = match (self.begun.take(), last) {
            (None, true) => (time, None),
            (begun, last) => {
                let (id, time, ordinal) = begun.unwrap_or_else(|| (random_id(), time, 0));
                if !last {
                    self.begun = Some((id.clone(), time, ordinal + 1));
                }
                (time, Some(Partial { id, ordinal: ordinal + 1, last }))
            }
        };
        Entry { stream: self.stream, time, line, partial, attributes: BTreeMap::new() }
    }
}

/// 64 hexadecimal digits by chance.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 32];
    // Too few bytes, early at boot, leave zeros: an id that is only compared with its neighbours.
    let _filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(chunks: &[&[u8]]) -> Vec<(String, Option<(u32, bool)>)> {
        let mut lines = Lines::new(Stream::Stdout);
        let mut found = Vec::new();
        for chunk in chunks {
            lines.take(Timestamp::new(1, 0), chunk, |entry| found.push(entry));
        }
        found.extend(lines.rest(Timestamp::new(2, 0)));
        let shown = |entry: Entry| {
            (
                String::from_utf8(entry.line).unwrap(),
                entry.partial.map(|partial| (partial.ordinal, partial.last)),
            )
        };
        found.into_iter().map(shown).collect()
    }

    #[test]
    fn lines_do_not_depend_on_the_chunks() {
        let wanted =
            vec![("a\n".to_owned(), None), ("\n".to_owned(), None), ("bc".to_owned(), Some((1, false)))];
        assert_eq!(entries(&[b"a\n\nbc"]), wanted);
        assert_eq!(entries(&[b"a", b"\n", b"\nb", b"", b"c"]), wanted);
    }

    #[test]
    fn long_lines_are_pieces_with_the_first_ones_time() {
        let long = vec![b'x'; LONGEST + 1];
        let found = entries(&[&long, b"\ny\n"]);
        assert_eq!(found[0], ("x".repeat(LONGEST), Some((1, false))));
        assert_eq!(found[1], ("x\n".to_owned(), Some((2, true))));
        assert_eq!(found[2], ("y\n".to_owned(), None));
        // As long as a piece may be: its newline is a piece of its own.
        let found = entries(&[&long[..LONGEST], b"\n"]);
        assert_eq!(found[1], ("\n".to_owned(), Some((2, true))));
        let mut lines = Lines::new(Stream::Stderr);
        let mut times = Vec::new();
        lines.take(Timestamp::new(1, 0), &long, |entry| times.push(entry.time));
        lines.take(Timestamp::new(2, 0), b"\n", |entry| times.push(entry.time));
        assert_eq!(times, [Timestamp::new(1, 0); 2]);
    }

    #[test]
    fn printed_with_time_and_details() {
        let entry = Entry {
            stream: Stream::Stdout,
            time: Timestamp::new(0, 0),
            line: b"hi\n".to_vec(),
            partial: None,
            attributes: BTreeMap::from([("a b".into(), "x=y".into()), ("z".into(), "~".into())]),
        };
        assert_eq!(
            String::from_utf8(entry.printed(true, true)).unwrap(),
            "1970-01-01T00:00:00.000000000Z a+b=x%3Dy,z=~ hi\n"
        );
        assert_eq!(entry.printed(false, false), b"hi\n");
    }
}

//! What the relay has the daemon log: a few lines at a time, however much goes wrong. It never waits for whoever reads them.

use std::fmt::{Arguments, Write as _};
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendFlags};

/// So many lines...
const LINES: usize = 4;
/// ...in so long a time.
const WINDOW: Duration = Duration::from_secs(10);

/// What is to be said.
#[derive(Debug, Default)]
pub(super) struct Sayings {
    text: String,
    since: Option<Instant>,
    said: usize,
    /// How many were too many.
    unsaid: u64,
}

impl Sayings {
    pub(super) fn say(&mut self, line: Arguments<'_>) {
        if self.said >= LINES {
            self.unsaid += 1;
            return;
        }
        self.said += 1;
        let _ok = writeln!(self.text, "{line}");
    }

    /// Sends what there is; what can't be sent now never is.
    pub(super) fn tell(&mut self, channel: Option<impl AsFd>, now: Instant) {
        if self.said > 0 && now.saturating_duration_since(*self.since.get_or_insert(now)) >= WINDOW {
            if self.unsaid > 0 {
                let _ok = writeln!(self.text, "{} more of the kind", self.unsaid);
            }
            (self.since, self.said, self.unsaid) = (None, 0, 0);
        }
        if self.text.is_empty() {
            return;
        }
        if let Some(channel) = channel {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            let text = [IoSlice::new(self.text.as_bytes())];
            let _gone = rustix::net::sendmsg(channel, &text, &mut SendAncillaryBuffer::default(), flags);
        }
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn few_lines_are_said_of_much_that_goes_wrong() {
        let (mut daemon, relay) = UnixStream::pair().unwrap();
        let mut sayings = Sayings::default();
        let begun = Instant::now();
        for number in 0..1000 {
            sayings.say(format_args!("number {number}"));
            sayings.tell(Some(&relay), begun);
        }
        sayings.tell(Some(&relay), begun + WINDOW);
        sayings.say(format_args!("again"));
        sayings.tell(Some(&relay), begun + WINDOW);
        drop(relay);
        let mut text = String::new();
        let _length = daemon.read_to_string(&mut text).unwrap();
        assert_eq!(text, "number 0\nnumber 1\nnumber 2\nnumber 3\n996 more of the kind\nagain\n");
    }
}

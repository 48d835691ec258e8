//! A stream that a thread of its own reads ahead of who needs it: inflating a layer and writing its files are two processors'
//! work. Knows nothing of what it carries; called by `layers`.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What is handed over at once, in bytes.
const PIECE: usize = 256 << 10;
/// How many of them there are.
const PIECES: usize = 6;
const STACK: usize = 512 << 10;

/// A piece, and how much of it counts.
type Piece = (Vec<u8>, usize);

/// The other end of the stream.
pub(super) struct Pieces {
    full: Receiver<io::Result<Piece>>,
    /// Back to the thread that fills them.
    empty: SyncSender<Vec<u8>>,
    present: Vec<u8>,
    at: usize,
    end: usize,
}

/// Gives `consume` what is in `stream`, and then the stream itself, from wherever it was left.
///
/// # Errors
/// No thread can be had.
pub(super) fn read_ahead<R: Read + Send, T>(
    mut stream: R,
    consume: impl FnOnce(Pieces) -> T,
) -> io::Result<(T, R)> {
    // What reads may have messages for a client, which the runtime waits for.
    let runtime = tokio::runtime::Handle::try_current().ok();
    let (send, full) = sync_channel(PIECES);
    let (empty, spare) = sync_channel(PIECES);
    std::thread::scope(|scope| {
        let work = move || {
            let _context = runtime.as_ref().map(tokio::runtime::Handle::enter);
            fill(&mut stream, &send, &spare);
            stream
        };
        let thread = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)?;
        for _ in 0..PIECES {
            let _room = empty.try_send(Vec::new());
        }
        let done = consume(Pieces { full, empty, present: Vec::new(), at: 0, end: 0 });
        let stream = thread.join().map_err(|_| io::Error::other("a thread panicked"))?;
        Ok((done, stream))
    })
}

/// To the stream's end, its error, or the end of interest in it.
fn fill(stream: &mut impl Read, send: &SyncSender<io::Result<Piece>>, spare: &Receiver<Vec<u8>>) {
    while let Ok(mut piece) = spare.recv() {
        piece.resize(PIECE, 0);
        let mut filled = 0;
        let mut failed = None;
        while filled < PIECE && failed.is_none() {
            match stream.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failed = Some(error),
            }
        }
        let ended = filled < PIECE;
        if filled > 0 && send.send(Ok((piece, filled))).is_err() {
            return;
        }
        if let Some(error) = failed {
            let _nobody = send.send(Err(error));
        }
        if ended {
            return;
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            let (piece, end) = next?;
            let _at_the_end = self.empty.try_send(std::mem::replace(&mut self.present, piece));
            (self.at, self.end) = (0, end);
        }
        let count = buffer.len().min(self.end - self.at);
        buffer[..count].copy_from_slice(&self.present[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes, then an error.
    struct Breaking(usize);

    impl Read for Breaking {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("it broke"));
            }
            let count = self.0.min(buffer.len()).min(1000);
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn what_is_read_ahead_is_what_is_there() {
        for size in [0, 1, PIECE, 3 * PIECE + 5, 10 * PIECE] {
            let whole: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut read = Vec::new();
            let (count, rest) =
                read_ahead(whole.as_slice(), |mut pieces| pieces.read_to_end(&mut read).unwrap()).unwrap();
            assert_eq!((count, rest.len()), (size, 0));
            assert!(read == whole);
        }
    }

    #[test]
    fn an_error_comes_behind_what_was_before_it() {
        let (read, _) = read_ahead(Breaking(PIECE + 10), |mut pieces| {
            let mut read = Vec::new();
            let error = pieces.read_to_end(&mut read).unwrap_err();
            (read.len(), error.to_string())
        })
        .unwrap();
        assert_eq!(read, (PIECE + 10, "it broke".to_owned()));
    }

    #[test]
    fn who_loses_interest_gets_the_stream_back() {
        let (first, rest) = read_ahead(io::repeat(1), |mut pieces| {
            let mut first = [0; 3];
            pieces.read_exact(&mut first).unwrap();
            first
        })
        .unwrap();
        assert_eq!((first, rest.take(2).read_to_end(&mut Vec::new()).unwrap()), ([1; 3], 2));
    }
}

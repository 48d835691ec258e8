//! A stream that tells its end: what is said goes in pieces, each behind its length, and an empty one is the end. Between a node that
//! answers for a manager, and that manager (`elsewhere`): a tunnel that is cut ends just as one that has come to its end, and the client
//! of a process that says nothing would take the one for the other. What is typed, the other way, goes as it is.

use std::io;

use hyper::header::{HeaderMap, HeaderName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, WriteHalf, duplex, split};

/// Of a request that asks for it, and of the answer that does it.
pub(super) const TELLS_END: HeaderName = HeaderName::from_static("ketch-tells-end");

/// The most that a piece has.
const PIECE: usize = 16 << 10;
/// Its length before it.
const HEAD: usize = 2;

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As its connection does.
    Untold,
    Told,
}

impl End {
    /// As a request asks for it, or its answer does it.
    pub(super) fn of(headers: &mut HeaderMap) -> Self {
        headers.remove(TELLS_END).map_or(Self::Untold, |_| Self::Told)
    }
}

/// Serves a client over this stream; once that is done, the end is told.
pub(super) async fn serve<F: Future<Output = ()>>(
    stream: impl AsyncRead + AsyncWrite,
    serve: impl FnOnce(DuplexStream) -> F,
) {
    let (own, theirs) = duplex(4 * PIECE);
    let passing = async {
        let ((typed, to_client), (said, input)) = (split(stream), split(own));
        tokio::select! {
            said = say(said, to_client) => said,
            gone = pass_typed(typed, input) => gone,
        }
    };
    let ((), passed) = tokio::join!(serve(theirs), passing);
    if let Err(error) = passed {
        tracing::debug!("a manager's stream ended: {error}");
    }
}

async fn say(mut said: impl AsyncRead + Unpin, mut to_client: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut piece = vec![0; HEAD + PIECE];
    loop {
        let length = said.read(&mut piece[HEAD..]).await?;
        let head = u16::try_from(length).map_err(io::Error::other)?.to_be_bytes();
        piece[..HEAD].copy_from_slice(&head);
        to_client.write_all(&piece[..HEAD + length]).await?;
        to_client.flush().await?;
        if length == 0 {
            return to_client.shutdown().await;
        }
    }
}

/// Ends with an error of the stream alone: who types no more listens still.
async fn pass_typed(mut typed: impl AsyncRead + Unpin, mut input: WriteHalf<DuplexStream>) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = typed.read(&mut piece).await?;
        // Where the process reads no more, what it says is still waited for.
        if length == 0 || input.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    let _taken = input.shutdown().await;
    std::future::pending().await
}

/// The other side: what is said, piece by piece.
#[derive(Debug)]
pub(super) struct Pieces<R> {
    from: R,
    end: End,
    piece: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pieces<R> {
    pub(super) fn new(from: R, end: End) -> Self {
        Self { from, end, piece: vec![0; PIECE] }
    }

    /// The next one; none at the end.
    ///
    /// # Errors
    /// The stream is cut, or no such stream.
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let length = match self.end {
            End::Untold => self.from.read(&mut self.piece).await?,
            End::Told => {
                let length = usize::from(self.from.read_u16().await?);
                let piece = self.piece.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
                let _count = self.from.read_exact(piece).await?;
                length
            }
        };
        Ok((length > 0).then(|| &self.piece[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_comes_whole_and_only_its_end_is_one() {
        let long = vec![7; 3 * PIECE + 5];
        for is_cut in [false, true] {
            let (near, far) = duplex(64);
            let said = long.clone();
            let served = tokio::spawn(serve(near, async move |mut client: DuplexStream| {
                let mut typed = String::new();
                let _count = client.read_to_string(&mut typed).await.unwrap();
                client.write_all(typed.as_bytes()).await.unwrap();
                client.write_all(&said).await.unwrap();
                if is_cut {
                    std::future::pending::<()>().await;
                }
            }));
            let (from_node, mut to_node) = split(far);
            to_node.write_all(b"in").await.unwrap();
            to_node.shutdown().await.unwrap();
            let mut pieces = Pieces::new(from_node, End::Told);
            let mut came = Vec::new();
            while came.len() < 2 + long.len() {
                came.extend_from_slice(pieces.next().await.unwrap().unwrap());
            }
            assert_eq!((&came[..2], &came[2..]), (&b"in"[..], &long[..]));
            if is_cut {
                served.abort();
                assert_eq!(pieces.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            } else {
                assert_eq!(pieces.next().await.unwrap(), None);
            }
        }
    }
}

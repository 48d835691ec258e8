//! Layers and archives come plain, or compressed by gzip, zstd or bzip2: by which, their first bytes say, whatever a manifest
//! calls them.

use std::io::{self, BufReader, Chain, Cursor, ErrorKind, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;

use super::digest::Summing;

/// What is read at once.
const BUFFER: usize = 128 << 10;
/// The largest window that zstd may ask for, as a power of two: 128 MiB, as `zstd` itself has it.
const WINDOW: u32 = 27;

type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A stream's content.
pub(crate) enum Inflate<R: Read> {
    /// As it is.
    Plain(Source<R>),
    /// gzip, several members too.
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    /// zstd, several frames too.
    Zstd(Box<zstd::Decoder<'static, Source<R>>>),
    /// bzip2, several streams too.
    Bzip2(Box<MultiBzDecoder<Source<R>>>),
}

impl<R: Read> Inflate<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// The stream's, and xz.
    pub(crate) fn new(mut inner: R) -> io::Result<Self> {
        let mut first = Vec::with_capacity(6);
        let _read = inner.by_ref().take(6).read_to_end(&mut first)?;
        let magic = first.clone();
        let source = || BufReader::with_capacity(BUFFER, Cursor::new(first).chain(inner));
        Ok(match magic.as_slice() {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(MultiGzDecoder::new(source()))),
            // A skippable frame may come first: zstd:chunked and seekable files have some.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(source())?;
                decoder.window_log_max(WINDOW)?;
                Self::Zstd(Box::new(decoder))
            }
            [b'B', b'Z', b'h', ..] => Self::Bzip2(Box::new(MultiBzDecoder::new(source()))),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                return Err(io::Error::new(ErrorKind::Unsupported, "compression by xz is not supported"));
            }
            _ => Self::Plain(source()),
        })
    }

    /// Whether the content is what came.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl<R: Read> Inflate<Summing<R>> {
    /// What was summed, with what is behind the compressed content read too.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn into_summing(self) -> io::Result<Summing<R>> {
        let mut source = match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Bzip2(decoder) => decoder.into_inner(),
        };
        let _rest = io::copy(&mut source, &mut io::sink())?;
        let (_, summing) = source.into_inner().into_inner();
        Ok(summing)
    }
}

impl<R: Read> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn inflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let _size = Inflate::new(bytes)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn all_kinds() {
        let text = b"some text ".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(inflated(&text).unwrap(), text);
        assert_eq!(inflated(&gzip).unwrap(), text);
        assert_eq!(inflated(&[gzip.clone(), gzip.clone()].concat()).unwrap().len(), 2 * text.len());
        assert_eq!(inflated(&zstd::encode_all(text.as_slice(), 1).unwrap()).unwrap(), text);
        assert_eq!(inflated(b"").unwrap(), b"");
        assert!(inflated(&gzip[..gzip.len() - 9]).is_err(), "truncated");
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        let bzip2 = bzip2.finish().unwrap();
        assert_eq!(inflated(&bzip2).unwrap(), text);
        assert_eq!(inflated(&[bzip2.clone(), bzip2.clone()].concat()).unwrap().len(), 2 * text.len());
        assert!(inflated(&bzip2[..bzip2.len() - 9]).is_err(), "truncated");
        assert_eq!(inflated(b"\xfd7zXZ\0").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

//! [`Digest`]: what content is named by.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// A SHA-256 sum; the only algorithm that registries and images in use have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

/// Why a text is no digest; go-digest's texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:hex`.
    #[error("invalid checksum digest format")]
    Format,
    /// Not 64 digits.
    #[error("invalid checksum digest length")]
    Length,
    /// Another than sha256.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Digest::finalize(sha2::Digest::chain_update(Sha256::default(), bytes)).into())
    }

    /// The digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As Docker shortens ids.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// Of 64 hexadecimal digits.
    ///
    /// # Errors
    /// Other text.
    pub fn of_hex(digits: &str) -> Result<Self, DigestError> {
        if digits.len() != 64 {
            return Err(DigestError::Length);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let digit = |byte: u8| match byte {
                b'0'..=b'9' => Ok(byte - b'0'),
                b'a'..=b'f' => Ok(byte - b'a' + 10),
                _ => Err(DigestError::Format),
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.split_once(':') {
            Some(("sha256", digits)) => Self::of_hex(digits),
            Some(("sha384" | "sha512", _)) => Err(DigestError::Algorithm),
            _ => Err(DigestError::Format),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

/// Passes bytes on to `inner`, in either direction, and sums them up.
#[derive(Debug)]
pub struct Summing<T> {
    inner: T,
    sum: Sum,
    size: u64,
}

/// How the digest comes about.
#[derive(Debug)]
enum Sum {
    Of(Sha256),
    /// It has been made before, of the same bytes.
    Known(Digest),
}

impl<T> Summing<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Self { inner, sum: Sum::Of(Sha256::default()), size: 0 }
    }

    /// Of bytes that were summed before, and that nobody else can have changed since.
    pub fn known(inner: T, digest: Digest) -> Self {
        Self { inner, sum: Sum::Known(digest), size: 0 }
    }

    /// The digest, if it is known in advance.
    pub fn known_digest(&self) -> Option<Digest> {
        match self.sum {
            Sum::Of(_) => None,
            Sum::Known(digest) => Some(digest),
        }
    }

    /// How many bytes have passed.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Their digest and number.
    pub fn finish(self) -> (T, Digest, u64) {
        let digest = match self.sum {
            Sum::Of(sum) => Digest(sha2::Digest::finalize(sum).into()),
            Sum::Known(digest) => digest,
        };
        (self.inner, digest, self.size)
    }

    fn pass(&mut self, bytes: &[u8]) {
        if let Sum::Of(sum) = &mut self.sum {
            sha2::Digest::update(sum, bytes);
        }
        self.size += bytes.len() as u64;
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.pass(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_back() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
        for (text, error) in [
            ("e3b0", DigestError::Format),
            ("sha256:e3b0", DigestError::Length),
            ("sha512:e3b0", DigestError::Algorithm),
            (&empty.replace('e', "E"), DigestError::Format),
            (&empty.replace("e3", "\u{e9}"), DigestError::Format),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }
}

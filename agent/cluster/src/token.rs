//! Docker's texts for what lets a node in and what opens a locked manager: [`JoinToken`] and [`UnlockKey`].
//!
//! Pure: the digest of the root certificate and the random bits are the caller's. `control` makes them, the certificate
//! authority checks a joining node's secret, and a joining node checks the root that it is offered.

use std::fmt;
use std::str::FromStr;

const TOKEN_PREFIX: &str = "SWMTKN-1-";
const KEY_PREFIX: &str = "SWMKEY-1-";
const BASE_36: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// RFC 4648, section 4.
const BASE_64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// 36^50 is the first power above 2^256.
const DIGEST_DIGITS: usize = 50;
/// 36^25 is the first power above 2^128.
const SECRET_DIGITS: usize = 25;
/// 32 bytes are 42 digits of six bits, and four bits in one more.
const KEY_DIGITS: usize = 43;

/// `SWMTKN-1-<digest>-<secret>`: the digest tells a joining node the cluster, the secret tells the cluster the role that the
/// node may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the root certificate, as SwarmKit takes it: of its PEM text.
    pub root_digest: [u8; 32],
    pub secret: u128,
}

/// Why a text is no join token. The text itself is not told: it may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    #[error("invalid join token: it does not start with SWMTKN-1-")]
    Prefix,
    /// Of a cluster under FIPS 140, which ketch has not.
    #[error("invalid join token: SWMTKN-2 tokens are of clusters in FIPS mode, which ketch can't join")]
    Fips,
    #[error("invalid join token: there must be two parts after SWMTKN-1-, of 50 and 25 characters")]
    Parts,
    #[error("invalid join token: its {0} is no number in digits and lower-case letters, or too large")]
    Digits(&'static str),
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = digits_of(&self.root_digest, BASE_36, DIGEST_DIGITS);
        let secret = digits_of(&self.secret.to_be_bytes(), BASE_36, SECRET_DIGITS);
        write!(f, "{TOKEN_PREFIX}{digest}-{secret}")
    }
}

/// Without the secret, so that no log line can have it.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken")
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        if text.starts_with("SWMTKN-2-") {
            return Err(JoinTokenError::Fips);
        }
        let parts = text.strip_prefix(TOKEN_PREFIX).ok_or(JoinTokenError::Prefix)?;
        let (digest, secret) = parts.split_once('-').ok_or(JoinTokenError::Parts)?;
        if (digest.len(), secret.len()) != (DIGEST_DIGITS, SECRET_DIGITS) {
            return Err(JoinTokenError::Parts);
        }
        let root_digest = number_of(digest, BASE_36).ok_or(JoinTokenError::Digits("digest"))?;
        let secret = number_of(secret, BASE_36).ok_or(JoinTokenError::Digits("secret"))?;
        Ok(Self { root_digest, secret: u128::from_be_bytes(secret) })
    }
}

/// `SWMKEY-1-<base64 of 32 bytes, without padding>`: what a manager that locks itself asks for after a restart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnlockKey(pub [u8; 32]);

/// The text is no unlock key. SwarmKit's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid encryption key")]
pub struct UnlockKeyError;

/// The digits of base 64 are those of the key as one number with a zero byte behind it, so that the last group is full; what
/// only the zero says is left out.
impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut padded = [0; 33];
        padded[..32].copy_from_slice(&self.0);
        let digits = digits_of(&padded, BASE_64, KEY_DIGITS + 1);
        write!(f, "{KEY_PREFIX}{}", &digits[..KEY_DIGITS])
    }
}

/// Without the key, so that no log line can have it.
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey")
    }
}

impl FromStr for UnlockKey {
    type Err = UnlockKeyError;

    fn from_str(text: &str) -> Result<Self, UnlockKeyError> {
        let digits = text.strip_prefix(KEY_PREFIX).filter(|digits| digits.len() == KEY_DIGITS);
        let padded: Option<[u8; 33]> = digits.and_then(|digits| number_of(&format!("{digits}A"), BASE_64));
        match padded {
            Some([key @ .., 0]) => Ok(Self(key)),
            _ => Err(UnlockKeyError),
        }
    }
}

/// The number of these bytes, the greatest first, in so many digits of the base that the alphabet has.
fn digits_of(bytes: &[u8], alphabet: &[u8], count: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec!['0'; count];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0;
        for byte in &mut number {
            let value = rest << 8 | usize::from(*byte);
            *byte = u8::try_from(value / alphabet.len()).unwrap_or(u8::MAX);
            rest = value % alphabet.len();
        }
        *digit = alphabet.get(rest).copied().map_or('0', char::from);
    }
    digits.into_iter().collect()
}

/// The number that these digits say; none when it has a foreign digit or does not fit.
fn number_of<const BYTES: usize>(digits: &str, alphabet: &[u8]) -> Option<[u8; BYTES]> {
    let mut number = [0_u8; BYTES];
    for digit in digits.bytes() {
        let mut carry = alphabet.iter().position(|known| *known == digit)?;
        for byte in number.iter_mut().rev() {
            let value = usize::from(*byte) * alphabet.len() + carry;
            *byte = u8::try_from(value & 0xff).unwrap_or(u8::MAX);
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TaskId;
    use proptest::prelude::*;

    #[test]
    fn the_ends_of_the_digest() {
        let token = JoinToken { root_digest: [0; 32], secret: 35 };
        let zeros = "0".repeat(50);
        assert_eq!(token.to_string(), format!("SWMTKN-1-{zeros}-000000000000000000000000z"));
        // 2^256 - 1, by another program.
        let last = "6dp5qcb22im238nr3wvp0ic7q99w035jmy2iw7i6n43d37jtof";
        let token = JoinToken { root_digest: [255; 32], secret: u128::MAX };
        assert_eq!(token.to_string(), format!("SWMTKN-1-{last}-f5lxx1zz5pnorynqglhzmsp33"));
        let larger = token.to_string().replace("jtof", "jtog");
        assert_eq!(larger.parse::<JoinToken>(), Err(JoinTokenError::Digits("digest")));
    }

    #[test]
    fn what_is_no_token_is_told_without_the_text() {
        let good = JoinToken { root_digest: [7; 32], secret: 1 }.to_string();
        let cases = [
            ("", "it does not start with SWMTKN-1-"),
            ("SWMTKN-1-abc", "there must be two parts after SWMTKN-1-, of 50 and 25 characters"),
            (&good[..good.len() - 1], "there must be two parts after SWMTKN-1-, of 50 and 25 characters"),
            (
                &good.replace("SWMTKN-1", "SWMTKN-2"),
                "SWMTKN-2 tokens are of clusters in FIPS mode, which ketch can't join",
            ),
            (
                &good.replace("-00000", "-0000A"),
                "its secret is no number in digits and lower-case letters, or too large",
            ),
        ];
        for (text, reason) in cases {
            let error = text.parse::<JoinToken>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid join token: {reason}"), "{text}");
        }
    }

    #[test]
    fn an_unlock_key_is_raw_base64() {
        // `printf ... | base64` of the same bytes, without the padding.
        let mut key = [0_u8; 32];
        key.iter_mut().zip(200..=231).for_each(|(byte, value)| *byte = value);
        let text = "SWMKEY-1-yMnKy8zNzs/Q0dLT1NXW19jZ2tvc3d7f4OHi4+Tl5uc";
        assert_eq!(UnlockKey(key).to_string(), text);
        assert_eq!(text.parse(), Ok(UnlockKey(key)));
        let bits_after_the_end = format!("{}d", &text[..text.len() - 1]);
        for wrong in ["", "SWMKEY-1-", &text[..text.len() - 1], &format!("{text}="), &bits_after_the_end] {
            assert_eq!(wrong.parse::<UnlockKey>(), Err(UnlockKeyError), "{wrong}");
        }
        assert_eq!(UnlockKeyError.to_string(), "invalid encryption key");
    }

    #[test]
    fn secrets_are_not_in_debug_texts() {
        let token = JoinToken { root_digest: [7; 32], secret: 1 };
        assert_eq!(format!("{token:?} {:?}", UnlockKey([1; 32])), "JoinToken UnlockKey");
    }

    proptest! {
        #[test]
        fn tokens_and_keys_come_back(root_digest: [u8; 32], secret: u128, key: [u8; 32]) {
            let token = JoinToken { root_digest, secret };
            let text = token.to_string();
            prop_assert_eq!(text.len(), 85);
            prop_assert!(text.ends_with(&TaskId::of(secret).to_string()), "secrets have the form of ids");
            prop_assert_eq!(text.parse(), Ok(token));
            prop_assert_eq!(UnlockKey(key).to_string().parse(), Ok(UnlockKey(key)));
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,100}", prefix in prop::sample::select(vec!["", TOKEN_PREFIX, KEY_PREFIX])) {
            let text = format!("{prefix}{text}");
            prop_assert!(text.parse::<JoinToken>().is_ok_and(|token| token.to_string() == text) || text.parse::<JoinToken>().is_err());
            prop_assert!(text.parse::<UnlockKey>().is_ok_and(|key| key.to_string() == text) || text.parse::<UnlockKey>().is_err());
        }
    }
}

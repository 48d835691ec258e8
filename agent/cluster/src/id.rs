//! Ids in Docker's form: 128 random bits as 25 digits of base 36. Where the bits come from is the caller's matter.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Digits of an id: 36^25 is the first power above 2^128.
const DIGITS: usize = 25;

/// The text is no id: it is not 25 digits of base 36, or more than 128 bits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id of 25 digits and lower-case letters")]
pub struct IdError(pub String);

/// The source of new ids' bits: called once for each new object. It is the one way by which randomness comes in.
pub type NewBits<'a> = &'a mut dyn FnMut() -> u128;

/// So many digits are below 2^64: a processor divides no more at once, and ids are most of what a log's records have.
const LIMB_DIGITS: usize = 12;
const LIMB: u64 = 36_u64.pow(12);

fn format(bits: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    let mut rest = bits;
    for limb in digits.rchunks_mut(LIMB_DIGITS) {
        let mut low = u64::try_from(rest % u128::from(LIMB)).unwrap_or(0);
        rest /= u128::from(LIMB);
        for digit in limb.iter_mut().rev() {
            let value = u8::try_from(low % 36).unwrap_or(0);
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
            low /= 36;
        }
    }
    digits
}

fn parse(text: &str) -> Option<u128> {
    if text.len() != DIGITS {
        return None;
    }
    let (first, rest) = text.as_bytes().split_at(DIGITS % LIMB_DIGITS);
    std::iter::once(first).chain(rest.chunks(LIMB_DIGITS)).try_fold(0_u128, |bits, limb| {
        let limb = limb.iter().try_fold(0_u64, |low, byte| Some(low * 36 + u64::from(value_of(*byte)?)))?;
        bits.checked_mul(u128::from(LIMB))?.checked_add(u128::from(limb))
    })
}

fn value_of(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'z' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// The ids that start with `prefix`, as the first and the last of them; none when no id can.
fn range_of(prefix: &str) -> Option<(u128, u128)> {
    let missing = DIGITS.checked_sub(prefix.len())?;
    let padded = |digit: char| prefix.chars().chain(std::iter::repeat_n(digit, missing)).collect::<String>();
    let first = parse(&padded('0'))?;
    // 2^128 ends below the largest text of 25 digits.
    Some((first, parse(&padded('z')).unwrap_or(u128::MAX)))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id of these 128 bits.
            #[must_use]
            pub const fn of(bits: u128) -> Self {
                Self(bits)
            }

            /// Its 128 bits.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0
            }

            /// The next new id.
            pub fn new(bits: crate::id::NewBits<'_>) -> Self {
                Self(bits())
            }

            /// The first and the last id whose text starts with `prefix`; none when no id's text does.
            #[must_use]
            pub fn range_of(prefix: &str) -> Option<(Self, Self)> {
                range_of(prefix).map(|(first, last)| (Self(first), Self(last)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(std::str::from_utf8(&format(self.0)).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self).ok_or_else(|| IdError(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

ids! {
    /// A cluster's; the organisation in its certificates.
    ClusterId,
    /// A node's; the common name in its certificate.
    NodeId,
    ServiceId,
    TaskId,
    NetworkId,
    SecretId,
    ConfigId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_ends_have_25_digits() {
        assert_eq!(TaskId::of(0).to_string(), "0000000000000000000000000");
        assert_eq!(TaskId::of(u128::MAX).to_string(), "f5lxx1zz5pnorynqglhzmsp33");
        assert_eq!("f5lxx1zz5pnorynqglhzmsp34".parse::<TaskId>().ok(), None, "one more than 128 bits");
    }

    #[test]
    fn a_prefix_beyond_the_last_id_has_no_range() {
        assert_eq!(TaskId::range_of("f5lxx1zz5pnorynqglhzmsp34"), None);
        assert_eq!(TaskId::range_of("zz"), None);
        assert_eq!(TaskId::range_of("A"), None);
        assert_eq!(
            TaskId::range_of("f"),
            Some(("f000000000000000000000000".parse().unwrap(), TaskId::of(u128::MAX)))
        );
        assert_eq!(TaskId::range_of(""), Some((TaskId::of(0), TaskId::of(u128::MAX))));
    }

    proptest! {
        #[test]
        fn text_and_bits_are_the_same_id_in_the_same_order(a: u128, b: u128) {
            let (a, b) = (TaskId::of(a), TaskId::of(b));
            prop_assert_eq!(a.to_string().parse::<TaskId>(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn a_prefix_holds_its_id(bits: u128, length in 0..=25_usize) {
            let id = TaskId::of(bits);
            let (first, last) = TaskId::range_of(&id.to_string()[..length]).unwrap();
            prop_assert!(first <= id && id <= last);
        }
    }
}

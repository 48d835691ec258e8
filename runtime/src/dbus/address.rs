//! Where a bus listens (D-Bus specification, "Server Addresses").

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::DbusError;

/// What listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A bus, which passes messages on to whoever owns a name.
    Bus,
    /// The one that is asked, itself.
    Peer,
}

/// A Unix socket to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Path(PathBuf),
    /// In Linux' namespace of names that are no files.
    Abstract(Vec<u8>),
}

impl Address {
    /// The first Unix socket of a list of addresses, as in `DBUS_SESSION_BUS_ADDRESS`.
    ///
    /// # Errors
    /// [`DbusError::Address`]
    pub fn parse(addresses: &str) -> Result<Address, DbusError> {
        let found = addresses.split(';').find_map(|address| {
            let keys = address.strip_prefix("unix:")?;
            keys.split(',').find_map(|pair| match pair.split_once('=')? {
                ("path", path) => Some(Address::Path(PathBuf::from(OsString::from_vec(unescape(path)?)))),
                ("abstract", name) => Some(Address::Abstract(unescape(name)?)),
                _ => None,
            })
        });
        found.ok_or_else(|| DbusError::Address { address: addresses.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Path(path) => write!(f, "{}", path.display()),
            Address::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// `%` and two hexadecimal digits stand for a byte.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    (!out.is_empty() && !out.contains(&0)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_sockets() {
        let path = |text: &str| Address::Path(PathBuf::from(text));
        for (text, address) in [
            ("unix:path=/run/user/1000/bus", path("/run/user/1000/bus")),
            ("unix:path=/run/bus,guid=0123", path("/run/bus")),
            ("tcp:host=localhost,port=1;unix:guid=1,path=/a%20b%2c", path("/a b,")),
            ("unix:abstract=/tmp/dbus-x,guid=1", Address::Abstract(b"/tmp/dbus-x".to_vec())),
        ] {
            assert_eq!(Address::parse(text).unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "unix:",
            "unix:path=",
            "/run/bus",
            "tcp:host=x",
            "unix:path=%2",
            "unix:path=a%00b",
            "unix:path=%zz",
        ] {
            assert_eq!(
                Address::parse(text).unwrap_err().to_string(),
                format!("no usable D-Bus address in {text:?}")
            );
        }
    }
}

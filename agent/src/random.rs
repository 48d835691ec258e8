//! Randomness, of the kernel's.

use crate::error::{Error, Result};

/// Fills all of them.
///
/// # Errors
/// The kernel has none.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<()> {
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
        .map(drop)
        .map_err(|error| Error::internal("asking for randomness", &error))
}

/// Twice as many hexadecimal digits, that nobody has had.
///
/// # Errors
/// The kernel has no randomness.
pub(crate) fn digits(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    fill(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An object's id: 64 digits.
///
/// # Errors
/// The kernel has no randomness.
pub(crate) fn id() -> Result<String> {
    digits(32)
}

/// Whether a name is one that only containers and added processes have.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_has_64_digits() {
        let id = super::id().unwrap();
        assert!(id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    }
}

//! Random bytes: the system's, and in the simulation its seed's. Called by whatever in this crate draws some.

use ring::rand::{SecureRandom, SystemRandom};

/// The system has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRandomness;

pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    #[cfg(feature = "seeded")]
    if crate::seeded::fill(bytes) {
        return Ok(());
    }
    SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

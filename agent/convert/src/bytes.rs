//! Bytes: base64 there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ketch_cluster::control::texts::conversion as texts;

use crate::Refusal;

/// The bytes of a field.
pub(crate) fn of(field: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text).map_err(|_| texts::not_base64(field))
}

pub(crate) fn shown(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

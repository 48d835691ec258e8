//! The cluster's certificate authority, and what nodes do with certificates: joining, mutual TLS, renewal, the move to a
//! new root, keys at rest.
//!
//! Time is an argument everywhere; only new keys, serial numbers, nonces and signatures come from the system's randomness. Nothing
//! here opens a connection or waits: `ketchd`'s manager, dispatcher and worker carry the messages and own the sockets, and
//! [`folder`] alone touches the disk. `DESIGN.md` beside this crate says who holds which key.

pub mod admission;
pub mod authority;
pub mod compat;
pub mod folder;
pub mod given;
pub mod identity;
pub mod join;
pub mod key;
mod pem;
mod randomness;
pub mod root;
pub mod rotation;
pub mod seal;
#[cfg(feature = "seeded")]
pub mod seeded;
mod signer;
pub mod tls;
pub mod trust;

pub use pem::{PemError, certificates};
pub use rustls::pki_types::CertificateDer;

#[cfg(test)]
mod fixture;

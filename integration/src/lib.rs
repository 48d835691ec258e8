//! The harness of the privileged end-to-end tests: it drives built runc-compatible binaries and watches the kernel.
//!
//! It never links the runtime, so that what it sees is what containerd sees. `suite` runs the tests of
//! `integration/tests`, one `Case` each; a case has a folder, a state root and cgroup names of its own, and `leak`
//! checks that nothing of it is left. Called by `make integration`, `make attack` and `make soak`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the whole crate is a test harness: a failure here ends the test that asked, with its message"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the rules on threads and on paths inside a rootfs bind the runtime, not the program that drives it"
)]

pub mod apparmor;
pub mod bundle;
pub mod case;
pub mod console;
pub mod container;
pub mod containerd;
pub mod cri;
pub mod delegation;
pub mod dockerd;
pub mod ketchd;
pub mod layout;
pub mod leak;
pub mod mesh;
pub mod probe;
pub mod race;
pub mod runtime;
pub mod sample;
pub mod shim;
pub mod site;
pub mod suite;
pub mod user;
pub mod wait;

pub use bundle::Bundle;
pub use case::Case;
pub use container::Container;
pub use delegation::Delegation;
pub use layout::Layout;
pub use race::Race;
pub use runtime::Output;
pub use site::Site;
pub use suite::Test;
pub use user::Caller;
pub use wait::{wait_until, wait_within};

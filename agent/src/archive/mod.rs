//! A container's files as the archive API reads and writes them: `docker cp`.
//!
//! ```text
//! layers, volumes, binds --View::open--> a mount namespace with nobody in it --look--> PathStat
//!                                                                           --send--> tar
//!                                                                 tar --receive-->
//! ```
//! Everything in a container is hostile, and it may run while it is looked at: a path is resolved once, by openat2(2) with
//! RESOLVE_IN_ROOT below a descriptor of the view's root, and what is done then is done to descriptors and last components
//! that are never followed (CVE-2018-15664). No program of a container is run, and no library of one is loaded
//! (CVE-2019-14271). Knows neither containers nor the API; called by `engine::copy`. All of it blocks.

mod look;
mod receive;
mod send;
#[cfg(test)]
mod tests;
mod view;

pub use look::{PathStat, absolute};
pub use receive::{Receive, receive};
pub use send::send;
pub use view::{Bound, Root, View};

use std::io;

/// The kernel's words as Go has them.
pub(crate) fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "unexpected EOF".to_owned();
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

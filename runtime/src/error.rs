//! Telling an error whole. An error's own text never repeats its source's, so that the chain reads as one sentence.

use std::error::Error;
use std::io;

use ketch_sys::Errno;
use ketch_sys::error::errno_text;

/// The texts of `error` and all its sources, joined as Go's `%w` wrapping joins them.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = own_text(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let next = own_text(cause);
        if !next.is_empty() {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}

/// An error's own text. That of an I/O error is the kernel's alone: std's has another case and the number behind it, and
/// callers match the words.
fn own_text(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<io::Error>() {
        Some(error) => io_text(error),
        None => error.to_string(),
    }
}

/// The kernel's words for an I/O error.
#[must_use]
pub fn io_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => errno_text(Errno::from_raw(number)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thiserror::Error;

    #[derive(Debug, Error)]
    #[error("open the file")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_chain_is_one_line_in_the_kernels_words() {
        let error = Outer(io::Error::from_raw_os_error(Errno::ENXIO as i32));
        assert_eq!(chain(&error), "open the file: no such device or address");
        assert_eq!(chain(&Outer(io::Error::other("why"))), "open the file: why");
    }
}

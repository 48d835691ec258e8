//! Telling an error whole. An error's own text never repeats its source's, so that the chain reads as one sentence.

use std::error::Error;

/// The texts of `error` and all its sources, joined as Go's `%w` wrapping joins them.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
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

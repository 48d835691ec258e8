//! Any text as a reference, a platform and a challenge: refused, or the same again when it is written.
#![no_main]

use ketchd::image::reference::Reference;
use ketchd::image::registry::auth::{Challenge, Credentials};
use ketchd::image::spec::Platform;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
        assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference));
    }
    let _challenge = Challenge::parse(text);
    let _credentials = Credentials::of_header(Some(text));
    let _platform = Platform::parse(text);
});

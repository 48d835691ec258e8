//! What containerd says on stdin, any bytes: an understood bootstrap or an error, and an answer that can be read again.
#![no_main]

use containerd_shim_ketch::arguments::Arguments;
use containerd_shim_ketch::bootstrap::Bootstrap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let arguments = Arguments { namespace: "n".into(), id: "i".into(), ..Arguments::default() };
    for speaks_json in [false, true] {
        if let Ok(asked) = Bootstrap::decode(input, &arguments, speaks_json) {
            assert!(!asked.answer.encode("unix:///s").is_empty());
        }
    }
});

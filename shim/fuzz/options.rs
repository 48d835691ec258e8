//! A task's options, any bytes: as a message in an Any, and as TOML. What is understood comes back from options.json.
#![no_main]

use containerd_shim_ketch::options::RuntimeConfig;
use ketch_shim_api::options::{Options, RuntimeOptions};
use ketch_shim_api::wire::{Any, Named};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|input: &[u8]| {
    let _understood = RuntimeConfig::from_toml(input);
    if let Ok(any) = Any::decode(input)
        // A file that the input names is not read.
        && any.type_name() != RuntimeOptions::NAME
    {
        let _understood = RuntimeConfig::decode(Some(&any));
    }
    let any = Any { type_url: Options::NAME.to_owned(), value: input.to_vec() };
    let _understood = RuntimeConfig::decode(Some(&any));
});

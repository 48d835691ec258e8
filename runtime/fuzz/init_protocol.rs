//! What the container's init sends, which may be hostile: decoded or refused, and what is decoded encodes to itself.
#![no_main]

use ketch::init::protocol::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    if let Ok(message) = Message::decode(packet) {
        assert_eq!(Message::decode(&message.encode()).expect("what is encoded decodes"), message);
    }
});

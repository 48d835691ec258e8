//! What a bus sends: read or refused. And the text of a property: what is read reads again as itself, and can be sent.
#![no_main]

use ketch::dbus::{Answer, Call, Message, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        let _whatever = message.values();
    }
    let Some(value) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Value>().ok()) else { return };
    assert_eq!(value.to_string().parse(), Ok(value.clone()));
    let body = [Value::Variant(Box::new(value))];
    let call = Call { destination: "a.b", path: "/", interface: "a.b", member: "C", body: &body };
    if let Ok(sent) = call.encode(1, Answer::Wanted) {
        let message = Message::decode(&sent).expect("what is sent can be read");
        // What is nested deeper than a message may be is refused by whoever reads it.
        if let Ok(values) = message.values() {
            assert_eq!(values, body);
        }
    }
});

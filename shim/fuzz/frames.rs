//! A frame of ttrpc, any bytes: a header always, a request or an answer perhaps, which is the same when written again.
#![no_main]

use ketch_shim_api::ttrpc::{HEADER, Header, Request, Response};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|input: &[u8]| {
    let Some((header, message)) = input.split_first_chunk::<HEADER>() else { return };
    let header = Header::decode(*header);
    if let Ok(request) = Request::decode(message) {
        let bytes = request.frame(header.stream);
        assert_eq!(Request::decode(&bytes[HEADER..]).as_ref(), Ok(&request));
    }
    if let Ok(response) = Response::decode(message) {
        let bytes = response.frame(header.stream);
        assert_eq!(Response::decode(&bytes[HEADER..]).as_ref(), Ok(&response));
    }
});

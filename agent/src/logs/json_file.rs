//! The lines of the `json-file` driver, letter by letter as dockerd writes them: `docker logs` of either reads them, and so
//! does every collector that tails these files.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;

use super::entry::{Entry, Stream};
use crate::timestamp::Timestamp;

/// Appends an entry's line; `attributes` is a JSON object or nothing.
pub(super) fn encode(entry: &Entry, attributes: &str, line: &mut Vec<u8>) {
    line.push(b'{');
    if !entry.line.is_empty() {
        line.extend_from_slice(b"\"log\":");
        quote(&entry.line, line);
        line.push(b',');
    }
    line.extend_from_slice(b"\"stream\":\"");
    line.extend_from_slice(entry.stream.name().as_bytes());
    line.extend_from_slice(b"\",");
    if !attributes.is_empty() {
        line.extend_from_slice(b"\"attrs\":");
        line.extend_from_slice(attributes.as_bytes());
        line.push(b',');
    }
    line.extend_from_slice(b"\"time\":\"");
    // Writing into memory can't fail.
    let _written = write!(line, "{}", entry.time);
    line.extend_from_slice(b"\"}\n");
}

/// A JSON string of bytes, with the escapes of Go's encoder of old: what is no UTF-8 becomes U+FFFD, one for each byte.
fn quote(bytes: &[u8], line: &mut Vec<u8>) {
    line.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' | '"' => line.extend_from_slice(&[b'\\', character as u8]),
                '\n' => line.extend_from_slice(b"\\n"),
                '\r' => line.extend_from_slice(b"\\r"),
                '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let _written = write!(line, "\\u{:04x}", u32::from(character));
                }
                _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            line.extend_from_slice(b"\\ufffd");
        }
    }
    line.push(b'"');
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: Timestamp,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// The entry of a line without its newline; `None` for one that is none, as a crash in the middle of a write leaves.
pub(super) fn decode(line: &[u8]) -> Option<Entry> {
    let Line { log, stream, time, attrs } = serde_json::from_slice(line).ok()?;
    Some(Entry {
        stream: Stream::of_name(&stream).unwrap_or(Stream::Stdout),
        time,
        line: log.into_bytes(),
        partial: None,
        attributes: attrs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(line: &[u8]) -> Entry {
        Entry {
            stream: Stream::Stderr,
            time: Timestamp::new(0, 120_000_000),
            line: line.to_vec(),
            partial: None,
            attributes: BTreeMap::new(),
        }
    }

    fn encoded(line: &[u8], attributes: &str) -> String {
        let mut text = Vec::new();
        encode(&entry(line), attributes, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn letter_by_letter() {
        assert_eq!(
            encoded(b"a \"b\" \\ <c> &\t\r\n", ""),
            "{\"log\":\"a \\\"b\\\" \\\\ \\u003cc\\u003e \\u0026\\u0009\\r\\n\",\"stream\":\"stderr\",\
             \"time\":\"1970-01-01T00:00:00.12Z\"}\n"
        );
        assert_eq!(
            encoded("é\u{2028}".as_bytes(), r#"{"a":"b"}"#),
            "{\"log\":\"é\\u2028\",\"stream\":\"stderr\",\"attrs\":{\"a\":\"b\"},\"time\":\"1970-01-01T00:00:00.12Z\"}\n"
        );
        assert!(encoded(b"\xff\xfe\xc3", "").starts_with(r#"{"log":"\ufffd\ufffd\ufffd""#));
    }

    #[test]
    fn read_again() {
        let text = encoded(b"x\x01\x1b[0m\n", r#"{"a":"b"}"#);
        let mut wanted = entry(b"x\x01\x1b[0m\n");
        let _none = wanted.attributes.insert("a".into(), "b".into());
        assert_eq!(decode(text.trim_end().as_bytes()), Some(wanted));
        assert_eq!(decode(b"{\"log\":\"cut off"), None);
    }
}

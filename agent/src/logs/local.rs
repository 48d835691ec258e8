//! The records of the `local` driver, as dockerd's: a protobuf message between its length, twice, so that a file can be
//! read from its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use prost::Message;

use super::entry::{Entry, Partial, Stream};
use crate::timestamp::Timestamp;

/// The length's bytes, in network order.
pub(super) const LENGTH: usize = 4;
/// The longest message that is believed; a longer length is of a torn file.
const LONGEST: usize = 1 << 20;

#[derive(Clone, PartialEq, Message)]
struct LogEntry {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(int64, tag = "2")]
    time_nano: i64,
    #[prost(bytes = "vec", tag = "3")]
    line: Vec<u8>,
    #[prost(bool, tag = "4")]
    partial: bool,
    #[prost(message, optional, tag = "5")]
    partial_log_metadata: Option<PartialLogEntryMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialLogEntryMetadata {
    #[prost(bool, tag = "1")]
    last: bool,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(int32, tag = "3")]
    ordinal: i32,
}

/// Appends an entry's record.
pub(super) fn encode(entry: &Entry, record: &mut Vec<u8>) {
    let message = LogEntry {
        source: entry.stream.name().to_owned(),
        time_nano: entry.time.nanos(),
        line: entry.text().to_vec(),
        partial: entry.partial.is_some(),
        partial_log_metadata: entry.partial.as_ref().map(|partial| PartialLogEntryMetadata {
            last: partial.last,
            id: partial.id.clone(),
            ordinal: i32::try_from(partial.ordinal).unwrap_or(i32::MAX),
        }),
    };
    let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX).to_be_bytes();
    record.extend_from_slice(&length);
    record.extend_from_slice(&message.encode_to_vec());
    record.extend_from_slice(&length);
}

/// The length of the record that begins with these bytes, all of it; `None` while there are too few, an error when it is none.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Torn> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Torn)?;
    if length > LONGEST {
        return Err(Torn);
    }
    Ok(Some(length + 2 * LENGTH))
}

/// No record begins here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn;

/// The size of the whole records that a file of this size begins with: less where a write was cut off at its end.
pub(super) fn whole(file: &File, size: u64) -> io::Result<u64> {
    let last = size.checked_sub(LENGTH as u64).map(|end| framed(file, end)).transpose()?.flatten();
    if let Some(start) = last.and_then(|framed| size.checked_sub(framed))
        && framed(file, start)? == last
    {
        return Ok(size);
    }
    let mut end = 0;
    while let Some(framed_here) = framed(file, end)? {
        let next = end + framed_here;
        if next > size || framed(file, next - LENGTH as u64)? != Some(framed_here) {
            break;
        }
        end = next;
    }
    Ok(end)
}

/// The length of the record whose length stands at `offset`, with both its lengths; none where none can stand.
fn framed(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let mut length = [0; LENGTH];
    match file.read_exact_at(&mut length, offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length);
    // No message is empty: zeros are what a power cut leaves.
    Ok((1..=LONGEST as u32).contains(&length).then(|| u64::from(length) + 2 * LENGTH as u64))
}

/// The entry of a whole record.
pub(super) fn decode(record: &[u8]) -> Option<Entry> {
    let message = LogEntry::decode(record.get(LENGTH..record.len().checked_sub(LENGTH)?)?).ok()?;
    let partial = message.partial_log_metadata.map(|metadata| Partial {
        id: metadata.id,
        ordinal: u32::try_from(metadata.ordinal).unwrap_or_default(),
        last: metadata.last,
    });
    let mut line = message.line;
    if partial.as_ref().is_none_or(|partial| partial.last) {
        line.push(b'\n');
    }
    Some(Entry {
        stream: Stream::of_name(&message.source).unwrap_or(Stream::Stdout),
        time: Timestamp::of_nanos(message.time_nano),
        line,
        partial,
        attributes: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_again() {
        let mut entry = Entry {
            stream: Stream::Stderr,
            time: Timestamp::new(1, 2),
            line: b"hi\xff\n".to_vec(),
            partial: None,
            attributes: BTreeMap::new(),
        };
        for partial in [None, Some(Partial { id: "x".into(), ordinal: 2, last: true })] {
            entry.partial = partial;
            let mut record = Vec::new();
            encode(&entry, &mut record);
            assert_eq!(length(&record), Ok(Some(record.len())));
            assert_eq!(record[..LENGTH], record[record.len() - LENGTH..]);
            assert_eq!(decode(&record), Some(entry.clone()));
        }
    }

    #[test]
    fn what_was_cut_off_is_found() {
        let folder = crate::scratch::Folder::new("local-log");
        let path = folder.path().join("log");
        let mut bytes = Vec::new();
        for line in [b"one\n".to_vec(), b"two\n".to_vec()] {
            let (stream, time) = (Stream::Stdout, Timestamp::new(1, 2));
            encode(&Entry { stream, time, line, partial: None, attributes: BTreeMap::new() }, &mut bytes);
        }
        let size = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            whole(&File::open(&path).unwrap(), bytes.len() as u64).unwrap()
        };
        let all = bytes.len();
        assert_eq!(size(&bytes), all as u64);
        for cut in all / 2..all {
            assert_eq!(size(&bytes[..cut]), all as u64 / 2, "{cut}");
        }
        assert_eq!(size(&[&bytes[..], &[0; 100]].concat()), all as u64, "zeros");
        assert_eq!(size(&[]), 0);
    }

    #[test]
    fn torn_records_are_seen() {
        assert_eq!(length(&[0, 0]), Ok(None));
        assert_eq!(length(&[0xff; 8]), Err(Torn));
        assert_eq!(decode(&[0; 3]), None);
    }
}

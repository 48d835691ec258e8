//! DNS messages (RFC 1035): a question is read, an answer is written behind a copy of it. What is forwarded stays as it is.

use std::net::IpAddr;

const HEADER: usize = 12;
/// How long an answer may be kept, in seconds; dockerd's.
const TTL: u32 = 600;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
/// An OPT record that says how long a query may be: 4096 bytes, and nothing else.
const OWN_SIZE: [u8; 11] = [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0];
/// What a client takes over UDP that says nothing.
const SHORT: usize = 512;

pub(super) const A: u16 = 1;
pub(super) const AAAA: u16 = 28;
pub(super) const PTR: u16 = 12;
const OPT: u16 = 41;
const IN: u16 = 1;

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    ServerFailure = 2,
    NoSuchName = 3,
    Refused = 5,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// In lower case, without the last dot.
    pub(super) name: String,
    pub(super) kind: u16,
    /// Where it ends in its message.
    end: usize,
    /// The longest answer over UDP, in bytes.
    pub(super) limit: usize,
    /// The client speaks RFC 6891, and is told that the server does.
    is_extended: bool,
}

/// An answer's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// The question of a query; `None` for what is none, or asks several things, or of another class than the Internet's.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let flags = *message.get(2)?;
    if flags & 0xf8 != 0 || number(message, 4)? != 1 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            // A question has nothing before it to point to.
            64.. => return None,
            _ => {
                if !name.is_empty() {
                    name.push('.');
                }
                // Letters of no text stay what they are not: such a name is nobody's here.
                name.push_str(&String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
                at += length;
            }
        }
        if name.len() > 255 {
            return None;
        }
    }
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    let end = at + 4;
    let size = extended(message, end);
    let limit = size.map_or(SHORT, |size| usize::from(size).max(SHORT));
    (class == IN).then_some(Question { name, kind, end, limit, is_extended: size.is_some() })
}

/// The size of a client's buffer, from the first additional record if that is an OPT (RFC 6891).
fn extended(message: &[u8], end: usize) -> Option<u16> {
    let only = number(message, 6)? == 0 && number(message, 8)? == 0 && number(message, 10)? > 0;
    (only && *message.get(end)? == 0 && number(message, end + 1)? == OPT).then(|| number(message, end + 3))?
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` means.
pub(super) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<u8> = labels.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        octets.reverse();
        return <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut digits: Vec<u8> = labels
        .split('.')
        .map(|label| if label.len() == 1 { u8::from_str_radix(label, 16).ok() } else { None })
        .collect::<Option<_>>()?;
    digits.reverse();
    let octets: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |all, one| (all << 4) | one)).collect();
    (digits.len() == 32).then(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))?
}

/// The answer to a query; `limit`: how long it may be.
pub(super) fn answer(
    query: &[u8],
    question: Option<&Question>,
    (code, records): (Code, &[Record]),
    limit: usize,
) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(query.get(..2).unwrap_or(&[0, 0]));
    answer[2] = RESPONSE | (query.get(2).copied().unwrap_or(0) & RECURSION_DESIRED);
    answer[3] = RECURSION_AVAILABLE | code as u8;
    let Some(question) = question else { return answer };
    answer[5] = 1;
    answer.extend_from_slice(query.get(HEADER..question.end).unwrap_or_default());
    let mut count: u16 = 0;
    let limit = if question.is_extended { limit.saturating_sub(OWN_SIZE.len()) } else { limit };
    for record in records {
        let before = answer.len();
        write(&mut answer, question.kind, record);
        if answer.len() > limit {
            answer.truncate(before);
            answer[2] |= TRUNCATED;
            break;
        }
        count += 1;
    }
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    if question.is_extended {
        answer[11] = 1;
        answer.extend_from_slice(&OWN_SIZE);
    }
    answer
}

fn write(answer: &mut Vec<u8>, kind: u16, record: &Record) {
    let data = match record {
        Record::Address(IpAddr::V4(address)) => address.octets().to_vec(),
        Record::Address(IpAddr::V6(address)) => address.octets().to_vec(),
        Record::Name(name) => encoded(name),
    };
    // The question's name, which begins behind the header.
    answer.extend_from_slice(&[0xc0, 12]);
    for number in [kind, IN] {
        answer.extend_from_slice(&number.to_be_bytes());
    }
    answer.extend_from_slice(&TTL.to_be_bytes());
    answer.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    answer.extend_from_slice(&data);
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// Whether a message is an answer to this very query.
pub(super) fn answers(message: &[u8], query: &[u8]) -> bool {
    let same = |range: std::ops::Range<usize>| message.get(range.clone()) == query.get(range);
    message.get(2).is_some_and(|flags| flags & RESPONSE != 0)
        && same(0..2)
        && question(query).is_none_or(|question| {
            message
                .get(HEADER..question.end)
                .zip(query.get(HEADER..question.end))
                .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::network::dns) fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(encoded(name));
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&IN.to_be_bytes());
        bytes
    }

    #[test]
    fn an_answer_repeats_the_question() {
        let query = query("Web.Example", A);
        let question = question(&query).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.limit), ("web.example", A, 512));
        let records = [Record::Address([172, 18, 0, 2].into())];
        let answer = answer(&query, Some(&question), (Code::Ok, &records), 512);
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..query.len()], query[12..]);
        assert_eq!(answer[query.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 2]);
        assert!(answers(&answer, &query) && !answers(&query, &query));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said_to_be() {
        let query = query("many", A);
        let question = question(&query).unwrap();
        let records: Vec<_> = (0..100).map(|last| Record::Address([10, 0, 0, last].into())).collect();
        let answer = answer(&query, Some(&question), (Code::Ok, &records), question.limit);
        assert!(answer.len() <= 512 && answer[2] & TRUNCATED != 0);
    }

    #[test]
    fn a_clients_buffer_is_heeded() {
        let mut query = query("a", A);
        query[11] = 1;
        query.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        let asked = question(&query).unwrap();
        assert_eq!(asked.limit, 4096);
        let records: Vec<_> = (0..250).map(|last| Record::Address([10, 0, 0, last].into())).collect();
        let answer = answer(&query, Some(&asked), (Code::Ok, &records), asked.limit);
        assert!(answer.len() > 512 && answer.len() <= 4096 && answer.ends_with(&OWN_SIZE) && answer[11] == 1);
        assert_eq!(answer[2] & TRUNCATED, 0);
    }

    #[test]
    fn reversed_names() {
        assert_eq!(reversed("2.0.18.172.in-addr.arpa"), Some([172, 18, 0, 2].into()));
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reversed(six), "fd00::1".parse().ok());
        for none in ["0.18.172.in-addr.arpa", "x", "256.0.0.1.in-addr.arpa", "1.ip6.arpa"] {
            assert_eq!(reversed(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let question = question(&bytes);
            let answer = answer(&bytes, question.as_ref(), (Code::ServerFailure, &[]), 512);
            prop_assert!(answer.len() >= 12);
            let _either = answers(&bytes, &answer);
        }

        #[test]
        fn a_name_is_read_as_it_was_written(labels in proptest::collection::vec("[a-z0-9-]{1,20}", 1..6)) {
            let name = labels.join(".");
            prop_assert_eq!(question(&query(&name, AAAA)).unwrap().name, name);
        }
    }
}

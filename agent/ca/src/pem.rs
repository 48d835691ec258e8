//! PEM (RFC 7468) as it is written here: labelled base64 in lines of 64, nothing between the blocks.
//!
//! A small reader and writer of our own: the blocks of a key folder have labels of our own, which the reader that comes
//! with rustls does not know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";

/// One block.
pub(crate) struct Block {
    pub(crate) label: String,
    pub(crate) bytes: Vec<u8>,
}

/// The text is no sequence of PEM blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("there is no PEM block")]
    Empty,
    #[error("line {0} is outside of a PEM block")]
    Outside(usize),
    #[error("the PEM block before line {0} does not end as it began")]
    Ending(usize),
    #[error("the PEM block that ends at line {0} is not base64")]
    Base64(usize),
    #[error("a PEM block of another kind than {0}")]
    Label(&'static str),
}

pub(crate) fn write(label: &str, bytes: &[u8]) -> String {
    let digits = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// All blocks of a text; lines without anything may be anywhere.
pub(crate) fn read(text: &str) -> Result<Vec<Block>, PemError> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    let mut last = 0;
    for (number, line) in text.lines().map(str::trim).enumerate().map(|(index, line)| (index + 1, line)) {
        last = number;
        let begins = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let ends = line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----"));
        match (&mut open, begins, ends) {
            (None, Some(label), _) => open = Some((label, String::new())),
            (None, None, _) if line.is_empty() => {}
            (None, None, _) => return Err(PemError::Outside(number)),
            (Some(_), Some(_), _) => return Err(PemError::Ending(number)),
            (Some((label, digits)), None, Some(end)) => {
                if *label != end {
                    return Err(PemError::Ending(number));
                }
                let bytes = STANDARD.decode(&*digits).map_err(|_| PemError::Base64(number))?;
                blocks.push(Block { label: (*label).to_owned(), bytes });
                open = None;
            }
            (Some((_, digits)), None, None) => digits.push_str(line),
        }
    }
    match open {
        Some(_) => Err(PemError::Ending(last)),
        None => Ok(blocks),
    }
}

/// The certificates of a text that has nothing else, at least one.
///
/// # Errors
/// The text is no PEM, or has something else.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let blocks = read(text)?;
    if blocks.is_empty() {
        return Err(PemError::Empty);
    }
    if blocks.iter().any(|block| block.label != CERTIFICATE) {
        return Err(PemError::Label(CERTIFICATE));
    }
    Ok(blocks.into_iter().map(|block| CertificateDer::from(block.bytes)).collect())
}

/// The one block of that kind that a text is.
pub(crate) fn only(text: &str, label: &'static str) -> Result<Vec<u8>, PemError> {
    let mut blocks = read(text)?;
    match (blocks.pop(), blocks.is_empty()) {
        (None, _) => Err(PemError::Empty),
        (Some(block), true) if block.label == label => Ok(block.bytes),
        _ => Err(PemError::Label(label)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        let good = write("X", &[1; 60]);
        let cases = [
            (format!("hello\n{good}"), "line 1 is outside of a PEM block"),
            (good.replace("END X", "END Y"), "the PEM block before line 4 does not end as it began"),
            (good.replace("-----END X-----\n", ""), "the PEM block before line 3 does not end as it began"),
            (good.replace("AQEB", "A*EB"), "the PEM block that ends at line 4 is not base64"),
        ];
        for (text, reason) in cases {
            let error = read(&text).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), Some(reason), "{text}");
        }
        assert_eq!(certificates("\n\n"), Err(PemError::Empty));
        assert_eq!(certificates(&good), Err(PemError::Label(CERTIFICATE)));
        assert_eq!(only(&format!("{good}{good}"), "X"), Err(PemError::Label("X")));
        assert_eq!(only(&good, "X"), Ok(vec![1; 60]));
    }

    proptest! {
        #[test]
        fn blocks_come_back(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
            let text: String = contents.iter().map(|bytes| write("SOME KEY", bytes)).collect();
            let read: Vec<_> = read(&text).unwrap().into_iter().map(|block| block.bytes).collect();
            prop_assert_eq!(read, contents);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
        }

        #[test]
        fn any_text_is_read_without_harm(text in "(-----(BEGIN|END) [A-Z]{0,2}-----|[A-Za-z=\n -]{0,9}|\n){0,20}") {
            let _ = read(&text);
        }
    }
}

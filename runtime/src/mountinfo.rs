//! The text form of `/proc/<pid>/mountinfo` (proc(5)), for whoever looks for a mount in it. Pure.

/// mountinfo writes space, tab, newline and backslash as three octal digits.
#[must_use]
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        let (letter, length) = code.map_or(('\\', 1), |code| (char::from(code), 4));
        out.push(letter);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c\"), r"/a b\c\");
        assert_eq!(unescape("a\\134b\\0"), "a\\b\\0");
    }
}

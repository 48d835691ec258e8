//! Where a text stops to be JSON, in the words of Go's encoding/json. Pure; called for texts that were refused.

/// What is wrong with the text's first value; `None` where nothing is.
pub(super) fn fault(text: &[u8]) -> Option<String> {
    Scanner { text, at: 0, open: Vec::new() }.value().err()
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// The brackets that are open.
    open: Vec<u8>,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    Colon,
    /// A comma or a bracket.
    End,
}

type Scanned<T = ()> = Result<T, String>;

impl Scanner<'_> {
    fn value(&mut self) -> Scanned {
        let mut next = Next::Value;
        loop {
            if next == Next::End && self.open.is_empty() {
                return Ok(());
            }
            while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
                self.at += 1;
            }
            let byte = self.byte()?;
            next = match (next, byte) {
                (Next::ValueOrEnd, b']') | (Next::NameOrEnd, b'}') => self.close(),
                (Next::Value | Next::ValueOrEnd, _) => self.begin(byte)?,
                (Next::Name | Next::NameOrEnd, b'"') => {
                    self.string()?;
                    Next::Colon
                }
                (Next::Name | Next::NameOrEnd, _) => {
                    return invalid(byte, "looking for beginning of object key string");
                }
                (Next::Colon, b':') => Next::Value,
                (Next::Colon, _) => return invalid(byte, "after object key"),
                (Next::End, _) => match (self.open.last(), byte) {
                    (Some(b'{'), b',') => Next::Name,
                    (Some(b'['), b',') => Next::Value,
                    (Some(b'{'), b'}') | (Some(b'['), b']') => self.close(),
                    (Some(b'{'), _) => return invalid(byte, "after object key:value pair"),
                    _ => return invalid(byte, "after array element"),
                },
            };
        }
    }

    fn byte(&mut self) -> Scanned<u8> {
        let byte = self.text.get(self.at).copied().ok_or("unexpected EOF")?;
        self.at += 1;
        Ok(byte)
    }

    fn close(&mut self) -> Next {
        let _bracket = self.open.pop();
        Next::End
    }

    fn begin(&mut self, byte: u8) -> Scanned<Next> {
        match byte {
            b'{' => {
                self.open.push(byte);
                return Ok(Next::NameOrEnd);
            }
            b'[' => {
                self.open.push(byte);
                return Ok(Next::ValueOrEnd);
            }
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number(byte)?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return invalid(byte, "looking for beginning of value"),
        }
        Ok(Next::End)
    }

    fn literal(&mut self, word: &str) -> Scanned {
        for expected in word.bytes().skip(1) {
            let byte = self.byte()?;
            if byte != expected {
                let where_ = format!("in literal {word} (expecting {})", quoted(expected));
                return invalid(byte, &where_);
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Scanned {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => match self.byte()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.byte()?;
                            if !byte.is_ascii_hexdigit() {
                                return invalid(byte, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    other => return invalid(other, "in string escape code"),
                },
                byte if byte < 0x20 => return invalid(byte, "in string literal"),
                _ => {}
            }
        }
    }

    fn number(&mut self, first: u8) -> Scanned {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            let _digit = self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if self.text.get(self.at).is_some_and(|byte| matches!(byte, b'e' | b'E')) {
            self.at += 1;
            if self.text.get(self.at).is_some_and(|byte| matches!(byte, b'+' | b'-')) {
                self.at += 1;
            }
            let _digit = self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, place: &str) -> Scanned<u8> {
        let byte = self.byte()?;
        if byte.is_ascii_digit() { Ok(byte) } else { invalid(byte, place) }
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn invalid<T>(byte: u8, place: &str) -> Scanned<T> {
    Err(format!("invalid character {} {place}", quoted(byte)))
}

fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        other => format!("'{}'", char::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn faults_have_gos_words() {
        for (text, words) in [
            ("x", "invalid character 'x' looking for beginning of value"),
            ("", "unexpected EOF"),
            ("{\"a\":", "unexpected EOF"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{\"a\":tru}", "invalid character '}' in literal true (expecting 'e')"),
            ("{\"a\":\"\n\"}", "invalid character '\\n' in string literal"),
            ("{\"a\":\"\\x\"}", "invalid character 'x' in string escape code"),
            ("{\"a\":\"\\u00g0\"}", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("[1.x]", "invalid character 'x' after decimal point in numeric literal"),
            ("[1e]", "invalid character ']' in exponent of numeric literal"),
            ("[01]", "invalid character '1' after array element"),
        ] {
            assert_eq!(fault(text.as_bytes()).as_deref(), Some(words), "{text}");
        }
        for text in ["{}", " [ ] ", "{\"a\":[1.5e+3,-0,\"\\u00e9\",null,true,{\"b\":{}}]} trailing"] {
            assert_eq!(fault(text.as_bytes()), None, "{text}");
        }
    }
}

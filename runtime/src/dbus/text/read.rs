//! Reading a value's text into the tree of what it looks like.

use super::super::signature::Type;
use super::{Node, TextError};

/// The words that name the type of what follows them.
const TYPE_WORDS: [(&str, Type); 12] = [
    ("boolean", Type::Bool),
    ("byte", Type::Byte),
    ("int16", Type::I16),
    ("uint16", Type::U16),
    ("int32", Type::I32),
    ("uint32", Type::U32),
    ("int64", Type::I64),
    ("uint64", Type::U64),
    ("double", Type::Double),
    ("string", Type::Text),
    ("objectpath", Type::Path),
    ("signature", Type::Signature),
];

/// Where in the text reading has come to.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Reader { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected<T>(&self, expected: &'static str) -> Result<T, TextError> {
        Err(TextError::Syntax { at: self.at, expected })
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Passes over `token` if it comes next, with the space before it.
    fn took(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn next_char(&mut self) -> Option<char> {
        let letter = self.rest().chars().next()?;
        self.at += letter.len_utf8();
        Some(letter)
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<(), TextError> {
        self.skip_space();
        if self.rest().is_empty() { Ok(()) } else { self.expected("the end") }
    }

    /// One value, nested no deeper than `depth`.
    pub(super) fn node(&mut self, depth: usize) -> Result<Node, TextError> {
        let Some(depth) = depth.checked_sub(1) else { return self.expected("a value that is nested less") };
        self.skip_space();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return self.expected("a value") };
        match first {
            '\'' | '"' => self.quoted().map(Node::Text),
            'b' if rest.starts_with("b'") || rest.starts_with("b\"") => self.bytes().map(Node::Bytes),
            '0'..='9' | '+' | '-' | '.' => Ok(self.number()),
            '@' => {
                self.at += 1;
                let Some((kind, length)) = Type::prefix_of(self.rest()) else {
                    return self.expected("a type");
                };
                self.at += length;
                Ok(Node::Typed(kind, Box::new(self.node(depth)?)))
            }
            '[' => {
                self.at += 1;
                self.list("]", |reader| reader.node(depth)).map(Node::List)
            }
            '<' => {
                self.at += 1;
                let node = self.node(depth)?;
                if self.took(">") { Ok(Node::Variant(Box::new(node))) } else { self.expected("'>'") }
            }
            '{' => {
                self.at += 1;
                let entry = |reader: &mut Self| {
                    let key = reader.node(depth)?;
                    if !reader.took(":") {
                        return reader.expected("':'");
                    }
                    Ok((key, reader.node(depth)?))
                };
                self.list("}", entry).map(Node::Dictionary)
            }
            '(' => {
                self.at += 1;
                match self.list(")", |reader| reader.node(depth))? {
                    // D-Bus has no empty structures.
                    fields if fields.is_empty() => self.expected("a value in the parentheses"),
                    fields => Ok(Node::Tuple(fields)),
                }
            }
            _ => self.word(depth),
        }
    }

    /// Items with commas between them, and perhaps one more at the end, up to `close`.
    fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, TextError>,
    ) -> Result<Vec<T>, TextError> {
        let mut items = Vec::new();
        loop {
            if self.took(close) {
                return Ok(items);
            }
            items.push(item(self)?);
            if !self.took(",") {
                return if self.took(close) {
                    Ok(items)
                } else {
                    self.expected("',' or the end of the list")
                };
            }
        }
    }

    fn word(&mut self, depth: usize) -> Result<Node, TextError> {
        let rest = self.rest();
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let word = &rest[..end];
        let node = match word {
            "true" | "false" => Node::Bool(word == "true"),
            "inf" | "nan" => Node::Number(word.to_owned()),
            _ => match TYPE_WORDS.into_iter().find(|(name, _)| *name == word) {
                Some((_, kind)) => {
                    self.at += end;
                    return Ok(Node::Typed(kind, Box::new(self.node(depth)?)));
                }
                None => return self.expected("a value"),
            },
        };
        self.at += end;
        Ok(node)
    }

    /// Digits and whatever may stand among them; what it comes to shows once its type is known.
    fn number(&mut self) -> Node {
        let rest = self.rest();
        let mut previous = ' ';
        let end = rest.find(|letter: char| {
            let sign = matches!(letter, '+' | '-') && matches!(previous, ' ' | 'e' | 'E');
            previous = letter;
            !(sign || letter.is_ascii_alphanumeric() || letter == '.')
        });
        let text = &rest[..end.unwrap_or(rest.len())];
        self.at += text.len();
        Node::Number(text.to_owned())
    }

    fn quoted(&mut self) -> Result<String, TextError> {
        let quote = self.next_char();
        let mut text = String::new();
        loop {
            match self.next_char() {
                None => return self.expected("a closing quote"),
                letter if letter == quote => return Ok(text),
                Some('\\') => self.escape(&mut text)?,
                // No string of D-Bus holds one.
                Some('\0') => return self.expected("a letter other than NUL"),
                Some(letter) => text.push(letter),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), TextError> {
        let letter = match self.next_char() {
            None => return self.expected("a closing quote"),
            Some('\n') => return Ok(()),
            Some('u') => self.code(4)?,
            Some('U') => self.code(8)?,
            Some('\0') => return self.expected("a letter other than NUL"),
            Some(letter) => control(letter).map_or(letter, char::from),
        };
        text.push(letter);
        Ok(())
    }

    fn code(&mut self, digits: usize) -> Result<char, TextError> {
        let code =
            self.rest().get(..digits).filter(|code| code.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
        match code.and_then(char::from_u32).filter(|letter| *letter != '\0') {
            Some(letter) => {
                self.at += digits;
                Ok(letter)
            }
            None => self.expected("the number of a letter"),
        }
    }

    /// A string of bytes; the NUL behind it is part of it.
    fn bytes(&mut self) -> Result<Vec<u8>, TextError> {
        self.at += 1;
        let quote = self.next_char();
        let mut bytes = Vec::new();
        loop {
            match self.next_char() {
                None => return self.expected("a closing quote"),
                letter if letter == quote => break,
                Some('\\') => match self.next_char() {
                    None => return self.expected("a closing quote"),
                    Some('\n') => {}
                    Some(digit @ '0'..='7') => bytes.push(self.octal(digit)),
                    Some(letter) => match control(letter) {
                        Some(byte) => bytes.push(byte),
                        None => bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
                    },
                },
                Some(letter) => bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        bytes.push(0);
        Ok(bytes)
    }

    /// Up to three digits; of what is more than a byte, the lower bits, as in C.
    fn octal(&mut self, first: char) -> u8 {
        let mut byte = first as u32 - '0' as u32;
        for _ in 0..2 {
            match self.rest().bytes().next() {
                Some(digit @ b'0'..=b'7') => {
                    byte = byte * 8 + u32::from(digit - b'0');
                    self.at += 1;
                }
                _ => break,
            }
        }
        byte.to_le_bytes()[0]
    }
}

/// The control character that a letter behind a backslash stands for.
fn control(letter: char) -> Option<u8> {
    Some(match letter {
        'a' => 7,
        'b' => 8,
        't' => b'\t',
        'n' => b'\n',
        'v' => 11,
        'f' => 12,
        'r' => b'\r',
        _ => return None,
    })
}

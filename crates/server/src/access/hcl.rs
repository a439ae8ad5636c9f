//! Rules as they are written down, HCL 1 or JSON, read into a tree; what the tree means is the business of `rules.rs`.
//!
//! The reader is ours because those for HCL 2 refuse much of what is written in HCL 1.
//! It takes what the original takes, and some more (a comma too many), since nothing that was once accepted may be refused.

use std::fmt;

/// How deep objects and lists may lie in each other. Rules need two; the rest is room for blocks of other releases.
const DEPTH_MAX: usize = 64;

/// Why a text can't be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    line: usize,
    column: usize,
    what: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, what } = self;
        write!(f, "At {line}:{column}: {what}")
    }
}

/// What stands under one or several names: `key "web/" { … }` has two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) names: Vec<Vec<u8>>,
    pub(super) value: Value,
    pub(super) place: Place,
}

/// Where something begins in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place(usize);

/// What a name can stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A string without its quotes, or a number or a truth value as it is written.
    Literal(Vec<u8>),
    /// JSON's word for nothing.
    Null,
    List(Vec<Self>),
    Object(Vec<Item>),
}

/// Reads a text. Like the original it takes one that begins with a brace for JSON.
pub(super) fn read(text: &[u8]) -> Result<Vec<Item>, Malformed> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = Reader { text, at: 0 };
    if text.trim_ascii_start().starts_with(b"{") {
        reader.skip_spaces();
        reader.at += 1;
        let items = reader.json_object(1)?;
        reader.skip_spaces();
        if reader.peek().is_some() {
            return Err(reader.malformed("there is more behind the object"));
        }
        Ok(items)
    } else {
        reader.items(0, None)
    }
}

/// Says where something that is wrong stands.
pub(super) fn malformed(text: &[u8], place: Place, what: impl Into<String>) -> Malformed {
    let before = &text[..place.0.min(text.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n');
    Malformed {
        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: before.len() - line_start.map_or(0, |at| at + 1) + 1,
        what: what.into(),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        &self.text[self.at..]
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn malformed(&self, what: impl Into<String>) -> Malformed {
        malformed(self.text, Place(self.at), what)
    }

    fn unexpected(&self, expected: &str) -> Malformed {
        self.malformed(match self.peek() {
            Some(byte) => format!("expected {expected}, found {:?}", char::from(byte)),
            None => format!("expected {expected}, found the end"),
        })
    }

    fn check_depth(&self, depth: usize) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(self.malformed("nested too deeply"));
        }
        Ok(())
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Spaces and comments.
    fn skip(&mut self) -> Result<(), Malformed> {
        loop {
            self.skip_spaces();
            let rest = self.rest();
            if rest.starts_with(b"#") || rest.starts_with(b"//") {
                let line = rest.iter().position(|byte| *byte == b'\n');
                self.at += line.unwrap_or(rest.len());
            } else if rest.starts_with(b"/*") {
                let end = rest.windows(2).skip(2).position(|two| two == b"*/");
                let Some(end) = end else {
                    return Err(self.malformed("a comment that doesn't end"));
                };
                self.at += 2 + end + 2;
            } else {
                return Ok(());
            }
        }
    }

    /// HCL: what an object holds, up to its closing brace, or to the end of the text.
    fn items(&mut self, depth: usize, closing: Option<u8>) -> Result<Vec<Item>, Malformed> {
        self.check_depth(depth)?;
        let mut items = Vec::new();
        loop {
            self.skip()?;
            match self.peek() {
                None if closing.is_none() => return Ok(items),
                Some(byte) if Some(byte) == closing => {
                    self.at += 1;
                    return Ok(items);
                }
                _ => items.push(self.item(depth)?),
            }
            self.skip()?;
            self.take(b',');
        }
    }

    fn item(&mut self, depth: usize) -> Result<Item, Malformed> {
        let place = Place(self.at);
        let mut names = Vec::new();
        loop {
            self.skip()?;
            match self.peek() {
                Some(b'"') => names.push(self.string()?),
                Some(byte) if is_letter(byte) => names.push(self.identifier().to_vec()),
                Some(b'=') if names.len() == 1 => {
                    self.at += 1;
                    self.skip()?;
                    let value = self.value(depth)?;
                    return Ok(Item {
                        names,
                        value,
                        place,
                    });
                }
                Some(b'{') if !names.is_empty() => {
                    self.at += 1;
                    let value = Value::Object(self.items(depth + 1, Some(b'}'))?);
                    return Ok(Item {
                        names,
                        value,
                        place,
                    });
                }
                _ if names.is_empty() => return Err(self.unexpected("a name")),
                _ => return Err(self.unexpected("a name or a block")),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        match self.peek() {
            Some(b'"') => Ok(Value::Literal(self.string()?)),
            Some(b'{') => {
                self.at += 1;
                Ok(Value::Object(self.items(depth + 1, Some(b'}'))?))
            }
            Some(b'[') => {
                self.at += 1;
                self.list(depth + 1)
            }
            Some(b'<') => self.heredoc(),
            Some(byte) if byte.is_ascii_digit() || byte == b'-' => Ok(self.number()),
            _ if self.rest().starts_with(b"true") || self.rest().starts_with(b"false") => {
                Ok(Value::Literal(self.identifier().to_vec()))
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.check_depth(depth)?;
        let mut values = Vec::new();
        loop {
            self.skip()?;
            if self.take(b']') {
                return Ok(Value::List(values));
            }
            values.push(self.value(depth)?);
            self.skip()?;
            if !self.take(b',') && self.peek() != Some(b']') {
                return Err(self.unexpected("a comma or the end of the list"));
            }
        }
    }

    fn identifier(&mut self) -> &[u8] {
        let from = self.at;
        while let Some(byte) = self.peek()
            && (is_letter(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
        {
            self.at += 1;
        }
        &self.text[from..self.at]
    }

    /// A number is nothing but text here: no rule has one.
    fn number(&mut self) -> Value {
        let from = self.at;
        while let Some(byte) = self.peek()
            && (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
        {
            self.at += 1;
        }
        Value::Literal(self.text[from..self.at].to_vec())
    }

    /// Everything up to a line that consists of the word behind `<<`.
    fn heredoc(&mut self) -> Result<Value, Malformed> {
        let Some(rest) = self.rest().strip_prefix(b"<<") else {
            return Err(self.unexpected("a value"));
        };
        let (rest, is_indented) = match rest.strip_prefix(b"-") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let header = rest.iter().position(|byte| *byte == b'\n');
        let header = header.unwrap_or(rest.len());
        let word = rest[..header].trim_ascii_end();
        if word.is_empty() {
            return Err(self.malformed("expected a word behind <<"));
        }
        let mut content = Vec::new();
        let mut at = (self.text.len() - rest.len() + header + 1).min(self.text.len());
        for line in self.text[at..].split_inclusive(|byte| *byte == b'\n') {
            let bare = line.trim_ascii_end();
            let ending = if is_indented {
                bare.trim_ascii_start()
            } else {
                bare
            };
            if ending == word {
                // The line's own end stays, as that of any value.
                self.at = at + bare.len();
                return Ok(Value::Literal(content));
            }
            content.extend_from_slice(line);
            at += line.len();
        }
        Err(self.malformed("a text that doesn't end"))
    }

    /// A string in quotes. What lies in `${…}` is taken as it is, quotes and ends of lines included.
    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let began = Place(self.at);
        self.at += 1;
        let mut content = Vec::new();
        let mut braces = 0_usize;
        loop {
            let Some(byte) = self.peek() else {
                return Err(malformed(self.text, began, "a string that doesn't end"));
            };
            if braces > 0 {
                match byte {
                    b'{' => braces += 1,
                    b'}' => braces -= 1,
                    _ => {}
                }
                content.push(byte);
                self.at += 1;
                continue;
            }
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(content);
                }
                b'\n' => {
                    return Err(malformed(self.text, began, "a string that doesn't end"));
                }
                b'$' if self.rest().starts_with(b"${") => {
                    braces = 1;
                    content.extend_from_slice(b"${");
                    self.at += 2;
                }
                b'\\' => {
                    self.at += 1;
                    self.escaped(&mut content)?;
                }
                _ => {
                    content.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self, content: &mut Vec<u8>) -> Result<(), Malformed> {
        let Some(byte) = self.peek() else {
            return Err(self.unexpected("an escaped character"));
        };
        let plain = match byte {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' | b'"' | b'/' => byte,
            b'x' => return self.numbered(content, 1, 2, 16),
            b'u' => return self.unicode(content),
            b'U' => return self.numbered(content, 1, 8, 16),
            b'0'..=b'7' => return self.numbered(content, 0, 3, 8),
            _ => return Err(self.malformed("no such escape")),
        };
        content.push(plain);
        self.at += 1;
        Ok(())
    }

    /// A byte or a character by its number.
    fn numbered(
        &mut self,
        content: &mut Vec<u8>,
        skipped: usize,
        digits: usize,
        radix: u32,
    ) -> Result<(), Malformed> {
        let from = self.at + skipped;
        let number = self
            .text
            .get(from..from + digits)
            .filter(|digits| digits.iter().all(u8::is_ascii_alphanumeric))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let Some(number) = number else {
            return Err(self.malformed("no such escape"));
        };
        if digits < 4 {
            let Ok(byte) = u8::try_from(number) else {
                return Err(self.malformed("no such escape"));
            };
            content.push(byte);
        } else {
            let character = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
            content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.at = from + digits;
        Ok(())
    }

    /// A character of four digits, or of twice four as JSON writes those beyond them.
    fn unicode(&mut self, content: &mut Vec<u8>) -> Result<(), Malformed> {
        let pair = (self.half(self.at + 1), self.half(self.at + 7));
        if let (Some(high @ 0xd800..0xdc00), Some(low @ 0xdc00..0xe000)) = pair
            && self.text.get(self.at + 5..self.at + 7) == Some(br"\u")
        {
            let number = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            let character = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
            content.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            self.at += 11;
            return Ok(());
        }
        self.numbered(content, 1, 4, 16)
    }

    fn half(&self, from: usize) -> Option<u32> {
        let digits = self.text.get(from..from + 4)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    /// JSON: what an object holds, behind its opening brace.
    fn json_object(&mut self, depth: usize) -> Result<Vec<Item>, Malformed> {
        self.check_depth(depth)?;
        let mut items = Vec::new();
        loop {
            self.skip_spaces();
            if self.take(b'}') {
                return Ok(items);
            }
            let place = Place(self.at);
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a name in quotes"));
            }
            let name = self.json_string()?;
            self.skip_spaces();
            if !self.take(b':') {
                return Err(self.unexpected("a colon"));
            }
            let value = self.json_value(depth)?;
            items.push(Item {
                names: vec![name],
                value,
                place,
            });
            self.skip_spaces();
            if !self.take(b',') && self.peek() != Some(b'}') {
                return Err(self.unexpected("a comma or the end of the object"));
            }
        }
    }

    fn json_value(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.skip_spaces();
        match self.peek() {
            Some(b'"') => Ok(Value::Literal(self.json_string()?)),
            Some(b'{') => {
                self.at += 1;
                Ok(Value::Object(self.json_object(depth + 1)?))
            }
            Some(b'[') => {
                self.at += 1;
                self.json_list(depth + 1)
            }
            Some(byte) if byte.is_ascii_digit() || byte == b'-' => Ok(self.number()),
            Some(byte) if byte.is_ascii_lowercase() => match self.identifier() {
                b"null" => Ok(Value::Null),
                word @ (b"true" | b"false") => Ok(Value::Literal(word.to_vec())),
                _ => Err(self.malformed("no such word")),
            },
            _ => Err(self.unexpected("a value")),
        }
    }

    fn json_list(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.check_depth(depth)?;
        let mut values = Vec::new();
        loop {
            self.skip_spaces();
            if self.take(b']') {
                return Ok(Value::List(values));
            }
            values.push(self.json_value(depth)?);
            self.skip_spaces();
            if !self.take(b',') && self.peek() != Some(b']') {
                return Err(self.unexpected("a comma or the end of the list"));
            }
        }
    }

    fn json_string(&mut self) -> Result<Vec<u8>, Malformed> {
        let began = Place(self.at);
        self.at += 1;
        let mut content = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(content);
                }
                None | Some(b'\n') => {
                    return Err(malformed(self.text, began, "a string that doesn't end"));
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escaped(&mut content)?;
                }
                Some(byte) => {
                    content.push(byte);
                    self.at += 1;
                }
            }
        }
    }
}

/// What a name without quotes may begin with; letters beyond ASCII count as the bytes that they are made of.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

//! From a request's body to values, one pull at a time.
//!
//! The caller says what it expects; nothing is built that nobody asked for, and strings are borrowed from the body where they can be.
//! A `null` reads as `None` everywhere, for which the caller puts the default: so the last of several fields of one name wins, `null` included.

use std::borrow::Cow;
use std::fmt;

use model::{GoDuration, Pairs, Text};

/// How deep values that nobody asked for may be nested.
const DEPTH_MAX: usize = 1_000;

/// Field names longer than this are none of ours.
const NAME_MAX: usize = 40;

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// There is nothing.
    Empty,
    /// It ends in the middle.
    Cut,
    /// It is no JSON from this byte on.
    Syntax {
        /// The offending byte.
        byte: u8,
        /// Its position, from 0.
        at: usize,
    },
    /// Values are nested too deeply.
    Depth,
    /// It is JSON, but not of the right kind.
    Type {
        /// What belongs here.
        expected: &'static str,
        /// What is here.
        found: &'static str,
    },
    /// It is of the right kind and yet makes no sense.
    Value(String),
    /// One of the above in the field at the end of this path.
    Field(String, Box<Self>),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("EOF"),
            Self::Cut => f.write_str("unexpected EOF"),
            Self::Syntax { byte, at } => {
                write!(f, "unexpected {:?} at byte {at}", char::from(*byte))
            }
            Self::Depth => f.write_str("nested too deeply"),
            Self::Type { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Value(what) => f.write_str(what),
            Self::Field(name, error) => write!(f, "field {name:?}: {error}"),
        }
    }
}

impl std::error::Error for DecodeError {}

impl DecodeError {
    /// The same, found in the field of that name.
    fn within(self, name: &str) -> Self {
        match self {
            Self::Field(inner, error) => Self::Field(format!("{name}.{inner}"), error),
            Self::Type { .. } | Self::Value(_) => Self::Field(name.to_owned(), Box::new(self)),
            Self::Empty | Self::Cut | Self::Syntax { .. } | Self::Depth => self,
        }
    }
}

/// Reads the first value of a body; what follows it is ignored.
pub(crate) fn decode<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut reader = Reader { input: body, at: 0 };
    if reader.peek().is_err() {
        return Err(DecodeError::Empty);
    }
    read(&mut reader)
}

/// A position in a body.
pub(crate) struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// An object; `each` gets the name of every field, in lower case, and must read or skip its value.
    ///
    /// False if there is a `null` instead.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<bool, DecodeError> {
        self.members(|reader, name| {
            let mut lower = [0; NAME_MAX];
            let lower = match lower.get_mut(..name.len()) {
                Some(lower) => {
                    lower.copy_from_slice(name.as_bytes());
                    lower.make_ascii_lowercase();
                    &*lower
                }
                None => b"",
            };
            each(reader, lower).map_err(|error| error.within(name))
        })
    }

    /// A list; `each` must read or skip one element.
    ///
    /// False if there is a `null` instead.
    pub(crate) fn list(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<bool, DecodeError> {
        match self.peek()? {
            b'[' => self.at += 1,
            b'n' => return self.literal(b"null").map(|()| false),
            other => return Err(self.other_kind("a list", other)),
        }
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(true);
        }
        loop {
            each(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(true);
                }
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// A string.
    pub(crate) fn string(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.peek()? {
            b'"' => self.quoted().map(Some),
            b'n' => self.literal(b"null").map(|()| None),
            other => Err(self.other_kind("a string", other)),
        }
    }

    /// A string to keep.
    pub(crate) fn text(&mut self) -> Result<Option<Text>, DecodeError> {
        Ok(self.string()?.map(|text| Text::from(&*text)))
    }

    /// True or false.
    pub(crate) fn bool(&mut self) -> Result<Option<bool>, DecodeError> {
        match self.peek()? {
            b't' => self.literal(b"true").map(|()| Some(true)),
            b'f' => self.literal(b"false").map(|()| Some(false)),
            b'n' => self.literal(b"null").map(|()| None),
            other => Err(self.other_kind("a boolean", other)),
        }
    }

    /// An integer; what stands behind the point is dropped.
    pub(crate) fn i64(&mut self) -> Result<Option<i64>, DecodeError> {
        let Some(number) = self.number()? else {
            return Ok(None);
        };
        if let Ok(whole) = number.parse::<i64>() {
            return Ok(Some(whole));
        }
        // What i64 cannot hold has no sensible meaning, and the original's depends on the processor.
        match truncated(number) {
            Some(whole) => i64::try_from(whole).ok(),
            None => None,
        }
        .ok_or_else(|| out_of_range(number))
        .map(Some)
    }

    /// An integer that is not negative; what stands behind the point is dropped.
    pub(crate) fn u64(&mut self) -> Result<Option<u64>, DecodeError> {
        let Some(number) = self.number()? else {
            return Ok(None);
        };
        // All 64 bits: flags of well-known clients need them, and the original's detour over a float loses some.
        if let Ok(whole) = number.parse::<u64>() {
            return Ok(Some(whole));
        }
        match truncated(number) {
            Some(whole) => u64::try_from(whole).ok(),
            None => None,
        }
        .ok_or_else(|| out_of_range(number))
        .map(Some)
    }

    /// A duration: a string such as `15s`, or a number of nanoseconds.
    pub(crate) fn duration(&mut self) -> Result<Option<GoDuration>, DecodeError> {
        if self.peek()? != b'"' {
            return Ok(self.i64()?.map(GoDuration));
        }
        let text = self.quoted()?;
        GoDuration::parse(&text)
            .map(Some)
            .map_err(|error| DecodeError::Value(error.to_string()))
    }

    /// Bytes in padded base64.
    pub(crate) fn base64(&mut self) -> Result<Option<Text>, DecodeError> {
        let Some(text) = self.string()? else {
            return Ok(None);
        };
        let bytes = if text.bytes().any(|byte| matches!(byte, b'\r' | b'\n')) {
            // Line ends inside are ignored, as tools that wrap their output expect.
            let joined: Vec<u8> = text
                .bytes()
                .filter(|byte| !matches!(byte, b'\r' | b'\n'))
                .collect();
            base64_simd::STANDARD.decode_to_vec(joined)
        } else {
            base64_simd::STANDARD.decode_to_vec(text.as_bytes())
        };
        match bytes {
            Ok(bytes) => Ok(Some(Text::from(bytes))),
            Err(_) => Err(DecodeError::Value(
                "failed to decode value: illegal base64 data".to_owned(),
            )),
        }
    }

    /// A list of strings; a `null` among them is an empty one.
    pub(crate) fn texts(&mut self) -> Result<Option<Vec<Text>>, DecodeError> {
        let mut texts = Vec::new();
        let is_there = self.list(|reader| {
            texts.push(reader.text()?.unwrap_or_default());
            Ok(())
        })?;
        Ok(is_there.then_some(texts))
    }

    /// Whether a list comes next.
    pub(crate) fn is_list(&mut self) -> Result<bool, DecodeError> {
        Ok(self.peek()? == b'[')
    }

    /// Names, which keep their case, with strings.
    pub(crate) fn pairs(&mut self) -> Result<Option<Pairs>, DecodeError> {
        let mut pairs = Pairs::new();
        let is_there = self.members(|reader, name| {
            let value = reader.text()?.unwrap_or_default();
            pairs.insert(Text::from(&**name), value);
            Ok(())
        })?;
        Ok(is_there.then_some(pairs))
    }

    /// Whatever comes, unread but for its syntax.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        // The closing bytes that are still due: nesting costs memory here, not stack.
        let mut open = Vec::new();
        loop {
            match self.peek()? {
                b'"' => {
                    self.quoted()?;
                }
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                }
                start @ (b'{' | b'[') => {
                    self.at += 1;
                    if open.len() == DEPTH_MAX {
                        return Err(DecodeError::Depth);
                    }
                    let close = if start == b'{' { b'}' } else { b']' };
                    if self.peek()? != close {
                        open.push(close);
                        if close == b'}' {
                            self.name()?;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                other => return Err(self.unexpected(other)),
            }
            // A value is complete; so may be what it stands in.
            loop {
                let Some(close) = open.last() else {
                    return Ok(());
                };
                match self.peek()? {
                    b',' => {
                        self.at += 1;
                        if *close == b'}' {
                            self.name()?;
                        }
                        break;
                    }
                    byte if byte == *close => {
                        self.at += 1;
                        open.pop();
                    }
                    other => return Err(self.unexpected(other)),
                }
            }
        }
    }

    /// An object with names as they stand there.
    fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, &Cow<'a, str>) -> Result<(), DecodeError>,
    ) -> Result<bool, DecodeError> {
        match self.peek()? {
            b'{' => self.at += 1,
            b'n' => return self.literal(b"null").map(|()| false),
            other => return Err(self.other_kind("an object", other)),
        }
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(true);
        }
        loop {
            let name = self.name()?;
            each(self, &name)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(true);
                }
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// A field's name and the colon behind it.
    fn name(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        match self.peek()? {
            b'"' => {}
            other => return Err(self.unexpected(other)),
        }
        let name = self.quoted()?;
        match self.peek()? {
            b':' => self.at += 1,
            other => return Err(self.unexpected(other)),
        }
        Ok(name)
    }

    /// The next byte that is no white space, which stays where it is.
    fn peek(&mut self) -> Result<u8, DecodeError> {
        while let Some(byte) = self.input.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(DecodeError::Cut)
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), DecodeError> {
        for expected in word {
            match self.input.get(self.at) {
                Some(byte) if byte == expected => self.at += 1,
                Some(byte) => return Err(self.unexpected(*byte)),
                None => return Err(DecodeError::Cut),
            }
        }
        Ok(())
    }

    /// A number as it stands there; `None` for `null`.
    fn number(&mut self) -> Result<Option<&'a str>, DecodeError> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => {}
            b'n' => return self.literal(b"null").map(|()| None),
            other => return Err(self.other_kind("a number", other)),
        }
        let start = self.at;
        if self.input[self.at] == b'-' {
            self.at += 1;
        }
        if self.input.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.input.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.input.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.input.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = std::str::from_utf8(&self.input[start..self.at]);
        Ok(Some(text.expect("signs, digits and points are ASCII")))
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), DecodeError> {
        match self.input.get(self.at) {
            Some(byte) if byte.is_ascii_digit() => {}
            Some(byte) => return Err(self.unexpected(*byte)),
            None => return Err(DecodeError::Cut),
        }
        while self.input.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    /// A string, from its opening quote, which is there.
    fn quoted(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let start = self.at + 1;
        let mut end = start;
        let mut is_plain = true;
        loop {
            match self.input.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_plain = false;
                    end += 2;
                }
                Some(control @ 0..0x20) => {
                    return Err(DecodeError::Syntax {
                        byte: *control,
                        at: end,
                    });
                }
                Some(_) => end += 1,
                None => return Err(DecodeError::Cut),
            }
        }
        let raw = &self.input[start..end];
        let text = if is_plain {
            lossy(raw)
        } else {
            Cow::Owned(unescape(raw, start)?)
        };
        self.at = end + 1;
        Ok(text)
    }

    fn unexpected(&self, byte: u8) -> DecodeError {
        DecodeError::Syntax { byte, at: self.at }
    }

    /// The value that begins with this byte is of another kind than expected, or none at all.
    fn other_kind(&self, expected: &'static str, byte: u8) -> DecodeError {
        let found = match byte {
            b'"' => "a string",
            b'{' => "an object",
            b'[' => "a list",
            b't' | b'f' => "a boolean",
            b'-' | b'0'..=b'9' => "a number",
            _ => return self.unexpected(byte),
        };
        DecodeError::Type { expected, found }
    }
}

/// The whole part of a number, if an integer could hold it.
fn truncated(number: &str) -> Option<i128> {
    let float: f64 = number.parse().ok()?;
    if !(-1e19..2e19).contains(&float) {
        return None;
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "dropping the fraction is what is asked for"
    )]
    Some(float as i128)
}

fn out_of_range(number: &str) -> DecodeError {
    let shown: String = number.chars().take(40).collect();
    DecodeError::Value(format!("number {shown} is out of range"))
}

/// The bytes as text, each that is no UTF-8 as one U+FFFD, as the original does.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(out)
}

/// The inside of a string that has escapes; it begins at byte `at` of the body.
fn unescape(raw: &[u8], at: usize) -> Result<String, DecodeError> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        out.push_str(&lossy(&rest[..backslash]));
        rest = &rest[backslash + 1..];
        let here = at + raw.len() - rest.len();
        let Some((kind, after)) = rest.split_first() else {
            return Err(DecodeError::Cut);
        };
        rest = after;
        match kind {
            b'"' | b'\\' | b'/' => out.push(char::from(*kind)),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let Some(high) = hex4(rest) else {
                    return Err(DecodeError::Syntax {
                        byte: b'u',
                        at: here,
                    });
                };
                rest = &rest[4..];
                let pair = rest
                    .strip_prefix(b"\\u")
                    .and_then(hex4)
                    .and_then(|low| surrogates(high, low));
                if let Some(character) = pair {
                    out.push(character);
                    rest = &rest[6..];
                } else {
                    // Half a pair stands for nothing.
                    out.push(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
            other => {
                return Err(DecodeError::Syntax {
                    byte: *other,
                    at: here,
                });
            }
        }
    }
    out.push_str(&lossy(rest));
    Ok(out)
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |sum, byte| {
        char::from(*byte).to_digit(16).map(|digit| sum * 16 + digit)
    })
}

fn surrogates(high: u32, low: u32) -> Option<char> {
    if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Thing {
        name: String,
        size: i64,
        flags: u64,
        on: bool,
        list: Option<Vec<Text>>,
    }

    fn thing(body: &[u8]) -> Result<Thing, DecodeError> {
        decode(body, |reader| {
            let mut thing = Thing::default();
            reader.object(|reader, name| {
                match name {
                    b"name" => thing.name = reader.string()?.unwrap_or_default().into_owned(),
                    b"size" => thing.size = reader.i64()?.unwrap_or_default(),
                    b"flags" => thing.flags = reader.u64()?.unwrap_or_default(),
                    b"on" => thing.on = reader.bool()?.unwrap_or_default(),
                    b"list" => thing.list = reader.texts()?,
                    _ => reader.skip()?,
                }
                Ok(())
            })?;
            Ok(thing)
        })
    }

    #[test]
    fn habits() {
        let named = |name: &str| Thing {
            name: name.to_owned(),
            ..Thing::default()
        };
        for (body, expected) in [
            (&b"{}"[..], Thing::default()),
            (b"null", Thing::default()),
            (b" {\"NAME\" : \"x\" } trailing", named("x")),
            (b"{\"name\":null}", Thing::default()),
            (b"{\"name\":\"a\",\"Name\":\"b\"}", named("b")),
            (
                b"{\"other\":{\"a\":[1,-2.5e3,{\"b\":[]},\"\\\"\"],\"c\":{}},\"name\":\"x\"}",
                named("x"),
            ),
            (
                b"{\"name\":\"\\u00e4\\ud83d\\ude00\\ud83dx\\/\\b\"}",
                named("ä😀\u{fffd}x/\u{8}"),
            ),
            (
                b"{\"name\":\"a\xff\xe2\x82\"}",
                named("a\u{fffd}\u{fffd}\u{fffd}"),
            ),
            (b"{\"name\":\"\\n\xff\"}", named("\n\u{fffd}")),
            (
                b"{\"size\":1.9,\"flags\":18446744073709551615}",
                Thing {
                    size: 1,
                    flags: u64::MAX,
                    ..Thing::default()
                },
            ),
            (
                b"{\"size\":-1.9e1,\"flags\":1e3}",
                Thing {
                    size: -19,
                    flags: 1000,
                    ..Thing::default()
                },
            ),
            (
                b"{\"on\":true,\"list\":[\"a\",null]}",
                Thing {
                    on: true,
                    list: Some(vec![Text::from("a"), Text::default()]),
                    ..Thing::default()
                },
            ),
        ] {
            assert_eq!(thing(body), Ok(expected), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn refusals() {
        for (body, expected) in [
            (&b""[..], "EOF"),
            (b" \n", "EOF"),
            (b"{", "unexpected EOF"),
            (b"{\"name\":\"x", "unexpected EOF"),
            (b"{\"name\":\"x\\", "unexpected EOF"),
            (b"{\"name\":\"x\n\"}", "unexpected '\\n' at byte 10"),
            (b"{\"name\":\"\\x\"}", "unexpected 'x' at byte 10"),
            (b"{\"name\":\"\\u12\"}", "unexpected 'u' at byte 10"),
            (b"{\"name\":nul}", "unexpected '}' at byte 11"),
            (b"{name:1}", "unexpected 'n' at byte 1"),
            (
                b"{\"name\":1}",
                "field \"name\": expected a string, found a number",
            ),
            (
                b"{\"Size\":\"1\"}",
                "field \"Size\": expected a number, found a string",
            ),
            (b"{\"size\":01}", "unexpected '1' at byte 9"),
            (b"{\"size\":1.}", "unexpected '}' at byte 10"),
            (
                b"{\"size\":1e30}",
                "field \"size\": number 1e30 is out of range",
            ),
            (
                b"{\"flags\":-1}",
                "field \"flags\": number -1 is out of range",
            ),
            (
                b"{\"list\":\"a\"}",
                "field \"list\": expected a list, found a string",
            ),
            (b"{\"x\":[1,]}", "unexpected ']' at byte 8"),
            (b"{\"x\":{\"a\" 1}}", "unexpected '1' at byte 10"),
            (b"[]", "expected an object, found a list"),
            (b"{} {", ""),
        ] {
            let text = thing(body).map_or_else(|error| error.to_string(), |_| String::new());
            assert_eq!(text, expected, "{}", body.escape_ascii());
        }
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert_eq!(thing(deep.as_bytes()), Err(DecodeError::Depth));
    }

    #[test]
    fn durations_and_bytes() {
        let duration = |body: &[u8]| decode(body, Reader::duration);
        assert_eq!(duration(b"\"15s\""), Ok(Some(GoDuration(15_000_000_000))));
        assert_eq!(duration(b"1.5"), Ok(Some(GoDuration(1))));
        assert!(duration(b"\"15\"").is_err());
        let bytes = |body: &[u8]| decode(body, Reader::base64);
        assert_eq!(bytes(b"\"aGVs\\nbG8=\""), Ok(Some(Text::from("hello"))));
        assert_eq!(bytes(b"null"), Ok(None));
        assert!(bytes(b"\"aGVsbG8\"").is_err());
        assert!(bytes(b"\"!\"").is_err());
        assert!(bytes(b"5").is_err());
    }
}

//! From values to compact JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Text, Uuid};

/// What can be written as JSON.
///
/// Writing cannot fail: whatever JSON has no word for becomes `null` or U+FFFD.
pub(crate) trait Encode {
    /// Appends the value.
    fn encode(&self, out: &mut Vec<u8>);
}

/// Appends an object whose fields `fields` writes, in that order.
pub(crate) fn object(out: &mut Vec<u8>, fields: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fields(&mut Object { out, first: true });
    out.push(b'}');
}

/// An object that is being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Object<'_> {
    /// A field whose name is ours and needs no escapes.
    pub(crate) fn field(
        &mut self,
        name: &'static str,
        value: &(impl Encode + ?Sized),
    ) -> &mut Self {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        value.encode(self.out);
        self
    }

    /// The same for an object within.
    pub(crate) fn object(
        &mut self,
        name: &'static str,
        fields: impl FnOnce(&mut Object<'_>),
    ) -> &mut Self {
        self.field(name, &Nested(std::cell::Cell::new(Some(fields))))
    }

    /// A field whose name may be anything.
    pub(crate) fn entry(&mut self, name: &[u8], value: &(impl Encode + ?Sized)) -> &mut Self {
        self.comma();
        string(name, self.out);
        self.out.push(b':');
        value.encode(self.out);
        self
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }
}

/// Fields that are written once, as a value.
struct Nested<F>(std::cell::Cell<Option<F>>);

impl<F: FnOnce(&mut Object<'_>)> Encode for Nested<F> {
    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(fields) = self.0.take() {
            object(out, fields);
        }
    }
}

/// Bytes shown as padded base64; none as `null`.
pub(crate) struct Base64<'a>(pub(crate) &'a [u8]);

impl Encode for Base64<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            out.extend_from_slice(b"null");
            return;
        }
        out.push(b'"');
        base64_simd::STANDARD.encode_append(self.0, out);
        out.push(b'"');
    }
}

/// Text that need not be UTF-8.
pub(crate) struct Lossy<'a>(pub(crate) &'a [u8]);

impl Encode for Lossy<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        string(self.0, out);
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

macro_rules! integers {
    ($($kind:ty),*) => { $(
        impl Encode for $kind {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )* };
}

integers!(u8, u16, u64, i64, usize);

impl Encode for f64 {
    /// The shortest digits that read back as the same number, with an exponent only where the original writes one.
    ///
    /// Infinity and NaN, for which JSON has no word, become `null`.
    fn encode(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        if !self.is_finite() {
            out.extend_from_slice(b"null");
            return;
        }
        let size = self.abs();
        let written = if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{self:e}");
            match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => {
                    write!(out, "{digits}e+{exponent}")
                }
                _ => write!(out, "{text}"),
            }
        } else {
            write!(out, "{self}")
        };
        written.expect("a vector takes whatever is written");
    }
}

impl Encode for str {
    fn encode(&self, out: &mut Vec<u8>) {
        string(self.as_bytes(), out);
    }
}

impl Encode for String {
    fn encode(&self, out: &mut Vec<u8>) {
        string(self.as_bytes(), out);
    }
}

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        string(self, out);
    }
}

impl Encode for Uuid {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut buffer = Self::encode_buffer();
        string(self.hyphenated().encode_lower(&mut buffer).as_bytes(), out);
    }
}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

impl<T: Encode + ?Sized> Encode for Arc<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.encode(out),
            None => out.extend_from_slice(b"null"),
        }
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, value) in self.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            value.encode(out);
        }
        out.push(b']');
    }
}

impl<T: Encode> Encode for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_slice().encode(out);
    }
}

impl<T: Encode, const N: usize> Encode for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_slice().encode(out);
    }
}

impl<K: AsRef<[u8]>, V: Encode> Encode for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        object(out, |map| {
            for (name, value) in self {
                map.entry(name.as_ref(), value);
            }
        });
    }
}

/// Bytes of ASCII that stand for themselves inside a string.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = true;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    // A browser that takes JSON for a page must find no tag in it.
    plain[b'<' as usize] = false;
    plain[b'>' as usize] = false;
    plain[b'&' as usize] = false;
    plain
};

/// Appends a string, quoted; each byte that is no UTF-8 becomes one U+FFFD.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut rest = bytes;
    loop {
        let plain = rest
            .iter()
            .position(|byte| !PLAIN[usize::from(*byte)])
            .unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
        let Some(byte) = rest.first() else { break };
        if byte.is_ascii() {
            escape(*byte, out);
            rest = &rest[1..];
        } else {
            let len = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
            beyond_ascii(&rest[..len], out);
            rest = &rest[len..];
        }
    }
    out.push(b'"');
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
        }
    }
}

fn beyond_ascii(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                // Line ends to JavaScript, though not to JSON.
                '\u{2028}' => out.extend_from_slice(b"\\u2028"),
                '\u{2029}' => out.extend_from_slice(b"\\u2029"),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &(impl Encode + ?Sized)) -> String {
        String::from_utf8(super::super::render(value, false)).unwrap()
    }

    #[test]
    fn strings() {
        for (bytes, expected) in [
            (&b""[..], r#""""#),
            (b"plain/text", r#""plain/text""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (
                b"\n\r\t\x00\x1f\x08\x7f",
                "\"\\n\\r\\t\\u0000\\u001f\\u0008\x7f\"",
            ),
            (
                b"<a href='x'>&</a>",
                r#""\u003ca href='x'\u003e\u0026\u003c/a\u003e""#,
            ),
            ("ä€😀".as_bytes(), "\"ä€😀\""),
            ("\u{2028}x\u{2029}".as_bytes(), r#""\u2028x\u2029""#),
            (b"a\xffb", r#""a\ufffdb""#),
            // a character that was cut in the middle: one U+FFFD a byte, as the original
            (b"x\xe2\x82", r#""x\ufffd\ufffd""#),
            (b"\xed\xa0\x80", r#""\ufffd\ufffd\ufffd""#),
        ] {
            assert_eq!(text(&Text::from(bytes)), expected);
        }
    }

    #[test]
    fn numbers() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (9.9e-7, "9.9e-7"),
            (-6.265714814545531e-5, "-0.00006265714814545531"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.25e300, "1.25e+300"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(text(&number), expected);
        }
        assert_eq!(text(&u64::MAX), "18446744073709551615");
        assert_eq!(text(&i64::MIN), "-9223372036854775808");
    }

    #[test]
    fn shapes() {
        assert_eq!(text(&Base64(b"")), "null");
        assert_eq!(text(&Base64(b"hello")), r#""aGVsbG8=""#);
        assert_eq!(text(&Vec::<u64>::new()), "[]");
        assert_eq!(text(&[Some(true), None]), "[true,null]");
        assert_eq!(
            text(&Uuid::from_u128(0xab)),
            r#""00000000-0000-0000-0000-0000000000ab""#
        );
        let map = BTreeMap::from([(Text::from("b<"), 2u64), (Text::from("a"), 1)]);
        assert_eq!(text(&map), r#"{"a":1,"b\u003c":2}"#);
        let mut out = Vec::new();
        object(&mut out, |o| {
            o.field("A", &1u64).object("B", |o| {
                o.field("C", "x");
            });
        });
        assert_eq!(out, br#"{"A":1,"B":{"C":"x"}}"#);
    }
}

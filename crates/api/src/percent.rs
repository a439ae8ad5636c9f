//! Percent-encoding of paths and query strings.

use std::borrow::Cow;

use memchr::memchr2;

/// The part of a URL that is decoded or encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A plus is a plus.
    Path,
    /// A plus is a space.
    Query,
}

/// Decodes once; `None` if a `%` is not followed by two hexadecimal digits.
pub(crate) fn decode(bytes: &[u8], part: Part) -> Option<Cow<'_, [u8]>> {
    let space = if part == Part::Query { b'+' } else { b'%' };
    let Some(first) = memchr2(b'%', space, bytes) else {
        return Some(Cow::Borrowed(bytes));
    };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (high, low) = (hex(*rest.first()?)?, hex(*rest.get(1)?)?);
                out.push(high << 4 | low);
                rest = &rest[2..];
            }
            b'+' if part == Part::Query => out.push(b' '),
            other => out.push(*other),
        }
    }
    Some(Cow::Owned(out))
}

/// Appends the bytes as they may stand in that part of a URL.
pub(crate) fn encode(bytes: &[u8], part: Part, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte));
            }
            b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' if part == Part::Path => {
                out.push(char::from(*byte));
            }
            b' ' if part == Part::Query => out.push('+'),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once() {
        for (given, part, expected) in [
            (&b"a/b"[..], Part::Path, Some(&b"a/b"[..])),
            (b"a%2Fb+c", Part::Path, Some(b"a/b+c")),
            (b"a+b%2B", Part::Query, Some(b"a b+")),
            (b"%25%32%66", Part::Path, Some(b"%2f")),
            (b"%ff", Part::Path, Some(b"\xff")),
            (b"%", Part::Path, None),
            (b"%g0", Part::Query, None),
            (b"x%2", Part::Query, None),
        ] {
            assert_eq!(
                decode(given, part).as_deref(),
                expected,
                "{}",
                given.escape_ascii()
            );
        }
    }

    #[test]
    fn encodes() {
        let mut out = String::new();
        encode(b"/a b<\xff&=", Part::Path, &mut out);
        assert_eq!(out, "/a%20b%3C%FF&=");
        out.clear();
        encode(b"/a b&=", Part::Query, &mut out);
        assert_eq!(out, "%2Fa+b%26%3D");
    }
}

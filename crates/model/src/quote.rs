//! How Go quotes strings in messages: clients match on them.

use std::fmt::Write as _;

/// In double quotes, with everything escaped that does not print.
pub fn go_quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_char(&mut out, c);
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, 'x', u32::from(*byte), 2);
        }
    }
    out.push('"');
    out
}

fn push_char(out: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        _ => "",
    };
    let code = u32::from(c);
    if !short.is_empty() {
        out.push_str(short);
    } else if code < 0x20 || code == 0x7f {
        push_hex(out, 'x', code, 2);
    } else if c == ' ' || !(c.is_control() || c.is_whitespace()) {
        out.push(c);
    } else if code < 0x1_0000 {
        push_hex(out, 'u', code, 4);
    } else {
        push_hex(out, 'U', code, 8);
    }
}

fn push_hex(out: &mut String, kind: char, code: u32, width: usize) {
    write!(out, "\\{kind}{code:0width$x}").expect("a string takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::go_quoted;

    #[test]
    fn as_go_does() {
        for (given, expected) in [
            (&b""[..], r#""""#),
            (b"a/b", r#""a/b""#),
            (b"a\"b\\", r#""a\"b\\""#),
            (b"\n\x00\x7f", r#""\n\x00\x7f""#),
            (b"\xffx", r#""\xffx""#),
            ("ä\u{a0}".as_bytes(), r#""ä\u00a0""#),
        ] {
            assert_eq!(go_quoted(given), expected);
        }
    }
}

//! JSON for people: `?pretty`.

const INDENT: &[u8] = b"    ";

/// Compact JSON of ours, indented by four spaces a level, with a line end behind it.
pub(crate) fn indent(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let mut depth = 0;
    let mut bytes = compact.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                out.push(byte);
                while let Some(byte) = bytes.next() {
                    out.push(byte);
                    match byte {
                        b'\\' => out.extend(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'{' | b'[' => {
                out.push(byte);
                // An empty one stays on its line.
                if let Some(close) = bytes.next_if(|next| matches!(next, b'}' | b']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(depth, &mut out);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(depth, &mut out);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(depth, &mut out);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out.push(b'\n');
    out
}

fn new_line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    for _ in 0..depth {
        out.extend_from_slice(INDENT);
    }
}

#[cfg(test)]
mod tests {
    use super::indent;

    #[test]
    fn indents() {
        for (compact, expected) in [
            ("true", "true\n"),
            ("[]", "[]\n"),
            (r#"{"a":{}}"#, "{\n    \"a\": {}\n}\n"),
            (
                r#"[{"a":"x,{\"}","b":[1,2]}]"#,
                "[\n    {\n        \"a\": \"x,{\\\"}\",\n        \"b\": [\n            1,\n            2\n        ]\n    }\n]\n",
            ),
        ] {
            assert_eq!(
                String::from_utf8(indent(compact.as_bytes())).unwrap(),
                expected
            );
        }
    }
}

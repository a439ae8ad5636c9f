//! A second reader of the state of a snapshot, written without a look at the first: values as JSON, and where the dialect is left, a panic.

use serde_json::{Map, Value, json};

/// One record.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    pub(crate) kind: u8,
    pub(crate) bytes: Vec<u8>,
    pub(crate) object: Value,
}

impl PartialEq for Decoded {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.object) == (other.kind, &other.object)
    }
}

/// The header and the records.
pub(crate) fn decode_state(state: &[u8]) -> (Value, Vec<Decoded>) {
    let mut rest = state;
    let header = value(&mut rest);
    let mut records = Vec::new();
    while let [kind, object @ ..] = rest {
        rest = object;
        let decoded = value(&mut rest);
        records.push(Decoded {
            kind: *kind,
            bytes: object[..object.len() - rest.len()].to_vec(),
            object: decoded,
        });
    }
    (header, records)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn number(rest: &mut &[u8], len: usize) -> u64 {
    take(rest, len)
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

fn length(rest: &mut &[u8], len: usize) -> usize {
    usize::try_from(number(rest, len)).unwrap()
}

fn value(rest: &mut &[u8]) -> Value {
    let marker = take(rest, 1)[0];
    match marker {
        0x00..=0x7f => json!(marker),
        0x80..=0x8f => map(rest, usize::from(marker & 15)),
        0x90..=0x9f => array(rest, usize::from(marker & 15)),
        0xa0..=0xbf => raw(rest, usize::from(marker & 31)),
        0xc0 => Value::Null,
        0xc2 => json!(false),
        0xc3 => json!(true),
        0xcb => json!(f64::from_bits(number(rest, 8))),
        0xcc => json!(number(rest, 1)),
        0xcd => json!(number(rest, 2)),
        0xce => json!(number(rest, 4)),
        0xcf => json!(number(rest, 8)),
        0xd0 => json!(take(rest, 1)[0].cast_signed()),
        0xda => {
            let len = length(rest, 2);
            raw(rest, len)
        }
        0xdb => {
            let len = length(rest, 4);
            raw(rest, len)
        }
        0xdc => {
            let len = length(rest, 2);
            array(rest, len)
        }
        0xde => {
            let len = length(rest, 2);
            map(rest, len)
        }
        0xe0..=0xff => json!(marker.cast_signed()),
        _ => panic!("marker {marker:#x} is not of the old dialect"),
    }
}

fn raw(rest: &mut &[u8], len: usize) -> Value {
    let bytes = take(rest, len);
    match str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"$base64": base64(bytes)}),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte));
        for place in 0..4 {
            if place <= group.len() {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

fn array(rest: &mut &[u8], len: usize) -> Value {
    (0..len).map(|_| value(rest)).collect()
}

fn map(rest: &mut &[u8], len: usize) -> Value {
    let mut map = Map::new();
    for _ in 0..len {
        let Value::String(key) = value(rest) else {
            panic!("a key that is no text");
        };
        map.insert(key, value(rest));
    }
    Value::Object(map)
}

/// Writes a value in forms that the original takes too, longer than its own where there is a choice.
pub(crate) fn encode(out: &mut Vec<u8>, value: &Value) {
    let len = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(0xc2 + u8::from(*value)),
        Value::Number(number) => {
            if let Some(number) = number.as_i64() {
                out.push(0xd3);
                out.extend(number.to_be_bytes());
            } else if let Some(number) = number.as_u64() {
                out.push(0xcf);
                out.extend(number.to_be_bytes());
            } else {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
        }
        Value::String(text) => {
            // The family of one length byte, which the original doesn't write but reads.
            if let Ok(len) = u8::try_from(text.len()) {
                out.extend([0xd9, len]);
            } else {
                out.push(0xdb);
                out.extend(len(text.len()));
            }
            out.extend(text.as_bytes());
        }
        Value::Array(items) => {
            out.push(0xdd);
            out.extend(len(items.len()));
            items.iter().for_each(|item| encode(out, item));
        }
        Value::Object(pairs) => {
            out.push(0xdf);
            out.extend(len(pairs.len()));
            for (key, value) in pairs {
                encode(out, &json!(key));
                encode(out, value);
            }
        }
    }
}

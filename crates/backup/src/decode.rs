//! A snapshot as lines of JSON: first what it says of itself, then a line for each record, for people and for other programs.
//!
//! Records are shown as they are written, fields of later releases and records that nobody here knows included.

use std::io::{self, Read, Write};

use serde_json::{Map, Value, json};
use store::archive::{Kind, TypeName};
use wire::msgpack::{Decoder, Problem, RecordReader, Shape};

use crate::items::Unreadable;
use crate::pipe::{PieceReader, unpack};

/// Why a snapshot isn't shown to its end.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Nobody takes the lines.
    #[error("writing what was decoded: {0}")]
    Write(#[from] io::Error),
}

/// How deep records may be nested; those of the original are four deep.
const DEPTH_MAX: usize = 32;

/// Writes a line of JSON for each record of an archive: `{"Data":{…},"Type":"KVS"}`.
///
/// That the archive is sound is known only when this returns without an error.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(input: impl Read, output: impl Write + Send) -> Result<(), DecodeError> {
    let (contents, decoded) = unpack(input, |state| decode_records(state, output));
    let contents = contents.map(drop).map_err(Unreadable::from);
    match decoded {
        // Who isn't listened to has nothing to say about the file.
        Err(DecodeError::Write(why)) => Err(DecodeError::Write(why)),
        decoded => {
            contents?;
            decoded
        }
    }
}

fn decode_records(state: &mut PieceReader, mut output: impl Write) -> Result<(), DecodeError> {
    let refused = |why: &dyn ToString| Unreadable::State(why.to_string());
    let mut reader = RecordReader::open(state).map_err(|why| refused(&why))?;
    while let Some(record) = reader.next_record().map_err(|why| refused(&why))? {
        let is_key = record.kind == Kind::Kvs.byte();
        let data = value(&mut Decoder::new(record.bytes), is_key, DEPTH_MAX)
            .map_err(|why| refused(&why))?;
        let line = json!({"Data": data, "Type": TypeName(record.kind).to_string()});
        serde_json::to_writer(&mut output, &line).map_err(io::Error::from)?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(())
}

/// The value that comes next. The value of a key is bytes, which old snapshots don't tell from text.
fn value(input: &mut Decoder<'_>, is_key: bool, depth: usize) -> Result<Value, String> {
    let wrong = |why: wire::msgpack::DecodeError| why.to_string();
    let Some(first) = input.peek() else {
        return Err(Problem::Eof.to_string());
    };
    Ok(match first {
        0xc0 => {
            input.nil();
            Value::Null
        }
        0xc2 | 0xc3 => Value::Bool(input.bool().map_err(wrong)?),
        0xca | 0xcb => json!(input.f64().map_err(wrong)?),
        0xa0..=0xbf | 0xd9..=0xdb => text(input.raw().map_err(wrong)?),
        0xc4..=0xc6 => base64(input.bytes().map_err(wrong)?),
        0xd0..=0xd3 | 0xe0..=0xff => json!(input.int().map_err(wrong)?),
        0x00..=0x7f | 0xcc..=0xcf => json!(input.uint().map_err(wrong)?),
        0x80..=0x9f | 0xdc..=0xdf => {
            let deeper = (depth.checked_sub(1)).ok_or("a record is nested too deep to be shown")?;
            match input.shape().map_err(wrong)? {
                None => Value::Null,
                Some(Shape::Map(count)) => {
                    let mut fields = Map::new();
                    for _ in 0..count {
                        let name = lossy(input.raw().map_err(wrong)?);
                        let is_bytes = is_key && depth == DEPTH_MAX && name == "Value";
                        let is_raw = matches!(input.peek(), Some(0xa0..=0xbf | 0xd9..=0xdb));
                        let value = if is_bytes && is_raw {
                            base64(input.raw().map_err(wrong)?)
                        } else {
                            value(input, is_key, deeper)?
                        };
                        fields.insert(name, value);
                    }
                    Value::Object(fields)
                }
                Some(Shape::Array(count)) => {
                    let mut values = Vec::new();
                    for _ in 0..count {
                        values.push(value(input, is_key, deeper)?);
                    }
                    Value::Array(values)
                }
            }
        }
        // Of the types that everybody may make up for himself nothing is known but where they end.
        0xc1 | 0xc7..=0xc9 | 0xd4..=0xd8 => {
            input.skip().map_err(wrong)?;
            Value::Null
        }
    })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(bytes: &[u8]) -> Value {
    Value::String(lossy(bytes))
}

fn base64(bytes: &[u8]) -> Value {
    Value::String(base64_simd::STANDARD.encode_to_string(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::sound;

    #[test]
    fn a_line_for_each_record() {
        for (name, bytes) in sound() {
            let report = crate::inspect(&bytes[..], &crate::Options::default()).unwrap();
            let mut lines = Vec::new();
            decode(&bytes[..], &mut lines).unwrap();
            let lines = String::from_utf8(lines).unwrap();
            let count: u64 = report
                .types
                .iter()
                .chain(&report.skipped)
                .map(|it| it.count)
                .sum();
            assert_eq!(lines.lines().count() as u64, count, "{name}");
            for line in lines.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                assert!(
                    (line["Data"].is_object() || line["Data"].is_array())
                        && line["Type"].is_string(),
                    "{name}: {line}"
                );
            }
            let cut = decode(&bytes[..bytes.len() - 1], io::sink());
            assert!(matches!(cut, Err(DecodeError::Unreadable(_))), "{name}");
        }
    }

    #[test]
    fn values_as_json() {
        for (bytes, expected) in [
            (&b"\x81\xa5Value\xa1x"[..], json!({"Value": "eA=="})),
            (b"\x82\xa1a\xa1x\xa1b\xc0", json!({"a": "x", "b": null})),
            (b"\x81\xa1a\x81\xa5Value\xa1x", json!({"a": {"Value": "x"}})),
            (
                b"\x93\x01\xff\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
                json!([1, -1, u64::MAX]),
            ),
            (b"\x92\xcb\x3f\xf8\0\0\0\0\0\0\xc3", json!([1.5, true])),
            (b"\x92\xc4\x01x\xd4\x01x", json!(["eA==", null])),
        ] {
            let found = value(&mut Decoder::new(bytes), true, DEPTH_MAX);
            assert_eq!(found.as_ref(), Ok(&expected), "{bytes:x?}");
        }
        let deep = [0x91; 1000];
        assert!(value(&mut Decoder::new(&deep), true, DEPTH_MAX).is_err());
        for cut in [
            &b""[..],
            b"\x81",
            b"\x81\xa1a",
            b"\xa5a",
            b"\xdf\xff\xff\xff\xff",
        ] {
            assert!(value(&mut Decoder::new(cut), true, DEPTH_MAX).is_err());
        }
    }
}

use std::fs;
use std::io::{self, Read};

use proptest::prelude::*;

use super::*;
use crate::archive;

/// Any value, for round trips. Maps keep their order.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    F64(f64),
    Raw(Vec<u8>),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Value {
    fn encode(&self, to: &mut Encoder<'_>) {
        match self {
            Self::Nil => to.nil(),
            Self::Bool(value) => to.bool(*value),
            Self::Int(value) => to.int(*value),
            Self::Uint(value) => to.uint(*value),
            Self::F64(value) => to.f64(*value),
            Self::Raw(value) => to.raw(value),
            Self::Array(values) => {
                to.array_len(values.len());
                values.iter().for_each(|value| value.encode(to));
                to
            }
            Self::Map(pairs) => {
                to.map_len(pairs.len());
                for (key, value) in pairs {
                    key.encode(to);
                    value.encode(to);
                }
                to
            }
        };
    }

    /// Reads by the first byte; meant for bytes that an [`Encoder`] could have made.
    fn decode(from: &mut Decoder<'_>, marker: u8) -> Result<Self, DecodeError> {
        Ok(match marker {
            0xc0 => {
                from.skip()?;
                Self::Nil
            }
            0xc2 | 0xc3 => Self::Bool(from.bool()?),
            0xcb => Self::F64(from.f64()?),
            0xd0..=0xd3 | 0xe0..=0xff => Self::Int(from.int()?),
            0x00..=0x7f | 0xcc..=0xcf => Self::Uint(from.uint()?),
            0x80..=0x8f | 0xde | 0xdf => {
                let len = from.map()?.unwrap();
                Self::Map(
                    (0..len)
                        .map(|_| Ok((Self::next(from)?, Self::next(from)?)))
                        .collect::<Result<_, _>>()?,
                )
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                let len = from.array()?.unwrap();
                Self::Array(
                    (0..len)
                        .map(|_| Self::next(from))
                        .collect::<Result<_, _>>()?,
                )
            }
            _ => Self::Raw(from.raw()?.to_vec()),
        })
    }

    fn next(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let marker = from.peek().unwrap();
        Self::decode(from, marker)
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut Encoder::new(&mut bytes));
    bytes
}

fn raw(len: usize) -> Value {
    Value::Raw(vec![b'x'; len])
}

/// The start of the bytes, and how many there are.
#[test]
fn every_value_has_one_form() {
    use Value::*;
    let nils = |len| vec![Nil; len];
    let pairs = |len| vec![(Nil, Nil); len];
    let table: &[(Value, &[u8], usize)] = &[
        (Nil, b"\xc0", 1),
        (Bool(false), b"\xc2", 1),
        (Bool(true), b"\xc3", 1),
        (Uint(0), b"\x00", 1),
        (Uint(127), b"\x7f", 1),
        (Uint(128), b"\xcc\x80", 2),
        (Uint(255), b"\xcc\xff", 2),
        (Uint(256), b"\xcd\x01\x00", 3),
        (Uint(65_535), b"\xcd\xff\xff", 3),
        (Uint(65_536), b"\xce\x00\x01\x00\x00", 5),
        (Uint(u64::from(u32::MAX)), b"\xce\xff\xff\xff\xff", 5),
        (Uint(1 << 32), b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", 9),
        (Uint(u64::MAX), b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9),
        (Int(0), b"\x00", 1),
        (Int(200), b"\xcc\xc8", 2),
        (
            Int(15_000_000_000),
            b"\xcf\x00\x00\x00\x03\x7e\x11\xd6\x00",
            9,
        ),
        (Int(i64::MAX), b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", 9),
        (Int(-1), b"\xff", 1),
        (Int(-32), b"\xe0", 1),
        (Int(-33), b"\xd0\xdf", 2),
        (Int(-128), b"\xd0\x80", 2),
        (Int(-129), b"\xd1\xff\x7f", 3),
        (Int(-32_768), b"\xd1\x80\x00", 3),
        (Int(-32_769), b"\xd2\xff\xff\x7f\xff", 5),
        (Int(i64::from(i32::MIN)), b"\xd2\x80\x00\x00\x00", 5),
        (
            Int(i64::from(i32::MIN) - 1),
            b"\xd3\xff\xff\xff\xff\x7f\xff\xff\xff",
            9,
        ),
        (Int(i64::MIN), b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9),
        (F64(1.5), b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00", 9),
        (F64(0.0), b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00", 9),
        (raw(0), b"\xa0", 1),
        (raw(31), b"\xbfx", 32),
        (raw(32), b"\xda\x00\x20x", 35),
        (raw(36), b"\xda\x00\x24x", 39),
        (raw(255), b"\xda\x00\xffx", 258),
        (raw(256), b"\xda\x01\x00x", 259),
        (raw(65_535), b"\xda\xff\xffx", 65_538),
        (raw(65_536), b"\xdb\x00\x01\x00\x00x", 65_541),
        (Array(nils(0)), b"\x90", 1),
        (Array(nils(15)), b"\x9f\xc0", 16),
        (Array(nils(16)), b"\xdc\x00\x10\xc0", 19),
        (Array(nils(65_535)), b"\xdc\xff\xff\xc0", 65_538),
        (Array(nils(65_536)), b"\xdd\x00\x01\x00\x00\xc0", 65_541),
        (Map(pairs(0)), b"\x80", 1),
        (Map(pairs(15)), b"\x8f\xc0\xc0", 31),
        (Map(pairs(16)), b"\xde\x00\x10\xc0", 35),
        (Map(pairs(65_536)), b"\xdf\x00\x01\x00\x00\xc0", 131_077),
    ];
    for (value, start, size) in table {
        let bytes = encoded(value);
        let shown = &bytes[..bytes.len().min(12)];
        assert!(
            bytes.starts_with(start),
            "{shown:02x?} instead of {start:02x?}"
        );
        assert_eq!(bytes.len(), *size, "of {shown:02x?}");
        let mut decoder = Decoder::new(&bytes);
        let back = Value::next(&mut decoder).unwrap();
        decoder.finish().unwrap();
        match (value, &back) {
            (Int(value), Uint(back)) => assert_eq!(u64::try_from(*value), Ok(*back)),
            _ => assert!(back == *value, "of {shown:02x?}"),
        }
        let mut decoder = Decoder::new(&bytes);
        decoder.skip().unwrap();
        decoder.finish().unwrap();
    }
}

/// What each reader makes of bytes, as text: the value, or the error.
fn read_as(kind: &str, bytes: &[u8]) -> String {
    let mut decoder = Decoder::new(bytes);
    let result = match kind {
        "uint" => decoder.uint().map(|value| value.to_string()),
        "int" => decoder.int().map(|value| value.to_string()),
        "f64" => decoder.f64().map(|value| value.to_string()),
        "bool" => decoder.bool().map(|value| value.to_string()),
        "raw" => decoder
            .raw()
            .map(|value| format!("{:?}", value.escape_ascii().to_string())),
        "bytes" => decoder
            .bytes()
            .map(|value| format!("{:?}", value.escape_ascii().to_string())),
        "map" => decoder.map().map(|value| format!("{value:?}")),
        "array" => decoder.array().map(|value| format!("{value:?}")),
        "shape" => decoder.shape().map(|value| format!("{value:?}")),
        "skip" => decoder.skip().map(|()| decoder.position().to_string()),
        _ => panic!("no reader {kind}"),
    };
    result.unwrap_or_else(|error| error.to_string())
}

#[test]
fn reading_is_lenient_in_form_and_strict_in_kind() {
    let table: &[(&str, &[u8], &str)] = &[
        // longer and signed forms of the same number
        ("uint", b"\xcf\0\0\0\0\0\0\0\x07", "7"),
        ("uint", b"\xce\0\0\0\x07", "7"),
        ("uint", b"\xcd\0\x07", "7"),
        ("uint", b"\xcc\x07", "7"),
        ("uint", b"\xd0\x07", "7"),
        ("uint", b"\xd1\0\x07", "7"),
        ("uint", b"\xd2\0\0\0\x07", "7"),
        ("uint", b"\xd3\0\0\0\0\0\0\0\x07", "7"),
        ("uint", b"\xc0", "0"),
        (
            "int",
            b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
            "9223372036854775807",
        ),
        ("int", b"\xd3\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
        ("int", b"\xff", "-1"),
        ("int", b"\xc0", "0"),
        ("f64", b"\xca\x3f\xc0\0\0", "1.5"),
        ("f64", b"\xcb\x3f\xf8\0\0\0\0\0\0", "1.5"),
        ("f64", b"\x07", "7"),
        ("f64", b"\xd0\x80", "-128"),
        ("f64", b"\xc0", "0"),
        ("bool", b"\xc3", "true"),
        ("bool", b"\xc2", "false"),
        ("bool", b"\xc0", "false"),
        ("raw", b"\xa1x", r#""x""#),
        ("raw", b"\xd9\x01x", r#""x""#),
        ("raw", b"\xda\0\x01x", r#""x""#),
        ("raw", b"\xdb\0\0\0\x01x", r#""x""#),
        ("raw", b"\xc0", r#""""#),
        ("raw", b"\xa1\xff", r#""\\xff""#),
        ("bytes", b"\xa1x", r#""x""#),
        ("bytes", b"\xd9\x01x", r#""x""#),
        ("bytes", b"\xc4\x01x", r#""x""#),
        ("bytes", b"\xc5\0\x01x", r#""x""#),
        ("bytes", b"\xc6\0\0\0\x01x", r#""x""#),
        ("bytes", b"\xc0", r#""""#),
        ("map", b"\x82", "Some(2)"),
        ("map", b"\xde\x01\0", "Some(256)"),
        ("map", b"\xdf\xff\xff\xff\xff", "Some(4294967295)"),
        ("map", b"\xc0", "None"),
        ("array", b"\x92", "Some(2)"),
        ("array", b"\xdc\x01\0", "Some(256)"),
        ("array", b"\xdd\xff\xff\xff\xff", "Some(4294967295)"),
        ("array", b"\xc0", "None"),
        ("shape", b"\x82", "Some(Map(2))"),
        ("shape", b"\x92", "Some(Array(2))"),
        ("shape", b"\xc0", "None"),
        // other kinds
        (
            "uint",
            b"\xff",
            "expected an unsigned integer, found -1 at byte 0",
        ),
        (
            "uint",
            b"\xd3\x80\0\0\0\0\0\0\0",
            "expected an unsigned integer, found -9223372036854775808 at byte 0",
        ),
        (
            "int",
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            "expected a signed integer of 64 bits, found 18446744073709551615 at byte 0",
        ),
        (
            "uint",
            b"\xcb\x3f\xf8\0\0\0\0\0\0",
            "expected an unsigned integer, found a float (0xcb) at byte 0",
        ),
        (
            "int",
            b"\xca\x3f\xc0\0\0",
            "expected an integer, found a float (0xca) at byte 0",
        ),
        (
            "uint",
            b"\xa1x",
            "expected an unsigned integer, found a string (0xa1) at byte 0",
        ),
        (
            "f64",
            b"\xa1x",
            "expected a number, found a string (0xa1) at byte 0",
        ),
        (
            "bool",
            b"\x01",
            "expected a bool, found an integer (0x01) at byte 0",
        ),
        (
            "raw",
            b"\xc4\x01x",
            "expected a string, found binary bytes (0xc4) at byte 0",
        ),
        (
            "raw",
            b"\x91\x07",
            "expected a string, found an array (0x91) at byte 0",
        ),
        (
            "bytes",
            b"\x91\x07",
            "expected bytes, found an array (0x91) at byte 0",
        ),
        (
            "map",
            b"\x91\x07",
            "expected a map, found an array (0x91) at byte 0",
        ),
        (
            "array",
            b"\x81\x07\x07",
            "expected an array, found a map (0x81) at byte 0",
        ),
        (
            "shape",
            b"\xa1x",
            "expected a map, found a string (0xa1) at byte 0",
        ),
        (
            "shape",
            b"\xd4\0\0",
            "expected a map, found an extension (0xd4) at byte 0",
        ),
        (
            "skip",
            b"\xc1",
            "expected a value, found an unassigned marker (0xc1) at byte 0",
        ),
        (
            "skip",
            b"\x92\x07\xc1",
            "expected a value, found an unassigned marker (0xc1) at byte 2",
        ),
        // ends
        ("uint", b"", "unexpected EOF at byte 0"),
        ("uint", b"\xcf\0\0\0", "unexpected EOF at byte 0"),
        ("f64", b"\xcb\0", "unexpected EOF at byte 0"),
        ("f64", b"", "unexpected EOF at byte 0"),
        ("bool", b"", "unexpected EOF at byte 0"),
        ("raw", b"\xdb\xff\xff\xff\xffx", "unexpected EOF at byte 0"),
        ("raw", b"\xda\0", "unexpected EOF at byte 0"),
        ("map", b"\xde\0", "unexpected EOF at byte 0"),
        ("skip", b"\x92\xa1", "unexpected EOF at byte 1"),
        ("skip", b"\xdf\xff\xff\xff\xff", "unexpected EOF at byte 5"),
        // everything can be passed over
        ("skip", b"\xc7\x02\x05xy", "5"),
        ("skip", b"\xc8\0\x02\x05xy", "6"),
        ("skip", b"\xc9\0\0\0\x02\x05xy", "8"),
        ("skip", b"\xd4\x05x", "3"),
        ("skip", b"\xd5\x05xx", "4"),
        ("skip", b"\xd6\x05xxxx", "6"),
        ("skip", b"\xd7\x05xxxxxxxx", "10"),
        ("skip", b"\xd8\x05xxxxxxxxxxxxxxxx", "18"),
        ("skip", b"\x82\xa1k\x91\xc0\x01\xca\0\0\0\0", "11"),
    ];
    for (kind, bytes, expected) in table {
        assert_eq!(read_as(kind, bytes), *expected, "{kind} of {bytes:02x?}");
    }
}

#[test]
fn depth_costs_nothing() {
    let mut bytes = vec![0x91; 1 << 20];
    bytes.push(0xc0);
    let mut decoder = Decoder::new(&bytes);
    decoder.skip().unwrap();
    decoder.finish().unwrap();
}

#[test]
fn an_error_in_the_middle_takes_nothing() {
    let mut decoder = Decoder::new(b"\xa1x\x07");
    assert!(decoder.uint().is_err());
    assert!(decoder.map().is_err());
    assert_eq!(decoder.raw(), Ok(&b"x"[..]));
    assert!(!decoder.nil());
    assert_eq!(
        decoder.clone().finish().unwrap_err().to_string(),
        "unexpected bytes after the value at byte 2"
    );
    assert_eq!(decoder.uint(), Ok(7));
    assert!(decoder.is_empty());
}

#[test]
fn a_struct_is_a_map_or_an_array() {
    const NAMES: [&str; 3] = ["Key", "Flags", "Value"];
    let read = |bytes: &[u8]| {
        let mut row = (Vec::new(), 0, Vec::new());
        let mut decoder = Decoder::new(bytes);
        let there = decoder.fields(&NAMES, |value, field| {
            match field {
                0 => row.0 = value.raw()?.to_vec(),
                1 => row.1 = value.uint()?,
                _ => row.2 = value.bytes()?.to_vec(),
            }
            Ok::<_, DecodeError>(())
        })?;
        decoder.finish()?;
        Ok::<_, DecodeError>(there.then_some(row))
    };
    let whole = Some((b"k".to_vec(), 7, b"v".to_vec()));
    let table: &[(&[u8], _)] = &[
        (
            b"\x83\xa3Key\xa1k\xa5Flags\x07\xa5Value\xa1v",
            Ok(whole.clone()),
        ),
        (
            b"\x83\xa5Value\xa1v\xa5Flags\x07\xa3Key\xa1k",
            Ok(whole.clone()),
        ),
        (
            b"\x84\xa3Key\xa1k\xa3New\x92\x01\x02\xa5Flags\x07\xa5Value\xc4\x01v",
            Ok(whole.clone()),
        ),
        (b"\x93\xa1k\x07\xa1v", Ok(whole.clone())),
        (b"\x95\xa1k\x07\xa1v\x80\xc0", Ok(whole.clone())),
        (b"\x91\xa1k", Ok(Some((b"k".to_vec(), 0, Vec::new())))),
        (b"\x81\xa5Flags\xc0", Ok(Some((Vec::new(), 0, Vec::new())))),
        (b"\x80", Ok(Some((Vec::new(), 0, Vec::new())))),
        (b"\xc0", Ok(None)),
        (
            b"\x81\xa5Flags\xa1x",
            Err("expected an unsigned integer, found a string (0xa1) at byte 7"),
        ),
        (
            b"\x81\x01\x02",
            Err("expected a string, found an integer (0x01) at byte 1"),
        ),
        (b"\xdf\xff\xff\xff\xff", Err("unexpected EOF at byte 5")),
        (b"\xdd\xff\xff\xff\xff", Err("unexpected EOF at byte 5")),
        (
            b"\x01",
            Err("expected a map, found an integer (0x01) at byte 0"),
        ),
    ];
    for (bytes, expected) in table {
        let read = read(bytes).map_err(|error| error.to_string());
        assert_eq!(
            read.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|text| *text)
        );
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        (i64::MIN..0).prop_map(Value::Int),
        (-70_000_i64..0).prop_map(Value::Int),
        any::<u64>().prop_map(Value::Uint),
        (0..70_000_u64).prop_map(Value::Uint),
        proptest::num::f64::NORMAL.prop_map(Value::F64),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::Raw),
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
            proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
        ]
    })
}

/// Gives as many bytes at a time as a list says, over and over.
#[derive(Debug)]
struct Dribble<'a> {
    bytes: &'a [u8],
    steps: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl<'a> Dribble<'a> {
    fn new(bytes: &'a [u8], steps: Vec<usize>) -> Self {
        Self {
            bytes,
            steps: steps.into_iter().cycle(),
        }
    }
}

impl Read for Dribble<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let step = self.steps.next().unwrap().min(into.len());
        if step == 0 && !into.is_empty() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.bytes.read(&mut into[..step])
    }
}

type Owned = (u8, Vec<u8>, u64, u64);

fn records(input: impl Read) -> Result<(Vec<u8>, Vec<Owned>), RecordError> {
    let mut reader = RecordReader::open(input)?;
    let mut records = Vec::new();
    while let Some(Record {
        kind,
        bytes,
        offset,
        number,
    }) = reader.next_record()?
    {
        records.push((kind, bytes.to_vec(), offset, number));
    }
    Ok((reader.header().to_vec(), records))
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(value in value()) {
        let bytes = encoded(&value);
        let mut decoder = Decoder::new(&bytes);
        prop_assert_eq!(Value::next(&mut decoder), Ok(value));
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn a_cut_value_is_an_error(value in value()) {
        let bytes = encoded(&value);
        for length in 0..bytes.len() {
            prop_assert!(Decoder::new(&bytes[..length]).skip().is_err());
        }
    }

    #[test]
    fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
        for kind in ["uint", "int", "f64", "bool", "raw", "bytes", "map", "array", "shape", "skip"] {
            read_as(kind, &bytes);
        }
        let _ = records(&bytes[..]);
    }

    #[test]
    fn records_are_cut_where_they_were_joined(
        header in value(),
        values in proptest::collection::vec((any::<u8>(), value()), 0..10),
        steps in proptest::collection::vec(0..100_usize, 1..10),
    ) {
        let mut stream = encoded(&header);
        let mut expected = Vec::new();
        for (kind, value) in &values {
            let bytes = encoded(value);
            expected.push((*kind, bytes.clone(), stream.len() as u64, expected.len() as u64 + 1));
            stream.push(*kind);
            stream.extend(bytes);
        }
        // at least one step gets somewhere
        let steps = [steps, vec![1]].concat();
        let (read_header, read) = records(Dribble::new(&stream, steps)).unwrap();
        prop_assert_eq!(read_header, encoded(&header));
        prop_assert_eq!(read, expected);
    }
}

proptest! {
    #[test]
    fn a_damaged_state_ends_in_an_answer(
        changes in proptest::collection::vec(any::<(proptest::sample::Index, u8)>(), 1..20),
    ) {
        let mut state = Vec::new();
        archive::unpack(&include_bytes!("../../../../fixtures/snapshots/empty.snap")[..], &mut state)
            .unwrap();
        for (at, byte) in changes {
            let at = at.index(state.len());
            state[at] = byte;
        }
        let Ok(mut reader) = RecordReader::open(&state[..]) else {
            return Ok(());
        };
        while let Ok(Some(record)) = reader.next_record() {
            // What the reader calls an object can be passed over, and is one of something.
            let mut decoder = Decoder::new(record.bytes);
            decoder.skip().unwrap();
            decoder.finish().unwrap();
            let _ = Decoder::new(record.bytes).fields(&["Key", "Value"], |value, _| value.bytes().map(drop));
        }
    }
}

#[test]
fn a_stream_that_stops_says_where() {
    let stream = b"\x81\xa9LastIndex\x44\x02\x81\xa3Key\xa1k\x63\x92\x01\x02";
    let (header, read) = records(&stream[..]).unwrap();
    assert_eq!(header, b"\x81\xa9LastIndex\x44");
    assert_eq!(
        read,
        [
            (2, b"\x81\xa3Key\xa1k".to_vec(), 12, 1),
            (0x63, b"\x92\x01\x02".to_vec(), 20, 2)
        ]
    );
    for length in 0..stream.len() {
        let result = records(&stream[..length]).map(|(_, records)| records.len());
        let expected = match length {
            0..12 => Err("unexpected EOF inside the header"),
            12 => Ok(0),
            13..20 => Err("unexpected EOF inside record 1 (type 2), which begins at byte 12"),
            20 => Ok(1),
            _ => Err("unexpected EOF inside record 2 (type 99), which begins at byte 20"),
        };
        assert_eq!(
            result.map_err(|error| error.to_string()),
            expected.map_err(str::to_owned)
        );
    }
    let error = records(&b"\x80\x02\x92\x01\xc1"[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unassigned marker 0xc1 inside record 1 (type 2), which begins at byte 1"
    );
}

#[test]
fn a_record_is_bounded_before_it_is_read() {
    // A source without end: whoever believed the length would never come back.
    let endless = (&b"\x80\x02\xdb\xff\xff\xff\xff"[..]).chain(io::repeat(0));
    let error = records(endless).unwrap_err();
    assert_eq!(
        error.to_string(),
        "more than 67108864 bytes in record 1 (type 2), which begins at byte 1"
    );
    // The same in small values.
    let endless = (&b"\x80\x02\xdd\xff\xff\xff\xff"[..]).chain(io::repeat(0xd9));
    assert!(matches!(records(endless), Err(RecordError::TooLong { .. })));
    // A claim alone takes no memory.
    let mut reader = RecordReader::open(&b"\x80\x02\xdb\x03\xff\xff\xf0x"[..]).unwrap();
    assert!(matches!(reader.next_record(), Err(RecordError::Eof { .. })));
    assert!(reader.buffer.capacity() <= 1 << 20);
}

#[test]
fn records_longer_than_the_buffer_come_whole() {
    let mut stream = encoded(&Value::Nil);
    let sizes = [1, 70_000, 10, 500_000, 0, 65_536];
    for size in sizes {
        stream.push(2);
        stream.extend(encoded(&raw(size)));
    }
    let (_, read) = records(&stream[..]).unwrap();
    for ((_, bytes, ..), size) in read.iter().zip(sizes) {
        assert_eq!(Decoder::new(bytes).raw().unwrap().len(), size);
    }
    assert_eq!(read.len(), sizes.len());
}

/// Names of the maps in `value` whose keys are not in order; there `path` is the key that led to them.
fn unsorted(value: &Value, path: &[u8], found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| unsorted(value, path, found)),
        Value::Map(pairs) => {
            let keys: Vec<_> = pairs
                .iter()
                .map(|(key, _)| match key {
                    Value::Raw(key) => key.as_slice(),
                    other => panic!("{other:?} as a key"),
                })
                .collect();
            if !keys.is_sorted() {
                found.push(path.escape_ascii().to_string());
            }
            for (key, (_, value)) in keys.iter().zip(pairs) {
                unsorted(value, key, found);
            }
        }
        _ => {}
    }
}

#[test]
fn real_states_come_out_as_they_went_in() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/snapshots");
    for name in [
        "empty",
        "full-0.7.1",
        "three-servers",
        "large-10k",
        "from-1.4.0",
    ] {
        let mut state = Vec::new();
        let file = fs::File::open(format!("{fixtures}/{name}.snap")).unwrap();
        archive::unpack(file, &mut state).unwrap();
        let (header, records) = records(&state[..]).unwrap();
        match fs::read_to_string(format!("{fixtures}/{name}.decoded.jsonl")) {
            // Where another decoder found the records; two lines of it are metadata and header.
            Ok(lines) => {
                let mut expected = lines.lines().skip(2);
                for (kind, bytes, offset, _) in &records {
                    let line = expected.next().unwrap();
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    let place = (line["TypeByte"].as_u64(), line["Offset"].as_u64());
                    assert_eq!(place, (Some(u64::from(*kind)), Some(*offset)), "{name}");
                    assert_eq!(line["Len"].as_u64(), Some(bytes.len() as u64), "{name}");
                }
                assert_eq!(expected.next(), None, "{name}");
            }
            Err(_) => assert_eq!(records.len(), 10_003, "{name}"),
        }
        let mut back = Vec::new();
        let mut out_of_order = Vec::new();
        for (kind, bytes) in [(None, &header)]
            .into_iter()
            .chain(records.iter().map(|record| (Some(record.0), &record.1)))
        {
            back.extend(kind);
            let mut decoder = Decoder::new(bytes);
            let value = Value::next(&mut decoder).unwrap();
            decoder.finish().unwrap();
            unsorted(&value, b"the record", &mut out_of_order);
            value.encode(&mut Encoder::new(&mut back));
        }
        assert!(back == state, "{name} changes");
        // The original sorts the fields of structs, and takes maps as they come.
        out_of_order.retain(|path| !["TaggedAddresses", "Config"].contains(&path.as_str()));
        assert_eq!(out_of_order, [""; 0], "{name}");
    }
}

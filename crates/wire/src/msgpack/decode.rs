//! Reading the old dialect, and what later releases write.

use std::fmt;

use super::Head;

/// Takes values from the front of a byte slice, one call per value.
///
/// It accepts what the original accepts, because archives are also packed by hand and by later releases:
/// any integer form that holds the number, short strings, and nil for the zero value of anything.
/// It refuses what crashes the original.
/// Nothing is allocated here, and a claimed length is only ever compared with what is there.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// How a struct was written: as its fields by name, or by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// So many pairs of name and value follow.
    Map(u32),
    /// So many values follow, in the order in which the original declares its fields.
    Array(u32),
}

/// What is wrong with the bytes, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct DecodeError {
    /// Where the value begins that could not be read, counted from the start of the decoder's bytes.
    pub offset: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// The ways in which bytes can fail to be the value that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The bytes end inside of the value, or before it.
    Eof,
    /// A value of another kind; the second is its first byte.
    Expected(&'static str, u8),
    /// An integer that the asked-for kind can't hold.
    OutOfRange(&'static str, i128),
    /// Bytes are left over after the last value.
    Trailing,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => write!(f, "unexpected EOF"),
            Self::Expected(expected, marker) => {
                write!(
                    f,
                    "expected {expected}, found {} (0x{marker:02x})",
                    kind(*marker)
                )
            }
            Self::OutOfRange(expected, value) => write!(f, "expected {expected}, found {value}"),
            Self::Trailing => write!(f, "unexpected bytes after the value"),
        }
    }
}

impl<'a> Decoder<'a> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were taken so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether every byte was taken.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The first byte of the next value, for whoever decides by its kind; `None` at the end.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Says that this was the last value; an error if bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(problem(self.at, Problem::Trailing))
        }
    }

    /// Takes a nil if it comes next and says whether it did; for whoever must tell nil from a zero value.
    pub fn nil(&mut self) -> bool {
        let nil = self.peek() == Some(0xc0);
        if nil {
            self.at += 1;
        }
        nil
    }

    /// The number of pairs of a map, whose keys and values then follow; `None` for nil.
    ///
    /// The number is a claim: don't allocate by it.
    pub fn map(&mut self) -> Result<Option<u32>, DecodeError> {
        match self.shape_of("a map")? {
            None => Ok(None),
            Some((_, Shape::Map(len))) => Ok(Some(len)),
            Some((start, Shape::Array(_))) => Err(self.unexpected(start, "a map")),
        }
    }

    /// The number of values of an array, which then follow; `None` for nil.
    ///
    /// The number is a claim: don't allocate by it.
    pub fn array(&mut self) -> Result<Option<u32>, DecodeError> {
        match self.shape_of("an array")? {
            None => Ok(None),
            Some((_, Shape::Array(len))) => Ok(Some(len)),
            Some((start, Shape::Map(_))) => Err(self.unexpected(start, "an array")),
        }
    }

    /// The start of a struct, in whichever of its two shapes it was written; `None` for nil.
    ///
    /// [`Decoder::fields`] is the loop that callers want around it.
    pub fn shape(&mut self) -> Result<Option<Shape>, DecodeError> {
        Ok(self.shape_of("a map")?.map(|(_, shape)| shape))
    }

    /// Reads a struct: calls `each` with the place in `names` of every field that is there, to take its value.
    ///
    /// `names` is in the order in which the original declares the fields, which matters where a struct was written as an array.
    /// Fields that `names` doesn't know are skipped; absent ones are never reported, so start from the zero value.
    /// Returns whether there was a struct: nil gives `false` and no calls.
    pub fn fields<E: From<DecodeError>>(
        &mut self,
        names: &[&str],
        mut each: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<bool, E> {
        match self.shape()? {
            None => return Ok(false),
            Some(Shape::Map(len)) => {
                for _ in 0..len {
                    let name = self.raw()?;
                    match names.iter().position(|known| known.as_bytes() == name) {
                        Some(field) => each(self, field)?,
                        None => self.skip()?,
                    }
                }
            }
            Some(Shape::Array(len)) => {
                for place in 0..len as usize {
                    if place < names.len() {
                        each(self, place)?;
                    } else {
                        self.skip()?;
                    }
                }
            }
        }
        Ok(true)
    }

    /// Text, or bytes in the old family; nil is empty.
    pub fn raw(&mut self) -> Result<&'a [u8], DecodeError> {
        self.blob("a string", false)
    }

    /// Bytes, where the newer binary family is fine too; nil is empty.
    ///
    /// The original takes that family for byte slices alone, which is the value of a key and nothing else.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        self.blob("bytes", true)
    }

    /// An integer that is not negative, in any form; nil is 0.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        const EXPECTED: &str = "an unsigned integer";
        let start = self.at;
        let value = self.integer(EXPECTED)?;
        u64::try_from(value).map_err(|_| problem(start, Problem::OutOfRange(EXPECTED, value)))
    }

    /// An integer in any form; nil is 0.
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        const EXPECTED: &str = "a signed integer of 64 bits";
        let start = self.at;
        let value = self.integer("an integer")?;
        i64::try_from(value).map_err(|_| problem(start, Problem::OutOfRange(EXPECTED, value)))
    }

    /// A number: double, single or any integer; nil is 0.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        match self.bytes.get(self.at) {
            Some(0xca) => Ok(f64::from(f32::from_be_bytes(self.fixed()?))),
            Some(0xcb) => Ok(f64::from_be_bytes(self.fixed()?)),
            // A float has no exact form for every integer of 64 bits; the original rounds as well.
            Some(_) | None => Ok(self.integer("a number")? as f64),
        }
    }

    /// A truth value; nil is false.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        let start = self.at;
        let value = match self.bytes.get(start) {
            None => return Err(problem(start, Problem::Eof)),
            Some(0xc0 | 0xc2) => false,
            Some(0xc3) => true,
            Some(_) => return Err(self.unexpected(start, "a bool")),
        };
        self.at += 1;
        Ok(value)
    }

    /// Passes over one value of any kind, however deeply nested: it counts what is still to come instead of calling itself.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        let mut pending = 1_u64;
        while pending > 0 {
            let (start, head) = self.head("a value")?;
            self.at = start + head.size;
            self.take(start, head.payload)?;
            pending = (pending - 1).saturating_add(head.children);
        }
        Ok(())
    }

    fn shape_of(&mut self, expected: &'static str) -> Result<Option<(usize, Shape)>, DecodeError> {
        if self.nil() {
            return Ok(None);
        }
        let (start, head) = self.head(expected)?;
        // `head` counts children of a map twice; both numbers came from 32 bits.
        let shape = match self.bytes[start] {
            0x80..=0x8f | 0xde | 0xdf => Shape::Map(narrow(head.children / 2)),
            0x90..=0x9f | 0xdc | 0xdd => Shape::Array(narrow(head.children)),
            _ => return Err(self.unexpected(start, expected)),
        };
        self.at = start + head.size;
        Ok(Some((start, shape)))
    }

    fn blob(&mut self, expected: &'static str, binary: bool) -> Result<&'a [u8], DecodeError> {
        if self.nil() {
            return Ok(&[]);
        }
        let (start, head) = self.head(expected)?;
        match self.bytes[start] {
            0xa0..=0xbf | 0xd9..=0xdb => {}
            0xc4..=0xc6 if binary => {}
            _ => return Err(self.unexpected(start, expected)),
        }
        self.at = start + head.size;
        self.take(start, head.payload)
    }

    fn integer(&mut self, expected: &'static str) -> Result<i128, DecodeError> {
        let start = self.at;
        let marker = *self.bytes.get(start).ok_or(problem(start, Problem::Eof))?;
        let small = match marker {
            0x00..=0x7f => i128::from(marker),
            0xe0..=0xff => i128::from(i8::from_be_bytes([marker])),
            0xc0 => 0,
            0xcc => return Ok(i128::from(u8::from_be_bytes(self.fixed()?))),
            0xcd => return Ok(i128::from(u16::from_be_bytes(self.fixed()?))),
            0xce => return Ok(i128::from(u32::from_be_bytes(self.fixed()?))),
            0xcf => return Ok(i128::from(u64::from_be_bytes(self.fixed()?))),
            0xd0 => return Ok(i128::from(i8::from_be_bytes(self.fixed()?))),
            0xd1 => return Ok(i128::from(i16::from_be_bytes(self.fixed()?))),
            0xd2 => return Ok(i128::from(i32::from_be_bytes(self.fixed()?))),
            0xd3 => return Ok(i128::from(i64::from_be_bytes(self.fixed()?))),
            _ => return Err(self.unexpected(start, expected)),
        };
        self.at += 1;
        Ok(small)
    }

    /// The `N` bytes after a marker.
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let start = self.at;
        match self.bytes[start + 1..].first_chunk() {
            Some(bytes) => {
                self.at = start + 1 + N;
                Ok(*bytes)
            }
            None => Err(problem(start, Problem::Eof)),
        }
    }

    /// The head of the next value, which is not taken yet, and where it begins.
    fn head(&self, expected: &'static str) -> Result<(usize, Head), DecodeError> {
        let start = self.at;
        match Head::read(&self.bytes[start..]) {
            Ok(Some(head)) => Ok((start, head)),
            Ok(None) => Err(self.unexpected(start, expected)),
            Err(_) => Err(problem(start, Problem::Eof)),
        }
    }

    fn take(&mut self, start: usize, len: usize) -> Result<&'a [u8], DecodeError> {
        match self.bytes[self.at..].get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => Err(problem(start, Problem::Eof)),
        }
    }

    fn unexpected(&self, offset: usize, expected: &'static str) -> DecodeError {
        problem(offset, Problem::Expected(expected, self.bytes[offset]))
    }
}

fn problem(offset: usize, problem: Problem) -> DecodeError {
    DecodeError { offset, problem }
}

fn narrow(children: u64) -> u32 {
    u32::try_from(children).expect("a length comes from at most 32 bits")
}

fn kind(marker: u8) -> &'static str {
    match marker {
        0x00..=0x7f | 0xcc..=0xcf => "an integer",
        0x80..=0x8f | 0xde | 0xdf => "a map",
        0x90..=0x9f | 0xdc | 0xdd => "an array",
        0xa0..=0xbf | 0xd9..=0xdb => "a string",
        0xc0 => "nil",
        0xc1 => "an unassigned marker",
        0xc2 | 0xc3 => "a bool",
        0xc4..=0xc6 => "binary bytes",
        0xc7..=0xc9 | 0xd4..=0xd8 => "an extension",
        0xca | 0xcb => "a float",
        0xd0..=0xd3 | 0xe0..=0xff => "a signed integer",
    }
}

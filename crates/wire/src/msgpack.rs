//! The old MessagePack dialect, in which the original writes the state of a snapshot.
//!
//! It knows one family for text and bytes ("raw"): no short string of one length byte, no binary family.
//! So a text of 32 to 255 bytes is written `da 00 nn`, where most libraries of today would write `d9 nn`.
//! That is why it is written by hand here.
//! Reading takes the newer forms too, because later releases of the original write them.

mod decode;
mod encode;
mod record;

pub use decode::{DecodeError, Decoder, Problem, Shape};
pub use encode::Encoder;
pub use record::{Place, RECORD_SIZE_MAX, Record, RecordError, RecordReader};

/// What the first bytes of a value say about the rest of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    /// Bytes of the marker and the length that follows it.
    size: usize,
    /// Bytes after those that belong to this value itself.
    payload: usize,
    /// Values after those that belong to this one.
    children: u64,
}

impl Head {
    /// Reads a head from the start of `bytes`; `Err` holds how many bytes there have to be to say more.
    fn read(bytes: &[u8]) -> Result<Option<Self>, usize> {
        let Some(&marker) = bytes.first() else {
            return Err(1);
        };
        let width = match marker {
            0xc4 | 0xc7 | 0xd9 => 1,
            0xc5 | 0xc8 | 0xda | 0xdc | 0xde => 2,
            0xc6 | 0xc9 | 0xdb | 0xdd | 0xdf => 4,
            _ => 0,
        };
        let size = 1 + width;
        let Some(length) = bytes.get(1..size) else {
            return Err(size);
        };
        let length = length
            .iter()
            .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        // usize has at least 32 bits wherever this runs.
        let claimed = length as usize;
        let (payload, children) = match marker {
            0x80..=0x8f => (0, 2 * u64::from(marker & 0x0f)),
            0x90..=0x9f => (0, u64::from(marker & 0x0f)),
            0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
            0xc1 => return Ok(None),
            0xc4..=0xc6 | 0xd9..=0xdb => (claimed, 0),
            // an extension carries a byte for its kind before its bytes
            0xc7..=0xc9 => (claimed.saturating_add(1), 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 => (2, 0),
            0xd4..=0xd8 => (1 + (1 << (marker - 0xd4)), 0),
            0xdc | 0xdd => (0, u64::from(length)),
            0xde | 0xdf => (0, 2 * u64::from(length)),
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
        };
        Ok(Some(Self {
            size,
            payload,
            children,
        }))
    }
}

#[cfg(test)]
mod tests;

//! JSON as the original reads and writes it.
//!
//! Not `serde_json`: the original escapes what a browser might run, shows broken UTF-8 as U+FFFD, and reads field names without regard to case, `null` as the default, and numbers with a fraction as integers.
//! Clients depend on each of these.

mod decode;
mod encode;
mod indent;

pub(crate) use decode::{DecodeError, Reader, decode};
pub(crate) use encode::{Base64, Encode, Lossy, object};
pub(crate) use indent::indent;

/// The value as compact JSON, or indented for people.
pub(crate) fn render(value: &(impl Encode + ?Sized), pretty: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    value.encode(&mut out);
    if pretty { indent(&out) } else { out }
}

//! Bytes to values and back: MessagePack dialects, framing, checksums, the snapshot archive.
//!
//! This crate knows how things are written down and nothing of what they mean: no node, no key, no session.
//! Whoever has a noun (the `store`, the snapshot agent) brings its field names along.
//!
//! Start with [`msgpack`], the dialect in which the original writes its state; [`archive`] is the file that carries it.
//! [`compact`] and [`frame`] are for what only this program reads: the log and the checkpoint.
//! A new encoding is a new module here, with a table of its forms as its test and, if it can be met outside of this program, a page in `docs/`.
//!
//! ```
//! use wire::msgpack::{Decoder, Encoder};
//!
//! let mut bytes = Vec::new();
//! Encoder::new(&mut bytes).map_len(1).raw(b"LastIndex").uint(68);
//!
//! let mut index = 0;
//! let mut decoder = Decoder::new(&bytes);
//! decoder.fields(&["LastIndex"], |value, _field| {
//!     index = value.uint()?;
//!     Ok::<_, wire::msgpack::DecodeError>(())
//! })?;
//! decoder.finish()?;
//! assert_eq!(index, 68);
//! # Ok::<_, wire::msgpack::DecodeError>(())
//! ```

pub mod msgpack;

pub mod archive;

pub mod compact;

pub mod frame;

pub mod pem;

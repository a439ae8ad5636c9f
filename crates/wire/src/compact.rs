//! Our own values as bytes: commands in the log, rows of a checkpoint.
//!
//! The new dialect of MessagePack, structs as arrays without field names.
//! Nobody but this program reads it, so it is short and quick and promises nothing between releases of its own accord:
//! whoever stores it puts a version beside it.

use serde::{Deserialize, Serialize};

use crate::msgpack;

/// Why a value has no bytes; only types that the format can't express at all get here.
#[derive(Debug, thiserror::Error)]
#[error("encoding a value: {0}")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// Why bytes are no value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are not one whole MessagePack value.
    #[error("decoding a value: {0}")]
    Structure(#[from] msgpack::DecodeError),
    /// They are a value of something else.
    #[error("decoding a value: {0}")]
    Value(#[from] rmp_serde::decode::Error),
}

/// The bytes of `value`.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    Ok(rmp_serde::to_vec(value)?)
}

/// Appends the bytes of `value` to `out`, for whoever has a buffer already.
pub fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    Ok(rmp_serde::encode::write(out, value)?)
}

/// The value that `bytes` are, all of them; it may borrow from them.
///
/// Bytes left over are an error: they would mean that another type was written than is being read.
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let mut structure = msgpack::Decoder::new(bytes);
    structure.skip()?;
    structure.finish()?;
    Ok(rmp_serde::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Command {
        Set {
            key: String,
            flags: u64,
            #[serde(with = "serde_bytes")]
            value: Vec<u8>,
        },
        Many(Vec<Option<i64>>, BTreeMap<String, f64>),
        Nothing,
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            any::<(String, u64, Vec<u8>)>().prop_map(|(key, flags, value)| Command::Set {
                key,
                flags,
                value
            }),
            any::<(Vec<Option<i64>>, BTreeMap<String, i32>)>().prop_map(|(list, map)| {
                Command::Many(
                    list,
                    map.into_iter()
                        .map(|(key, n)| (key, f64::from(n)))
                        .collect(),
                )
            }),
            Just(Command::Nothing),
        ]
    }

    #[test]
    fn structs_are_arrays_and_bytes_are_bytes() {
        let set = Command::Set {
            key: "k".into(),
            flags: 7,
            value: vec![0xff],
        };
        let bytes = to_vec(&set).unwrap();
        assert_eq!(bytes, b"\x81\xa3Set\x93\xa1k\x07\xc4\x01\xff");
        assert_eq!(from_slice::<Command>(&bytes).unwrap(), set);
    }

    #[test]
    fn borrows_from_its_input() {
        let bytes = to_vec("text").unwrap();
        let text: &str = from_slice(&bytes).unwrap();
        assert_eq!(text, "text");
    }

    #[test]
    fn leftovers_and_cuts_are_errors() {
        let mut bytes = to_vec(&7_u8).unwrap();
        bytes.push(0);
        let error = from_slice::<u8>(&bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "decoding a value: unexpected bytes after the value at byte 1"
        );
        let error = from_slice::<u8>(&[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "decoding a value: unexpected EOF at byte 0"
        );
        let bytes = to_vec(&(1, "text")).unwrap();
        for length in 0..bytes.len() {
            assert!(from_slice::<(u8, String)>(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        // An array and a string that say they have 4 GiB.
        assert!(from_slice::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
        assert!(from_slice::<String>(&[0xdb, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(command in command(), prefix: Vec<u8>) {
            let mut bytes = prefix.clone();
            append(&mut bytes, &command).unwrap();
            prop_assert!(bytes.starts_with(&prefix));
            prop_assert_eq!(&bytes[prefix.len()..], to_vec(&command).unwrap());
            prop_assert_eq!(from_slice::<Command>(&bytes[prefix.len()..]).unwrap(), command);
        }

        #[test]
        fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
            let _ = from_slice::<Command>(&bytes);
        }
    }
}

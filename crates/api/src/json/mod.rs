//! JSON as the original reads and writes it.
//!
//! Not `serde_json`: the original escapes what a browser might run, shows broken UTF-8 as U+FFFD, and reads field names without regard to case, `null` as the default, and numbers with a fraction as integers.
//! Clients depend on each of these.

mod decode;
mod encode;
mod indent;

pub(crate) use decode::{DecodeError, Reader, decode};
pub(crate) use encode::{Base64, Encode, Lossy, Object, object};
pub(crate) use indent::indent;

/// The value as compact JSON, or indented for people.
pub(crate) fn render(value: &(impl Encode + ?Sized), pretty: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    value.encode(&mut out);
    if pretty { indent(&out) } else { out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Names of fields, ours among them.
    fn any_name() -> impl Strategy<Value = String> {
        const OURS: [&str; 19] = [
            "KV",
            "Key",
            "value",
            "Flags",
            "Node",
            "Service",
            "TAGS",
            "Checks",
            "LockDelay",
            "Failover",
            "ID",
            "Name",
            "Check",
            "Script",
            "Args",
            "Interval",
            "ttl",
            "Status",
            "Output",
        ];
        prop_oneof![
            ".*",
            prop::sample::select(&OURS[..]).prop_map(str::to_owned)
        ]
    }

    /// Any JSON that a client could send.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::vec((any_name(), inner), 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn skips_whatever_is_json_and_stops_behind_it(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap() + " \"behind\"";
            let behind = decode(text.as_bytes(), |reader| {
                reader.skip()?;
                reader.string()
            });
            prop_assert_eq!(behind.unwrap().unwrap(), "behind");
        }

        #[test]
        fn refuses_what_ends_too_early(value in any_json(), cut in 0.0..1.0) {
            let text = serde_json::to_vec(&[value]).unwrap();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any place will do")]
            let cut = (text.len() as f64 * cut) as usize;
            prop_assert!(decode(&text[..cut], Reader::skip).is_err());
        }

        #[test]
        fn strings_survive(text in ".*") {
            let json = render(&*text, false);
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text.clone());
            prop_assert_eq!(decode(&json, Reader::string).unwrap().unwrap(), text);
        }

        #[test]
        fn any_bytes_make_sound_json(bytes: Vec<u8>) {
            let json = render(&Lossy(&bytes), false);
            prop_assert!(!json.iter().any(|byte| b"<>&".contains(byte)));
            let read = serde_json::from_slice::<String>(&json).unwrap();
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(read, text);
            }
        }

        #[test]
        fn numbers_survive(float: f64, whole: u64, signed: i64) {
            if float.is_finite() {
                let read: f64 = std::str::from_utf8(&render(&float, false)).unwrap().parse().unwrap();
                prop_assert_eq!(read, float);
            }
            prop_assert_eq!(decode(&render(&whole, false), Reader::u64), Ok(Some(whole)));
            prop_assert_eq!(decode(&render(&signed, false), Reader::i64), Ok(Some(signed)));
        }

        #[test]
        fn indenting_changes_nothing_but_space(value in any_json()) {
            let text = serde_json::to_vec(&value).unwrap();
            let indented = indent(&text);
            prop_assert_eq!(&serde_json::from_slice::<Value>(&indented).unwrap(), &serde_json::from_slice::<Value>(&text).unwrap());
            prop_assert!(indented.ends_with(b"\n"));
        }

        #[test]
        fn no_bytes_break_a_body(bytes: Vec<u8>, value in any_json(), at: prop::sample::Index, byte: u8) {
            crate::decode_bodies(&bytes);
            let mut text = serde_json::to_vec(&value).unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            crate::decode_bodies(&text);
        }
    }
}

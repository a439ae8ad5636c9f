//! Bytes as JSON has them: base64, and `null` for none.

use bytes::Bytes;
use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    use serde::de::Error as _;
    let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    base64_simd::STANDARD
        .decode_to_vec(text.as_bytes())
        .map(Bytes::from)
        .map_err(|_| D::Error::custom("a value is not base64"))
}

pub(crate) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.is_empty() {
        return serializer.serialize_none();
    }
    serializer.serialize_str(&base64_simd::STANDARD.encode_to_string(bytes))
}

//! Pieces that several kinds of records share: texts, lists of them, maps of them, ids.

use model::{Pairs, Text, Uuid};
use wire::msgpack::{Decoder, Encoder};

use super::refusal::{ITEMS_MAX, Refusal};

pub(super) fn text(value: &mut Decoder<'_>) -> Result<Text, Refusal> {
    Ok(Text::from(value.raw()?))
}

/// A list that may be nil; `what` names it in errors.
pub(super) fn list<T>(
    value: &mut Decoder<'_>,
    what: &'static str,
    mut item: impl FnMut(&mut Decoder<'_>) -> Result<T, Refusal>,
) -> Result<Option<Vec<T>>, Refusal> {
    let Some(len) = value.array()? else {
        return Ok(None);
    };
    if len > ITEMS_MAX {
        return Err(Refusal::TooMany(what));
    }
    // The length is a claim: the list grows with what is there.
    let mut items = Vec::new();
    for _ in 0..len {
        items.push(item(value)?);
    }
    Ok(Some(items))
}

pub(super) fn texts(
    value: &mut Decoder<'_>,
    what: &'static str,
) -> Result<Option<Vec<Text>>, Refusal> {
    list(value, what, text)
}

pub(super) fn pairs(value: &mut Decoder<'_>, what: &'static str) -> Result<Option<Pairs>, Refusal> {
    let Some(len) = value.map()? else {
        return Ok(None);
    };
    if len > ITEMS_MAX {
        return Err(Refusal::TooMany(what));
    }
    let mut pairs = Pairs::new();
    for _ in 0..len {
        let name = text(value)?;
        pairs.insert(name, text(value)?);
    }
    Ok(Some(pairs))
}

pub(super) fn put_texts(out: &mut Encoder<'_>, texts: Option<&[Text]>) {
    let Some(texts) = texts else {
        out.nil();
        return;
    };
    out.array_len(texts.len());
    for text in texts {
        out.raw(text);
    }
}

/// Sorted by name, where the original's order is by chance.
pub(super) fn put_pairs(out: &mut Encoder<'_>, pairs: Option<&Pairs>) {
    let Some(pairs) = pairs else {
        out.nil();
        return;
    };
    out.map_len(pairs.len());
    for (name, value) in pairs {
        out.raw(name).raw(value);
    }
}

/// In its 36 characters; absent is empty.
pub(super) fn put_uuid(out: &mut Encoder<'_>, id: Option<Uuid>) {
    match id {
        None => out.raw(b""),
        Some(id) => out.raw(
            id.hyphenated()
                .encode_lower(&mut Uuid::encode_buffer())
                .as_bytes(),
        ),
    };
}

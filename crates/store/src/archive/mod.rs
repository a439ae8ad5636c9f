//! The state as the original writes it into a snapshot, and back.
//!
//! A header object, then records: a type byte and one object each, in the old MessagePack dialect.
//! This is the encoding for people: it is what a real cluster restores, and it loses what only we keep (deadlines, last changes, catalog indexes).
//! What must come back exactly is in a [checkpoint](crate::checkpoint).
//!
//! Saving is [`size`], then [`write()`], over the same frozen view.
//! Restoring is [`verify`] over the file, then [`Chunks`] over it again, and on every server a [`Loader`] that the chunks go to.
//! Of a part they are [`verify_part`] and [`Chunks::of_part`], and what was loaded is written over what there is.
//! A new kind of record is a file here with its `encode` and `decode`, a variant of [`Kind`], and what the compiler then asks for.

use std::io::{self, Write};

use model::{Index, KvParts};
use wire::msgpack::{DecodeError, Decoder, Encoder};

use crate::state::State;
use crate::tables::Table;
use crate::view::View;

mod acl;
mod catalog;
mod coordinate;
mod error;
mod health;
mod items;
mod kind;
mod kv;
mod loader;
mod part;
mod parts;
mod query;
mod refusal;
mod rules;
mod session;
mod verify;

pub use error::{Position, StateError};
pub use items::{Item, Items, Subject, Teller, is_known};
pub use kind::{Kind, TypeName, is_later, type_name};
pub use loader::Loader;
pub use refusal::{BadUuid, Fault, Refusal};
pub(crate) use rules::INDEX_MAX;
pub use rules::{Record, Rules};
pub use verify::{Chunks, Tally, Unknown, Verified, load, verify, verify_part};

/// How much is gathered before it is written.
const WRITE_SIZE: usize = 64 << 10;

/// Writes header and records; how many bytes that were.
///
/// It holds one record and a little more in memory, whatever the size of the state.
///
/// # Errors
/// What `out` says.
pub fn write(view: &View, out: &mut impl Write) -> io::Result<u64> {
    let mut written = 0;
    let mut gathered = Vec::with_capacity(2 * WRITE_SIZE);
    each(view.state(), |encode| {
        encode(&mut gathered);
        if gathered.len() >= WRITE_SIZE {
            out.write_all(&gathered)?;
            written += gathered.len() as u64;
            gathered.clear();
        }
        Ok::<_, io::Error>(())
    })?;
    out.write_all(&gathered)?;
    Ok(written + gathered.len() as u64)
}

/// How many bytes [`write()`] will write: the archive's metadata and tar header say so before the first of them.
pub fn size(view: &View) -> u64 {
    let mut size = 0;
    let mut record = Vec::new();
    let counted = each(view.state(), |encode| {
        encode(&mut record);
        size += record.len() as u64;
        record.clear();
        Ok::<_, std::convert::Infallible>(())
    });
    match counted {
        Ok(()) => size,
    }
}

/// Gives out the header and every record, in the order in which the original writes them, each as what appends its bytes.
fn each<E>(
    state: &State,
    mut emit: impl FnMut(&dyn Fn(&mut Vec<u8>)) -> Result<(), E>,
) -> Result<(), E> {
    emit(&|out| encode_header(out, state.indexes.max(&Table::ALL)))?;
    for node in state.catalog.nodes() {
        let lower = node.name.lower();
        emit(&|out| catalog::encode(begin(out, Kind::Register), node, None, None))?;
        for (_, service) in state.catalog.services_of(&lower) {
            emit(&|out| catalog::encode(begin(out, Kind::Register), node, Some(service), None))?;
        }
        for check in state.catalog.checks_of(&lower) {
            emit(&|out| catalog::encode(begin(out, Kind::Register), node, None, Some(check)))?;
        }
    }
    for row in state.coordinates.iter() {
        emit(&|out| coordinate::encode(begin(out, Kind::Coordinates), &row.node, &row.coord))?;
    }
    for row in state.sessions.iter() {
        emit(&|out| session::encode(begin(out, Kind::Session), row))?;
    }
    for row in state.acls.iter() {
        emit(&|out| acl::encode(begin(out, Kind::Acl), row))?;
    }
    for row in state.kv.iter() {
        emit(&|out| kv::encode(begin(out, Kind::Kvs), &row.parts()))?;
    }
    for (key, index) in state.tombstones.iter() {
        emit(&|out| kv::encode_tombstone(begin(out, Kind::Tombstone), key, index))?;
    }
    for row in state.queries.iter() {
        emit(&|out| query::encode(begin(out, Kind::Query), row))?;
    }
    Ok(())
}

fn begin(out: &mut Vec<u8>, kind: Kind) -> &mut Vec<u8> {
    out.push(kind.byte());
    out
}

fn encode_header(out: &mut Vec<u8>, last_index: Index) {
    Encoder::new(out)
        .map_len(1)
        .raw(b"LastIndex")
        .uint(last_index);
}

/// The highest index of any table, from the header object.
fn decode_header(bytes: &[u8]) -> Result<Index, DecodeError> {
    let mut last_index = 0;
    let mut decoder = Decoder::new(bytes);
    decoder.fields(&["LastIndex"], |value, _| {
        last_index = value.uint()?;
        Ok::<_, DecodeError>(())
    })?;
    decoder.finish()?;
    Ok(last_index)
}

/// The key and its value out of the object of a [`Kind::Kvs`] record, borrowed from it.
///
/// # Errors
/// [`Refusal`] if it is none.
pub fn key_value(object: &[u8]) -> Result<KvParts<'_>, Refusal> {
    kv::decode(object)
}

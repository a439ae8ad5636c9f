//! An archive, one thing at a time.

use std::io::Read;

use store::archive::{Item, Items, Position, Refusal, StateError, is_known};
use wire::archive::{ArchiveError, Contents};
use wire::msgpack::{Record, RecordReader};

use crate::pipe::{PieceReader, unpack};
use crate::proof::Digest;

/// Why an archive can't be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It isn't what it says it is.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It is, but no restore would take what it holds.
    #[error("the archive is whole, but a restore would refuse it: {0}")]
    State(String),
    /// A restore of the wanted part would be refused by what is there now.
    #[error("a restore would be refused: {0}")]
    Refused(String),
    /// A restore would take it, and have something else then.
    #[error(
        "the archive is whole, but what a restore would load isn't what it says (digest {digest} instead of {received})"
    )]
    Otherwise {
        /// What the archive says.
        received: Digest,
        /// What was loaded.
        digest: Digest,
    },
}

/// Reads an archive from front to end, proves that all of it agrees, and gives out what it holds. Records of later releases are passed over.
pub(crate) fn each_item(
    input: impl Read,
    mut each: impl FnMut(Item<'_>) + Send,
) -> Result<Contents, Unreadable> {
    let (contents, read) = unpack(input, |state| read_records(state, &mut each));
    let contents = contents?;
    read.map_err(Unreadable::State)?;
    Ok(contents)
}

fn read_records(state: &mut PieceReader, each: &mut impl FnMut(Item<'_>)) -> Result<(), String> {
    let mut reader = RecordReader::open(state).map_err(|why| why.to_string())?;
    let mut items = Items::default();
    while let Some(record) = reader.next_record().map_err(|why| why.to_string())? {
        if !is_known(record.kind) {
            continue;
        }
        items
            .read(record.kind, record.bytes, each)
            .map_err(|refusal| refused(&record, refusal))?;
    }
    Ok(())
}

/// What a restore has against a record, with the place where that stands.
pub(crate) fn refused(record: &Record<'_>, refusal: Refusal) -> String {
    let position = Position {
        number: record.number,
        kind: record.kind,
        offset: record.offset,
    };
    StateError::Refused { refusal, position }.to_string()
}

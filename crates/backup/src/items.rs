//! An archive, one thing at a time.

use std::io::Read;
use std::thread;

use store::archive::{Item, Items, StateError, is_known};
use wire::archive::{self, ArchiveError, Contents};
use wire::msgpack::RecordReader;

use crate::pipe::{PieceReader, Sender, join, pipe};
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
    each: impl FnMut(Item<'_>) + Send,
) -> Result<Contents, Unreadable> {
    thread::scope(|scope| {
        let (sender, reader) = pipe();
        let reading = scope.spawn(move || read(reader, each));
        let contents = archive::unpack(input, &mut Sender(sender));
        let read = join(reading);
        let contents = contents?;
        read.map_err(Unreadable::State)?;
        Ok(contents)
    })
}

fn read(mut state: PieceReader, mut each: impl FnMut(Item<'_>)) -> Result<(), String> {
    let read = read_records(&mut state, &mut each);
    // What unpacks must get to the end whatever became of this side.
    state.drain();
    read
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
            .map_err(|refusal| {
                let position = store::archive::Position {
                    number: record.number,
                    kind: record.kind,
                    offset: record.offset,
                };
                StateError::Refused { refusal, position }.to_string()
            })?;
    }
    Ok(())
}

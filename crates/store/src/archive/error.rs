//! What is wrong with a state, and where.

use std::fmt;
use std::io;

use wire::msgpack::{DecodeError, Place, RecordError};

use super::kind::TypeName;
use super::refusal::Refusal;

/// Why a state can't be loaded. The text names the record.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The source failed; nothing is said about the state.
    #[error("reading the state: {0}")]
    Io(#[from] io::Error),
    /// The header is none.
    #[error("{0} (in the header)")]
    Header(String),
    /// A record is cut off, too long or no MessagePack.
    #[error("{problem} ({position})")]
    Cut {
        /// What is wrong with it.
        problem: &'static str,
        /// Which record.
        position: Position,
    },
    /// A record is whole, but can't be taken.
    #[error("{refusal} ({position})")]
    Refused {
        /// What is wrong with it.
        refusal: Refusal,
        /// Which record.
        position: Position,
    },
}

/// Which record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Counted from 1; the header is no record.
    pub number: u64,
    /// Its type byte.
    pub kind: u8,
    /// Where its type byte stands, from the start of what was read.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            kind,
            offset,
        } = self;
        write!(
            f,
            "record {number}, type {}, at byte {offset}",
            TypeName(*kind)
        )
    }
}

impl From<RecordError> for StateError {
    fn from(error: RecordError) -> Self {
        let (problem, place) = match error {
            RecordError::Io(error) => return Self::Io(error),
            RecordError::Eof { place } => ("unexpected EOF", place),
            RecordError::Unassigned { place } => ("no MessagePack value", place),
            RecordError::TooLong { place } => ("object too large", place),
        };
        match place {
            Place::Header => Self::Header(problem.to_owned()),
            Place::Record {
                number,
                kind,
                offset,
            } => Self::Cut {
                problem,
                position: Position {
                    number,
                    kind,
                    offset,
                },
            },
        }
    }
}

impl From<DecodeError> for StateError {
    fn from(error: DecodeError) -> Self {
        Self::Header(format!("failed decoding: {error}"))
    }
}

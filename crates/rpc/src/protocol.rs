//! What a connection is for, as its first bytes say, and what holds on each kind.

use std::time::Duration;

use crate::frame::Kind;

/// The version of what follows; a member of another version is told nothing but good-bye.
pub(crate) const VERSION: u8 = 1;

/// The first byte of a connection that speaks TLS; the bytes inside begin anew.
pub(crate) const TLS: u8 = 3;

/// What a connection carries. The numbers are the original's, the content is our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// Messages of the log.
    Log,
    /// Requests, many at a time.
    Requests,
    /// One snapshot.
    Snapshot,
}

impl Protocol {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Requests => 4,
            Self::Snapshot => 5,
        }
    }

    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Log, Self::Requests, Self::Snapshot]
            .into_iter()
            .find(|protocol| protocol.byte() == byte)
    }

    /// The bytes before the first frame.
    pub(crate) fn preface(self) -> [u8; 2] {
        [self.byte(), VERSION]
    }

    /// The longest message that asks for something.
    ///
    /// A command has to fit into an entry of the log, and the log sends at least one entry whole; what is longer than this is no request of ours.
    pub(crate) fn ask_max(self) -> usize {
        match self {
            Self::Log => 64 << 20,
            Self::Requests => 8 << 20,
            Self::Snapshot => 64 << 10,
        }
    }

    /// The longest answer: a list of a few million keys.
    pub(crate) fn answer_max(self) -> usize {
        match self {
            Self::Log => 1 << 20,
            Self::Requests => 1 << 30,
            Self::Snapshot => 64 << 10,
        }
    }

    /// How many calls of one connection may wait for an answer.
    ///
    /// The asking side keeps to it: a further call is not sent, and whoever makes it may ask another server.
    pub(crate) fn calls_max(self) -> usize {
        match self {
            Self::Log => 256,
            Self::Requests => 16_384,
            Self::Snapshot => 1,
        }
    }

    /// How many bytes of calls may wait to be written on one connection; a further call is not sent.
    pub(crate) fn queue_max(self) -> usize {
        match self {
            Self::Log => 128 << 20,
            Self::Requests => 32 << 20,
            Self::Snapshot => 0,
        }
    }
}

/// The kinds of frames of a message that asks.
pub(crate) const ASK: (Kind, Kind) = (Kind::AskPart, Kind::Ask);

/// The kinds of frames of a message that answers.
pub(crate) const ANSWER: (Kind, Kind) = (Kind::AnswerPart, Kind::Answer);

/// A connection on which this end waits for something is asked for a sign of life after this time of silence.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// And is given up after this further time.
pub(crate) const SIGN_WAIT: Duration = Duration::from_secs(10);

/// A peer that takes nothing of what it is sent for so long is given up.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);

//! Decoders of what comes from disk or from peers, as fuzzing calls them: each takes any bytes, none may panic.

use std::io::Read;

use bytes::Bytes;

use crate::checkpoint;
use crate::durable;
use crate::log::segment::{self, Header, Outcome};
use crate::raft::codec::{self, Envelope, Response};

/// Decodes a log segment. Returns how many entries it holds if it is good or its end is torn, `None` if it is damaged.
pub fn decode_segment(bytes: &[u8]) -> Option<usize> {
    let header = Header::decode(bytes).ok()?;
    let bytes = Bytes::copy_from_slice(bytes);
    let sealed = segment::scan(&bytes, &header, Some(header.capacity));
    let scan = segment::scan(&bytes, &header, None);
    // What is good up to a given end is good without one.
    assert!(
        sealed.outcome != Outcome::Clean || scan.entries.starts_with(&sealed.entries),
        "the scans differ"
    );
    match scan.outcome {
        Outcome::Clean | Outcome::Torn(_) => Some(scan.entries.len()),
        Outcome::Damaged(_) => None,
    }
}

/// Decodes the records of a segment whose header is made up, so that chance doesn't have to find its checksum.
pub fn decode_records(bytes: &[u8]) -> usize {
    let header = Header {
        sequence: 1,
        first_index: 0,
        previous: None,
        previous_end: 0,
        capacity: bytes.len() as u64,
    };
    segment::scan(&Bytes::copy_from_slice(bytes), &header, None)
        .entries
        .len()
}

/// Decodes a checkpoint. Returns how many bytes of state it holds, `None` if it is damaged.
pub fn decode_checkpoint(bytes: &[u8]) -> Option<u64> {
    let mut reader = checkpoint::Reader::new(bytes).ok()?;
    let mut total = 0;
    let mut block = vec![0; checkpoint::BLOCK_MAX];
    loop {
        match reader.read(&mut block).ok()? {
            0 => return Some(total),
            length => total += length as u64,
        }
    }
}

/// Decodes a message of a peer, and encodes it again. Returns whether it was one.
pub fn decode_message(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let request = Envelope::decode(&bytes).map(|envelope| envelope.encode());
    let response = Response::decode(&bytes).map(|response| response.encode());
    if let Ok(again) = &request {
        assert!(
            Envelope::decode(again).is_ok(),
            "what was decoded cannot be encoded"
        );
    }
    request.is_ok() || response.is_ok()
}

/// Decodes a small file, a vote or a membership. Returns whether it was one.
pub fn decode_small(bytes: &[u8]) -> bool {
    let shared = Bytes::copy_from_slice(bytes);
    durable::decode(bytes).is_ok()
        || codec::decode_vote(bytes).is_ok()
        || codec::decode_membership(&shared).is_ok()
}

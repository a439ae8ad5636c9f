//! A disk and a network that fail from a seed, a machine to watch them with, and whole clusters of them.
//!
//! A cluster runs in one thread on tokio's paused clock: the same seed gives the same events, bit for bit, which
//! [`Trace`] makes sure of. [`run`] is one such life with crashes, torn writes and partitions, checked at its end.

mod cluster;
mod disk;
mod machine;
mod network;
mod operator;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

pub use cluster::{Report, Violation, run};
pub use disk::{Death, DiskFault, SimDisk, Storage};
pub use machine::{Ledger, ListMachine};
pub use network::{SimNetwork, SimTransport};

/// A hash of all that happened, in order, each with its time.
#[derive(Clone, Debug)]
pub struct Trace {
    state: Arc<Mutex<TraceState>>,
}

#[derive(Debug)]
struct TraceState {
    hash: u64,
    events: u64,
    begun: Instant,
}

/// FNV-1a, 64 bits: not strong, but nobody plays against it.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_FACTOR: u64 = 0x0100_0000_01b3;

impl Trace {
    /// Begins now; needs a runtime.
    pub fn begin() -> Self {
        let state = TraceState {
            hash: HASH_START,
            events: 0,
            begun: Instant::now(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Something happened.
    pub fn event(&self, kind: &str, parts: &[&[u8]]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let time = state.begun.elapsed().as_nanos().to_le_bytes();
        let mut hash = state.hash;
        for part in [kind.as_bytes(), &time].iter().chain(parts) {
            for byte in *part {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(HASH_FACTOR);
            }
            hash = (hash ^ part.len() as u64).wrapping_mul(HASH_FACTOR);
        }
        state.hash = hash;
        state.events += 1;
    }

    /// The hash so far, and of how many events.
    pub fn hash(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hash, state.events)
    }
}

//! Deletions are remembered for a while, then forgotten.
//!
//! Who has waited on a prefix since before a deletion must still see the index move; nobody waits longer than ten minutes.

use std::collections::VecDeque;
use std::time::Duration;

use model::{Command, Index};
use tokio::time::Instant;

use crate::core::Core;
use crate::figures;
use crate::write::propose;

/// How long a deletion is remembered at least; the original does the same.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// How much longer at most: deletions are forgotten in slots of this length.
const SLOT: Duration = Duration::from_secs(30);

/// Forgets deletions that are old enough, for ever.
pub(super) async fn run(core: &Core) {
    let mut slots = Slots::default();
    loop {
        slots.note(Instant::now(), core.shared.view().tombstones_until());
        while let Some(index) = slots.due(Instant::now()) {
            let began = Instant::now();
            let proposed = propose(core, Command::TombstoneReap(index)).await;
            figures::note(&figures::REAP, began);
            if let Err(error) = proposed {
                tracing::warn!("cannot forget old deletions: {error}; trying again later");
                break;
            }
            slots.forgotten();
        }
        tokio::time::sleep(SLOT).await;
    }
}

/// When which deletions may be forgotten.
///
/// A new leader doesn't know the age of what it finds and counts from when it began.
#[derive(Debug, Default)]
struct Slots {
    /// Moments in order, each with the newest deletion seen then.
    seen: VecDeque<(Instant, Index)>,
}

impl Slots {
    /// At `now`, `newest` is the index of the newest deletion; 0 if there is none.
    fn note(&mut self, now: Instant, newest: Index) {
        let last = self.seen.back().map_or(0, |(_, index)| *index);
        if newest > last {
            self.seen.push_back((now, newest));
        }
    }

    /// Up to which index deletions may be forgotten at `now`; the same again until they are [`forgotten`](Self::forgotten).
    fn due(&self, now: Instant) -> Option<Index> {
        let (seen, index) = *self.seen.front()?;
        (now >= seen + KEPT).then_some(index)
    }

    /// What was due is done.
    fn forgotten(&mut self) {
        self.seen.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_remembered_long_enough() {
        let start = Instant::now();
        let mut slots = Slots::default();
        slots.note(start, 0);
        assert_eq!(slots.due(start + KEPT * 2), None, "nothing was deleted");
        slots.note(start, 7);
        slots.note(start + SLOT, 7);
        slots.note(start + SLOT * 2, 9);
        assert_eq!(slots.due(start + KEPT - Duration::from_nanos(1)), None);
        assert_eq!(slots.due(start + KEPT), Some(7));
        slots.forgotten();
        assert_eq!(slots.due(start + KEPT), None);
        assert_eq!(slots.due(start + KEPT + SLOT * 2), Some(9));
    }
}

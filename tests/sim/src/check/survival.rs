//! What was acknowledged is there at the end, unless a restore came after it.

use super::{Restored, Violation};
use crate::history::{Generation, History, Moment, Sweep, seconds};

const PROPERTY: &str = "acknowledged writes survive";

pub(super) fn acknowledged_writes_survive(history: &History, _: Restored) -> Result<(), Violation> {
    let newest = history.glimpses.iter().max_by_key(|glimpse| glimpse.index);
    let last = newest.map_or(0, |glimpse| glimpse.generation);
    let restored_by = restored_by(history, last);
    for keepsake in &history.keepsakes {
        let is_excused = keepsake.called <= restored_by;
        if !is_excused && !history.kept.contains(&keepsake.number) {
            return Err(Violation::new(
                PROPERTY,
                format!(
                    "keepsake {} was written from {:.6} s to {:.6} s and is gone; the last restore was over by {:.6} s",
                    keepsake.number,
                    seconds(keepsake.called),
                    seconds(keepsake.acknowledged),
                    seconds(restored_by)
                ),
            ));
        }
    }
    Ok(())
}

/// When the restore that the final state comes from had certainly happened; 0 if there was none.
fn restored_by(history: &History, last: Generation) -> Moment {
    if last == 0 {
        return 0;
    }
    let parts = history.sweeps.iter().filter_map(|it| match it.sweep {
        Sweep::RestorePart { generation, .. } => Some(generation),
        Sweep::Begin(_) | Sweep::End { .. } | Sweep::Restore(_) => None,
    });
    if !parts.into_iter().any(|generation| generation == last) {
        return happened_by(history, last);
    }
    // Keepsakes are none of a part; but any whole restore may have come before it.
    let whole = history.sweeps.iter().filter_map(|it| match it.sweep {
        Sweep::Restore(generation) => Some(happened_by(history, generation)),
        Sweep::Begin(_) | Sweep::End { .. } | Sweep::RestorePart { .. } => None,
    });
    whole.max().unwrap_or(0)
}

/// When a restore had certainly happened, if it did.
fn happened_by(history: &History, last: Generation) -> Moment {
    let seen = history
        .glimpses
        .iter()
        .filter(|glimpse| glimpse.generation == last)
        .map(|glimpse| glimpse.at);
    let answered = history
        .sweeps
        .iter()
        .filter(|sweep| sweep.is_known && sweep.sweep == Sweep::Restore(last))
        .map(|sweep| sweep.returned);
    seen.chain(answered).min().unwrap_or(Moment::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Glimpse, Keepsake, SweepOperation};

    fn history(generation: Generation, kept: &[u64]) -> History {
        let keepsake = |number, called| Keepsake {
            number,
            called,
            acknowledged: called + 1,
        };
        let glimpse = |at, index, generation| Glimpse {
            server: 0,
            life: 1,
            at,
            index,
            generation,
            rows: Vec::new(),
        };
        History {
            keepsakes: vec![keepsake(1, 10), keepsake(2, 100)],
            kept: kept.iter().copied().collect(),
            glimpses: vec![glimpse(5, 1, 0), glimpse(60, 9, generation)],
            sweeps: vec![SweepOperation {
                sweep: Sweep::Restore(1),
                called: 50,
                returned: 0,
                is_known: false,
            }],
            ..History::default()
        }
    }

    fn judge(history: &History) -> bool {
        acknowledged_writes_survive(history, |_, _| None).is_ok()
    }

    #[test]
    fn all_that_was_acknowledged_must_be_there() {
        assert!(judge(&history(0, &[1, 2])));
        assert!(!judge(&history(0, &[2])));
    }

    #[test]
    fn a_part_excuses_nothing() {
        let mut history = history(2, &[2]);
        assert!(judge(&history), "a whole one does");
        history.sweeps[0].sweep = Sweep::RestorePart {
            generation: 2,
            merges: false,
        };
        assert!(!judge(&history));
        history.kept = [1, 2].into();
        assert!(judge(&history));
    }

    #[test]
    fn only_a_restore_that_took_place_excuses() {
        assert!(judge(&history(1, &[2])));
        assert!(!judge(&history(1, &[1])), "written after it");
    }
}

//! Each server's state is that of some moment of the log, and moves on only.

use std::collections::BTreeMap;

use super::{Restored, Violation};
use crate::history::{Glimpse, History, Row, seconds};

const PREFIX: &str = "stale reads are prefixes";
const APPLIED: &str = "the applied index never goes back";

/// What a server has applied stays applied while it runs, and what it had synced is applied again after a stop.
pub(super) fn applied_never_goes_back(history: &History, _: Restored) -> Result<(), Violation> {
    let mut last: BTreeMap<(usize, u64), &Glimpse> = BTreeMap::new();
    let mut glimpses: Vec<&Glimpse> = history.glimpses.iter().collect();
    glimpses.sort_by_key(|glimpse| glimpse.at);
    for glimpse in glimpses {
        let before = last.insert((glimpse.server, glimpse.life), glimpse);
        if let Some(before) = before
            && before.index > glimpse.index
        {
            return Err(Violation::new(
                APPLIED,
                format!(
                    "server {} had applied {} at {:.6} s and {} at {:.6} s",
                    glimpse.server,
                    before.index,
                    seconds(before.at),
                    glimpse.index,
                    seconds(glimpse.at)
                ),
            ));
        }
    }
    for start in &history.starts {
        if start.applied < start.synced {
            return Err(Violation::new(
                APPLIED,
                format!(
                    "server {} had synced {} and started at {:.6} s with {}",
                    start.server,
                    start.synced,
                    seconds(start.at),
                    start.applied
                ),
            ));
        }
    }
    Ok(())
}

/// States of all servers, put in the order of their indexes, are states of one log: what an earlier one holds is what a
/// later one holds, but for what was written in between.
///
/// It is enough to compare neighbours: what holds between them carries on.
pub(super) fn states_are_prefixes(history: &History, _: Restored) -> Result<(), Violation> {
    let mut glimpses: Vec<&Glimpse> = history.glimpses.iter().collect();
    glimpses.sort_by_key(|glimpse| glimpse.index);
    let mut passed = Vec::new();
    for pair in glimpses.windows(2) {
        let [earlier, later] = pair else { continue };
        if let Some(what) = difference(earlier, later) {
            return Err(Violation::new(
                PREFIX,
                format!(
                    "server {} at index {} ({:.6} s) and server {} at index {} ({:.6} s): {what}",
                    earlier.server,
                    earlier.index,
                    seconds(earlier.at),
                    later.server,
                    later.index,
                    seconds(later.at),
                ),
            ));
        }
        if earlier.generation != later.generation {
            passed.push(earlier.generation);
            if passed.contains(&later.generation) {
                return Err(Violation::new(
                    PREFIX,
                    format!(
                        "restore {} came back at index {}, after restore {}",
                        later.generation, later.index, earlier.generation
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Why two states can't be of one log.
fn difference(earlier: &Glimpse, later: &Glimpse) -> Option<String> {
    if earlier.generation != later.generation {
        let same = earlier.index == later.index;
        return same.then(|| {
            format!(
                "one shows restore {}, the other {}",
                earlier.generation, later.generation
            )
        });
    }
    if earlier.index == later.index {
        return (earlier.rows != later.rows)
            .then(|| format!("they differ: {:?} and {:?}", earlier.rows, later.rows));
    }
    let before: BTreeMap<u32, &Row> = earlier.rows.iter().map(|(key, row)| (*key, row)).collect();
    let after: BTreeMap<u32, &Row> = later.rows.iter().map(|(key, row)| (*key, row)).collect();
    for (key, row) in &after {
        let was = before.get(key);
        // What a restore brought keeps the index that its archive gave it, and is then in both.
        if row.modify <= earlier.index && was != Some(row) {
            return Some(format!(
                "key {key} was last written at {} as {row:?}, but the earlier state has {was:?}",
                row.modify
            ));
        }
    }
    for (key, row) in &before {
        if let Some(now) = after.get(key)
            && now.modify < row.modify
        {
            return Some(format!("key {key} went back from {row:?} to {now:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: u64, modify: u64) -> Row {
        Row {
            value,
            modify,
            session: None,
            lock_index: 0,
        }
    }

    fn glimpse(server: usize, at: u64, index: u64, rows: &[(u32, Row)]) -> Glimpse {
        Glimpse {
            server,
            life: 1,
            at,
            index,
            generation: 0,
            rows: rows.to_vec(),
        }
    }

    fn judge(glimpses: Vec<Glimpse>) -> Result<(), &'static str> {
        let history = History {
            glimpses,
            ..History::default()
        };
        super::super::check(&history, |_, _| None).map_err(|violation| violation.property)
    }

    #[test]
    fn states_of_one_log_pass() {
        let states = [
            glimpse(0, 1, 5, &[(1, row(10, 4))]),
            glimpse(1, 9, 5, &[(1, row(10, 4))]),
            glimpse(0, 3, 8, &[(1, row(10, 4)), (2, row(11, 7))]),
            glimpse(1, 20, 9, &[(2, row(11, 7))]),
        ];
        assert_eq!(judge(states.to_vec()), Ok(()));
    }

    #[test]
    fn an_older_write_that_was_not_there_is_found() {
        let states = [
            glimpse(0, 1, 8, &[(1, row(10, 4))]),
            glimpse(1, 2, 9, &[(1, row(10, 4)), (2, row(11, 7))]),
        ];
        assert_eq!(judge(states.to_vec()), Err(PREFIX));
    }

    #[test]
    fn a_key_that_goes_back_is_found() {
        let states = [
            glimpse(0, 1, 8, &[(1, row(12, 8))]),
            glimpse(1, 2, 9, &[(1, row(10, 4))]),
        ];
        assert_eq!(judge(states.to_vec()), Err(PREFIX));
    }

    #[test]
    fn two_states_at_one_index_are_found() {
        let states = [
            glimpse(0, 1, 8, &[(1, row(10, 8))]),
            glimpse(1, 2, 8, &[(1, row(11, 8))]),
        ];
        assert_eq!(judge(states.to_vec()), Err(PREFIX));
    }

    #[test]
    fn a_restore_that_comes_back_is_found() {
        let mut states = vec![
            glimpse(0, 1, 8, &[]),
            glimpse(0, 2, 9, &[]),
            glimpse(0, 3, 10, &[]),
        ];
        for (state, generation) in states.iter_mut().zip([1, 2, 1]) {
            state.generation = generation;
        }
        assert_eq!(judge(states), Err(PREFIX));
    }

    #[test]
    fn an_index_that_goes_back_is_found() {
        let states = [glimpse(0, 1, 8, &[]), glimpse(0, 2, 7, &[])];
        assert_eq!(judge(states.to_vec()), Err(APPLIED));
        let mut other_life = states.to_vec();
        other_life[1].life = 2;
        assert_eq!(judge(other_life), Ok(()));
        let lost = History {
            starts: vec![crate::history::Start {
                server: 0,
                at: 1,
                synced: 9,
                applied: 8,
            }],
            ..History::default()
        };
        assert!(super::super::check(&lost, |_, _| None).is_err());
    }
}

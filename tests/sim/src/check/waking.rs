//! Who waits for a key at a server hears of a change soon after that server has it.

use super::{Restored, Violation};
use crate::history::{Glimpse, History, Moment, Waiting, seconds};

const PROPERTY: &str = "waiters are woken";

/// How long after a server has a change its waiters may still wait, not counting the time for which it is paused. Nothing
/// but the order of tasks lies in between.
const DELAY_MAX: Moment = 6_000_000_000;

pub(super) fn waiters_are_woken(history: &History, _: Restored) -> Result<(), Violation> {
    for wait in &history.waits {
        let seen = history.glimpses.iter().find(|glimpse| {
            (glimpse.server, glimpse.life) == (wait.server, wait.life)
                && (wait.called..wait.returned).contains(&glimpse.at)
                && awake(history, wait.server, glimpse.at, wait.returned) > DELAY_MAX
                && is_news(glimpse, wait)
        });
        if let Some(glimpse) = seen {
            return Err(Violation::new(
                PROPERTY,
                format!(
                    "at server {} somebody waited until {:.6} s for key {} after {}, but the server had news at {:.6} s",
                    wait.server,
                    seconds(wait.returned),
                    wait.key,
                    wait.index,
                    seconds(glimpse.at)
                ),
            ));
        }
    }
    Ok(())
}

/// For how much of this time a server was not paused. It is never paused twice at once.
fn awake(history: &History, server: usize, from: Moment, to: Moment) -> Moment {
    let pauses = history.pauses.iter().filter(|pause| pause.server == server);
    let paused: Moment = pauses
        .map(|pause| pause.to.min(to).saturating_sub(pause.from.max(from)))
        .sum();
    (to - from).saturating_sub(paused)
}

fn is_news(glimpse: &Glimpse, wait: &Waiting) -> bool {
    let row = glimpse.rows.iter().find(|(key, _)| *key == wait.key);
    match row {
        Some((_, row)) => row.modify > wait.index,
        None => wait.existed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Pause, Row};

    const SECOND: Moment = 1_000_000_000;

    fn judge(returned: Moment, modify: Option<u64>) -> bool {
        judge_paused(returned, modify, &[])
    }

    /// With seconds from and to which servers were paused.
    fn judge_paused(returned: Moment, modify: Option<u64>, pauses: &[(usize, u64, u64)]) -> bool {
        let row = |modify| Row {
            value: 1,
            modify,
            session: None,
            lock_index: 0,
        };
        let history = History {
            waits: vec![Waiting {
                server: 0,
                life: 1,
                key: 3,
                index: 10,
                existed: true,
                called: 0,
                returned,
            }],
            glimpses: vec![Glimpse {
                server: 0,
                life: 1,
                at: SECOND,
                index: 20,
                generation: 0,
                rows: modify.map(|modify| (3, row(modify))).into_iter().collect(),
            }],
            pauses: pauses
                .iter()
                .map(|&(server, from, to)| Pause {
                    server,
                    from: from * SECOND,
                    to: to * SECOND,
                })
                .collect(),
            ..History::default()
        };
        waiters_are_woken(&history, |_, _| None).is_ok()
    }

    #[test]
    fn who_waits_on_though_there_is_news_was_not_woken() {
        assert!(judge(20 * SECOND, Some(10)), "no news");
        assert!(judge(2 * SECOND, Some(11)), "woken");
        assert!(!judge(20 * SECOND, Some(11)));
        assert!(!judge(20 * SECOND, None), "deleted");
    }

    #[test]
    fn a_paused_server_wakes_nobody() {
        let judge = |pauses: &[_]| judge_paused(20 * SECOND, Some(11), pauses);
        assert!(judge(&[(0, 2, 17)]), "four seconds awake");
        assert!(judge(&[(0, 0, 8), (0, 9, 30)]), "one second awake");
        assert!(!judge(&[(0, 2, 14)]), "seven seconds awake");
        assert!(!judge(&[(1, 2, 17)]), "another server");
        assert!(!judge(&[(0, 0, 1), (0, 20, 40)]), "before and after");
    }
}

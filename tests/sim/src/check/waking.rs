//! Who waits for a key at a server hears of a change soon after that server has it.

use super::{Restored, Violation};
use crate::history::{Glimpse, History, Moment, Waiting, seconds};

const PROPERTY: &str = "waiters are woken";

/// How long after a server has a change its waiters may still wait. Nothing but the order of tasks lies in between,
/// unless the server is paused.
const DELAY_MAX: Moment = 6_000_000_000;

pub(super) fn waiters_are_woken(history: &History, _: Restored) -> Result<(), Violation> {
    for wait in &history.waits {
        let seen = history.glimpses.iter().find(|glimpse| {
            (glimpse.server, glimpse.life) == (wait.server, wait.life)
                && (wait.called..wait.returned.saturating_sub(DELAY_MAX)).contains(&glimpse.at)
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
    use crate::history::Row;

    const SECOND: Moment = 1_000_000_000;

    fn judge(returned: Moment, modify: Option<u64>) -> bool {
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
}

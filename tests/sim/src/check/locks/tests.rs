use super::*;
use crate::history::locks::{Free, Trouble};

const SECOND: Moment = 1_000_000_000;

fn made(ttl: u64, delay: u64) -> What {
    What::Begun(Made {
        ttl: (ttl > 0).then(|| Duration::from_secs(ttl)),
        delay: Duration::from_secs(delay),
        bound: false,
    })
}

/// Session, what, and between which seconds.
fn event((session, what, called, returned): (SessionNumber, What, u64, u64)) -> Event {
    Event {
        session,
        what,
        called: called * SECOND,
        returned: returned.saturating_mul(SECOND),
    }
}

fn history(events: &[(SessionNumber, What, u64, u64)]) -> LockHistory {
    LockHistory {
        events: events.iter().copied().map(event).collect(),
        limit: 2,
        kept: vec![7],
        ..LockHistory::default()
    }
}

fn judge(events: &[(SessionNumber, What, u64, u64)]) -> Result<(), &'static str> {
    check_locks(&history(events)).map_err(|violation| violation.property)
}

const LASTS: &str = "a session doesn't end before its TTL";
const GONE: &str = "a session that is gone stays gone";
const ONE: &str = "a lock has one holder";
const DELAY: &str = "a lock-delay is kept";
const ROOM: &str = "a semaphore has its limit";
const FENCE: &str = "fencing numbers rise";

const NEVER: u64 = u64::MAX;

fn holds(lock_index: u64, modify: u64) -> What {
    What::Holds {
        lock: 7,
        lock_index,
        modify,
    }
}

#[test]
fn lifetimes() {
    use What::{Ended, Gone, Renewed};
    let begun = (1, made(10, 0), 0, 1);
    assert_eq!(judge(&[begun, (1, Gone, 9, 11)]), Ok(()));
    assert_eq!(judge(&[begun, (1, Gone, 8, 9)]), Err(LASTS));
    assert_eq!(
        judge(&[begun, (1, Renewed, 5, 8), (1, Gone, 13, 14)]),
        Err(LASTS),
        "counted from when it was sent"
    );
    assert_eq!(
        judge(&[begun, (1, Renewed, 5, 8), (1, Gone, 14, 16)]),
        Ok(())
    );
    assert_eq!(
        judge(&[begun, (1, Ended, 2, NEVER), (1, Gone, 2, 3)]),
        Ok(())
    );
    assert_eq!(
        judge(&[(1, made(0, 0), 0, 1), (1, Gone, 900, 901)]),
        Err(LASTS),
        "without a TTL it lives for ever"
    );
    assert_eq!(
        judge(&[
            begun,
            (1, Ended, 2, NEVER),
            (1, Gone, 3, 4),
            (1, Renewed, 5, 6)
        ]),
        Err(GONE)
    );
}

#[test]
fn troubles_end_what_is_bound_to_them() {
    let bound = What::Begun(Made {
        ttl: None,
        delay: Duration::ZERO,
        bound: true,
    });
    let mut history = history(&[(1, bound, 5, 6), (1, What::Gone, 8, 9)]);
    assert!(check_locks(&history).is_err());
    for (called, returned, is_cause) in [(1, 4, false), (1, NEVER, true), (7, 8, true)] {
        history.troubles = vec![Trouble {
            called: called * SECOND,
            returned: returned.saturating_mul(SECOND),
        }];
        assert_eq!(check_locks(&history).is_ok(), is_cause, "{called}");
    }
}

#[test]
fn holders() {
    use What::{Acquired, Ended, Released};
    let (one, two) = ((1, made(0, 0), 0, 1), (2, made(10, 0), 0, 1));
    let taken = (1, Acquired(7), 1, 2);
    assert_eq!(judge(&[one, two, taken, (2, Acquired(7), 3, 4)]), Err(ONE));
    assert_eq!(judge(&[one, two, taken, (2, Acquired(8), 3, 4)]), Ok(()));
    assert_eq!(
        judge(&[
            one,
            two,
            taken,
            (1, Released(7), 3, 5),
            (2, Acquired(7), 3, 4)
        ]),
        Ok(())
    );
    assert_eq!(
        judge(&[
            one,
            two,
            (1, Released(7), 0, NEVER),
            taken,
            (2, Acquired(7), 3, 4)
        ]),
        Ok(()),
        "an old release may come late"
    );
    assert_eq!(
        judge(&[one, two, taken, (1, Ended, 3, 5), (2, Acquired(7), 3, 4)]),
        Ok(())
    );
    assert_eq!(
        judge(&[one, two, (2, Acquired(7), 1, 2), (1, Acquired(7), 9, 12)]),
        Ok(()),
        "it was not renewed"
    );
    let seen = (1, holds(1, 9), 4, 4);
    assert_eq!(
        judge(&[
            one,
            two,
            taken,
            (1, Released(7), 3, 4),
            seen,
            (2, Acquired(7), 5, 6)
        ]),
        Ok(()),
        "seen in the moment in which it was given up"
    );
    let mut history = history(&[one, taken]);
    history.frees = vec![Free {
        lock: 7,
        called: 3 * SECOND,
        returned: 4 * SECOND,
    }];
    assert!(check_locks(&history).is_err());
}

#[test]
fn delays() {
    use What::{Acquired, Ended, Released};
    let (one, two) = ((1, made(0, 15), 0, 1), (2, made(0, 0), 0, 1));
    let taken = (1, Acquired(7), 1, 2);
    let ended = (1, Ended, 3, 4);
    assert_eq!(
        judge(&[one, two, taken, ended, (2, Acquired(7), 14, 15)]),
        Err(DELAY)
    );
    assert_eq!(
        judge(&[one, two, taken, ended, (2, Acquired(7), 14, 16)]),
        Ok(())
    );
    assert_eq!(
        judge(&[
            one,
            two,
            taken,
            (1, holds(1, 9), 3, 4),
            ended,
            (2, Acquired(7), 14, 17)
        ]),
        Err(DELAY),
        "it was seen later"
    );
    assert_eq!(
        judge(&[
            one,
            two,
            taken,
            (1, Released(7), 2, 3),
            (2, Acquired(7), 3, 4)
        ]),
        Ok(())
    );
}

#[test]
fn semaphores() {
    use What::{Entered, Left};
    let mut events: Vec<_> = (1..4).map(|session| (session, made(0, 0), 0, 1)).collect();
    events.extend([(1, Entered(5), 1, 2), (2, Entered(5), 2, 3)]);
    assert_eq!(judge(&events), Ok(()));
    let third = (3, Entered(5), 4, 6);
    assert_eq!(judge(&[&events[..], &[third]].concat()), Err(ROOM));
    let left = (1, Left(5), 5, NEVER);
    assert_eq!(judge(&[&events[..], &[third, left]].concat()), Ok(()));
}

#[test]
fn fences() {
    let (one, two) = ((1, made(1, 0), 0, 1), (2, made(1, 0), 0, 1));
    let first = (1, holds(3, 10), 1, 2);
    assert_eq!(judge(&[one, two, first, (2, holds(4, 12), 3, 4)]), Ok(()));
    assert_eq!(
        judge(&[one, two, first, (2, holds(3, 12), 3, 4)]),
        Err(FENCE)
    );
    assert_eq!(
        judge(&[one, two, first, (2, holds(4, 10), 3, 4)]),
        Err(FENCE)
    );
}

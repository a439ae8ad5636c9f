//! Histories made by hand: good ones pass, bad ones don't.

mod naive;

use super::*;
use crate::history::{Glimpse, SweepOperation};

/// `called`, `returned`, action, outcome.
type Line = (Moment, Moment, Action, Outcome);

fn restored(generation: u64, _: u32) -> Option<Row> {
    (generation != 9).then_some(row(1000 + generation, 500 + generation))
}

fn row(value: u64, modify: u64) -> Row {
    Row {
        value,
        modify,
        session: None,
        lock_index: 0,
    }
}

fn found(value: u64, modify: u64) -> Outcome {
    Outcome::Found(Some(row(value, modify)))
}

const DONE: Outcome = Outcome::Applied(true);
const NOT_DONE: Outcome = Outcome::Applied(false);
const GONE: Outcome = Outcome::Found(None);

fn judge_with(lines: &[Line], sweeps: &[(Moment, Option<Moment>, Sweep)]) -> Verdict {
    let operations: Vec<Operation> = lines
        .iter()
        .enumerate()
        .map(|(client, (called, returned, action, outcome))| Operation {
            client: client as u64,
            key: 1,
            action: action.clone(),
            called: *called,
            returned: *returned,
            outcome: outcome.clone(),
        })
        .collect();
    let sweeps = sweeps
        .iter()
        .map(|(called, returned, sweep)| SweepOperation {
            sweep: sweep.clone(),
            called: *called,
            returned: returned.unwrap_or(0),
            is_known: returned.is_some(),
        })
        .collect();
    let history = History {
        sweeps,
        ..History::default()
    };
    let operations: Vec<&Operation> = operations.iter().collect();
    check_key(1, &operations, &history, restored).verdict
}

fn passes(lines: &[Line]) -> bool {
    match judge_with(lines, &[]) {
        Verdict::InOrder => true,
        Verdict::Impossible(_) => false,
        Verdict::Undecided => panic!("undecided"),
    }
}

fn put(value: u64) -> Action {
    Action::Put(value)
}

fn cas(expected: u64, seen: u64, value: u64) -> Action {
    Action::Cas {
        expected,
        seen: Some(seen),
        value,
    }
}

fn lock(session: u32, value: u64) -> Action {
    Action::Lock { session, value }
}

fn unlock(session: u32, value: u64) -> Action {
    Action::Unlock { session, value }
}

fn held(value: u64, modify: u64, session: u32, lock_index: u64) -> Outcome {
    Outcome::Found(Some(Row {
        value,
        modify,
        session: Some(session),
        lock_index,
    }))
}

#[test]
fn reads_see_writes_in_the_order_of_time() {
    assert!(passes(&[
        (0, 1, Action::Get, GONE),
        (2, 3, put(1), DONE),
        (4, 5, Action::Get, found(1, 10)),
        (6, 9, put(2), DONE),
        (7, 8, Action::Get, found(1, 10)),
        (10, 11, Action::Get, found(2, 11)),
    ]));
}

#[test]
fn a_read_that_misses_an_answered_write_is_found() {
    assert!(!passes(&[(0, 1, put(1), DONE), (2, 3, Action::Get, GONE),]));
    assert!(!passes(&[
        (0, 1, put(1), DONE),
        (2, 3, put(2), DONE),
        (4, 5, Action::Get, found(1, 10)),
    ]));
}

#[test]
fn two_reads_that_go_back_in_time_are_found() {
    let write = (0, 9, put(1), DONE);
    assert!(!passes(&[
        write.clone(),
        (1, 2, Action::Get, found(1, 10)),
        (3, 4, Action::Get, GONE),
    ]));
    assert!(passes(&[
        write,
        (1, 2, Action::Get, GONE),
        (3, 4, Action::Get, found(1, 10)),
    ]));
}

#[test]
fn a_write_of_unknown_outcome_may_happen_late_or_never_but_once() {
    let write = (0, 1, put(1), Outcome::Unknown);
    assert!(passes(&[write.clone(), (2, 3, Action::Get, GONE)]));
    assert!(passes(&[
        write.clone(),
        (2, 3, Action::Get, GONE),
        (4, 5, Action::Get, found(1, 10)),
    ]));
    assert!(!passes(&[
        write,
        (2, 3, Action::Get, found(1, 10)),
        (4, 5, put(2), DONE),
        (6, 7, Action::Get, found(1, 12)),
    ]));
}

#[test]
fn a_write_that_happens_twice_is_found_by_its_index() {
    assert!(!passes(&[
        (0, 1, put(1), DONE),
        (2, 3, Action::Get, found(1, 10)),
        (4, 5, Action::Get, found(1, 11)),
    ]));
}

#[test]
fn a_value_nobody_wrote_is_found() {
    assert!(!passes(&[(2, 3, Action::Get, found(7, 10))]));
}

#[test]
fn cas_holds_if_and_only_if_the_index_is_the_one_seen() {
    let begin = [(0, 1, put(1), DONE), (2, 3, Action::Get, found(1, 10))];
    let with = |line: Line| passes(&[begin[0].clone(), begin[1].clone(), line]);
    assert!(with((4, 5, cas(10, 1, 2), DONE)));
    assert!(!with((4, 5, cas(10, 1, 2), NOT_DONE)));
    assert!(with((4, 5, cas(9, 1, 2), NOT_DONE)));
    assert!(!with((4, 5, cas(9, 1, 2), DONE)));
    assert!(with((4, 5, Action::DeleteCas { expected: 10 }, DONE)));
    assert!(!with((4, 5, Action::DeleteCas { expected: 9 }, DONE)));
    let create = Action::Cas {
        expected: 0,
        seen: None,
        value: 3,
    };
    assert!(!with((4, 5, create.clone(), DONE)));
    assert!(passes(&[(0, 1, create.clone(), DONE)]));
    assert!(!passes(&[(0, 1, create, NOT_DONE)]));
}

#[test]
fn two_cas_on_one_index_cannot_both_win() {
    assert!(!passes(&[
        (0, 1, put(1), DONE),
        (2, 3, Action::Get, found(1, 10)),
        (4, 9, cas(10, 1, 2), DONE),
        (4, 9, cas(10, 1, 3), DONE),
    ]));
}

#[test]
fn a_deleted_key_does_not_come_back() {
    assert!(!passes(&[
        (0, 1, put(1), DONE),
        (2, 3, Action::Delete, DONE),
        (4, 5, Action::Get, found(1, 10)),
    ]));
}

#[test]
fn a_lock_has_one_holder() {
    let sessions = [(0, Some(1), Sweep::Begin(1)), (0, Some(1), Sweep::Begin(2))];
    let judge = |lines: &[Line]| judge_with(lines, &sessions) == Verdict::InOrder;
    assert!(judge(&[
        (2, 3, lock(1, 1), DONE),
        (4, 5, lock(2, 2), NOT_DONE),
        (6, 7, Action::Get, held(1, 10, 1, 1)),
        (8, 9, unlock(1, 3), DONE),
        (10, 11, lock(2, 4), DONE),
        (12, 13, Action::Get, held(4, 12, 2, 2)),
    ]));
    assert!(!judge(&[
        (2, 3, lock(1, 1), DONE),
        (4, 5, lock(2, 2), DONE),
    ]));
    assert!(!judge(&[(2, 3, lock(1, 1), NOT_DONE)]), "nobody held it");
    assert!(!judge(&[
        (2, 3, lock(1, 1), DONE),
        (4, 5, unlock(2, 2), DONE),
    ]));
}

#[test]
fn the_end_of_a_session_frees_its_keys_and_the_session_is_gone() {
    let end = |deletes| {
        [
            (0, Some(1), Sweep::Begin(1)),
            (0, Some(1), Sweep::Begin(2)),
            (
                10,
                Some(11),
                Sweep::End {
                    session: 1,
                    deletes,
                },
            ),
        ]
    };
    let locked = (2, 3, lock(1, 1), DONE);
    let judge = |deletes, line: Line| {
        judge_with(&[locked.clone(), line], &end(deletes)) == Verdict::InOrder
    };
    assert!(judge(false, (12, 13, lock(2, 2), DONE)));
    assert!(!judge(false, (12, 13, lock(2, 2), NOT_DONE)));
    assert!(!judge(false, (12, 13, lock(1, 2), DONE)));
    assert!(judge(false, (12, 13, lock(1, 2), Outcome::NoSession)));
    assert!(!judge(false, (4, 5, lock(2, 2), Outcome::NoSession)));
    assert!(!judge(false, (12, 13, Action::Get, held(1, 10, 1, 1))));
    assert!(!judge(false, (12, 13, Action::Get, GONE)));
    assert!(judge(true, (12, 13, Action::Get, GONE)));
}

#[test]
fn a_restore_replaces_keys_and_ends_sessions() {
    let sweeps = [
        (0, Some(1), Sweep::Begin(1)),
        (10, Some(20), Sweep::Restore(3)),
    ];
    let judge = |line: Line| judge_with(&[(2, 3, put(1), DONE), line], &sweeps) == Verdict::InOrder;
    assert!(judge((21, 22, Action::Get, found(1003, 503))));
    assert!(
        !judge((21, 22, Action::Get, found(1003, 504))),
        "another index"
    );
    assert!(!judge((21, 22, Action::Get, found(1, 10))));
    assert!(judge((15, 16, Action::Get, found(1, 10))), "not yet");
    assert!(!judge((21, 22, lock(1, 2), DONE)));
    assert!(judge((21, 22, lock(1, 2), Outcome::NoSession)));
}

#[test]
fn a_part_leaves_locks_and_sessions() {
    let part = |generation, merges| {
        [
            (0, Some(1), Sweep::Begin(1)),
            (10, Some(20), Sweep::RestorePart { generation, merges }),
        ]
    };
    let judge = |sweeps: &[(u64, Option<u64>, Sweep)], line: Line| {
        judge_with(&[(2, 3, lock(1, 1), DONE), line], sweeps) == Verdict::InOrder
    };
    let read = |outcome| (21, 22, Action::Get, outcome);
    assert!(judge(&part(3, false), read(held(1003, 30, 1, 1))));
    assert!(
        !judge(&part(3, false), read(held(1, 10, 1, 1))),
        "not written"
    );
    assert!(!judge(&part(3, false), read(found(1003, 30))), "unlocked");
    assert!(judge(&part(9, false), read(GONE)));
    assert!(!judge(&part(9, true), read(GONE)), "nothing goes");
    assert!(judge(&part(9, true), read(held(1, 10, 1, 1))));
    assert!(judge(&part(3, true), (21, 22, lock(1, 2), DONE)));
}

#[test]
fn a_restore_of_unknown_outcome_happens_once_at_most() {
    let sweeps = [(4, None, Sweep::Restore(3))];
    let judge = |lines: &[Line]| judge_with(lines, &sweeps) == Verdict::InOrder;
    assert!(judge(&[
        (2, 3, put(1), DONE),
        (30, 31, Action::Get, found(1, 10)),
        (40, 41, Action::Get, found(1003, 503)),
    ]));
    assert!(!judge(&[
        (20, 21, Action::Get, found(1003, 503)),
        (30, 31, put(1), DONE),
        (40, 41, Action::Get, found(1003, 503)),
    ]));
}

#[test]
fn what_a_server_showed_has_happened() {
    let operations = [
        Operation {
            client: 1,
            key: 1,
            action: put(1),
            called: 0,
            returned: 0,
            outcome: Outcome::Unknown,
        },
        Operation {
            client: 2,
            key: 1,
            action: Action::Get,
            called: 20,
            returned: 21,
            outcome: GONE,
        },
    ];
    let mut history = History::default();
    let operations: Vec<&Operation> = operations.iter().collect();
    let verdict = |history: &History| check_key(1, &operations, history, restored).verdict;
    assert_eq!(verdict(&history), Verdict::InOrder);
    history.glimpses.push(Glimpse {
        server: 0,
        life: 1,
        at: 10,
        index: 9,
        generation: 0,
        rows: vec![(1, row(1, 8))],
    });
    assert!(matches!(verdict(&history), Verdict::Impossible(_)));
}

#[test]
fn many_writes_of_unknown_outcome_are_decided() {
    let mut lines: Vec<Line> = (0..40)
        .map(|number| (number, number, put(100 + number), Outcome::Unknown))
        .collect();
    for number in 0..200 {
        let at = 100 + number * 10;
        lines.push((at, at + 4, put(1000 + number), DONE));
        lines.push((
            at + 5,
            at + 6,
            Action::Get,
            found(1000 + number, 2 * number + 10),
        ));
    }
    assert!(passes(&lines));
}

#[test]
fn what_happened_at_most_once_explains_one_thing() {
    let create = Action::Cas {
        expected: 0,
        seen: None,
        value: 1,
    };
    let is_there = |at| (at, at, Action::DeleteCas { expected: 5 }, NOT_DONE);
    let lines = [
        (0, 0, create, Outcome::Unknown),
        is_there(1),
        (2, 3, Action::Delete, DONE),
        (4, 5, put(2), DONE),
        is_there(6),
    ];
    assert!(passes(&lines));
    let without_put = [&lines[..3], &lines[4..]].concat();
    assert!(!passes(&without_put));
}

#[test]
fn unknown_locks_and_ends_explain_refusals_and_no_more() {
    let sessions = [
        (0, Some(1), Sweep::Begin(1)),
        (0, Some(1), Sweep::Begin(2)),
        (
            4,
            None,
            Sweep::End {
                session: 1,
                deletes: false,
            },
        ),
    ];
    let judge = |lines: &[Line]| judge_with(lines, &sessions) == Verdict::InOrder;
    let lines = [
        (2, 2, lock(1, 1), Outcome::Unknown),
        (5, 6, lock(2, 2), NOT_DONE),
        (7, 8, lock(2, 3), DONE),
        (9, 10, lock(1, 4), Outcome::NoSession),
    ];
    assert!(judge(&lines));
    assert!(!judge(&lines[1..]), "nobody held it");
    let mut alive = lines.to_vec();
    alive[3].3 = NOT_DONE;
    assert!(!judge(&alive), "what freed the key ended the session");
    alive[3] = (3, 4, lock(1, 4), Outcome::NoSession);
    assert!(judge(&alive[3..]), "it may have ended by then");
    assert!(!judge(&alive), "it may not, and have held the key later");
}

#[test]
fn many_doubts_of_all_kinds_are_decided() {
    let mut lines: Vec<Line> = Vec::new();
    let mut sweeps = Vec::new();
    for number in 0..12_u32 {
        let at = 100 * u64::from(number);
        let value = 1000 + 10 * u64::from(number);
        sweeps.push((at, Some(at + 1), Sweep::Begin(number)));
        let doubts = [
            put(value),
            Action::Delete,
            Action::DeleteCas { expected: 7 },
            lock(number, value + 1),
            unlock(number, value + 2),
        ];
        lines.extend(doubts.map(|action| (at + 2, at + 2, action, Outcome::Unknown)));
        sweeps.push((
            at + 3,
            None,
            Sweep::End {
                session: number,
                deletes: number == 3,
            },
        ));
        lines.push((at + 10, at + 20, put(value + 3), DONE));
        lines.push((
            at + 30,
            at + 31,
            Action::Get,
            found(value + 3, 10 + 2 * u64::from(number)),
        ));
        lines.push((at + 40, at + 41, Action::Get, GONE));
    }
    assert_eq!(judge_with(&lines, &sweeps), Verdict::InOrder);
    let again = found(1003, 10);
    lines.push((5000, 5001, Action::Get, again));
    assert!(matches!(
        judge_with(&lines, &sweeps),
        Verdict::Impossible(_)
    ));
}

#[test]
fn what_is_too_much_to_judge_is_neither_good_nor_bad() {
    let operation = |key: u32, value: u64| Operation {
        client: value,
        key,
        action: put(value),
        called: 0,
        returned: 100,
        outcome: DONE,
    };
    let mut history = History {
        operations: (0..200).map(|value| operation(1, value)).collect(),
        ..History::default()
    };
    let property = |history: &History| {
        let judged = keys_are_linearizable(history, restored);
        judged.map_err(|violation| violation.property)
    };
    assert_eq!(property(&history), Err(UNDECIDED));
    let stale = Operation {
        action: Action::Get,
        called: 200,
        returned: 201,
        outcome: GONE,
        ..operation(2, 0)
    };
    history.operations.extend([operation(2, 1000), stale]);
    assert_eq!(property(&history), Err(PROPERTY), "another key is bad");
}

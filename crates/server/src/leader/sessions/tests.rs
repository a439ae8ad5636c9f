use tokio::time::advance;

use super::*;

const TTL: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Timers of these sessions, as they run.
fn running(numbers: std::ops::Range<u128>) -> Timers {
    let timers = Timers::default();
    timers.begin(1);
    timers.arm_all(numbers.map(|number| (id(number), TTL)));
    timers
}

fn is_consistent(timers: &Timers) {
    let all = timers.all();
    for (at, id) in &all.queue {
        assert_eq!(all.timers[id].queued, *at);
    }
    let waiting = all.timers.values().filter(|timer| !timer.is_ending);
    assert!(waiting.count() <= all.queue.len());
    assert!(all.queue.len() <= all.timers.len());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_moves_the_end_and_not_the_queue() {
    let timers = running(1..3);
    advance(TTL).await;
    assert_eq!(timers.renew(id(1)), Renewal::Done);
    assert_eq!(timers.due(), None);
    advance(TTL).await;
    assert_eq!(timers.due(), Some(id(2)));
    assert_eq!(timers.due(), None, "the other was renewed");
    advance(TTL - SECOND).await;
    assert_eq!(timers.due(), None);
    advance(SECOND).await;
    assert_eq!(timers.due(), Some(id(1)));
    is_consistent(&timers);
}

#[tokio::test(start_paused = true)]
async fn what_is_ending_can_not_be_renewed_until_that_is_settled() {
    let timers = running(1..2);
    advance(TTL * 2).await;
    assert_eq!(timers.due(), Some(id(1)));
    assert_eq!(timers.renew(id(1)), Renewal::Ending);
    timers.retry(id(1));
    assert_eq!(timers.due(), None);
    assert_eq!(timers.renew(id(1)), Renewal::Ending, "nobody knows");
    advance(RETRY).await;
    assert_eq!(timers.due(), Some(id(1)));
    timers.done(id(1), None);
    assert_eq!(timers.renew(id(1)), Renewal::Missing);
    is_consistent(&timers);
}

#[tokio::test(start_paused = true)]
async fn what_is_ending_outlasts_a_restore_and_a_pause_of_the_term() {
    let timers = running(1..3);
    advance(TTL * 2).await;
    assert_eq!(timers.due(), Some(id(1)));
    timers.replaced();
    assert_eq!(timers.renew(id(2)), Renewal::Off);
    assert!(timers.is_arming());
    timers.arm_all((1..3).map(|number| (id(number), TTL)));
    assert_eq!(timers.renew(id(1)), Renewal::Ending);
    assert_eq!(timers.renew(id(2)), Renewal::Done);
    is_consistent(&timers);
    timers.stop();
    assert_eq!(timers.renew(id(2)), Renewal::Off);
    timers.begin(1);
    timers.arm_all((1..3).map(|number| (id(number), TTL)));
    assert_eq!(timers.due(), Some(id(1)), "tried again in the same term");
    timers.done(id(1), Some(TTL));
    assert_eq!(
        timers.renew(id(1)),
        Renewal::Done,
        "the restore has brought it back"
    );
    timers.stop();
    timers.begin(2);
    timers.arm_all((1..3).map(|number| (id(number), TTL)));
    assert_eq!(timers.due(), None, "another term");
    is_consistent(&timers);
}

#[tokio::test(start_paused = true)]
async fn sessions_come_and_go() {
    let timers = running(1..2);
    timers.created(id(2), Some(TTL));
    timers.created(id(3), None);
    timers.ended(&[id(1), id(9)]);
    advance(TTL * 2).await;
    assert_eq!(timers.due(), Some(id(2)));
    assert_eq!(timers.due(), None);
    is_consistent(&timers);
    timers.stop();
    timers.created(id(4), Some(TTL));
    timers.begin(2);
    timers.created(id(5), Some(TTL));
    timers.arm_all([(id(6), TTL)].into_iter());
    is_consistent(&timers);
}

#[tokio::test(start_paused = true)]
async fn time_in_which_the_process_did_not_run_does_not_count() {
    let timers = running(1..2);
    advance(TTL).await;
    // An hour of which nobody here knows.
    advance(SECOND * 3600).await;
    timers.miss(SECOND * 3600);
    assert_eq!(timers.due(), None);
    assert_eq!(timers.left(id(1)), Some(TTL));
    advance(TTL).await;
    assert_eq!(timers.due(), Some(id(1)));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_cost_a_step_each() {
    const MANY: u128 = 100_000;
    let timers = running(0..MANY);
    advance(TTL).await;
    for number in (0..MANY).rev() {
        assert_eq!(timers.renew(id(number)), Renewal::Done);
    }
    advance(TTL).await;
    assert_eq!(timers.due(), None);
    assert_eq!(timers.wake(), Some(Instant::now() + PULSE));
    advance(TTL).await;
    for _ in 0..MANY {
        timers.done(timers.due().unwrap(), None);
    }
    assert_eq!(timers.wake(), None);
}

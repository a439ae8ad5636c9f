//! Sessions with a TTL end when nobody renews them.
//!
//! The promise: a session doesn't end for lack of renewal before its TTL has passed since it was created and since the
//! last renewal that was acknowledged was sent. What makes it hold:
//!
//! - A timer runs for twice the TTL, from when this server applied the creation or took the renewal.
//! - Timers are no part of the log. Whoever comes to lead finds all sessions once it has caught up, and gives each of
//!   them twice its TTL from then on. It needn't know of renewals that an earlier leader took: those were taken while that
//!   one had a lease, or had just asked a majority, so before the next one was ready, and are older than its timers.
//! - A renewal that arrives when the end is on its way to the log waits for what becomes of that. Until then nobody can
//!   say whether there is a session to renew; to acknowledge it would be a lie if there isn't.
//! - What an earlier leader wanted to end can't take effect later than in its own term: the entry names the term, see
//!   [`Command::SessionExpire`]. So a leader begins with a clean slate, and what it has on the way in its own term it
//!   keeps in mind, whatever else begins anew.
//! - A process that didn't run took no renewals while they were waiting in its queues. Time that it missed doesn't count.
//!
//! All timers stand in one queue, and a renewal changes one number: a timer that comes due and was renewed meanwhile is
//! put into the queue again. So a hundred thousand sessions cost no task, and of the clock what few of them come due.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::{Answer, Authority, Command, Error, Reply, Session, Uuid, guard_session};
use rpc::Consistency;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access;
use crate::core::Core;
use crate::figures;
use crate::read::be_fresh;
use crate::write::propose;

/// How many TTLs a session lives after a renewal; the original does the same.
const LENIENCY: u32 = 2;

/// How many ends may be on their way to the log at the same time; the rest waits for its turn.
const ENDINGS_MAX: usize = 256;

/// How long after a failure an end is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often at least the time is looked at while there are timers, to notice that the process didn't run.
const PULSE: Duration = Duration::from_secs(1);

/// Who wakes up so much too late didn't run meanwhile.
const LATE: Duration = Duration::from_millis(100);

/// The timers of all sessions that have a TTL. They run at the leader only.
#[derive(Default)]
pub(crate) struct Timers {
    all: Mutex<All>,
    /// Told when the queue has a new first, or everything is new.
    changed: Notify,
    /// Told when it is known what became of an end, or nobody here will know.
    settled: Notify,
}

#[derive(Default)]
struct All {
    phase: Phase,
    term: u64,
    timers: BTreeMap<Uuid, Timer>,
    /// When to look at which: each timer once, but for those whose end is on its way.
    queue: BTreeSet<(Instant, Uuid)>,
    /// How long this process didn't run, all in all: timers count what is left of the time.
    missed: Duration,
}

/// Whether timers run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Another server leads, or none.
    #[default]
    Off,
    /// What is created is noted already; what there was has yet to be.
    Arming,
    /// All sessions have theirs.
    On,
}

struct Timer {
    ttl: Duration,
    /// When the session is to end, without what this process missed.
    ends: Instant,
    /// Where it stands in the queue, if it does.
    queued: Instant,
    /// Whether its end is on its way to the log, or was and nobody knows what became of it.
    is_ending: bool,
}

/// What became of a renewal.
#[derive(Debug, PartialEq, Eq)]
enum Renewal {
    /// The session has all its time again.
    Done,
    /// Its end is on its way to the log.
    Ending,
    /// There is no such timer.
    Missing,
    /// Timers don't run here, or don't yet.
    Off,
}

impl All {
    /// The time that timers go by.
    fn now(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.missed).unwrap_or(now)
    }

    /// Gives a session all its time, from now on.
    fn arm(&mut self, id: Uuid, ttl: Duration) {
        let ends = self.now() + ttl * LENIENCY;
        match self.timers.entry(id) {
            Entry::Occupied(mut timer) => {
                let timer = timer.get_mut();
                timer.ttl = ttl;
                timer.ends = ends;
            }
            Entry::Vacant(place) => {
                place.insert(Timer {
                    ttl,
                    ends,
                    queued: ends,
                    is_ending: false,
                });
                self.queue.insert((ends, id));
            }
        }
    }

    fn put_back(&mut self, id: Uuid, at: Instant) {
        if let Some(timer) = self.timers.get_mut(&id) {
            self.queue.remove(&(timer.queued, id));
            timer.queued = at;
            self.queue.insert((at, id));
        }
    }

    fn remove(&mut self, id: Uuid) {
        if let Some(timer) = self.timers.remove(&id) {
            self.queue.remove(&(timer.queued, id));
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a gauge need not be exact beyond 2^52"
)]
fn show(all: &All) {
    figures::TIMERS.set(all.timers.len() as f64);
}

impl Timers {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session was created. Said before anybody can see it.
    pub(crate) fn created(&self, id: Uuid, ttl: Option<Duration>) {
        let Some(ttl) = ttl else { return };
        let mut all = self.all();
        if all.phase == Phase::Off {
            return;
        }
        all.arm(id, ttl);
        show(&all);
        let is_first = all.queue.first().is_some_and(|(_, first)| *first == id);
        drop(all);
        if is_first {
            self.changed.notify_waiters();
        }
    }

    /// Sessions are gone, whatever ended them. Said when nobody can see them any more.
    pub(crate) fn ended(&self, ids: &[Uuid]) {
        if ids.is_empty() {
            return;
        }
        let mut all = self.all();
        if all.phase == Phase::Off {
            return;
        }
        for id in ids {
            all.remove(*id);
        }
        show(&all);
        drop(all);
        self.settled.notify_waiters();
    }

    /// The whole state is another. Said when it can be seen.
    pub(crate) fn replaced(&self) {
        let mut all = self.all();
        if all.phase == Phase::Off {
            return;
        }
        all.phase = Phase::Arming;
        let All { timers, queue, .. } = &mut *all;
        timers.retain(|_, timer| timer.is_ending);
        queue.retain(|(_, id)| timers.contains_key(id));
        drop(all);
        self.changed.notify_waiters();
    }

    /// Begins to note what is created, as the leader of this term.
    fn begin(&self, term: u64) {
        let mut all = self.all();
        if all.term != term {
            // What was on its way in another term has come to an end, or to nothing.
            let missed = all.missed;
            *all = All {
                term,
                missed,
                ..All::default()
            };
        }
        all.phase = Phase::Arming;
    }

    /// Gives all of these sessions all their time; those that are there by now were created meanwhile.
    fn arm_all(&self, sessions: impl Iterator<Item = (Uuid, Duration)>) {
        let mut all = self.all();
        for (id, ttl) in sessions {
            all.arm(id, ttl);
        }
        all.phase = Phase::On;
        show(&all);
    }

    /// Timers run here no more.
    fn stop(&self) {
        let mut all = self.all();
        all.phase = Phase::Off;
        // What is on its way stays in mind, and would have to be tried again, for this term might go on.
        let now = all.now();
        all.timers.retain(|_, timer| timer.is_ending);
        all.queue.clear();
        let ending: Vec<Uuid> = all.timers.keys().copied().collect();
        for id in ending {
            all.put_back(id, now);
        }
        figures::TIMERS.set(0.0);
        drop(all);
        self.settled.notify_waiters();
    }

    fn is_arming(&self) -> bool {
        self.all().phase == Phase::Arming
    }

    /// The next session whose time is up; its end counts as on its way from here on, and until it is known how that went.
    fn due(&self) -> Option<Uuid> {
        let mut all = self.all();
        let now = all.now();
        loop {
            let (at, id) = *all.queue.first()?;
            if at > now {
                return None;
            }
            let Some(timer) = all.timers.get_mut(&id) else {
                // One that has no timer can't stand in the queue.
                all.queue.pop_first();
                continue;
            };
            if timer.ends > now && !timer.is_ending {
                let ends = timer.ends;
                all.put_back(id, ends);
                continue;
            }
            timer.is_ending = true;
            all.queue.pop_first();
            return Some(id);
        }
    }

    /// An end came to nothing, or nobody knows to what.
    fn retry(&self, id: Uuid) {
        let mut all = self.all();
        let at = all.now() + RETRY;
        all.put_back(id, at);
    }

    /// An end took place, or there was nothing to end. If a restore has brought the session back since, it lives on for
    /// this long at least.
    fn done(&self, id: Uuid, lifetime: Option<Duration>) {
        let mut all = self.all();
        all.remove(id);
        if let Some(ttl) = lifetime {
            all.arm(id, ttl);
        }
        show(&all);
        drop(all);
        self.settled.notify_waiters();
    }

    /// When to look at the queue again, by the clock.
    fn wake(&self) -> Option<Instant> {
        let all = self.all();
        let (first, _) = all.queue.first()?;
        Some((*first + all.missed).min(Instant::now() + PULSE))
    }

    /// So long this process didn't run.
    fn miss(&self, span: Duration) {
        self.all().missed += span;
    }

    fn renew(&self, id: Uuid) -> Renewal {
        let mut all = self.all();
        if all.phase != Phase::On {
            return Renewal::Off;
        }
        let now = all.now();
        match all.timers.get_mut(&id) {
            None => Renewal::Missing,
            Some(timer) if timer.is_ending => Renewal::Ending,
            Some(timer) => {
                timer.ends = now + timer.ttl * LENIENCY;
                Renewal::Done
            }
        }
    }

    /// How long this session has if nobody renews it, if its timer runs here.
    fn left(&self, id: Uuid) -> Option<Duration> {
        let all = self.all();
        if all.phase != Phase::On {
            return None;
        }
        let timer = all.timers.get(&id)?;
        Some(timer.ends.saturating_duration_since(all.now()))
    }

    /// Adds what only the leader knows to an answer.
    pub(crate) fn complete(&self, answer: &mut Answer) {
        if let Answer::SessionInfo(Some(standing)) = answer
            && standing.session.lifetime().is_some()
        {
            standing.left = self.left(standing.session.id);
        }
    }
}

/// Lets timers run, for ever; dropped when this server leads no more.
pub(super) async fn run(core: &Core, term: u64) {
    let timers = &*core.timers;
    timers.begin(term);
    let _stop = Stop(timers);
    let mut endings = FuturesUnordered::new();
    loop {
        let mut changed = pin!(timers.changed.notified());
        // Enrolled before looking, so that nothing slips in between.
        changed.as_mut().enable();
        if timers.is_arming() {
            let view = core.shared.view();
            let with_ttl = |session: &Arc<Session>| Some((session.id, session.lifetime()?));
            timers.arm_all(view.sessions().filter_map(with_ttl));
        }
        while endings.len() < ENDINGS_MAX
            && let Some(id) = timers.due()
        {
            endings.push(end(core, id, term));
        }
        // With as many on their way as may be, the rest is overdue, and the next that comes back makes room.
        let wake = if endings.len() < ENDINGS_MAX {
            timers.wake()
        } else {
            Some(Instant::now() + PULSE)
        };
        tokio::select! {
            biased;
            Some((id, ended)) = endings.next(), if !endings.is_empty() => match ended {
                Ok(_) => {
                    let view = core.shared.view();
                    timers.done(id, view.session(id).and_then(|session| session.lifetime()));
                }
                Err(error) => {
                    tracing::warn!("cannot end session {id}: {error}; trying again in {RETRY:?}");
                    timers.retry(id);
                }
            },
            () = &mut changed => {}
            () = sleep_until(wake) => {}
        }
        // Whatever woke it: before anything else comes due.
        let late = wake.map_or(Duration::ZERO, |at| at.elapsed());
        if late >= LATE {
            timers.miss(late);
        }
    }
}

/// Ends a session whose time is up.
async fn end(core: &Core, id: Uuid, term: u64) -> (Uuid, Result<Reply, Error>) {
    if core.shared.view().session(id).is_none() {
        return (id, Ok(Reply::Nothing));
    }
    tracing::info!("session {id} was not renewed in time and ends");
    let began = Instant::now();
    let ended = propose(core, Command::SessionExpire { id, term }).await;
    figures::note(&figures::EXPIRE, began);
    (id, ended)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Stops the timers with the duty that runs them.
struct Stop<'a>(&'a Timers);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Gives a session all its time again, if its asker may, and says which it is; [`Error::NoLeader`] means that another
/// server has to.
pub(crate) async fn renew(
    core: &Core,
    id: Uuid,
    authority: &Authority,
) -> Result<Option<Arc<Session>>, Error> {
    let began = Instant::now();
    let mut was_missing = false;
    loop {
        let mut settled = pin!(core.timers.settled.notified());
        settled.as_mut().enable();
        // Before the timer is touched: whoever leads next gives sessions their time after the lease that this is about.
        be_fresh(core, Consistency::Default).await?;
        let Some(session) = core.shared.view().session(id).cloned() else {
            return Ok(None);
        };
        access::told(guard_session(&session, authority), "SessionRenew")?;
        if session.lifetime().is_some() {
            match core.timers.renew(id) {
                Renewal::Done => {}
                Renewal::Ending => {
                    settled.await;
                    continue;
                }
                // It ended since it was looked for; a timer is there before its session is.
                Renewal::Missing if !was_missing => {
                    was_missing = true;
                    continue;
                }
                Renewal::Missing | Renewal::Off => return Err(Error::NoLeader),
            }
        }
        figures::note(&figures::RENEW, began);
        return Ok(Some(session));
    }
}

#[cfg(test)]
mod tests;

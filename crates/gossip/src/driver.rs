//! The one task that owns the state of the pool: all waiting in one place, all change in another.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::config::{Config, LABEL_LENGTH_MAX, StartError};
use crate::event::Event;
use crate::exchange::{Clocks, KeyAnswer};
use crate::figures;
use crate::handle::{Joined, KeyReport, View, Wish};
use crate::item;
use crate::keyring::{Change, Changed};
use crate::known::{self, AfterLeave, KnownFile, Written};
use crate::network::{Arrival, Network, NetworkFuture};
use crate::pool::{Asked, Outcome, Output, Pool, Purpose};

/// How many requests of ours may be under way; more wait in line.
const EXCHANGES_MAX: usize = 32;

/// How many requests may wait in line. Beyond that they fail at once, as if the other side had not answered.
const EXCHANGES_WAITING_MAX: usize = 65_536;

/// How often members are tried that were known before a restart and haven't been met since.
const REJOIN_INTERVAL: Duration = Duration::from_secs(30);

/// How many datagrams are read at a time before timers get their turn.
const ARRIVALS_AT_ONCE: usize = 1024;

/// Makes the task of a member.
pub(crate) fn start(
    config: Config,
    network: Arc<dyn Network>,
    view: Arc<View>,
    wishes: mpsc::Receiver<Wish>,
) -> Result<NetworkFuture<'static, ()>, StartError> {
    if !item::is_name(&config.name) {
        return Err(StartError::Name(config.name));
    }
    if config.label.len() > LABEL_LENGTH_MAX {
        return Err(StartError::Label(config.label.len()));
    }
    item::check_tags(&config.tags)?;

    let now = Instant::now();
    let mut address = config.advertise;
    if address.port() == 0 {
        address.set_port(network.local().port());
    }
    let mut remembered = known::Known::default();
    let mut file = None;
    if let Some(medium) = &config.known {
        let after_leave = if config.rejoin_after_leave {
            AfterLeave::Rejoin
        } else {
            AfterLeave::Forget
        };
        let opened = KnownFile::open(Arc::clone(medium), after_leave, now);
        let (opened, known) = opened.map_err(StartError::Known)?;
        remembered = known;
        file = Some(opened);
    }
    let name = config.name.clone();
    let timeout = config.timing.stream_timeout;
    let rejoin_until = now + config.reconnect_timeout;
    let mut pool = Pool::new(config, address, now);
    let clocks = Clocks {
        member: remembered.clocks.members,
        event: remembered.clocks.events,
        query: remembered.clocks.queries,
    };
    pool.remember(clocks, remembered.coordinate);
    network.screen(pool.screen());
    remembered.members.remove(&name);
    let mut driver = Driver {
        pool,
        network: Arc::clone(&network),
        view,
        wishes,
        timeout,
        name,
        file,
        rejoin: remembered.members.into_iter().collect(),
        rejoin_at: Some(now),
        rejoin_until,
        rejoined: 0,
        exchanges: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        writes: FuturesUnordered::new(),
        changes: VecDeque::new(),
        change: None,
        has_arrivals: false,
        joins: BTreeMap::new(),
        key_reports: BTreeMap::new(),
        leavers: Vec::new(),
        callers: 0,
    };
    // What is shown must be there before the first caller looks.
    driver.settle();
    Ok(network.run(Box::pin(driver.run())))
}

struct Driver {
    pool: Pool,
    network: Arc<dyn Network>,
    view: Arc<View>,
    wishes: mpsc::Receiver<Wish>,
    timeout: Duration,
    name: String,
    file: Option<KnownFile>,
    /// Where members were before this one was restarted, to be tried one after another: all of them until one answers,
    /// and from then on now and then those that haven't been met, since they may be on the other side of a split.
    rejoin: VecDeque<(String, SocketAddr)>,
    /// When the next one is due; `None` while one is being tried.
    rejoin_at: Option<Instant>,
    /// When they are given up.
    rejoin_until: Instant,
    /// How many of them were tried in this round.
    rejoined: usize,
    exchanges: FuturesUnordered<NetworkFuture<'static, Answered>>,
    waiting: VecDeque<(SocketAddr, Bytes, Purpose)>,
    writes: FuturesUnordered<NetworkFuture<'static, Option<Written>>>,
    /// Changes of keys that wait for the one that is being made.
    changes: VecDeque<(Change, Changer)>,
    change: Option<NetworkFuture<'static, (Option<Changed>, Changer)>>,
    /// Whether the last turn was about something that arrived.
    has_arrivals: bool,
    joins: BTreeMap<u64, Join>,
    key_reports: BTreeMap<u64, Keys>,
    leavers: Vec<oneshot::Sender<()>>,
    callers: u64,
}

/// A request of ours, with what came of it.
type Answered = (SocketAddr, Purpose, io::Result<Bytes>);

/// A caller who wants to join; without an answer to give it is this member itself, after a restart.
struct Join {
    joined: Joined,
    missing: usize,
    answer: Option<oneshot::Sender<Joined>>,
}

/// A caller who asked for an operation on keys.
struct Keys {
    report: KeyReport,
    missing: usize,
    until: Instant,
    answer: oneshot::Sender<KeyReport>,
}

/// Who wants a change of keys.
enum Changer {
    /// A caller of this member.
    Caller(u64),
    /// Another member.
    Member(oneshot::Sender<Bytes>),
}

/// Why the task got to run.
enum Cause {
    Arrival(Arrival),
    Answered(Answered),
    Written(Option<Written>),
    Changed(Option<Changed>, Changer),
    Wish(Wish),
    TagsChanged,
    Timer,
    /// Nobody holds a handle any more.
    Abandoned,
}

impl Driver {
    async fn run(mut self) {
        self.rejoin_due(Instant::now());
        self.settle();
        loop {
            let cause = self.select().await;
            let now = Instant::now();
            self.has_arrivals = matches!(cause, Cause::Arrival(_));
            self.pool.notice(now);
            // What has arrived meanwhile is read before an overdue timer accuses anybody.
            for _ in 0..ARRIVALS_AT_ONCE {
                let Some(arrival) = self.network.arrived() else {
                    break;
                };
                self.arrival(now, arrival);
            }
            match cause {
                Cause::Wish(Wish::Shutdown { answer }) => {
                    self.end().await;
                    let _ = answer.send(());
                    return;
                }
                Cause::Abandoned => return self.end().await,
                cause => self.apply(now, cause),
            }
            self.pool.tick(now);
            self.rejoin_due(now);
            self.key_reports_due(now);
            self.change_next();
            self.settle();
            self.write(now);
        }
    }

    async fn select(&mut self) -> Cause {
        // Datagrams come first, but not those alone: however many come, everything else gets every other turn.
        if std::mem::take(&mut self.has_arrivals)
            && let Some(cause) = self.select_other().now_or_never()
        {
            return cause;
        }
        let timer = [
            self.pool.next(),
            self.file.as_ref().and_then(KnownFile::due_at),
            self.key_reports.values().map(|keys| keys.until).min(),
            self.rejoin_at.filter(|_| !self.rejoin.is_empty()),
        ];
        let timer = timer.into_iter().flatten().min();
        let timer = async {
            match timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            arrival = self.network.arrival() => Cause::Arrival(arrival),
            cause = Self::other(
                &mut self.exchanges,
                &mut self.wishes,
                &self.view,
                &mut self.writes,
                &mut self.change,
            ) => cause,
            () = timer => Cause::Timer,
        }
    }

    async fn select_other(&mut self) -> Cause {
        Self::other(
            &mut self.exchanges,
            &mut self.wishes,
            &self.view,
            &mut self.writes,
            &mut self.change,
        )
        .await
    }

    /// Everything that isn't an arrival or a timer.
    async fn other(
        exchanges: &mut FuturesUnordered<NetworkFuture<'static, Answered>>,
        wishes: &mut mpsc::Receiver<Wish>,
        view: &View,
        writes: &mut FuturesUnordered<NetworkFuture<'static, Option<Written>>>,
        change: &mut Option<NetworkFuture<'static, (Option<Changed>, Changer)>>,
    ) -> Cause {
        let changed = async {
            match change {
                Some(change) => change.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(answered) = exchanges.next() => Cause::Answered(answered),
            wish = wishes.recv() => wish.map_or(Cause::Abandoned, Cause::Wish),
            () = view.tags_changed.notified() => Cause::TagsChanged,
            Some(written) = writes.next() => Cause::Written(written),
            (changed, changer) = changed => Cause::Changed(changed, changer),
        }
    }

    fn apply(&mut self, now: Instant, cause: Cause) {
        match cause {
            Cause::Arrival(arrival) => self.arrival(now, arrival),
            Cause::Answered(answered) => self.answered(now, answered),
            Cause::Wish(wish) => self.wish(now, wish),
            Cause::TagsChanged => {
                let wanted = self.view.roster().tags_wanted.take();
                if let Some(tags) = wanted {
                    self.pool.set_tags(tags);
                }
            }
            Cause::Written(Some(written)) => {
                if let Some(file) = &mut self.file
                    && let Some(error) = file.done(written, now)
                {
                    tracing::warn!(%error, "the file of known members was not written");
                }
            }
            Cause::Changed(changed, changer) => {
                self.change = None;
                self.changed(changed, changer);
            }
            // No thread could be had; nothing is written to it any more.
            Cause::Written(None) => self.file = None,
            Cause::Timer | Cause::Abandoned => {}
        }
    }

    fn arrival(&mut self, now: Instant, arrival: Arrival) {
        match arrival {
            Arrival::Datagram { from, bytes } => self.pool.datagram(now, from, &bytes),
            Arrival::Request {
                from,
                bytes,
                answer,
            } => match self.pool.asked(now, from, &bytes) {
                Asked::Answered(bytes) => {
                    let _ = answer.send(bytes);
                }
                Asked::Ignored => {}
                Asked::Change(change) => {
                    self.changes.push_back((change, Changer::Member(answer)));
                }
            },
        }
    }

    fn answered(&mut self, now: Instant, (to, purpose, result): Answered) {
        match self.pool.answered(now, to, purpose, result) {
            Outcome::Done => {}
            Outcome::Joined { caller, result } => self.join_answered(now, caller, to, result),
            Outcome::Keys {
                caller,
                name,
                answer,
            } => self.keys_answered(caller, name, answer),
        }
    }

    fn wish(&mut self, now: Instant, wish: Wish) {
        match wish {
            Wish::Join {
                addresses,
                replay_events,
                answer,
            } => self.join(now, &addresses, replay_events, answer),
            Wish::Leave { answer } => {
                self.rejoin.clear();
                if let Some(file) = &mut self.file {
                    file.leave();
                }
                self.pool.leave(now);
                if self.pool.has_left() {
                    let _ = answer.send(());
                } else {
                    self.leavers.push(answer);
                }
            }
            Wish::ForceLeave { name, answer } => {
                self.pool.force_leave(now, &name);
                let _ = answer.send(());
            }
            Wish::UserEvent {
                name,
                payload,
                coalesce,
                answer,
            } => {
                let _ = answer.send(self.pool.user_event(name, payload, coalesce));
            }
            Wish::Keys {
                operation,
                limit,
                answer,
            } => {
                let caller = self.caller();
                let own = self.pool.keys(&operation);
                let missing = self.pool.ask_keys(&operation, caller);
                let mut keys = Keys {
                    report: KeyReport {
                        members: missing + 1,
                        ..KeyReport::default()
                    },
                    missing: missing + 1,
                    until: now + limit,
                    answer,
                };
                match own {
                    Ok(own) => keys.count(self.name.clone(), Some(own)),
                    Err(change) => self.changes.push_back((change, Changer::Caller(caller))),
                }
                self.key_reports.insert(caller, keys);
            }
            // Handled where the loop can end.
            Wish::Shutdown { .. } => {}
        }
    }

    const fn caller(&mut self) -> u64 {
        self.callers += 1;
        self.callers
    }

    fn join(
        &mut self,
        now: Instant,
        addresses: &[SocketAddr],
        replay_events: bool,
        answer: oneshot::Sender<Joined>,
    ) {
        if addresses.is_empty() {
            let _ = answer.send(Joined::default());
            return;
        }
        if self.pool.is_leaving() {
            let why = || String::from("this member is leaving its pool");
            let failures = addresses.iter().map(|address| (*address, why()));
            let _ = answer.send(Joined {
                reached: 0,
                failures: failures.collect(),
            });
            return;
        }
        let caller = self.caller();
        let join = Join {
            joined: Joined::default(),
            missing: addresses.len(),
            answer: Some(answer),
        };
        self.joins.insert(caller, join);
        for address in addresses {
            self.pool.join(now, *address, caller, replay_events);
        }
    }

    fn join_answered(
        &mut self,
        now: Instant,
        caller: u64,
        to: SocketAddr,
        result: Result<(), String>,
    ) {
        let Some(join) = self.joins.get_mut(&caller) else {
            return;
        };
        join.missing -= 1;
        match result {
            Ok(()) => join.joined.reached += 1,
            Err(reason) => join.joined.failures.push((to, reason)),
        }
        if join.missing > 0 {
            return;
        }
        if let Some(join) = self.joins.remove(&caller) {
            match join.answer {
                Some(answer) => {
                    let _ = answer.send(join.joined);
                }
                None => self.rejoin_answered(now, join.joined.reached > 0),
            }
        }
    }

    /// Tries the next of the members that were known before a restart, if it is time.
    fn rejoin_due(&mut self, now: Instant) {
        if self.rejoin_at.is_none_or(|at| now < at) {
            return;
        }
        // Who was met, or heard of, is tried by the pool itself.
        let pool = &self.pool;
        self.rejoin.retain(|(name, _)| !pool.knows(name));
        if now >= self.rejoin_until {
            self.rejoin.clear();
        }
        let Some((name, address)) = self.rejoin.pop_front() else {
            self.rejoin_at = None;
            return;
        };
        self.rejoin.push_back((name, address));
        self.rejoined += 1;
        self.rejoin_at = None;
        let caller = self.caller();
        let join = Join {
            joined: Joined::default(),
            missing: 1,
            answer: None,
        };
        self.joins.insert(caller, join);
        self.pool.join(now, address, caller, true);
    }

    /// One of them has answered, or not.
    fn rejoin_answered(&mut self, now: Instant, is_joined: bool) {
        // Alone, the next one is tried at once until all were.
        let is_urgent = !is_joined && self.pool.is_alone() && self.rejoined < self.rejoin.len();
        if is_urgent {
            self.rejoin_at = Some(now);
        } else {
            if self.pool.is_alone() {
                self.rejoined = 0;
            }
            self.rejoin_at = Some(now + REJOIN_INTERVAL);
        }
    }

    /// Makes the next change of keys, one after another.
    fn change_next(&mut self) {
        if self.change.is_none()
            && let Some((change, changer)) = self.changes.pop_front()
        {
            let changed = self.network.change_keys(change);
            self.change = Some(Box::pin(async move { (changed.await, changer) }));
        }
    }

    fn changed(&mut self, changed: Option<Changed>, changer: Changer) {
        let error = match changed {
            Some(Changed(Ok(()))) => String::new(),
            Some(Changed(Err(error))) => error.to_string(),
            None => String::from("no thread could be had for the change"),
        };
        let answer = KeyAnswer {
            error,
            ..KeyAnswer::default()
        };
        match changer {
            Changer::Caller(caller) => self.keys_answered(caller, self.name.clone(), Some(answer)),
            Changer::Member(asker) => {
                let _ = asker.send(self.pool.keys_answer(answer));
            }
        }
    }

    fn keys_answered(&mut self, caller: u64, name: String, answer: Option<KeyAnswer>) {
        if let Some(keys) = self.key_reports.get_mut(&caller) {
            keys.count(name, answer);
        }
    }

    /// Answers who asked for an operation on keys, if all have answered or the time is over.
    fn key_reports_due(&mut self, now: Instant) {
        let due: Vec<_> = self
            .key_reports
            .iter()
            .filter(|(_, keys)| keys.missing == 0 || keys.until <= now)
            .map(|(caller, _)| *caller)
            .collect();
        for caller in due {
            if let Some(keys) = self.key_reports.remove(&caller) {
                let _ = keys.answer.send(keys.report);
            }
        }
    }

    /// Does what the pool wants, and shows what it shows.
    fn settle(&mut self) {
        let outputs = self.pool.outputs();
        let view = Arc::clone(&self.view);
        for output in outputs {
            match output {
                Output::Send { to, bytes } => self.network.send(to, bytes),
                Output::Exchange {
                    to,
                    request,
                    purpose,
                } => self.exchange(to, request, purpose),
                Output::Tell(event) => {
                    self.remember(&event);
                    view.subscribers.tell(&event);
                }
                Output::Show(id, shown) => {
                    view.roster().members.insert(id, shown);
                }
                Output::Hide(id) => {
                    let mut roster = view.roster();
                    roster.members.remove(&id);
                    roster.coordinates.remove(&id);
                }
                Output::Place(id, coordinate) => {
                    if let Some(file) = &mut self.file
                        && id == self.pool.local_id()
                    {
                        file.coordinate(&coordinate);
                    }
                    view.roster().coordinates.insert(id, coordinate);
                }
                Output::Left => {
                    for leaver in self.leavers.drain(..) {
                        let _ = leaver.send(());
                    }
                }
            }
        }
        while self.exchanges.len() < EXCHANGES_MAX {
            let Some((to, request, purpose)) = self.waiting.pop_front() else {
                break;
            };
            self.begin(to, request, purpose);
        }
        let mut stats = self.pool.stats();
        stats.query_queue = self.key_reports.len();
        view.roster().stats = stats;
    }

    fn exchange(&mut self, to: SocketAddr, request: Bytes, purpose: Purpose) {
        // A probe is worth nothing if it has to wait in line.
        let is_urgent = matches!(purpose, Purpose::Ping { .. });
        if is_urgent && self.exchanges.len() < 2 * EXCHANGES_MAX
            || self.exchanges.len() < EXCHANGES_MAX
        {
            self.begin(to, request, purpose);
        } else if self.waiting.len() < EXCHANGES_WAITING_MAX {
            self.waiting.push_back((to, request, purpose));
        } else {
            let failed = async move { (to, purpose, Err(io::Error::other("too busy"))) };
            self.exchanges.push(Box::pin(failed));
        }
    }

    fn begin(&self, to: SocketAddr, request: Bytes, purpose: Purpose) {
        let exchange = self.network.exchange(to, request, self.timeout);
        let is_comparison = matches!(purpose, Purpose::Compare | Purpose::Join { .. });
        self.exchanges.push(Box::pin(async move {
            let began = Instant::now();
            let answer = exchange.await;
            if is_comparison {
                figures::compared(began.elapsed());
            }
            (to, purpose, answer)
        }));
    }

    /// Takes note of who comes and goes, for the next start.
    fn remember(&mut self, event: &Event) {
        let Some(file) = &mut self.file else {
            return;
        };
        match event {
            Event::Joined(member) | Event::Updated(member) if member.name != self.name => {
                file.alive(&member.name, member.address);
            }
            Event::Left(member) | Event::Failed(member) | Event::Reaped(member) => {
                file.not_alive(&member.name);
            }
            _ => {}
        }
        let clocks = self.pool.clocks();
        file.clocks(known::Clocks {
            members: clocks.member,
            events: clocks.event,
            queries: clocks.query,
        });
    }

    fn write(&mut self, now: Instant) {
        if let Some(file) = &mut self.file
            && let Some(write) = file.due(now)
        {
            self.writes.push(self.network.write(write));
        }
    }

    async fn end(mut self) {
        self.settle();
        let now = Instant::now();
        if let Some(file) = &mut self.file {
            if let Some(Some(written)) = self.writes.next().await {
                let _ = file.done(written, now);
            }
            file.hurry();
            if let Some(write) = file.due(now) {
                let _ = self.network.write(write).await;
            }
        }
        self.network.close().await;
        self.view.subscribers.close();
    }
}

impl Keys {
    fn count(&mut self, name: String, answer: Option<KeyAnswer>) {
        self.missing -= 1;
        let Some(answer) = answer else {
            return;
        };
        self.report.answered += 1;
        if !answer.error.is_empty() {
            self.report.errors.insert(name, answer.error);
        }
        for key in answer.keys {
            *self.report.keys.entry(key).or_default() += 1;
        }
    }
}

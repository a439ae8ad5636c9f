//! The one task that owns the state of the pool: all waiting in one place, all change in another.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::config::{Config, LABEL_LENGTH_MAX, NAME_LENGTH_MAX, StartError};
use crate::event::Event;
use crate::exchange::{Clocks, KeyAnswer};
use crate::handle::{Joined, KeyReport, View, Wish};
use crate::item;
use crate::known::{self, AfterLeave, KnownFile, Written};
use crate::network::{Arrival, Network, NetworkFuture};
use crate::pool::{Outcome, Output, Pool, Purpose};

/// How many requests of ours may be under way; more wait in line.
const EXCHANGES_MAX: usize = 32;

/// How many requests may wait in line. Beyond that they fail at once, as if the other side had not answered.
const EXCHANGES_WAITING_MAX: usize = 65_536;

/// How many datagrams are read at a time before timers get their turn.
const ARRIVALS_AT_ONCE: usize = 1024;

/// Makes the task of a member.
pub(crate) fn start(
    config: Config,
    network: Arc<dyn Network>,
    view: Arc<View>,
    wishes: mpsc::Receiver<Wish>,
) -> Result<NetworkFuture<'static, ()>, StartError> {
    if config.name.is_empty() || config.name.len() > NAME_LENGTH_MAX {
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
        rejoin: remembered.members.into_values().collect(),
        exchanges: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        writes: FuturesUnordered::new(),
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
    timeout: std::time::Duration,
    name: String,
    file: Option<KnownFile>,
    /// Where members were before this one was restarted, to be tried one after another until one answers.
    rejoin: VecDeque<SocketAddr>,
    exchanges: FuturesUnordered<NetworkFuture<'static, Answered>>,
    waiting: VecDeque<(SocketAddr, Bytes, Purpose)>,
    writes: FuturesUnordered<NetworkFuture<'static, Option<Written>>>,
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

/// Why the task got to run.
enum Cause {
    Arrival(Arrival),
    Answered(Answered),
    Written(Option<Written>),
    Wish(Wish),
    TagsChanged,
    Timer,
    /// Nobody holds a handle any more.
    Abandoned,
}

impl Driver {
    async fn run(mut self) {
        self.rejoin_next();
        self.settle();
        loop {
            let cause = self.select().await;
            let now = Instant::now();
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
            self.key_reports_due(now);
            self.settle();
            self.write(now);
        }
    }

    async fn select(&mut self) -> Cause {
        let timer = [
            self.pool.next(),
            self.file.as_ref().and_then(KnownFile::due_at),
            self.key_reports.values().map(|keys| keys.until).min(),
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
            Some(answered) = self.exchanges.next() => Cause::Answered(answered),
            wish = self.wishes.recv() => wish.map_or(Cause::Abandoned, Cause::Wish),
            () = self.view.tags_changed.notified() => Cause::TagsChanged,
            Some(written) = self.writes.next() => Cause::Written(written),
            () = timer => Cause::Timer,
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
            } => {
                if let Some(bytes) = self.pool.asked(now, from, &bytes) {
                    let _ = answer.send(bytes);
                }
            }
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
                keys.count(self.name.clone(), Some(own));
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
                None if join.joined.reached == 0 => self.rejoin_from(now),
                None => self.rejoin.clear(),
            }
        }
    }

    fn rejoin_next(&mut self) {
        self.rejoin_from(Instant::now());
    }

    /// Tries the next of the members that were known before a restart.
    fn rejoin_from(&mut self, now: Instant) {
        let Some(address) = self.rejoin.pop_front() else {
            return;
        };
        let caller = self.caller();
        let join = Join {
            joined: Joined::default(),
            missing: 1,
            answer: None,
        };
        self.joins.insert(caller, join);
        self.pool.join(now, address, caller, true);
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
        self.exchanges
            .push(Box::pin(async move { (to, purpose, exchange.await) }));
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

//! A network that fails and processes that starve, from a seed, on tokio's paused clock.
//!
//! All members of a simulated pool run in one thread. A [`Net`] carries their datagrams and exchanges with loss, delay,
//! repetition and cuts in one direction or both, and [`Net::starve`] holds a member up as a machine without time to
//! spare would: nothing of it runs until then, while the others go on and its packets pile up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::network::{Arrival, Network, NetworkFuture};

/// How many packets wait for a member that doesn't read them; more are lost, as in a socket's buffer.
const INBOX_MAX: usize = 512;

/// How packets fare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// Which part of the datagrams is lost.
    pub loss: f64,
    /// Which part of the datagrams arrives twice.
    pub repetition: f64,
    /// The shortest way.
    pub delay_min: Duration,
    /// The longest way. What takes different ways arrives in another order.
    pub delay_max: Duration,
}

impl Weather {
    /// As within a datacenter on a good day.
    pub const FAIR: Self = Self {
        loss: 0.0,
        repetition: 0.0,
        delay_min: Duration::from_micros(200),
        delay_max: Duration::from_millis(2),
    };
}

/// Connects the members of a simulated pool.
#[derive(Debug, Clone)]
pub struct Net {
    state: Arc<Mutex<State>>,
    arrivals: Arc<Notify>,
    #[expect(dead_code, reason = "held so that the task ends with the last handle")]
    carrier: Arc<Carrier>,
}

/// The task that delivers packets when their time has come.
#[derive(Debug)]
struct Carrier(JoinHandle<()>);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct State {
    chance: ChaCha8Rng,
    weather: Weather,
    ends: BTreeMap<SocketAddr, End>,
    lives: u64,
    /// The lives that were ended without a word.
    killed: BTreeSet<u64>,
    /// Nothing passes in these directions.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    under_way: BTreeMap<(Instant, u64), (SocketAddr, Arrival)>,
    sequence: u64,
    begun: Instant,
    hash: u64,
    delivered: u64,
}

#[derive(Debug, Default)]
struct End {
    /// Which of the processes that ever listened here does.
    life: u64,
    inbox: VecDeque<Arrival>,
    waker: Option<Waker>,
    /// Until when its process doesn't run.
    starved_until: Option<Instant>,
}

impl Net {
    /// A network in fair weather. Needs a runtime with a paused clock.
    pub fn new(seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            chance: ChaCha8Rng::seed_from_u64(seed),
            weather: Weather::FAIR,
            ends: BTreeMap::new(),
            lives: 0,
            killed: BTreeSet::new(),
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            sequence: 0,
            begun: Instant::now(),
            hash: 0xcbf2_9ce4_8422_2325,
            delivered: 0,
        }));
        let arrivals = Arc::new(Notify::new());
        #[expect(
            clippy::disallowed_methods,
            reason = "the network owns this task and aborts it when it goes"
        )]
        let carrier = tokio::spawn(carry(Arc::clone(&state), Arc::clone(&arrivals)));
        Self {
            state,
            arrivals,
            carrier: Arc::new(Carrier(carrier)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member's end. Who was there before, if anybody, is killed.
    pub fn end(&self, address: SocketAddr) -> Arc<dyn Network> {
        self.kill(address);
        let mut state = self.state();
        state.lives += 1;
        let life = state.lives;
        let end = End {
            life,
            ..End::default()
        };
        state.ends.insert(address, end);
        Arc::new(SimNetwork {
            address,
            life,
            net: self.clone(),
        })
    }

    /// Ends a member without a word: its task never runs again.
    pub fn kill(&self, address: SocketAddr) {
        let mut state = self.state();
        if let Some(end) = state.ends.remove(&address) {
            state.killed.insert(end.life);
        }
    }

    /// Sends a request; `None` if it never arrives.
    fn request(
        &self,
        from: SocketAddr,
        life: u64,
        to: SocketAddr,
        bytes: Bytes,
    ) -> io::Result<Option<oneshot::Receiver<Bytes>>> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.state();
            if !state.lives_at(from, life) || state.is_cut(from, to) || state.is_cut(to, from) {
                return Ok(None);
            }
            if !state.ends.contains_key(&to) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let arrival = Arrival::Request {
                from,
                bytes,
                answer,
            };
            state.dispatch(to, arrival);
        }
        self.arrivals.notify_one();
        Ok(Some(answered))
    }

    /// From now on packets fare like this.
    pub fn weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Nothing passes from these to those any more.
    pub fn cut(&self, from: &[SocketAddr], to: &[SocketAddr]) {
        let mut state = self.state();
        for from in from {
            state.cut.extend(to.iter().map(|to| (*from, *to)));
        }
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.state().cut.clear();
    }

    /// A member's process doesn't run for this long.
    pub fn starve(&self, address: SocketAddr, pause: Duration) {
        let until = Instant::now() + pause;
        if let Some(end) = self.state().ends.get_mut(&address) {
            end.starved_until = Some(until);
        }
    }

    /// A hash of all that was delivered, when, and to whom: the same for the same seeds.
    pub fn hash(&self) -> u64 {
        self.state().hash
    }

    /// How many packets were delivered.
    pub fn delivered(&self) -> u64 {
        self.state().delivered
    }
}

impl State {
    fn lives_at(&self, address: SocketAddr, life: u64) -> bool {
        self.ends.get(&address).is_some_and(|end| end.life == life)
    }

    fn dispatch(&mut self, to: SocketAddr, arrival: Arrival) {
        let delay = self.delay();
        self.sequence += 1;
        let key = (Instant::now() + delay, self.sequence);
        self.under_way.insert(key, (to, arrival));
    }

    fn delay(&mut self) -> Duration {
        let Weather {
            delay_min,
            delay_max,
            ..
        } = self.weather;
        if delay_min >= delay_max {
            return delay_min;
        }
        self.chance.random_range(delay_min..delay_max)
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.chance.random_bool(probability.min(1.0))
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.cut.contains(&(from, to))
    }

    fn deliver(&mut self, at: Instant, to: SocketAddr, arrival: Arrival) {
        let (from, bytes) = match &arrival {
            Arrival::Datagram { from, bytes } | Arrival::Request { from, bytes, .. } => {
                (*from, bytes)
            }
        };
        if self.is_cut(from, to) {
            return;
        }
        let time = at.saturating_duration_since(self.begun).as_nanos();
        let mut hash = crc32fast::Hasher::new();
        hash.update(&time.to_le_bytes());
        hash.update(from.to_string().as_bytes());
        hash.update(to.to_string().as_bytes());
        hash.update(bytes);
        self.hash = (self.hash ^ u64::from(hash.finalize())).wrapping_mul(0x0100_0000_01b3);
        self.delivered += 1;
        let Some(end) = self.ends.get_mut(&to) else {
            return;
        };
        if end.inbox.len() >= INBOX_MAX && matches!(arrival, Arrival::Datagram { .. }) {
            return;
        }
        end.inbox.push_back(arrival);
        if let Some(waker) = end.waker.take() {
            waker.wake();
        }
    }
}

/// Delivers what is under way.
async fn carry(state: Arc<Mutex<State>>, arrivals: Arc<Notify>) {
    loop {
        let mut changed = pin!(arrivals.notified());
        changed.as_mut().enable();
        let next = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            while let Some(first) = state.under_way.first_entry() {
                if first.key().0 > now {
                    break;
                }
                let ((at, _), (to, arrival)) = first.remove_entry();
                state.deliver(at, to, arrival);
            }
            state.under_way.keys().next().map(|(at, _)| *at)
        };
        match next {
            Some(at) => {
                tokio::select! {
                    biased;
                    () = sleep_until(at) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
    }
}

/// One end of a simulated network.
#[derive(Debug)]
struct SimNetwork {
    address: SocketAddr,
    life: u64,
    net: Net,
}

impl Network for SimNetwork {
    fn local(&self) -> SocketAddr {
        self.address
    }

    fn send(&self, to: SocketAddr, datagram: Bytes) {
        let mut state = self.net.state();
        let state = &mut *state;
        // Who was killed sends nothing, however long its task goes on.
        if !state.lives_at(self.address, self.life) || state.is_cut(self.address, to) {
            return;
        }
        let (loss, repetition) = (state.weather.loss, state.weather.repetition);
        if state.happens(loss) {
            return;
        }
        let copies = 1 + usize::from(state.happens(repetition));
        for _ in 0..copies {
            let arrival = Arrival::Datagram {
                from: self.address,
                bytes: datagram.clone(),
            };
            state.dispatch(to, arrival);
        }
        self.net.arrivals.notify_one();
    }

    fn exchange(
        &self,
        to: SocketAddr,
        request: Bytes,
        limit: Duration,
    ) -> NetworkFuture<'static, io::Result<Bytes>> {
        let (net, from, life) = (self.net.clone(), self.address, self.life);
        Box::pin(async move {
            let exchange = async {
                let Some(answered) = net.request(from, life, to, request)? else {
                    return std::future::pending().await;
                };
                let Ok(answer) = answered.await else {
                    return Err(io::ErrorKind::ConnectionReset.into());
                };
                let delay = net.state().delay();
                sleep(delay).await;
                if net.state().is_cut(to, from) {
                    return std::future::pending().await;
                }
                Ok(answer)
            };
            tokio::time::timeout(limit, exchange)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }

    fn arrival(&self) -> NetworkFuture<'_, Arrival> {
        Box::pin(poll_fn(|context| {
            let mut state = self.net.state();
            let end = state.ends.get_mut(&self.address);
            let Some(end) = end.filter(|end| end.life == self.life) else {
                return Poll::Pending;
            };
            match end.inbox.pop_front() {
                Some(arrival) => Poll::Ready(arrival),
                None => {
                    end.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn arrived(&self) -> Option<Arrival> {
        let mut state = self.net.state();
        let end = state.ends.get_mut(&self.address)?;
        (end.life == self.life).then(|| end.inbox.pop_front())?
    }

    fn close(&self) -> NetworkFuture<'_, ()> {
        let mut state = self.net.state();
        if state.lives_at(self.address, self.life) {
            state.ends.remove(&self.address);
        }
        drop(state);
        Box::pin(std::future::ready(()))
    }

    fn run(&self, task: NetworkFuture<'static, ()>) -> NetworkFuture<'static, ()> {
        Box::pin(Process {
            task,
            net: self.net.clone(),
            address: self.address,
            life: self.life,
            pause: None,
        })
    }
}

/// A member's task, which runs only when its machine lets it.
struct Process {
    task: NetworkFuture<'static, ()>,
    net: Net,
    address: SocketAddr,
    life: u64,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Future for Process {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (is_killed, until) = {
            let state = self.net.state();
            let end = state.ends.get(&self.address);
            let end = end.filter(|end| end.life == self.life);
            let is_killed = state.killed.contains(&self.life);
            (is_killed, end.and_then(|end| end.starved_until))
        };
        if is_killed {
            return Poll::Pending;
        }
        if let Some(until) = until
            && until > Instant::now()
        {
            let mut pause = Box::pin(sleep_until(until));
            let _ = pause.as_mut().poll(context);
            self.pause = Some(pause);
            return Poll::Pending;
        }
        self.pause = None;
        self.task.as_mut().poll(context)
    }
}

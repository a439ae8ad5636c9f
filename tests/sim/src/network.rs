//! What lies between the servers: one set of wires for the log's messages and for requests, which fail from a seed.
//!
//! A wire leads from one place to another; servers that are replaced keep their place. Messages are lost, delayed and
//! thereby reordered, and the log's are repeated. Requests are not: what carries them does so in order and once. But
//! their answers are lost after they have been carried out, and then nobody tells their sender.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use consensus::sim::Trace;
use consensus::{Peer, Transport, TransportError, TransportFuture};
use futures::future::BoxFuture;
use gossip::sim::{Net, Weather};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rpc::{
    ByteStream, CallError, Calls, Hop, Request, Response, RestoreOptions, Restored, Save,
    SaveOptions, Serve, ServerAddress,
};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// How long a caller waits for what never comes.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long a connection may be silent until it is taken for broken.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a message takes at most while nothing is wrong, in milliseconds.
const DELAY_MAX_MS: u64 = 2;

/// The address of the server in a place.
pub(crate) fn address(place: usize) -> String {
    format!("10.0.0.{}:8300", place + 1)
}

/// Where the server in a place gossips.
pub(crate) fn pool_address(place: usize) -> SocketAddr {
    let host = u8::try_from(place + 1).expect("there are few places");
    SocketAddr::from(([10, 0, 0, host], 8301))
}

/// The place of an address.
fn place_of(address: &str) -> Option<usize> {
    let (host, _) = address.split_once(':')?;
    let number: usize = host.strip_prefix("10.0.0.")?.parse().ok()?;
    number.checked_sub(1)
}

/// Connects the servers of a cluster. Clones are the same network.
#[derive(Clone)]
pub(crate) struct Network {
    wires: Arc<Mutex<Wires>>,
    resumed: Arc<Notify>,
    /// What carries gossip, along the same wires.
    pool: Net,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

struct Wires {
    chance: ChaCha8Rng,
    trace: Trace,
    servers: BTreeMap<usize, Arc<dyn Serve>>,
    /// Pairs between which nothing passes, in this direction.
    cut: BTreeSet<(usize, usize)>,
    /// Places that neither send nor receive, but lose nothing, and since when.
    paused: BTreeMap<usize, Instant>,
    /// Who was paused, from when until when.
    pauses: Vec<(usize, Instant, Instant)>,
    loss: f64,
    repetition: f64,
    delay_max_ms: u64,
}

/// What becomes of a message.
enum Passage {
    /// It arrives.
    Passes,
    /// It doesn't, and its sender hears so.
    Breaks,
    /// It doesn't, and nobody hears anything.
    Vanishes,
}

impl Network {
    pub(crate) fn new(seed: u64, trace: Trace) -> Self {
        let mut wires = Wires {
            chance: ChaCha8Rng::seed_from_u64(seed),
            trace,
            servers: BTreeMap::new(),
            cut: BTreeSet::new(),
            paused: BTreeMap::new(),
            pauses: Vec::new(),
            loss: 0.0,
            repetition: 0.0,
            delay_max_ms: DELAY_MAX_MS,
        };
        Self {
            pool: Net::new(wires.chance.random()),
            wires: Arc::new(Mutex::new(wires)),
            resumed: Arc::default(),
        }
    }

    /// A server's end of what carries gossip.
    pub(crate) fn pool_end(&self, place: usize) -> Arc<dyn gossip::Network> {
        self.pool.end(pool_address(place))
    }

    /// A hash of all that was gossiped.
    pub(crate) fn pool_hash(&self) -> u64 {
        self.pool.hash()
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server in a place can be reached from now on.
    pub(crate) fn connect(&self, place: usize, server: Arc<dyn Serve>) {
        self.wires().servers.insert(place, server);
    }

    /// It can't any more.
    pub(crate) fn disconnect(&self, place: usize) {
        self.wires().servers.remove(&place);
        self.pool.kill(pool_address(place));
        self.resume(place);
    }

    /// Nothing passes from one to the other, until [`Network::mend`].
    pub(crate) fn cut(&self, from: usize, to: usize) {
        self.wires().cut.insert((from, to));
        self.pool.cut(&[pool_address(from)], &[pool_address(to)]);
    }

    /// All wires are whole again.
    pub(crate) fn mend(&self) {
        self.wires().cut.clear();
        self.pool.heal();
    }

    /// How often messages are lost or repeated, and how late they come at most.
    pub(crate) fn set_quality(&self, loss: f64, repetition: f64, delay_max_ms: u64) {
        let mut wires = self.wires();
        wires.loss = loss;
        wires.repetition = repetition;
        wires.delay_max_ms = delay_max_ms;
        self.pool.weather(Weather {
            loss,
            repetition,
            delay_min: Duration::ZERO,
            delay_max: Duration::from_millis(delay_max_ms),
        });
    }

    /// Nothing is lost, repeated or late.
    pub(crate) fn calm(&self) {
        self.set_quality(0.0, 0.0, DELAY_MAX_MS);
    }

    /// What a place sends and what is sent to it waits, until [`Network::resume`], which is to come after this long.
    pub(crate) fn pause(&self, place: usize, length: Duration) {
        let mut wires = self.wires();
        wires.paused.entry(place).or_insert_with(Instant::now);
        drop(wires);
        self.pool.starve(pool_address(place), length);
    }

    /// What has waited goes on.
    pub(crate) fn resume(&self, place: usize) {
        let mut wires = self.wires();
        if let Some(since) = wires.paused.remove(&place) {
            wires.pauses.push((place, since, Instant::now()));
            drop(wires);
            self.resumed.notify_waiters();
        }
    }

    /// Who was paused, from when until when; without those who still are.
    pub(crate) fn pauses(&self) -> Vec<(usize, Instant, Instant)> {
        self.wires().pauses.clone()
    }

    /// Returns when a place isn't paused.
    pub(crate) async fn awake(&self, place: usize) {
        loop {
            let resumed = self.resumed.notified();
            if !self.wires().paused.contains_key(&place) {
                return;
            }
            resumed.await;
        }
    }

    /// Carries something from one place to another, as far as it comes.
    async fn pass(&self, from: usize, to: usize, kind: &str, what: &[u8]) -> Passage {
        let (fate, delay) = {
            let mut guard = self.wires();
            let wires = &mut *guard;
            let is_lost = wires.loss > 0.0 && wires.chance.random_bool(wires.loss);
            let fate = if !is_lost && !wires.cut.contains(&(from, to)) {
                Passage::Passes
            } else if wires.chance.random_bool(0.2) {
                Passage::Breaks
            } else {
                Passage::Vanishes
            };
            let delay = wires.chance.random_range(0..=wires.delay_max_ms);
            let head = [
                u8::try_from(from).unwrap_or(u8::MAX),
                u8::try_from(to).unwrap_or(u8::MAX),
                u8::from(matches!(fate, Passage::Passes)),
            ];
            wires.trace.event(kind, &[&head, what]);
            (fate, delay)
        };
        self.awake(from).await;
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
        self.awake(to).await;
        fate
    }

    fn server(&self, place: usize) -> Option<Arc<dyn Serve>> {
        self.wires().servers.get(&place).cloned()
    }

    /// Whether a machine that is down says so, as one does whose program alone has ended.
    fn is_refused(&self) -> bool {
        self.wires().chance.random_bool(0.5)
    }

    /// The way out of a place for the log's messages.
    pub(crate) fn transport(&self, from: usize) -> Arc<dyn Transport> {
        Arc::new(Outlet {
            network: self.clone(),
            from,
        })
    }

    /// The way out of a place for requests.
    pub(crate) fn calls(&self, from: usize) -> Arc<dyn Calls> {
        Arc::new(Outlet {
            network: self.clone(),
            from,
        })
    }
}

#[derive(Clone, Debug)]
struct Outlet {
    network: Network,
    from: usize,
}

impl Outlet {
    /// Delivers a message of the log's. The answer's sender is dropped if the caller is to hear of a failure, and kept
    /// for ever if not.
    async fn deliver(
        self,
        to: usize,
        message: Bytes,
        answer: Option<oneshot::Sender<Result<Bytes, TransportError>>>,
    ) {
        let Self { network, from } = self;
        let unreachable = || Err(TransportError::Unreachable(String::from("connection lost")));
        let reply = match network.pass(from, to, "message", &message).await {
            Passage::Vanishes => return vanish(answer).await,
            Passage::Breaks => unreachable(),
            Passage::Passes => match network.server(to) {
                None if network.is_refused() => unreachable(),
                None => return vanish(answer).await,
                Some(server) => {
                    let response = server.log_message(message).await;
                    drop(server);
                    match network.pass(to, from, "answer", &response).await {
                        Passage::Passes => Ok(response),
                        Passage::Breaks => unreachable(),
                        Passage::Vanishes => return vanish(answer).await,
                    }
                }
            },
        };
        if let Some(answer) = answer {
            // The caller may have given up.
            let _ = answer.send(reply);
        }
    }

    /// Runs a call at the other end, to its end there whether or not its caller still waits.
    async fn call_at<T, C>(
        self,
        server: &ServerAddress,
        kind: &'static str,
        deadline: Duration,
        call: C,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        C: FnOnce(Arc<dyn Serve>) -> BoxFuture<'static, Result<T, rpc::Refusal>> + Send + 'static,
    {
        let Self { network, from } = self;
        let address = server.address.to_string();
        let Some(to) = place_of(&address) else {
            return Err(CallError::NotSent(format!("no route to {address}")));
        };
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let reply = match network.pass(from, to, kind, &[]).await {
                Passage::Vanishes => return vanish(Some(answer)).await,
                // The sender can't tell how far it came.
                Passage::Breaks => Err(CallError::Broken(String::from("connection lost"))),
                Passage::Passes => match network.server(to) {
                    None if network.is_refused() => {
                        Err(CallError::NotSent(String::from("connection refused")))
                    }
                    None => return vanish(Some(answer)).await,
                    Some(server) => {
                        let reply = call(server).await;
                        match network.pass(to, from, "reply", &[]).await {
                            Passage::Passes => reply.map_err(CallError::Refused),
                            Passage::Breaks => {
                                Err(CallError::Broken(String::from("connection lost")))
                            }
                            Passage::Vanishes => return vanish(Some(answer)).await,
                        }
                    }
                },
            };
            let _ = answer.send(reply);
        });
        match timeout(deadline, answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err(CallError::Broken(String::from("connection lost"))),
            Err(_) => Err(CallError::Broken(String::from("no answer in time"))),
        }
    }
}

/// Keeps the caller waiting until it gives up, or until the connection has been silent for too long.
async fn vanish<T>(answer: Option<oneshot::Sender<T>>) {
    if let Some(mut answer) = answer {
        // Dropping it then is what tells the caller.
        let _ = timeout(SILENCE_MAX, answer.closed()).await;
    }
}

impl Transport for Outlet {
    fn call(&self, peer: Peer, message: Bytes) -> TransportFuture {
        let unreachable = || TransportError::Unreachable(String::from("connection lost"));
        let Some(to) = place_of(&peer.address) else {
            return Box::pin(std::future::ready(Err(unreachable())));
        };
        let is_repeated = {
            let mut guard = self.network.wires();
            let wires = &mut *guard;
            wires.repetition > 0.0 && wires.chance.random_bool(wires.repetition)
        };
        if is_repeated {
            tokio::spawn(self.clone().deliver(to, message.clone(), None));
        }
        let (answer, answered) = oneshot::channel();
        tokio::spawn(self.clone().deliver(to, message, Some(answer)));
        Box::pin(async move { answered.await.unwrap_or_else(|_| Err(unreachable())) })
    }
}

impl Calls for Outlet {
    fn call(
        &self,
        server: &ServerAddress,
        hop: Hop,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        let (outlet, server) = (self.clone(), server.clone());
        let waits = match &request {
            Request::Read(_, options) if options.index > 0 => options.wait,
            Request::Read(..) | Request::Write(..) | Request::Operate(..) | Request::Ping => {
                Duration::ZERO
            }
        };
        Box::pin(async move {
            let call = move |server: Arc<dyn Serve>| server.serve(hop, request);
            outlet
                .call_at(&server, "request", DEADLINE + waits, call)
                .await
        })
    }

    fn save(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: SaveOptions,
    ) -> BoxFuture<'static, Result<Save, CallError>> {
        let (outlet, server) = (self.clone(), server.clone());
        Box::pin(async move {
            let call = move |server: Arc<dyn Serve>| server.save(hop, options);
            outlet.call_at(&server, "save", DEADLINE, call).await
        })
    }

    fn restore(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, CallError>> {
        let (outlet, server) = (self.clone(), server.clone());
        Box::pin(async move {
            let call = move |server: Arc<dyn Serve>| server.restore(hop, options, archive);
            // A restore takes as long as its archive is large.
            outlet.call_at(&server, "restore", DEADLINE * 3, call).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_places() {
        for place in [0, 4] {
            assert_eq!(place_of(&address(place)), Some(place));
        }
        for other in ["10.0.0.0:8300", "10.0.1.1:8300", "localhost", ""] {
            assert_eq!(place_of(other), None, "{other}");
        }
    }
}

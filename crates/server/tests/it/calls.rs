//! Calls between servers in one process, over wires that lose, delay and are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rpc::{
    ByteStream, CallError, Calls, Hop, Request, Response, RestoreOptions, Restored, Save,
    SaveOptions, Serve, ServerAddress,
};
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long a caller waits for an answer that got lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connects servers by their addresses. Clones are the same wires.
#[derive(Clone)]
pub(crate) struct Wires(Arc<Mutex<State>>);

struct State {
    chance: StdRng,
    ends: BTreeMap<SocketAddr, End>,
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    loss: f64,
    delay_max: Duration,
    /// How many calls reached each server.
    reached: BTreeMap<SocketAddr, u64>,
}

#[derive(Clone)]
struct End {
    serve: Arc<dyn Serve>,
    /// Breaks the calls that are under way when the server is gone.
    gone: Arc<Notify>,
}

impl Wires {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            chance: StdRng::seed_from_u64(seed),
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0.0,
            delay_max: Duration::from_millis(2),
            reached: BTreeMap::new(),
        })))
    }

    /// What this server calls others with.
    pub(crate) fn calls(&self, from: SocketAddr) -> Wire {
        Wire {
            wires: self.clone(),
            from,
        }
    }

    pub(crate) fn connect(&self, address: SocketAddr, serve: Arc<dyn Serve>) {
        let gone = Arc::new(Notify::new());
        self.0
            .lock()
            .unwrap()
            .ends
            .insert(address, End { serve, gone });
    }

    /// Nobody listens there any more, and what is under way breaks.
    pub(crate) fn disconnect(&self, address: SocketAddr) {
        let end = self.0.lock().unwrap().ends.remove(&address);
        if let Some(end) = end {
            end.gone.notify_waiters();
        }
    }

    pub(crate) fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.0.lock().unwrap().cut.insert((from, to));
    }

    pub(crate) fn set_quality(&self, loss: f64, delay_max: Duration) {
        let mut state = self.0.lock().unwrap();
        state.loss = loss;
        state.delay_max = delay_max;
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
        self.set_quality(0.0, Duration::from_millis(2));
    }

    /// How many calls have reached this server.
    pub(crate) fn reached(&self, address: SocketAddr) -> u64 {
        let state = self.0.lock().unwrap();
        state.reached.get(&address).copied().unwrap_or(0)
    }

    /// How late something comes, or that it does not.
    fn passage(&self, from: SocketAddr, to: SocketAddr) -> Option<Duration> {
        let mut guard = self.0.lock().unwrap();
        let state = &mut *guard;
        let is_lost = state.chance.random_bool(state.loss);
        let most = u64::try_from(state.delay_max.as_micros()).unwrap();
        let delay = Duration::from_micros(state.chance.random_range(0..=most));
        (!is_lost && !state.cut.contains(&(from, to))).then_some(delay)
    }

    async fn carry<T>(
        self,
        from: SocketAddr,
        to: SocketAddr,
        act: impl FnOnce(Arc<dyn Serve>) -> BoxFuture<'static, Result<T, rpc::Refusal>>,
    ) -> Result<T, CallError> {
        let is_cut = self.0.lock().unwrap().cut.contains(&(from, to));
        if is_cut {
            sleep(PATIENCE).await;
            return Err(CallError::NotSent(format!("{to}: no route")));
        }
        let lost = || CallError::Broken(format!("{to}: no answer"));
        let Some(delay) = self.passage(from, to) else {
            sleep(PATIENCE).await;
            return Err(lost());
        };
        sleep(delay).await;
        let end = {
            let mut state = self.0.lock().unwrap();
            *state.reached.entry(to).or_default() += 1;
            state.ends.get(&to).cloned()
        };
        let Some(End { serve, gone }) = end else {
            return Err(CallError::NotSent(format!("{to}: connection refused")));
        };
        let mut gone = pin!(gone.notified());
        gone.as_mut().enable();
        let answer = tokio::select! {
            biased;
            () = gone => return Err(lost()),
            answer = act(serve) => answer,
        };
        let Some(delay) = self.passage(to, from) else {
            sleep(PATIENCE).await;
            return Err(lost());
        };
        sleep(delay).await;
        answer.map_err(CallError::Refused)
    }
}

/// The way out of one server.
pub(crate) struct Wire {
    wires: Wires,
    from: SocketAddr,
}

impl Calls for Wire {
    fn call(
        &self,
        server: &ServerAddress,
        hop: Hop,
        request: Request,
    ) -> BoxFuture<'static, Result<Response, CallError>> {
        let (wires, from, to) = (self.wires.clone(), self.from, server.address);
        Box::pin(wires.carry(from, to, move |serve| serve.serve(hop, request)))
    }

    fn save(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: SaveOptions,
    ) -> BoxFuture<'static, Result<Save, CallError>> {
        let (wires, from, to) = (self.wires.clone(), self.from, server.address);
        Box::pin(wires.carry(from, to, move |serve| serve.save(hop, options)))
    }

    fn restore(
        &self,
        server: &ServerAddress,
        hop: Hop,
        options: RestoreOptions,
        archive: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, CallError>> {
        let (wires, from, to) = (self.wires.clone(), self.from, server.address);
        Box::pin(wires.carry(from, to, move |serve| serve.restore(hop, options, archive)))
    }
}

//! What goes wrong around snapshot agents: with the lock, the cluster's state, the stores and the network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{
    Client, Config, DeleteCondition, KvPut, PutCondition, QueryOptions, RestoreOptions,
    WriteOptions,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep, timeout};

use super::LOCK_KEY;
use super::depot::{Depot, Health};
use super::machine::{Host, Loopback};
use super::process::Process;
use super::witness::Witness;
use crate::archive;
use crate::check::Violation;
use crate::history::backups::{Span, Written};
use crate::world::World;

/// What may go wrong in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Somebody deletes the key.
    KeyDeleted,
    /// Somebody ends the session that has it.
    SessionEnded,
    /// The cluster gets the newest snapshot that there is, with the lock as it was then.
    Restored,
    /// The cluster gets a state that knows nothing of all this.
    RestoredStrange,
    /// A store doesn't do as it should.
    Store,
    /// A machine hears no server, and none hears it.
    CutOff,
}

pub(super) const TROUBLES: &[Trouble] = &[
    Trouble::KeyDeleted,
    Trouble::SessionEnded,
    Trouble::Restored,
    Trouble::RestoredStrange,
    Trouble::Store,
    Trouble::CutOff,
];

/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long after a restore without an answer it may still happen.
const RESTORE_MAX: Duration = Duration::from_secs(60);

/// Somebody with a client of his own.
pub(super) struct Outsider {
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) depots: Vec<Arc<Depot>>,
    pub(super) servers: usize,
    pub(super) world: World,
    pub(super) witness: Witness,
    pub(super) chance: ChaCha8Rng,
}

impl Outsider {
    /// A client of some machine's agent.
    fn client(&mut self) -> Result<Client, client::Error> {
        let host = &self.hosts[self.chance.random_range(0..self.hosts.len())];
        let loopback = Loopback {
            host: Arc::clone(host),
            process: Process::new(0, host.machine.place),
            witness: None,
        };
        Client::over(loopback, Config::default())
    }

    /// Lets things of these kinds go wrong until there is to be peace.
    pub(super) async fn make(mut self, kinds: Vec<Trouble>) {
        while !self.calms() {
            let pause = self.chance.random_range(1_000..40_000);
            self.rest(Duration::from_millis(pause)).await;
            if kinds.is_empty() || self.calms() {
                continue;
            }
            let kind = kinds[self.chance.random_range(0..kinds.len())];
            self.world.tell("trouble", || format!("{kind:?}"));
            let from = self.witness.now();
            // Whether it was done doesn't matter: what follows from it is seen.
            let _ = timeout(RESTORE_MAX, self.begin(kind)).await;
            self.witness.troubled(from);
        }
        for depot in &self.depots {
            depot.set_health(Health::Good);
        }
    }

    fn calms(&self) -> bool {
        self.world.with(|state| state.calms || state.ends)
    }

    async fn rest(&self, length: Duration) {
        let end = Instant::now() + length;
        while Instant::now() < end && !self.calms() {
            let left = end - Instant::now();
            sleep(left.min(Duration::from_millis(500))).await;
        }
    }

    async fn begin(&mut self, kind: Trouble) -> Result<(), client::Error> {
        match kind {
            Trouble::KeyDeleted => {
                let options = WriteOptions::default();
                let client = self.client()?;
                let delete = client.kv_delete(LOCK_KEY, DeleteCondition::Always, &options);
                let _ = timeout(PATIENCE, delete).await;
            }
            Trouble::SessionEnded => {
                let client = self.client()?;
                let end = async {
                    let found = client.kv_get(LOCK_KEY, &QueryOptions::default()).await?;
                    if let Some(pair) = found.value
                        && !pair.session.is_empty()
                    {
                        let options = WriteOptions::default();
                        client.session_destroy(&pair.session, &options).await?;
                    }
                    Ok::<_, client::Error>(())
                };
                let _ = timeout(PATIENCE, end).await;
            }
            Trouble::Restored => {
                let depot = &self.depots[self.chance.random_range(0..self.depots.len())];
                if let Some(archive) = depot.newest() {
                    self.restore(archive).await?;
                }
            }
            Trouble::RestoredStrange => {
                let generation = self.world.with(|state| {
                    state.generations += 1;
                    state.generations
                });
                self.restore(archive::archive(generation).into()).await?;
            }
            Trouble::Store => {
                let health = match self.chance.random_range(0..9) {
                    0 => Health::Refuses,
                    1 => Health::Hangs,
                    2 | 3 => Health::Breaks,
                    4 => Health::Full(self.chance.random_range(0..4_000)),
                    5 => Health::Lies,
                    _ => Health::Slow(self.chance.random_range(100..15_000)),
                };
                let place = self.chance.random_range(0..self.depots.len());
                let depot = Arc::clone(&self.depots[place]);
                let length = self.chance.random_range(1_000..50_000);
                self.world.tell("trouble", || {
                    format!("depot {place}: {health:?} for {length} ms")
                });
                let from = self.witness.now();
                depot.set_health(health);
                self.rest(Duration::from_millis(length)).await;
                depot.set_health(Health::Good);
                if health == Health::Lies {
                    let to = self.witness.now();
                    self.witness
                        .with(|history| history.lies.push(Span { from, to }));
                }
            }
            Trouble::CutOff => {
                let number = self.chance.random_range(0..self.hosts.len());
                let place = self.hosts[number].machine.place;
                for server in 0..self.servers {
                    self.world.network.cut(place, server);
                    self.world.network.cut(server, place);
                }
                let length = self.chance.random_range(500..50_000);
                self.rest(Duration::from_millis(length)).await;
                self.world.network.mend();
            }
        }
        Ok(())
    }

    async fn restore(&mut self, archive: Bytes) -> Result<(), client::Error> {
        let client = self.client()?;
        let from = self.witness.now();
        // Until its end is known, it may happen at any time.
        let number = self.witness.with(|history| {
            let to = from + u64::try_from(RESTORE_MAX.as_nanos()).unwrap_or(u64::MAX);
            history.restores.push(Span { from, to });
            history.restores.len() - 1
        });
        let pieces = futures::stream::iter([Ok(archive)]);
        let options = RestoreOptions::default();
        let restored = timeout(PATIENCE, client.snapshot_restore(pieces, &options)).await;
        if let Ok(Ok(_)) = restored {
            let to = self.witness.now();
            self.witness
                .with(|history| history.restores[number].to = to);
        }
        Ok(())
    }

    /// Writes one key after the other, until the end.
    pub(super) async fn write(mut self) {
        let mut key = 0;
        while !self.world.ends() {
            let pause = self.chance.random_range(200..4_000);
            sleep(Duration::from_millis(pause)).await;
            key += 1;
            let put = KvPut {
                key: format!("{}{key}", super::WRITTEN),
                value: Bytes::from_static(b"written"),
                flags: 0,
                condition: PutCondition::Always,
            };
            let Ok(client) = self.client() else { continue };
            let called = self.witness.now();
            let options = WriteOptions::default();
            if let Ok(Ok(true)) = timeout(PATIENCE, client.kv_put(&put, &options)).await {
                let returned = self.witness.now();
                let written = Written {
                    key,
                    called,
                    returned,
                };
                self.witness.with(|history| history.writes.push(written));
            }
        }
    }

    /// Looks into every snapshot that gets its name, until the end.
    pub(super) async fn look(self) {
        loop {
            let ends = self.world.ends();
            for (store, depot) in self.depots.iter().enumerate() {
                for (name, content) in depot.take_fresh() {
                    let held = super::content::look_into(store, name, &content);
                    self.witness.with(|history| history.held.push(held));
                }
            }
            if ends {
                return;
            }
            sleep(Duration::from_secs(5)).await;
        }
    }

    /// Starts every consul agent.
    pub(super) async fn start_all(&mut self) -> Result<(), Violation> {
        for host in &self.hosts {
            host.start(&mut self.chance).await?;
        }
        Ok(())
    }
}

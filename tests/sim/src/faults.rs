//! What goes wrong: the one list of faults, of which each life draws some.

use std::time::Duration;

use consensus::sim::{Death, DiskFault};
use rand::RngExt;
use tokio::time::{Instant, sleep, timeout};

use crate::cluster::Cluster;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A machine loses its power: only what was synced is sure to be there afterwards.
    PowerLoss,
    /// A process is killed.
    Kill,
    /// The power fails in the middle of some change of the disk.
    PowerLossInside,
    /// Bits flip on a disk while its server is down.
    Flip,
    /// A whole disk is lost.
    LostDisk,
    /// Syncs fail.
    SyncFails,
    /// A disk is full.
    DiskFull,
    /// Syncs take seconds.
    SlowSync,
    /// They do on every server: whoever leads keeps its lease, and what it proposes comes true late. Only lives that ask
    /// for it have it.
    SlowSyncs,
    /// One server is cut off, in both directions.
    Isolation,
    /// Two groups don't hear each other.
    Split,
    /// Some wires are cut, each in one direction.
    OneWay,
    /// Some pairs of servers don't hear each other.
    Partial,
    /// Messages are lost, late, repeated.
    BadNetwork,
    /// A server is paused.
    Pause,
    /// The clock on a wall jumps.
    ClockJump,
    /// A member is taken out and in again.
    Membership,
    /// A checkpoint is made, whether or not it is time.
    Checkpoint,
    /// Leadership goes to another.
    Transfer,
    /// A bare majority elects or writes, one of it loses its power, and then makes a majority with those that were not
    /// there: see [`Trouble::ambush`].
    Ambush,
}

pub(crate) const FAULTS: &[Fault] = &[
    Fault::PowerLoss,
    Fault::Kill,
    Fault::PowerLossInside,
    Fault::Flip,
    Fault::LostDisk,
    Fault::SyncFails,
    Fault::DiskFull,
    Fault::SlowSync,
    Fault::Isolation,
    Fault::Split,
    Fault::OneWay,
    Fault::Partial,
    Fault::BadNetwork,
    Fault::Pause,
    Fault::ClockJump,
    Fault::Membership,
    Fault::Checkpoint,
    Fault::Transfer,
    Fault::Ambush,
];

/// How long a paused server sleeps at most, in milliseconds.
const PAUSE_MAX_MS: u64 = 2_500;

/// Something that is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    /// The server is started again, killed first if it is still up.
    Start(usize),
    /// It goes on.
    Resume(usize),
    /// Its disk is as quick as ever.
    QuickSync(usize),
    /// All wires are whole.
    Mend,
    /// The network is good again.
    Calm,
}

/// What is wrong at the moment, and until when.
#[derive(Default)]
pub(crate) struct Trouble {
    pending: Vec<(Instant, Undo)>,
}

impl Trouble {
    /// Lets things of these kinds go wrong until `end`, then undoes all.
    pub(crate) async fn make(&mut self, cluster: &mut Cluster, kinds: &[Fault], end: Instant) {
        while Instant::now() < end && !cluster.world.is_broken() {
            let pause = cluster.chance.random_range(100..2_500);
            sleep(Duration::from_millis(pause)).await;
            self.undo(cluster, Instant::now()).await;
            cluster.look_after();
            cluster.operate().await;
            if !kinds.is_empty() {
                let kind = kinds[cluster.chance.random_range(0..kinds.len())];
                self.begin(cluster, kind).await;
            }
        }
        self.undo(cluster, Instant::now() + Duration::from_secs(3600))
            .await;
    }

    /// Undoes all that is due.
    async fn undo(&mut self, cluster: &mut Cluster, now: Instant) {
        while let Some(due) = self.pending.iter().position(|(until, _)| *until <= now) {
            let (_, undo) = self.pending.remove(due);
            cluster.world.tell("undo", || format!("{undo:?}"));
            match undo {
                Undo::Start(place) => {
                    cluster.crash(place, true).await;
                    cluster.start(place).await;
                }
                Undo::Resume(place) => cluster.network.resume(place),
                Undo::QuickSync(place) => cluster.places[place]
                    .storage
                    .set_sync_delay_max(Duration::from_millis(3)),
                Undo::Mend => cluster.network.mend(),
                Undo::Calm => cluster.network.calm(),
            }
        }
        // A server whose disk failed has ended by itself; its machine starts it again.
        for place in 0..cluster.places.len() {
            let has_failed = cluster.places[place]
                .front
                .as_ref()
                .is_some_and(|front| front.server.status().log.failure.is_some());
            if has_failed && !self.is_pending(place) {
                self.later(cluster, 50, 3_000, Undo::Start(place));
            }
        }
    }

    fn is_pending(&self, place: usize) -> bool {
        self.pending.iter().any(
            |(_, undo)| matches!(undo, Undo::Start(other) | Undo::Resume(other) if *other == place),
        )
    }

    fn later(&mut self, cluster: &mut Cluster, from_ms: u64, to_ms: u64, undo: Undo) {
        let delay = cluster.chance.random_range(from_ms..to_ms);
        self.pending
            .push((Instant::now() + Duration::from_millis(delay), undo));
    }

    async fn begin(&mut self, cluster: &mut Cluster, kind: Fault) {
        let servers = cluster.places.len();
        let place = cluster.chance.random_range(0..servers);
        let is_up = cluster.places[place].front.is_some() && !self.is_pending(place);
        cluster.world.tell("fault", || {
            format!("{kind:?} at server {place}, up: {is_up}")
        });
        match kind {
            Fault::PowerLoss if is_up => {
                cluster.crash(place, false).await;
                self.later(cluster, 20, 9_000, Undo::Start(place));
            }
            Fault::Kill if is_up => {
                cluster.crash(place, true).await;
                self.later(cluster, 20, 5_000, Undo::Start(place));
            }
            Fault::PowerLossInside if is_up => {
                let may_tear = cluster.may_hurt(place);
                cluster.places[place].is_hurt |= may_tear;
                cluster.places[place].is_doomed = may_tear;
                let changes = cluster.chance.random_range(0..40);
                let death = if cluster.chance.random_bool(0.7) {
                    Death::PowerLost { may_tear }
                } else {
                    Death::Killed
                };
                cluster.places[place].storage.die_after(changes, death);
                self.later(cluster, 500, 6_000, Undo::Start(place));
            }
            Fault::Flip if is_up && cluster.may_hurt(place) => {
                cluster.crash(place, true).await;
                cluster.flip(place);
                self.later(cluster, 20, 5_000, Undo::Start(place));
            }
            Fault::LostDisk if is_up && cluster.may_hurt(place) => {
                cluster.crash(place, false).await;
                cluster.wipe(place);
                self.later(cluster, 200, 9_000, Undo::Start(place));
            }
            Fault::SyncFails | Fault::DiskFull if is_up => {
                let fault = if kind == Fault::DiskFull {
                    DiskFault::Full
                } else {
                    DiskFault::SyncFails
                };
                cluster.places[place].storage.set_fault(fault);
                self.later(cluster, 200, 5_000, Undo::Start(place));
            }
            Fault::SlowSync => {
                let delay = cluster.chance.random_range(20..4_000);
                cluster.places[place]
                    .storage
                    .set_sync_delay_max(Duration::from_millis(delay));
                self.later(cluster, 1_000, 8_000, Undo::QuickSync(place));
            }
            Fault::SlowSyncs => {
                let delay = Duration::from_millis(cluster.chance.random_range(1_000..5_000));
                for place in 0..servers {
                    cluster.places[place].storage.set_sync_delay_max(delay);
                    self.later(cluster, 2_000, 6_000, Undo::QuickSync(place));
                }
            }
            Fault::Isolation | Fault::Split | Fault::OneWay | Fault::Partial => {
                self.cut(cluster, kind, place);
            }
            Fault::BadNetwork => {
                let loss = cluster.chance.random_range(0.0..0.25);
                let repetition = cluster.chance.random_range(0.0..0.1);
                let delay = cluster.chance.random_range(1..400);
                cluster.network.set_quality(loss, repetition, delay);
                self.later(cluster, 2_000, 15_000, Undo::Calm);
            }
            Fault::Pause if is_up => {
                let length = cluster.chance.random_range(200..PAUSE_MAX_MS);
                let length = Duration::from_millis(length);
                cluster.network.pause(place, length);
                self.pending
                    .push((Instant::now() + length, Undo::Resume(place)));
            }
            Fault::ClockJump => {
                let span = if cluster.chance.random_bool(0.5) {
                    5_000
                } else {
                    7_200_000
                };
                let to = cluster.chance.random_range(-span..span);
                cluster.places[place].wall.jump(to);
            }
            Fault::Membership if is_up && cluster.may_hurt(place) => {
                cluster.remove(place).await;
            }
            Fault::Checkpoint if is_up => {
                if let Some(front) = cluster.places[place].front.clone() {
                    // It may fail with the disk; what counts is what is there after the next start.
                    let _ = timeout(
                        Duration::from_secs(2),
                        front.server.consensus().checkpoint(),
                    )
                    .await;
                }
            }
            Fault::Transfer => {
                let id = cluster.places[place].id;
                if let Some(leader) = cluster.world.leader() {
                    let _ = leader.server.consensus().transfer_leadership(id).await;
                }
            }
            Fault::Ambush if cluster.is_complete() && self.pending.is_empty() => {
                self.ambush(cluster).await;
            }
            Fault::Ambush
            | Fault::PowerLoss
            | Fault::Kill
            | Fault::PowerLossInside
            | Fault::Flip
            | Fault::LostDisk
            | Fault::SyncFails
            | Fault::DiskFull
            | Fault::Pause
            | Fault::Membership
            | Fault::Checkpoint => {}
        }
    }

    /// What a majority was told has to be known to one server at least of every other majority, so the one that both have
    /// in common is the one to lose its memory: it loses its power as soon as it has voted, or written, or received a
    /// checkpoint, and the others of the first majority are cut off before it is up again.
    async fn ambush(&mut self, cluster: &mut Cluster) {
        let Some(leader) = cluster.world.leader().map(|front| front.place) else {
            return;
        };
        let servers = cluster.places.len();
        let mut others: Vec<usize> = (0..servers).filter(|place| *place != leader).collect();
        for last in (1..others.len()).rev() {
            others.swap(last, cluster.chance.random_range(0..=last));
        }
        // Of three servers one is away, of five two.
        let away: Vec<usize> = others.drain(..servers / 2).collect();
        let is_away = |place: usize| away.contains(&place);
        let elects = cluster.chance.random_bool(0.5);
        let heir = others[0];
        // Who loses its memory: one that votes for the heir, or one that follows the leader.
        let common = match others.get(1) {
            Some(other) if cluster.chance.random_bool(0.5) => *other,
            _ if elects => leader,
            _ => heir,
        };
        cluster.counts.cuts += 1;
        part(cluster, is_away);
        let pause = async |cluster: &mut Cluster, from_ms, to_ms| {
            let length = cluster.chance.random_range(from_ms..to_ms);
            sleep(Duration::from_millis(length)).await;
        };
        pause(cluster, 1, 2_000).await;
        let dies_inside = cluster.chance.random_bool(0.5);
        if dies_inside {
            let changes = cluster.chance.random_range(0..16);
            let death = Death::PowerLost { may_tear: false };
            cluster.places[common].storage.die_after(changes, death);
        }
        if elects && let Some(front) = cluster.world.front(leader) {
            let heir = cluster.places[heir].id;
            let _ = front.server.consensus().transfer_leadership(heir).await;
        }
        pause(cluster, 1, 400).await;
        cluster.lose_power(common).await;
        if !elects && cluster.may_hurt(common) && cluster.chance.random_bool(0.3) {
            if cluster.chance.random_bool(0.5) {
                cluster.flip(common);
            } else {
                cluster.wipe(common);
            }
        }
        cluster.network.mend();
        part(cluster, |place| is_away(place) || place == common);
        cluster.world.tell("ambush", || {
            format!("{away:?} were away, {common} comes to them without its memory")
        });
        pause(cluster, 1, 200).await;
        cluster.start(common).await;
        self.later(cluster, 2_000, 6_000, Undo::Mend);
    }

    fn cut(&mut self, cluster: &mut Cluster, kind: Fault, place: usize) {
        let servers = cluster.places.len();
        let side: Vec<bool> = (0..servers).map(|_| cluster.chance.random()).collect();
        for from in 0..servers {
            for to in (0..servers).filter(|to| *to != from) {
                let cuts = match kind {
                    Fault::Isolation => from == place || to == place,
                    Fault::Split => side[from] != side[to],
                    Fault::OneWay => cluster.chance.random_bool(0.3),
                    Fault::Partial => from < to && cluster.chance.random_bool(0.4),
                    _ => false,
                };
                if cuts {
                    cluster.network.cut(from, to);
                    if kind == Fault::Partial {
                        cluster.network.cut(to, from);
                    }
                }
            }
        }
        cluster.counts.cuts += 1;
        self.later(cluster, 500, 14_000, Undo::Mend);
    }
}

/// Cuts all wires between those for whom this holds and the others.
fn part(cluster: &Cluster, is_there: impl Fn(usize) -> bool) {
    let servers = cluster.places.len();
    for from in 0..servers {
        for to in (0..servers).filter(|to| is_there(*to) != is_there(from)) {
            cluster.network.cut(from, to);
        }
    }
}

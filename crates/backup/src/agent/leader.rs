//! What the instance does that holds the lock.

use std::time::Duration;

use bytes::Bytes;
use client::{CheckStatus, Client, HeldLock, KvPut, PutCondition, QueryOptions, WriteOptions};
use model::GoDuration;
use tokio::time::{Instant, sleep_until, timeout};

use super::chance::Chance;
use super::mandate::Mandate;
use super::save::{Saver, timestamp};
use super::service::{Board, Kind};
use super::status::{self, Failure, Status, short};
use super::take::NotTaken;
use super::{Saved, Settings, Stop, figures, schedule};

/// How long is waited for the servers where nothing depends on it.
const STATUS_TIME: Duration = Duration::from_secs(10);

/// Why somebody isn't the leader any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// One is to stop.
    Stopped,
    /// The lock was lost.
    Lost(String),
    /// Too many snapshots failed.
    GaveUp,
}

/// Who saves while it holds the lock.
pub(super) struct Leader<'a> {
    pub(super) client: &'a Client,
    pub(super) settings: &'a Settings,
    pub(super) saver: Saver<'a>,
    pub(super) board: &'a Board,
    pub(super) chance: &'a Chance,
    pub(super) status: StatusEntry<'a>,
    /// How many snapshots failed in a row, whoever had the lock in between.
    failures: u32,
    /// Not before then after a failure.
    not_before: Option<Instant>,
}

/// What came of a snapshot.
enum Turn {
    /// It is everywhere, and nothing is known against it.
    Good,
    /// It is somewhere.
    Partly,
    /// It is nowhere.
    Failed,
}

impl<'a> Leader<'a> {
    pub(super) fn new(
        client: &'a Client,
        settings: &'a Settings,
        saver: Saver<'a>,
        board: &'a Board,
        chance: &'a Chance,
        instance: &'a str,
    ) -> Self {
        Self {
            client,
            settings,
            saver,
            board,
            chance,
            status: StatusEntry::new(client, settings, instance),
            failures: 0,
            not_before: None,
        }
    }

    /// Saves until it must not any more.
    pub(super) async fn lead(&mut self, held: &HeldLock, stop: Stop<'_>) -> End {
        let (client, key) = (self.client, &self.settings.lock_key);
        let mandate = Mandate::Lock { client, key, held };
        figures::set(&figures::LEADING, true);
        let end = self.save_by(&mandate, stop).await.unwrap_or_else(|end| end);
        figures::set(&figures::LEADING, false);
        self.board.withdraw(&[Kind::Saving, Kind::Verified]);
        end
    }

    async fn save_by(&mut self, mandate: &Mandate<'_>, stop: Stop<'_>) -> Result<End, End> {
        let mut due = unless(mandate, &stop, self.first_due()).await?;
        let mut failures = 0;
        loop {
            unless(mandate, &stop, sleep_until(due)).await?;
            let began = Instant::now();
            let next = began + self.settings.interval;
            match self.turn(mandate, &stop, next).await? {
                Turn::Good => {
                    failures = 0;
                    due = next;
                }
                // Another one in the same interval would be one too many where this one is.
                Turn::Partly => {
                    failures += 1;
                    due = next;
                }
                Turn::Failed => {
                    failures += 1;
                    let pause = schedule::retry(self.failures, self.settings.interval);
                    due = Instant::now() + self.chance.about(pause);
                    self.not_before = Some(due);
                }
            }
            if self.settings.max_failures > 0 && failures >= self.settings.max_failures {
                return Ok(End::GaveUp);
            }
        }
    }

    /// When the first snapshot is due: at once, but an interval after the newest one that anybody took.
    async fn first_due(&mut self) -> Instant {
        let heard = self.status.read().await;
        let newest = self.saver.look(heard).await;
        self.go_on_from(newest);
        let mut due = Instant::now() + self.saver.wait();
        due = self.not_before.map_or(due, |earliest| due.max(earliest));
        let text = match newest {
            Some(id) => format!(
                "this instance has begun to save; the newest snapshot is {id}, of {}",
                timestamp(id)
            ),
            None => "this instance has begun to save; there is no snapshot yet".to_owned(),
        };
        self.board.report(Kind::Saving, CheckStatus::Passing, &text);
        due
    }

    /// What the instance before knew of the newest snapshot, so that a failover doesn't look like a doubt.
    fn go_on_from(&self, newest: Option<u64>) {
        let Some(proved) = &self.status.status.last_verified else {
            return;
        };
        if newest.is_some_and(|id| proved.id == id.to_string()) {
            let text = format!("snapshot {} was proved at {}", proved.id, proved.at);
            self.board
                .report(Kind::Verified, CheckStatus::Passing, &text);
        }
    }

    /// One snapshot.
    async fn turn(
        &mut self,
        mandate: &Mandate<'_>,
        stop: &Stop<'_>,
        next: Instant,
    ) -> Result<Turn, End> {
        let mut fresh = match self.saver.take(mandate, stop.clone()).await {
            Ok(fresh) => fresh,
            Err(NotTaken::Stopped) => return Err(End::Stopped),
            Err(NotTaken::Lost(why)) => return Err(End::Lost(why)),
            Err(NotTaken::Failed(why)) => {
                self.failed_everywhere(&why);
                unless(mandate, stop, self.write_status(None)).await?;
                return Ok(Turn::Failed);
            }
            Err(NotTaken::Unclear(why)) => {
                self.failed_everywhere(&why);
                unless(mandate, stop, self.write_status(None)).await?;
                if unless(mandate, stop, self.saver.is_there_after_all()).await? {
                    tracing::warn!(
                        "The snapshot is there after all, and will not be looked at; the next one comes when it is due"
                    );
                    return Ok(Turn::Partly);
                }
                return Ok(Turn::Failed);
            }
        };
        let id = fresh.saved.name.id;
        match fresh.saved.failure() {
            None => {
                let text = format!("saved snapshot {id}, {} bytes", fresh.saved.size);
                self.board.report(Kind::Saving, CheckStatus::Passing, &text);
            }
            Some(why) => {
                let text = format!("snapshot {id} is not everywhere: {why}");
                self.board
                    .report(Kind::Saving, CheckStatus::Critical, &text);
            }
        }
        // What is there stays there, whatever comes in between; but who must not save must not make room either.
        unless(mandate, stop, self.saver.verify(&mut fresh)).await?;
        let (status, text) = match fresh.saved.doubt() {
            None => (
                CheckStatus::Passing,
                format!("snapshot {id} was downloaded and loaded, and is what was received"),
            ),
            Some(why) => (CheckStatus::Critical, why),
        };
        self.board.report(Kind::Verified, status, &text);
        figures::set(&figures::VERIFIED, fresh.saved.is_verified());
        let turn = match fresh.saved.failure() {
            None => {
                self.failures = 0;
                figures::SAVED.increment(1);
                Turn::Good
            }
            Some(why) => {
                self.failed(&why);
                Turn::Partly
            }
        };
        self.status.saved(&fresh.saved, &self.saver);
        unless(mandate, stop, self.write_status(Some(next))).await?;
        unless(mandate, stop, self.saver.rotate(&fresh, mandate)).await?;
        Ok(turn)
    }

    fn failed_everywhere(&mut self, why: &str) {
        tracing::error!("No snapshot: {why}");
        self.failed(why);
    }

    fn failed(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        figures::FAILED.increment(1);
        self.board.report(Kind::Saving, CheckStatus::Critical, why);
        self.status.failed(why, &self.saver);
    }

    async fn write_status(&mut self, next: Option<Instant>) {
        let failures = self.failures;
        self.status.write(failures, next, &self.saver).await;
    }
}

/// Does something, unless one is to stop or the lock is lost.
async fn unless<T>(
    mandate: &Mandate<'_>,
    stop: &Stop<'_>,
    work: impl Future<Output = T>,
) -> Result<T, End> {
    tokio::select! {
        biased;
        () = stop.clone() => Err(End::Stopped),
        loss = mandate.lost() => Err(End::Lost(loss.to_string())),
        done = work => Ok(done),
    }
}

/// The entry that tells everybody how snapshots are doing. That it can't be written is no reason not to save.
pub(super) struct StatusEntry<'a> {
    client: &'a Client,
    settings: &'a Settings,
    key: String,
    status: Status,
}

impl<'a> StatusEntry<'a> {
    pub(super) fn new(client: &'a Client, settings: &'a Settings, instance: &str) -> Self {
        Self {
            client,
            settings,
            key: status::key(&settings.lock_key),
            status: Status {
                agent: instance.to_owned(),
                interval: shown(settings.interval),
                ..Status::default()
            },
        }
    }

    /// Goes on from what another instance wrote, and says which snapshot was the last one of which it knew.
    pub(super) async fn read(&mut self) -> Option<u64> {
        let options = QueryOptions {
            datacenter: self.settings.datacenter.clone(),
            ..QueryOptions::default()
        };
        let reading = self.client.kv_get(&self.key, &options);
        let before = match timeout(STATUS_TIME, reading).await {
            Ok(Ok(answer)) => answer.value,
            Ok(Err(why)) => {
                tracing::debug!("{} can't be read: {why}", self.key);
                None
            }
            Err(_) => None,
        };
        let before = before.map_or_else(Status::default, |pair| Status::decode(&pair.value));
        let newest = before.newest();
        self.status = Status {
            agent: std::mem::take(&mut self.status.agent),
            interval: std::mem::take(&mut self.status.interval),
            node: std::mem::take(&mut self.status.node),
            ..before
        };
        newest
    }

    pub(super) fn saved(&mut self, saved: &Saved, saver: &Saver<'_>) {
        self.status.saved(saved, &saver.time().to_string());
    }

    pub(super) fn failed(&mut self, why: &str, saver: &Saver<'_>) {
        self.status.last_failure = Some(Failure {
            at: saver.time().to_string(),
            text: short(why),
        });
    }

    /// Writes it, with the time of the next snapshot if that is known.
    pub(super) async fn write(&mut self, failures: u32, next: Option<Instant>, saver: &Saver<'_>) {
        if self.status.node.is_empty() {
            let place = timeout(STATUS_TIME, self.client.agent_place()).await;
            if let Ok(Ok((node, _))) = place {
                self.status.node = node;
            }
        }
        let now = saver.time();
        self.status.failures = failures;
        self.status.updated_at = now.to_string();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        self.status.next_at = left
            .and_then(|left| now.checked_add(left).ok())
            .map_or_else(String::new, |at| at.to_string());
        let put = KvPut {
            key: self.key.clone(),
            value: Bytes::from(self.status.encode()),
            flags: 0,
            condition: PutCondition::Always,
        };
        let options = WriteOptions {
            datacenter: self.settings.datacenter.clone(),
            ..WriteOptions::default()
        };
        let why = match timeout(STATUS_TIME, self.client.kv_put(&put, &options)).await {
            Ok(Ok(_)) => return,
            Ok(Err(why)) => why.to_string(),
            Err(_) => "i/o timeout".to_owned(),
        };
        tracing::warn!(
            "The key {} doesn't say how snapshots are doing: {why}",
            self.key
        );
    }
}

fn shown(time: Duration) -> String {
    GoDuration(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)).to_string()
}

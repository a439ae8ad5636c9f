//! A client and its session: how it begins one, renews it or forgets to, and learns that it has ended.

use std::time::Duration;

use model::{
    Behavior, Command, Error, KvEntry, KvGet, KvOp, KvVerb, Operated, Operation, Reply, Session,
    SessionInfo, Text, Uuid,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rpc::{Consistency, OperateOptions, ReadOptions, WriteOptions};
use tokio::time::{Instant, sleep};

use super::{CHECK, NODE, PATIENCE};
use crate::history::locks::{Event, Made, What};
use crate::history::{Moment, Row, SessionNumber};
use crate::world::{Front, Told, World};

/// A client, with the session that it has.
pub(super) struct Holder {
    pub(super) number: u64,
    pub(super) world: World,
    pub(super) chance: ChaCha8Rng,
    pub(super) mine: Option<Mine>,
}

/// Its session.
#[derive(Debug, Clone)]
pub(super) struct Mine {
    pub(super) number: SessionNumber,
    pub(super) id: Uuid,
    pub(super) deletes: bool,
    ttl: Option<Duration>,
    renewal: Instant,
    /// Whether nobody renews it any more, as if its client had died.
    pub(super) is_abandoned: bool,
}

/// What a write to a key came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    No,
    /// There is no such session.
    NoSession,
    Unknown,
    /// Nothing was done.
    Nothing,
}

impl Holder {
    pub(super) async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let pause = self.chance.random_range(from_ms..to_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    /// A server to ask, mostly the one that leads.
    pub(super) fn front(&mut self) -> Option<Front> {
        let draw = self.chance.random();
        let leader = if self.chance.random_bool(0.4) {
            None
        } else {
            self.world.leader()
        };
        leader.or_else(|| self.world.any(draw))
    }

    pub(super) fn note(&self, session: SessionNumber, what: What, called: Moment, answered: bool) {
        let returned = if answered {
            self.world.now()
        } else {
            Moment::MAX
        };
        let event = Event {
            session,
            what,
            called,
            returned,
        };
        self.world
            .tell("locks", || format!("client {}: {event:?}", self.number));
        self.world.with(|state| state.locks.events.push(event));
    }

    pub(super) async fn write(&mut self, front: &Front, command: Command) -> Told<Reply> {
        let call = front.cluster.write(command, WriteOptions::default());
        self.world.ask(front, PATIENCE, call).await
    }

    /// Begins a session, made as chance wills.
    pub(super) async fn begin(&mut self, front: &Front, deletes: bool) {
        let ttls = [0, 1_000, 2_000, 5_000, 5_000, 10_000];
        let ttl = ttls[self.chance.random_range(0..ttls.len())];
        let delays = [0, 500, 3_000, 10_000];
        let delay = delays[self.chance.random_range(0..delays.len())];
        let bound = self.chance.random_bool(0.3);
        let made = Made {
            ttl: (ttl > 0).then(|| Duration::from_millis(ttl)),
            delay: Duration::from_millis(delay),
            bound,
        };
        let session = Session {
            node: Text::from(NODE),
            checks: if bound {
                vec![Text::from(CHECK)]
            } else {
                Vec::new()
            },
            lock_delay: i64::try_from(made.delay.as_nanos()).unwrap_or(0),
            behavior: if deletes {
                Behavior::Delete
            } else {
                Behavior::Release
            },
            ttl: match made.ttl {
                Some(ttl) => Text::from(format!("{}ms", ttl.as_millis())),
                None => Text::default(),
            },
            ..Session::default()
        };
        let called = self.world.now();
        let told = self
            .write(front, Command::SessionCreate(Box::new(session)))
            .await;
        let Told::Answer(Reply::Id(id)) = told else {
            return;
        };
        let Some(id) = model::parse_uuid(&id) else {
            return;
        };
        let number = self.world.with(|state| {
            let number = SessionNumber::try_from(state.sessions.len()).unwrap_or(Row::STRANGER);
            state.sessions.insert(id, number);
            number
        });
        self.note(number, What::Begun(made), called, true);
        self.mine = Some(Mine {
            number,
            id,
            deletes,
            ttl: made.ttl,
            renewal: Instant::now(),
            is_abandoned: false,
        });
        self.set_renewal();
    }

    /// Renewals come in time, or so late that servers may be ending the session just then.
    fn set_renewal(&mut self) {
        let share = if self.chance.random_bool(0.12) {
            self.chance.random_range(1.9..2.1)
        } else {
            self.chance.random_range(0.3..0.9)
        };
        if let Some(mine) = &mut self.mine
            && let Some(ttl) = mine.ttl
        {
            mine.renewal = Instant::now() + ttl.mul_f64(share);
        }
    }

    /// Renews the session if it is time to, and says whether there was something to do.
    pub(super) async fn keep_alive(&mut self, front: &Front) -> bool {
        let Some(mine) = self.mine.clone() else {
            return false;
        };
        if mine.is_abandoned {
            self.look(front, &mine).await;
            return true;
        }
        let is_time = mine.ttl.is_some() && mine.renewal <= Instant::now();
        if !is_time {
            return false;
        }
        let called = self.world.now();
        let renew = Operation::SessionRenew(mine.id);
        let call = front.cluster.operate(renew, OperateOptions::default());
        match self.world.ask(front, PATIENCE, call).await {
            Told::Answer(Operated::Session(Some(_))) => {
                self.note(mine.number, What::Renewed, called, true);
                self.set_renewal();
            }
            Told::Answer(Operated::Session(None)) => self.is_gone(&mine, called),
            Told::Answer(_) | Told::Refused(_) | Told::Unknown => {}
        }
        true
    }

    fn is_gone(&mut self, mine: &Mine, called: Moment) {
        self.note(mine.number, What::Gone, called, true);
        self.mine = None;
    }

    /// Looks whether the session still is.
    pub(super) async fn look(&mut self, front: &Front, mine: &Mine) {
        let called = self.world.now();
        let question = SessionInfo { id: mine.id };
        let call = front.cluster.read(question, self.fresh());
        if let Told::Answer(found) = self.world.ask(front, PATIENCE, call).await
            && found.answer.is_none()
        {
            self.is_gone(mine, called);
        }
    }

    fn fresh(&mut self) -> ReadOptions {
        ReadOptions {
            consistency: if self.chance.random_bool(0.5) {
                Consistency::Consistent
            } else {
                Consistency::Default
            },
            ..ReadOptions::default()
        }
    }

    /// Ends the session, and says whether that was acknowledged.
    pub(super) async fn end(&mut self, front: &Front) -> bool {
        let Some(mine) = self.mine.clone() else {
            return true;
        };
        let called = self.world.now();
        let told = self.write(front, Command::SessionDestroy(mine.id)).await;
        if matches!(told, Told::Refused(_)) {
            return false;
        }
        let is_answered = matches!(told, Told::Answer(_));
        self.note(mine.number, What::Ended, called, is_answered);
        if is_answered {
            self.mine = None;
        }
        is_answered
    }

    /// Before it goes: a session without a TTL would stay for ever.
    pub(super) async fn leave_nothing(&mut self) {
        const TRIES: usize = 60;
        for _ in 0..TRIES {
            if self.mine.as_ref().is_none_or(|mine| mine.ttl.is_some()) {
                return;
            }
            if let Some(front) = self.world.leader() {
                self.end(&front).await;
            }
            self.pause(100, 500).await;
        }
    }

    pub(super) async fn change(
        &mut self,
        front: &Front,
        verb: KvVerb,
        key: &str,
        value: &str,
    ) -> Done {
        let command = Command::Kv(KvOp {
            verb,
            key: Text::from(key),
            value: Text::from(value),
            flags: 0,
        });
        match self.write(front, command).await {
            Told::Answer(Reply::Applied(true)) => Done::Yes,
            Told::Answer(Reply::Applied(false)) => Done::No,
            Told::Answer(_) | Told::Unknown => Done::Unknown,
            Told::Refused(error) => match error.kind() {
                Error::Invalid(text) if text.starts_with("invalid session") => Done::NoSession,
                _ => Done::Nothing,
            },
        }
    }

    /// What a key is; `None` without an answer.
    pub(super) async fn get(&mut self, front: &Front, key: &str) -> Option<Option<KvEntry>> {
        let question = KvGet {
            key: Text::from(key),
        };
        let call = front.cluster.read(question, self.fresh());
        match self.world.ask(front, PATIENCE, call).await {
            Told::Answer(found) => Some(found.answer),
            Told::Refused(_) | Told::Unknown => None,
        }
    }
}

//! The store as the state machine of the log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use consensus::{Committed, Frozen, MachineError, Payload, Reply, StateMachine};
use model::{Command, Entry, Uuid};
use store::{Effect, Store, View};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::figures;
use crate::leader::Timers;

/// Applies committed entries to the store, and tells the leader's duties what came of them.
pub(crate) struct Machine {
    store: Store,
    /// Counts the times the whole state was replaced; leader duties begin anew at each.
    replaced: Arc<watch::Sender<u64>>,
    timers: Arc<Timers>,
    /// Told when keys were lost whose lock-delay has yet to begin.
    delayed: Arc<Notify>,
}

impl Machine {
    pub(crate) fn new(
        store: Store,
        replaced: Arc<watch::Sender<u64>>,
        timers: Arc<Timers>,
        delayed: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            replaced,
            timers,
            delayed,
        }
    }

    fn tell_replaced(&self) {
        self.timers.replaced();
        self.delayed.notify_waiters();
        self.replaced.send_modify(|count| *count += 1);
    }
}

/// What has to be told once a batch can be seen.
#[derive(Default)]
struct After {
    ended: Vec<Uuid>,
    delayed: bool,
    replaced: bool,
}

/// How long the session lives that this command creates.
fn lifetime(command: &Command) -> Option<Duration> {
    if let Command::SessionCreate(session) = command {
        session.lifetime()
    } else {
        None
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Reply>, MachineError> {
        let mut replies: Vec<Reply> = Vec::with_capacity(batch.len());
        let mut after = After::default();
        for Committed {
            index,
            term,
            payload,
        } in batch
        {
            let bytes = match payload {
                Payload::Command(bytes) => bytes,
                Payload::Blank | Payload::Membership => {
                    self.store.advance(index, term);
                    replies.push(Box::new(()));
                    continue;
                }
            };
            let entry: Entry = wire::compact::from_slice(&bytes)
                .map_err(|error| MachineError::new(format!("entry {index} of the log: {error}")))?;
            let (timing, began) = (figures::applied(&entry.command), Instant::now());
            let lifetime = lifetime(&entry.command);
            let applied = self.store.apply(index, term, entry);
            figures::note(timing, began);
            for effect in applied.effects {
                match effect {
                    // Before anybody can see the session, and renew it.
                    Effect::SessionCreated { id } => self.timers.created(id, lifetime),
                    Effect::SessionEnded { id } => after.ended.push(id),
                    Effect::KeysDelayed => after.delayed = true,
                    Effect::StateReplaced => after.replaced = true,
                    _ => {}
                }
            }
            replies.push(Box::new(applied.result));
        }
        let before = after.replaced.then(|| self.store.shared().view());
        self.store.publish();
        // Now that nobody can find them any more.
        self.timers.ended(&after.ended);
        if after.delayed {
            self.delayed.notify_waiters();
        }
        if let Some(before) = before {
            discard(before);
            self.tell_replaced();
        }
        Ok(replies)
    }

    fn freeze(&mut self) -> Option<Box<dyn Frozen>> {
        if self.store.restore_is_open() {
            return None;
        }
        Some(Box::new(Checkpoint(self.store.freeze())))
    }

    fn install(&mut self, source: &mut dyn io::Read) -> Result<(), MachineError> {
        self.store
            .install(source)
            .map_err(|error| MachineError::new(error.to_string()))?;
        self.tell_replaced();
        Ok(())
    }
}

/// Frees a state that nobody reads any more, on a thread of its own: with a million rows it takes a good part of a second.
///
/// Nothing waits for that thread, because all that it does is to give back memory.
fn discard(state: View) {
    let freed = std::thread::Builder::new()
        .name("discard".to_owned())
        .spawn(move || drop(state));
    if let Err(error) = freed {
        tracing::debug!("the old state was freed in place: {error}");
    }
}

struct Checkpoint(View);

impl Frozen for Checkpoint {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        store::checkpoint::write(&self.0, out)
    }
}

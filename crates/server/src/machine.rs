//! The store as the state machine of the log.

use std::io;
use std::sync::Arc;

use consensus::{Committed, Frozen, MachineError, Payload, Reply, StateMachine};
use model::Entry;
use store::{Effect, Store, View};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::figures;

/// Applies committed entries to the store and says when the state was replaced.
pub(crate) struct Machine {
    store: Store,
    /// Counts the times the whole state was replaced; leader duties begin anew at each.
    replaced: Arc<watch::Sender<u64>>,
}

impl Machine {
    pub(crate) fn new(store: Store, replaced: Arc<watch::Sender<u64>>) -> Self {
        Self { store, replaced }
    }
}

impl StateMachine for Machine {
    fn apply(&mut self, batch: Vec<Committed>) -> Result<Vec<Reply>, MachineError> {
        let mut replies: Vec<Reply> = Vec::with_capacity(batch.len());
        let mut replaced = false;
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
            let applied = self.store.apply(index, term, entry);
            figures::note(timing, began);
            replaced |= applied
                .effects
                .iter()
                .any(|effect| matches!(effect, Effect::StateReplaced));
            replies.push(Box::new(applied.result));
        }
        let before = replaced.then(|| self.store.shared().view());
        self.store.publish();
        if let Some(before) = before {
            discard(before);
            self.replaced.send_modify(|count| *count += 1);
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
        self.replaced.send_modify(|count| *count += 1);
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

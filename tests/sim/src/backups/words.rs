//! What snapshot agents write into their logs.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{DefaultGuard, Interest};
use tracing::{Event, Metadata, Subscriber};

use super::witness::Witness;

thread_local! {
    /// Which process is at work; a life has its thread for itself.
    static SPEAKER: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Does something as a process.
pub(super) fn speak<T>(process: u32, work: impl FnOnce() -> T) -> T {
    let before = SPEAKER.replace(Some(process));
    let done = work();
    SPEAKER.set(before);
    done
}

/// Listens to what snapshot agents say, until what it returns is dropped.
pub(super) fn listen(witness: &Witness) -> DefaultGuard {
    tracing::subscriber::set_default(Listener(witness.clone()))
}

struct Listener(Witness);

impl Subscriber for Listener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // That of the agent and of nobody else.
        if self.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("backup")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.hears(SPEAKER.get(), &line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // A string takes all that is written.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

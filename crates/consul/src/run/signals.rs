//! What the system may tell a running agent.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};

use super::say;
use crate::metrics::Registry;

/// The signals that an agent heeds.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    dump: tokio::signal::unix::Signal,
    figures: Registry,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To stop.
    Stop(Stop),
    /// To read the configuration again.
    Reload,
}

/// A signal that asks the agent to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Interrupt,
    Terminate,
}

impl Signals {
    /// Listens from now on; `figures` is what a signal shows.
    pub(crate) fn listen(figures: Registry) -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            dump: signal(SignalKind::user_defined1())?,
            figures,
        })
    }

    /// The next signal that asks for something.
    pub(crate) async fn next(&mut self) -> Told {
        loop {
            tokio::select! {
                biased;
                stop = stop(&mut self.interrupt, &mut self.terminate) => return Told::Stop(stop),
                _ = self.hang_up.recv() => {
                    say("==> Caught signal: hangup");
                    return Told::Reload;
                }
                _ = self.dump.recv() => {
                    // A reader who has gone away doesn't matter.
                    let _ = std::io::stderr().write_all(self.figures.dump().as_bytes());
                }
            }
        }
    }

    /// The next signal that asks the agent to stop; the others are heard later.
    pub(crate) async fn next_stop(&mut self) -> Stop {
        stop(&mut self.interrupt, &mut self.terminate).await
    }

    /// Returns when the agent is to stop, whatever else comes before.
    pub(crate) async fn stop(&mut self) {
        while self.next().await == Told::Reload {}
    }
}

async fn stop(
    interrupt: &mut tokio::signal::unix::Signal,
    terminate: &mut tokio::signal::unix::Signal,
) -> Stop {
    tokio::select! {
        biased;
        _ = interrupt.recv() => {
            say("==> Caught signal: interrupt");
            Stop::Interrupt
        }
        _ = terminate.recv() => {
            say("==> Caught signal: terminated");
            Stop::Terminate
        }
    }
}

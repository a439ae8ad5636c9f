//! What the system may tell a running agent.

use tokio::signal::unix::{SignalKind, signal};

use super::say;

/// The signals that an agent heeds.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    dump: tokio::signal::unix::Signal,
}

/// A signal that asks the agent to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Interrupt,
    Terminate,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            dump: signal(SignalKind::user_defined1())?,
        })
    }

    /// Returns when the agent is to stop.
    pub(super) async fn stop(&mut self) -> Stop {
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => {
                    say("==> Caught signal: interrupt");
                    return Stop::Interrupt;
                }
                _ = self.terminate.recv() => {
                    say("==> Caught signal: terminated");
                    return Stop::Terminate;
                }
                _ = self.hang_up.recv() => {
                    say("==> Caught signal: hangup");
                    tracing::warn!("this version reads its configuration only when it starts; nothing was reloaded");
                }
                _ = self.dump.recv() => {
                    say("==> Caught signal: user defined signal 1");
                    tracing::warn!("this version has no metrics to dump");
                }
            }
        }
    }
}

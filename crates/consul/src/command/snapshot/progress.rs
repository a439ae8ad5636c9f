//! How far a snapshot has come, for whoever watches.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::Console;

/// A bar on standard error for work that takes more than a second, if somebody is there to see it.
pub(super) struct Progress {
    begun: Instant,
    what: &'static str,
    total: Option<u64>,
    done: u64,
    shown: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: Option<u64>, console: &Console<'_>) -> Self {
        Self {
            begun: Instant::now(),
            what,
            total,
            done: 0,
            shown: console.errors_is_terminal,
            bar: None,
        }
    }

    /// Learns how much there is in all.
    pub(super) fn expect(&mut self, total: Option<u64>) {
        self.total = total;
    }

    pub(super) fn advance(&mut self, more: usize) {
        self.done += more as u64;
        if self.shown && self.bar.is_none() && self.begun.elapsed() > Duration::from_secs(1) {
            self.bar = Some(self.start_bar());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    fn start_bar(&self) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(self.total, ProgressDrawTarget::stderr());
        let template = match self.total {
            Some(_) => "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}",
            None => "{msg} {bytes} {bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(self.what);
        // What came before the bar would look like a burst.
        bar.set_position(self.done);
        bar.reset_eta();
        bar
    }

    /// Takes the bar away; what is left of it would only be in the way of the result.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

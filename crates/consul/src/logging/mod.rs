//! The agent's log: lines in the original's form, on standard output, after the banner, for whoever follows with `consul monitor`, and for syslog.

mod syslog;

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use agent::{Journal, Severity};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::reload;

use crate::config::LogLevel;

pub use syslog::{Facility, PLACES, Syslog};

/// How many bytes of log wait for the banner to be printed; what comes beyond that is dropped.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Libraries that log what only their authors need, warnings about ordinary elections among it, unless everything is asked for.
const QUIET: [&str; 3] = ["openraft", "hyper", "reqwest"];

/// The end of the log that the program holds: lines wait until the banner was printed.
#[derive(Debug, Clone)]
pub struct Log {
    held: Arc<Mutex<Held>>,
    levels: Arc<Levels>,
    journal: Journal,
    /// Set once it was found.
    syslog: Arc<OnceLock<Syslog>>,
}

#[derive(Debug)]
struct Held {
    /// Lines so far, or `None` once they go out at once.
    lines: Option<String>,
}

/// What is printed, and what is made at all because somebody follows the log.
#[derive(Debug)]
struct Levels {
    /// Places in [`Severity::ALL`]; the second is its length if nobody follows.
    printed: AtomicUsize,
    followed: AtomicUsize,
    /// Set once the log has started.
    filter: OnceLock<reload::Handle<Targets, tracing_subscriber::Registry>>,
}

impl Levels {
    /// Makes the lines that somebody wants, and no others: those cost nothing.
    fn apply(&self) {
        let least = self
            .printed
            .load(Ordering::Relaxed)
            .min(self.followed.load(Ordering::Relaxed));
        if let (Some(filter), Some(level)) = (self.filter.get(), Severity::ALL.get(least)) {
            // It fails only if logging has ended.
            let _ = filter.reload(targets(*level));
        }
    }

    fn prints(&self, level: Severity) -> bool {
        level as usize >= self.printed.load(Ordering::Relaxed)
    }
}

impl Log {
    fn new(level: LogLevel) -> Self {
        let levels = Arc::new(Levels {
            printed: AtomicUsize::new(severity(level) as usize),
            followed: AtomicUsize::new(Severity::ALL.len()),
            filter: OnceLock::new(),
        });
        let watched = Arc::clone(&levels);
        let journal = Journal::new(move |least| {
            let least = least.map_or(Severity::ALL.len(), |least| least as usize);
            watched.followed.store(least, Ordering::Relaxed);
            watched.apply();
        });
        let held = Held {
            lines: Some(String::new()),
        };
        Self {
            held: Arc::new(Mutex::new(held)),
            levels,
            journal,
            syslog: Arc::default(),
        }
    }

    /// Starts logging for the whole process; each line says which part speaks.
    ///
    /// # Errors
    /// If something logs already.
    pub fn start(level: LogLevel) -> anyhow::Result<Self> {
        Self::start_as(level, Voices::Named)
    }

    /// The same for a program of one part, whose own lines don't say who speaks.
    ///
    /// # Errors
    /// If something logs already.
    pub fn start_alone(level: LogLevel) -> anyhow::Result<Self> {
        Self::start_as(level, Voices::OwnUnnamed)
    }

    fn start_as(level: LogLevel, voices: Voices) -> anyhow::Result<Self> {
        let log = Self::new(level);
        let (filter, handle) = reload::Layer::new(targets(severity(level)));
        // Nobody else has this log yet.
        let _ = log.levels.filter.set(handle);
        let lines = Lines {
            log: log.clone(),
            voices,
        };
        let layer = lines.with_filter(filter);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
        Ok(log)
    }

    /// Prints lines of this level and above from now on.
    pub fn set_level(&self, level: LogLevel) {
        let level = severity(level) as usize;
        self.levels.printed.store(level, Ordering::Relaxed);
        self.levels.apply();
    }

    /// The log for those who follow it.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Sends what is printed to syslog as well, from now on.
    pub fn tell(&self, syslog: Syslog) {
        // There is only one.
        let _ = self.syslog.set(syslog);
    }

    /// Sends to syslog what still waits there; later lines are printed only.
    pub fn finish(&self) {
        if let Some(syslog) = self.syslog.get() {
            syslog.finish();
        }
    }

    /// Prints what has waited; from now on lines go out at once.
    pub fn release(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = held.lines.take() {
            print(&lines);
        }
    }

    /// A line; what comes before `text_at` is time and level.
    fn line(&self, level: Severity, line: &str, text_at: usize) {
        self.journal.push(level, line.trim());
        if !self.levels.prints(level) {
            return;
        }
        if let Some(syslog) = self.syslog.get() {
            syslog.send(level, line[text_at..].trim_end());
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut held.lines {
            Some(lines) if lines.len() + line.len() > HELD_BYTES_MAX => {}
            Some(lines) => lines.push_str(line),
            // Under the lock, so that lines of several threads don't mix.
            None => print(line),
        }
    }
}

/// A reader of the log that has gone away must not end the agent.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn severity(level: LogLevel) -> Severity {
    match level {
        LogLevel::Trace => Severity::Trace,
        LogLevel::Debug => Severity::Debug,
        LogLevel::Info => Severity::Info,
        LogLevel::Warn => Severity::Warn,
        LogLevel::Err => Severity::Err,
    }
}

fn targets(level: Severity) -> Targets {
    let (level, libraries) = match level {
        Severity::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
        Severity::Debug => (LevelFilter::DEBUG, LevelFilter::ERROR),
        Severity::Info => (LevelFilter::INFO, LevelFilter::ERROR),
        Severity::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        Severity::Err => (LevelFilter::ERROR, LevelFilter::ERROR),
    };
    Targets::new()
        .with_default(level)
        .with_targets(QUIET.map(|name| (name, libraries)))
}

/// Whether lines say which part speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voices {
    Named,
    /// Libraries of others do.
    OwnUnnamed,
}

/// The parts that are meant where our own are not named.
const OWN: [&str; 3] = ["backup", "client", "consul"];

/// Turns events into lines.
struct Lines {
    log: Log,
    voices: Voices,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::with_capacity(128);
        let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
        let metadata = event.metadata();
        let level = level(metadata);
        let _ = write!(line, "    {now} [{}]", level.name());
        let text_at = line.len() + 1;
        let component = component(metadata);
        if self.voices == Voices::Named || !OWN.contains(&component) {
            let _ = write!(line, " {component}:");
        }
        event.record(&mut Fields(&mut line));
        line.push('\n');
        self.log.line(level, &line, text_at);
    }
}

fn level(metadata: &Metadata<'_>) -> Severity {
    match *metadata.level() {
        Level::ERROR => Severity::Err,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    }
}

/// The crate that speaks.
fn component<'a>(metadata: &'a Metadata<'_>) -> &'a str {
    let target = metadata.target();
    target.split_once("::").map_or(target, |(name, _)| name)
}

/// Writes an event's text, and its fields as ` name=value`; line breaks are escaped so that one event is one line.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let start = self.0.len();
        let _ = if field.name() == "message" {
            write!(self.0, " {value:?}")
        } else {
            write!(self.0, " {}={value:?}", field.name())
        };
        if self.0[start..].contains(['\n', '\r']) {
            let escaped = self.0[start..].replace('\n', "\\n").replace('\r', "\\r");
            self.0.replace_range(start.., &escaped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_original_form() {
        let log = Log::new(LogLevel::Info);
        let lines = Lines {
            log: log.clone(),
            voices: Voices::Named,
        };
        let layer = lines.with_filter(targets(Severity::Info));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(target: "consensus::log", file = "x", "cannot\nsync");
            tracing::debug!("not shown");
            tracing::info!(target: "openraft::core", "not shown either");
        });
        let held = log.held.lock().unwrap();
        let lines = held.lines.as_deref().unwrap();
        let (indent, rest) = lines.split_at(4);
        assert_eq!(indent, "    ");
        assert_eq!(&rest[19..], " [ERR] consensus: cannot\\nsync file=x\n");
        assert_eq!(rest.as_bytes()[4], b'/');
    }

    #[test]
    fn a_program_of_one_part_does_not_name_it() {
        let log = Log::new(LogLevel::Info);
        let lines = Lines {
            log: log.clone(),
            voices: Voices::OwnUnnamed,
        };
        let layer = lines.with_filter(targets(Severity::Info));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: "backup::agent", "Saved snapshot 7");
            tracing::warn!(target: "object_store::retry", "again");
        });
        let held = log.held.lock().unwrap();
        let texts: Vec<&str> = held
            .lines
            .as_deref()
            .unwrap()
            .lines()
            .map(|line| &line[23..])
            .collect();
        assert_eq!(
            texts,
            [" [INFO] Saved snapshot 7", " [WARN] object_store: again"]
        );
    }

    #[tokio::test]
    async fn a_follower_sees_more_than_is_printed() {
        let log = Log::new(LogLevel::Warn);
        let (filter, handle) = reload::Layer::new(targets(Severity::Warn));
        log.levels.filter.set(handle).unwrap();
        let lines = Lines {
            log: log.clone(),
            voices: Voices::Named,
        };
        let layer = lines.with_filter(filter);
        let subscriber = tracing_subscriber::registry().with(layer);
        let _logs_here = tracing::subscriber::set_default(subscriber);
        tracing::debug!("before anybody followed");
        let mut lines = log.journal().follow(Severity::Debug);
        tracing::debug!("seen by the follower");
        tracing::warn!("seen by both");
        let seen = [lines.next().await.unwrap(), lines.next().await.unwrap()];
        assert!(
            seen[0].ends_with(" [DEBUG] consul: seen by the follower"),
            "{}",
            seen[0]
        );
        assert!(seen[1].ends_with("seen by both"), "{}", seen[1]);
        drop(lines);
        log.set_level(LogLevel::Err);
        tracing::warn!("too little now");
        let printed = log.held.lock().unwrap().lines.clone().unwrap();
        assert!(printed.ends_with("seen by both\n"), "{printed}");
        assert_eq!(printed.lines().count(), 1);
    }
}

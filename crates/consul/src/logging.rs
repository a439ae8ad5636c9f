//! The agent's log: lines in the original's form, on standard output, after the banner.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::config::LogLevel;

/// How many bytes of log wait for the banner to be printed; what comes beyond that is dropped.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Libraries that log what only their authors need, warnings about ordinary elections among it, unless everything is asked for.
const QUIET: [&str; 3] = ["openraft", "hyper", "reqwest"];

/// The end of the log that the program holds: lines wait until the banner was printed.
#[derive(Debug, Clone)]
pub struct Log(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    /// Lines so far, or `None` once they go out at once.
    lines: Option<String>,
}

impl Log {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// If something logs already.
    pub fn start(level: LogLevel) -> anyhow::Result<Self> {
        let log = Self(Arc::new(Mutex::new(Held {
            lines: Some(String::new()),
        })));
        let layer = Lines { log: log.clone() }.with_filter(filter(level));
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
        Ok(log)
    }

    /// Prints what has waited; from now on lines go out at once.
    pub fn release(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = held.lines.take() {
            print(&lines);
        }
    }

    fn line(&self, line: &str) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

fn filter(level: LogLevel) -> Targets {
    let (level, libraries) = match level {
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::ERROR),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::ERROR),
        LogLevel::Err => (LevelFilter::ERROR, LevelFilter::ERROR),
    };
    Targets::new()
        .with_default(level)
        .with_targets(QUIET.map(|name| (name, libraries)))
}

/// Turns events into lines.
struct Lines {
    log: Log,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::with_capacity(128);
        let now = jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S").to_string();
        let metadata = event.metadata();
        let _ = write!(
            line,
            "    {now} [{}] {}:",
            level(metadata),
            component(metadata)
        );
        event.record(&mut Fields(&mut line));
        line.push('\n');
        self.log.line(&line);
    }
}

/// The original's names of levels.
fn level(metadata: &Metadata<'_>) -> &'static str {
    match *metadata.level() {
        Level::ERROR => "ERR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
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
        let log = Log(Arc::new(Mutex::new(Held {
            lines: Some(String::new()),
        })));
        let layer = Lines { log: log.clone() }.with_filter(filter(LogLevel::Info));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(target: "consensus::log", file = "x", "cannot\nsync");
            tracing::debug!("not shown");
            tracing::info!(target: "openraft::core", "not shown either");
        });
        let held = log.0.lock().unwrap();
        let lines = held.lines.as_deref().unwrap();
        let (indent, rest) = lines.split_at(4);
        assert_eq!(indent, "    ");
        assert_eq!(&rest[19..], " [ERR] consensus: cannot\\nsync file=x\n");
        assert_eq!(rest.as_bytes()[4], b'/');
    }
}

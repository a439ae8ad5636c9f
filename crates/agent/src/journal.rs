//! The last lines of the log, and those that follow: what `consul monitor` shows.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::mpsc;

/// How many lines are remembered; the original does the same.
const LINES_MAX: usize = 512;

/// How many bytes of them at most: a line may be as long as whoever caused it likes.
const BYTES_MAX: usize = 256 * 1024;

/// How many lines may wait for a reader who is slower than the log; further ones are lost to that reader.
const BEHIND_MAX: usize = 512;

/// How much must be at stake for a line to be shown, from everything to almost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Everything.
    Trace,
    /// What developers want to know.
    Debug,
    /// What operators tell one another.
    Info,
    /// It went on, though it should not have happened.
    Warn,
    /// A person must look.
    Err,
}

impl Severity {
    /// All of them, from everything to almost nothing.
    pub const ALL: [Self; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Err];

    /// The original's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Err => "ERR",
        }
    }

    /// The one of this name, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|level| level.name().eq_ignore_ascii_case(name))
    }
}

/// The log as others may follow it. Clones are the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Is told the least level that anybody follows, whenever it may have changed.
    watcher: Box<dyn Fn(Option<Severity>) + Send + Sync>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<(Severity, Arc<str>)>,
    bytes: usize,
    followers: Vec<(u64, Severity, mpsc::Sender<Arc<str>>)>,
    followed: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl Journal {
    /// An empty journal.
    ///
    /// `watcher` is told the least level that anybody follows whenever it may have changed, so that whoever writes the
    /// log can make such lines although the agent itself doesn't print them.
    pub fn new(watcher: impl Fn(Option<Severity>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            watcher: Box::new(watcher),
        }))
    }

    /// Adds a line; it has no line break of its own.
    pub fn push(&self, level: Severity, line: &str) {
        let line: Arc<str> = line.into();
        let mut state = self.0.state();
        for (_, least, follower) in &state.followers {
            if level >= *least {
                // One who is too slow loses lines, as with the original: the log waits for nobody.
                let _ = follower.try_send(Arc::clone(&line));
            }
        }
        state.bytes += line.len();
        state.lines.push_back((level, line));
        while state.lines.len() > LINES_MAX || state.bytes > BYTES_MAX {
            let Some((_, gone)) = state.lines.pop_front() else {
                break;
            };
            state.bytes -= gone.len();
        }
    }

    /// Sends nobody any further lines: who follows sees the end when it has read what waits for it.
    pub fn close(&self) {
        self.0.close();
    }

    /// The remembered lines of at least this level, and then those that come.
    pub fn follow(&self, least: Severity) -> Lines {
        let (sender, coming) = mpsc::channel(BEHIND_MAX);
        let mut state = self.0.state();
        let remembered = state.lines.iter().filter(|(level, _)| *level >= least);
        let remembered = remembered.map(|(_, line)| Arc::clone(line)).collect();
        state.followed += 1;
        let number = state.followed;
        state.followers.push((number, least, sender));
        drop(state);
        self.0.tell_watcher();
        Lines {
            remembered,
            coming,
            number,
            journal: Arc::downgrade(&self.0),
        }
    }
}

impl Inner {
    fn close(&self) {
        self.state().followers.clear();
        self.tell_watcher();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not under the lock: the watcher may log.
    fn tell_watcher(&self) {
        let least = {
            let state = self.state();
            state.followers.iter().map(|(_, least, _)| *least).min()
        };
        (self.watcher)(least);
    }
}

/// A reader of the journal.
pub struct Lines {
    remembered: VecDeque<Arc<str>>,
    coming: mpsc::Receiver<Arc<str>>,
    number: u64,
    journal: Weak<Inner>,
}

impl Lines {
    /// The next line; `None` when the agent has ended.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        match self.remembered.pop_front() {
            Some(line) => Some(line),
            None => self.coming.recv().await,
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(journal) = self.journal.upgrade() {
            let is_other = |(number, _, _): &(u64, Severity, _)| *number != self.number;
            journal.state().followers.retain(is_other);
            journal.tell_watcher();
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_follower_sees_what_was_and_what_comes() {
        let journal = Journal::default();
        journal.push(Severity::Info, "one");
        journal.push(Severity::Debug, "two");
        let mut lines = journal.follow(Severity::Info);
        journal.push(Severity::Err, "three");
        journal.push(Severity::Trace, "four");
        drop(journal);
        assert_eq!(lines.next().await.as_deref(), Some("one"));
        assert_eq!(lines.next().await.as_deref(), Some("three"));
        assert_eq!(lines.next().await, None, "the agent has ended");
    }

    #[tokio::test]
    async fn it_is_bounded_in_lines_and_bytes() {
        let journal = Journal::default();
        for number in 0..2 * LINES_MAX {
            journal.push(Severity::Info, &number.to_string());
        }
        let mut lines = journal.follow(Severity::Trace);
        assert_eq!(lines.next().await.as_deref(), Some("512"));
        journal.push(Severity::Info, &"x".repeat(BYTES_MAX));
        assert_eq!(journal.0.state().lines.len(), 1);
    }

    #[test]
    fn a_slow_follower_loses_lines_and_one_that_has_gone_is_forgotten() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let journal = Journal::new({
            let told = Arc::clone(&told);
            move |least| told.lock().unwrap().push(least)
        });
        let lines = journal.follow(Severity::Warn);
        for _ in 0..2 * BEHIND_MAX {
            journal.push(Severity::Err, "again");
        }
        assert_eq!(lines.coming.len(), BEHIND_MAX);
        drop(lines);
        assert_eq!(*told.lock().unwrap(), [Some(Severity::Warn), None]);
    }

    #[tokio::test]
    async fn it_can_be_closed() {
        let journal = Journal::default();
        let mut lines = journal.follow(Severity::Info);
        journal.push(Severity::Info, "last");
        journal.close();
        journal.push(Severity::Info, "unheard");
        assert_eq!(lines.next().await.as_deref(), Some("last"));
        assert_eq!(lines.next().await, None);
    }

    #[test]
    fn levels_are_named_in_any_case() {
        assert_eq!(Severity::named("warn"), Some(Severity::Warn));
        assert_eq!(Severity::named("FOO"), None);
    }
}

//! `consul lock`.

use std::pin::pin;
use std::time::Duration;

use client::{
    Cleanup, Client, Error, HeldLock, HeldSlot, Lock, LockError, LockOptions, Semaphore,
    SemaphoreOptions,
};
use model::GoDuration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::child::{self, Child, Input};
use super::{OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "lock",
    arguments: "PREFIX CHILD...",
    summary: "Runs a program while holding a lock",
    about: "Takes the lock at PREFIX/.lock, runs CHILD in a shell as soon as it has it, and gives it back when CHILD \
            has ended. With -n it is a semaphore, which so many may hold at a time. Others wait meanwhile, \
            wherever they are.\n\n\
            When the lock is lost, or this command is interrupted or terminated, CHILD is sent TERM, and 5 s later \
            KILL; what it has started itself is its own business. CHILD finds CONSUL_LOCK_HELD=true in its \
            environment. The status is 0 whatever becomes of CHILD, and 1 when it could not be started under the \
            lock; see -child-exit-code.",
    example: "consul lock service/backup ./backup.sh\nconsul lock -n=5 -try=10s service/import \"./import.sh --all\"",
    flags: &[
        &[
            Flag::new(
                "n",
                Value::Int(1),
                "count",
                "How many may hold it at a time; all who use the same prefix must say the same.",
            ),
            Flag::new(
                "name",
                Value::Text(""),
                "text",
                "The name of the session, for people; it tells the child and the prefix when not given.",
            ),
            Flag::switch(
                "pass-stdin",
                false,
                "Let the child read this command's input.",
            ),
            Flag::new(
                "try",
                Value::Text(""),
                "time",
                "Give up when the lock can't be had in this time, such as 10s.",
            ),
            Flag::new(
                "monitor-retry",
                Value::Int(3),
                "count",
                "How often in a row servers may fail, a second apart, before the lock counts as lost.",
            ),
            Flag::switch(
                "child-exit-code",
                false,
                "End with status 2 when the child doesn't end with 0.",
            ),
            Flag::switch("verbose", false, "Say what is being done."),
        ],
        http::AGENT,
    ],
};

/// The key below the prefix.
const KEY: &str = ".lock";

/// How long a child that was asked to end may take for it.
const GRACE: Duration = Duration::from_secs(5);

/// The status when the child failed and that matters.
const CHILD_FAILED: u8 = 2;

/// What the command line asks for.
struct Wish {
    prefix: String,
    line: String,
    limit: u64,
    session_name: String,
    /// How long it may take.
    patience: Option<Duration>,
    monitor_retries: u32,
    input: Input,
    shell: String,
    child_matters: bool,
    is_verbose: bool,
}

/// What is competed for.
enum Contest {
    Lock(Lock),
    Semaphore(Semaphore),
}

/// What was got.
enum Held {
    Lock(HeldLock),
    Slot(HeldSlot),
}

/// Why the child has to end, or that it has.
enum End {
    Child(Result<Option<String>, String>),
    Stopped,
    Lost,
}

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let wish = match Wish::read(parsed, console) {
        Ok(wish) => wish,
        Err(why) => return http::failed(console, why),
    };
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    match http::wait_for(wish.fulfil(&client, console)) {
        Ok(status) => status,
        Err(why) => http::failed(console, why),
    }
}

impl Wish {
    fn read(parsed: &Parsed, console: &Console<'_>) -> Result<Self, String> {
        let limit = u64::try_from(parsed.int("n")).unwrap_or(0);
        if limit == 0 {
            return Err("Lock holder limit must be positive".to_owned());
        }
        let [prefix, words @ ..] = parsed.arguments.as_slice() else {
            return Err(incomplete());
        };
        if words.is_empty() {
            return Err(incomplete());
        }
        let prefix = clean(prefix.strip_prefix('/').unwrap_or(prefix));
        let line = words.join(" ");
        let session_name = match parsed.text("name") {
            "" => format!("Consul lock for '{line}' at '{prefix}'"),
            name => name.to_owned(),
        };
        let patience = match parsed.text("try") {
            "" => None,
            text => Some(try_time(text)?),
        };
        let monitor_retries = u32::try_from(parsed.int("monitor-retry"))
            .map_err(|_| "Number for 'monitor-retry' must be >= 0".to_owned())?;
        let input = if parsed.switch("pass-stdin") {
            Input::Inherited
        } else {
            Input::Nothing
        };
        Ok(Self {
            prefix,
            line,
            limit,
            session_name,
            patience,
            monitor_retries,
            input,
            shell: child::shell(console),
            child_matters: parsed.switch("child-exit-code"),
            is_verbose: parsed.switch("verbose"),
        })
    }

    /// Takes the lock, runs the child, gives the lock back; the status.
    async fn fulfil(&self, client: &Client, console: &mut Console<'_>) -> Result<u8, String> {
        let stop = stopped()?;
        let mut stop = pin!(stop);
        // Somebody who isn't allowed to look at the agent may be allowed to lock.
        if let Err(why @ (Error::Request { .. } | Error::Body(_))) = client.agent_node().await {
            return Err(format!("Error querying Consul agent: {why}"));
        }
        let contest = self.contest(client, console);
        self.tell(console, "Attempting lock acquisition");
        let held = match contest.acquire(stop.as_mut(), self.patience).await {
            Ok(Some(held)) => held,
            Ok(None) => {
                return Err("Shutdown triggered or timeout during lock acquisition".to_owned());
            }
            Err(why) => return Err(format!("Lock acquisition failed: {why}")),
        };
        let is_content = self.run_child(&held, stop, console).await;
        if let Err(why) = held.release().await {
            return Err(format!("Lock release failed: {why}"));
        }
        match contest.clean_up().await {
            Ok(Cleanup::Removed | Cleanup::Absent) => self.tell(console, "Cleanup succeeded"),
            Err(LockError::InUse(_)) => self.tell(console, "Cleanup aborted, lock in use"),
            Err(why) => return Err(format!("Lock cleanup failed: {why}")),
        }
        Ok(if is_content || !self.child_matters {
            OK
        } else {
            CHILD_FAILED
        })
    }

    fn contest(&self, client: &Client, console: &mut Console<'_>) -> Contest {
        const RETRY_TIME: Duration = Duration::from_secs(1);
        if self.limit == 1 {
            let key = below(&self.prefix, KEY);
            self.tell(console, format_args!("Setting up lock at path: {key}"));
            let mut options = LockOptions::new(key);
            options.new_session.name.clone_from(&self.session_name);
            options.monitor_retries = self.monitor_retries;
            options.monitor_retry_time = RETRY_TIME;
            Contest::Lock(Lock::new(client, options))
        } else {
            self.tell(
                console,
                format_args!(
                    "Setting up semaphore (limit {}) at prefix: {}",
                    self.limit, self.prefix
                ),
            );
            let mut options = SemaphoreOptions::new(&self.prefix, self.limit);
            options.new_session.name.clone_from(&self.session_name);
            options.monitor_retries = self.monitor_retries;
            options.monitor_retry_time = RETRY_TIME;
            Contest::Semaphore(Semaphore::new(client, options))
        }
    }

    /// Runs the child under the lock until one of them ends, and says whether the child was content. It has ended
    /// when this returns.
    async fn run_child(
        &self,
        held: &Held,
        mut stop: std::pin::Pin<&mut (impl Future<Output = ()> + Send)>,
        console: &mut Console<'_>,
    ) -> bool {
        // One last look: neither of them may have come first.
        let told = tokio::select! {
            biased;
            () = stop.as_mut() => true,
            () = std::future::ready(()) => false,
        };
        if told || !held.is_held() {
            console.say(if told {
                "Shutdown triggered during lock acquisition"
            } else {
                "Lock lost during lock acquisition"
            });
            return false;
        }
        self.tell(console, format_args!("Starting handler '{}'", self.line));
        if self.input == Input::Inherited {
            self.tell(console, "Stdin passed to handler process");
        }
        let variables = [("CONSUL_LOCK_HELD", "true".to_owned())];
        let started = Child::start(&self.shell, &self.line, &variables, self.input.clone());
        let mut child = match started {
            Ok(child) => child,
            Err(why) => return self.failed(console, &format!("Error starting handler: {why}")),
        };
        let end = tokio::select! {
            biased;
            () = stop.as_mut() => End::Stopped,
            () = held.lost() => End::Lost,
            status = child.wait() => End::Child(status.map(child::complaint).map_err(|why| why.to_string())),
        };
        match end {
            End::Child(Ok(None)) => {
                self.tell(console, "Child terminated, releasing lock");
                true
            }
            End::Child(Ok(Some(why)) | Err(why)) => {
                self.failed(console, &why);
                self.tell(console, "Child terminated, releasing lock");
                false
            }
            End::Stopped => {
                self.tell(console, "Shutdown triggered, killing child");
                self.end(&mut child, console).await
            }
            End::Lost => {
                self.tell(console, "Lock lost, killing child");
                self.end(&mut child, console).await
            }
        }
    }

    /// Ends the child, by force if it must be.
    async fn end(&self, child: &mut Child, console: &mut Console<'_>) -> bool {
        if let Some(id) = child.id() {
            self.tell(console, format_args!("Terminating child pid {id}"));
        }
        child.terminate();
        if let Ok(status) = timeout(GRACE, child.wait()).await {
            self.tell(console, "Child terminated");
            return status.is_ok_and(|status| status.success());
        }
        self.tell(
            console,
            format_args!(
                "Child did not exit after grace period of {}s",
                GRACE.as_secs()
            ),
        );
        if let Some(id) = child.id() {
            self.tell(console, format_args!("Killing child pid {id}"));
        }
        child.kill();
        // Nobody survives that, so it is over soon.
        let _ = child.wait().await;
        false
    }

    /// Says that the child failed, twice, as the original does.
    fn failed(&self, console: &mut Console<'_>, why: &str) -> bool {
        console.say(format_args!("Error running handler: {why}"));
        console.say(why);
        false
    }

    fn tell(&self, console: &mut Console<'_>, what: impl std::fmt::Display) {
        if self.is_verbose {
            console.say(what);
            let _ = console.output.flush();
        }
    }
}

impl Contest {
    async fn acquire(
        &self,
        stop: impl Future<Output = ()> + Send,
        patience: Option<Duration>,
    ) -> Result<Option<Held>, LockError> {
        Ok(match self {
            Self::Lock(lock) => lock.acquire_unless(stop, patience).await?.map(Held::Lock),
            Self::Semaphore(semaphore) => {
                let slot = semaphore.acquire_unless(stop, patience).await?;
                slot.map(Held::Slot)
            }
        })
    }

    async fn clean_up(&self) -> Result<Cleanup, LockError> {
        match self {
            Self::Lock(lock) => lock.clean_up().await,
            Self::Semaphore(semaphore) => semaphore.clean_up().await,
        }
    }
}

impl Held {
    fn is_held(&self) -> bool {
        match self {
            Self::Lock(lock) => lock.is_held(),
            Self::Slot(slot) => slot.is_held(),
        }
    }

    async fn lost(&self) {
        let _ = match self {
            Self::Lock(lock) => lock.lost().await,
            Self::Slot(slot) => slot.lost().await,
        };
    }

    async fn release(self) -> Result<bool, LockError> {
        match self {
            Self::Lock(lock) => lock.release().await,
            Self::Slot(slot) => slot.release().await,
        }
    }
}

/// Returns at the first signal that asks the command to end.
fn stopped() -> Result<impl Future<Output = ()> + Send, String> {
    let listen = |kind| signal(kind).map_err(|why| format!("Error starting: {why}"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

fn incomplete() -> String {
    format!(
        "Key prefix and child command must be specified\n\n{}",
        SYNTAX.help()
    )
}

fn try_time(text: &str) -> Result<Duration, String> {
    let time =
        GoDuration::parse(text).map_err(|why| format!("Error parsing try timeout: {why}"))?;
    match u64::try_from(time.0) {
        Ok(nanoseconds) if nanoseconds > 0 => Ok(Duration::from_nanos(nanoseconds)),
        _ => Err("Try timeout must be positive".to_owned()),
    }
}

/// The prefix without doubled and final slashes, and with `.` and `..` gone, as the original's path of it is.
fn clean(prefix: &str) -> String {
    let is_rooted = prefix.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    let root = if is_rooted { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

fn below(prefix: &str, name: &str) -> String {
    if prefix.is_empty() || prefix.ends_with('/') {
        format!("{prefix}{name}")
    } else {
        format!("{prefix}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::stub::{Reply, Stub};
    use crate::console::tests::consul;

    #[test]
    fn what_cannot_be_asked_for() {
        let help = SYNTAX.help();
        let incomplete = format!("Key prefix and child command must be specified\n\n{help}");
        for (words, printed) in [
            (
                &["-n=0", "p", "c"][..],
                "Lock holder limit must be positive",
            ),
            (&["-n=-1", "p", "c"], "Lock holder limit must be positive"),
            (&[], &incomplete),
            (&["p"], &incomplete),
            (
                &["-try=x", "p", "c"],
                "Error parsing try timeout: time: invalid duration x",
            ),
            (&["-try=0s", "p", "c"], "Try timeout must be positive"),
            (&["-try=-1s", "p", "c"], "Try timeout must be positive"),
            (
                &["-monitor-retry=-1", "p", "c"],
                "Number for 'monitor-retry' must be >= 0",
            ),
        ] {
            let printed = format!("{printed}\n");
            let told = consul(&[&["lock"], words].concat(), b"", &[]);
            assert_eq!((told.status, told.output), (1, printed), "{words:?}");
        }
    }

    #[test]
    fn an_agent_that_refuses() {
        let stub = Stub::tcp(|_| Reply::status(403, "Permission denied"));
        let address = format!("-http-addr={}", stub.address);
        let told = consul(&["lock", &address, "p", "c"], b"", &[]);
        let why = "Lock acquisition failed: failed to create session: Unexpected response code: 403 (Permission denied)\n";
        assert_eq!((told.status, told.output.as_str()), (1, why));
    }

    #[test]
    fn prefixes_and_keys() {
        for (prefix, key) in [
            ("p", "p/.lock"),
            ("p/", "p/.lock"),
            ("p//q/", "p/q/.lock"),
            ("p/./q/../r", "p/r/.lock"),
            ("../p", "../p/.lock"),
            ("", ".lock"),
            (".", ".lock"),
            ("/p", "/p/.lock"),
            ("/../p", "/p/.lock"),
            ("/", "/.lock"),
        ] {
            assert_eq!(below(&clean(prefix), KEY), key, "{prefix}");
        }
    }
}

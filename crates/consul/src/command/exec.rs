//! `consul exec`: `docs/events.md` says how it is agreed upon with the agents.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::future::pending;
use std::io::Read as _;
use std::pin::pin;
use std::time::Duration;

use base64_simd::STANDARD;
use client::{
    Client, KvPut, NewEvent, NewSession, PutCondition, QueryOptions, SessionBehavior, Wait,
    WriteOptions,
};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::event::{self, check_filters, filters, reach};
use super::{FAILED, OK, http};
use crate::console::Console;
use crate::flags::{Flag, Parsed, Syntax, Value};

pub(super) const SYNTAX: Syntax = Syntax {
    name: "exec",
    arguments: "[COMMAND... | -]",
    summary: "Runs a command on the nodes that take part in that",
    about: "Runs a command on all nodes of a datacenter, or on those that the filters choose, and shows what it says \
            there. With - a script is read from standard input and run. The words of the command are joined by blanks \
            and given to the shell of each node.\n\n\
            Only nodes take part whose configuration says \"disable_remote_exec\": false, and nobody knows how many \
            that are: the command waits until nothing has come for a while. Its status is 2 if on some node the command \
            failed or did not end in time.",
    example: "consul exec -service=web uptime",
    flags: &[
        event::FILTERS,
        &[
            Flag::new(
                "prefix",
                Value::Text("_rexec"),
                "key",
                "Below which key job and output are kept meanwhile.",
            ),
            Flag::new(
                "wait",
                Value::Duration("2s"),
                "duration",
                "How long nothing may come until it is taken for the end; twice as long while a node is known to be at work.",
            ),
            Flag::new(
                "wait-repl",
                Value::Duration("200ms"),
                "duration",
                "How long to wait after the job was written, so that all servers have it.",
            ),
            Flag::switch("verbose", false, "Says more about what is going on."),
        ],
        http::DATACENTER,
        http::AGENT,
    ],
};

/// The event that tells agents of a job.
const EVENT: &str = "_rexec";

/// How long a job outlives a command that died, and how often a living one says that it lives.
const TTL: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);

/// The most of a script that is read; one that is longer than a value may be is refused by the agent.
const SCRIPT_MAX: u64 = 1 << 20;

/// How long to wait after a look at the keys that brought nothing, in case the agent doesn't.
const PAUSE: Duration = Duration::from_millis(20);

/// The status when some node failed.
const FAILED_THERE: u8 = 2;

/// What there is to do.
struct Job {
    client: Client,
    body: Vec<u8>,
    event: NewEvent,
    prefix: String,
    datacenter: String,
    wait: Duration,
    wait_for_copies: Duration,
    is_verbose: bool,
}

/// The job as agents read it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(skip_serializing_if = "String::is_empty")]
    command: String,
    /// In base64.
    #[serde(skip_serializing_if = "String::is_empty")]
    script: String,
    /// In nanoseconds.
    wait: u64,
}

/// What the event says.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Call<'a> {
    prefix: &'a str,
    session: &'a str,
}

pub(super) fn run(parsed: &Parsed, console: &mut Console<'_>) -> u8 {
    let mut command = parsed.arguments.join(" ");
    let mut script = Vec::new();
    if command == "-" {
        command.clear();
        let mut input = (&mut *console.input).take(SCRIPT_MAX);
        if let Err(why) = input.read_to_end(&mut script) {
            return misused(console, &format!("Failed to read stdin: {why}"));
        }
    }
    if command.is_empty() && script.is_empty() {
        return misused(console, "Must specify a command to execute");
    }
    if let Err(why) = check_filters(parsed) {
        return http::failed(console, why);
    }
    let client = match http::client(parsed, console) {
        Ok(client) => client,
        Err(why) => return http::failed(console, http::cannot_connect(&why)),
    };
    let wait = parsed.duration("wait").unwrap_or_default();
    let spec = Spec {
        command,
        script: STANDARD.encode_to_string(script),
        wait: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX),
    };
    let body = match serde_json::to_vec(&spec) {
        Ok(body) => body,
        Err(why) => return http::failed(console, format!("Failed to create job spec: {why}")),
    };
    // As the agents do it, so that both speak of the same keys.
    let prefix: Vec<&str> = parsed.text("prefix").split('/').collect();
    let prefix = prefix.into_iter().filter(|part| !part.is_empty());
    let job = Job {
        client,
        body,
        event: filters(parsed),
        prefix: prefix.collect::<Vec<_>>().join("/"),
        datacenter: parsed.text("datacenter").to_owned(),
        wait,
        wait_for_copies: parsed.duration("wait-repl").unwrap_or_default(),
        is_verbose: parsed.switch("verbose"),
    };
    match http::wait_for(job.run(console)) {
        Ok(status) => status,
        Err(why) => http::failed(console, why),
    }
}

/// Says what is wrong with the line, and how it is to be.
fn misused(console: &mut Console<'_>, why: &str) -> u8 {
    console.say(format_args!("{why}\n"));
    console.say(SYNTAX.help());
    FAILED
}

impl Job {
    async fn run(&self, console: &mut Console<'_>) -> Result<u8, String> {
        let (node, datacenter) = reach(&self.client).await?;
        let session = self.session(&node, &datacenter, console).await;
        let session = session.map_err(|why| format!("Failed to create session: {why}"))?;
        self.tell(
            console,
            format_args!("Created remote execution session: {session}"),
        );
        // Whatever becomes of it, nothing is left behind.
        let mut stopped = pin!(http::until_stopped(pending::<Result<(), String>>()));
        let mut renewing = pin!(self.renew(&session));
        let done = tokio::select! {
            biased;
            _ = &mut stopped => Ok(FAILED),
            () = &mut renewing => Ok(FAILED),
            done = self.drive(&session, console) => done,
        };
        self.clear(&session, console).await;
        done
    }

    /// The session under which everything is written: it deletes what it holds.
    async fn session(
        &self,
        node: &str,
        datacenter: &str,
        console: &mut Console<'_>,
    ) -> Result<String, String> {
        let mut session = NewSession {
            name: "Remote Exec".to_owned(),
            behavior: SessionBehavior::Delete,
            ttl: Some(TTL),
            ..NewSession::default()
        };
        if !self.datacenter.is_empty() && self.datacenter != datacenter {
            self.tell(
                console,
                "Remote exec in foreign datacenter, using Session TTL",
            );
            // This node isn't in the catalog there; one of its servers is sure to be.
            let options = self.query_options();
            let servers = self.client.health_service("consul", "", true, &options);
            let nowhere = "Failed to find Consul server in remote datacenter";
            let servers = servers.await.map_err(|why| format!("{nowhere}: {why}"))?;
            let server = servers.value.into_iter().next().ok_or(nowhere)?;
            let there = server.node.node;
            self.tell(
                console,
                format_args!("Binding session to remote node {there}@{}", self.datacenter),
            );
            session.name = format!("Remote Exec via {node}@{datacenter}");
            session.node = there;
            session.checks = Some(Vec::new());
        }
        let options = self.write_options();
        let created = self.client.session_create(&session, &options).await;
        created.map_err(|why| why.to_string())
    }

    /// Says again and again that this command lives. It returns when the servers say that it doesn't.
    async fn renew(&self, session: &str) {
        let options = self.write_options();
        loop {
            sleep(RENEWAL).await;
            // What went wrong on the way goes better the next time; there are two before the session ends.
            if let Ok(None) = self.client.session_renew(session, &options).await {
                return;
            }
        }
    }

    /// Writes the job, tells the agents, and shows what they write.
    async fn drive(&self, session: &str, console: &mut Console<'_>) -> Result<u8, String> {
        let keys = self.keys(session);
        let put = KvPut {
            key: format!("{keys}job"),
            value: self.body.clone().into(),
            flags: 0,
            condition: PutCondition::Acquire(session.to_owned()),
        };
        let written = self.client.kv_put(&put, &self.write_options()).await;
        let why = match written {
            Ok(true) => None,
            Ok(false) => Some(format!("failed to acquire key {}", put.key)),
            Err(why) => Some(why.to_string()),
        };
        if let Some(why) = why {
            return Err(format!("Failed to create job file: {why}"));
        }
        self.tell(console, "Uploaded remote execution spec");
        sleep(self.wait_for_copies).await;

        let call = Call {
            prefix: &self.prefix,
            session,
        };
        let failed = |why: String| format!("Failed to fire event: {why}");
        let payload = serde_json::to_vec(&call).map_err(|why| failed(why.to_string()))?;
        let event = NewEvent {
            name: EVENT.to_owned(),
            payload: payload.into(),
            ..self.event.clone()
        };
        let fired = self.client.event_fire(&event, &self.write_options()).await;
        let id = fired.map_err(|why| failed(why.to_string()))?;
        self.tell(console, format_args!("Fired remote execution event: {id}"));
        self.follow(keys, console).await
    }

    /// Shows what agents write until nothing has come for a while.
    async fn follow(&self, keys: String, console: &mut Console<'_>) -> Result<u8, String> {
        let begun = Instant::now();
        let mut results = Results::new(self, keys);
        let (mut acknowledged, mut completed, mut failed) = (0_u64, 0_u64, false);
        loop {
            let quiet = if acknowledged > completed {
                self.wait.saturating_mul(2)
            } else {
                self.wait
            };
            let Ok(result) = timeout(quiet, results.next()).await else {
                break;
            };
            let (node, what) = match result {
                Ok(told) => told,
                Err(why) => return Err(format!("Failed to read results: {why}")),
            };
            match what {
                Told::Acknowledged => {
                    acknowledged += 1;
                    self.tell(console, lines("==>", &node, "acknowledged"));
                }
                Told::SignOfLife => {
                    self.tell(console, lines("==>", &node, "heartbeat received"));
                }
                Told::Output(text) => console.say(lines("   ", &node, &text)),
                Told::Exit(code) => {
                    completed += 1;
                    failed |= code != 0;
                    let text = format!("finished with exit code {code}");
                    console.say(lines("==>", &node, &text));
                }
                Told::Strange(why) => console.say(why),
            }
        }
        console.say(format_args!(
            "{completed} / {acknowledged} node(s) completed / acknowledged"
        ));
        self.tell(
            console,
            format_args!("Completed in {:.2} seconds", begun.elapsed().as_secs_f64()),
        );
        if acknowledged == 0 {
            console.note(
                "no node has acknowledged: remote exec is off by default, and an agent takes part only with \
                 \"disable_remote_exec\": false in its configuration (and, where ACLs are on, with an acl_token that \
                 may write the keys)",
            );
        }
        Ok(if failed || completed < acknowledged {
            FAILED_THERE
        } else {
            OK
        })
    }

    /// Ends the session, and removes what it did not hold.
    async fn clear(&self, session: &str, console: &mut Console<'_>) {
        let options = self.write_options();
        if let Err(why) = self.client.session_destroy(session, &options).await {
            console.note(format_args!("Failed to destroy session: {why}"));
        }
        let keys = self.keys(session);
        if let Err(why) = self.client.kv_delete_tree(&keys, &options).await {
            console.note(format_args!("Failed to destroy job data: {why}"));
        }
    }

    /// What all keys of this job begin with.
    fn keys(&self, session: &str) -> String {
        match &*self.prefix {
            "" => format!("{session}/"),
            prefix => format!("{prefix}/{session}/"),
        }
    }

    fn query_options(&self) -> QueryOptions {
        QueryOptions {
            datacenter: self.datacenter.clone(),
            ..QueryOptions::default()
        }
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            datacenter: self.datacenter.clone(),
            ..WriteOptions::default()
        }
    }

    fn tell(&self, console: &mut Console<'_>, line: impl std::fmt::Display) {
        if self.is_verbose {
            console.say(line);
        }
    }
}

/// What a node has written.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Acknowledged,
    SignOfLife,
    Output(String),
    Exit(i64),
    /// Something that no node writes; the line to print.
    Strange(String),
}

/// What comes in, each key once.
struct Results<'a> {
    job: &'a Job,
    /// What their keys begin with.
    keys: String,
    index: u64,
    seen: BTreeSet<String>,
    /// Keys that are new, in their order.
    new: VecDeque<String>,
}

impl<'a> Results<'a> {
    fn new(job: &'a Job, keys: String) -> Self {
        Self {
            job,
            keys,
            index: 0,
            seen: BTreeSet::new(),
            new: VecDeque::new(),
        }
    }

    /// Which node has written what.
    async fn next(&mut self) -> Result<(String, Told), client::Error> {
        loop {
            while let Some(key) = self.new.pop_front() {
                if let Some(told) = self.look_at(&key).await {
                    return Ok(told);
                }
            }
            let wait = Wait {
                index: self.index,
                time: self.job.wait,
            };
            let options = QueryOptions {
                wait: (self.index > 0).then_some(wait),
                ..self.job.query_options()
            };
            let answer = self.job.client.kv_keys(&self.keys, "", &options).await?;
            if answer.meta.index == self.index {
                sleep(PAUSE).await;
                continue;
            }
            self.index = answer.meta.index;
            for key in answer.value {
                if self.seen.insert(key.clone()) {
                    self.new.push_back(key);
                }
            }
        }
    }

    /// What this key says; nothing if it is the job itself, or gone already.
    async fn look_at(&self, key: &str) -> Option<(String, Told)> {
        let name = key.strip_prefix(&self.keys)?;
        if name == "job" {
            return None;
        }
        if let Some(node) = name.strip_suffix("/ack") {
            return Some((node.to_owned(), Told::Acknowledged));
        }
        let is_exit = name.strip_suffix("/exit");
        let is_output = name.rsplit_once("/out/").map(|(node, _)| node);
        let Some(node) = is_exit.or(is_output) else {
            let line = format!("Unknown key {key:?}, ignoring.");
            return Some((String::new(), Told::Strange(line)));
        };
        let options = self.job.query_options();
        let answer = self.job.client.kv_get(key, &options).await;
        let value = answer.ok()?.value?.value;
        let text = String::from_utf8_lossy(&value);
        let told = match is_exit {
            Some(_) => match text.parse() {
                Ok(code) => Told::Exit(code),
                Err(why) => Told::Strange(format!("Failed to parse exit code: {why}")),
            },
            None if value.is_empty() => Told::SignOfLife,
            None => Told::Output(text.into_owned()),
        };
        Some((node.to_owned(), told))
    }
}

/// A text with the name of its node before each line; blanks at its end are left out.
fn lines(arrow: &str, node: &str, text: &str) -> String {
    let mut out = String::new();
    for line in text.split('\n') {
        let _ = writeln!(out, "{arrow} {node}: {line}");
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests;

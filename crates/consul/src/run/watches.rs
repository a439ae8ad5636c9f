//! The watches of the configuration, while the agent runs.
//!
//! They ask this agent over its own HTTP face, like anybody's: the values have the shape of the original's client, tokens and other
//! datacenters are judged where all requests are, and whoever asks by hand sees what a watch sees.
//!
//! After a reload all watches begin anew. A program that an old one is running may finish, and only then its successor, the watch of
//! the same definition, asks for the first time; the end of the agent kills it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::{Address, Change, Client, Hook, Tls, Watch};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use self::program::Program;
use super::node::spawn_until;
use crate::config::{Handler, Listener, Settings, WatchDefinition};

mod program;

/// The largest value that is held in memory for a watch; a larger one is an error that is tried again.
const VALUE_SIZE_MAX: u64 = 512 << 20;

/// How long this machine may take to connect to itself.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Watches that could be started.
#[derive(Default)]
pub(super) struct Prepared(Vec<Ready>);

struct Ready {
    definition: WatchDefinition,
    watch: Watch<Client>,
    told: Told,
}

/// Watches that run.
#[derive(Default)]
pub(super) struct Watches {
    /// Ends everything at once.
    stop: watch::Sender<bool>,
    /// Ends those that run now after what they are telling.
    retire: watch::Sender<bool>,
    turns: Vec<(WatchDefinition, Turn)>,
    tasks: Vec<JoinHandle<()>>,
}

/// Held by the watch of a definition while it runs, so that its successor waits for it.
type Turn = Arc<Mutex<()>>;

/// What is told of changes.
enum Told {
    Program(Program),
    Page { hook: Hook, shown: String },
}

impl Prepared {
    /// Makes everything ready that these definitions need of an agent whose listeners are those of `running`.
    ///
    /// # Errors
    /// When a part can't be made.
    pub(super) fn new(
        definitions: &[WatchDefinition],
        running: &Settings,
        files: &rpc::tls::Config,
    ) -> anyhow::Result<Self> {
        if definitions.is_empty() {
            return Ok(Self::default());
        }
        let (address, tls) = own_face(running, files)
            .context("watches ask this agent over HTTP, which is switched off")?;
        let client = Client::new(client::Config {
            address,
            tls,
            connect_timeout: CONNECT_TIME,
            answer_size_max: VALUE_SIZE_MAX,
            ..client::Config::default()
        })?;
        let shell = std::env::var("SHELL")
            .ok()
            .filter(|shell| !shell.is_empty());
        let shell = shell.unwrap_or_else(|| "/bin/sh".to_owned());
        let prepare = |definition: &WatchDefinition| {
            let told = match &definition.handler {
                Handler::Line(line) => Told::Program(Program::line(&shell, line)),
                Handler::List(list) => Told::Program(Program::list(list)),
                Handler::Page(page) => Told::Page {
                    hook: Hook::new((**page).clone())?,
                    shown: page.to_string(),
                },
            };
            anyhow::Ok(Ready {
                definition: definition.clone(),
                watch: Watch::new(client.clone(), definition.plan.clone()),
                told,
            })
        };
        let prepared: Result<_, _> = definitions.iter().map(prepare).collect();
        prepared.map(Self)
    }
}

impl Watches {
    /// Starts these in the place of those that run; each tells first of what there is.
    pub(super) fn start(&mut self, prepared: Prepared) {
        self.retire.send_replace(true);
        let mut before = std::mem::take(&mut self.turns);
        self.tasks.retain(|task| !task.is_finished());
        let (retire, retired) = watch::channel(false);
        self.retire = retire;
        for Ready {
            definition,
            watch,
            told,
        } in prepared.0
        {
            let predecessor = before.iter().position(|(old, _)| *old == definition);
            let turn = predecessor.map_or_else(Turn::default, |at| before.swap_remove(at).1);
            self.turns.push((definition, Arc::clone(&turn)));
            let work = follow(watch, told, turn, retired.clone());
            self.tasks.push(spawn_until(&self.stop.subscribe(), work));
        }
    }

    /// Ends them and kills the programs that they have started.
    pub(super) async fn stop(&mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            if task.await.is_err() {
                tracing::error!("a watch panicked");
            }
        }
    }
}

/// Tells of one change after the other: what happens while somebody is being told is one change.
async fn follow(
    mut watch: Watch<Client>,
    told: Told,
    turn: Turn,
    mut retired: watch::Receiver<bool>,
) {
    let _turn = tokio::select! {
        biased;
        _ = retired.wait_for(|retired| *retired) => return,
        turn = turn.lock() => turn,
    };
    loop {
        let next = tokio::select! {
            biased;
            _ = retired.wait_for(|retired| *retired) => return,
            next = watch.next() => next,
        };
        match next {
            Ok(change) => told.tell(&change).await,
            // The original's name for this part of it.
            Err(failure) => tracing::warn!(target: "consul.watch", "{failure}"),
        }
    }
}

impl Told {
    async fn tell(&self, change: &Change) {
        let mut json = match change.value.json() {
            Ok(json) => json,
            Err(why) => return self.failed(&why),
        };
        json.push('\n');
        match self {
            Self::Program(program) => match program.run(change.index, json).await {
                Ok(ended) => {
                    self.answered(&String::from_utf8_lossy(&ended.output));
                    if let Some(complaint) = ended.complaint {
                        self.failed(&complaint);
                    }
                }
                Err(why) => self.failed(&why),
            },
            Self::Page { hook, .. } => match hook.tell(change.index, json).await {
                Ok(answer) => self.answered(&answer),
                Err(why) => self.failed(&why),
            },
        }
    }

    fn shown(&self) -> &str {
        match self {
            Self::Program(program) => program.shown(),
            Self::Page { shown, .. } => shown,
        }
    }

    fn answered(&self, output: &str) {
        let shown = self.shown();
        tracing::debug!(target: "agent", "watch handler '{shown}' output: {output}");
    }

    fn failed(&self, why: &dyn std::fmt::Display) {
        let shown = self.shown();
        tracing::error!(target: "agent", "Failed to invoke watch handler '{shown}': {why}");
    }
}

/// Where this agent serves HTTP itself, or else HTTPS.
fn own_face(settings: &Settings, files: &rpc::tls::Config) -> Option<(Address, Tls)> {
    let place = |listener: &Listener| match listener {
        Listener::Tcp(address) => Address::Http(here(*address).to_string()),
        Listener::Unix(path) => Address::Unix(path.clone()),
    };
    if let Some(listener) = settings.http.first() {
        return Some((place(listener), Tls::default()));
    }
    let address = place(settings.https.first()?).with_tls();
    let tls = Tls {
        cert_file: files.cert_file.clone(),
        key_file: files.key_file.clone(),
        // Nobody but this agent can be at its own address, and its certificate is for the names that others know it by.
        skip_verification: true,
        ..Tls::default()
    };
    Some((address, tls))
}

/// An address of this machine at which one that listens there is reached.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, decode, settings::validate};

    #[test]
    fn asks_the_face_that_there_is() {
        let cases = [
            ("{}", Some(Address::Http("127.0.0.1:8500".to_owned()))),
            (
                r#"{"client_addr": "0.0.0.0", "ports": {"http": 80, "https": 81}}"#,
                Some(Address::Http("127.0.0.1:80".to_owned())),
            ),
            (
                r#"{"client_addr": "::"}"#,
                Some(Address::Http("[::1]:8500".to_owned())),
            ),
            (
                r#"{"client_addr": "10.0.0.1"}"#,
                Some(Address::Http("10.0.0.1:8500".to_owned())),
            ),
            (
                r#"{"addresses": {"http": "unix:///c.sock"}}"#,
                Some(Address::Unix("/c.sock".into())),
            ),
            (
                r#"{"ports": {"http": -1, "https": 81}}"#,
                Some(Address::Https("127.0.0.1:81".to_owned())),
            ),
            (r#"{"ports": {"http": -1}}"#, None),
        ];
        for (text, expected) in cases {
            let host = Host {
                name: "host".to_owned(),
                ..Host::default()
            };
            let settings = validate(&decode(text.as_bytes()).unwrap(), true, &host).unwrap();
            let face = own_face(&settings, &settings.tls);
            assert_eq!(face.map(|(address, _)| address), expected, "{text}");
        }
    }
}

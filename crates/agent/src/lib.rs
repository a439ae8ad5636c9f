//! What this node knows and does: who it is, who its neighbours are, which services it offers and how they are.
//!
//! An [`Agent`] is a cheap handle that the faces hold, and so is [`Local`], through which they change services and checks.
//! Both know nothing of HTTP or JSON, and never how a server works: what a server has to tell comes through [`Stats`], and the catalog is asked through `rpc::Cluster`.
//! What only the whole program can do, such as leaving, is passed on as a [`Wish`].
//!
//! Start with [`Agent`]; a further thing to tell is a field of [`Identity`] or [`Settings`].
//!
//! # Services and checks
//!
//! A [`Keeper`] is the one task that changes them; `local.rs` is the handle to it, and below it lie
//! `state.rs`, what there is and what follows from each change, without a clock or a disk;
//! `sync.rs`, what to tell the catalog and when, as functions of what is here and what is there;
//! `files.rs`, what survives a restart; and `keeper.rs`, which waits for everything and does what those three say.
//! [`checks`] asks what has to be asked again and again, and only reports.
//!
//! To add a kind of check: a variant of [`definition::CheckKind`] with the fields that say how it is asked, and where it
//! is found among [`definition::Ways`]; a file in `checks/` that asks once, and its line in `checks/mod.rs`; its fields in
//! `local/files.rs`. The compiler names the other places; thresholds, damping, persistence and the catalog come by themselves.
//!
//! ```
//! use agent::{Agent, Identity, Role, Section, Sections, Settings, Start};
//! # use agent::{JoinError, Member, Neighbours, Parts};
//! # struct Nobody;
//! # impl Neighbours for Nobody {
//! #     fn members(&self) -> Vec<Member> { Vec::new() }
//! #     fn coordinate(&self) -> Option<model::Coordinate> { None }
//! #     fn join(&self, _: Vec<String>) -> futures::future::BoxFuture<'static, Result<usize, JoinError>> {
//! #         Box::pin(async { Ok(0) })
//! #     }
//! #     fn force_leave(&self, _: String) -> futures::future::BoxFuture<'static, ()> { Box::pin(async {}) }
//! # }
//!
//! let identity = Identity {
//!     node: "n1".to_owned(),
//!     datacenter: "dc1".to_owned(),
//!     id: String::new(),
//!     address: [10, 0, 0, 1].into(),
//!     address_wan: [10, 0, 0, 1].into(),
//!     role: Role::Server(Start::Bootstrap),
//!     version: "0.7.1".to_owned(),
//!     prerelease: String::new(),
//!     revision: String::new(),
//!     build: "1.0.0".to_owned(),
//! };
//! let raft = || Sections::from([("raft".to_owned(), Section::new())]);
//! let (wishes, _program) = tokio::sync::mpsc::channel(1);
//! let agent = Agent::new(
//!     identity,
//!     Settings::default(),
//!     Parts {
//!         neighbours: Box::new(Nobody),
//!         journal: agent::Journal::default(),
//!         wishes,
//!         stats: Box::new(raft),
//!         figures: Box::new(agent::FiguresSnapshot::default),
//!         local: agent::Local::new(agent::LocalConfig::default()).0,
//!         tokens: agent::Tokens::unjudged(),
//!         events: agent::Events::default(),
//!     },
//! );
//! assert_eq!(agent.member().tags["role"], "consul");
//! ```

pub mod access;
pub mod checks;
pub mod coordinates;
pub mod definition;
pub mod events;
pub mod exec;
pub mod join;
pub mod local;
pub mod members;
pub mod process;
pub mod servers;

pub mod discover;
mod figures;
mod journal;
mod neighbours;
mod pool;
mod settings;
mod stats;
mod wish;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

pub use access::{Bearer, Tokens};
pub use events::{Events, KeptEvents};
pub use exec::{Exec, ExecConfig};
pub use figures::{Figures, FiguresSnapshot, Gauge, Labels, Sampled, Total, Totals};
pub use journal::{Journal, Lines, Severity};
pub use local::{ApiScripts, Definitions, Keeper, Local, LocalConfig, LocalError, LocalFigures};
pub use neighbours::{JoinError, Neighbours};
pub use pool::{Pool, join_through};
pub use settings::{Ports, Settings};
pub use stats::{Section, Sections, Stats};
pub use wish::Wish;

/// What the fuzzers drive; nobody else has a use for it.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads a file of the data directory, and writes it again.
    ///
    /// # Panics
    /// If it doesn't read back as the same.
    pub fn read_file(bytes: &[u8]) {
        crate::local::fuzz_files(bytes);
    }

    /// Reads what a Docker engine answers.
    ///
    /// # Panics
    /// If it matters how it arrives.
    pub fn read_docker(bytes: &[u8]) {
        crate::checks::fuzz_docker(bytes);
    }

    /// Reads a user event as gossip brings it, and what remote exec reads from one.
    ///
    /// # Panics
    /// If it doesn't come out the same when it is sent again.
    pub fn read_event(name: &str, envelope: &[u8]) {
        crate::events::fuzz(name, envelope);
    }

    /// Reads a page of instances, and a refusal, as EC2 sends them.
    pub fn read_ec2(bytes: &[u8]) {
        crate::discover::ec2::fuzz(bytes);
    }
}

/// This node, as the faces see it.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    identity: Identity,
    settings: RwLock<Arc<Settings>>,
    parts: Parts,
}

/// What an agent stands on.
pub struct Parts {
    /// The pool of this datacenter.
    pub neighbours: Box<dyn Neighbours>,
    /// The log.
    pub journal: Journal,
    /// Where wishes go that only the whole program can fulfil.
    pub wishes: mpsc::Sender<Wish>,
    /// Figures of the running parts.
    pub stats: Box<dyn Stats>,
    /// What this process counts and times.
    pub figures: Box<dyn Figures>,
    /// The services and checks of this node.
    pub local: Local,
    /// What tokens allow on this node.
    pub tokens: Tokens,
    /// The user events that this node was meant by.
    pub events: Events,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// Who this node is; nothing of it changes while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's name.
    pub node: String,
    /// The datacenter it is in.
    pub datacenter: String,
    /// The id that it was given; empty if it was given none.
    pub id: String,
    /// The address that other agents are told.
    pub address: IpAddr,
    /// The address that agents of other datacenters are told.
    pub address_wan: IpAddr,
    /// What it does in the cluster.
    pub role: Role,
    /// The version of the original whose behaviour clients may count on, such as `0.7.1`.
    pub version: String,
    /// What follows the version of a build that is no release; else empty.
    pub prerelease: String,
    /// Which sources this program was built from; may be empty.
    pub revision: String,
    /// Our own build, for people.
    pub build: String,
}

/// What a node does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It keeps the state.
    Server(Start),
    /// It asks the servers.
    Client,
}

/// How a server finds its first peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is the first one and elects itself.
    Bootstrap,
    /// It waits until this many are there.
    Expect(u32),
    /// It is told by others.
    Join,
}

/// A participant of gossip, as `members` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it gossips.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// What it tells of itself.
    pub tags: BTreeMap<String, String>,
    /// Whether it is there.
    pub status: MemberStatus,
    /// The versions of the gossip protocol that it understands.
    pub protocol: Versions,
    /// The versions of what rides on gossip that it understands.
    pub delegate: Versions,
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStatus {
    /// It answers.
    Alive,
    /// It is saying good-bye.
    Leaving,
    /// It has said good-bye.
    Left,
    /// It does not answer any more.
    Failed,
}

/// The versions of a protocol that a member understands, and the one it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
    /// The one in use.
    pub current: u8,
}

impl Agent {
    /// A handle on this node.
    pub fn new(identity: Identity, settings: Settings, parts: Parts) -> Self {
        Self(Arc::new(Inner {
            identity,
            settings: RwLock::new(Arc::new(settings)),
            parts,
        }))
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The configuration in effect, without secrets.
    pub fn settings(&self) -> Arc<Settings> {
        let settings = self.0.settings.read();
        Arc::clone(&settings.unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that another configuration is in effect now.
    pub fn set_settings(&self, settings: Settings) {
        let mut current = self
            .0
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(settings);
    }

    /// The pool of this datacenter.
    pub fn neighbours(&self) -> &dyn Neighbours {
        &*self.0.parts.neighbours
    }

    /// The services and checks of this node.
    pub fn local(&self) -> &Local {
        &self.0.parts.local
    }

    /// The user events that this node was meant by.
    pub fn events(&self) -> &Events {
        &self.0.parts.events
    }

    /// What tokens allow on this node.
    pub fn tokens(&self) -> &Tokens {
        &self.0.parts.tokens
    }

    /// The log.
    pub fn journal(&self) -> &Journal {
        &self.0.parts.journal
    }

    /// Leaves the cluster and stops; returns when the good-byes are said.
    ///
    /// # Errors
    /// Why it could not be done in order; the agent stops all the same.
    pub async fn leave(&self) -> Result<(), String> {
        self.wish(Wish::Leave).await
    }

    /// Reads the configuration again and applies what can be applied while it runs.
    ///
    /// # Errors
    /// What is wrong with it; then nothing has changed.
    pub async fn reload(&self) -> Result<(), String> {
        self.wish(Wish::Reload).await
    }

    async fn wish(
        &self,
        wish: fn(oneshot::Sender<Result<(), String>>) -> Wish,
    ) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let stopping = || "this agent is stopping already".to_owned();
        let sent = self.0.parts.wishes.send(wish(answer)).await;
        sent.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.0.identity.node
    }

    /// The datacenter it is in.
    pub fn datacenter(&self) -> &str {
        &self.0.identity.datacenter
    }

    /// Figures of this moment: the parts' own, and which build this is.
    pub fn stats(&self) -> Sections {
        let mut sections = self.0.parts.stats.sections();
        let identity = self.identity();
        // The original shows eight digits, as tools that print a table expect.
        let revision: String = identity.revision.chars().take(8).collect();
        sections.insert(
            "build".to_owned(),
            Section::from([
                ("prerelease".to_owned(), identity.prerelease.clone()),
                ("revision".to_owned(), revision),
                ("version".to_owned(), identity.version.clone()),
            ]),
        );
        sections
    }

    /// What this process counts and times.
    pub fn figures(&self) -> &dyn Figures {
        &*self.0.parts.figures
    }

    /// This node as its neighbours see it.
    pub fn member(&self) -> Member {
        let members = self.neighbours().members();
        let this = members
            .into_iter()
            .find(|member| member.name == self.node());
        this.unwrap_or_else(|| self.identity().member(&self.settings()))
    }
}

impl Identity {
    /// This node as a member, from its configuration: what it is to say of itself in gossip.
    pub fn member(&self, settings: &Settings) -> Member {
        let Self {
            node,
            datacenter,
            id,
            address,
            role,
            version,
            prerelease,
            revision,
            ..
        } = self;
        let revision: String = revision.chars().take(8).collect();
        let mut tags = BTreeMap::from([
            ("dc".to_owned(), datacenter.clone()),
            ("vsn".to_owned(), settings.protocol.to_string()),
            ("vsn_min".to_owned(), "2".to_owned()),
            ("vsn_max".to_owned(), "3".to_owned()),
            (
                "build".to_owned(),
                format!("{version}{prerelease}:{revision}"),
            ),
        ]);
        if !id.is_empty() {
            tags.insert("id".to_owned(), id.clone());
        }
        match role {
            Role::Client => {
                tags.insert("role".to_owned(), "node".to_owned());
            }
            Role::Server(start) => {
                tags.insert("role".to_owned(), "consul".to_owned());
                tags.insert("port".to_owned(), settings.ports.server.to_string());
                match start {
                    Start::Bootstrap => {
                        tags.insert("bootstrap".to_owned(), "1".to_owned());
                    }
                    Start::Expect(count) => {
                        tags.insert("expect".to_owned(), count.to_string());
                    }
                    Start::Join => {}
                }
            }
        }
        Member {
            name: node.clone(),
            address: *address,
            port: settings.ports.serf_lan,
            tags,
            status: MemberStatus::Alive,
            protocol: Versions {
                min: 1,
                max: 5,
                current: 2,
            },
            delegate: Versions {
                min: 2,
                max: 4,
                current: 4,
            },
        }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Agent").field(&self.0.identity.node).finish()
    }
}

#[cfg(test)]
mod tests;

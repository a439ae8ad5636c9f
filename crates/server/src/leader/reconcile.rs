//! Members and the catalog: what gossip knows of an agent becomes its node, its check `serfHealth`, and for servers the service `consul`.
//!
//! | the member | the catalog |
//! | --- | --- |
//! | is alive | has it at its address, well, and as a server if it is one |
//! | has failed | has it with `serfHealth` critical; its services stay |
//! | is leaving | is not touched yet |
//! | has left, or was failed for so long that it is forgotten | has it no more |
//! | is unknown, but has a `serfHealth` | has it no more |
//!
//! Nodes without a `serfHealth` were registered by somebody else and are never touched.
//! Each member's event is attended to at once; what is missed is repaired by looking at everything once a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gossip::{Gossip, Member, Status};
use model::{
    CONSUL, CRITICAL, CatalogNode, Check, Command, Deregister, Deregistration, Error, HealthNode,
    HealthState, Node, PASSING, Pairs, Registration, SERF_HEALTH, Service, Text,
};
use store::{Read, View, Watch};
use tokio::time::Instant;

use super::INTERVAL;
use crate::Config;
use crate::core::Core;
use crate::directory::{self, Known};
use crate::figures;
use crate::write::propose;

/// An agent, as far as the catalog is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    name: String,
    address: IpAddr,
    /// Where a server takes calls.
    server_port: Option<u16>,
    /// Its addresses by kind, where they are known: of this server itself.
    tagged_addresses: Option<Pairs>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    Failed,
    /// It has left, or is forgotten.
    Gone,
}

impl Subject {
    /// This server itself.
    fn this(config: &Config) -> Self {
        let tagged = [
            ("lan", config.advertise_address),
            ("wan", config.advertise_address_wan),
        ];
        let tagged =
            tagged.map(|(kind, address)| (Text::from(kind), Text::from(address.to_string())));
        Self {
            name: config.node_name.clone(),
            address: config.advertise_address,
            server_port: Some(config.server_port),
            tagged_addresses: Some(tagged.into()),
            state: State::Alive,
        }
    }

    /// What is to be made of a member; nothing of one that doesn't belong here.
    pub(super) fn of(member: &Member, config: &Config) -> Option<Self> {
        if !directory::is_of(member, &config.datacenter) {
            return None;
        }
        let state = match member.status {
            Status::Alive => State::Alive,
            Status::Failed => State::Failed,
            Status::Left => State::Gone,
            Status::Leaving => return None,
        };
        if member.name == config.node_name {
            // Its departure is the next leader's business.
            return (state == State::Alive).then(|| Self::this(config));
        }
        Some(Self {
            name: member.name.clone(),
            address: member.address.ip(),
            server_port: Known::of(member).map(|server| server.address.port()),
            tagged_addresses: None,
            state,
        })
    }

    /// What is to be made of a member that was forgotten.
    pub(super) fn reaped(member: &Member, config: &Config) -> Option<Self> {
        let subject = Self::of(member, config)?;
        (member.name != config.node_name).then_some(Self {
            state: State::Gone,
            ..subject
        })
    }
}

/// Writes what the catalog lacks about this one.
pub(super) async fn attend(core: &Core, subject: &Subject) -> Result<(), Error> {
    let began = Instant::now();
    if let Some(command) = plan(subject, &core.shared.view()) {
        match &command {
            Command::Register(_) if subject.state == State::Failed => {
                tracing::info!("member '{}' failed, marking health critical", subject.name);
            }
            Command::Register(_) => {
                tracing::info!("member '{}' joined, marking health alive", subject.name);
            }
            _ => tracing::info!("member '{}' left, deregistering", subject.name),
        }
        propose(core, command).await?;
    }
    figures::note(&figures::MEMBER, began);
    Ok(())
}

/// What must be written about this one, or nothing if the catalog says so already.
///
/// What a restore brought back stays untouched where it is true.
fn plan(subject: &Subject, view: &View) -> Option<Command> {
    let name = Text::from(subject.name.as_str());
    let address = Text::from(subject.address.to_string());
    let row = (CatalogNode { node: name.clone() })
        .read(view, &mut Watch::off())
        .answer;
    let health = (HealthNode { node: name.clone() })
        .read(view, &mut Watch::off())
        .answer;
    let health = health.iter().find(|check| check.check_id == SERF_HEALTH);
    let is_there = row.as_ref().is_some_and(|row| row.node.address == address);
    let (status, output, service) = match subject.state {
        State::Gone => {
            row?;
            return Some(Command::Deregister(Deregistration {
                node: name,
                what: Deregister::Node,
            }));
        }
        State::Failed => {
            if is_there && health.is_some_and(|check| check.is_critical()) {
                return None;
            }
            (CRITICAL, "Agent not live or unreachable", None)
        }
        State::Alive => {
            // The original looks for the service by its id alone; that its port is true is its own agent's business.
            let offers = row
                .as_ref()
                .is_some_and(|row| row.services.iter().any(|service| service.id == CONSUL));
            if is_there
                && health.is_some_and(|check| check.is_passing())
                && (offers || subject.server_port.is_none())
            {
                return None;
            }
            let service = subject.server_port.map(|port| Service {
                id: Text::from(CONSUL),
                name: Text::from(CONSUL),
                tags: Some(Vec::new()),
                port: i64::from(port),
                ..Service::default()
            });
            (PASSING, "Agent alive and reachable", service)
        }
    };
    // What only the agent itself knows stays, until it writes it anew; its old addresses don't.
    let before = row.as_ref().map(|row| &*row.node);
    let node = Node {
        name: name.clone(),
        address,
        tagged_addresses: subject
            .tagged_addresses
            .clone()
            .or_else(|| before.filter(|_| is_there)?.tagged_addresses.clone()),
        id: before.map(|node| node.id.clone()).unwrap_or_default(),
        meta: before.map(|node| node.meta.clone()).unwrap_or_default(),
        ..Node::default()
    };
    Some(Command::Register(Box::new(Registration {
        node,
        service,
        checks: vec![Check {
            node: name,
            check_id: Text::from(SERF_HEALTH),
            name: Text::from("Serf Health Status"),
            status: Text::from(status),
            output: Text::from(output),
            ..Check::default()
        }],
    })))
}

/// Looks at everything, again and again.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Whom gossip doesn't know, in lower case, and since when.
    unknown: BTreeMap<Text, Instant>,
}

impl Sweep {
    /// Writes all that the catalog lacks.
    pub(super) async fn run(&mut self, core: &Core) -> Result<(), Error> {
        let Some(gossip) = &core.gossip else {
            return attend(core, &Subject::this(&core.config)).await;
        };
        let members = gossip.members();
        for member in &members {
            if let Some(subject) = Subject::of(member, &core.config)
                && !is_superseded(member, &members)
            {
                attend(core, &subject).await?;
            }
        }
        let unknown = unknown(&members, &core.shared.view());
        if !is_in_touch(core, gossip) {
            // The pool may be out of reach, and then its silence means nothing.
            self.unknown.clear();
            return Ok(());
        }
        for name in self.due(unknown, Instant::now()) {
            tracing::info!("member '{}' is unknown, deregistering", name.to_lossy());
            let gone = Deregistration {
                node: name,
                what: Deregister::Node,
            };
            propose(core, Command::Deregister(gone)).await?;
        }
        Ok(())
    }

    /// Who of these has been unknown for so long that it is gone.
    ///
    /// A server that has just started has not heard of everybody yet, and what is removed takes the sessions and locks of
    /// the node along. It is time that counts and not looks, which follow each other at once when events were missed.
    fn due(&mut self, unknown: BTreeSet<Text>, now: Instant) -> Vec<Text> {
        let before = std::mem::take(&mut self.unknown);
        let since = |name: Text| {
            let since = before.get(&name).copied().unwrap_or(now);
            (name, since)
        };
        self.unknown = unknown.into_iter().map(since).collect();
        let due = |(name, since): (&Text, &Instant)| {
            (now.saturating_duration_since(*since) >= INTERVAL).then(|| name.clone())
        };
        self.unknown.iter().filter_map(due).collect()
    }
}

/// Whether a member that is not there has come back under its name in another case, which is the same node in the catalog.
pub(super) fn is_superseded(member: &Member, members: &[Member]) -> bool {
    if member.status == Status::Alive {
        return false;
    }
    let name = Text::from(member.name.as_str()).lower();
    let mut alive = (members.iter()).filter(|other| other.status == Status::Alive);
    alive.any(|other| other.name != member.name && Text::from(other.name.as_str()).lower() == name)
}

/// Nodes that were members and that gossip doesn't know, in lower case.
fn unknown(members: &[Member], view: &View) -> BTreeSet<Text> {
    let any = HealthState {
        state: Text::from("any"),
    };
    let checks = any.read(view, &mut Watch::off()).answer;
    let mut nodes: BTreeSet<Text> = checks
        .iter()
        .filter(|check| check.check_id == SERF_HEALTH)
        .map(|check| check.node.lower())
        .collect();
    for member in members {
        nodes.remove(&Text::from(member.name.as_str()).lower());
    }
    nodes
}

/// Whether gossip sees most of those who vote, as the leader does.
fn is_in_touch(core: &Core, gossip: &Gossip) -> bool {
    let servers = directory::servers(gossip, &core.config.datacenter);
    let alive: BTreeSet<_> = servers
        .iter()
        .filter(|server| server.is_alive())
        .filter_map(|server| server.id)
        .collect();
    let voters = core.consensus.status().voters;
    let seen = voters
        .iter()
        .filter(|peer| alive.contains(&peer.id))
        .count();
    seen * 2 > voters.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::Entry;
    use store::Store;

    use super::*;
    use crate::directory::tests::member;

    const SERVER_TAGS: &[(&str, &str)] = &[("role", "consul"), ("dc", "dc1"), ("port", "8300")];
    const CLIENT_TAGS: &[(&str, &str)] = &[("role", "node"), ("dc", "dc1")];

    fn config() -> Config {
        let here = IpAddr::from([10, 0, 0, 9]);
        Config {
            datacenter: "dc1".to_owned(),
            node_name: "me".to_owned(),
            advertise_address: here,
            advertise_address_wan: here,
            server_port: 8300,
            acl: crate::Acl::default(),
            session_ttl_min: Config::HOLD_MAX,
            hold_max: Config::HOLD_MAX,
            scratch_dir: std::path::PathBuf::new(),
            compress_threads: 1,
            checking: crate::Checking::InPlace,
            seed: 1,
        }
    }

    /// A catalog to which this was written.
    struct Catalog {
        store: Store,
        index: u64,
    }

    impl Catalog {
        fn new() -> Self {
            Self {
                store: Store::new(),
                index: 0,
            }
        }

        fn view(&self) -> View {
            self.store.shared().view()
        }

        fn write(&mut self, command: Command) {
            self.index += 1;
            let entry = Entry {
                at_ms: self.index,
                command,
            };
            let applied = self.store.apply(self.index, 1, entry);
            applied.result.unwrap();
            self.store.publish();
        }

        /// What is planned for this member, which is written then; a word for it.
        fn attend(
            &mut self,
            name: &str,
            address: &str,
            status: Status,
            tags: &[(&str, &str)],
        ) -> String {
            let member = member(name, address, status, tags);
            let subject = Subject::of(&member, &config());
            let command = subject.and_then(|subject| plan(&subject, &self.view()));
            let word = match &command {
                None => "nothing".to_owned(),
                Some(Command::Deregister(_)) => "gone".to_owned(),
                Some(Command::Register(registration)) => format!(
                    "{}{}",
                    registration.checks[0].status.to_lossy(),
                    if registration.service.is_some() {
                        " server"
                    } else {
                        ""
                    }
                ),
                Some(other) => panic!("{other:?}"),
            };
            command.into_iter().for_each(|command| self.write(command));
            word
        }
    }

    #[test]
    fn the_catalog_follows_the_members() {
        use Status::{Alive, Failed, Leaving, Left};
        let mut catalog = Catalog::new();
        let at = "10.0.0.1:8301";
        let moved = "10.0.0.2:8301";
        for (status, address, tags, expected) in [
            (Left, at, CLIENT_TAGS, "nothing"),
            (Alive, at, CLIENT_TAGS, "passing"),
            (Alive, at, CLIENT_TAGS, "nothing"),
            (Leaving, at, CLIENT_TAGS, "nothing"),
            (Failed, at, CLIENT_TAGS, "critical"),
            (Failed, at, CLIENT_TAGS, "nothing"),
            (Alive, at, CLIENT_TAGS, "passing"),
            (Alive, moved, CLIENT_TAGS, "passing"),
            (Failed, at, CLIENT_TAGS, "critical"),
            // It is a server by now.
            (Alive, at, SERVER_TAGS, "passing server"),
            (Alive, at, SERVER_TAGS, "nothing"),
            (Left, at, SERVER_TAGS, "gone"),
            (Left, at, SERVER_TAGS, "nothing"),
            (Failed, at, SERVER_TAGS, "critical"),
            // Of another datacenter, or no agent at all.
            (Alive, at, &[("role", "node"), ("dc", "dc2")], "nothing"),
            (Alive, at, &[("role", "else"), ("dc", "dc1")], "nothing"),
            (Alive, at, &[], "nothing"),
        ] {
            assert_eq!(
                catalog.attend("a", address, status, tags),
                expected,
                "{status} at {address} with {tags:?}"
            );
        }
        // Its name in another case is the same node.
        assert_eq!(catalog.attend("A", at, Left, CLIENT_TAGS), "gone");
    }

    #[test]
    fn who_is_unknown_is_given_time() {
        let start = Instant::now();
        let names = |names: &[&str]| -> BTreeSet<Text> {
            names.iter().map(|name| Text::from(*name)).collect()
        };
        let mut sweep = Sweep::default();
        let mut due = |at: Duration, unknown: &[&str]| -> Vec<String> {
            let due = sweep.due(names(unknown), start + at);
            due.iter()
                .map(|name| name.to_lossy().into_owned())
                .collect()
        };
        let second = Duration::from_secs(1);
        assert_eq!(due(Duration::ZERO, &["a", "b"]), [""; 0]);
        // Sweeps follow each other closely when events were missed.
        assert_eq!(due(second, &["a", "b", "c"]), [""; 0]);
        assert_eq!(due(second * 59, &["a", "c"]), [""; 0]);
        assert_eq!(due(second * 60, &["a", "b", "c"]), ["a"]);
        assert_eq!(due(second * 61, &["a", "b", "c"]), ["a", "c"]);
        assert_eq!(due(second * 120, &["b"]), ["b"]);
    }

    #[test]
    fn a_name_in_another_case_is_the_same_node() {
        use Status::{Alive, Failed, Left};
        let at = "10.0.0.1:8301";
        let web = |name: &str, status| member(name, at, status, CLIENT_TAGS);
        for gone in [Failed, Left] {
            let members = [web("Web", gone), web("other", Alive), web("web", Alive)];
            assert!(is_superseded(&members[0], &members));
            assert!(!is_superseded(&members[2], &members));
        }
        let members = [web("Web", Failed), web("web", Left)];
        assert!(
            members
                .iter()
                .all(|member| !is_superseded(member, &members))
        );
    }

    #[test]
    fn this_server_never_takes_itself_out() {
        use Status::{Alive, Failed, Leaving, Left};
        let mut catalog = Catalog::new();
        let at = "10.0.0.9:8301";
        for (status, expected) in [
            (Alive, "passing server"),
            (Leaving, "nothing"),
            (Left, "nothing"),
            (Failed, "nothing"),
            (Alive, "nothing"),
        ] {
            assert_eq!(catalog.attend("me", at, status, SERVER_TAGS), expected);
        }
        let me = member("me", at, Failed, SERVER_TAGS);
        assert_eq!(Subject::reaped(&me, &config()), None);
        let other = member("a", at, Failed, SERVER_TAGS);
        let gone = Subject::reaped(&other, &config()).unwrap();
        assert_eq!(gone.state, State::Gone);
    }

    #[test]
    fn what_only_the_agent_knows_stays_until_it_moves() {
        let mut catalog = Catalog::new();
        let tagged: Pairs = [(Text::from("wan"), Text::from("1.2.3.4"))].into();
        let meta: Pairs = [(Text::from("rack"), Text::from("7"))].into();
        catalog.write(Command::Register(Box::new(Registration {
            node: Node {
                name: Text::from("a"),
                address: Text::from("10.0.0.1"),
                tagged_addresses: Some(tagged.clone()),
                meta: meta.clone(),
                ..Node::default()
            },
            ..Registration::default()
        })));
        let row = |catalog: &Catalog| {
            let question = CatalogNode {
                node: Text::from("a"),
            };
            let found = question.read(&catalog.view(), &mut Watch::off());
            found.answer.unwrap().node
        };
        catalog.attend("a", "10.0.0.1:8301", Status::Alive, CLIENT_TAGS);
        assert_eq!(row(&catalog).tagged_addresses, Some(tagged));
        catalog.attend("a", "10.0.0.2:8301", Status::Alive, CLIENT_TAGS);
        assert_eq!(row(&catalog).tagged_addresses, None);
        assert_eq!(row(&catalog).meta, meta);
    }

    #[test]
    fn who_was_a_member_and_is_unknown_is_found() {
        let mut catalog = Catalog::new();
        for name in ["a", "Stranger"] {
            catalog.attend(name, "10.0.0.1:8301", Status::Alive, CLIENT_TAGS);
        }
        catalog.write(Command::Register(Box::new(Registration {
            node: Node {
                name: Text::from("external"),
                address: Text::from("10.0.0.3"),
                ..Node::default()
            },
            checks: vec![Check {
                node: Text::from("external"),
                check_id: Text::from("web"),
                status: Text::from(PASSING),
                ..Check::default()
            }],
            ..Registration::default()
        })));
        let members = [member("A", "10.0.0.1:8301", Status::Failed, CLIENT_TAGS)];
        let expected = BTreeSet::from([Text::from("stranger")]);
        assert_eq!(unknown(&members, &catalog.view()), expected);
    }
}

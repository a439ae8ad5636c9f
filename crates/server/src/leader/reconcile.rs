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

use std::collections::BTreeSet;
use std::net::IpAddr;

use gossip::{Gossip, Member, Status};
use model::{
    CRITICAL, CatalogNode, Check, Command, Deregister, Deregistration, Error, HealthNode,
    HealthState, Node, PASSING, Pairs, Registration, SERF_HEALTH, Service, Text,
};
use store::{Read, View, Watch};

use crate::Config;
use crate::core::Core;
use crate::directory::{self, Known};
use crate::write::propose;

/// Name and id of the service that every server offers.
const SERVICE: &str = "consul";

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
                .is_some_and(|row| row.services.iter().any(|service| service.id == SERVICE));
            if is_there
                && health.is_some_and(|check| check.is_passing())
                && (offers || subject.server_port.is_none())
            {
                return None;
            }
            let service = subject.server_port.map(|port| Service {
                id: Text::from(SERVICE),
                name: Text::from(SERVICE),
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
    /// Whom gossip did not know the last time, in lower case.
    unknown: BTreeSet<Text>,
}

impl Sweep {
    /// Writes all that the catalog lacks.
    pub(super) async fn run(&mut self, core: &Core) -> Result<(), Error> {
        let Some(gossip) = &core.gossip else {
            return attend(core, &Subject::this(&core.config)).await;
        };
        let members = gossip.members();
        for member in &members {
            if let Some(subject) = Subject::of(member, &core.config) {
                attend(core, &subject).await?;
            }
        }
        let unknown = unknown(&members, &core.shared.view());
        if !is_in_touch(core, gossip) {
            // The pool may be out of reach, and then its silence means nothing.
            self.unknown.clear();
            return Ok(());
        }
        // Twice in a row: a server that has just started has not heard of everybody yet, and what is removed takes the
        // sessions and locks of the node along.
        for name in unknown.intersection(&self.unknown) {
            tracing::info!("member '{}' is unknown, deregistering", name.to_lossy());
            let gone = Deregistration {
                node: name.clone(),
                what: Deregister::Node,
            };
            propose(core, Command::Deregister(gone)).await?;
        }
        self.unknown = unknown;
        Ok(())
    }
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

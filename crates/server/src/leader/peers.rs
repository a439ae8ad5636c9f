//! Servers and the log: who of those that gossip knows takes part in consensus, with which vote.
//!
//! A server that is alive becomes a member without a vote, gets everything, and then votes.
//! One that lost its disk comes back under its old name or address with a new id, and takes the place of the old one in a single change.
//! One that has left, or was forgotten, is taken out; one that only fails stays, since it may come back with what it holds.
//!
//! What is to be done is planned from what there is and can be planned again after any failure; all the doing is in `consensus`, which refuses a change that would leave voters of whom no majority answers.

use std::collections::{BTreeMap, BTreeSet};

use consensus::{MembershipError, NodeId, Peer};
use gossip::{Event, Events, Gossip, Status};
use model::{Operated, Operation, Peers};
use rpc::{Hop, OperateOptions, Request, Response};

use super::{INTERVAL, RETRY};
use crate::Start;
use crate::core::Core;
use crate::directory::{self, Known};

/// Keeps the members of consensus what they should be, for as long as this server leads.
pub(super) async fn run(core: &Core, gossip: &Gossip) {
    let mut events = gossip.subscribe();
    let mut tending = Tending::default();
    loop {
        // Waiting for a newcomer may take long, and another may leave meanwhile who waits for this server to notice.
        // Whatever is broken off is planned again.
        let news = tokio::select! {
            biased;
            news = news(core, &mut events) => news,
            is_well = tending.tend(core, gossip) => {
                let pause = if is_well { INTERVAL } else { RETRY };
                tokio::select! {
                    biased;
                    news = news(core, &mut events) => news,
                    () = tokio::time::sleep(pause) => continue,
                }
            }
        };
        match news {
            Some(reaped) => tending.reaped.extend(reaped),
            // Gossip has ended; so will this server.
            None => std::future::pending().await,
        }
    }
}

/// Waits for something that concerns servers and takes all that has come with it: the ids of those that were forgotten. `None` when there will be nothing more.
async fn news(core: &Core, events: &mut Events) -> Option<Vec<NodeId>> {
    let mut reaped = Vec::new();
    while !concerns_servers(core, events.next().await?, &mut reaped) {}
    while let Some(event) = events.try_next() {
        concerns_servers(core, event, &mut reaped);
    }
    Some(reaped)
}

fn concerns_servers(core: &Core, event: Event, reaped: &mut Vec<NodeId>) -> bool {
    let (member, is_reaped) = match event {
        Event::Joined(member)
        | Event::Updated(member)
        | Event::Leaving(member)
        | Event::Left(member)
        | Event::Failed(member) => (member, false),
        Event::Reaped(member) => (member, true),
        Event::User(_) => return false,
        Event::Missed(_) => return true,
    };
    let Some(server) = Known::of(&member) else {
        return false;
    };
    if server.datacenter != core.config.datacenter {
        return false;
    }
    if is_reaped {
        reaped.extend(server.id);
    }
    true
}

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Tending {
    /// Members of consensus that gossip has forgotten.
    reaped: BTreeSet<NodeId>,
    /// What was complained about the last time, which is not said again.
    complaints: BTreeSet<String>,
}

impl Tending {
    /// One look at everything; whether all is as it should be, or at least will not become so by itself.
    ///
    /// May be dropped in the middle.
    async fn tend(&mut self, core: &Core, gossip: &Gossip) -> bool {
        let me = Peer {
            id: core.consensus.id(),
            address: core.config.raft_address(),
            name: core.config.node_name.clone(),
        };
        let servers = directory::servers(gossip, &core.config.datacenter);
        let status = core.consensus.status();
        let members = Members {
            me: &me,
            voters: &status.voters,
            learners: &status.learners,
        };
        // Who is back is not remembered as forgotten: the next time that it starts, gossip knows it before its id.
        let is_known = |id: &NodeId| servers.iter().any(|server| server.id == Some(*id));
        let is_member = |id: &NodeId| members.all().any(|peer| peer.id == *id);
        self.reaped.retain(|id| is_member(id) && !is_known(id));
        let mut steps = plan(&members, &servers, &self.reaped);
        // What must be waited for comes last.
        steps.sort_by_key(|step| match step {
            Step::Remove(_) | Step::Move(_) | Step::Refuse(..) => 0,
            Step::Promote(_) | Step::Replace(..) | Step::Add(_) => 1,
        });
        let mut is_well = true;
        let mut complaints = BTreeSet::new();
        for step in steps {
            if let Err(why) = take(core, &members, &step).await {
                let complaint = format!("{step}: {why}");
                if !self.complaints.contains(&complaint) {
                    tracing::warn!("{complaint}");
                }
                complaints.insert(complaint);
                is_well &= matches!(step, Step::Refuse(..));
            }
        }
        self.complaints = complaints;
        is_well
    }
}

/// Who takes part in consensus.
struct Members<'a> {
    /// This server as it should be among them.
    me: &'a Peer,
    voters: &'a [Peer],
    learners: &'a [Peer],
}

impl Members<'_> {
    fn all(&self) -> impl Iterator<Item = &Peer> {
        self.voters.iter().chain(self.learners)
    }
}

/// Something that is to be done about the members.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Write down where this member is now.
    Move(Peer),
    /// Let this server take part and vote.
    Add(Known),
    /// Give this member a vote as soon as it has caught up.
    Promote(Peer),
    /// Let this server take the place of one that it was before its disk was lost.
    Replace(NodeId, Known),
    /// Take this member out.
    Remove(Peer),
    /// Don't let this server take part, for this reason.
    Refuse(String, String),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Move(peer) => write!(
                f,
                "cannot note that server '{}' is at {}",
                peer.name, peer.address
            ),
            Self::Add(server) => write!(
                f,
                "cannot add server '{}' at {} yet",
                server.name, server.address
            ),
            Self::Promote(peer) => write!(
                f,
                "cannot give server '{}' at {} a vote yet",
                peer.name, peer.address
            ),
            Self::Replace(_, server) => write!(
                f,
                "cannot put the new server '{}' at {} in the place of the old one yet",
                server.name, server.address
            ),
            Self::Remove(peer) => write!(
                f,
                "cannot remove server '{}' at {}",
                peer.name, peer.address
            ),
            Self::Refuse(name, _) => write!(f, "not adding server '{name}'"),
        }
    }
}

/// What is to be done so that the members are what gossip says.
fn plan(members: &Members<'_>, servers: &[Known], reaped: &BTreeSet<NodeId>) -> Vec<Step> {
    let me = members.me;
    let Identities { by_id, doubles } = identities(servers);
    let mut steps = Vec::new();
    // Servers that take the place of another.
    let mut placed = BTreeSet::new();
    let mut staying: Vec<&Peer> = Vec::new();
    for peer in members.all() {
        if peer.id == me.id {
            if peer != me {
                steps.push(Step::Move(me.clone()));
            }
            staying.push(peer);
            continue;
        }
        let known = by_id.get(&peer.id);
        // One that doesn't say who it is, as when it has only just started: by its name and address it is this one.
        let nameless = servers.iter().find(|server| {
            known.is_none()
                && server.id.is_none()
                && server.name == peer.name
                && server.address.to_string() == peer.address
        });
        let is_gone = match known.copied().or(nameless) {
            Some(server) => server.status == Status::Left,
            None => reaped.contains(&peer.id),
        };
        if is_gone {
            steps.push(Step::Remove(peer.clone()));
            continue;
        }
        let is_member = |id: NodeId| members.all().any(|peer| peer.id == id);
        let votes = |id: NodeId| members.voters.iter().any(|peer| peer.id == id);
        // Those that are now what this member was, if gossip doesn't know it.
        let mut heirs = servers.iter().filter(|server| {
            known.is_none()
                && server.is_alive()
                && (server.name == peer.name || server.address.to_string() == peer.address)
        });
        let successor = heirs.clone().find(|server| {
            server
                .id
                .is_some_and(|id| id != me.id && !is_member(id) && !placed.contains(&id))
        });
        match successor {
            // It lost its disk more than once, or a change broke off half way; what it is now votes already.
            // An address alone takes nobody's vote: voters may have swapped theirs, and one of them is not heard of yet.
            None if heirs
                .any(|server| server.name == peer.name && server.id.is_some_and(votes)) =>
            {
                steps.push(Step::Remove(peer.clone()));
            }
            Some(server) => {
                placed.extend(server.id);
                steps.push(Step::Replace(peer.id, server.clone()));
            }
            None => staying.push(peer),
        }
    }
    for server in servers.iter().filter(|server| server.is_alive()) {
        let Some(peer) = server.peer().filter(|peer| peer.id != me.id) else {
            continue;
        };
        if placed.contains(&peer.id) {
            continue;
        }
        let refuse = |why: String| Step::Refuse(server.name.clone(), why);
        if doubles.contains(&peer.id) {
            steps.push(refuse(
                "another server has the same id; is its data directory a copy?".to_owned(),
            ));
        } else if members.voters.iter().any(|voter| voter.id == peer.id) {
            if !members.voters.contains(&peer) {
                steps.push(Step::Move(peer));
            }
        } else if members.learners.iter().any(|learner| learner.id == peer.id) {
            steps.push(Step::Promote(peer));
        } else if let Some(other) = also_bootstraps(server, servers) {
            steps.push(refuse(format!(
                "'{}' and '{other}' are both in bootstrap mode, and only one server may be",
                server.name
            )));
        } else if let Some(other) = staying.iter().find(|other| other.address == peer.address) {
            steps.push(refuse(format!(
                "server '{}' has the same address",
                other.name
            )));
        } else {
            steps.push(Step::Add(server.clone()));
        }
    }
    steps
}

/// What servers that gossip knows say of who they are in consensus.
struct Identities<'a> {
    /// The one that counts for each id.
    by_id: BTreeMap<NodeId, &'a Known>,
    /// Ids that more than one server has at the same time.
    doubles: BTreeSet<NodeId>,
}

/// A server that was given another name is known under both for days, and only one of them is there.
/// What became of the other, which an operator may force to leave, says nothing of the server.
fn identities(servers: &[Known]) -> Identities<'_> {
    let weight = |server: &Known| match server.status {
        Status::Alive => 3,
        Status::Leaving => 2,
        Status::Failed => 1,
        Status::Left => 0,
    };
    let mut by_id: BTreeMap<NodeId, &Known> = BTreeMap::new();
    let mut doubles = BTreeSet::new();
    for server in servers {
        let Some(id) = server.id else {
            continue;
        };
        if let Some(other) = by_id.get(&id) {
            if other.is_alive() && server.is_alive() {
                doubles.insert(id);
            }
            if weight(other) >= weight(server) {
                continue;
            }
        }
        by_id.insert(id, server);
    }
    Identities { by_id, doubles }
}

/// Another server that is in bootstrap mode like this one.
fn also_bootstraps<'a>(server: &Known, servers: &'a [Known]) -> Option<&'a str> {
    if server.start != Start::Bootstrap {
        return None;
    }
    // What it was called before is no other.
    let is_same = |other: &Known| other.name == server.name || other.id == server.id;
    let mut others = servers.iter().filter(|other| !is_same(other));
    let other = others.find(|other| other.start == Start::Bootstrap)?;
    Some(&other.name)
}

async fn take(core: &Core, members: &Members<'_>, step: &Step) -> Result<(), String> {
    let consensus = &core.consensus;
    let said = |error: MembershipError| error.to_string();
    match step {
        Step::Move(peer) => {
            tracing::info!("server '{}' is now at {}", peer.name, peer.address);
            consensus.update_peer(peer.clone()).await.map_err(said)
        }
        Step::Add(server) => {
            ask_for_others(core, members, server).await?;
            tracing::info!("adding server '{}' at {}", server.name, server.address);
            match server.peer() {
                Some(peer) => consensus.add_voter(peer).await.map_err(said),
                None => Ok(()),
            }
        }
        Step::Promote(peer) => consensus.add_voter(peer.clone()).await.map_err(said),
        Step::Replace(old, server) => {
            ask_for_others(core, members, server).await?;
            tracing::info!(
                "server '{}' at {} has come back without its log and takes the place of the one it was",
                server.name,
                server.address
            );
            match server.peer() {
                Some(peer) => consensus.replace(*old, peer).await.map_err(said),
                None => Ok(()),
            }
        }
        Step::Remove(peer) => {
            let voters = members.voters.iter().filter(|voter| voter.id != peer.id);
            tracing::info!(
                "removing server '{}' at {}, which is gone; {} are left to vote",
                peer.name,
                peer.address,
                voters.count()
            );
            consensus.remove(peer.id).await.map_err(said)
        }
        Step::Refuse(_, why) => Err(why.clone()),
    }
}

/// A server that takes part in another cluster must not take part in this one: the logs would destroy each other.
async fn ask_for_others(core: &Core, members: &Members<'_>, server: &Known) -> Result<(), String> {
    let request = Request::Operate(Operation::Peers, OperateOptions::default());
    let answer = core.calls.call(&server.server(), Hop::First, request).await;
    let peers = match answer {
        Ok(Response::Operate(Operated::Peers(peers))) => peers,
        Ok(_) => return Err("it answered another question".to_owned()),
        Err(error) => return Err(format!("it cannot be asked for its peers: {error}")),
    };
    if is_ours(members, &peers) {
        Ok(())
    } else {
        Err(format!(
            "it belongs to another cluster, whose servers are {}; to join this one it needs an empty data directory, and must not be told to bootstrap",
            peers.servers.join(", ")
        ))
    }
}

/// Whether a server that takes part with these peers has no cluster or this one.
///
/// One that was removed before, perhaps without noticing, still knows some of those who are here.
/// Addresses say nothing: one that lost its disk and made a cluster of its own is at an address that is known here, and the other way round.
/// Ids are drawn with data directories, so that no two clusters have one in common.
fn is_ours(members: &Members<'_>, peers: &Peers) -> bool {
    peers.ids.is_empty() || members.all().any(|peer| peers.ids.contains(&peer.id))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn known(name: &str, id: u64, last: u8, status: Status) -> Known {
        Known {
            name: name.to_owned(),
            address: format!("10.0.0.{last}:8300").parse().unwrap(),
            datacenter: "dc1".to_owned(),
            id: (id != 0).then_some(id),
            start: Start::Join,
            status,
        }
    }

    fn alive(name: &str, id: u64, last: u8) -> Known {
        known(name, id, last, Status::Alive)
    }

    fn peer(name: &str, id: u64, last: u8) -> Peer {
        alive(name, id, last).peer().unwrap()
    }

    /// What server `a`, whose id is 1, plans.
    fn planned(voters: &[Peer], learners: &[Peer], servers: &[Known], reaped: &[u64]) -> Vec<Step> {
        let members = Members {
            me: &peer("a", 1, 1),
            voters,
            learners,
        };
        plan(&members, servers, &reaped.iter().copied().collect())
    }

    #[test]
    fn who_is_alive_takes_part() {
        let (a, b) = (peer("a", 1, 1), peer("b", 2, 2));
        let both = [alive("a", 1, 1), alive("b", 2, 2)];
        let add = [Step::Add(alive("b", 2, 2))];
        let (only_a, only_b) = (from_ref(&a), from_ref(&b));
        assert_eq!(planned(only_a, &[], &both, &[]), add);
        let promote = [Step::Promote(b.clone())];
        assert_eq!(planned(only_a, only_b, &both, &[]), promote);
        assert_eq!(planned(&[a.clone(), b.clone()], &[], &both, &[]), []);
        // It doesn't say yet who it is.
        let silent = [alive("a", 1, 1), alive("b", 0, 2)];
        assert_eq!(planned(&[a], &[], &silent, &[]), []);
    }

    #[test]
    fn who_is_not_there_stays_until_it_has_left() {
        let voters = [peer("a", 1, 1), peer("b", 2, 2)];
        let remove = [Step::Remove(voters[1].clone())];
        let with = |status| {
            planned(
                &voters,
                &[],
                &[alive("a", 1, 1), known("b", 2, 2, status)],
                &[],
            )
        };
        assert_eq!(with(Status::Failed), []);
        assert_eq!(with(Status::Leaving), []);
        assert_eq!(with(Status::Left), remove);
        // Nobody knows it: perhaps not yet.
        assert_eq!(planned(&voters, &[], &[alive("a", 1, 1)], &[]), []);
        assert_eq!(planned(&voters, &[], &[alive("a", 1, 1)], &[2]), remove);
        // It was forgotten, and came back since.
        let back = [alive("a", 1, 1), alive("b", 2, 2)];
        assert_eq!(planned(&voters, &[], &back, &[2]), []);
        let nameless = [alive("a", 1, 1), known("b", 0, 2, Status::Left)];
        assert_eq!(planned(&voters, &[], &nameless, &[]), remove);
        // It was forgotten, and starts: it doesn't say yet who it is.
        let silent = [alive("a", 1, 1), alive("b", 0, 2)];
        assert_eq!(planned(&voters, &[], &silent, &[2]), []);
    }

    #[test]
    fn who_lost_its_disk_takes_its_own_place() {
        let voters = [peer("a", 1, 1), peer("b", 2, 2), peer("c", 3, 3)];
        let others = [alive("a", 1, 1), alive("c", 3, 3)];
        let with = |server: Known| {
            let servers = [&others[..], &[server]].concat();
            planned(&voters, &[], &servers, &[])
        };
        for back in [alive("b", 9, 2), alive("b", 9, 7), alive("d", 9, 2)] {
            assert_eq!(with(back.clone()), [Step::Replace(2, back)]);
        }
        assert_eq!(with(known("b", 9, 2, Status::Failed)), []);
        // Somebody else's address, and that one is there.
        let thief = with(alive("d", 9, 3));
        assert!(
            matches!(&thief[..], [Step::Refuse(name, _)] if name == "d"),
            "{thief:?}"
        );
        // What is left of a life between two losses of the disk.
        let servers = [&others[..], &[alive("b", 9, 2)]].concat();
        let now = [peer("a", 1, 1), peer("b", 9, 2), peer("c", 3, 3)];
        let gone = [peer("b", 8, 2)];
        assert_eq!(
            planned(&now, &gone, &servers, &[]),
            [Step::Remove(gone[0].clone())]
        );
        // The half of a change that a former leader began.
        let servers = [&others[..], &[alive("b", 9, 2)]].concat();
        let learners = [peer("b", 9, 2)];
        assert_eq!(
            planned(&voters, &learners, &servers, &[]),
            [Step::Promote(peer("b", 9, 2))]
        );
    }

    #[test]
    fn who_moved_is_found_again() {
        let voters = [peer("a", 1, 7), peer("b", 2, 2)];
        let servers = [alive("a", 1, 1), alive("b", 2, 8)];
        let moves = [Step::Move(peer("a", 1, 1)), Step::Move(peer("b", 2, 8))];
        assert_eq!(planned(&voters, &[], &servers, &[]), moves);
    }

    #[test]
    fn two_that_elect_themselves_do_not_mix() {
        let bootstrap = |server: Known| Known {
            start: Start::Bootstrap,
            ..server
        };
        let servers = [bootstrap(alive("a", 1, 1)), bootstrap(alive("b", 2, 2))];
        let steps = planned(&[peer("a", 1, 1)], &[], &servers, &[]);
        assert!(
            matches!(&steps[..], [Step::Refuse(name, _)] if name == "b"),
            "{steps:?}"
        );
        let before = Known {
            status: Status::Left,
            ..bootstrap(alive("z", 2, 2))
        };
        let servers = [alive("a", 1, 1), bootstrap(alive("b", 2, 2)), before];
        let steps = planned(&[peer("a", 1, 1)], &[], &servers, &[]);
        assert!(matches!(&steps[..], [Step::Add(_)]), "{steps:?}");
    }

    #[test]
    fn a_server_that_has_another_name_now_stays() {
        let voters = [peer("a", 1, 1), peer("b", 2, 2)];
        for (old, new) in [("web", "beta"), ("b", "web")] {
            let now = peer(new, 2, 2);
            for status in [Status::Failed, Status::Leaving, Status::Left] {
                let mut servers = [alive("a", 1, 1), known(old, 2, 2, status), alive(new, 2, 2)];
                servers.sort_by(|a, b| a.name.cmp(&b.name));
                let steps = planned(&voters, &[], &servers, &[]);
                assert_eq!(steps, [Step::Move(now.clone())], "{old} is {status:?}");
                // Its old name is forgotten in the end.
                let known = [alive("a", 1, 1), alive(new, 2, 2)];
                let steps = planned(&[voters[0].clone(), now.clone()], &[], &known, &[2]);
                assert_eq!(steps, []);
                // It left under its old name and comes back under another.
                let steps = planned(&voters[..1], &[], &servers, &[]);
                assert_eq!(steps, [Step::Add(alive(new, 2, 2))]);
            }
        }
        // One that fails may come back under the name that it had last.
        let gone = [
            alive("a", 1, 1),
            known("b", 2, 2, Status::Failed),
            known("web", 2, 2, Status::Left),
        ];
        assert_eq!(planned(&voters, &[], &gone, &[]), []);
    }

    #[test]
    fn an_old_address_alone_makes_no_voter_another() {
        let voters = [peer("a", 1, 1), peer("b", 2, 2), peer("c", 3, 3)];
        // They have swapped places, and this leader has not heard of one of them yet.
        let servers = [alive("a", 1, 1), alive("c", 3, 2)];
        let steps = planned(&voters, &[], &servers, &[]);
        assert_eq!(steps, [Step::Move(peer("c", 3, 2))]);
        let steps = planned(&voters, &[], &servers, &[2]);
        let remove = Step::Remove(voters[1].clone());
        assert_eq!(steps, [remove, Step::Move(peer("c", 3, 2))]);
    }

    #[test]
    fn clusters_are_told_apart_by_ids() {
        let (voters, learners) = ([peer("a", 1, 1), peer("b", 2, 2)], [peer("c", 3, 3)]);
        let members = Members {
            me: &voters[0],
            voters: &voters,
            learners: &learners,
        };
        let with = |ids: &[u64]| {
            let peers = Peers {
                leader: String::new(),
                servers: ids.iter().map(|_| voters[1].address.clone()).collect(),
                ids: ids.to_vec(),
            };
            is_ours(&members, &peers)
        };
        assert!(with(&[]) && with(&[9, 2]) && with(&[3]));
        // It lost its disk and bootstrapped: the address is known, the id is not.
        assert!(!with(&[9]));
    }

    #[test]
    fn a_copied_data_directory_is_not_added() {
        let servers = [alive("a", 1, 1), alive("b", 2, 2), alive("c", 2, 3)];
        let steps = planned(&[peer("a", 1, 1)], &[], &servers, &[]);
        assert!(
            matches!(&steps[..], [Step::Refuse(..), Step::Refuse(..)]),
            "{steps:?}"
        );
    }
}

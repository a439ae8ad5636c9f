//! How servers that wait for each other come to be one cluster, and never two.
//!
//! Servers that expect the same number of servers find each other through gossip, which shows each of them a picture of its own: one may know three, another already a fourth.
//! If each made a cluster of what it sees, two different lists of members would begin at the same place of two logs, and servers that are on both lists would vote in both.
//! So it goes like this:
//!
//! 1. Whoever sees enough of them, and is the first of them by name, is to found the cluster, of exactly the first so many by name. The others wait until its log reaches them.
//! 2. The founder asks each one that is to be a member to promise not to take part in a cluster that anybody else founds. A server promises that to one founder at a time, for [`PROMISE`], and the founder gives it to itself as well.
//! 3. With *all* promises in hand it asks every server that it knows, members to be or not, whether it has peers. If one has, there is a cluster already, and this server waits to be taken in by it, for ever.
//! 4. If all say no, and no more than [`FOUNDED_WITHIN`] has passed since it began to ask, it founds the cluster: the list of members is written into its own log only, from which the others get it.
//!
//! Why there is one cluster at most: two founders whose lists have a server in common need its promise both, and the second gets it only after the first one's time to use it is long over.
//! By then the first has either founded its cluster, or has given up and must ask again.
//! If it has, then the common server either has its log, and says so in step 3, or has not heard of it yet; but then the founder does, which the second one asks in step 3 if it knows of it.
//! Two lists without a common server need twice as many servers as are expected, of which neither half knows of the other; nobody can tell these from two clusters that are meant.
//! A server that was just started may have promised something before it stopped, so it promises nothing for a moment.
//! What is left is a founder whose disk stalls for most of [`PROMISE`] between its last look at the clock and its first write, while the others lose sight of it.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use consensus::{NodeId, Peer};
use futures::future::join_all;
use gossip::{Events, Gossip};
use model::{Error, Operated, Operation};
use rpc::{CallError, Hop, OperateOptions, Request, Response};
use tokio::time::{Instant, sleep};

use crate::Start;
use crate::core::Core;
use crate::directory::{self, Known};

/// How long a server keeps the promise to take part in nobody else's cluster.
const PROMISE: Duration = Duration::from_secs(20);

/// How long after it began to ask for promises a founder may still use them.
const FOUNDED_WITHIN: Duration = Duration::from_secs(1);

/// How long a server that has just started promises nothing: longer than promises from before can be used.
const SILENCE: Duration = Duration::from_millis(1_500);

/// How long after a failure it is tried again, if nothing happens before.
const RETRY: Duration = Duration::from_millis(500);

/// Whom this server has promised something.
#[derive(Debug)]
pub(crate) struct Promise {
    begun: Instant,
    /// The founder, and until when.
    given: Option<(NodeId, Instant)>,
}

impl Promise {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            given: None,
        }
    }

    /// Promises it to this founder.
    fn give(&mut self, founder: NodeId, now: Instant) -> Result<(), String> {
        if now < self.begun + SILENCE {
            return Err("this server has only just started".to_owned());
        }
        match self.given {
            Some((other, until)) if other != founder && now < until => {
                Err("this server has promised another to wait for it".to_owned())
            }
            _ => {
                self.given = Some((founder, now + PROMISE));
                Ok(())
            }
        }
    }

    /// Takes it back from oneself, which is the only founder of whom this server knows that it gave up.
    fn take_back(&mut self) {
        self.given = None;
    }
}

/// Promises a founder to wait for it.
pub(crate) async fn promise(core: &Core, founder: NodeId, promiser: NodeId) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::Unavailable(why.to_owned()));
    if promiser != core.consensus.id() {
        return refused("this server has another id by now");
    }
    if !matches!(core.start, Start::Expect(_)) {
        return refused("this server does not wait for others to make a cluster with");
    }
    if core.consensus.initialized().await {
        return refused("this server has a cluster");
    }
    core.promise()
        .give(founder, Instant::now())
        .map_err(Error::Unavailable)
}

/// What became of an attempt to found a cluster.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Founded,
    /// There is a cluster, which this server has to be taken in by.
    NotNeeded(String),
    /// Not now.
    Failed(String),
}

/// Waits for the others and makes a cluster with them; returns when this server has one or is not to make one.
pub(crate) async fn run(core: &Core, gossip: &Gossip, expected: usize) {
    if core.consensus.initialized().await {
        tracing::info!("Raft data found, disabling bootstrap mode");
        let members = core.consensus.members().await;
        if members.is_ok_and(|(voters, others)| voters.is_empty() && others.is_empty()) {
            // Its founder may have lost its disk before it could tell anybody.
            tracing::warn!(
                "this server has voted for a cluster, but its log knows no members; if no leader takes it in, stop it and empty its data directory"
            );
        }
        return;
    }
    let mut events = gossip.subscribe();
    let mut said = String::new();
    loop {
        if core.consensus.initialized().await {
            return;
        }
        let why = match plan(&this(core, expected), expected, others(core, gossip)) {
            Plan::Wait(why) => why,
            Plan::Found(members) => match found(core, gossip, &members).await {
                Attempt::Founded => return,
                Attempt::NotNeeded(who) => {
                    tracing::info!(
                        "Existing Raft peers reported by {who}, disabling bootstrap mode"
                    );
                    return;
                }
                Attempt::Failed(why) => why,
            },
        };
        if why != said {
            tracing::info!("no cluster yet: {why}");
            said = why;
        }
        wait(&mut events).await;
    }
}

/// Makes a cluster of this server alone, unless another server has one; returns when it has one or is not to make one.
///
/// For so long it waits to hear of other servers. One of which it has heard must answer, however long it takes.
pub(crate) async fn run_alone(core: &Core, gossip: &Gossip, patience: Duration) {
    let begun = Instant::now();
    let mut events = gossip.subscribe();
    let mut said = String::new();
    loop {
        if core.consensus.initialized().await {
            return;
        }
        let others = others(core, gossip);
        let why = if others.is_empty() && begun.elapsed() < patience {
            "looking for other servers, one of which may have a cluster already".to_owned()
        } else {
            let asked = join_all(others.iter().map(|server| ask_for_peers(core, server))).await;
            match asked.into_iter().find_map(Result::err) {
                None => {
                    let me = this(core, 1).peer().into_iter().collect();
                    match core.consensus.bootstrap(me).await {
                        Ok(()) => return,
                        Err(error) => error.to_string(),
                    }
                }
                Some(Attempt::NotNeeded(who)) => {
                    tracing::info!(
                        "Existing Raft peers reported by {who}, disabling bootstrap mode"
                    );
                    return;
                }
                Some(Attempt::Failed(why)) => why,
                Some(Attempt::Founded) => return,
            }
        };
        if why != said {
            tracing::info!("no cluster yet: {why}");
            said = why;
        }
        wait(&mut events).await;
    }
}

/// Returns when something has happened, or after a while.
async fn wait(events: &mut Events) {
    let mut later = pin!(sleep(RETRY));
    tokio::select! {
        biased;
        event = events.next() => if event.is_none() { later.await },
        () = &mut later => {}
    }
    while events.try_next().is_some() {}
}

fn this(core: &Core, expected: usize) -> Known {
    Known {
        name: core.config.node_name.clone(),
        address: std::net::SocketAddr::new(core.config.advertise_address, core.config.server_port),
        datacenter: core.config.datacenter.clone(),
        id: Some(core.consensus.id()),
        start: Start::Expect(expected),
        status: gossip::Status::Alive,
    }
}

/// All other servers of the datacenter that are alive.
fn others(core: &Core, gossip: &Gossip) -> Vec<Known> {
    let mut servers = directory::servers(gossip, &core.config.datacenter);
    servers.retain(|server| server.is_alive() && server.name != core.config.node_name);
    servers
}

/// What is to be done by what is known.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Wait(String),
    /// Found a cluster of these.
    Found(Vec<Known>),
}

fn plan(this: &Known, expected: usize, others: Vec<Known>) -> Plan {
    for server in &others {
        match server.start {
            Start::Bootstrap | Start::BootstrapUnlessFound(_) => {
                return Plan::Wait(format!(
                    "server '{}' has bootstrap mode. Expect disabled.",
                    server.name
                ));
            }
            Start::Expect(other) if other != expected => {
                return Plan::Wait(format!(
                    "server '{}' has a conflicting expect value: {other} where this one has {expected}",
                    server.name
                ));
            }
            Start::Expect(_) | Start::Join => {}
        }
    }
    let mut members = others;
    members.retain(|server| matches!(server.start, Start::Expect(_)) && server.id.is_some());
    members.push(this.clone());
    members.sort_by(|one, other| one.name.cmp(&other.name));
    if members.len() < expected {
        return Plan::Wait(format!(
            "{} of {expected} expected servers are there",
            members.len()
        ));
    }
    members.truncate(expected);
    if members[0].name != this.name {
        return Plan::Wait(format!("server '{}' is to found it", members[0].name));
    }
    Plan::Found(members)
}

async fn found(core: &Core, gossip: &Gossip, members: &[Known]) -> Attempt {
    let me = core.consensus.id();
    if let Err(why) = core.promise().give(me, Instant::now()) {
        return Attempt::Failed(why);
    }
    let attempt = try_to_found(core, gossip, members).await;
    if attempt != Attempt::Founded {
        core.promise().take_back();
    }
    attempt
}

async fn try_to_found(core: &Core, gossip: &Gossip, members: &[Known]) -> Attempt {
    let began = Instant::now();
    let me = core.consensus.id();
    let asked = async {
        let promises = members.iter().filter(|member| member.id != Some(me));
        let promises = join_all(promises.map(|member| ask_for_promise(core, me, member))).await;
        promises.into_iter().collect::<Result<(), _>>()?;
        let others = others(core, gossip);
        join_all(others.iter().map(|server| ask_for_peers(core, server)))
            .await
            .into_iter()
            .collect::<Result<(), _>>()
    };
    match tokio::time::timeout(FOUNDED_WITHIN, asked).await {
        Ok(Ok(())) => {}
        Ok(Err(attempt)) => return attempt,
        Err(_) => return Attempt::Failed("the others take too long to answer".to_owned()),
    }
    if began.elapsed() >= FOUNDED_WITHIN {
        return Attempt::Failed("this server is too slow".to_owned());
    }
    let voters: Vec<Peer> = members.iter().filter_map(Known::peer).collect();
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    tracing::info!("making a cluster of the servers {}", names.join(", "));
    match core.consensus.bootstrap(voters).await {
        Ok(()) => Attempt::Founded,
        Err(error) => Attempt::Failed(error.to_string()),
    }
}

async fn ask_for_promise(core: &Core, me: NodeId, member: &Known) -> Result<(), Attempt> {
    let promise = Operation::Promise {
        founder: me,
        promiser: member.id.unwrap_or_default(),
    };
    match ask(core, member, promise).await {
        Ok(Operated::Nothing) => Ok(()),
        Ok(_) => Err(unclear(member, &"it answered another question")),
        Err(error) => Err(unclear(member, &error)),
    }
}

async fn ask_for_peers(core: &Core, server: &Known) -> Result<(), Attempt> {
    match ask(core, server, Operation::Peers).await {
        Ok(Operated::Peers(peers)) if peers.ids.is_empty() => Ok(()),
        Ok(Operated::Peers(_)) => Err(Attempt::NotNeeded(server.name.clone())),
        Ok(_) => Err(unclear(server, &"it answered another question")),
        Err(error) => Err(unclear(server, &error)),
    }
}

fn unclear(server: &Known, why: &dyn fmt::Display) -> Attempt {
    Attempt::Failed(format!(
        "server '{}' at {}: {why}",
        server.name, server.address
    ))
}

async fn ask(core: &Core, server: &Known, operation: Operation) -> Result<Operated, CallError> {
    let request = Request::Operate(operation, OperateOptions::default());
    match core
        .calls
        .call(&server.server(), Hop::First, request)
        .await?
    {
        Response::Operate(operated) => Ok(operated),
        Response::Read(_) | Response::Write(_) | Response::Ping => {
            Err(CallError::Broken("it answered another question".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use gossip::Status;

    use super::*;

    fn known(name: &str, start: Start) -> Known {
        Known {
            name: name.to_owned(),
            address: "10.0.0.1:8300".parse().unwrap(),
            datacenter: "dc1".to_owned(),
            id: Some(1),
            start,
            status: Status::Alive,
        }
    }

    #[test]
    fn the_first_by_name_founds_it_of_as_many_as_are_expected() {
        let three = |name: &str| known(name, Start::Expect(3));
        let wait = |this: &str, others: &[Known]| match plan(&three(this), 3, others.to_vec()) {
            Plan::Wait(why) => why,
            Plan::Found(members) => panic!("{members:?}"),
        };
        assert_eq!(
            wait("a", &[three("b")]),
            "2 of 3 expected servers are there"
        );
        assert_eq!(
            wait("b", &[three("c"), three("a")]),
            "server 'a' is to found it"
        );
        let others = vec![three("d"), three("c"), three("b"), known("0", Start::Join)];
        let members = vec![three("a"), three("b"), three("c")];
        assert_eq!(plan(&three("a"), 3, others), Plan::Found(members));
        let silent = Known {
            id: None,
            ..three("c")
        };
        assert_eq!(
            wait("a", &[three("b"), silent]),
            "2 of 3 expected servers are there"
        );
        let five = known("d", Start::Expect(5));
        assert_eq!(
            wait("a", &[three("b"), three("c"), five]),
            "server 'd' has a conflicting expect value: 5 where this one has 3"
        );
        let bootstrap = known("d", Start::Bootstrap);
        assert_eq!(
            wait("a", &[three("b"), three("c"), bootstrap]),
            "server 'd' has bootstrap mode. Expect disabled."
        );
    }

    #[test]
    fn a_promise_is_given_to_one_at_a_time() {
        let mut promise = Promise::new();
        let begun = promise.begun;
        assert!(promise.give(1, begun).is_err(), "it has only just started");
        let now = begun + SILENCE;
        assert!(promise.give(1, now).is_ok());
        assert!(promise.give(1, now + PROMISE / 2).is_ok());
        assert!(promise.give(2, now + PROMISE).is_err());
        assert!(promise.give(2, now + PROMISE * 3 / 2).is_ok());
        promise.take_back();
        assert!(promise.give(1, now + PROMISE * 3 / 2).is_ok());
    }
}

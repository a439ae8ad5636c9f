//! What an operator asks: who takes part in consensus, and with which keys the members gossip.

use std::time::Duration;

use consensus::{MembershipError, Peer};
use gossip::{EventError, KeyOperation, KeyReport};
use model::{
    Error, KeyringPool, KeyringVerb, NewEvent, Operated, Operation, Peers, RaftConfiguration,
    RaftServer, Uuid,
};
use rpc::{Hop, OperateOptions, Refusal, Request, Response};

use crate::access::{self, authorise};
use crate::core::Core;
use crate::directory::{self, Known};
use crate::founding;
use crate::leader;
use crate::route::{self, Errand, Forwarded, Turn};

/// Does or tells something beside the state.
pub(crate) async fn operate(
    core: &Core,
    hop: Hop,
    operation: Operation,
    options: OperateOptions,
) -> Result<Operated, Refusal> {
    core.route(&options.datacenter).map_err(Refusal::Failed)?;
    if options.stale || !operation.needs_leader() {
        let operated = operate_here(core, hop, &operation, &options).await;
        return operated.map_err(Refusal::Failed);
    }
    let mut errand = Errand::new(core, hop);
    loop {
        let turn = errand.turn().await?;
        let leader = match &turn {
            Turn::Here => match operate_here(core, hop, &operation, &options).await {
                Err(Error::NoLeader) => {
                    errand.failed(&turn);
                    continue;
                }
                result => return result.map_err(Refusal::Failed),
            },
            Turn::There(leader) => leader,
        };
        let request = Request::Operate(operation.clone(), options.clone());
        let is_repeatable = request.is_repeatable();
        match route::instruct(core, leader, request).await? {
            Forwarded::Answered(Response::Operate(operated)) => return Ok(operated),
            Forwarded::Answered(_) => return Err(route::absurd()),
            Forwarded::NotDone => {}
            Forwarded::Broken if is_repeatable => {}
            Forwarded::Broken => return Err(Refusal::Failed(Error::OutcomeUnknown)),
        }
        errand.failed(&turn);
    }
}

/// The same at this server; [`Error::NoLeader`] means that it was not done because another leads.
async fn operate_here(
    core: &Core,
    hop: Hop,
    operation: &Operation,
    options: &OperateOptions,
) -> Result<Operated, Error> {
    let view = core.shared.view();
    let authority = authorise(core, &view, &options.token, operation.need()).await?;
    access::told(operation.guard(&authority, &view), operation.name())?;
    drop(view);
    match operation {
        Operation::Peers => peers(core).await.map(Operated::Peers),
        Operation::RaftConfiguration => {
            let configuration = configuration(core);
            if !options.stale && !core.leads() {
                return Err(Error::NoLeader);
            }
            Ok(Operated::RaftConfiguration(configuration))
        }
        Operation::RaftRemovePeer(address) => {
            remove_peer(core, address).await.map(|()| Operated::Nothing)
        }
        Operation::Keyring(verb) => {
            let pool = keyring(core, verb).await?;
            Ok(Operated::Keyring(vec![pool]))
        }
        Operation::ResolveToken => {
            let resolved = access::grant(core, hop, &options.token).await?;
            Ok(Operated::Policy(Box::new(resolved)))
        }
        Operation::FireEvent(event) => fire(core, event).await.map(Operated::Fired),
        Operation::SessionRenew(id) => {
            let session = leader::renew(core, *id, &authority).await?;
            Ok(Operated::Session(session))
        }
        Operation::UpdateCoordinate(coordinate) => {
            core.coordinates.take(coordinate)?;
            Ok(Operated::Nothing)
        }
        Operation::Promise { founder, promiser } => {
            founding::promise(core, *founder, *promiser).await?;
            Ok(Operated::Nothing)
        }
    }
}

/// Who takes part in consensus, as this server knows it.
fn configuration(core: &Core) -> RaftConfiguration {
    let status = core.consensus.status();
    let leader = status.leader.as_ref().map(|peer| peer.id);
    let known = match &core.gossip {
        Some(gossip) => directory::servers(gossip, &core.config.datacenter),
        None => Vec::new(),
    };
    let name = |peer: &Peer| {
        if core.gossip.is_none() && !peer.name.is_empty() {
            return peer.name.clone();
        }
        let here = |server: &&Known| {
            server.id == Some(peer.id) || server.address.to_string() == peer.address
        };
        match known.iter().find(here) {
            Some(server) => server.name.clone(),
            None => "(unknown)".to_owned(),
        }
    };
    let server = |peer: Peer, voter: bool| RaftServer {
        leader: Some(peer.id) == leader,
        node: name(&peer),
        address: peer.address,
        voter,
    };
    let voters = status.voters.into_iter().map(|peer| server(peer, true));
    let learners = status.learners.into_iter().map(|peer| server(peer, false));
    RaftConfiguration {
        servers: voters.chain(learners).collect(),
        index: status.membership_index,
    }
}

/// How long members may take to answer a question about their keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// Does something with the keys of all members of the datacenter's pool.
async fn keyring(core: &Core, verb: &KeyringVerb) -> Result<KeyringPool, Error> {
    let Some(gossip) = &core.gossip else {
        return Err(Error::Unavailable("this server runs alone".to_owned()));
    };
    let operation = match verb {
        KeyringVerb::List => KeyOperation::List,
        KeyringVerb::Install(key) => KeyOperation::Install(key.clone()),
        KeyringVerb::Use(key) => KeyOperation::Use(key.clone()),
        KeyringVerb::Remove(key) => KeyOperation::Remove(key.clone()),
    };
    let report = gossip.keys(operation, KEYS_TIMEOUT).await;
    Ok(pool(&core.config.datacenter, report))
}

// Or an event that leaves here would be taken for damaged.
const _: () = assert!(gossip::USER_EVENT_SIZE_MAX == rpc::event::SIZE_MAX);

/// Sends an event to all agents of the datacenter, this one included. No log and no leader has a part in it.
async fn fire(core: &Core, event: &NewEvent) -> Result<Uuid, Error> {
    let Some(gossip) = &core.gossip else {
        return Err(Error::Unavailable("this server runs alone".to_owned()));
    };
    // The agent that asks has looked as well; but it is only asked for by what its own release knows.
    event.validate()?;
    let id = core.draw_id();
    let (name, envelope) =
        rpc::event::encode(&event.fired(id)).map_err(|why| Error::invalid(why.to_string()))?;
    let sent = gossip.user_event(&name, envelope.into(), false).await;
    sent.map_err(|why| match why {
        EventError::TooLarge | EventError::Name => Error::invalid(why.to_string()),
        EventError::Closed => Error::Unavailable(why.to_string()),
    })?;
    Ok(id)
}

/// What the members said, in the original's words.
fn pool(datacenter: &str, report: KeyReport) -> KeyringPool {
    let KeyReport {
        members,
        answered,
        errors,
        keys,
    } = report;
    let error = if !errors.is_empty() {
        format!("{}/{members} nodes reported failure", errors.len())
    } else if answered < members {
        format!("{answered}/{members} nodes reported success")
    } else {
        String::new()
    };
    KeyringPool {
        wan: false,
        datacenter: datacenter.to_owned(),
        messages: errors,
        keys: keys
            .into_iter()
            .map(|(key, count)| (key, count as u64))
            .collect(),
        members: members as u64,
        error,
    }
}

/// Takes the server with this address out of consensus.
async fn remove_peer(core: &Core, address: &str) -> Result<(), Error> {
    let status = core.consensus.status();
    let found = status
        .voters
        .iter()
        .chain(&status.learners)
        .find(|peer| peer.address == address);
    let Some(peer) = found else {
        return Err(Error::NotFound(format!(
            "address {address:?} was not found in the Raft configuration"
        )));
    };
    tracing::info!("removing the server at {address} from Raft, as an operator wishes");
    match core.consensus.remove(peer.id).await {
        Ok(()) => Ok(()),
        Err(MembershipError::NotLeader { .. } | MembershipError::Stopped) => Err(Error::NoLeader),
        Err(MembershipError::OutcomeUnknown) => Err(Error::OutcomeUnknown),
        Err(error) => Err(Error::Unavailable(error.to_string())),
    }
}

/// Not by the figures: a server that makes a cluster must not say for a moment that it has none.
async fn peers(core: &Core) -> Result<Peers, Error> {
    let (voters, learners) =
        (core.consensus.members().await).map_err(|error| Error::Unavailable(error.to_string()))?;
    let leader = core.consensus.status().leader;
    Ok(Peers {
        leader: leader.map(|peer| peer.address).unwrap_or_default(),
        ids: voters.iter().chain(&learners).map(|peer| peer.id).collect(),
        servers: voters.into_iter().map(|peer| peer.address).collect(),
    })
}

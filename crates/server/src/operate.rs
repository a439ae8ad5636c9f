//! What an operator asks: who takes part in consensus, and with which keys the members gossip.

use model::{Error, Operated, Operation, Peers};
use rpc::OperateOptions;

use crate::access::authorise;
use crate::core::Core;

/// Does or tells something beside the state.
pub(crate) async fn operate(
    core: &Core,
    operation: Operation,
    options: OperateOptions,
) -> Result<Operated, Error> {
    core.route(&options.datacenter)?;
    authorise(
        &core.config,
        &core.shared.view(),
        &options.token,
        operation.need(),
    )?;
    match operation {
        Operation::Peers => Ok(Operated::Peers(peers(core))),
        Operation::RaftConfiguration
        | Operation::RaftRemovePeer(_)
        | Operation::Keyring(_)
        | Operation::UpdateCoordinate(_) => {
            Err(Error::Unavailable("this server runs alone".to_owned()))
        }
    }
}

fn peers(core: &Core) -> Peers {
    let status = core.consensus.status();
    Peers {
        leader: status.leader.map(|peer| peer.address).unwrap_or_default(),
        servers: status.voters.into_iter().map(|peer| peer.address).collect(),
    }
}

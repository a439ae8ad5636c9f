//! A server's good-bye: it hands over what it leads, tells the others, and sees itself taken out of the log's members.

use std::time::Duration;

use consensus::MembershipError;
use model::{Operated, Operation};
use rpc::{Hop, OperateOptions};
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::operate::operate;

/// How long a server waits to see itself gone; the original does the same.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Leaves the cluster for good.
///
/// A leader hands over first, so that nobody waits for an election.
/// Then everybody is told, and whoever leads takes this server out; one that still leads, because nobody could take over, can't.
pub(crate) async fn leave(core: &Core) {
    let is_alone = is_alone(core);
    if !is_alone && core.is_elected() {
        match core.consensus.transfer_to_any().await {
            Ok(_) => tracing::info!("handed over the lead"),
            Err(MembershipError::NotLeader { .. }) => {}
            Err(error) => tracing::error!("cannot hand over the lead before leaving: {error}"),
        }
    }
    if let Some(gossip) = &core.gossip {
        gossip.leave().await;
    }
    if !is_alone && timeout(GONE_WITHIN, gone(core)).await.is_err() {
        tracing::error!("failed to leave raft configuration gracefully, timeout");
    }
}

/// Whether there is no other member to say good-bye to.
fn is_alone(core: &Core) -> bool {
    let status = core.consensus.status();
    let me = core.consensus.id();
    let mut members = status.voters.iter().chain(&status.learners);
    members.all(|peer| peer.id == me)
}

/// Returns when the leader doesn't count this server any more. It is the leader who is asked: who is taken out may never hear of it.
async fn gone(core: &Core) {
    let address = core.config.raft_address();
    loop {
        let asked = operate(
            core,
            Hop::First,
            Operation::RaftConfiguration,
            OperateOptions::default(),
        );
        if let Ok(Operated::RaftConfiguration(configuration)) = asked.await {
            let mut servers = configuration.servers.iter();
            if servers.all(|server| server.address != address) {
                return;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

//! The pool of this datacenter as gossip knows it.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use gossip::Gossip;
use model::Coordinate;

use crate::join::{self, JoinAddress, SystemResolver};
use crate::{JoinError, Member, MemberStatus, Neighbours, Versions};

/// What members tell each other and nobody else: tags whose names begin so are not shown.
const HIDDEN: char = '_';

/// The neighbours that gossip knows.
#[derive(Debug, Clone)]
pub struct Pool {
    gossip: Gossip,
    /// The port of members whose address names none.
    port: u16,
}

impl Pool {
    /// The pool behind this handle; addresses that name no port are tried on `port`.
    pub fn new(gossip: Gossip, port: u16) -> Self {
        Self { gossip, port }
    }
}

impl Neighbours for Pool {
    fn members(&self) -> Vec<Member> {
        self.gossip.members().into_iter().map(seen).collect()
    }

    fn coordinate(&self) -> Option<Coordinate> {
        self.gossip.coordinate().map(|coordinate| Coordinate {
            vec: coordinate.vec.clone(),
            error: coordinate.error,
            adjustment: coordinate.adjustment,
            height: coordinate.height,
        })
    }

    fn join(&self, addresses: Vec<String>) -> BoxFuture<'static, Result<usize, JoinError>> {
        let Self { gossip, port } = self.clone();
        Box::pin(async move {
            let mut reasons = Vec::new();
            let mut known = Vec::new();
            for address in &addresses {
                match JoinAddress::parse(address, port) {
                    Ok(address) => known.push(address),
                    Err(why) => reasons.push(why),
                }
            }
            let (found, problems) = join::resolve(&known, &SystemResolver).await;
            reasons.extend(problems);
            let reached = match join_through(&gossip, found).await {
                Ok(reached) => reached,
                Err(JoinError(failures)) => {
                    reasons.extend(failures);
                    return Err(JoinError(reasons));
                }
            };
            for reason in reasons {
                tracing::warn!("{reason}");
            }
            Ok(reached)
        })
    }

    fn force_leave(&self, node: String) -> BoxFuture<'static, ()> {
        let gossip = self.gossip.clone();
        Box::pin(async move { gossip.force_leave(&node).await })
    }
}

/// The member as it is shown.
fn seen(member: gossip::Member) -> Member {
    let versions = |versions: gossip::Versions| Versions {
        min: versions.min,
        max: versions.max,
        current: versions.current,
    };
    let mut tags = member.tags;
    tags.retain(|name, _| !name.starts_with(HIDDEN));
    Member {
        name: member.name,
        address: member.address.ip(),
        port: member.address.port(),
        tags,
        status: match member.status {
            gossip::Status::Alive => MemberStatus::Alive,
            gossip::Status::Leaving => MemberStatus::Leaving,
            gossip::Status::Left => MemberStatus::Left,
            gossip::Status::Failed => MemberStatus::Failed,
        },
        protocol: versions(member.protocol),
        delegate: versions(member.delegate),
    }
}

/// Joins through these addresses, and says how many of them were reached.
///
/// # Errors
/// If none was, each with its reason.
pub async fn join_through(gossip: &Gossip, addresses: Vec<SocketAddr>) -> Result<usize, JoinError> {
    let own = gossip.local().address;
    let (own, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|at| *at == own);
    // What was sent before this node came is history to it, as with the original.
    let mut joined = gossip.join(&others, false).await;
    // Everybody may have the same list; a member that finds itself there has reached itself, as with the original.
    joined.reached += own.len();
    let failures = joined.failures.into_iter();
    let reasons: Vec<String> = failures
        .map(|(address, why)| format!("Failed to join {}: {why}", address.ip()))
        .collect();
    if joined.reached == 0 {
        return Err(JoinError(reasons));
    }
    for reason in reasons {
        // One that answers is enough; in a cluster that is just started others will come by themselves.
        tracing::info!("{reason}");
    }
    Ok(joined.reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_tags_are_not_shown() {
        let versions = gossip::Versions {
            min: 1,
            max: 5,
            current: 2,
        };
        let member = gossip::Member {
            name: "n1".to_owned(),
            address: "10.0.0.1:8301".parse().unwrap(),
            tags: ["role", "_raft"]
                .map(|name| (name.to_owned(), "x".to_owned()))
                .into(),
            status: gossip::Status::Failed,
            since: tokio::time::Instant::now(),
            protocol: versions,
            delegate: versions,
        };
        let seen = seen(member);
        assert_eq!(seen.tags.into_keys().collect::<Vec<_>>(), ["role"]);
        assert_eq!((seen.port, seen.status), (8301, MemberStatus::Failed));
    }
}

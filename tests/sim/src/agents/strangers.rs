//! Those who write to the catalog behind the agents' backs, and those who restore what it was.

use std::sync::Arc;
use std::time::Duration;

use model::{
    Check, Command, Deregister, Deregistration, Error, Node, NodeServices, Registration,
    RestoreMode, RestorePart, SERF_HEALTH, Section, Service, Text,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rpc::{RestoreOptions, SaveOptions, WriteOptions};
use tokio::time::sleep;

use crate::clients::{pieces, stream};
use crate::world::{PATIENCE, Told, World};

/// Where strangers say that nodes are; no agent is there.
const ADDRESS: &str = "10.9.9.9";

/// How many snapshots are kept to restore one of them.
const KEPT_MAX: usize = 4;

pub(super) struct Stranger {
    pub(super) world: World,
    pub(super) chance: ChaCha8Rng,
    /// The names of the agents' nodes.
    pub(super) nodes: Vec<Text>,
}

/// Whether a node is there because a stranger says so, and not because the servers ever saw its agent.
pub(super) fn is_theirs(node: Option<&NodeServices>, checks: &[Arc<Check>]) -> bool {
    node.is_some_and(|found| found.node.address == ADDRESS)
        && !checks.iter().any(|check| check.check_id == SERF_HEALTH)
}

impl Stranger {
    /// Waits, and says whether to go on.
    async fn pause(&mut self, from_ms: u64, to_ms: u64) -> bool {
        let pause = self.chance.random_range(from_ms..to_ms);
        sleep(Duration::from_millis(pause)).await;
        !self.world.with(|state| state.calms)
    }

    /// Registers on the agents' nodes what they don't have, and takes away what they have.
    pub(super) async fn meddle(mut self) {
        while self.pause(500, 9_000).await {
            let draw = self.chance.random();
            let Some(front) = self.world.any(draw) else {
                continue;
            };
            let command = self.command();
            self.world.tell("stranger", || format!("{command:?}"));
            let call = front.cluster.write(command, WriteOptions::default());
            self.world.ask(&front, PATIENCE, call).await;
        }
    }

    fn command(&mut self) -> Command {
        let node = self.nodes[self.chance.random_range(0..self.nodes.len())].clone();
        let id = |chance: &mut ChaCha8Rng| {
            // Some are the agent's own.
            Text::from(format!("service-{}", chance.random_range(0..9)))
        };
        let deregister = |node, what| Command::Deregister(Deregistration { node, what });
        match self.chance.random_range(0..6) {
            0 => {
                let id = id(&mut self.chance);
                deregister(node, Deregister::Service(id))
            }
            1 => {
                let id = format!("check-{}", self.chance.random_range(0..4));
                deregister(node, Deregister::Check(Text::from(id)))
            }
            2 => deregister(node, Deregister::Node),
            kind => {
                let id = id(&mut self.chance);
                let check = Check {
                    check_id: Text::from(format!("check-{}", self.chance.random_range(0..6))),
                    status: Text::from("critical"),
                    service_id: if kind == 3 {
                        id.clone()
                    } else {
                        Text::default()
                    },
                    ..Check::default()
                };
                let service = Service {
                    name: Text::from("strange"),
                    tags: Some(vec![Text::from("strange")]),
                    enable_tag_override: self.chance.random_bool(0.3),
                    id,
                    ..Service::default()
                };
                Command::Register(Box::new(Registration {
                    node: Node {
                        name: node,
                        address: Text::from(ADDRESS),
                        ..Node::default()
                    },
                    service: (kind < 5).then_some(service),
                    checks: vec![check],
                }))
            }
        }
    }

    /// Takes snapshots, and restores one of them now and then.
    pub(super) async fn go_back(mut self) {
        let mut kept: Vec<Vec<u8>> = Vec::new();
        while self.pause(3_000, 20_000).await {
            let draw = self.chance.random();
            let Some(front) = self.world.any(draw) else {
                continue;
            };
            if kept.is_empty() || self.chance.random_bool(0.6) {
                let call = async {
                    let mut save = front.cluster.save(SaveOptions::default()).await?;
                    let mut bytes = Vec::new();
                    while let Some(piece) = save.archive.next().await {
                        let piece = piece.map_err(|error| Error::Internal(error.to_string()))?;
                        bytes.extend_from_slice(&piece);
                    }
                    Ok(bytes)
                };
                if let Told::Answer(bytes) = self.world.ask(&front, PATIENCE, call).await {
                    self.world.with(|state| state.saves += 1);
                    if kept.len() == KEPT_MAX {
                        kept.remove(self.chance.random_range(0..KEPT_MAX));
                    }
                    kept.push(bytes);
                }
                continue;
            }
            let archive = pieces(&kept[self.chance.random_range(0..kept.len())]);
            // The catalog alone, as often as not.
            let part = self.chance.random_bool(0.5).then(|| {
                RestorePart::new(
                    [Section::Catalog].into(),
                    Vec::new(),
                    None,
                    RestoreMode::Replace,
                )
                .expect("the catalog is a part")
            });
            let options = RestoreOptions {
                part,
                ..RestoreOptions::default()
            };
            let call = front.cluster.restore(options, stream(archive));
            let told = self.world.ask(&front, PATIENCE * 2, call).await;
            self.world.tell("restore", || {
                let outcome = match &told {
                    Told::Answer(_) => "done".to_owned(),
                    Told::Refused(error) => format!("refused: {error}"),
                    Told::Unknown => "unknown".to_owned(),
                };
                format!("an earlier catalog: {outcome}")
            });
            self.world.with(|state| state.restores += 1);
        }
    }
}

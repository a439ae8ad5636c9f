//! Client agents: what keeps their services and checks in the catalog, beside everything that goes wrong.
//!
//! An [`Agent`] is a machine with a real keeper of services and checks (`agent::Local`) that reaches the servers over the
//! simulated network, and in lives with gossip a real member of the pool.
//! `truth.rs` is what the catalog has to come to, kept apart from the agent and as simply as can be; `script.rs` changes
//! both; `strangers.rs` are those who write to the catalog behind the agents' backs; `life.rs` tells such a life from
//! beginning to end, and `crowd.rs` how a large pool fares when all is well.

mod crowd;
mod life;
mod script;
mod strangers;
mod truth;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::{Definitions, Identity, Keeper, Local, LocalConfig, Role};
use gossip::Gossip;
use model::{NodeServices, Pairs, Service, Text};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rpc::{Cluster, Distant, ServerAddress, Servers};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;

pub use crowd::{Crowd, crowd};
pub use life::{AgentsReport, run_agents};

use crate::check::Violation;
use crate::check::catalog::{self, Expected};
use crate::network::{Network, address, pool_address};
use crate::world::World;
use truth::{EXPIRED, Truth};

/// Which pool it is to gossip; the servers' lives say the same.
const POOL: &str = "lan:dc1";

/// How often an agent that knows nobody tries to join.
const JOIN_INTERVAL: Duration = Duration::from_secs(2);

/// The machine of a client agent, whether or not the agent runs.
pub(crate) struct Machine {
    pub(crate) place: usize,
    /// How many servers there are; they have the first places.
    pub(crate) servers: usize,
    pub(crate) has_gossip: bool,
    /// How long new outputs may wait.
    pub(crate) update_interval: Duration,
    pub(crate) network: Network,
    pub(crate) world: World,
}

/// An agent that runs.
pub(crate) struct Agent {
    pub(crate) local: Local,
    /// The servers, as it reaches them.
    pub(crate) cluster: Cluster,
    gossip: Option<Gossip>,
    /// All that it does; what is dropped is never heard of again.
    tasks: JoinSet<()>,
}

impl Machine {
    pub(crate) fn name(&self) -> Text {
        Text::from(format!("agent-{}", self.place))
    }

    fn ip(&self) -> IpAddr {
        pool_address(self.place).ip()
    }

    fn tagged_addresses(&self) -> Pairs {
        let ip = Text::from(self.ip().to_string());
        ["lan", "wan"]
            .map(|kind| (Text::from(kind), ip.clone()))
            .into()
    }

    /// Starts its agent.
    pub(crate) async fn start(
        &self,
        definitions: Definitions,
        meta: Pairs,
        chance: &mut ChaCha8Rng,
    ) -> Result<Agent, Violation> {
        let broken = |why: String| Violation::new("an agent can start", why);
        let mut tasks = JoinSet::new();
        let servers = Distant::new(
            self.network.calls(self.place),
            Servers::new(chance.random()),
        );
        let config = LocalConfig {
            node: self.name(),
            address: Text::from(self.ip().to_string()),
            tagged_addresses: self.tagged_addresses(),
            node_meta: meta,
            check_update_interval: self.update_interval,
            seed: chance.random(),
            ..LocalConfig::default()
        };
        let (local, keeper) = Local::new(config);
        let gossip = if self.has_gossip {
            let gossip = self.gossip(chance).await.map_err(broken)?;
            self.follow(&gossip, &servers, &local, &mut tasks, chance);
            Some(gossip)
        } else {
            let known = (0..self.servers).filter_map(|place| {
                Some(ServerAddress {
                    address: address(place).parse().ok()?,
                    node: format!("server-{place}"),
                    datacenter: "dc1".to_owned(),
                })
            });
            servers.servers().set(known.collect());
            None
        };
        let started = self.keep(keeper, &servers, gossip.clone(), definitions, &mut tasks);
        match started.await {
            Ok(Ok(())) => Ok(Agent {
                local,
                cluster: Cluster::new(servers),
                gossip,
                tasks,
            }),
            Ok(Err(why)) => Err(broken(why.to_string())),
            Err(_) => Err(broken("its keeper ended".to_owned())),
        }
    }

    /// Who its agent is.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            node: String::from_utf8_lossy(&self.name()).into_owned(),
            datacenter: "dc1".to_owned(),
            id: String::new(),
            address: self.ip(),
            address_wan: self.ip(),
            role: Role::Client,
            version: "0.7.1".to_owned(),
            prerelease: String::new(),
            revision: String::new(),
            build: String::new(),
        }
    }

    async fn gossip(&self, chance: &mut ChaCha8Rng) -> Result<Gossip, String> {
        let identity = self.identity();
        let config = gossip::Config {
            tags: identity.member(&agent::Settings::default()).tags,
            seed: chance.random(),
            ..gossip::Config::new(identity.node, pool_address(self.place), POOL)
        };
        let gossip = Gossip::start(config, self.network.pool_end(self.place)).await;
        gossip.map_err(|error| error.to_string())
    }

    /// What hangs on gossip: joining, knowing the servers, hoping for them, and telling where this node is.
    fn follow(
        &self,
        gossip: &Gossip,
        servers: &Distant,
        local: &Local,
        tasks: &mut JoinSet<()>,
        chance: &mut ChaCha8Rng,
    ) {
        let others: Vec<_> = (0..self.servers).map(pool_address).collect();
        let joining = gossip.clone();
        tasks.spawn(async move {
            loop {
                if joining.members_count() <= 1 {
                    joining.join(&others, false).await;
                }
                sleep(JOIN_INTERVAL).await;
            }
        });
        let datacenter = || "dc1".to_owned();
        let following = agent::servers::follow(gossip.clone(), datacenter(), servers.clone());
        tasks.spawn(following);
        let hopeful = local.clone();
        let changed = move || hopeful.servers_changed();
        tasks.spawn(agent::servers::watch(gossip.clone(), datacenter(), changed));
        let (members, servers) = (gossip.clone(), servers.clone());
        let cluster = Cluster::new(servers.clone());
        tasks.spawn(async move { servers.rebalance(|| members.members_count()).await });
        tasks.spawn(agent::coordinates::tell(
            cluster,
            gossip.clone(),
            Text::default(),
            chance.random(),
        ));
    }

    fn keep(
        &self,
        keeper: Keeper,
        servers: &Distant,
        gossip: Option<Gossip>,
        definitions: Definitions,
        tasks: &mut JoinSet<()>,
    ) -> oneshot::Receiver<Result<(), agent::LocalError>> {
        let (started, has_started) = oneshot::channel();
        let cluster = Cluster::new(servers.clone());
        let members = move || gossip.as_ref().map_or(1, Gossip::members_count);
        tasks.spawn(keeper.run(cluster, definitions, members, started));
        has_started
    }

    /// The process of its agent is gone, and says nothing about it.
    pub(crate) fn kill(&self, agent: Agent) {
        self.network.disconnect(self.place);
        drop(agent);
    }

    /// Its agent leaves as it should: what would bring it back into the catalog ends first.
    pub(crate) async fn leave(&self, agent: Agent) {
        let Agent { gossip, tasks, .. } = agent;
        drop(tasks);
        if let Some(gossip) = gossip {
            gossip.leave().await;
            gossip.shutdown().await;
        }
        self.network.disconnect(self.place);
    }

    /// What the catalog has to say of its node; `local` knows what only the agent itself can know.
    pub(crate) fn expected(&self, truth: &Truth, local: &Local) -> Expected {
        let (services, checks) = (local.services(), local.checks());
        let offers = truth.services.iter().map(|(id, offer)| {
            let mut service = offer.service.clone();
            // Its tags are whatever somebody has made of them in the catalog.
            if service.enable_tag_override
                && let Some(here) = services.get(id)
            {
                service.tags = here.tags.clone();
            }
            (id.clone(), service)
        });
        let words = truth.checks.iter().map(|(id, word)| {
            let mut check = word.check.clone();
            check.node = self.name();
            if check.output == EXPIRED
                && let Some(here) = checks.get(id)
                && here.output.starts_with(EXPIRED.as_bytes())
            {
                check.output = here.output.clone();
            }
            (id.clone(), check)
        });
        Expected {
            address: Text::from(self.ip().to_string()),
            tagged_addresses: Some(self.tagged_addresses()),
            meta: truth.meta.clone(),
            services: offers.collect::<BTreeMap<Text, Service>>(),
            checks: words.collect(),
            outputs_count: self.update_interval < script::LONG,
            is_watched: self.has_gossip,
        }
    }

    /// Whether the agent itself knows what is true.
    pub(crate) fn is_aware(&self, expected: &Expected, local: &Local) -> Result<(), Violation> {
        let expected = Expected {
            outputs_count: true,
            is_watched: false,
            ..expected.clone()
        };
        let itself = NodeServices {
            node: Arc::new(model::Node {
                address: expected.address.clone(),
                tagged_addresses: expected.tagged_addresses.clone(),
                meta: expected.meta.clone(),
                ..model::Node::default()
            }),
            services: local.services().into_values().collect(),
        };
        let checks: Vec<_> = local.checks().into_values().collect();
        match catalog::difference(Some(&expected), Some(&itself), &checks) {
            None => Ok(()),
            Some(what) => Err(Violation::new(
                "an agent knows what it was told",
                format!("{}: {what}", self.name()),
            )),
        }
    }
}

//! Several agents that are meant to find one another.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::agent::{Agent, Ports, Spec};
use crate::chance::drawn;
use crate::patience::{PATIENCE, until};
use crate::relay::Relays;

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many servers.
    pub servers: usize,
    /// How many agents beside them.
    pub clients: usize,
    /// Whether all that goes between agents goes through this process.
    pub is_routed: bool,
    /// What every agent's configuration says in addition.
    pub settings: Map<String, Value>,
    /// Where each agent is to live; a loopback address of its own for those that this does not tell of.
    pub homes: Vec<Home>,
}

/// Where an agent lives.
#[derive(Debug, Clone)]
pub struct Home {
    /// Its address.
    pub address: Ipv4Addr,
    /// Ports that are free there.
    pub ports: Ports,
    /// What goes in front of the program's name to start it there.
    pub wrapping: Vec<String>,
}

impl Home {
    fn own() -> Self {
        let address = own_address();
        Self {
            address,
            ports: Ports::free(address),
            wrapping: Vec::new(),
        }
    }
}

impl Plan {
    /// So many servers, and nothing special.
    pub fn servers(servers: usize) -> Self {
        Self {
            servers,
            clients: 0,
            is_routed: false,
            settings: Map::new(),
            homes: Vec::new(),
        }
    }

    /// With these places for the first agents.
    #[must_use]
    pub fn at(mut self, homes: Vec<Home>) -> Self {
        self.homes = homes;
        self
    }

    /// With so many agents that are no servers.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// With all traffic between agents going through this process.
    #[must_use]
    pub fn routed(mut self) -> Self {
        self.is_routed = true;
        self
    }

    /// With these settings on every agent.
    #[must_use]
    pub fn with(mut self, settings: &Value) -> Self {
        self.settings
            .extend(settings.as_object().cloned().unwrap_or_default());
        self
    }
}

/// Some agents. All are killed when dropped, and their files removed.
#[derive(Debug)]
pub struct Cluster {
    /// The servers, and behind them the other agents.
    pub agents: Vec<Agent>,
    /// How many of them are servers.
    pub servers: usize,
    /// What their traffic goes through, if the plan says so.
    pub relays: Option<Relays>,
    room: TempDir,
}

impl Cluster {
    /// Agents that are not started yet.
    ///
    /// # Panics
    /// If their folders can't be made.
    pub fn new(plan: &Plan) -> Self {
        let room = tempfile::tempdir().expect("a folder for temporary files");
        let names = (0..plan.servers).map(|at| (format!("s{at}"), true));
        let names = names.chain((0..plan.clients).map(|at| (format!("c{at}"), false)));
        let mut homes = plan.homes.iter().cloned();
        let mut specs: Vec<Spec> = names
            .map(|(name, is_server)| {
                let home = homes.next().unwrap_or_else(Home::own);
                Spec {
                    name,
                    address: home.address,
                    ports: home.ports,
                    is_server,
                    settings: plan.settings.clone(),
                    wrapping: home.wrapping,
                }
            })
            .collect();
        let relays = plan.is_routed.then(|| Relays::start(&specs));
        let told: Vec<(SocketAddr, SocketAddr)> = match &relays {
            Some(relays) => relays.addresses(),
            None => specs
                .iter()
                .map(|spec| (spec.serf(), spec.server()))
                .collect(),
        };
        let joined: Vec<String> = told[..plan.servers]
            .iter()
            .map(|(serf, _)| serf.to_string())
            .collect();
        for (spec, (serf, server)) in specs.iter_mut().zip(&told) {
            let settings = &mut spec.settings;
            let mut set = |name: &str, value: Value| {
                settings.entry(name).or_insert(value);
            };
            set("retry_join", json!(joined));
            set("retry_interval", json!("300ms"));
            if spec.is_server && plan.servers > 1 {
                set("bootstrap_expect", json!(plan.servers));
            } else if spec.is_server {
                set("bootstrap", json!(true));
            }
            if plan.is_routed {
                set(
                    "advertise_addrs",
                    json!({"serf_lan": serf.to_string(), "rpc": server.to_string()}),
                );
            }
        }
        let agents = specs
            .into_iter()
            .map(|spec| Agent::new(room.path(), spec))
            .collect();
        Self {
            agents,
            servers: plan.servers,
            relays,
            room,
        }
    }

    /// Starts all agents and waits until the cluster takes writes and everybody knows everybody.
    pub fn form(plan: &Plan) -> Self {
        let mut cluster = Self::new(plan);
        for at in 0..cluster.agents.len() {
            cluster.start(at);
        }
        cluster.wait_until_writable();
        cluster.wait_for_members(cluster.agents.len());
        cluster
    }

    /// Adds another agent, not started yet, which is told to join the servers.
    pub fn add(&mut self, name: &str, is_server: bool, settings: &Value) -> usize {
        let home = Home::own();
        let mut all = self.agents[0].spec.settings.clone();
        all.remove("bootstrap_expect");
        all.remove("bootstrap");
        all.remove("advertise_addrs");
        all.extend(settings.as_object().cloned().unwrap_or_default());
        let spec = Spec {
            name: name.to_owned(),
            address: home.address,
            ports: home.ports,
            is_server,
            settings: all,
            wrapping: home.wrapping,
        };
        self.agents.push(Agent::new(self.room.path(), spec));
        self.agents.len() - 1
    }

    /// Starts one of them.
    pub fn start(&mut self, at: usize) {
        self.agents[at].start();
        if let (Some(relays), Some(process)) = (&self.relays, self.agents[at].process()) {
            relays.belongs(at, process);
        }
    }

    /// The places of the servers that run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.servers)
            .filter(|at| self.agents[*at].runs())
            .collect()
    }

    /// Where all of them answer HTTP.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.agents.iter().map(|agent| agent.spec.http()).collect()
    }

    /// All logs' ends, for a message.
    pub fn logs(&self) -> String {
        self.agents.iter().map(Agent::log).collect()
    }

    fn patiently<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> (T, Duration) {
        let mut look = look;
        let end = std::time::Instant::now() + PATIENCE;
        until(PATIENCE + Duration::from_secs(15), what, || {
            look().map_err(|seen| {
                if std::time::Instant::now() > end {
                    // Asked for once, when it is too late; a log may be long.
                    panic!(
                        "waited {PATIENCE:?} for this in vain: {what}. Seen last: {seen}\n{}",
                        self.logs()
                    );
                }
                seen
            })
        })
    }

    /// Waits until every running server takes a write, and returns how long that took.
    pub fn wait_until_writable(&self) -> Duration {
        let mut took = Duration::ZERO;
        for at in self.running() {
            let address = self.agents[at].spec.http();
            let (_, waited) = self.patiently("a server takes writes", || {
                let body = b"x";
                let patience = Duration::from_secs(12);
                match testkit::http::request(address, "PUT", "/v1/kv/ready", body, patience) {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
                    Err(error) => Err(error.to_string()),
                }
            });
            took += waited;
        }
        took
    }

    /// The place of the server that every running server names as the leader, once they agree.
    pub fn leader(&self) -> usize {
        let (leader, _) = self.patiently("the servers agree on a leader", || {
            let mut named = BTreeSet::new();
            for at in self.running() {
                let leader = self.agents[at].look("/v1/status/leader")?;
                named.insert(leader.as_str().unwrap_or_default().to_owned());
            }
            let told: Vec<String> = named.into_iter().collect();
            match told.as_slice() {
                [leader] if !leader.is_empty() => {
                    let at = self.place_of(leader);
                    let at = at.ok_or_else(|| format!("{leader} is nobody"))?;
                    if self.agents[at].runs() {
                        Ok(at)
                    } else {
                        Err(format!("{leader} does not run"))
                    }
                }
                _ => Err(format!("{told:?}")),
            }
        });
        leader
    }

    /// A running server that does not lead.
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let mut running = self.running().into_iter();
        running
            .find(|at| *at != leader)
            .expect("more than one server runs")
    }

    /// Whose address for calls of members this is.
    fn place_of(&self, address: &str) -> Option<usize> {
        let told = self.relays.as_ref().map(Relays::addresses);
        self.agents.iter().enumerate().position(|(at, agent)| {
            let relayed = told.as_ref().and_then(|told| told.get(at));
            agent.spec.server().to_string() == address
                || relayed.is_some_and(|(_, server)| server.to_string() == address)
        })
    }

    /// Waits until every running agent sees so many members alive.
    pub fn wait_for_members(&self, count: usize) -> Duration {
        let (_, took) = self.patiently(&format!("everybody sees {count} members alive"), || {
            for agent in self.agents.iter().filter(|agent| agent.runs()) {
                let alive = agent.members("alive")?;
                if alive.len() != count {
                    return Err(format!("{} sees {alive:?}", agent.spec.name));
                }
            }
            Ok(())
        });
        took
    }

    /// Waits until this agent is in this state in everybody else's eyes.
    pub fn wait_for_state(&self, at: usize, state: &str) -> Duration {
        let name = &self.agents[at].spec.name;
        let (_, took) = self.patiently(&format!("everybody sees {name} {state}"), || {
            let others = self.agents.iter().filter(|agent| agent.spec.name != *name);
            for agent in others.filter(|agent| agent.runs()) {
                if !agent.members(state)?.contains(name) {
                    return Err(format!("{} does not", agent.spec.name));
                }
            }
            Ok(())
        });
        took
    }

    /// Waits until the log's members are exactly these places, all voters, and returns their ids.
    pub fn wait_for_voters(&self, places: &[usize]) -> Vec<String> {
        let wanted: BTreeSet<&str> = places
            .iter()
            .map(|at| self.agents[*at].spec.name.as_str())
            .collect();
        let asked = self.running()[0];
        let (ids, _) = self.patiently(&format!("the voters are {wanted:?}"), || {
            let found = self.agents[asked].look("/v1/operator/raft/configuration")?;
            let servers = found["Servers"].as_array().cloned().unwrap_or_default();
            let names: BTreeSet<&str> = servers
                .iter()
                .filter(|server| server["Voter"] == true)
                .filter_map(|server| server["Node"].as_str())
                .collect();
            if names != wanted || servers.len() != wanted.len() {
                return Err(found.to_string());
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            Ok(servers.iter().map(|server| text(&server["ID"])).collect())
        });
        ids
    }

    /// Waits until the catalog holds exactly these nodes, and all that run are in good health.
    pub fn wait_for_catalog(&self, names: &[&str]) {
        let asked = self.running()[0];
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        self.patiently(&format!("the catalog holds {wanted:?}"), || {
            let nodes = self.agents[asked].look("/v1/catalog/nodes")?;
            let nodes = nodes.as_array().cloned().unwrap_or_default();
            let found: BTreeSet<&str> = nodes
                .iter()
                .filter_map(|node| node["Node"].as_str())
                .collect();
            if found != wanted {
                return Err(format!("{found:?}"));
            }
            let passing = self.agents[asked].look("/v1/health/state/passing")?;
            let passing = passing.as_array().cloned().unwrap_or_default();
            for agent in self.agents.iter().filter(|agent| agent.runs()) {
                let name = agent.spec.name.as_str();
                let is_well = passing
                    .iter()
                    .any(|check| check["Node"] == name && check["CheckID"] == "serfHealth");
                if !is_well {
                    return Err(format!("{name} is not in good health"));
                }
            }
            Ok(())
        });
    }

    /// Waits until all running servers show the same keys when asked alone.
    pub fn wait_until_alike(&self) {
        self.patiently("all servers hold the same keys", || {
            let mut states = BTreeSet::new();
            for at in self.running() {
                let state = self.agents[at].look("/v1/kv/?recurse&stale")?;
                states.insert(state.to_string());
            }
            match states.len() {
                1 => Ok(()),
                different => Err(format!("{different} different states")),
            }
        });
    }
}

impl Agent {
    /// The names of the members that are in this state, as this agent sees them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn members(&self, state: &str) -> Result<Vec<String>, String> {
        let number = match state {
            "alive" => 1,
            "leaving" => 2,
            "left" => 3,
            _ => 4,
        };
        let members = self.look("/v1/agent/members")?;
        let members = members.as_array().cloned().unwrap_or_default();
        Ok(members
            .iter()
            .filter(|member| member["Status"] == number)
            .filter_map(|member| member["Name"].as_str().map(ToOwned::to_owned))
            .collect())
    }
}

/// A loopback address that hardly anybody else on this machine uses at the same time.
pub fn own_address() -> Ipv4Addr {
    let [a, b, c, ..] = drawn().to_be_bytes();
    // Neither 127.0.0.1, where everybody is, nor a network's or a broadcast address.
    Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254))
}

//! A question's way: what it asks for, whoever knows that, and the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use metrics::{Counter, Histogram};
use model::{
    AddressLookup, Ask, Error, Execution, FoundInstances, GoDuration, Node, NodeLookup, Placements,
    Portion, QueryExecute, QuerySource, ServiceLookup, Shown, Text,
};
use rpc::{Cluster, Consistency, ReadOptions};

use crate::Config;
use crate::answer::{self, Asked, Bounds, Chains, Found};
use crate::domain::Name;
use crate::message::{
    self, Decoded, MESSAGE_MAX, Message, Outcome, Question, Record, Request, Style, kind,
};
use crate::name::{self, Lookup};
use crate::recurse::{self, Recursors};
use crate::server::Transport;
use crate::zone::Zone;

/// Answers that are older than this are counted.
const STALE: Duration = Duration::from_secs(5);

/// Instances that are looked at for an answer over TCP: more addresses than that fit into no message.
const INSTANCES_MAX: usize = 4096;

/// How many name servers the domain has at most.
const NAME_SERVERS_MAX: usize = 3;

/// Names of hosts that are followed for one question, all together; further ones are told without what they stand for, and circles end.
const FOLLOWED_MAX: usize = 16;

/// Records that are taken from what somebody else says about a name.
const CHAIN_MAX: usize = 5;

/// The service of the servers themselves.
const SERVERS: &str = "consul";

/// Everything that answers need.
#[derive(Debug)]
pub(crate) struct Resolver {
    zone: Zone,
    cluster: Cluster,
    token: Text,
    /// The empty text, shared.
    nobody: Text,
    /// From where prepared queries measure that want to be near to this agent.
    source: QuerySource,
    only_passing: bool,
    allow_stale: bool,
    max_stale: Duration,
    recursors: Recursors,
    style: Style,
    /// The next seed of a shuffle.
    chance: AtomicU64,
    domain_query: Histogram,
    pointer_query: Histogram,
    stale_queries: Counter,
}

/// What is left of a question for following names of hosts.
struct Leave {
    names: AtomicUsize,
}

impl Resolver {
    pub(crate) fn new(config: Config, cluster: Cluster) -> Self {
        let zone = Zone::new(&config);
        let node = config.node.to_lossy();
        Self {
            zone,
            cluster,
            nobody: Text::default(),
            source: QuerySource {
                datacenter: config.datacenter.clone(),
                node: config.node.clone(),
                near: Text::default(),
            },
            only_passing: config.only_passing,
            allow_stale: config.allow_stale,
            max_stale: config.max_stale,
            style: Style {
                recursion_available: !config.recursors.is_empty(),
                compression: !config.disable_compression,
            },
            chance: AtomicU64::new(config.seed),
            domain_query: metrics::histogram!(format!("consul.dns.domain_query.{node}")),
            pointer_query: metrics::histogram!(format!("consul.dns.ptr_query.{node}")),
            stale_queries: metrics::counter!("consul.dns.stale_queries"),
            recursors: Recursors::new(config.recursors, config.recursor_timeout),
            token: config.token,
        }
    }

    /// Answers what came; `None` if no one answers that.
    pub(crate) fn respond(
        self: &Arc<Self>,
        bytes: &[u8],
        transport: Transport,
        peer: SocketAddr,
    ) -> Response {
        match message::decode(bytes) {
            Decoded::Noise => Response::None,
            Decoded::Refused {
                id,
                operation,
                recursion_desired,
                outcome,
            } => Response::Ready(message::encode_refusal(
                id,
                operation,
                recursion_desired,
                outcome,
            )),
            Decoded::Request(request) => {
                let resolver = Arc::clone(self);
                Response::Later(Box::pin(async move {
                    resolver.answer(request, transport, peer).await
                }))
            }
        }
    }

    async fn answer(&self, request: Request, transport: Transport, peer: SocketAddr) -> Vec<u8> {
        let began = Instant::now();
        let limit = match transport {
            Transport::Udp => request.size_max(),
            Transport::Tcp => MESSAGE_MAX,
        };
        let encode = |message| message::encode(&request, message, self.style, limit);
        let Some(question) = &request.question else {
            return encode(foreign(Outcome::Failed));
        };
        if request.extension.is_some_and(|it| it.version > 0) {
            return encode(foreign(Outcome::LaterVersion));
        }
        let lookup = name::parse(&question.name, &self.zone.domain);
        let asked = Asked {
            name: &question.name,
            kind: question.kind,
            bounds: (transport == Transport::Udp).then(|| Bounds {
                size: limit,
                overhead: message::overhead(&request),
            }),
            now: now(),
        };
        let bytes = match lookup {
            Lookup::Elsewhere => self.pass_on(&request, question, transport).await,
            Lookup::Reverse(address) => {
                let bytes = match self.reverse(asked, address).await {
                    Some(message) => encode(message),
                    None => self.pass_on(&request, question, transport).await,
                };
                self.pointer_query.record(milliseconds(began));
                bytes
            }
            inside => {
                let leave = Leave {
                    names: AtomicUsize::new(FOLLOWED_MAX),
                };
                let message = self.look_up(asked, inside, &leave).await;
                let bytes = encode(message);
                self.domain_query.record(milliseconds(began));
                bytes
            }
        };
        tracing::debug!(
            "request for {{{} {} {}}} ({}) from client {peer} ({transport})",
            question.name,
            question.kind,
            question.class,
            GoDuration(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX)),
        );
        bytes
    }

    /// Asks the recursors on behalf of the client.
    async fn pass_on(
        &self,
        request: &Request,
        question: &Question,
        transport: Transport,
    ) -> Vec<u8> {
        let failed = |recursion_available| {
            let style = Style {
                recursion_available,
                ..self.style
            };
            message::encode(request, foreign(Outcome::Failed), style, MESSAGE_MAX)
        };
        if self.recursors.is_empty() {
            // The original promises recursion for addresses backwards in the same breath in which it has none.
            let is_reverse = question.name.labels().last() == Some(b"arpa");
            return failed(is_reverse);
        }
        let Some(mut answer) = self.recursors.ask(request, question, transport).await else {
            return failed(true);
        };
        // Recursion is available, here.
        answer[3] |= 0x80;
        if transport == Transport::Udp
            && answer.len() > request.size_taken().min(recurse::TAKEN_MAX)
        {
            return self.truncated(request, &answer);
        }
        answer
    }

    /// What can be told over UDP of an answer that is too long for it.
    fn truncated(&self, request: &Request, answer: &[u8]) -> Vec<u8> {
        let mut message = foreign(Outcome::Found);
        message.is_truncated = true;
        let mut bytes = message::encode(request, message, self.style, MESSAGE_MAX);
        bytes[3] = answer[3];
        bytes
    }

    /// The node of an address; `None` if there is none, or it can't be found out.
    async fn reverse(
        &self,
        asked: Asked<'_>,
        address: Option<std::net::IpAddr>,
    ) -> Option<Message> {
        let question = AddressLookup { address: address? };
        // Most addresses are no node's, so the recursors are asked also while no server answers.
        let node = self.ask(question, None).await.ok()??;
        Some(self.zone.pointer(asked, &node))
    }

    /// Answers a question about a name in the domain.
    fn look_up<'a>(
        &'a self,
        asked: Asked<'a>,
        lookup: Lookup,
        leave: &'a Leave,
    ) -> BoxFuture<'a, Message> {
        self.found(asked, lookup, leave)
            .map(|found| found.unwrap_or_else(|_| Message::of(Outcome::Failed)))
            .boxed()
    }

    async fn found(
        &self,
        asked: Asked<'_>,
        lookup: Lookup,
        leave: &Leave,
    ) -> Result<Message, Error> {
        let zone = &self.zone;
        Ok(match lookup {
            Lookup::Apex => match asked.kind {
                kind::SOA => zone.apex(asked, &Placements::default()),
                kind::NS => zone.apex(asked, &self.servers().await?),
                _ => zone.nothing(asked),
            },
            Lookup::Node { name, datacenter } => {
                // Of types that no node has the original doesn't even look whether there is such a node.
                if !answer::nodes_have(asked.kind) {
                    return Ok(zone.empty(asked, Outcome::Found));
                }
                let found = self.place(datacenter.as_ref());
                let question = NodeLookup { node: name };
                let node: Option<Arc<Node>> = self.ask(question, datacenter.as_ref()).await?;
                let host = node
                    .as_ref()
                    .and_then(|node| answer::host(node.address(found.prefer_wan)));
                let chains = self.follow(host, leave).await;
                zone.node(asked, node.as_deref(), found, &chains)
            }
            Lookup::Service {
                name,
                tag,
                datacenter,
            } => {
                let found = self.place(datacenter.as_ref());
                let question = ServiceLookup {
                    service: name.clone(),
                    tag,
                    only_passing: self.only_passing,
                    shown: answer::shown(asked.kind),
                    prefer_wan: found.prefer_wan,
                    limit: self.limit(asked),
                    seed: self.seed(),
                };
                let placements = self.ask(question, datacenter.as_ref()).await?;
                let chains = self.follow(answer::hosts(&placements, found), leave).await;
                let ttl = zone.service_ttl(&name);
                zone.service(asked, ttl, &placements, found, &chains)
            }
            Lookup::PreparedQuery { name, datacenter } => {
                let question = QueryExecute {
                    query: name,
                    execution: Execution {
                        datacenter: self.place(datacenter.as_ref()).datacenter.clone(),
                        source: self.source.clone(),
                        // There, 0 would mean all.
                        limit: self.limit(asked).max(1),
                        portion: Portion::Places {
                            shown: answer::shown(asked.kind),
                            translates_wan: zone.prefers_wan,
                        },
                        seed: self.seed(),
                    },
                };
                let executed = match self.ask(question, datacenter.as_ref()).await? {
                    Err(Error::NotFound(_)) => return Ok(zone.nothing(asked)),
                    executed => executed?,
                };
                let FoundInstances::Places(placements) = &executed.found else {
                    return Ok(Message::of(Outcome::Failed));
                };
                let found = self.place(Some(&executed.datacenter));
                let chains = self.follow(answer::hosts(placements, found), leave).await;
                let ttl = zone.query_ttl(&executed);
                zone.service(asked, ttl, placements, found, &chains)
            }
            Lookup::Address(address) => zone.address(asked, address),
            Lookup::NoAddress => zone.empty(asked, Outcome::Found),
            Lookup::Nothing => zone.nothing(asked),
            Lookup::Reverse(_) | Lookup::Elsewhere => Message::of(Outcome::Failed),
        })
    }

    /// How many instances may be shown.
    fn limit(&self, asked: Asked<'_>) -> usize {
        match asked.bounds {
            // One more tells whether there are more.
            Some(_) => self.zone.answers_max + usize::from(self.zone.tells_truncation),
            None => INSTANCES_MAX,
        }
    }

    /// Some of the servers, for the domain's name servers.
    async fn servers(&self) -> Result<Placements, Error> {
        let question = ServiceLookup {
            service: Text::from(SERVERS),
            tag: None,
            only_passing: false,
            shown: Shown::Ports,
            prefer_wan: false,
            limit: NAME_SERVERS_MAX,
            seed: self.seed(),
        };
        self.ask(question, None).await
    }

    /// Where an answer will come from.
    fn place<'a>(&'a self, datacenter: Option<&'a Text>) -> Found<'a> {
        let datacenter = datacenter.unwrap_or(&self.zone.datacenter);
        Found {
            datacenter,
            prefer_wan: self.zone.prefers_wan && *datacenter != self.zone.datacenter,
        }
    }

    /// Asks the servers, and once more the leader if the answer is too old.
    async fn ask<Q: Ask + Clone>(
        &self,
        question: Q,
        datacenter: Option<&Text>,
    ) -> Result<Q::Answer, Error> {
        let mut options = ReadOptions {
            token: self.token.clone(),
            datacenter: datacenter.unwrap_or(&self.nobody).clone(),
            consistency: if self.allow_stale {
                Consistency::Stale
            } else {
                Consistency::Default
            },
            index: 0,
            wait: Duration::ZERO,
        };
        let told = |error: &Error| tracing::warn!("the servers were asked in vain: {error}");
        if !self.allow_stale {
            let answered = self.cluster.read(question, options).await;
            return Ok(answered.inspect_err(told)?.answer);
        }
        let asked = self.cluster.read(question.clone(), options.clone());
        let mut answered = asked.await.inspect_err(told)?;
        if answered.meta.last_contact > self.max_stale {
            tracing::warn!("Query results too stale, re-requesting");
            options.consistency = Consistency::Default;
            let asked = self.cluster.read(question, options);
            answered = asked.await.inspect_err(told)?;
        }
        if answered.meta.last_contact > STALE {
            self.stale_queries.increment(1);
        }
        Ok(answered.answer)
    }

    /// Finds out what names of hosts stand for, as far as there is leave.
    async fn follow(&self, hosts: impl IntoIterator<Item = Name>, leave: &Leave) -> Chains {
        let mut names: Vec<Name> = Vec::new();
        for host in hosts {
            if !names.iter().any(|known| known.is(&host)) && leave.take() {
                names.push(host);
            }
        }
        if names.is_empty() {
            return Chains::new();
        }
        let chains = join_all(names.iter().map(|name| self.chain(name, leave))).await;
        names.iter().map(Name::lower).zip(chains).collect()
    }

    /// What a name of a host stands for.
    async fn chain(&self, host: &Name, leave: &Leave) -> Vec<Record> {
        if host.is_in(&self.zone.domain) {
            let asked = Asked {
                name: host,
                kind: kind::ANY,
                bounds: Some(Bounds {
                    size: message::PLAIN_MAX,
                    overhead: message::HEADER + host.wire().len() + 4,
                }),
                now: now(),
            };
            let lookup = name::parse(host, &self.zone.domain);
            let mut answers = self.look_up(asked, lookup, leave).await.answers;
            answers.truncate(CHAIN_MAX);
            return answers;
        }
        if self.recursors.is_empty() {
            return Vec::new();
        }
        let question = Question {
            name: host.clone(),
            // Also for those who ask for the other kind of address, as in the original.
            kind: kind::A,
            class: 1,
        };
        let request = Request {
            id: 0,
            recursion_desired: true,
            checking_disabled: false,
            authentic_data: false,
            question: None,
            extension: None,
        };
        let asked = self.recursors.ask(&request, &question, Transport::Udp);
        match asked.await {
            Some(answer) => message::decode_answers(&answer, CHAIN_MAX),
            None => Vec::new(),
        }
    }

    fn seed(&self) -> u64 {
        // Far apart, though whoever draws from it mixes anyway.
        const STEP: u64 = 0xd134_2543_de82_ef95;
        self.chance.fetch_add(STEP, Ordering::Relaxed)
    }
}

impl Leave {
    /// Whether one more may be followed.
    fn take(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        let taken = self
            .names
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.is_ok()
    }
}

/// What comes of a message.
pub(crate) enum Response {
    /// Nobody answers that.
    None,
    /// The answer.
    Ready(Vec<u8>),
    /// The answer, once it is known.
    Later(BoxFuture<'static, Vec<u8>>),
}

/// About something that is not ours.
fn foreign(outcome: Outcome) -> Message {
    Message {
        is_authoritative: false,
        ..Message::of(outcome)
    }
}

/// Seconds since 1970; a clock before that shows 0.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

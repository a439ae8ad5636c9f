//! A cluster that knows a few nodes and services by heart.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use model::{
    Answer, Command, Error, Executed, Execution, FoundInstances, NodeLookup, Operated, Operation,
    Pairs, Placement, Placements, Portion, QueryExecute, Question, Reply, Service, ServiceLookup,
    Shown, Text, parse_address,
};
use rpc::{
    Answered, Backend, ByteStream, Cluster, Meta, OperateOptions, ReadOptions, RestoreOptions,
    Restored, Save, SaveOptions, WriteOptions,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) nodes: Vec<Arc<model::Node>>,
    pub(crate) instances: Vec<(Placement, &'static str)>,
    queries: Vec<Query>,
    /// How old the answers of servers that don't lead are.
    pub(crate) last_contact: Duration,
    /// Every question fails.
    pub(crate) is_down: bool,
    /// Questions are answered only when they are asked for again.
    pub(crate) is_slow: bool,
    pub(crate) asked: Vec<(Question, ReadOptions)>,
}

/// A prepared query by its name: what it looks for, the TTL of the answers, and the datacenter that gives them if it isn't the one that was asked.
#[derive(Debug, Clone, Copy)]
struct Query {
    name: &'static str,
    service: &'static str,
    ttl: &'static str,
    elsewhere: &'static str,
}

impl Catalog {
    pub(crate) fn query(
        &self,
        name: &'static str,
        service: &'static str,
        ttl: &'static str,
        elsewhere: &'static str,
    ) -> &Self {
        self.state().queries.push(Query {
            name,
            service,
            ttl,
            elsewhere,
        });
        self
    }

    pub(crate) fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    pub(crate) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn node(&self, name: &str, address: &str) -> &Self {
        self.node_with(name, address, None)
    }

    pub(crate) fn node_with(&self, name: &str, address: &str, wan: Option<&str>) -> &Self {
        self.state().nodes.push(Arc::new(model::Node {
            name: Text::from(name),
            address: Text::from(address),
            tagged_addresses: wan.map(|wan| Pairs::from([("wan".into(), wan.into())])),
            ..model::Node::default()
        }));
        self
    }

    /// An instance on a node: its name, tags after commas, its own address or none, and its port.
    pub(crate) fn service(&self, node: &str, name: &str, address: &str, port: i64) -> &Self {
        self.service_that_is("passing", node, name, address, port)
    }

    pub(crate) fn service_that_is(
        &self,
        status: &'static str,
        node: &str,
        name: &str,
        address: &str,
        port: i64,
    ) -> &Self {
        let mut state = self.state();
        let on = state.nodes.iter().find(|it| it.name == node).cloned();
        let mut words = name.split(',');
        let service = Service {
            name: Text::from(words.next().unwrap()),
            tags: Some(words.map(Text::from).collect()),
            address: Text::from(address),
            port,
            ..Service::default()
        };
        let placement = Placement {
            node: on.unwrap(),
            service: Arc::new(service),
        };
        state.instances.push((placement, status));
        drop(state);
        self
    }
}

impl State {
    fn answer(&self, question: &Question, options: &ReadOptions) -> Result<Answer, Error> {
        if self.is_down {
            return Err(Error::NoLeader);
        }
        if !options.datacenter.is_empty()
            && !["dc1", "dc2"].iter().any(|dc| options.datacenter == *dc)
        {
            return Err(Error::NoPath);
        }
        Ok(match question {
            Question::NodeLookup(NodeLookup { node }) => {
                let mut nodes = self.nodes.iter();
                Answer::NodeLookup(nodes.find(|it| it.name.lower() == *node).cloned())
            }
            Question::AddressLookup(question) => {
                let mut nodes = self.nodes.iter();
                let is_it =
                    |it: &&Arc<model::Node>| parse_address(&it.address) == Some(question.address);
                Answer::AddressLookup(nodes.find(is_it).cloned())
            }
            Question::ServiceLookup(question) => Answer::ServiceLookup(self.pick(question)),
            Question::QueryExecute(question) => Answer::QueryExecute(self.execute(question)),
            other => panic!("nobody should ask {other:?}"),
        })
    }

    /// Nothing is near or far here: the order is that of the catalog.
    fn execute(&self, question: &QueryExecute) -> Result<Executed, Error> {
        let mut queries = self.queries.iter();
        let query = queries.find(|it| question.query == *it.name);
        let query = query.ok_or_else(|| Error::NotFound("Query not found".to_owned()))?;
        if query.service.is_empty() {
            return Err(Error::invalid("a template that can't be filled in"));
        }
        let Execution {
            datacenter,
            source,
            limit,
            portion,
            seed,
        } = &question.execution;
        let Portion::Places {
            shown,
            translates_wan,
        } = *portion
        else {
            panic!("names show places");
        };
        let datacenter = match query.elsewhere {
            "" => datacenter.clone(),
            elsewhere => Text::from(elsewhere),
        };
        let lookup = ServiceLookup {
            service: Text::from(query.service).lower(),
            tag: None,
            only_passing: false,
            shown,
            prefer_wan: translates_wan && datacenter != source.datacenter,
            limit: *limit,
            seed: *seed,
        };
        Ok(Executed {
            service: Text::from(query.service),
            dns_ttl: Text::from(query.ttl),
            failovers: u64::from(!query.elsewhere.is_empty()),
            found: FoundInstances::Places(self.pick(&lookup)),
            datacenter,
        })
    }

    fn pick(&self, question: &ServiceLookup) -> Placements {
        let mut seen = BTreeSet::new();
        let mut answer = Placements::default();
        for (placement, status) in &self.instances {
            let service = &placement.service;
            let has_tag = |tag: &Text| service.tags.iter().flatten().any(|it| it.lower() == *tag);
            if service.name.lower() != question.service
                || *status == "critical"
                || (question.only_passing && *status != "passing")
                || !question.tag.as_ref().is_none_or(has_tag)
            {
                continue;
            }
            answer.is_any = true;
            let address = service.address_on(&placement.node, question.prefer_wan);
            let parsed = parse_address(address);
            let fits = match question.shown {
                Shown::Ports | Shown::Addresses => true,
                Shown::Ipv4 => !matches!(parsed, Some(IpAddr::V6(_))),
                Shown::Ipv6 => !matches!(parsed, Some(IpAddr::V4(_))),
                Shown::Hosts => parsed.is_none(),
                Shown::Nothing => false,
            };
            let look = match question.shown {
                Shown::Ports => format!("{} {address} {}", placement.node.name, service.port),
                _ => address.to_string(),
            };
            if fits && answer.picked.len() < question.limit && seen.insert(look) {
                answer.picked.push(placement.clone());
            }
        }
        answer
    }
}

impl Backend for Catalog {
    fn read(
        &self,
        question: Question,
        options: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
        let catalog = self.clone();
        Box::pin(async move {
            if catalog.state().is_slow {
                tokio::task::yield_now().await;
            }
            let mut state = catalog.state();
            let is_stale = options.consistency == rpc::Consistency::Stale;
            let answer = state.answer(&question, &options);
            let meta = Meta {
                index: 1,
                last_contact: if is_stale {
                    state.last_contact
                } else {
                    Duration::ZERO
                },
                known_leader: true,
            };
            state.asked.push((question, options));
            answer.map(|answer| Answered { answer, meta })
        })
    }

    fn write(&self, _: Command, _: WriteOptions) -> BoxFuture<'static, Result<Reply, Error>> {
        unreachable!("names are only read")
    }

    fn save(&self, _: SaveOptions) -> BoxFuture<'static, Result<Save, Error>> {
        unreachable!("names are only read")
    }

    fn restore(
        &self,
        _: RestoreOptions,
        _: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>> {
        unreachable!("names are only read")
    }

    fn operate(
        &self,
        _: Operation,
        _: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>> {
        unreachable!("names are only read")
    }
}

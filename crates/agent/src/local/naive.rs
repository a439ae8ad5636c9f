//! A catalog that is as plain as can be, and servers that have one: what the tests of this folder write to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use model::{
    Answer, Check, Command, Deregister, Error, Node, NodeServices, Operated, Operation, Question,
    Registration, Reply, SERF_HEALTH, Service, Text,
};
use rpc::{
    Answered, Backend, ByteStream, Cluster, Meta, OperateOptions, ReadOptions, RestoreOptions,
    Restored, Save, SaveOptions, WriteOptions,
};

use super::sync::Catalog;

/// One node's part of the catalog; keys are lower-cased ids.
#[derive(Debug, Clone, Default)]
pub(super) struct Naive {
    pub(super) node: Option<Node>,
    pub(super) services: BTreeMap<Text, Service>,
    pub(super) checks: BTreeMap<Text, Check>,
}

impl Naive {
    /// Carries out what the servers would, or refuses it as they do.
    pub(super) fn apply(&mut self, command: &Command) -> Result<(), Error> {
        match command {
            Command::Register(registration) => self.register(registration),
            Command::Deregister(deregistration) => {
                match &deregistration.what {
                    Deregister::Service(id) => {
                        let id = id.lower();
                        self.services.remove(&id);
                        self.checks
                            .retain(|_, check| check.service_id.lower() != id);
                    }
                    Deregister::Check(id) => {
                        self.checks.remove(&id.lower());
                    }
                    Deregister::Node => *self = Self::default(),
                }
                Ok(())
            }
            other => panic!("an agent never sends {other:?}"),
        }
    }

    fn register(&mut self, registration: &Registration) -> Result<(), Error> {
        let Registration {
            node,
            service,
            checks,
        } = registration;
        self.node = Some(node.clone());
        if let Some(service) = service {
            self.services.insert(service.id.lower(), service.clone());
        }
        for check in checks {
            let service = self.services.get(&check.service_id.lower());
            if service.is_none() && !check.service_id.is_empty() {
                return Err(Error::invalid("Missing service registration"));
            }
            let check = Check {
                service_name: service.map(|it| it.name.clone()).unwrap_or_default(),
                ..check.clone()
            };
            self.checks.insert(check.check_id.lower(), check);
        }
        Ok(())
    }

    /// What the servers say of it.
    pub(super) fn catalog(&self) -> Catalog {
        let services = self.services.values().cloned().map(Arc::new);
        Catalog {
            node: self.node.clone().map(|node| NodeServices {
                node: Arc::new(node),
                services: services.collect(),
            }),
            checks: self.checks.values().cloned().map(Arc::new).collect(),
        }
    }

    /// What it says beside what the leader writes, in one line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let services = self.services.values();
        let services = services.map(|service| format!("{} {}", service.id, service.port));
        let checks = self.checks.values();
        let checks = checks.filter(|check| check.check_id != SERF_HEALTH);
        let checks = checks.map(|check| format!("{} {}", check.check_id, check.status));
        services.chain(checks).collect()
    }
}

/// Servers that have such a catalog.
#[derive(Clone, Default)]
pub(super) struct Servers(pub(super) Arc<Mutex<Inner>>);

/// What they have, and how they are.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) naive: Naive,
    /// What they say to everything.
    pub(super) error: Option<Error>,
    /// What they say to writes of this token.
    pub(super) refused: Option<Text>,
    /// How long they take for a write.
    pub(super) delay: Duration,
    /// Every question and every command, as it came, with its token.
    pub(super) asked: Vec<String>,
}

impl Servers {
    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// Looks at, or changes, what they have.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Inner) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// What they were asked since the last look.
    pub(super) fn asked(&self) -> Vec<String> {
        self.with(|inner| std::mem::take(&mut inner.asked))
    }
}

impl Inner {
    fn write(&mut self, command: &Command, token: &Text) -> Result<Reply, Error> {
        let what = match command {
            Command::Register(registration) => {
                let service = registration.service.iter();
                let service = service.map(|service| service.id.to_string());
                let checks = registration.checks.iter();
                let checks = checks.map(|check| format!("check {}", check.check_id));
                let what: Vec<String> = service.chain(checks).collect();
                format!("write {}", what.join(", "))
            }
            Command::Deregister(deregistration) => match &deregistration.what {
                Deregister::Service(id) => format!("remove {id}"),
                Deregister::Check(id) => format!("remove check {id}"),
                Deregister::Node => "remove".to_owned(),
            },
            other => format!("{other:?}"),
        };
        self.asked.push(format!("{what} [{token}]"));
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.refused.as_ref() == Some(token) {
            return Err(Error::PermissionDenied.from_afar());
        }
        self.naive.apply(command).map(|()| Reply::Nothing)
    }

    fn read(&mut self, question: &Question, token: &Text) -> Result<Answer, Error> {
        let catalog = self.naive.catalog();
        let answer = match question {
            Question::CatalogNode(_) => {
                self.asked.push(format!("read [{token}]"));
                Answer::CatalogNode(catalog.node)
            }
            Question::HealthNode(_) => Answer::HealthNode(catalog.checks),
            other => panic!("an agent never asks {other:?}"),
        };
        self.error.clone().map_or(Ok(answer), Err)
    }
}

impl Backend for Servers {
    fn read(
        &self,
        question: Question,
        options: ReadOptions,
    ) -> BoxFuture<'static, Result<Answered<Answer>, Error>> {
        let answer = self.with(|inner| inner.read(&question, &options.token));
        let meta = Meta::default();
        Box::pin(std::future::ready(
            answer.map(|answer| Answered { answer, meta }),
        ))
    }

    fn write(
        &self,
        command: Command,
        options: WriteOptions,
    ) -> BoxFuture<'static, Result<Reply, Error>> {
        let servers = self.clone();
        Box::pin(async move {
            let delay = servers.with(|inner| inner.delay);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            servers.with(|inner| inner.write(&command, &options.token))
        })
    }

    fn save(&self, _: SaveOptions) -> BoxFuture<'static, Result<Save, Error>> {
        unreachable!("no agent does that")
    }

    fn restore(
        &self,
        _: RestoreOptions,
        _: ByteStream,
    ) -> BoxFuture<'static, Result<Restored, Error>> {
        unreachable!("no agent does that")
    }

    fn operate(
        &self,
        _: Operation,
        _: OperateOptions,
    ) -> BoxFuture<'static, Result<Operated, Error>> {
        unreachable!("no agent does that")
    }
}

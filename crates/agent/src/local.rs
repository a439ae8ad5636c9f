//! The services and checks of this node, and what keeps the catalog true to them.
//!
//! [`Local`] is the handle that the faces hold, [`Keeper`] the one task that changes anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use model::{Access, Check, Pairs, Resource, Service, Text};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::access::Bearer;
use crate::checks;
use crate::definition::{CheckDefinition, ServiceDefinition, Status};

mod files;
mod guard;
mod keeper;
#[cfg(test)]
mod naive;
mod state;
mod sync;

pub(crate) use files::fuzz as fuzz_files;
pub use keeper::Keeper;

use state::State;

/// How many wishes may wait for the [`Keeper`]; who comes later waits for room.
const ASKS_MAX: usize = 256;

/// What a node's services and checks stand on.
#[derive(Clone, Default)]
pub struct LocalConfig {
    /// The node's name.
    pub node: Text,
    /// Where the node is reached.
    pub address: Text,
    /// Its addresses by kind, `lan` and `wan`.
    pub tagged_addresses: Pairs,
    /// Its id; empty if it has none.
    pub node_id: Text,
    /// Its metadata; the only part that a reload changes.
    pub node_meta: Pairs,
    /// What services and checks are written with that were defined without a token.
    pub token: Text,
    /// What the node itself is written with, what is found in the catalog and isn't here is forgotten with, and the catalog is read with.
    pub agent_token: Text,
    /// How long a check's new output may wait before the catalog is told: half of it to one and a half. Zero for not at all.
    pub check_update_interval: Duration,
    /// Where things registered over the API are kept; `None` keeps them in memory alone.
    pub data_dir: Option<PathBuf>,
    /// The service that the node offers by what it is: `consul` on servers. Nobody can deregister it.
    pub own_service: Option<Service>,
    /// Whether scripts that arrive over the API are run.
    pub api_scripts: ApiScripts,
    /// What all checks have in common.
    pub checks: checks::Config,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// Without the tokens.
impl fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConfig")
            .field("node", &self.node)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Whether scripts that arrive over the API are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApiScripts {
    /// They are.
    Allowed,
    /// They are if a token comes along, and the servers say of it that access rules deny by default, or that it may everything.
    Admitted,
    /// What comes with one is refused.
    #[default]
    Refused,
}

/// What configuration files define.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definitions {
    /// Services, with their checks.
    pub services: Vec<ServiceDefinition>,
    /// Checks of the node, and further ones of services.
    pub checks: Vec<CheckDefinition>,
}

/// How many there are of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalFigures {
    /// Checks that run a script.
    pub check_monitors: usize,
    /// Checks that wait to be told.
    pub check_ttls: usize,
    /// All checks.
    pub checks: usize,
    /// All services.
    pub services: usize,
}

/// Why something wasn't done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// There is no such service.
    #[error("No service registered with ID \"{0}\"")]
    UnknownService(Text),
    /// A check names a service that there is not.
    #[error("ServiceID \"{0}\" does not exist")]
    UnknownServiceOfCheck(Text),
    /// There is no such check, or it finds out for itself.
    #[error("CheckID \"{0}\" does not have associated TTL")]
    NotTtl(Text),
    /// It can't be done as it was asked for.
    #[error("{0}")]
    Refused(String),
    /// There is nothing of that id, and rules say who may change what there is.
    #[error("Unknown {kind} \"{id}\"")]
    Unknown {
        /// `service` or `check`.
        kind: &'static str,
        /// What was named.
        id: Text,
    },
    /// A rule is missing.
    #[error(transparent)]
    Denied(#[from] model::Error),
    /// It brings a script along, over the API.
    #[error(
        "scripts that arrive over the HTTP API are not run by this agent; enable_script_checks allows them, and so does a token of the request's own where access rules deny by default (acl_default_policy) and hold on agents (acl_enforce_version_8)"
    )]
    ScriptsRefused,
    /// It is done, but will be forgotten when this agent ends.
    #[error("failed to keep it on disk: {0}")]
    NotKept(String),
    /// This agent is ending, or has not begun.
    #[error("this agent is stopping already")]
    Stopping,
}

/// A handle to this node's services and checks; clones are the same.
///
/// What is done and seen through it is done and seen on somebody's word: anybody's, unless [`Local::on_behalf_of`] says whose.
#[derive(Clone)]
pub struct Local {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
    bearer: Bearer,
}

/// What handles and keeper have in common.
struct Shared {
    /// Written by the keeper alone, and never across an await.
    state: RwLock<State>,
    /// Told when a server came up or a leader was elected.
    servers_changed: Notify,
}

impl Shared {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a handle wants, with the way back for the outcome.
struct Ask {
    what: Want,
    bearer: Bearer,
    answer: oneshot::Sender<Result<(), LocalError>>,
}

/// What a handle wants.
enum Want {
    RegisterService(Box<ServiceDefinition>),
    DeregisterService(Text),
    RegisterCheck(Box<CheckDefinition>),
    DeregisterCheck(Text),
    UpdateTtl {
        id: Text,
        status: Status,
        output: Text,
    },
    NodeMaintenance(Maintenance),
    ServiceMaintenance {
        id: Text,
        maintenance: Maintenance,
    },
    Reload {
        definitions: Box<Definitions>,
        node_meta: Pairs,
    },
}

/// Whether something is to be taken out of use by hand.
enum Maintenance {
    Begin { reason: Option<Text>, token: Text },
    End,
}

impl Maintenance {
    fn new(reason: Option<Text>, enable: bool, token: Text) -> Self {
        if enable {
            Self::Begin { reason, token }
        } else {
            Self::End
        }
    }
}

impl Local {
    /// A node that offers its own service alone, and who has to be run to make it more.
    pub fn new(config: LocalConfig) -> (Self, Keeper) {
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let shared = Arc::new(Shared {
            state: RwLock::new(State::new(&config)),
            servers_changed: Notify::new(),
        });
        let keeper = Keeper::new(config, asked, Arc::clone(&shared));
        let bearer = Bearer::Anybody;
        let local = Self {
            asks,
            shared,
            bearer,
        };
        (local, keeper)
    }

    /// The same, as far as this bearer may change and see it.
    #[must_use]
    pub fn on_behalf_of(&self, bearer: Bearer) -> Self {
        Self {
            bearer,
            ..self.clone()
        }
    }

    /// The services, by id, as this node sees them.
    pub fn services(&self) -> BTreeMap<Text, Arc<Service>> {
        let mut services = self.shared.state().services();
        services.retain(|_, service| {
            let name = &service.name;
            self.bearer.allows(Resource::Service, name, Access::Read)
        });
        services
    }

    /// The checks, by id, as this node sees them.
    pub fn checks(&self) -> BTreeMap<Text, Arc<Check>> {
        let mut checks = self.shared.state().checks();
        checks.retain(|_, check| {
            let (resource, name) = if check.service_id.is_empty() {
                (Resource::Node, &check.node)
            } else {
                (Resource::Service, &check.service_name)
            };
            self.bearer.allows(resource, name, Access::Read)
        });
        checks
    }

    /// How many there are of what.
    pub fn figures(&self) -> LocalFigures {
        self.shared.state().figures()
    }

    /// Registers a service, or registers it anew, as somebody asks over the API: it is kept on disk.
    ///
    /// Returns when the catalog was told, or could not be told for now.
    /// Checks of the same id keep what they said last; checks that the definition doesn't name stay.
    ///
    /// # Errors
    /// If it can't be registered; then nothing has changed, except after [`LocalError::NotKept`].
    pub async fn register_service(&self, definition: ServiceDefinition) -> Result<(), LocalError> {
        self.ask(Want::RegisterService(Box::new(definition))).await
    }

    /// Takes a service away with its checks. That there is none is no error.
    ///
    /// # Errors
    /// If it is the node's own.
    pub async fn deregister_service(&self, id: Text) -> Result<(), LocalError> {
        self.ask(Want::DeregisterService(id)).await
    }

    /// Registers a check, or registers it anew, as somebody asks over the API: it is kept on disk.
    ///
    /// # Errors
    /// If it can't be registered; then nothing has changed, except after [`LocalError::NotKept`].
    pub async fn register_check(&self, definition: CheckDefinition) -> Result<(), LocalError> {
        self.ask(Want::RegisterCheck(Box::new(definition))).await
    }

    /// Takes a check away. That there is none is no error.
    ///
    /// # Errors
    /// If the id is empty.
    pub async fn deregister_check(&self, id: Text) -> Result<(), LocalError> {
        self.ask(Want::DeregisterCheck(id)).await
    }

    /// What somebody says of a check that waits to be told.
    ///
    /// Outputs well above 4,096 bytes are cut to their first 4,096.
    ///
    /// # Errors
    /// If there is no such check.
    pub async fn update_ttl(
        &self,
        id: Text,
        status: Status,
        output: Text,
    ) -> Result<(), LocalError> {
        let want = Want::UpdateTtl { id, status, output };
        self.ask(want).await
    }

    /// Takes this node out of use, or into use again.
    ///
    /// # Errors
    /// If it could not be kept on disk.
    pub async fn node_maintenance(
        &self,
        reason: Option<Text>,
        enable: bool,
        token: Text,
    ) -> Result<(), LocalError> {
        let maintenance = Maintenance::new(reason, enable, token);
        self.ask(Want::NodeMaintenance(maintenance)).await
    }

    /// Takes a service of this node out of use, or into use again.
    ///
    /// # Errors
    /// [`LocalError::UnknownService`] if there is none.
    pub async fn service_maintenance(
        &self,
        id: Text,
        reason: Option<Text>,
        enable: bool,
        token: Text,
    ) -> Result<(), LocalError> {
        let maintenance = Maintenance::new(reason, enable, token);
        self.ask(Want::ServiceMaintenance { id, maintenance }).await
    }

    /// Takes over what configuration files define now.
    ///
    /// Checks that stay keep what they said last, and what was registered over the API stays unless a file names the same id.
    ///
    /// # Errors
    /// If a definition can't be registered; then nothing has changed.
    pub async fn reload(
        &self,
        definitions: Definitions,
        node_meta: Pairs,
    ) -> Result<(), LocalError> {
        let definitions = Box::new(definitions);
        self.ask(Want::Reload {
            definitions,
            node_meta,
        })
        .await
    }

    /// A server came up, or a leader was elected: what could not be written before is tried again soon.
    pub fn servers_changed(&self) {
        self.shared.servers_changed.notify_one();
    }

    async fn ask(&self, what: Want) -> Result<(), LocalError> {
        let (answer, answered) = oneshot::channel();
        let bearer = self.bearer.clone();
        let ask = Ask {
            what,
            bearer,
            answer,
        };
        let sent = self.asks.send(ask).await;
        sent.map_err(|_| LocalError::Stopping)?;
        answered.await.unwrap_or(Err(LocalError::Stopping))
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}

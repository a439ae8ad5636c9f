//! What the bearer of a token may on this agent.
//!
//! From version 8 of access control on an agent judges by itself what is asked of it alone: its members, its services, its log.
//! What a token allows is the servers' to say; [`Tokens`] asks them, remembers the answer for as long as they say, and
//! knows what holds while they can't be asked. Everything that goes on to the servers is judged there and not here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::{
    Access, Authority, DownPolicy, Error, Grant, Operated, Operation, Policy, Resolved, Resource,
    Text,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ring::hmac;
use rpc::{Cluster, OperateOptions};
use tokio::time::Instant;

/// How many tokens are remembered; beyond that, the one that was not used for longest gives way.
const TOKENS_MAX: usize = 1024;

/// For how long nobody asks again whether tokens are in use, once servers said that they are not; the original does the same.
const DISABLED: Duration = Duration::from_secs(120);

/// For how long what was known of a token goes on to hold when nobody could be asked, before somebody tries again.
const EXTENSION: Duration = Duration::from_secs(10);

/// The longest that an answer is believed, whatever its sender says.
const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest time between two lines of the log that say that nobody can be asked.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// On whose word something is done on this agent.
#[derive(Debug, Clone)]
pub enum Bearer {
    /// No rules hold for what this agent is asked alone, whoever asks.
    Anybody,
    /// Somebody who may what this says.
    Holder(Authority),
}

impl Bearer {
    /// Whether they may go so far with what has this name.
    pub fn allows(&self, resource: Resource, name: &[u8], access: Access) -> bool {
        match self {
            Self::Anybody => true,
            Self::Holder(authority) => authority.allows(resource, name, access),
        }
    }

    /// The same as an error that says which rule is missing.
    ///
    /// # Errors
    /// [`Error::PermissionDeniedBecause`].
    pub fn demand(&self, resource: Resource, name: &[u8], access: Access) -> Result<(), Error> {
        match self {
            Self::Anybody => Ok(()),
            Self::Holder(authority) => authority.demand(resource, name, access),
        }
    }

    /// Whether nobody gets here without a token that says so: the rules deny by default, or this is a management token.
    pub(crate) fn is_admitted(&self) -> bool {
        match self {
            Self::Anybody => false,
            Self::Holder(authority) => authority.is_unlimited() || authority.denies_by_default(),
        }
    }
}

/// How an agent judges tokens by itself.
#[derive(Clone, Default)]
pub struct Config {
    /// The name of its node.
    pub node: Text,
    /// What holds while no server can be asked. Default: what was last known, or else nothing.
    pub down_policy: DownPolicy,
    /// The token whose bearer may ask everything of this agent, also while no server answers; empty (the default) for none.
    pub agent_master_token: Text,
    /// Decides everything that is left to chance.
    pub seed: u64,
}

/// Without the token.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("node", &self.node)
            .field("down_policy", &self.down_policy)
            .finish_non_exhaustive()
    }
}

/// What tokens allow on this agent; clones share what they remember.
#[derive(Clone)]
pub struct Tokens(Option<Arc<Inner>>);

struct Inner {
    cluster: Cluster,
    /// Tokens are remembered and compared by what this makes of them, so that neither memory nor time tells of them.
    key: hmac::Key,
    master: Option<(hmac::Tag, Authority)>,
    down_policy: DownPolicy,
    /// Never held across an await.
    memory: Mutex<Memory>,
}

/// A token, beyond recognition.
type Mark = Vec<u8>;

#[derive(Default)]
struct Memory {
    known: BTreeMap<Mark, Known>,
    /// Counts what is remembered and asked for, so that what was used last can be told.
    uses: u64,
    /// Until when servers need not be asked whether tokens are in use, since they are not.
    disabled_until: Option<Instant>,
    complained_at: Option<Instant>,
}

/// What servers said about a token.
struct Known {
    authority: Authority,
    until: Instant,
    used: u64,
}

impl Tokens {
    /// Before version 8: whoever reaches this agent may ask it anything.
    pub fn unjudged() -> Self {
        Self(None)
    }

    /// From version 8 on: what these servers say about a token counts.
    pub fn judged(config: Config, cluster: Cluster) -> Self {
        let mut chance = StdRng::seed_from_u64(config.seed);
        let secret: [u8; 32] = chance.random();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let master = (!config.agent_master_token.is_empty()).then(|| {
            let tag = hmac::sign(&key, &config.agent_master_token);
            (tag, of_the_master(config.node))
        });
        Self(Some(Arc::new(Inner {
            cluster,
            key,
            master,
            down_policy: config.down_policy,
            memory: Mutex::new(Memory::default()),
        })))
    }

    /// Who brings this token; an empty one is brought by whoever brings none.
    ///
    /// # Errors
    /// [`Error::AclNotFound`] if the servers know no such token, and what else they say against it.
    pub async fn bearer(&self, token: &Text) -> Result<Bearer, Error> {
        let Some(inner) = &self.0 else {
            return Ok(Bearer::Anybody);
        };
        let mark = hmac::sign(&inner.key, token).as_ref().to_vec();
        if let Some(bearer) = inner.recall(&mark, token) {
            return Ok(bearer);
        }
        let options = OperateOptions {
            token: token.clone(),
            ..OperateOptions::default()
        };
        let asked = inner.cluster.operate(Operation::ResolveToken, options);
        match asked.await {
            Ok(Operated::Policy(resolved)) => inner.learn(mark, *resolved),
            Ok(_) => inner.make_do(
                &mark,
                &Error::Internal("a server answered another question".to_owned()),
            ),
            Err(error) => match error.kind() {
                // They were asked, and this is what they say.
                Error::PermissionDenied
                | Error::PermissionDeniedBecause(_)
                | Error::AclNotFound
                | Error::NotFound(_)
                | Error::Invalid(_) => {
                    inner.memory().known.remove(&mark);
                    Err(error)
                }
                Error::NoLeader
                | Error::NoServers
                | Error::NoPath
                | Error::Restored
                | Error::OutcomeUnknown
                | Error::Unavailable(_)
                | Error::Internal(_)
                | Error::Remote(_) => inner.make_do(&mark, &error),
            },
        }
    }
}

/// What the agent's own master token allows: all that this agent is asked itself, and to see which nodes there are.
fn of_the_master(node: Text) -> Authority {
    let rules = [
        (Resource::Agent, node, Access::Write),
        (Resource::Node, Text::default(), Access::Read),
    ];
    Authority::limited(Policy::new(rules, Access::Deny), true)
}

/// What is allowed where nothing is known.
fn anything_or_nothing(otherwise: Access) -> Bearer {
    Bearer::Holder(Authority::limited(Policy::new([], otherwise), true))
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What can be said without asking anybody.
    fn recall(&self, mark: &Mark, token: &Text) -> Option<Bearer> {
        let now = Instant::now();
        let mut memory = self.memory();
        if memory.disabled_until.is_some_and(|until| now < until) {
            return Some(Bearer::Anybody);
        }
        if let Some((tag, authority)) = &self.master
            && hmac::verify(&self.key, token, tag.as_ref()).is_ok()
        {
            return Some(Bearer::Holder(authority.clone()));
        }
        memory.uses += 1;
        let used = memory.uses;
        let known = memory.known.get_mut(mark)?;
        known.used = used;
        (now < known.until).then(|| Bearer::Holder(known.authority.clone()))
    }

    /// Takes in what the servers say about a token.
    fn learn(&self, mark: Mark, resolved: Resolved) -> Result<Bearer, Error> {
        let now = Instant::now();
        let mut memory = self.memory();
        if resolved.grant == Grant::Disabled {
            memory.disabled_until = Some(now + DISABLED);
            memory.known.clear();
            return Ok(Bearer::Anybody);
        }
        memory.disabled_until = None;
        let authority = match resolved.grant.authority(true) {
            Ok(authority) => authority,
            Err(error) => {
                memory.known.remove(&mark);
                return Err(error);
            }
        };
        memory.make_room(&mark);
        let known = Known {
            authority: authority.clone(),
            until: now + resolved.ttl.min(TTL_MAX),
            used: memory.uses,
        };
        memory.known.insert(mark, known);
        Ok(Bearer::Holder(authority))
    }

    /// What holds while the servers can't be asked.
    fn make_do(&self, mark: &Mark, why: &Error) -> Result<Bearer, Error> {
        let now = Instant::now();
        let mut memory = self.memory();
        let is_news = memory
            .complained_at
            .is_none_or(|at| now >= at + COMPLAINT_INTERVAL);
        if is_news {
            memory.complained_at = Some(now);
            tracing::warn!(
                "no server says what a token allows, so acl_down_policy = \"{}\" decides: {why}",
                self.down_policy.as_str()
            );
        }
        Ok(match self.down_policy {
            DownPolicy::Allow => anything_or_nothing(Access::Write),
            DownPolicy::Deny => anything_or_nothing(Access::Deny),
            DownPolicy::ExtendCache => match memory.known.get_mut(mark) {
                Some(known) => {
                    // Or each request would wait as long for the servers as this one did.
                    known.until = now + EXTENSION;
                    Bearer::Holder(known.authority.clone())
                }
                None => anything_or_nothing(Access::Deny),
            },
        })
    }
}

impl Memory {
    fn make_room(&mut self, mark: &Mark) {
        if self.known.len() < TOKENS_MAX || self.known.contains_key(mark) {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.used);
        if let Some(oldest) = oldest.map(|(mark, _)| mark.clone()) {
            self.known.remove(&oldest);
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Judged"
        } else {
            "Unjudged"
        })
    }
}

#[cfg(test)]
mod tests;
